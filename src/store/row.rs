//! Accounts and sessions: what goes into the store and comes out of it.

use std::time::Duration;

use super::{LogEntry, NewMail, Note, millis};
use crate::{
    clock::UnixMillis,
    types::{Role, Roles, SessionId, UserId, Username},
};

/// The columns of [`User`].
pub(super) const USER: &str = "id, name, email, password_hash, roles, disabled, generation, created_at, email_verified, external_id, \
     pending_email";

/// The columns of [`Session`].
pub(super) const SESSION: &str = "id, user_id, generation, created_at, authenticated_at, last_used_at, ends_at, \
     refresh_expires_at, rotated_at, refresh_number, current_hash, previous_hash, nonce, \
     address, user_agent";

/// An account.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its canonical name.
    pub name: Username,
    /// Its e-mail address, as given.
    pub email: Option<String>,
    /// The password's hash in PHC form.
    pub password_hash: String,
    /// Its roles.
    pub roles: Roles,
    /// Whether it may not log in.
    pub disabled: bool,
    /// Tokens of older generations are dead.
    pub generation: i64,
    /// When it was made.
    pub created_at: UnixMillis,
    /// Whether the address was shown to be the account's.
    pub email_verified: bool,
    /// The id that it had in the program that it came from.
    pub external_id: Option<String>,
    /// An address that was not shown to be the account's yet, while `email` goes on.
    pub pending_email: Option<String>,
}

impl User {
    /// The address that a mail to verify one goes to: the newest.
    pub fn unverified_email(&self) -> Option<&str> {
        let unverified = self.email.as_deref().filter(|_| !self.email_verified);
        self.pending_email.as_deref().or(unverified)
    }
}

/// An account to be made.
#[derive(Clone)]
pub struct NewUser {
    /// Its id.
    pub id: UserId,
    /// Its name.
    pub name: Username,
    /// Its e-mail address.
    pub email: Option<String>,
    /// The password's hash.
    pub password_hash: String,
    /// Its roles.
    pub roles: Roles,
    /// Whether the name of a former account may be given out again.
    pub release: bool,
    /// Whether the name may look like another's.
    pub similar: bool,
    /// The mail that goes to its address.
    pub mail: Option<NewMail>,
    /// What the audit trail says of it.
    pub note: Option<Note>,
}

/// How the holder of a session has shown who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// By the account's password.
    Password,
}

impl Proof {
    /// The method's name (RFC 8176, section 2).
    pub(super) fn method(self) -> &'static str {
        match self {
            Self::Password => "pwd",
        }
    }
}

/// Where a session was opened, as far as that is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// The client's address.
    pub address: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
}

/// A session to be opened.
#[derive(Clone)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// How its holder has shown who they are.
    pub proof: Proof,
    /// Where.
    pub place: Place,
    /// SHA-256 of its first refresh token.
    pub refresh_hash: [u8; 32],
    /// What its next refresh token will be derived with.
    pub nonce: [u8; 16],
    /// How long things live.
    pub ttls: Ttls,
    /// The most sessions of the account, this one included: the one that was used longest ago ends for it.
    pub most: u32,
}

/// Which of a user's sessions to list, newest first.
#[derive(Debug, Clone, Copy)]
pub struct SessionPage {
    /// How many at most.
    pub limit: u32,
    /// Those behind the session that was opened then and has this id.
    pub after: Option<(UnixMillis, SessionId)>,
}

impl SessionPage {
    /// Reads where a page begins, as [`Self::cursor`] has written it.
    pub fn parse(cursor: &str) -> Option<(UnixMillis, SessionId)> {
        let (created_at, id) = cursor.split_once('.')?;
        Some((created_at.parse().ok()?, SessionId::parse(id)?))
    }

    /// Where the page behind a session begins.
    pub fn cursor(session: &Session) -> String {
        format!("{}.{}", session.created_at, session.id)
    }
}

/// How long tokens and sessions live.
#[derive(Debug, Clone, Copy)]
pub struct Ttls {
    /// An access token.
    pub access: Duration,
    /// A refresh token.
    pub refresh: Duration,
    /// A session.
    pub session: Duration,
}

impl Ttls {
    pub(super) fn access_end(&self, now: UnixMillis) -> UnixMillis {
        now + millis(self.access)
    }

    /// Never after its session.
    pub(super) fn refresh_end(&self, now: UnixMillis, session_end: UnixMillis) -> UnixMillis {
        (now + millis(self.refresh)).min(session_end)
    }

    pub(super) fn session_end(&self, now: UnixMillis) -> UnixMillis {
        now + millis(self.session)
    }
}

