//! Signing keys as they are stored, and what is done with them.

use std::time::Duration;

use super::{LogEntry, Note};
use crate::clock::UnixMillis;

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
    pub note: Option<Note>,
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
