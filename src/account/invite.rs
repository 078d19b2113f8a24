//! Invitations: an operator lets strangers make accounts by a link, also where registration is closed.

use std::time::Duration;

use uuid::Uuid;

use super::{AccountError, Accounts, Actor, Operator, Result};
use crate::{
    clock::{UnixMillis, millis},
    error::Kind,
    store::{Invitation, NewInvitation},
    token::OpaqueToken,
    types::{Roles, Secret},
};

/// An invitation that was made. The token is not stored.
#[derive(Debug)]
pub struct Invited {
    /// Its id.
    pub id: Uuid,
    /// The token of its link.
    pub token: Secret,
    /// When it expires.
    pub expires_at: UnixMillis,
}

/// What is invited to.
#[derive(Debug)]
pub struct InvitationRequest {
    /// The roles of its accounts, beside the default ones.
    pub roles: Roles,
    /// How many accounts may be made by it.
    pub uses: u32,
    /// How long it holds.
    pub holds_for: Duration,
}

impl InvitationRequest {
    /// How long an invitation holds, unless something else is said.
    pub const USUAL: Duration = Duration::from_secs(7 * 86_400);
    /// The longest time.
    pub const LONGEST: Duration = Duration::from_secs(366 * 86_400);
    /// The most accounts by one.
    pub const MOST_USES: u32 = 100_000;
}

impl Invited {
    /// Returns the link to give away; `page` is where people register.
    pub fn link(&self, page: &str) -> String {
        format!("{page}?invitation={}", self.token.expose())
    }
}

impl Operator {
    /// Makes an invitation.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn invite(&self, by: &Actor, wanted: InvitationRequest) -> Result<Invited> {
        let id = uuid::Builder::from_random_bytes(self.random.bytes()).into_uuid();
        let token = OpaqueToken::generate(&*self.random);
        let InvitationRequest { roles, uses, holds_for } = wanted;
        let is_legal = (1..=InvitationRequest::MOST_USES).contains(&uses)
            && !holds_for.is_zero()
            && holds_for <= InvitationRequest::LONGEST;
        if !is_legal {
            return Err(AccountError::Explained(
                Kind::MissingParameters,
                "expected 1 to 100000 uses, and a time of up to a year",
            ));
        }
        let detail = format!("invitation: {id}, roles: {roles}, uses: {uses}");
        let new = NewInvitation { id, token_hash: token.hash, roles, uses, holds_for: millis(holds_for) };
        let expires_at = self.store.add_invitation(&new, &by.event("invitation.create", detail)).await?;
        Ok(Invited { id, token: token.text, expires_at })
    }
}

impl Accounts {
    /// Returns an invitation with the hash of its token.
    ///
    /// # Errors
    /// When it does not hold, or not any more.
    pub(super) async fn invitation(&self, token: &str) -> Result<([u8; 32], Invitation)> {
        let hash = OpaqueToken::hash_of(token);
        let found = self.store.invitation(&hash).await?;
        found.map(|found| (hash, found)).ok_or(AccountError::Refused(Kind::InvalidMailToken))
    }

    /// Returns whether an invitation holds.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn is_invited(&self, token: &str) -> Result<bool> {
        Ok(self.store.invitation(&OpaqueToken::hash_of(token)).await?.is_some())
    }
}
