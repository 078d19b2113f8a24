//! Connections to the embedded database: one that writes, a few that read.

use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Transaction, TransactionBehavior};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::store::{Result, StoreError};

/// Reading beyond this in parallel gains nothing on one file.
const MAX_READERS: usize = 4;

/// Pages that each connection keeps, in KiB: the upper ones of every index. The system keeps the others, once for all.
const CACHE_KIB: i64 = 512;

pub(super) struct Connections {
    path: PathBuf,
    timeout: Duration,
    writer: Arc<Mutex<Option<Connection>>>,
    readers: Arc<Mutex<Vec<Connection>>>,
    writing: Semaphore,
    reading: Semaphore,
    /// The turn of whoever follows the log: that waits for nobody else's reading.
    following: Semaphore,
}

impl Connections {
    pub(super) fn new(path: &Path, pool_size: usize, timeout: Duration) -> Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder.filter(|folder| !folder.is_dir()) {
            return Err(StoreError::Unusable(format!("{}: no such folder", folder.display())));
        }
        Ok(Self {
            path: path.to_owned(),
            timeout,
            writer: Arc::default(),
            readers: Arc::default(),
            writing: Semaphore::new(1),
            reading: Semaphore::new(pool_size.clamp(1, MAX_READERS)),
            following: Semaphore::new(1),
        })
    }

    /// Runs `work` in a transaction that commits if it succeeds.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let _turn = self.turn(&self.writing).await?;
        let (writer, path, timeout) = (self.writer.clone(), self.path.clone(), self.timeout);
        blocking(move || {
            let mut slot = writer.lock().unwrap_or_else(PoisonError::into_inner);
            let mut connection = match slot.take() {
                Some(connection) => connection,
                None => connect(&path, timeout)?,
            };
            let result = in_transaction(&mut connection, work);
            *slot = Some(connection);
            result
        })
        .await
    }

    /// Runs `work` on a connection that sees one state of the database.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.read_in_turn(&self.reading, work).await
    }

    /// The same for whoever follows the log.
    pub(super) async fn follow<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.read_in_turn(&self.following, work).await
    }

    async fn read_in_turn<T: Send + 'static>(
        &self,
        turns: &Semaphore,
        work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let _turn = self.turn(turns).await?;
        let (readers, path, timeout) = (self.readers.clone(), self.path.clone(), self.timeout);
        blocking(move || {
            let idle = readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut connection = match idle {
                Some(connection) => connection,
                None => connect(&path, timeout)?,
            };
            let snapshot = connection
                .transaction_with_behavior(TransactionBehavior::Deferred)
                .map_err(|error| convert(&error))?;
            let value = work(&snapshot).map_err(|error| convert(&error))?;
            drop(snapshot);
            readers.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
            Ok(value)
        })
        .await
    }

    /// Migrates under a lock file of its own, so that two processes never do it at once.
    pub(super) async fn migrate(&self, runner: refinery::Runner) -> Result<()> {
        let _turn = self.turn(&self.writing).await?;
        let (path, timeout) = (self.path.clone(), self.timeout);
        blocking(move || {
            let lock_path = beside(&path, "migrate.lock");
            let lock = File::options()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&lock_path)
                .map_err(|error| StoreError::Unusable(format!("{}: {error}", lock_path.display())))?;
            lock.lock().map_err(|error| StoreError::Unusable(format!("{}: {error}", lock_path.display())))?;
            let mut connection = connect(&path, timeout)?;
            let sql = "SELECT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'users') \
                 AND NOT EXISTS (SELECT 1 FROM sqlite_master WHERE name = 'refinery_schema_history')";
            if connection.query_row(sql, [], |row| row.get(0)).map_err(|error| convert(&error))? {
                return Err(crate::store::error::occupied());
            }
            crate::store::error::migrated(runner.set_abort_missing(true).run(&mut connection))
        })
        .await
    }

    async fn turn<'a>(&self, semaphore: &'a Semaphore) -> Result<SemaphorePermit<'a>> {
        match tokio::time::timeout(self.timeout, semaphore.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(StoreError::Away("no connection became free in time".to_owned())),
        }
    }
}

/// The path of a file that belongs to the database: `authgate.db-lock`.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push("-");
    name.push(suffix);
    PathBuf::from(name)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Failed(error.to_string())),
    }
}

fn in_transaction<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
) -> Result<T> {
    let tx = connection
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .map_err(|error| convert(&error))?;
    let value = work(&tx).map_err(|error| convert(&error))?;
    tx.commit().map_err(|error| StoreError::OutcomeUnknown(error.to_string()))?;
    Ok(value)
}

fn connect(path: &Path, timeout: Duration) -> Result<Connection> {
    // SQLite would create the file as the umask says; it holds password hashes.
    if !path.exists() {
        let made = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path);
        if let Err(error) = made.map(drop).or_else(ignore_existing) {
            return Err(StoreError::Away(format!("{}: {error}", path.display())));
        }
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
    }
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = || -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(timeout)?;
        connection.pragma_update(None, "journal_mode", "WAL")?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "foreign_keys", "ON")?;
        connection.pragma_update(None, "cache_size", -CACHE_KIB)?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    };
    open().map_err(|error| match convert(&error) {
        StoreError::Failed(text) => StoreError::Unusable(format!("{}: {text}", path.display())),
        other => other,
    })
}

fn ignore_existing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error) }
}

fn convert(error: &rusqlite::Error) -> StoreError {
    match error.sqlite_error_code() {
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::CannotOpen
            | ErrorCode::DiskFull
            | ErrorCode::ReadOnly
            | ErrorCode::SystemIoFailure
            | ErrorCode::PermissionDenied,
        ) => StoreError::Away(error.to_string()),
        _ => StoreError::Failed(error.to_string()),
    }
}
