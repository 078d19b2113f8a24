//! Where accounts, sessions, revocations and keys are kept: one contract, two databases.
//!
//! What an implementation must guarantee, and `tests/store.rs` verifies on both:
//! - Each method is one transaction: it happened, or it did not. When that cannot be known,
//!   [`StoreError::OutcomeUnknown`] says so.
//! - Whatever revokes writes its log row in the same transaction, with an `expires_at` that
//!   outlives every access token it concerns.
//! - Locks are taken in one order, user before session.
//! - Time is the database's where it has a clock, so that tokens of several gateways agree.
//! - A call ends within the configured timeout, whatever the database does.
//!
//! To add a database: implement [`Store`] in a folder of its own, add its migrations, and give it
//! to the contract test.

mod audit;
mod counter;
mod debug;
mod error;
mod import;
mod key;
mod mail;
mod postgres;
mod revocation;
mod row;
mod sqlite;
mod table;
mod vault;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;

pub use audit::{AuditEntry, AuditFilter, Note};
pub use counter::{SharedBucket, SharedCounters};
pub use error::StoreError;
pub use import::{ImportOutcome, ImportedUser, UserFilter};
pub use key::{KeyRevocation, KeysRevoked, StoredKey};
pub use mail::{ClaimedMail, MailLease, NewMail, Purpose, Sent};
pub use revocation::{Beat, Cursor, History, LogEntry, LogRead, Revoked, Sink};
pub use row::{
    AccountChange, Change, Grant, NewSession, NewUser, Opened, Place, Proof, Rekey, Rotation,
    RotationRequest, Session, SessionPage, Ttls, User,
};

pub use table::{Row, Rows, TableSource, read_table};
pub use vault::{Rewrap, Rewrapped, StoredVault};

use row::{SESSION, USER};

use crate::{
    clock::{Clock, UnixMillis, millis},
    config::{self, StoreLocation},
    types::{Pseudonyms, Role, SessionId, UserId, Username},
};

/// A log row stays this long after the last token it concerns, for clocks that disagree.
pub const LOG_MARGIN: Duration = Duration::from_secs(600);

/// Hints that the log has grown; several at once may be one.
pub type Hints = tokio::sync::mpsc::Receiver<()>;

/// The result of a call.
pub type Result<T> = std::result::Result<T, StoreError>;

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

/// The contract.
#[async_trait]
pub trait Store: RevocationLog {
    /// Brings the schema up to date, one process at a time.
    async fn migrate(&self) -> Result<()>;

    /// Makes sure that the schema is the one that this binary was built for.
    async fn check_schema(&self) -> Result<()>;

    /// What the store's secrets were begun with; none for a fresh one.
    async fn vault(&self) -> Result<Option<StoredVault>>;

    /// Begins the store's secrets, unless they were begun; what holds in the end.
    async fn begin_vault(&self, fresh: &StoredVault) -> Result<StoredVault>;

    /// Wraps every secret anew, for the master key of `fingerprint`.
    async fn rewrap(&self, fingerprint: &[u8], rewrap: &Rewrap, note: &Note) -> Result<Rewrapped>;

    /// Gives the store what it replaces the names of deleted accounts with. Before, nothing can be done that depends
    /// on whose name it was.
    fn unlock(&self, pseudonyms: Pseudonyms);

    /// Makes an account, and its first session if one is asked for. `None` when the name, or one
    /// that looks like it, is or was taken.
    async fn create_user(&self, user: &NewUser, session: Option<&NewSession>) -> Result<Option<Opened>>;

    /// Lets the name of a former account be given out again. False when it is none's.
    async fn release_name(&self, name: &Username, note: &Note) -> Result<bool>;

    /// Finds an account by its canonical name.
    async fn user_by_name(&self, name: &Username) -> Result<Option<User>>;

    /// Finds the account whose name looks like this one, which may be the same.
    async fn user_by_skeleton(&self, name: &Username) -> Result<Option<User>>;

    /// Finds an account.
    async fn user(&self, id: UserId) -> Result<Option<User>>;

    /// Finds an account by the id that it had in the program that it came from.
    async fn user_by_external_id(&self, id: &str) -> Result<Option<User>>;

    /// Accounts in the order of their names.
    async fn users(&self, filter: &UserFilter) -> Result<Vec<User>>;

