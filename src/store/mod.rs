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
//! Rules that are one for both lie in [`rule`]; the traits lie beside the rows that they are about.
//!
//! To add a database: implement [`Store`] and its parts in a folder of its own, add its migrations, and give it
//! to the contract test.

mod api_key;
mod certificate;
mod change;
mod client;
mod counter;
mod debug;
mod error;
mod event;
mod factor;
mod import;
mod invitation;
mod key;
mod link;
mod mail;
mod postgres;
mod revocation;
mod rule;
mod session;
mod sqlite;
mod table;
mod user;
mod vault;
mod webhook;

use std::{
    fs::File,
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;

pub use api_key::{
    ApiKey, ApiKeyAdded, ApiKeyLimits, ApiKeyPage, ApiKeySelection, ApiKeySink, ApiKeys, LiveApiKey,
    NewApiKey,
};
pub use certificate::{BegunOrder, Certificates, Challenge, OrderEnd, OrderLease, StoredCertificate};
pub use change::{AccountChange, Change, Ends, Rekey, Spend};
pub use client::{Client, ClientChange, Clients, NewClient};
pub use counter::{SharedBucket, SharedCounters};
pub use error::StoreError;
pub use event::{AuditEntry, AuditFilter, Event, Events};
pub use factor::{
    AuthChallenge, ChallengeCompletion, ChallengePurpose, Confirmation, Confirmed, Factor, FactorKind,
    FactorOwner, FactorRemoval, FactorUse, Factors, NewFactor, Outcome, StepUp,
};
pub use import::{ImportOutcome, ImportedUser, Imports, UserFilter};
pub use invitation::{Invitation, Invitations, NewInvitation};
pub use key::{KeyRevocation, KeysRevoked, SigningKeys, StoredKey};
pub use link::{Link, Linked, Links, NewLink, Unlinked};
pub use mail::{ClaimedMail, MailLease, MailTtls, Mails, NewMail, NewResetLink, Purpose, Sent};
pub use revocation::{Beat, Cursor, History, LogEntry, LogRead, RevocationLog, Revoked, Sink};
pub use session::{
    Grant, NewSession, Place, Rotation, RotationRequest, Session, SessionKind, SessionPage, Sessions, Ttls,
};
pub use table::{Row, Rows, TableSource, read_table};
pub use user::{NewUser, Opened, User, Users};
pub use vault::{Rewrap, Rewrapped, StoredVault, Vault};
pub use webhook::{
    ClaimedDelivery, Delivered, DeliveryLease, DeliveryNote, WEBHOOK_PATIENCE, WebhookState,
    WebhookSubscription, Webhooks,
};

use self::{client::CLIENT, key::LATEST_EXPIRY, session::SESSION, user::USER};

use crate::{
    clock::{Clock, UnixMillis, millis},
    config::{self, StoreLocation},
    types::Pseudonyms,
};

/// A log row stays this long after the last token it concerns, for clocks that disagree.
pub const LOG_MARGIN: Duration = Duration::from_secs(600);

/// Hints that the log has grown; several at once may be one.
pub type Hints = tokio::sync::mpsc::Receiver<()>;

/// The result of a call.
pub type Result<T> = std::result::Result<T, StoreError>;

/// The contract: everything that is kept, by what it is kept of.
#[async_trait]
pub trait Store:
    RevocationLog
    + Users
    + Sessions
    + SigningKeys
    + Mails
    + Events
    + Imports
    + Vault
    + Certificates
    + Invitations
    + Factors
    + Links
    + ApiKeys
    + Clients
    + Webhooks
    + Send
    + Sync
{
    /// Brings the schema up to date, one process at a time.
    async fn migrate(&self) -> Result<()>;

    /// Makes sure that the schema is the one that this binary was built for.
    async fn check_schema(&self) -> Result<()>;

    /// Gives the store what it replaces the names of deleted accounts with. Before, nothing can be done that depends
    /// on whose name it was.
    fn unlock(&self, pseudonyms: Pseudonyms);

    /// Hears that the log has grown from now on, until the receiver ends with the connection. None where one
    /// gateway is all there is.
    async fn hints(&self) -> Result<Option<Hints>>;

    /// The counters that all gateways on this store share; none where there is one gateway only.
    fn shared_counters(&self) -> Option<&dyn SharedCounters>;

    /// Removes what has expired: log rows, sessions, keys, mails and counters, events that are older than `keep_events`;
    /// and gateways that ended. The time is `earliest`, or the database's where that is earlier: a row that was removed
    /// while a clock ran ahead would be missing when it is set right. And puts pseudonyms in the place of the names and
    /// addresses of accounts that were deleted. All of it in pieces.
    async fn prune(&self, earliest: UnixMillis, keep_events: Duration) -> Result<()>;
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
pub fn lock_for_serving(
    config: &config::Store,
    inherited: impl FnOnce(&Path) -> Option<File>,
) -> Result<Option<File>> {
    match &config.location {
        StoreLocation::Sqlite(path) => sqlite::lock_for_serving(path, inherited).map(Some),
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

#[cfg(test)]
mod tests {
    use super::{Place, Session, SessionKind, User};
    use crate::types::{Attributes, OsRandom, Proofs, Roles, SessionId, UserId, Username};

    /// An account that nothing is special about.
    pub(super) fn a_user() -> User {
        User {
            id: UserId::generate(1, &OsRandom),
            name: Username::new("alice").unwrap(),
            email: Some("alice@example.com".to_owned()),
            password_hash: Some("hash".to_owned()),
            roles: Roles::parse_joined("user").unwrap(),
            disabled: false,
            generation: 7,
            created_at: 0,
            email_verified: false,
            external_id: None,
            pending_email: None,
            password_by_mail: false,
            must_change_password: false,
            has_factors: false,
            email_is_weak: false,
            attributes: Attributes::default(),
        }
    }

    /// A session of that account.
    pub(super) fn a_session(user: &User) -> Session {
        Session {
            id: SessionId::generate(&OsRandom),
            user: user.id,
            kind: SessionKind::Token,
            generation: user.generation,
            created_at: 0,
            authenticated_at: 0,
            proofs: Proofs::PASSWORD,
            last_used_at: 0,
            ends_at: 1_000_000,
            refresh_expires_at: 500_000,
            rotated_at: 100_000,
            refresh_number: 3,
            current_hash: [2; 32],
            previous_hash: Some([1; 32]),
            nonce: [5; 16],
            place: Place::default(),
        }
    }
}
