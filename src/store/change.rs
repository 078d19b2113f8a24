//! Changes of accounts, and what becomes of them.

use super::{Event, Grant, LogEntry, NewMail, NewSession, Purpose};
use crate::types::{Roles, Username};

/// What to do with an account.
#[derive(Clone, Default)]
pub struct AccountChange {
    /// A new name.
    pub name: Option<Username>,
    /// A new password's hash.
    pub password_hash: Option<String>,
    /// New roles.
    pub roles: Option<Roles>,
    /// Disabled or enabled.
    pub disabled: Option<bool>,
    /// A new address, not verified yet; or none any more.
    pub email: Option<Option<String>>,
    /// Whether a verified address goes on until the new one is verified.
    pub email_pending: bool,
    /// The mails that go with it.
    pub mails: Vec<NewMail>,
    /// Gone.
    pub delete: bool,
    /// The change was asked for of the account in this generation and no other.
    pub expected_generation: Option<i64>,
    /// Refuse to take away the last account that administers.
    pub keep_last_admin: bool,
    /// What ends with it.
    pub ends: Ends,
    /// The token of a mail that allows the change, which uses it up. One to verify an address makes it verified.
    pub spends: Option<Spend>,
    /// What the audit trail says of it.
    pub event: Option<Event>,
}

/// What ends with a change of an account.
#[derive(Debug, Clone, Default)]
pub enum Ends {
    /// Every session, and with them every token.
    #[default]
    All,
    /// Every session but one, which moves along with new tokens.
    Others(Box<Rekey>),
    /// Nothing.
    Nothing,
}

/// A token of a mail, to be used up.
#[derive(Clone, Copy)]
pub struct Spend {
    /// What the mail was for.
    pub purpose: Purpose,
    /// SHA-256 of the token.
    pub token_hash: [u8; 32],
}

/// New tokens for a session that moves to a new generation.
#[derive(Debug, Clone)]
pub struct Rekey {
    /// The session; its fields replace those of the row with the same id.
    pub session: NewSession,
    /// Whether a password was given just now.
    pub authenticated: bool,
}

/// What became of a change.
#[derive(Debug, Clone)]
pub enum Change {
    /// It happened; this is its log row if anything ended, and the right to issue tokens if a session moved along.
    Done(Option<LogEntry>, Option<Box<Grant>>),
    /// There is no such account, no such session, or no such token.
    Gone,
    /// The account is of another generation than was expected.
    Conflict,
    /// The name is or was taken.
    NameTaken,
    /// The address was shown to be another account's.
    AddressTaken,
    /// It is the last account that administers.
    LastAdmin,
}
