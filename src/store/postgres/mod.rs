//! The store for anything with more than one gateway: one PostgreSQL primary, 13 or later.
//!
//! Each part of the contract has a file of its own, as in the other database; what they read rows with is in [`lookup`].

mod api_key;
mod attempts;
mod certificate;
mod client;
mod connection;
mod departed;
mod event;
mod factor;
mod hint;
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
mod tls;
mod user;
mod vault;
mod webhook;

use std::{sync::OnceLock, time::Duration};

use async_trait::async_trait;

use self::connection::Pool;
use super::{Hints, Result, SharedCounters, Store, millis, unlocked};
use crate::{clock::UnixMillis, config::PostgresUrl, types::Pseudonyms};

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
    /// API keys are read on one more, since that may take long.
    reading: Pool,
    pseudonyms: OnceLock<Pseudonyms>,
}

impl Postgres {
    pub(super) fn open(location: &PostgresUrl, pool_size: usize, timeout: Duration) -> Result<Self> {
        let pool = Pool::new(location, pool_size, timeout)?;
        let one = || Pool::new(location, 1, timeout);
        Ok(Self { pool, following: one()?, reading: one()?, pseudonyms: OnceLock::new() })
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

    fn unlock(&self, pseudonyms: Pseudonyms) {
        // It is the same whoever says it.
        let _ = self.pseudonyms.set(pseudonyms);
    }

    async fn hints(&self) -> Result<Option<Hints>> {
        hint::listen(&self.following).await.map(Some)
    }

    fn shared_counters(&self) -> Option<&dyn SharedCounters> {
        Some(self)
    }

    async fn prune(&self, earliest: UnixMillis, keep_events: Duration) -> Result<()> {
        let pseudonyms = unlocked(&self.pseudonyms)?;
        prune::prune(&self.pool, earliest, millis(keep_events), &pseudonyms).await
    }
}
