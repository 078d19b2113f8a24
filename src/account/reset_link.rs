//! Reset links: an operator lets somebody set a new password where there is no mail, or no address.

use std::time::Duration;

use super::{AccountError, Actor, Operator, Result};
use crate::{
    clock::{UnixMillis, millis},
    error::Kind,
    store::{NewResetLink, User},
    token::OpaqueToken,
    types::Secret,
};

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
    /// Returns the link, by the address of the page with `{token}` in it.
    pub fn link(&self, page: &str) -> String {
        page.replace("{token}", self.token.expose())
    }
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
        let token = OpaqueToken::generate(&*self.random);
        let new = NewResetLink {
            id: uuid::Builder::from_random_bytes(self.random.bytes()).into_uuid(),
            user: user.id,
            token_hash: token.hash,
            generation: None,
            holds_for: millis(holds_for),
        };
        let made = self.store.add_reset_link(&new, &by.event("user.reset-link", String::new())).await?;
        let expires_at = made.ok_or(AccountError::Refused(Kind::NotFound))?;
        Ok(ResetLink { token: token.text, expires_at })
    }
}
