//! The embedded store: one file, one gateway, and the command line beside it.
//!
//! Commits are durable (`synchronous=FULL` on a write-ahead log), and every writing transaction
//! begins `IMMEDIATE`, so that it never fails half-way for another writer's sake. Work runs on
//! the blocking threads of the store's runtime.

mod api_key;
mod certificate;
mod client;
mod connection;
mod departed;
mod event;
mod factor;
mod import;
mod invitation;
mod key;
mod link;
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
mod webhook;

use std::{
    fs::{self, File},
    path::Path,
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;

use self::connection::Connections;
use super::{Hints, Result, SharedCounters, Store, StoreError, millis, unlocked};
use crate::{
    clock::{Clock, UnixMillis},
    types::Pseudonyms,
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
pub(super) fn lock_for_serving(path: &Path, inherited: impl FnOnce(&Path) -> Option<File>) -> Result<File> {
    // One lock for one file, by whatever name it is found.
    let real = fs::canonicalize(path).or_else(|_| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok::<_, std::io::Error>(fs::canonicalize(folder)?.join(path.file_name().unwrap_or_default()))
    });
    let real = real.map_err(|error| StoreError::Unusable(format!("{}: {error}", path.display())))?;
    let lock_path = connection::beside(&real, "lock");
    if let Some(lock) = inherited(&lock_path) {
        return Ok(lock);
    }
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
impl Store for Sqlite {
    async fn migrate(&self) -> Result<()> {
        self.connections.migrate(embedded::migrations::runner()).await
    }

    async fn check_schema(&self) -> Result<()> {
        let newest = super::error::newest(&embedded::migrations::runner());
        let found = self.connections.read(statement::schema_version).await?;
        super::error::compare_schema(found, newest)
    }

    fn unlock(&self, pseudonyms: Pseudonyms) {
        // It is the same whoever says it.
        let _ = self.pseudonyms.set(pseudonyms);
    }

    async fn hints(&self) -> Result<Option<Hints>> {
        Ok(None)
    }

    fn shared_counters(&self) -> Option<&dyn SharedCounters> {
        None
    }

    async fn prune(&self, earliest: UnixMillis, keep_events: Duration) -> Result<()> {
        let pseudonyms = unlocked(&self.pseudonyms)?;
        let since = earliest - millis(keep_events);
        prune::prune(&self.connections, earliest, since, self.clock.wall(), &pseudonyms).await
    }
}
