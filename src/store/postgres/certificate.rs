//! Certificates and orders.

use async_trait::async_trait;
use deadpool_postgres::{GenericClient, Transaction};
use tokio_postgres::Row;

use super::{
    Postgres,
    connection::{QueryError, QueryResult as Result},
    statement::{NOW, now, one, only, run},
};
use crate::{
    clock::UnixMillis,
    store::{
        self, BegunOrder, Certificates, Challenge, OrderEnd, OrderLease, StoredCertificate,
        certificate::{CHALLENGE_MARGIN_MILLIS, FURTHEST_DUE_MILLIS},
    },
};

fn read_certificate(row: &Row) -> Result<StoredCertificate> {
    Ok(StoredCertificate {
        name: row.try_get(0)?,
        version: row.try_get(1)?,
        chain: row.try_get(2)?,
        wrapped_key: row.try_get(3)?,
        directory: row.try_get(4)?,
    })
}

async fn certificate(db: &impl GenericClient, name: &str) -> Result<Option<StoredCertificate>> {
    let sql = "SELECT name, version, chain, wrapped_key, coalesce(directory, '') FROM certificates \
               WHERE version > 0 AND name = $1";
    one(db, sql, &[&name], read_certificate).await
}

async fn lease(tx: &Transaction<'_>, names: &[String], hold: i64) -> Result<Option<OrderLease>> {
    let now = now(tx).await?;
    // In one order, whatever that of the config is: two gateways that insert the same names do not wait for each other in a circle.
    let insert = "INSERT INTO certificates (name, due_at) SELECT name, $2 FROM unnest($1::text[]) AS n(name) \
                  WHERE NOT EXISTS (SELECT 1 FROM certificates c WHERE c.name = n.name) ORDER BY name \
                  ON CONFLICT DO NOTHING";
    run(tx, insert, &[&names, &now]).await?;
    let sql = "UPDATE certificates SET fence = fence + 1, leased_until = $2::bigint + $3 \
               WHERE name = (SELECT name FROM certificates WHERE name = ANY($1) \
               AND (due_at <= $2 OR due_at > $2 + $4) AND (leased_until <= $2 OR leased_until > $2 + $4) \
               ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED) \
               RETURNING name, fence, failures, order_url, wrapped_order_key, order_directory";
    let leased = one(tx, sql, &[&names, &now, &hold, &FURTHEST_DUE_MILLIS], |row| {
        let failures = u32::try_from(row.try_get::<_, i32>(2)?);
        let failures = failures.map_err(|_| QueryError::Broken("certificates.failures"))?;
        let begun: (Option<String>, Option<Vec<u8>>) = (row.try_get(3)?, row.try_get(4)?);
        let directory: Option<String> = row.try_get(5)?;
        let begun = begun.0.zip(begun.1).map(|(url, wrapped_key)| BegunOrder {
            url,
            wrapped_key,
            directory: directory.unwrap_or_default(),
        });
        Ok((row.try_get::<_, String>(0)?, row.try_get(1)?, failures, begun))
    })
    .await?;
    let Some((name, fence, failures, begun)) = leased else { return Ok(None) };
    let current = certificate(tx, &name).await?;
    Ok(Some(OrderLease { name, fence, failures, begun, current }))
}

async fn end(tx: &Transaction<'_>, lease: &OrderLease, end: &OrderEnd, due_at: UnixMillis) -> Result<bool> {
    let begin = "UPDATE certificates SET due_at = $3, leased_until = 0";
    let which = "WHERE name = $1 AND fence = $2";
    let forget = "order_url = NULL, wrapped_order_key = NULL, order_directory = NULL";
    let (name, fence) = (&lease.name, &lease.fence);
    let ended = match end {
        OrderEnd::Obtained { chain, wrapped_key, directory, is_short } => {
            let sql = format!(
                "{begin}, failures = CASE WHEN $7 THEN failures + 1 ELSE 0 END, {forget}, version = version + 1, \
                 chain = $4, wrapped_key = $5, directory = $6 {which}"
            );
            run(tx, &sql, &[name, fence, &due_at, chain, wrapped_key, directory, is_short]).await?
        }
        OrderEnd::Failed { keeps_order: true } => {
            let sql = format!("{begin}, failures = failures + 1 {which}");
            run(tx, &sql, &[name, fence, &due_at]).await?
        }
        OrderEnd::Failed { keeps_order: false } => {
            let sql = format!("{begin}, failures = failures + 1, {forget} {which}");
            run(tx, &sql, &[name, fence, &due_at]).await?
        }
        OrderEnd::NotDue => {
            run(tx, &format!("{begin}, failures = 0 {which}"), &[name, fence, &due_at]).await?
        }
    };
    if ended > 0 {
        run(tx, "DELETE FROM acme_challenges WHERE name = $1", &[name]).await?;
    }
    Ok(ended > 0)
}

