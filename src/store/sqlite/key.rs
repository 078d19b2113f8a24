//! The signing keys.

use std::time::Duration;

use rusqlite::{Connection, Row, Transaction, params};

use super::{audit, log, statement::Result, vault};
use crate::{
    clock::UnixMillis,
    store::{KeyRevocation, KeysRevoked, LogEntry, Note, StoredKey, millis, vault::is_of_another_master},
    types::KeyId,
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
        let signs_at = now + millis(delay);
        insert_key(tx, &StoredKey { created_at: now, signs_at, ..key.clone() })?;
    }
    Ok(())
}

pub(super) fn rotate_key(
    tx: &Transaction<'_>,
    key: &StoredKey,
    delay: Duration,
    access_ttl: Duration,
    note: Option<&Note>,
    now: UnixMillis,
) -> Result<StoredKey> {
    let key = StoredKey { created_at: now, signs_at: now + millis(delay), ..key.clone() };
    let issued: Option<i64> = tx.query_row("SELECT max(access_exp_max) FROM users", [], |row| row.get(0))?;
    let expires_at = crate::store::predecessor_expiry(key.signs_at, access_ttl, issued);
    tx.execute("UPDATE signing_keys SET expires_at = ?1 WHERE expires_at IS NULL", [expires_at])?;
    insert_key(tx, &key)?;
    if let Some(note) = note {
        audit::append(tx, note, None, &key.kid, now)?;
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
    let issued: Option<i64> = tx.query_row("SELECT max(access_exp_max) FROM users", [], |row| row.get(0))?;
    let last = (now + millis(revocation.access_ttl)).max(issued.unwrap_or(0));
    let mut entries = Vec::new();
    for kid in &kids {
        let entry = LogEntry::of_key(KeyId::of(kid), revocation.kid.is_none().then_some(now), last);
        log::append(tx, &entry)?;
        entries.push(entry);
        if let Some(note) = &revocation.note {
            audit::append(tx, note, None, kid, now)?;
        }
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM signing_keys WHERE algorithm = ?1 AND expires_at IS NULL)";
    let Some(successor) = &revocation.successor else {
        return Ok(Some(KeysRevoked { kids, entries, successor: None }));
    };
    let successor = if tx.query_row(sql, [&successor.algorithm], |row| row.get(0))? {
        None
    } else {
        let signs_at = now + millis(revocation.delay);
        let key = StoredKey { created_at: now, signs_at, ..successor.clone() };
        // One that was replaced before signs until then.
        let expires_at = crate::store::predecessor_expiry(signs_at, revocation.access_ttl, issued);
        let sql = "UPDATE signing_keys SET expires_at = max(expires_at, ?1) WHERE expires_at > ?2";
        tx.execute(sql, [expires_at, now])?;
        insert_key(tx, &key)?;
        Some(key)
    };
    Ok(Some(KeysRevoked { kids, entries, successor }))
}
