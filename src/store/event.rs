//! Events: who did what to which account, when, and from where. The audit trail shows them.

use std::net::IpAddr;

use async_trait::async_trait;

use super::Result;
use crate::{clock::UnixMillis, types::UserId};

/// An event, recorded in the transaction of the change.
#[derive(Debug, Clone)]
pub struct Event {
    /// The account of the actor. None for the command line.
    pub actor_id: Option<UserId>,
    /// The name of the actor, or the system user of the command line. Empty if the actor is the subject, or unknown.
    pub actor: String,
    /// The actor's network address.
    pub address: Option<String>,
    /// The action, such as `user.disable`.
    pub action: &'static str,
    /// Further details. Never a secret.
    pub detail: String,
}

impl Event {
    /// Creates an event of an account that acts on itself.
    pub fn own(user: UserId, address: IpAddr, action: &'static str, detail: String) -> Self {
        let (actor, address) = (String::new(), Some(address.to_string()));
        Self { actor_id: Some(user), actor, address, action, detail }
    }

    /// Creates an event of an unauthenticated client.
    pub fn of_stranger(address: IpAddr, action: &'static str, detail: String) -> Self {
        Self { actor_id: None, actor: String::new(), address: Some(address.to_string()), action, detail }
    }

    /// Returns the name of the actor.
    pub(super) fn actor<'a>(&'a self, subject_id: Option<UserId>, subject: &'a str) -> &'a str {
        let is_own = self.actor_id.is_some() && self.actor_id == subject_id;
        if self.actor.is_empty() && is_own { subject } else { &self.actor }
    }
}

/// An entry of the audit trail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditEntry {
    /// Its sequence number.
    pub seq: i64,
    /// When it happened.
    pub at: UnixMillis,
    /// The id of the actor.
    pub actor_id: Option<String>,
    /// The name of the actor. Empty if unknown.
    pub actor: String,
    /// The actor's network address.
    pub address: Option<String>,
    /// The action.
    pub action: String,
    /// The id of the subject.
    pub subject_id: Option<String>,
    /// The name of the subject.
    pub subject: String,
    /// Further details.
    pub detail: String,
}

/// A query of the audit trail, newest first.
#[derive(Debug, Clone, Default)]
pub struct AuditFilter {
    /// Only entries with a lower sequence number.
    pub before: Option<i64>,
    /// Only entries about this account.
    pub subject: Option<UserId>,
    /// The greatest number of entries.
    pub limit: u32,
}

/// The events of the store.
#[async_trait]
pub trait Events: Send + Sync {
    /// Records an event that comes with no change. An event about an account that does not exist is dropped.
    async fn record(&self, subject: Option<UserId>, event: &Event) -> Result<()>;

    /// Returns a page of the audit trail, newest first.
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>>;
}
