//! Changes of accounts and their results.

use super::{Event, Grant, LogEntry, NewMail, NewSession, Purpose, User};
use crate::types::{AttributeChanges, Roles, Username};

/// A change of an account.
#[derive(Clone, Default)]
pub struct AccountChange {
    /// A new name.
    pub name: Option<Username>,
    /// The hash of a new password.
    pub password_hash: Option<String>,
    /// Whether the owner is to choose another password before anything else; a new password says no unless this says yes.
    pub must_change_password: Option<bool>,
    /// New roles.
    pub roles: Option<Roles>,
    /// New values of attributes.
    pub attributes: AttributeChanges,
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

    /// Returns whether the account's API keys, if it has any, are others after it: they show its name, its roles, and what claims say.
    fn touches_api_keys(&self) -> bool {
        self.ends_api_keys()
            || self.name.is_some()
            || self.roles.is_some()
            || self.email.is_some()
            || !self.attributes.is_empty()
    }

    /// Returns the generation for [`LogEntry::of_key_owner`], if the account's API keys are to be read again after a change that led to
    /// `generation`.
    pub fn key_owner_generation(&self, generation: i64) -> Option<i64> {
        // Verifying an address takes nothing away.
        if self.touches_api_keys() { Some(generation) } else { self.verifies().then_some(0) }
    }

    /// Returns the attributes as they are stored after it, if it changes any.
    pub(super) fn stored_attributes(&self, user: &User) -> Option<String> {
        (!self.attributes.is_empty()).then(|| user.attributes.changed(&self.attributes).stored())
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
