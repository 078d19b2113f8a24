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
    vault::{ROOT, WRAPPED, WrappedValue, rewrap_all},
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
    for (purpose, table, id, wrapped) in WRAPPED {
        let sql = format!("SELECT {id}, {wrapped} FROM {table} WHERE {wrapped} IS NOT NULL FOR UPDATE");
        for row in tx.query(&sql, &[]).await? {
            values.push((purpose, row.try_get(0)?, row.try_get(1)?));
        }
    }
    values.extend(meta(tx, "root").await?.map(|root| (ROOT, String::new(), root)));
    let anew = match rewrap_all(values, rewrap) {
        Ok(anew) => anew,
        Err(what) => return Ok(Rewrapped::Unreadable(what)),
    };
    let count = anew.len();
    for (purpose, id, wrapped) in anew {
        match WRAPPED.iter().find(|(known, ..)| *known == purpose) {
            Some((_, table, column, value)) => {
                run(tx, &format!("UPDATE {table} SET {value} = $2 WHERE {column} = $1"), &[&id, &wrapped])
                    .await?
            }
            None => run(tx, "UPDATE meta SET value = $1 WHERE key = 'root'", &[&wrapped]).await?,
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
