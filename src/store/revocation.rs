//! What the revocation log consists of, and what reading it says.

use std::hash::{Hash, Hasher};

use async_trait::async_trait;

use super::{Result, millis};
use crate::{
    clock::UnixMillis,
    types::{ApiKeyId, ClientId, ExternalId, KeyId, SessionId, Subject, UserId},
};

/// The target of a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Revoked {
    /// One session.
    Session(SessionId),
    /// All tokens of a user below a generation.
    User(UserId),
    /// All tokens that a key has signed.
    Key(KeyId),
    /// All tokens of a program below a generation.
    Client(ClientId),
    /// All tokens of another issuer's subject below a generation, or its session, or its token.
    External(ExternalId),
    /// One API key; or, of generation 0, a new one.
    ApiKey(ApiKeyId),
    /// The owner of API keys, whose name or roles have changed: the keys are read again.
    KeyOwner(UserId),
}

impl From<Subject> for Revoked {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::User(id) => Self::User(id),
            Subject::Client(id) => Self::Client(id),
            Subject::External(id) => Self::External(id),
        }
    }
}

impl Hash for Revoked {
    /// Hashes the id alone. Equal ids of two kinds are an accident that costs time only.
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u128(self.uuid().as_u128());
    }
}

impl Revoked {
    pub(super) const SESSION: i16 = 1;
    pub(super) const USER: i16 = 2;
    pub(super) const KEY: i16 = 3;
    const CLIENT: i16 = 4;
    const EXTERNAL: i16 = 5;
    pub(super) const API_KEY: i16 = 6;
    const KEY_OWNER: i16 = 7;

    pub(super) fn kind(self) -> i16 {
        match self {
            Self::Session(_) => Self::SESSION,
            Self::User(_) => Self::USER,
            Self::Key(_) => Self::KEY,
            Self::Client(_) => Self::CLIENT,
            Self::External(_) => Self::EXTERNAL,
            Self::ApiKey(_) => Self::API_KEY,
            Self::KeyOwner(_) => Self::KEY_OWNER,
        }
    }

    /// Returns the id, which is unique within its kind only.
    pub fn uuid(self) -> uuid::Uuid {
        match self {
            Self::Session(id) => id.uuid(),
            Self::User(id) => id.uuid(),
            Self::Key(id) => id.uuid(),
            Self::Client(id) => id.uuid(),
            Self::External(id) => id.uuid(),
            Self::ApiKey(id) => id.uuid(),
            Self::KeyOwner(id) => id.uuid(),
        }
    }

    pub(super) fn read(kind: i16, id: uuid::Uuid) -> Option<Self> {
        match kind {
            Self::SESSION => SessionId::from_uuid(id).map(Self::Session),
            Self::USER => UserId::from_uuid(id).map(Self::User),
            Self::KEY => KeyId::from_uuid(id).map(Self::Key),
            Self::CLIENT => ClientId::from_uuid(id).map(Self::Client),
            Self::EXTERNAL => ExternalId::from_uuid(id).map(Self::External),
            Self::API_KEY => ApiKeyId::from_uuid(id).map(Self::ApiKey),
            Self::KEY_OWNER => UserId::from_uuid(id).map(Self::KeyOwner),
            _ => None,
        }
    }
}

/// A row of the revocation log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogEntry {
    /// Its target.
    pub revoked: Revoked,
    /// Tokens below this generation are dead; every token of an ended session or a revoked key is. Of a key
    /// with which every session ended, the time up to which those were opened.
    pub generation: i64,
    /// When every token that it concerns has expired for certain, and it may be forgotten.
    pub expires_at: UnixMillis,
}

impl LogEntry {
    /// The generation in the row of a session or a key: above any.
    pub const ALL: i64 = i64::MAX;

    /// Until when the log has to hold it at the least, so that it need not be written again. Of another issuer's subject the time
    /// is chosen by whoever revokes it.
    pub(super) fn held_until(&self, now: UnixMillis) -> UnixMillis {
        if matches!(self.revoked, Revoked::External(_)) { self.expires_at } else { now + 1 }
    }

    pub(super) fn of_key(key: KeyId, sessions_until: Option<UnixMillis>, access_exp_max: UnixMillis) -> Self {
        Self::new(Revoked::Key(key), sessions_until.unwrap_or(Self::ALL), access_exp_max, 0)
    }

    /// It is remembered for a while after `now` even if the last token has long expired: a database that is
    /// given back an older state is told of it again.
    pub(super) fn new(
        revoked: Revoked,
        generation: i64,
        access_exp_max: UnixMillis,
        now: UnixMillis,
    ) -> Self {
        Self { revoked, generation, expires_at: access_exp_max.max(now) + millis(super::LOG_MARGIN) }
    }
}

/// How far the log was read. Only the store that made it can read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(pub(super) String);

#[cfg(test)]
impl Cursor {
    /// A cursor that no store has made.
    pub(crate) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

/// Takes in rows of the log, in no order that matters.
pub type Sink<'a> = &'a mut (dyn FnMut(LogEntry) + Send);

/// One reading of the log that a gateway counts.
#[derive(Debug, Clone)]
pub struct Beat {
    /// The gateway, for as long as its process runs.
    pub gateway: uuid::Uuid,
    /// Higher at each reading.
    pub number: i64,
    /// The furthest that the log was ever read.
    pub furthest: Option<Cursor>,
    /// The bound that the gateway keeps, in milliseconds.
    pub max_staleness: i64,
}

/// What a reading of the log came to.
#[derive(Debug, Clone)]
pub struct LogRead {
    /// Where to go on.
    pub cursor: Cursor,
    /// The database's clock, if it has one of its own and was asked.
    pub database_now: Option<UnixMillis>,
    /// What tells whether the database still is what it was; none where it cannot be exchanged.
    pub history: Option<History>,
}

/// What a database shows of its past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// The beat of this gateway that it remembered.
    pub found: Option<i64>,
    /// The system and the timeline of its log.
    pub lineage: String,
    /// Whether its transactions count from a lower number than the furthest cursor knew.
    pub rewound: bool,
}

/// The revocation log: what keeping the mirror true needs of a store.
#[async_trait]
pub trait RevocationLog: Send + Sync {
    /// Gives `sink` what the log gained since `cursor`, or all live rows without one. Never misses a row,
    /// whatever the order in which transactions commit; may repeat rows. What was given is true even if
    /// the call fails then.
    async fn read_log(&self, cursor: Option<&Cursor>, beat: &Beat, sink: Sink<'_>) -> Result<LogRead>;

    /// The same at less cost and without `beat`: its cursor leads to no row that is lost, but after a
    /// crash of the database it may lead past one.
    async fn glance_at_log(&self, cursor: &Cursor, sink: Sink<'_>) -> Result<LogRead>;

    /// Writes entries into a log that has lost them, ends their sessions, raises generations to theirs,
    /// and removes their keys. May take its time.
    async fn restore_log(&self, entries: &[LogEntry]) -> Result<()>;

    /// The same for one that a caller waits for, and only if the log does not hold it.
    async fn settle(&self, entry: &LogEntry) -> Result<()>;

    /// Tells the other gateways that the log has grown. Only a hint: what is lost is found by the poll.
    async fn hint(&self) -> Result<()>;
}