    /// Opens a session, if the account is still of the generation in which the proof was checked, and is not disabled.
    /// Beyond the most that the session names, those that were used longest ago end.
    async fn open_session(
        &self,
        user: UserId,
        generation: i64,
        session: &NewSession,
        note: &Note,
    ) -> Result<Option<Grant>>;

    /// Replaces a password hash by a better one of the same password, if it is still `old`.
    async fn rehash(&self, user: UserId, old: &str, new: &str) -> Result<()>;

    /// Exchanges a refresh token whose tag was found genuine.
    async fn rotate_session(&self, request: &RotationRequest) -> Result<Rotation>;

    /// Ends a session. `None` when there is none of that id and user.
    async fn end_session(
        &self,
        user: UserId,
        session: SessionId,
        note: Option<&Note>,
    ) -> Result<Option<LogEntry>>;

    /// The live session of that id, for a caller who holds its refresh token.
    async fn session(&self, session: SessionId) -> Result<Option<Session>>;

    /// The live sessions of a user, newest first.
    async fn sessions(&self, user: UserId, page: SessionPage) -> Result<Vec<Session>>;

    /// Changes or deletes an account. Every change raises the generation and with it ends the sessions,
    /// but for the one that `change.rekey` moves along. However many there are, it takes the same time: what rows
    /// are left [`Self::prune`] removes.
    async fn change_user(&self, user: UserId, change: &AccountChange) -> Result<Change>;

    /// Hears such hints from now on, until the receiver ends with the connection. None where one
    /// gateway is all there is.
    async fn hints(&self) -> Result<Option<Hints>>;

    /// Every signing key that may still verify.
    async fn signing_keys(&self) -> Result<Vec<StoredKey>>;

    /// Adds a key that signs after `delay`, unless there is one of its algorithm that may sign. Here as below,
    /// it is longer where a gateway that runs on the store has a bound that is.
    async fn create_key_if_none(&self, key: &StoredKey, delay: Duration) -> Result<()>;

    /// Adds a key that signs after `delay`, and lets its predecessors verify until the tokens
    /// that they sign meanwhile have expired.
    async fn rotate_key(
        &self,
        key: &StoredKey,
        delay: Duration,
        access_ttl: Duration,
        note: Option<&Note>,
    ) -> Result<StoredKey>;

    /// Revokes keys: no token that they signed is good any more. `None` when there is no such key.
    async fn revoke_keys(&self, revocation: &KeyRevocation) -> Result<Option<KeysRevoked>>;

    /// Notes what changed nothing else; of an account only while there is one.
    async fn note(&self, subject: Option<UserId>, note: &Note) -> Result<()>;

    /// The audit trail, newest first.
    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>>;

    /// Takes users in from another program; what became of each, in their order. With `keep: false`
    /// everything is undone at the end.
    async fn import_users(
        &self,
        users: Vec<ImportedUser>,
        note: &Note,
        keep: bool,
    ) -> Result<Vec<ImportOutcome>>;

    /// Remembers the scheme and cost of our own hashes: some will be there after the config has changed.
    async fn note_own_scheme(&self, scheme: &str) -> Result<()>;

    /// Scheme and cost of every kind of hash that another program made and nobody has renewed, and of
    /// our own since the store was begun.
    async fn foreign_schemes(&self) -> Result<Vec<String>>;

    /// The accounts, not disabled, whose address this was shown to be; a few at most.
    async fn users_by_verified_email(&self, email: &str) -> Result<Vec<User>>;

    /// Queues a mail. False when the account had its share, or is gone.
    async fn enqueue_mail(&self, mail: &NewMail) -> Result<bool>;

    /// Takes a mail that is due, so that no other gateway sends it meanwhile. Its token lives from
    /// now on.
    async fn claim_mail(&self, lease: &MailLease) -> Result<Option<ClaimedMail>>;

    /// Notes what became of a claimed mail.
    async fn mail_sent(&self, id: uuid::Uuid, sent: Sent) -> Result<()>;

    /// Whose live token this is. It is not used up.
    async fn mail_owner(&self, purpose: Purpose, token_hash: &[u8; 32]) -> Result<Option<User>>;

