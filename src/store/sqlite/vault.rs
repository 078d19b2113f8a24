//! What is of use only with the master key.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{Sqlite, event, statement::Result};
use crate::{
    clock::UnixMillis,
    store::{
        self, Event, Rewrap, Rewrapped, StoredVault, Vault,
        vault::{ROOT, WRAPPED, WrappedValue, rewrap_all},
    },
};

fn meta(db: &Connection, key: &str) -> Result<Option<Vec<u8>>> {
    db.query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0)).optional()
}

pub(super) fn read(db: &Connection) -> Result<Option<StoredVault>> {
    let Some(fingerprint) = meta(db, "master")? else { return Ok(None) };
    Ok(Some(StoredVault { fingerprint, wrapped_root: meta(db, "root")?.unwrap_or_default() }))
}

pub(super) fn begin(tx: &Transaction<'_>, fresh: &StoredVault) -> Result<StoredVault> {
    let insert = "INSERT OR IGNORE INTO meta (key, value) VALUES (?1, ?2)";
    tx.execute(insert, params!["master", fresh.fingerprint])?;
    if meta(tx, "master")?.as_ref() == Some(&fresh.fingerprint) {
        tx.execute(insert, params!["root", fresh.wrapped_root])?;
    }
    let fingerprint = meta(tx, "master")?.unwrap_or_default();
    Ok(StoredVault { fingerprint, wrapped_root: meta(tx, "root")?.unwrap_or_default() })
}

pub(super) fn rewrap_values(
    tx: &Transaction<'_>,
    fingerprint: &[u8],
    rewrap: &Rewrap,
    event: &Event,
    now: UnixMillis,
) -> Result<Rewrapped> {
    let mut values: Vec<WrappedValue> = Vec::new();
    for (purpose, table, id, wrapped) in WRAPPED {
        let sql = format!("SELECT {id}, {wrapped} FROM {table} WHERE {wrapped} IS NOT NULL");
        let mut found = tx.prepare(&sql)?;
        let found = found.query_map([], |row| Ok((purpose, row.get(0)?, row.get(1)?)))?;
        values.extend(found.collect::<Result<Vec<_>>>()?);
    }
    values.extend(meta(tx, "root")?.map(|root| (ROOT, String::new(), root)));
    let anew = match rewrap_all(values, rewrap) {
        Ok(anew) => anew,
        Err(what) => return Ok(Rewrapped::Unreadable(what)),
    };
    let count = anew.len();
    for (purpose, id, wrapped) in anew {
        match WRAPPED.iter().find(|(known, ..)| *known == purpose) {
            Some((_, table, column, value)) => tx.execute(
                &format!("UPDATE {table} SET {value} = ?2 WHERE {column} = ?1"),
                params![id, wrapped],
            )?,
            None => tx.execute("UPDATE meta SET value = ?1 WHERE key = 'root'", params![wrapped])?,
        };
    }
    tx.execute("UPDATE meta SET value = ?1 WHERE key = 'master'", [fingerprint])?;
    event::append(tx, event, None, "", now)?;
    Ok(Rewrapped::Done(count))
}

#[async_trait]
impl Vault for Sqlite {
    async fn vault(&self) -> store::Result<Option<StoredVault>> {
        self.connections.read(|db| read(db)).await
    }

    async fn begin_vault(&self, fresh: &StoredVault) -> store::Result<StoredVault> {
        let fresh = fresh.clone();
        self.connections.write(move |tx| begin(tx, &fresh)).await
    }

    async fn rewrap(&self, fingerprint: &[u8], rewrap: &Rewrap, event: &Event) -> store::Result<Rewrapped> {
        let (fingerprint, rewrap, event) = (fingerprint.to_vec(), rewrap.clone(), event.clone());
        let now = self.clock.wall();
        self.connections.write(move |tx| rewrap_values(tx, &fingerprint, &rewrap, &event, now)).await
    }
}
