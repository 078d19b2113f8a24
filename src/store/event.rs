//! Who changed what, when, from where.

use std::net::IpAddr;

use async_trait::async_trait;

use super::Result;
use crate::{clock::UnixMillis, types::UserId};

/// What is noted of a change, in the transaction that makes it.
#[derive(Debug, Clone)]
pub struct Event {
    /// The account that changed it; none for the command line.
    pub actor_id: Option<UserId>,
    /// Its name, or the system user of the command line. Empty where it is the account that the line is about, whose
    /// name the store knows, and where nobody has shown who they are.
    pub actor: String,
    /// The network address that it came from.
    pub address: Option<String>,
    /// What was done, such as `user.disable`.
    pub action: &'static str,
    /// What else there is to know; never a secret.
    pub detail: String,
}

impl Event {
    /// Of what an account does with itself.
    pub fn own(user: UserId, address: IpAddr, action: &'static str, detail: String) -> Self {
        let (actor, address) = (String::new(), Some(address.to_string()));
        Self { actor_id: Some(user), actor, address, action, detail }
    }

    /// Of what somebody did who has not shown who they are.
    pub fn of_stranger(address: IpAddr, action: &'static str, detail: String) -> Self {
        Self { actor_id: None, actor: String::new(), address: Some(address.to_string()), action, detail }
    }

    /// The name of whoever did it to `subject`.
    pub(super) fn actor<'a>(&'a self, subject_id: Option<UserId>, subject: &'a str) -> &'a str {
        let is_own = self.actor_id.is_some() && self.actor_id == subject_id;
        if self.actor.is_empty() && is_own { subject } else { &self.actor }
    }
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
    /// Who did it; empty where that is not known.
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

/// What has happened, and to whom.
#[async_trait]
pub trait Events: Send + Sync {
    /// Records what changed nothing else; of an account only while there is one.
    async fn record(&self, subject: Option<UserId>, event: &Event) -> Result<()>;

    /// The audit trail, newest first.
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>>;
}
