//! Links to set a new password that an operator gives away, where there is no mail or no address.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{AccountError, Actor, Operator, Result};
use crate::{
    clock::{UnixMillis, millis},
    error::Kind,
    store::{NewResetLink, User},
    types::{Secret, hash::sha256},
};

/// Bytes of a token.
const TOKEN: usize = 20;

/// How long a link holds, unless something else is said.
pub const RESET_LINK_HOLDS_FOR: Duration = Duration::from_secs(86_400);

/// The longest time.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// A link that was made. Its token is not stored.
pub struct ResetLink {
    /// The token.
    pub token: Secret,
    /// When it expires.
    pub expires_at: UnixMillis,
}

impl ResetLink {
    /// Returns the link to give away, by a page's link with `{token}` in it.
    pub fn link(&self, page: &str) -> String {
        page.replace("{token}", self.token.expose())
    }
}

/// Returns what the store keeps of a token; `None` for what none looks like.
pub(super) fn hash(token: &str) -> Option<[u8; 32]> {
    (token.len() == (TOKEN * 4).div_ceil(3)).then(|| sha256(token.as_bytes()))
}

impl Operator {
    /// Makes a link by which an account gets a new password. It holds once, in place of those that were made before, and not
    /// beyond another change of the password or the address.
    ///
    /// # Errors
    /// [`AccountError`]; `Not found` for an account that is disabled or gone.
    pub async fn reset_link(&self, by: &Actor, user: &User, holds_for: Duration) -> Result<ResetLink> {
        if holds_for.is_zero() || holds_for > LONGEST {
            return Err(AccountError::Explained(Kind::MissingParameters, "expected a time of up to 30 days"));
        }
        let token = Secret::new(URL_SAFE_NO_PAD.encode(self.random.bytes::<TOKEN>()));
        let new = NewResetLink {
            id: uuid::Builder::from_random_bytes(self.random.bytes()).into_uuid(),
            user: user.id,
            token_hash: sha256(token.expose().as_bytes()),
            holds_for: millis(holds_for),
        };
        let made = self.store.add_reset_link(&new, &by.event("user.reset-link", String::new())).await?;
        let expires_at = made.ok_or(AccountError::Refused(Kind::NotFound))?;
        Ok(ResetLink { token, expires_at })
    }
}
