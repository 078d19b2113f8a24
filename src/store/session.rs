//! Sessions, as they are stored, and the exchange of refresh tokens.

use std::time::Duration;

use async_trait::async_trait;

use super::{Event, LogEntry, Result, StepUp, User, millis};
use crate::{
    clock::UnixMillis,
    types::{Proofs, SessionId, UserId},
};

/// The columns of [`Session`].
pub(super) const SESSION: &str = "id, user_id, kind, generation, created_at, authenticated_at, methods, last_used_at, ends_at, \
     refresh_expires_at, rotated_at, refresh_number, current_hash, previous_hash, nonce, \
     address, user_agent";

/// The greatest number of sessions that end when a new one is opened.
pub(super) const MOST_ENDED_FOR_ONE: i64 = 100;

/// The kind of credential that holds a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// A refresh token.
    Token,
    /// A browser's cookie.
    Browser,
    /// A program's key.
    Key,
}

impl SessionKind {
    pub(super) fn number(self) -> i16 {
        match self {
            Self::Token => 1,
            Self::Browser => 2,
            Self::Key => 3,
        }
    }

    pub(super) fn read(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::Token),
            2 => Some(Self::Browser),
            3 => Some(Self::Key),
            _ => None,
        }
    }
}

/// The client that opened a session, as far as it is known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Place {
    /// Its address.
    pub address: Option<String>,
    /// `User-Agent`.
    pub user_agent: Option<String>,
}

/// A session to be opened.
#[derive(Clone)]
pub struct NewSession {
    /// Its id.
    pub id: SessionId,
    /// The kind of credential that holds it.
    pub kind: SessionKind,
    /// How the user has shown who they are.
    pub proofs: Proofs,
    /// Whether the device is one where the account's factor was shown before.
    pub is_remembered: bool,
    /// The client that opens it.
    pub place: Place,
    /// SHA-256 of its first refresh token.
    pub refresh_hash: [u8; 32],
    /// The nonce from which its next refresh token is derived.
    pub nonce: [u8; 16],
    /// The lifetimes of its tokens and of the session.
    pub ttls: Ttls,
    /// The greatest number of sessions of the account, including this one. The least recently used one ends if there are
    /// more.
    pub most: u32,
}

/// Which of a user's sessions to list, newest first.
#[derive(Debug, Clone, Copy)]
pub struct SessionPage {
    /// The greatest number of sessions.
    pub limit: u32,
    /// The last session of the page before: when it was opened, and its id.
    pub after: Option<(UnixMillis, SessionId)>,
}

impl SessionPage {
    /// Parses a cursor that [`Self::cursor`] returned.
    pub fn parse(cursor: &str) -> Option<(UnixMillis, SessionId)> {
        let (created_at, id) = cursor.split_once('.')?;
        Some((created_at.parse().ok()?, SessionId::parse(id)?))
    }

    /// Returns the cursor of the page after a session.
    pub fn cursor(session: &Session) -> String {
        format!("{}.{}", session.created_at, session.id)
    }
}

/// The lifetimes of tokens and sessions.
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

    /// Returns the expiry of a refresh token, which is never later than the end of its session.
    pub(super) fn refresh_end(&self, now: UnixMillis, session_end: UnixMillis) -> UnixMillis {
        (now + millis(self.refresh)).min(session_end)
    }

    pub(super) fn session_end(&self, now: UnixMillis) -> UnixMillis {
        now + millis(self.session)
    }
}

/// A session.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Its id.
    pub id: SessionId,
    /// Whose it is.
    pub user: UserId,
    /// The kind of credential that holds it.
    pub kind: SessionKind,
    /// The user's generation when it was opened or moved.
    pub generation: i64,
    /// When it was opened.
    pub created_at: UnixMillis,
    /// When its holder last showed who they are.
    pub authenticated_at: UnixMillis,
    /// How they have, in this session.
    pub proofs: Proofs,
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
    /// The client that opened it.
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
    /// When its holder last showed who they are.
    pub authenticated_at: UnixMillis,
    /// How they have.
    pub proofs: Proofs,
    /// When the access token is issued, by the database's clock.
    pub issued_at: UnixMillis,
    /// The log rows of sessions that ended to make room.
    pub ended: Vec<LogEntry>,
}

impl Grant {
    /// Creates the right to issue tokens for a session of `user` at `now`.
    pub(super) fn new(
        user: User,
        session: SessionId,
        session_ends_at: UnixMillis,
        (authenticated_at, proofs): (UnixMillis, Proofs),
        now: UnixMillis,
    ) -> Self {
        Self { user, session, session_ends_at, authenticated_at, proofs, issued_at: now, ended: Vec::new() }
    }
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
    /// The lifetimes of its tokens and of the session.
    pub ttls: Ttls,
    /// The event to be recorded if the token was used before.
    pub replayed: Event,
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

/// Sessions, and the refresh tokens that they are held by.
#[async_trait]
pub trait Sessions: Send + Sync {
    /// Opens a session, if the account is not disabled and still has the generation in which the proof was checked. Ends
    /// the least recently used sessions if there are more than the session allows.
    async fn open_session(
        &self,
        user: UserId,
        generation: i64,
        session: &NewSession,
        event: &Event,
    ) -> Result<Option<Grant>>;

    /// Exchanges a refresh token whose tag is genuine.
    async fn rotate_session(&self, request: &RotationRequest) -> Result<Rotation>;

    /// Steps up a live session. Returns `None` if the account has another generation or is
    /// disabled, the session has ended, or a password is all that was shown and the account has a factor.
    async fn reauthenticate_session(
        &self,
        user: UserId,
        generation: i64,
        step_up: &StepUp,
        event: &Event,
    ) -> Result<Option<Grant>>;

    /// Ends a session. Returns `None` if the user has no such session.
    async fn end_session(
        &self,
        user: UserId,
        session: SessionId,
        event: Option<&Event>,
    ) -> Result<Option<LogEntry>>;

    /// Finds a live session by its id.
    async fn session(&self, session: SessionId) -> Result<Option<Session>>;

    /// Lists the live sessions of a user, newest first.
    async fn sessions(&self, user: UserId, page: SessionPage) -> Result<Vec<Session>>;
}
