//! The store for anything with more than one gateway: one PostgreSQL primary, 13 or later.
//!
//! The log is read in [`log`], keys are kept in [`key`]; what changes an account or a session is in [`query`].

mod attempts;
mod audit;
mod connection;
mod departed;
mod hint;
mod import;
mod key;
mod log;
mod lookup;
mod mail;
mod prune;
mod session;
mod statement;
mod sweep;
mod table;
mod tls;
mod user;
mod vault;

use std::{sync::OnceLock, time::Duration};

use async_trait::async_trait;

use self::connection::Pool;
use super::{
    AccountChange, AuditEntry, AuditFilter, Beat, Change, ClaimedMail, Cursor, Grant, Hints, ImportOutcome,
    ImportedUser, KeyRevocation, KeysRevoked, LogEntry, LogRead, MailLease, NewMail, NewSession, NewUser,
    Note, Opened, Purpose, Result, RevocationLog, Rewrap, Rewrapped, Rotation, RotationRequest, Sent,
    Session, SessionPage, SharedCounters, Sink, Store, StoreError, StoredKey, StoredVault, User, UserFilter,
    millis, unlocked,
};
use crate::{
    clock::UnixMillis,
    config::PostgresUrl,
    types::{Pseudonyms, SessionId, UserId, Username},
};

pub(super) use table::read_table;

mod embedded {
    refinery::embed_migrations!("migrations/postgres");
}

/// For what looks at whole tables, at an operator's word or after a failover.
const PATIENCE: Duration = Duration::from_secs(60);

/// The store on a server.
pub(super) struct Postgres {
    pool: Pool,
    /// What every decision rests on is followed on a connection of its own: requests that wait for the
    /// database, or for each other, do not make the mirror stale.
    following: Pool,
    pseudonyms: OnceLock<Pseudonyms>,
}

impl Postgres {
    pub(super) fn open(location: &PostgresUrl, pool_size: usize, timeout: Duration) -> Result<Self> {
        let pool = Pool::new(location, pool_size, timeout)?;
        Ok(Self { pool, following: Pool::new(location, 1, timeout)?, pseudonyms: OnceLock::new() })
    }
}

#[async_trait]
impl RevocationLog for Postgres {
    async fn read_log(&self, cursor: Option<&Cursor>, beat: &Beat, sink: Sink<'_>) -> Result<LogRead> {
        let Some(cursor) = cursor else {
            let patience = self.following.timeout;
            return self.following.snapshot(async |tx| log::load(tx, beat, patience, sink).await).await;
        };
        self.following.read(async |db| log::confirm(db, cursor, beat, sink).await).await
    }

    async fn glance_at_log(&self, cursor: &Cursor, sink: Sink<'_>) -> Result<LogRead> {
        self.following.read(async |db| log::glance(db, cursor, sink).await).await
    }

    async fn restore_log(&self, entries: &[LogEntry]) -> Result<()> {
        self.following.write_within(PATIENCE, async |tx| log::restore(tx, entries).await).await
    }

    async fn settle(&self, entry: &LogEntry) -> Result<()> {
        if self.pool.read(async |db| log::holds(db, entry).await).await? {
            return Ok(());
        }
        self.pool.write(async |tx| log::restore(tx, std::slice::from_ref(entry)).await).await
    }

    async fn hint(&self) -> Result<()> {
        self.pool.read(async |db| hint::send(db).await).await
    }
}

#[async_trait]
impl Store for Postgres {
    async fn migrate(&self) -> Result<()> {
        self.pool.migrate(embedded::migrations::runner()).await
    }

    async fn check_schema(&self) -> Result<()> {
        let newest = super::error::newest(&embedded::migrations::runner());
        let found = self.pool.read(async |db| statement::schema_version(db).await).await?;
        super::error::compare_schema(found, newest)
    }

    async fn vault(&self) -> Result<Option<StoredVault>> {
        self.pool.read(async |db| vault::read(db).await).await
    }

