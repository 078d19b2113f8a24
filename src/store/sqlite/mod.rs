//! The embedded store: one file, one gateway, and the command line beside it.
//!
//! Commits are durable (`synchronous=FULL` on a write-ahead log), and every writing transaction
//! begins `IMMEDIATE`, so that it never fails half-way for another writer's sake. Work runs on
//! the blocking threads of the store's runtime.

mod audit;
mod connection;
mod departed;
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
mod user;
mod vault;

use std::{
    fs::{self, File},
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;

use self::connection::Connections;
use super::{
    AccountChange, AuditEntry, AuditFilter, Beat, Change, ClaimedMail, Cursor, Grant, Hints, ImportOutcome,
    ImportedUser, KeyRevocation, KeysRevoked, LogEntry, LogRead, MailLease, NewMail, NewSession, NewUser,
    Note, Opened, Purpose, Result, RevocationLog, Rewrap, Rewrapped, Rotation, RotationRequest, Sent,
    Session, SessionPage, SharedCounters, Sink, Store, StoreError, StoredKey, StoredVault, User, UserFilter,
    millis, unlocked,
};
use crate::{
    clock::{Clock, UnixMillis},
    types::{Pseudonyms, SessionId, UserId, Username},
};

pub(super) use table::read_table;

mod embedded {
    refinery::embed_migrations!("migrations/sqlite");
}

/// The store in a file.
pub(super) struct Sqlite {
    connections: Arc<Connections>,
    clock: Arc<dyn Clock>,
    pseudonyms: OnceLock<Pseudonyms>,
}

impl Sqlite {
    pub(super) fn open(
        path: &Path,
        pool_size: usize,
        timeout: Duration,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let connections = Arc::new(Connections::new(path, pool_size, timeout)?);
        Ok(Self { connections, clock, pseudonyms: OnceLock::new() })
    }
}

/// Takes the lock file beside the database for as long as the returned file lives.
pub(super) fn lock_for_serving(path: &Path) -> Result<File> {
    // One lock for one file, by whatever name it is found.
    let real = fs::canonicalize(path).or_else(|_| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok::<_, std::io::Error>(fs::canonicalize(folder)?.join(path.file_name().unwrap_or_default()))
    });
    let real = real.map_err(|error| StoreError::Unusable(format!("{}: {error}", path.display())))?;
    let lock_path = connection::beside(&real, "lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(|error| StoreError::Unusable(format!("{}: {error}", lock_path.display())))?;
    file.try_lock().map_err(|_| {
        StoreError::Unusable(format!(
            "{}: another gateway serves from this database; several gateways need PostgreSQL",
            path.display()
        ))
    })?;
    Ok(file)
}

#[async_trait]
impl RevocationLog for Sqlite {
    async fn read_log(&self, cursor: Option<&Cursor>, _: &Beat, sink: Sink<'_>) -> Result<LogRead> {
        let (cursor, now) = (cursor.cloned(), self.clock.wall());
        let read = move |db: &rusqlite::Transaction<'_>| log::since(db, cursor.as_ref(), now);
        let (entries, cursor) = self.connections.follow(read).await?;
        entries.into_iter().for_each(sink);
        Ok(LogRead { cursor, database_now: None, history: None })
    }

    async fn glance_at_log(&self, cursor: &Cursor, sink: Sink<'_>) -> Result<LogRead> {
        let nobody = Beat { gateway: uuid::Uuid::nil(), number: 0, furthest: None, max_staleness: 0 };
        self.read_log(Some(cursor), &nobody, sink).await
    }

    async fn restore_log(&self, entries: &[LogEntry]) -> Result<()> {
        let (entries, now) = (entries.to_vec(), self.clock.wall());
        let settle = move |tx: &rusqlite::Transaction<'_>| {
            entries.iter().try_for_each(|entry| log::settle(tx, entry, now))
        };
        self.connections.write(settle).await
    }

    async fn settle(&self, entry: &LogEntry) -> Result<()> {
        self.restore_log(std::slice::from_ref(entry)).await
    }

    async fn hint(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn migrate(&self) -> Result<()> {
        self.connections.migrate(embedded::migrations::runner()).await
    }

    async fn check_schema(&self) -> Result<()> {
        let newest = super::error::newest(&embedded::migrations::runner());
        let found = self.connections.read(statement::schema_version).await?;
        super::error::compare_schema(found, newest)
    }

    async fn vault(&self) -> Result<Option<StoredVault>> {
        self.connections.read(|db| vault::read(db)).await
    }

    async fn begin_vault(&self, fresh: &StoredVault) -> Result<StoredVault> {
        let fresh = fresh.clone();
        self.connections.write(move |tx| vault::begin(tx, &fresh)).await
    }

    async fn rewrap(&self, fingerprint: &[u8], rewrap: &Rewrap, note: &Note) -> Result<Rewrapped> {
        let (fingerprint, rewrap, note) = (fingerprint.to_vec(), rewrap.clone(), note.clone());
        let now = self.clock.wall();
        self.connections.write(move |tx| vault::rewrap(tx, &fingerprint, &rewrap, &note, now)).await
    }

    fn unlock(&self, pseudonyms: Pseudonyms) {
        // It is the same whoever says it.
        let _ = self.pseudonyms.set(pseudonyms);
    }

    async fn create_user(&self, user: &NewUser, session: Option<&NewSession>) -> Result<Option<Opened>> {
        let (user, session, now) = (user.clone(), session.cloned(), self.clock.wall());
        let pseudonyms = unlocked(&self.pseudonyms)?;
        let create = move |tx: &rusqlite::Transaction<'_>| {
            user::create_user(tx, &user, session.as_ref(), &pseudonyms, now)
        };
        self.connections.write(create).await
    }

    async fn release_name(&self, name: &Username, note: &Note) -> Result<bool> {
        let (name, note, now) = (name.clone(), note.clone(), self.clock.wall());
        let pseudonyms = unlocked(&self.pseudonyms)?;
        self.connections.write(move |tx| user::release_name(tx, &name, &note, &pseudonyms, now)).await
    }

    async fn user_by_name(&self, name: &Username) -> Result<Option<User>> {
        let name = name.clone();
        self.connections.read(move |db| lookup::user_by_name(db, &name)).await
    }

    async fn user_by_skeleton(&self, name: &Username) -> Result<Option<User>> {
        let name = name.clone();
        self.connections.read(move |db| lookup::user_by_skeleton(db, &name)).await
    }

    async fn user(&self, id: UserId) -> Result<Option<User>> {
        self.connections.read(move |db| lookup::user(db, id)).await
    }

    async fn user_by_external_id(&self, id: &str) -> Result<Option<User>> {
        let id = id.to_owned();
        self.connections.read(move |db| lookup::user_by_external_id(db, &id)).await
    }

    async fn users(&self, filter: &UserFilter) -> Result<Vec<User>> {
        let filter = filter.clone();
        self.connections.read(move |db| lookup::users(db, &filter)).await
    }

    async fn open_session(
        &self,
        user: UserId,
        generation: i64,
        session: &NewSession,
        note: &Note,
    ) -> Result<Option<Grant>> {
        let (session, note) = (session.clone(), note.clone());
        let now = self.clock.wall();
        self.connections
            .write(move |tx| session::open_session(tx, user, generation, &session, &note, now))
            .await
    }

    async fn rehash(&self, user: UserId, old: &str, new: &str) -> Result<()> {
        let (old, new) = (old.to_owned(), new.to_owned());
        self.connections.write(move |tx| user::rehash(tx, user, &old, &new)).await
    }

    async fn rotate_session(&self, request: &RotationRequest) -> Result<Rotation> {
        let (request, now) = (request.clone(), self.clock.wall());
        let ends = Arc::new(OnceLock::new());
        let noted = ends.clone();
        let rotate = move |tx: &rusqlite::Transaction<'_>| {
            let rotation = session::rotate_session(tx, &request, now)?;
            if let Rotation::Ended(entry) = &rotation {
                let _ = noted.set(*entry);
            }
            Ok(rotation)
        };
        match (self.connections.write(rotate).await, ends.get()) {
            (Err(StoreError::OutcomeUnknown(_)), Some(entry)) => Ok(Rotation::InDoubt(*entry)),
            (rotated, _) => rotated,
        }
    }

    async fn end_session(
        &self,
        user: UserId,
        session: SessionId,
        note: Option<&Note>,
    ) -> Result<Option<LogEntry>> {
        let (note, now) = (note.cloned(), self.clock.wall());
        self.connections
            .write(move |tx| {
                let ended = session::end_session(tx, user, session, now)?;
                if let (Some(note), true) = (&note, ended.is_some()) {
                    let name = lookup::user(tx, user)?.map(|user| user.name.to_string()).unwrap_or_default();
                    audit::append(tx, note, Some(user), &name, now)?;
                }
                Ok(ended)
            })
            .await
    }

    async fn session(&self, session: SessionId) -> Result<Option<Session>> {
        self.connections.read(move |db| lookup::session(db, session)).await
    }

    async fn sessions(&self, user: UserId, page: SessionPage) -> Result<Vec<Session>> {
        let now = self.clock.wall();
        self.connections.read(move |db| lookup::sessions(db, user, page, now)).await
    }

    async fn change_user(&self, user: UserId, change: &AccountChange) -> Result<Change> {
        let (change, now) = (change.clone(), self.clock.wall());
        let pseudonyms = unlocked(&self.pseudonyms)?;
        self.connections.write(move |tx| user::change_user(tx, user, &change, &pseudonyms, now)).await
    }

    async fn hints(&self) -> Result<Option<Hints>> {
        Ok(None)
    }

    async fn signing_keys(&self) -> Result<Vec<StoredKey>> {
        let now = self.clock.wall();
        self.connections.follow(move |db| key::signing_keys(db, now)).await
    }

    async fn create_key_if_none(&self, key: &StoredKey, delay: Duration) -> Result<()> {
        let (key, now) = (key.clone(), self.clock.wall());
        self.connections.write(move |tx| key::create_key_if_none(tx, &key, delay, now)).await
    }

    async fn rotate_key(
        &self,
        key: &StoredKey,
        delay: Duration,
        access_ttl: Duration,
        note: Option<&Note>,
    ) -> Result<StoredKey> {
        let (key, note, now) = (key.clone(), note.cloned(), self.clock.wall());
        self.connections
            .write(move |tx| key::rotate_key(tx, &key, delay, access_ttl, note.as_ref(), now))
            .await
    }

    async fn revoke_keys(&self, revocation: &KeyRevocation) -> Result<Option<KeysRevoked>> {
        let (revocation, now) = (revocation.clone(), self.clock.wall());
        self.connections.write(move |tx| key::revoke_keys(tx, &revocation, now)).await
    }

    async fn note(&self, subject: Option<UserId>, note: &Note) -> Result<()> {
        let (note, now) = (note.clone(), self.clock.wall());
        self.connections.write(move |tx| audit::note(tx, subject, &note, now)).await
    }

    async fn audit(&self, filter: &AuditFilter) -> Result<Vec<AuditEntry>> {
        let filter = filter.clone();
        self.connections.read(move |db| audit::entries(db, &filter)).await
    }

    async fn import_users(
        &self,
        users: Vec<ImportedUser>,
        note: &Note,
        keep: bool,
    ) -> Result<Vec<ImportOutcome>> {
        let (note, now) = (note.clone(), self.clock.wall());
        let pseudonyms = unlocked(&self.pseudonyms)?;
        self.connections.write(move |tx| import::import(tx, &users, &note, keep, &pseudonyms, now)).await
    }

    async fn note_own_scheme(&self, scheme: &str) -> Result<()> {
        let scheme = scheme.to_owned();
        if self.foreign_schemes().await?.contains(&scheme) {
            return Ok(());
        }
        self.connections.write(move |tx| import::note_own_scheme(tx, &scheme)).await
    }

    async fn foreign_schemes(&self) -> Result<Vec<String>> {
        self.connections.read(|db| import::foreign_schemes(db)).await
    }

    async fn users_by_verified_email(&self, email: &str) -> Result<Vec<User>> {
        let key = email.to_lowercase();
        self.connections.read(move |db| mail::users_by_verified_email(db, &key)).await
    }

    async fn enqueue_mail(&self, mail: &NewMail) -> Result<bool> {
        let (mail, now) = (mail.clone(), self.clock.wall());
        self.connections.write(move |tx| mail::enqueue(tx, &mail, now)).await
    }

    async fn claim_mail(&self, lease: &MailLease) -> Result<Option<ClaimedMail>> {
        let (lease, now) = (*lease, self.clock.wall());
        self.connections.write(move |tx| mail::claim(tx, &lease, now)).await
    }

    async fn mail_sent(&self, id: uuid::Uuid, sent: Sent) -> Result<()> {
        let now = self.clock.wall();
        self.connections.write(move |tx| mail::sent(tx, id, sent, now)).await
    }

    async fn mail_owner(&self, purpose: Purpose, token_hash: &[u8; 32]) -> Result<Option<User>> {
        let (token_hash, now) = (*token_hash, self.clock.wall());
        self.connections.read(move |db| mail::owner(db, purpose, &token_hash, now)).await
    }

    async fn verify_email(&self, token_hash: &[u8; 32], note: &Note) -> Result<bool> {
        let (token_hash, note, now) = (*token_hash, note.clone(), self.clock.wall());
        self.connections.write(move |tx| mail::verify_email(tx, &token_hash, &note, now)).await
    }

    fn shared_counters(&self) -> Option<&dyn SharedCounters> {
        None
    }

    async fn prune(&self, earliest: UnixMillis, keep_audit: Duration) -> Result<()> {
        let pseudonyms = unlocked(&self.pseudonyms)?;
        let since = earliest - millis(keep_audit);
        prune::prune(&self.connections, earliest, since, self.clock.wall(), &pseudonyms).await
    }
}
