//! Links of accounts to providers, by whom their owners sign in.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Event, Result, User};
use crate::{clock::UnixMillis, types::UserId};

/// A link to be made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewLink {
    /// Its id.
    pub id: Uuid,
    /// The provider's issuer.
    pub issuer: String,
    /// The person's identifier there.
    pub subject: String,
    /// The provider's name here.
    pub provider: String,
    /// The person's name there.
    pub label: String,
}

/// A link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its id.
    pub id: Uuid,
    /// The provider's name here.
    pub provider: String,
    /// The person's name there.
    pub label: String,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// The result of creating a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// It is made, or was there.
    Done,
    /// It is another account's.
    Taken,
    /// The account is gone, disabled, or of another generation.
    Gone,
}

/// The result of removing a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlinked {
    /// It is removed.
    Done,
    /// There is no such link.
    None,
    /// It is the only way in.
    Last,
}

/// The links of accounts to providers.
#[async_trait]
pub trait Links: Send + Sync {
    /// Finds the account that is linked to a subject of an issuer.
    async fn linked_user(&self, issuer: &str, subject: &str) -> Result<Option<User>>;

    /// Lists the links of an account, the oldest first.
    async fn links(&self, user: UserId) -> Result<Vec<Link>>;

    /// Links an account, if it has this generation still.
    async fn add_link(&self, user: UserId, generation: i64, link: &NewLink, event: &Event) -> Result<Linked>;

    /// Removes a link, unless nothing else lets its owner in.
    async fn remove_link(&self, user: UserId, id: Uuid, event: &Event) -> Result<Unlinked>;

    /// Spends a state, and stores its hash for `keep_for` milliseconds. Returns false if it was spent before.
    async fn spend_state(&self, hash: &[u8; 32], keep_for: i64) -> Result<bool>;
}
