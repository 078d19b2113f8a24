//! Signing keys as they are stored, and what is done with them.

use std::time::Duration;

use async_trait::async_trait;

use super::{Event, LogEntry, Result};
use crate::clock::UnixMillis;

/// The latest expiry of any token of a user or a client.
pub(super) const LATEST_EXPIRY: &str = "SELECT max(latest) FROM (SELECT max(access_exp_max) AS latest FROM users \
     UNION ALL SELECT max(access_exp_max) FROM clients) AS t";

/// Keys to be revoked.
#[derive(Debug, Clone)]
pub struct KeyRevocation {
    /// One key; none for all of them, and for all sessions with them.
    pub kid: Option<String>,
    /// The key that takes over if none is left that would sign; without it, whoever can makes one.
    pub successor: Option<StoredKey>,
    /// When that begins to sign, from now on.
    pub delay: Duration,
    /// How long the access tokens live that the keys have signed.
    pub access_ttl: Duration,
    /// What the audit trail says of it.
    pub event: Option<Event>,
}

/// Keys that were revoked.
#[derive(Debug, Clone)]
pub struct KeysRevoked {
    /// Their ids.
    pub kids: Vec<String>,
    /// Their rows in the log.
    pub entries: Vec<LogEntry>,
    /// The key that took over.
    pub successor: Option<StoredKey>,
}

/// A signing key, its private half wrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Its id, as in the header of tokens.
    pub kid: String,
    /// `EdDSA` or `ES256`.
    pub algorithm: String,
    /// The public half, raw.
    pub public_key: Vec<u8>,
    /// The private half, sealed by the master secret.
    pub wrapped_key: Vec<u8>,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it begins to sign.
    pub signs_at: UnixMillis,
    /// When it stops verifying.
    pub expires_at: Option<UnixMillis>,
}

/// The keys that sign access tokens.
#[async_trait]
pub trait SigningKeys: Send + Sync {
    /// Every signing key that may still verify.
    async fn signing_keys(&self) -> Result<Vec<StoredKey>>;

    /// Adds a key that signs after `delay`, unless there is one of its algorithm that may sign. Here as below,
    /// it is longer where a gateway that runs on the store has a bound that is.
    async fn create_key_if_none(&self, key: &StoredKey, delay: Duration) -> Result<()>;

    /// Adds a key that signs after `delay`, and lets its predecessors verify until the tokens
    /// that they sign meanwhile have expired.
    async fn rotate_key(
        &self,
        key: &StoredKey,
        delay: Duration,
        access_ttl: Duration,
        event: Option<&Event>,
    ) -> Result<StoredKey>;

    /// Revokes keys: no token that they signed is good any more. `None` when there is no such key.
    async fn revoke_keys(&self, revocation: &KeyRevocation) -> Result<Option<KeysRevoked>>;
}
