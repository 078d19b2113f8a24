//! The signing keys.

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::{Client, Transaction};
use tokio_postgres::Row;

use super::{
    PATIENCE, Postgres,
    connection::{QueryError, QueryResult as Result},
    event, log,
    statement::{NOW, lock_keys, now, one, only, only_bool, only_i64, run},
    vault,
};
use crate::{
    clock::UnixMillis,
    store::{
        self, Event, KeyRevocation, KeysRevoked, LATEST_EXPIRY, SigningKeys, StoredKey, rule::key as rule,
        vault::is_of_another_master,
    },
};

const KEY: &str = "kid, algorithm, public_key, wrapped_pair, created_at, signs_at, expires_at";

fn read_key(row: &Row) -> Result<StoredKey> {
    Ok(StoredKey {
        kid: row.try_get("kid")?,
        algorithm: row.try_get("algorithm")?,
        public_key: row.try_get("public_key")?,
        wrapped_key: row.try_get("wrapped_pair")?,
        created_at: row.try_get("created_at")?,
        signs_at: row.try_get("signs_at")?,
        expires_at: row.try_get("expires_at")?,
    })
}

pub(super) async fn signing_keys(db: &Client) -> Result<Vec<StoredKey>> {
    let sql = format!(
        "SELECT {KEY} FROM signing_keys WHERE expires_at IS NULL OR expires_at > {NOW} ORDER BY created_at, kid"
    );
    let statement = db.prepare_cached(&sql).await?;
    db.query(&statement, &[]).await?.iter().map(read_key).collect()
}

/// Fails when the secrets were wrapped with another master key since this one was made.
async fn insert_key(tx: &Transaction<'_>, key: &StoredKey) -> Result<()> {
    let fingerprint = vault::read(tx).await?.map(|vault| vault.fingerprint).unwrap_or_default();
    if is_of_another_master(&key.wrapped_key, &fingerprint) {
        return Err(QueryError::Broken("signing_keys.wrapped_pair, which another master key wraps by now"));
    }
    run(
        tx,
        "INSERT INTO signing_keys (kid, algorithm, public_key, wrapped_pair, created_at, signs_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, NULL)",
        &[&key.kid, &key.algorithm, &key.public_key, &key.wrapped_key, &key.created_at, &key.signs_at],
    )
    .await
    .map(drop)
}

/// A key that begins now. The caller has looked at the clock last.
async fn begin(tx: &Transaction<'_>, key: &StoredKey, now: UnixMillis, delay: Duration) -> Result<StoredKey> {
    // One that was not seen for as long denies, and reads the keys before it serves again.
    let sql = "SELECT max_staleness FROM gateways WHERE seen_at + max_staleness + $1 > $2 \
         ORDER BY max_staleness DESC LIMIT 1";
    let longest = one(tx, sql, &[&rule::ROUND_TRIP_MILLIS, &now], only_i64).await?;
    Ok(rule::begun(key, now, delay, longest))
}

pub(super) async fn create_key_if_none(tx: &Transaction<'_>, key: &StoredKey, delay: Duration) -> Result<()> {
    lock_keys(tx).await?;
    let sql = "SELECT EXISTS (SELECT 1 FROM signing_keys WHERE algorithm = $1 AND expires_at IS NULL)";
    if one(tx, sql, &[&key.algorithm], only_bool).await? != Some(true) {
        let now = now(tx).await?;
        insert_key(tx, &begin(tx, key, now, delay).await?).await?;
    }
    Ok(())
}

pub(super) async fn rotate_key(
    tx: &Transaction<'_>,
    key: &StoredKey,
    delay: Duration,
    access_ttl: Duration,
    event: Option<&Event>,
) -> Result<StoredKey> {
    lock_keys(tx).await?;
    // Time goes on while it looks through all of them.
    let row = tx.query_one(LATEST_EXPIRY, &[]).await?;
    let now = now(tx).await?;
    let key = begin(tx, key, now, delay).await?;
    let expires_at = rule::predecessors_end(&key, access_ttl, row.try_get(0)?);
    run(tx, "UPDATE signing_keys SET expires_at = $1 WHERE expires_at IS NULL", &[&expires_at]).await?;
    insert_key(tx, &key).await?;
    if let Some(event) = event {
        event::append(tx, event, None, &key.kid).await?;
    }
    Ok(key)
}

