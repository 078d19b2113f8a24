//! Changes of accounts and their results.

use super::{Event, Grant, LogEntry, NewMail, NewSession, Purpose};
use crate::types::{Roles, Username};

/// A change of an account.
#[derive(Clone, Default)]
pub struct AccountChange {
    /// A new name.
    pub name: Option<Username>,
    /// The hash of a new password.
    pub password_hash: Option<String>,
    /// New roles.
    pub roles: Option<Roles>,
    /// Whether to disable or enable it.
    pub disabled: Option<bool>,
    /// A new unverified address, or none to remove it.
    pub email: Option<Option<String>>,
    /// Whether a verified address stays until the new one is verified.
    pub email_pending: bool,
    /// The mails to be queued.
    pub mails: Vec<NewMail>,
    /// Whether to remove its second factors and recovery codes.
    pub remove_factors: bool,
    /// Whether to delete it.
    pub delete: bool,
    /// The generation that the account must have.
    pub expected_generation: Option<i64>,
    /// Whether to refuse a change that removes the last administrator.
    pub keep_last_admin: bool,
    /// The sessions that end.
    pub ends: Ends,
    /// The mail token that allows the change, to be used up. A verification token verifies the address.
    pub spends: Option<Spend>,
    /// The event to be recorded.
    pub event: Option<Event>,
}

impl AccountChange {
    /// Returns whether the account's API keys end.
    pub(super) fn ends_api_keys(&self) -> bool {
        self.delete || self.disabled == Some(true)
    }

    /// Returns whether the account's API keys, if it has any, are others after it: they show its name and its roles.
    pub fn touches_api_keys(&self) -> bool {
        self.ends_api_keys() || self.name.is_some() || self.roles.is_some()
    }
}

/// The sessions that end with a change of an account.
#[derive(Debug, Clone, Default)]
pub enum Ends {
    /// All sessions and tokens.
    #[default]
    All,
    /// All sessions except one, which gets new tokens.
    Others(Box<Rekey>),
    /// None. The generation stays.
    Nothing,
}

/// A mail token to be used up.
#[derive(Clone, Copy)]
pub struct Spend {
    /// The purpose of the mail.
    pub purpose: Purpose,
    /// SHA-256 of the token.
    pub token_hash: [u8; 32],
}

/// New tokens for a session that is kept.
#[derive(Debug, Clone)]
pub struct Rekey {
    /// The session. Its fields replace those of the row with the same id.
    pub session: NewSession,
    /// Whether the user was authenticated just now.
    pub authenticated: bool,
}

/// The result of a change.
#[derive(Debug, Clone)]
pub enum Change {
    /// Done. With the log entry if sessions ended, and the right to issue tokens if a session was kept.
    Done(Option<LogEntry>, Option<Box<Grant>>),
    /// Refused: the account, the session or the mail token does not exist.
    Gone,
    /// Refused: the account has another generation.
    Conflict,
    /// Refused: the name is taken or retired.
    NameTaken,
    /// Refused: another account has verified the address.
    AddressTaken,
    /// Refused: the account is the last administrator.
    LastAdmin,
}
