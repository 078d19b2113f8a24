//! The signing keys.

use std::time::Duration;

use async_trait::async_trait;
use rusqlite::{Connection, Row, Transaction, params};

use super::{Sqlite, event, log, statement::Result, vault};
use crate::{
    clock::UnixMillis,
    store::{
        self, Event, KeyRevocation, KeysRevoked, LATEST_EXPIRY, SigningKeys, StoredKey, rule::key as rule,
        vault::is_of_another_master,
    },
};

const KEY: &str = "kid, algorithm, public_key, wrapped_pair, created_at, signs_at, expires_at";

fn read_key(row: &Row<'_>) -> Result<StoredKey> {
    Ok(StoredKey {
        kid: row.get("kid")?,
        algorithm: row.get("algorithm")?,
        public_key: row.get("public_key")?,
        wrapped_key: row.get("wrapped_pair")?,
        created_at: row.get("created_at")?,
        signs_at: row.get("signs_at")?,
        expires_at: row.get("expires_at")?,
    })
}

pub(super) fn signing_keys(db: &Connection, now: UnixMillis) -> Result<Vec<StoredKey>> {
    db.prepare_cached(&format!(
        "SELECT {KEY} FROM signing_keys WHERE expires_at IS NULL OR expires_at > ?1 ORDER BY created_at, kid"
    ))?
    .query_map([now], read_key)?
    .collect()
}

/// Fails when the secrets were wrapped with another master key since this one was made.
fn insert_key(tx: &Transaction<'_>, key: &StoredKey) -> Result<()> {
    let fingerprint = vault::read(tx)?.map(|vault| vault.fingerprint).unwrap_or_default();
    if is_of_another_master(&key.wrapped_key, &fingerprint) {
        return Err(rusqlite::Error::StatementChangedRows(0));
    }
    tx.execute(
        "INSERT INTO signing_keys (kid, algorithm, public_key, wrapped_pair, created_at, signs_at, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL)",
        params![key.kid, key.algorithm, key.public_key, key.wrapped_key, key.created_at, key.signs_at],
    )?;
    Ok(())
}

pub(super) fn create_key_if_none(
    tx: &Transaction<'_>,
    key: &StoredKey,
    delay: Duration,
    now: UnixMillis,
) -> Result<()> {
    let there: bool = tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM signing_keys WHERE algorithm = ?1 AND expires_at IS NULL)",
        [&key.algorithm],
        |row| row.get(0),
    )?;
    if !there {
        insert_key(tx, &rule::begun(key, now, delay, None))?;
    }
    Ok(())
}

pub(super) fn rotate_key(
    tx: &Transaction<'_>,
    key: &StoredKey,
    delay: Duration,
    access_ttl: Duration,
    event: Option<&Event>,
    now: UnixMillis,
) -> Result<StoredKey> {
    let key = rule::begun(key, now, delay, None);
    let issued: Option<i64> = tx.query_row(LATEST_EXPIRY, [], |row| row.get(0))?;
    let expires_at = rule::predecessors_end(&key, access_ttl, issued);
    tx.execute("UPDATE signing_keys SET expires_at = ?1 WHERE expires_at IS NULL", [expires_at])?;
    insert_key(tx, &key)?;
    if let Some(event) = event {
        event::append(tx, event, None, &key.kid, now)?;
    }
    Ok(key)
}

pub(super) fn revoke_keys(
    tx: &Transaction<'_>,
    revocation: &KeyRevocation,
    now: UnixMillis,
) -> Result<Option<KeysRevoked>> {
    let kids: Vec<String> = tx
        .prepare_cached("DELETE FROM signing_keys WHERE kid = coalesce(?1, kid) RETURNING kid")?
        .query_map([&revocation.kid], |row| row.get(0))?
        .collect::<Result<_>>()?;
    if kids.is_empty() {
        return Ok(None);
    }
    if revocation.kid.is_none() {
        tx.execute("DELETE FROM sessions", [])?;
    }
    let issued: Option<i64> = tx.query_row(LATEST_EXPIRY, [], |row| row.get(0))?;
    let entries = rule::entries(revocation, &kids, now, issued);
    for (kid, entry) in kids.iter().zip(&entries) {
        log::append(tx, entry)?;
        if let Some(event) = &revocation.event {
            event::append(tx, event, None, kid, now)?;
        }
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM signing_keys WHERE algorithm = ?1 AND expires_at IS NULL)";
    let Some(successor) = &revocation.successor else {
        return Ok(Some(KeysRevoked { kids, entries, successor: None }));
    };
    let successor = if tx.query_row(sql, [&successor.algorithm], |row| row.get(0))? {
        None
    } else {
        let key = rule::begun(successor, now, revocation.delay, None);
        // One that was replaced before signs until then.
        let expires_at = rule::predecessors_end(&key, revocation.access_ttl, issued);
        let sql = "UPDATE signing_keys SET expires_at = max(expires_at, ?1) WHERE expires_at > ?2";
        tx.execute(sql, [expires_at, now])?;
        insert_key(tx, &key)?;
        Some(key)
    };
    Ok(Some(KeysRevoked { kids, entries, successor }))
}

#[async_trait]
impl SigningKeys for Sqlite {
    async fn signing_keys(&self) -> store::Result<Vec<StoredKey>> {
        let now = self.clock.wall();
        self.connections.follow(move |db| signing_keys(db, now)).await
    }

    async fn create_key_if_none(&self, key: &StoredKey, delay: Duration) -> store::Result<()> {
        let (key, now) = (key.clone(), self.clock.wall());
        self.connections.write(move |tx| create_key_if_none(tx, &key, delay, now)).await
    }

    async fn rotate_key(
        &self,
        key: &StoredKey,
        delay: Duration,
        access_ttl: Duration,
        event: Option<&Event>,
    ) -> store::Result<StoredKey> {
        let (key, event, now) = (key.clone(), event.cloned(), self.clock.wall());
        self.connections.write(move |tx| rotate_key(tx, &key, delay, access_ttl, event.as_ref(), now)).await
    }

    async fn revoke_keys(&self, revocation: &KeyRevocation) -> store::Result<Option<KeysRevoked>> {
        let (revocation, now) = (revocation.clone(), self.clock.wall());
        self.connections.write(move |tx| revoke_keys(tx, &revocation, now)).await
    }
}
