//! Invitations: links by which strangers may make accounts.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Event, Result};
use crate::{clock::UnixMillis, types::Roles};

/// An invitation to be stored.
#[derive(Clone)]
pub struct NewInvitation {
    /// Its id.
    pub id: Uuid,
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// The roles of its accounts, beside the default ones.
    pub roles: Roles,
    /// How many accounts may be made by it.
    pub uses: u32,
    /// How long it holds, in milliseconds.
    pub holds_for: i64,
}

/// An invitation that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The roles of its accounts, beside the default ones.
    pub roles: Roles,
}

/// Invitations. [`Users::create_user`](super::Users::create_user) uses them.
#[async_trait]
pub trait Invitations: Send + Sync {
    /// Stores an invitation. Returns when it expires.
    async fn add_invitation(&self, invitation: &NewInvitation, event: &Event) -> Result<UnixMillis>;

    /// Finds an invitation that holds by the hash of its token.
    async fn invitation(&self, token_hash: &[u8; 32]) -> Result<Option<Invitation>>;
}
