//! What every statement is run and read with.

use deadpool_postgres::{Client, GenericClient, Transaction};
use tokio_postgres::{Row, error::SqlState};

use super::connection::{QueryError, QueryResult as Result};
use crate::clock::UnixMillis;

pub(super) const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

pub(super) async fn one<T>(
    db: &impl GenericClient,
    sql: &str,
    params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
    read: fn(&Row) -> Result<T>,
) -> Result<Option<T>> {
    let statement = db.prepare_cached(sql).await?;
    db.query_opt(&statement, params).await?.as_ref().map(read).transpose()
}

pub(super) async fn run(
    db: &impl GenericClient,
    sql: &str,
    params: &[&(dyn tokio_postgres::types::ToSql + Sync)],
) -> Result<u64> {
    let statement = db.prepare_cached(sql).await?;
    Ok(db.execute(&statement, params).await?)
}

pub(super) fn only<'a, T: tokio_postgres::types::FromSql<'a>>(row: &'a Row) -> Result<T> {
    Ok(row.try_get(0)?)
}

pub(super) fn only_i64(row: &Row) -> Result<i64> {
    only(row)
}

pub(super) fn only_bool(row: &Row) -> Result<bool> {
    only(row)
}

pub(super) async fn now(db: &impl GenericClient) -> Result<UnixMillis> {
    Ok(one(db, &format!("SELECT {NOW}"), &[], only_i64).await?.unwrap_or_default())
}

pub(super) async fn schema_version(db: &Client) -> Result<Option<i32>> {
    let there = one(db, "SELECT to_regclass('refinery_schema_history') IS NOT NULL", &[], only_bool).await?;
    if there != Some(true) {
        return Ok(None);
    }
    let row = db.query_one("SELECT max(version)::int FROM refinery_schema_history", &[]).await?;
    Ok(row.try_get(0)?)
}

pub(super) async fn lock_keys(tx: &Transaction<'_>) -> Result<()> {
    tx.execute("SELECT pg_advisory_xact_lock(hashtext('authgate signing keys'))", &[]).await?;
    Ok(())
}

/// Returns whether a statement, and with it the transaction, failed because a unique value belongs to another account.
pub(super) fn is_taken(error: &QueryError) -> bool {
    matches!(error, QueryError::Postgres(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION))
}