/// Removes every session: at once where nobody looks at the table for longer than a moment, such as a dump, and row
/// by row otherwise. Whoever writes sessions has finished, or waits: rows need no order of their own then.
async fn empty_sessions(tx: &Transaction<'_>) -> Result<()> {
    let patience: String = only(&tx.query_one("SELECT current_setting('lock_timeout')", &[]).await?)?;
    tx.batch_execute("SAVEPOINT emptied; SET LOCAL lock_timeout = '200ms'").await?;
    if tx.batch_execute("TRUNCATE sessions").await.is_ok() {
        let again = format!("RELEASE emptied; SET LOCAL lock_timeout = '{patience}'");
        return Ok(tx.batch_execute(&again).await?);
    }
    let one_by_one = "ROLLBACK TO emptied; LOCK TABLE sessions IN EXCLUSIVE MODE; DELETE FROM sessions";
    Ok(tx.batch_execute(one_by_one).await?)
}

pub(super) async fn revoke_keys(
    tx: &Transaction<'_>,
    revocation: &KeyRevocation,
) -> Result<Option<KeysRevoked>> {
    lock_keys(tx).await?;
    // Before anybody has to wait for it.
    let issued: Option<i64> = tx.query_one(LATEST_EXPIRY, &[]).await?.try_get(0)?;
    let sql = "DELETE FROM signing_keys WHERE kid = coalesce($1, kid) RETURNING kid";
    let rows = tx.query(sql, &[&revocation.kid]).await?;
    let kids = rows.iter().map(only::<String>).collect::<Result<Vec<_>>>()?;
    if kids.is_empty() {
        return Ok(None);
    }
    if revocation.kid.is_none() {
        empty_sessions(tx).await?;
    }
    let now = now(tx).await?;
    let entries = rule::entries(revocation, &kids, now, issued);
    for (kid, entry) in kids.iter().zip(&entries) {
        log::append(tx, entry).await?;
        if let Some(event) = &revocation.event {
            event::append(tx, event, None, kid).await?;
        }
    }
    let sql = "SELECT EXISTS (SELECT 1 FROM signing_keys WHERE algorithm = $1 AND expires_at IS NULL)";
    let Some(successor) = &revocation.successor else {
        return Ok(Some(KeysRevoked { kids, entries, successor: None }));
    };
    let successor = if one(tx, sql, &[&successor.algorithm], only_bool).await? == Some(true) {
        None
    } else {
        let key = begin(tx, successor, now, revocation.delay).await?;
        // One that was replaced before signs until then.
        let expires_at = rule::predecessors_end(&key, revocation.access_ttl, issued);
        let sql = "UPDATE signing_keys SET expires_at = greatest(expires_at, $1) WHERE expires_at > $2";
        run(tx, sql, &[&expires_at, &now]).await?;
        insert_key(tx, &key).await?;
        Some(key)
    };
    Ok(Some(KeysRevoked { kids, entries, successor }))
}

#[async_trait]
impl SigningKeys for Postgres {
    async fn signing_keys(&self) -> store::Result<Vec<StoredKey>> {
        self.following.read(async |db| signing_keys(db).await).await
    }

    async fn create_key_if_none(&self, key: &StoredKey, delay: Duration) -> store::Result<()> {
        self.pool.write(async |tx| create_key_if_none(tx, key, delay).await).await
    }

    async fn rotate_key(
        &self,
        key: &StoredKey,
        delay: Duration,
        access_ttl: Duration,
        event: Option<&Event>,
    ) -> store::Result<StoredKey> {
        self.pool.write_within(PATIENCE, async |tx| rotate_key(tx, key, delay, access_ttl, event).await).await
    }

    async fn revoke_keys(&self, revocation: &KeyRevocation) -> store::Result<Option<KeysRevoked>> {
        self.pool.write_within(PATIENCE, async |tx| revoke_keys(tx, revocation).await).await
    }
}
