//! Attempts counted for all gateways together.
//!
//! A bucket is one row and taking from it one statement, so two gateways never both take the last.

use std::time::Duration;

use async_trait::async_trait;
use deadpool_postgres::Transaction;

use super::{
    Postgres,
    connection::QueryResult,
    statement::{NOW, now, one, only, only_bool, run},
};
use crate::{
    clock::UnixMillis,
    store::{Result, SharedBucket, SharedCounters},
};

fn millis_each(bucket: &SharedBucket) -> f64 {
    bucket.per.as_millis() as f64 / f64::from(bucket.count)
}

/// What is spent of a row by now, as SQL: `$3` is the time and `$2` how long one takes to come back.
const SPENT: &str = "greatest(0, attempts.spent - greatest(0, $3::bigint - attempts.at) / $2::float8)";

async fn take(tx: &Transaction<'_>, bucket: &SharedBucket, now: UnixMillis) -> QueryResult<Option<Duration>> {
    let each = millis_each(bucket);
    let sql = format!(
        "INSERT INTO attempts (bucket, spent, at, full_at) VALUES ($1, 1, $3, $3 + $2::float8::bigint) \
         ON CONFLICT (bucket) DO UPDATE SET spent = {SPENT} + 1, at = greatest($3, attempts.at), \
         full_at = $3 + (({SPENT} + 1) * $2)::bigint WHERE {SPENT} + 1 <= $4::float8 + 1e-9 RETURNING spent"
    );
    let key = bucket.key.as_slice();
    let count = f64::from(bucket.count);
    if one(tx, &sql, &[&key, &each, &now, &count], |row| only::<f64>(row)).await?.is_some() {
        return Ok(None);
    }
    let sql = format!("SELECT {SPENT} FROM attempts WHERE bucket = $1");
    let spent = one(tx, &sql, &[&key, &each, &now], |row| only::<f64>(row)).await?.unwrap_or(count);
    let over = (spent + 1.0 - count).clamp(0.0, count);
    Ok(Some(Duration::from_millis((over * each).ceil().max(1.0) as u64)))
}

/// Undoes what was taken when a later bucket is empty.
async fn give_back(tx: &Transaction<'_>, buckets: &[SharedBucket]) -> QueryResult<()> {
    for bucket in buckets {
        let sql = "UPDATE attempts SET spent = greatest(0, spent - 1) WHERE bucket = $1";
        run(tx, sql, &[&bucket.key.as_slice()]).await?;
    }
    Ok(())
}

#[async_trait]
impl SharedCounters for Postgres {
    async fn take(&self, buckets: &[SharedBucket]) -> Result<Option<(usize, Duration)>> {
        self.pool
            .write(async |tx| {
                let now = now(tx).await?;
                for (index, bucket) in buckets.iter().enumerate() {
                    if let Some(after) = take(tx, bucket, now).await? {
                        give_back(tx, &buckets[..index]).await?;
                        return Ok(Some((index, after)));
                    }
                }
                Ok(None)
            })
            .await
    }

    async fn give_back(&self, buckets: &[SharedBucket]) -> Result<()> {
        self.pool.write(async |tx| give_back(tx, buckets).await).await
    }

    async fn note(&self, bucket: &SharedBucket) -> Result<()> {
        let sql = format!(
            "INSERT INTO attempts (bucket, spent, at, full_at) VALUES ($1, 0, {NOW}, {NOW} + $2::bigint) \
             ON CONFLICT (bucket) DO UPDATE SET full_at = greatest(attempts.full_at, excluded.full_at)"
        );
        let period = i64::try_from(bucket.per.as_millis()).unwrap_or(i64::MAX / 4);
        self.pool.write(async |tx| run(tx, &sql, &[&bucket.key.as_slice(), &period]).await.map(drop)).await
    }

    async fn is_known(&self, key: &[u8; 16]) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM attempts WHERE bucket = $1)";
        let known = self.pool.read(async |db| one(db, sql, &[&key.as_slice()], only_bool).await).await?;
        Ok(known == Some(true))
    }
}