    /// Uses up a token that shows an address to be the account's. False when it does not hold.
    async fn verify_email(&self, token_hash: &[u8; 32], note: &Note) -> Result<bool>;

    /// The counters that all gateways on this store share; none where there is one gateway only.
    fn shared_counters(&self) -> Option<&dyn SharedCounters>;

    /// Removes what has expired: log rows, sessions, keys, mails and counters, lines of the audit trail that are older
    /// than `keep_audit`; and gateways that ended. The time is `earliest`, or the database's where that is earlier: a
    /// row that was removed while a clock ran ahead would be missing when it is set right. And puts pseudonyms in the
    /// place of the names and addresses of accounts that were deleted. All of it in pieces.
    async fn prune(&self, earliest: UnixMillis, keep_audit: Duration) -> Result<()>;
}

/// Opens the configured store. No connection is made yet.
///
/// # Errors
/// When the location makes no sense: a connection string that cannot be read, a folder that is
/// not there.
pub fn open(config: &config::Store, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>> {
    Ok(match &config.location {
        StoreLocation::Sqlite(path) => {
            Arc::new(sqlite::Sqlite::open(path, config.pool_size, config.timeout, clock)?)
        }
        StoreLocation::Postgres(url) => {
            Arc::new(postgres::Postgres::open(url, config.pool_size, config.timeout)?)
        }
    })
}

/// Holds the embedded database for one gateway as long as it lives; nothing for PostgreSQL.
///
/// # Errors
/// When another gateway serves from the same file.
pub fn lock_for_serving(config: &config::Store) -> Result<Option<std::fs::File>> {
    match &config.location {
        StoreLocation::Sqlite(path) => sqlite::lock_for_serving(path).map(Some),
        StoreLocation::Postgres(_) => Ok(None),
    }
}

/// How long after its lines were rewritten they are looked through again, for an account that was deleted: longer than
/// anything that was under way then.
const AGAIN_AFTER_MILLIS: i64 = 600_000;

/// What may stay of the detail of a line about an account that is gone: not the id that it had elsewhere, which may be a
/// name or an address.
fn without_ids(detail: &str) -> &str {
    if detail.starts_with(import::EXTERNAL_ID) { "" } else { detail }
}

/// What a store was unlocked with.
fn unlocked(pseudonyms: &OnceLock<Pseudonyms>) -> Result<Pseudonyms> {
    let locked = || StoreError::Unusable("the store is not unlocked".to_owned());
    pseudonyms.get().cloned().ok_or_else(locked)
}

/// Rows of ended sessions that are removed with what ended them; the others are left for later.
const REMOVED_AT_ONCE: i64 = 1_000;

/// Sessions that end at most for a new one.
const MOST_ENDED_FOR_ONE: i64 = 100;

/// What a refresh token entitles to: the rule is one for both databases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RotationRule {
    Rotate,
    Replay,
    EndSession,
    Refuse,
}

/// Judges a genuine refresh token under the row locks.
fn judge(session: &Session, user: &User, presented: &[u8; 32], now: i64, grace: Duration) -> RotationRule {
    if user.disabled || session.generation != user.generation {
        return RotationRule::Refuse;
    }
    if now >= session.refresh_expires_at || now >= session.ends_at {
        return RotationRule::Refuse;
    }
    if session.current_hash == *presented {
        return RotationRule::Rotate;
    }
    let within_grace = now <= session.rotated_at + millis(grace);
    if session.previous_hash.as_ref() == Some(presented) && within_grace {
        return RotationRule::Replay;
    }
    // Just after a change of the account its tokens are new, and another tab of the same client may not know yet.
    if session.previous_hash.is_none() && within_grace {
        return RotationRule::Refuse;
    }
    RotationRule::EndSession
}

/// Whether any of these joined role lists holds `admin`.
fn any_admin(joined: &[String]) -> bool {
    joined.iter().any(|roles| roles.split(',').any(|role| role == Role::ADMIN))
}

/// When a key that is being replaced stops verifying: after the last token that it can sign.
fn predecessor_expiry(successor_signs_at: i64, access_ttl: Duration, issued: Option<i64>) -> i64 {
    (successor_signs_at + millis(access_ttl)).max(issued.unwrap_or(0)) + millis(LOG_MARGIN)
}