#[async_trait]
impl Certificates for Postgres {
    async fn acme_account(&self, directory: &str) -> store::Result<Option<Vec<u8>>> {
        let sql = "SELECT wrapped FROM acme_accounts WHERE directory = $1";
        self.pool.read(async |db| one(db, sql, &[&directory], |row| only(row)).await).await
    }

    async fn add_acme_account(
        &self,
        directory: &str,
        wrapped: &[u8],
        replaces: Option<&[u8]>,
    ) -> store::Result<Vec<u8>> {
        let delete = "DELETE FROM acme_accounts WHERE directory = $1 AND wrapped = $2";
        let insert = "INSERT INTO acme_accounts (directory, wrapped) VALUES ($1, $2) ON CONFLICT DO NOTHING";
        let select = "SELECT wrapped FROM acme_accounts WHERE directory = $1";
        self.pool
            .write(async |tx| {
                run(tx, delete, &[&directory, &replaces]).await?;
                run(tx, insert, &[&directory, &wrapped]).await?;
                let stored: Option<Vec<u8>> = one(tx, select, &[&directory], |row| only(row)).await?;
                Ok(stored.unwrap_or_default())
            })
            .await
    }

    async fn certificate_versions(&self) -> store::Result<Vec<(String, i64)>> {
        self.pool
            .read(async |db| {
                let sql = "SELECT name, version FROM certificates WHERE version > 0";
                let statement = db.prepare_cached(sql).await?;
                let rows = db.query(&statement, &[]).await?;
                rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
            })
            .await
    }

    async fn certificate(&self, name: &str) -> store::Result<Option<StoredCertificate>> {
        self.pool.read(async |db| certificate(db, name).await).await
    }

    async fn expect_directory(&self, directory: &str) -> store::Result<()> {
        let sql = format!(
            "UPDATE certificates SET due_at = {NOW} \
             WHERE version > 0 AND directory IS DISTINCT FROM $1 AND due_at > {NOW}"
        );
        self.pool.write(async |tx| run(tx, &sql, &[&directory]).await).await.map(drop)
    }

    async fn challenges(&self) -> store::Result<Vec<Challenge>> {
        self.pool
            .read(async |db| {
                let sql = format!(
                    "SELECT name, token, key_authorization FROM acme_challenges \
                     WHERE name IN (SELECT name FROM certificates WHERE leased_until > {NOW} - $1::bigint)"
                );
                let statement = db.prepare_cached(&sql).await?;
                let rows = db.query(&statement, &[&CHALLENGE_MARGIN_MILLIS]).await?;
                let read = |row: &Row| {
                    Ok(Challenge {
                        name: row.try_get(0)?,
                        token: row.try_get(1)?,
                        key_authorization: row.try_get(2)?,
                    })
                };
                rows.iter().map(read).collect()
            })
            .await
    }

    async fn lease_order(&self, names: &[String], hold: i64) -> store::Result<Option<OrderLease>> {
        self.pool.write(async |tx| lease(tx, names, hold).await).await
    }

    async fn extend_lease(&self, lease: &OrderLease, hold: i64) -> store::Result<bool> {
        let sql = format!(
            "UPDATE certificates SET leased_until = {NOW} + $3::bigint WHERE name = $1 AND fence = $2"
        );
        let extended = self.pool.write(async |tx| run(tx, &sql, &[&lease.name, &lease.fence, &hold]).await);
        Ok(extended.await? > 0)
    }

    async fn order_begun(&self, lease: &OrderLease, begun: &BegunOrder) -> store::Result<bool> {
        let sql = "UPDATE certificates SET order_url = $3, wrapped_order_key = $4, order_directory = $5 \
                   WHERE name = $1 AND fence = $2";
        let BegunOrder { url, wrapped_key, directory } = begun;
        let stored = self
            .pool
            .write(async |tx| run(tx, sql, &[&lease.name, &lease.fence, url, wrapped_key, directory]).await);
        Ok(stored.await? > 0)
    }

    async fn add_challenge(&self, lease: &OrderLease, challenge: &Challenge) -> store::Result<bool> {
        let sql = "INSERT INTO acme_challenges (name, token, key_authorization) \
                   SELECT $3::text, $4::text, $5::text FROM certificates WHERE name = $1 AND fence = $2 \
                   ON CONFLICT (name) DO UPDATE SET token = excluded.token, \
                   key_authorization = excluded.key_authorization";
        let Challenge { name, token, key_authorization } = challenge;
        let added = self.pool.write(async |tx| {
            run(tx, sql, &[&lease.name, &lease.fence, name, token, key_authorization]).await
        });
        Ok(added.await? > 0)
    }

    async fn end_order(&self, lease: &OrderLease, how: &OrderEnd, due_at: UnixMillis) -> store::Result<bool> {
        self.pool.write(async |tx| end(tx, lease, how, due_at).await).await
    }
}