    async fn begin_vault(&self, fresh: &StoredVault) -> Result<StoredVault> {
        self.pool.write(async |tx| vault::begin(tx, fresh).await).await
    }

    async fn rewrap(&self, fingerprint: &[u8], rewrap: &Rewrap, note: &Note) -> Result<Rewrapped> {
        self.pool.write(async |tx| vault::rewrap(tx, fingerprint, rewrap, note).await).await
    }

    fn unlock(&self, pseudonyms: Pseudonyms) {
        // It is the same whoever says it.
        let _ = self.pseudonyms.set(pseudonyms);
    }

    async fn create_user(&self, user: &NewUser, session: Option<&NewSession>) -> Result<Option<Opened>> {
        let pseudonyms = unlocked(&self.pseudonyms)?;
        self.pool.write(async |tx| user::create_user(tx, user, session, &pseudonyms).await).await
    }

    async fn release_name(&self, name: &Username, note: &Note) -> Result<bool> {
        let pseudonyms = unlocked(&self.pseudonyms)?;
        self.pool.write(async |tx| user::release_name(tx, name, note, &pseudonyms).await).await
    }

    async fn user_by_name(&self, name: &Username) -> Result<Option<User>> {
        self.pool.read(async |db| lookup::user_by_name(db, name).await).await
    }

    async fn user_by_skeleton(&self, name: &Username) -> Result<Option<User>> {
        self.pool.read(async |db| lookup::user_by_skeleton(db, name).await).await
    }

    async fn user(&self, id: UserId) -> Result<Option<User>> {
        self.pool.read(async |db| lookup::user(db, id).await).await
    }

    async fn user_by_external_id(&self, id: &str) -> Result<Option<User>> {
        self.pool.read(async |db| lookup::user_by_external_id(db, id).await).await
    }

    async fn users(&self, filter: &UserFilter) -> Result<Vec<User>> {
        self.pool.read(async |db| lookup::users(db, filter).await).await
    }

    async fn open_session(
        &self,
        user: UserId,
        generation: i64,
        session: &NewSession,
        note: &Note,
    ) -> Result<Option<Grant>> {
        self.pool.write(async |tx| session::open_session(tx, user, generation, session, note).await).await
    }

    async fn rehash(&self, user: UserId, old: &str, new: &str) -> Result<()> {
        self.pool.write(async |tx| user::rehash(tx, user, old, new).await).await
    }

    async fn rotate_session(&self, request: &RotationRequest) -> Result<Rotation> {
        let mut ends = None;
        let rotated = self
            .pool
            .write(async |tx| {
                let rotation = session::rotate_session(tx, request).await?;
                if let Rotation::Ended(entry) = &rotation {
                    ends = Some(*entry);
                }
                Ok(rotation)
            })
            .await;
        match (rotated, ends) {
            (Err(StoreError::OutcomeUnknown(_)), Some(entry)) => Ok(Rotation::InDoubt(entry)),
            (rotated, _) => rotated,
        }
    }

    async fn end_session(
        &self,
        user: UserId,
        session: SessionId,
        note: Option<&Note>,
    ) -> Result<Option<LogEntry>> {
        self.pool.write(async |tx| session::end_session(tx, user, session, note).await).await
    }

    async fn session(&self, session: SessionId) -> Result<Option<Session>> {
        self.pool.read(async |db| lookup::session(db, session).await).await
    }

    async fn sessions(&self, user: UserId, page: SessionPage) -> Result<Vec<Session>> {
        self.pool.read(async |db| lookup::sessions(db, user, page).await).await
    }

    async fn change_user(&self, user: UserId, change: &AccountChange) -> Result<Change> {
        let pseudonyms = unlocked(&self.pseudonyms)?;
        let mut refused = None;
        let changed = self
            .pool
            .write(async |tx| {
                let changed = user::change_user(tx, user, change, &pseudonyms).await?;
                refused = Some(changed.clone()).filter(|changed| !matches!(changed, Change::Done(..)));
                Ok(changed)
            })
            .await;
        match (changed, refused) {
            // Nothing was written, whatever became of the COMMIT.
            (Err(StoreError::OutcomeUnknown(_)), Some(refused)) => Ok(refused),
            (changed, _) => changed,
        }
    }

