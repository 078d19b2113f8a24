//! What is of use only with the master key.

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Transaction};

use super::{
    Postgres,
    connection::QueryResult as Result,
    event,
    statement::{lock_keys, one, only, run},
};
use crate::store::{
    self, Event, Rewrap, Rewrapped, StoredVault, Vault,
    vault::{ROOT, SIGNING_KEY, WrappedValue, rewrap_all},
};

async fn meta(db: &impl GenericClient, key: &str) -> Result<Option<Vec<u8>>> {
    one(db, "SELECT value FROM meta WHERE key = $1", &[&key], |row| only(row)).await
}

pub(super) async fn read(db: &impl GenericClient) -> Result<Option<StoredVault>> {
    // One statement sees both as they were at one moment.
    let sql = "SELECT m.value, r.value FROM meta m LEFT JOIN meta r ON r.key = 'root' WHERE m.key = 'master'";
    one(db, sql, &[], |row| {
        let wrapped_root: Option<Vec<u8>> = row.try_get(1)?;
        Ok(StoredVault { fingerprint: row.try_get(0)?, wrapped_root: wrapped_root.unwrap_or_default() })
    })
    .await
}

pub(super) async fn begin(tx: &Transaction<'_>, fresh: &StoredVault) -> Result<StoredVault> {
    let insert = "INSERT INTO meta (key, value) VALUES ($1, $2) ON CONFLICT DO NOTHING";
    run(tx, insert, &[&"master", &fresh.fingerprint]).await?;
    if meta(tx, "master").await?.as_ref() == Some(&fresh.fingerprint) {
        run(tx, insert, &[&"root", &fresh.wrapped_root]).await?;
    }
    let fingerprint = meta(tx, "master").await?.unwrap_or_default();
    Ok(StoredVault { fingerprint, wrapped_root: meta(tx, "root").await?.unwrap_or_default() })
}

pub(super) async fn rewrap_values(
    tx: &Transaction<'_>,
    fingerprint: &[u8],
    rewrap: &Rewrap,
    event: &Event,
) -> Result<Rewrapped> {
    lock_keys(tx).await?;
    let mut values: Vec<WrappedValue> = Vec::new();
    for row in tx.query("SELECT kid, wrapped_pair FROM signing_keys FOR UPDATE", &[]).await? {
        values.push((SIGNING_KEY, row.try_get(0)?, row.try_get(1)?));
    }
    values.extend(meta(tx, "root").await?.map(|root| (ROOT, String::new(), root)));
    let anew = match rewrap_all(values, rewrap) {
        Ok(anew) => anew,
        Err(what) => return Ok(Rewrapped::Unreadable(what)),
    };
    let count = anew.len();
    for (purpose, id, wrapped) in anew {
        match purpose {
            ROOT => run(tx, "UPDATE meta SET value = $1 WHERE key = 'root'", &[&wrapped]).await?,
            _ => {
                let sql = "UPDATE signing_keys SET wrapped_pair = $2 WHERE kid = $1";
                run(tx, sql, &[&id, &wrapped]).await?
            }
        };
    }
    run(tx, "UPDATE meta SET value = $1 WHERE key = 'master'", &[&fingerprint]).await?;
    event::append(tx, event, None, "").await?;
    Ok(Rewrapped::Done(count))
}

#[async_trait]
impl Vault for Postgres {
    async fn vault(&self) -> store::Result<Option<StoredVault>> {
        self.pool.read(async |db| read(db).await).await
    }

    async fn begin_vault(&self, fresh: &StoredVault) -> store::Result<StoredVault> {
        self.pool.write(async |tx| begin(tx, fresh).await).await
    }

    async fn rewrap(&self, fingerprint: &[u8], rewrap: &Rewrap, event: &Event) -> store::Result<Rewrapped> {
        self.pool.write(async |tx| rewrap_values(tx, fingerprint, rewrap, event).await).await
    }
}
