//! Who changed what, when, from where.

use crate::{clock::UnixMillis, types::UserId};

/// What is noted of a change, in the transaction that makes it.
#[derive(Debug, Clone)]
pub struct Note {
    /// The account that changed it; none for the command line.
    pub actor_id: Option<UserId>,
    /// Its name, or the system user of the command line.
    pub actor: String,
    /// The network address that it came from.
    pub address: Option<String>,
    /// What was done, such as `user.disable`.
    pub action: &'static str,
    /// What else there is to know; never a secret.
    pub detail: String,
}

/// A line of the trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its number, rising.
    pub seq: i64,
    /// When.
    pub at: UnixMillis,
    /// The id of who did it.
    pub actor_id: Option<String>,
    /// Who did it.
    pub actor: String,
    /// From where.
    pub address: Option<String>,
    /// What.
    pub action: String,
    /// The id of what was changed.
    pub subject_id: Option<String>,
    /// The name of what was changed.
    pub subject: String,
    /// What else there is to know.
    pub detail: String,
}

/// Which lines are asked for, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only lines with a lower number.
    pub before: Option<i64>,
    /// Only lines about this account.
    pub subject: Option<UserId>,
    /// At most so many.
    pub limit: u32,
}