    async fn hints(&self) -> Result<Option<Hints>> {
        hint::listen(&self.following).await.map(Some)
    }

    async fn signing_keys(&self) -> Result<Vec<StoredKey>> {
        self.following.read(async |db| key::signing_keys(db).await).await
    }

    async fn create_key_if_none(&self, key: &StoredKey, delay: Duration) -> Result<()> {
        self.pool.write(async |tx| key::create_key_if_none(tx, key, delay).await).await
    }

    async fn rotate_key(
        &self,
        key: &StoredKey,
        delay: Duration,
        access_ttl: Duration,
        note: Option<&Note>,
    ) -> Result<StoredKey> {
        self.pool
            .write_within(PATIENCE, async |tx| key::rotate_key(tx, key, delay, access_ttl, note).await)
            .await
    }

    async fn revoke_keys(&self, revocation: &KeyRevocation) -> Result<Option<KeysRevoked>> {
        self.pool.write_within(PATIENCE, async |tx| key::revoke_keys(tx, revocation).await).await
    }

    async fn note(&self, subject: Option<UserId>, note: &Note) -> Result<()> {
        self.pool.write(async |tx| audit::note(tx, subject, note).await).await
    }

    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>> {
        self.pool.read(async |db| audit::entries(db, filter).await).await
    }

    async fn import_users(
        &self,
        users: Vec<ImportedUser>,
        note: &Note,
        keep: bool,
    ) -> Result<Vec<ImportOutcome>> {
        let pseudonyms = unlocked(&self.pseudonyms)?;
        self.pool.write(async |tx| import::import(tx, &users, note, keep, &pseudonyms).await).await
    }

    async fn note_own_scheme(&self, scheme: &str) -> Result<()> {
        if self.foreign_schemes().await?.iter().any(|known| known == scheme) {
            return Ok(());
        }
        self.pool.write(async |tx| import::note_own_scheme(tx, scheme).await).await
    }

    async fn foreign_schemes(&self) -> Result<Vec<String>> {
        self.pool.read(async |db| import::foreign_schemes(db).await).await
    }

    async fn users_by_verified_email(&self, email: &str) -> Result<Vec<User>> {
        let key = email.to_lowercase();
        self.pool.read(async |db| mail::users_by_verified_email(db, &key).await).await
    }

    async fn enqueue_mail(&self, mail: &NewMail) -> Result<bool> {
        self.pool.write(async |tx| mail::enqueue(tx, mail).await).await
    }

    async fn claim_mail(&self, lease: &MailLease) -> Result<Option<ClaimedMail>> {
        self.pool.write(async |tx| mail::claim(tx, lease).await).await
    }

    async fn mail_sent(&self, id: uuid::Uuid, sent: Sent) -> Result<()> {
        self.pool.write(async |tx| mail::sent(tx, id, sent).await).await
    }

    async fn mail_owner(&self, purpose: Purpose, token_hash: &[u8; 32]) -> Result<Option<User>> {
        self.pool.read(async |db| mail::owner(db, purpose, token_hash).await).await
    }

    async fn verify_email(&self, token_hash: &[u8; 32], note: &Note) -> Result<bool> {
        self.pool.write(async |tx| mail::verify_email(tx, token_hash, note).await).await
    }

    fn shared_counters(&self) -> Option<&dyn SharedCounters> {
        Some(self)
    }

    async fn prune(&self, earliest: UnixMillis, keep_audit: Duration) -> Result<()> {
        let pseudonyms = unlocked(&self.pseudonyms)?;
        prune::prune(&self.pool, earliest, millis(keep_audit), &pseudonyms).await
    }
}