/// A session as it is.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// The user's generation when it was opened or moved.
    pub generation: i64,
    /// When it was opened.
    pub created_at: UnixMillis,
    /// When a password was last given.
    pub authenticated_at: UnixMillis,
    /// When a token was last issued.
    pub last_used_at: UnixMillis,
    /// When it ends, whatever is refreshed.
    pub ends_at: UnixMillis,
    /// When its refresh token expires.
    pub refresh_expires_at: UnixMillis,
    /// When its refresh token was last replaced.
    pub rotated_at: UnixMillis,
    /// The number of its refresh token.
    pub refresh_number: u32,
    /// SHA-256 of its refresh token.
    pub current_hash: [u8; 32],
    /// SHA-256 of the one before.
    pub previous_hash: Option<[u8; 32]>,
    /// What the current token was derived with.
    pub nonce: [u8; 16],
    /// Where it was opened.
    pub place: Place,
}

/// The right to issue tokens: read under the row locks, in the transaction that allowed it.
#[derive(Debug, Clone)]
pub struct Grant {
    /// The account as it is.
    pub user: User,
    /// The session that the tokens belong to.
    pub session: SessionId,
    /// When that ends, whatever is refreshed.
    pub session_ends_at: UnixMillis,
    /// When the access token is issued, by the database's clock.
    pub issued_at: UnixMillis,
    /// The log rows of sessions that ended to make room.
    pub ended: Vec<LogEntry>,
}

/// An account that was made, and its session.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The account.
    pub user: User,
    /// The right to issue tokens, if a session was asked for.
    pub grant: Option<Grant>,
}

/// A genuine refresh token, to be exchanged.
#[derive(Clone)]
pub struct RotationRequest {
    /// The session it names.
    pub session: SessionId,
    /// SHA-256 of it.
    pub presented: [u8; 32],
    /// SHA-256 of its successor, derived with `nonce`.
    pub successor: [u8; 32],
    /// A fresh nonce.
    pub nonce: [u8; 16],
    /// For how long a replay is answered alike.
    pub grace: Duration,
    /// How long things live.
    pub ttls: Ttls,
    /// What the audit trail says if the token was used before.
    pub replayed: Note,
}

/// What became of a refresh token.
#[derive(Debug, Clone)]
pub enum Rotation {
    /// It was the live one; its successor is derived with the request's nonce.
    Rotated(Grant),
    /// It was just replaced; its successor is derived with this nonce.
    Replayed(Grant, [u8; 16]),
    /// It was used before: the session was ended.
    Ended(LogEntry),
    /// It was used before, and nobody knows whether the session was ended for it.
    InDoubt(LogEntry),
    /// There is no live session for it.
    Refused,
}

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
    /// The change was allowed for an account with this password hash and no other.
    pub expected_hash: Option<String>,
    /// The change was asked for of the account in this generation and no other.
    pub expected_generation: Option<i64>,
    /// Refuse to take away the last account that administers.
    pub keep_last_admin: bool,
    /// The session that lives on, with new tokens.
    pub rekey: Option<Rekey>,
    /// SHA-256 of the token of a mail to reset the password, which this change uses up.
    pub spends: Option<[u8; 32]>,
    /// What the audit trail says of it.
    pub note: Option<Note>,
}

impl AccountChange {
    /// Whether an address that waits to be verified is dropped: whoever recovers an account does not leave to a thief
    /// the address that he put there.
    pub(super) fn forgets_pending(&self) -> bool {
        self.password_hash.is_some() && !self.email_pending
    }
}

impl AccountChange {
    /// Why it is not done to an account as it is, if it was asked for of another state.
    pub(super) fn refused_for(&self, user: &User) -> Option<Change> {
        if self.expected_hash.as_ref().is_some_and(|hash| *hash != user.password_hash) {
            return Some(Change::Gone);
        }
        let is_another = self.expected_generation.is_some_and(|expected| expected != user.generation);
        is_another.then_some(Change::Conflict)
    }

    pub(super) fn takes_admin_from(&self, user: &User) -> bool {
        let loses = self.delete
            || self.disabled == Some(true)
            || self.roles.as_ref().is_some_and(|roles| !roles.contains(Role::ADMIN));
        loses && user.roles.contains(Role::ADMIN) && !user.disabled
    }
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
    /// It happened; this is its log row, and the right to issue tokens if a session moved along.
    Done(LogEntry, Option<Box<Grant>>),
    /// There is no such account, or not with the expected hash, or no such session.
    Gone,
    /// The account is of another generation than was expected.
    Conflict,
    /// The name is or was taken.
    NameTaken,
    /// It is the last account that administers.
    LastAdmin,
}
