//! Certificates and orders.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Sqlite, statement::Result};
use crate::{
    clock::UnixMillis,
    store::{
        self, BegunOrder, Certificates, Challenge, OrderEnd, OrderLease, StoredCertificate,
        certificate::{CHALLENGE_MARGIN_MILLIS, FURTHEST_DUE_MILLIS},
    },
};

const CERTIFICATE: &str =
    "SELECT name, version, chain, wrapped_key, coalesce(directory, '') FROM certificates WHERE version > 0";

fn read_certificate(row: &Row<'_>) -> Result<StoredCertificate> {
    Ok(StoredCertificate {
        name: row.get(0)?,
        version: row.get(1)?,
        chain: row.get(2)?,
        wrapped_key: row.get(3)?,
        directory: row.get(4)?,
    })
}

fn certificate(db: &Connection, name: &str) -> Result<Option<StoredCertificate>> {
    db.query_row(&format!("{CERTIFICATE} AND name = ?1"), [name], read_certificate).optional()
}

fn lease(tx: &Transaction<'_>, names: &[String], hold: i64, now: UnixMillis) -> Result<Option<OrderLease>> {
    for name in names {
        tx.prepare_cached("INSERT OR IGNORE INTO certificates (name, due_at) VALUES (?1, ?2)")?
            .execute(params![name, now])?;
        let leased = tx
            .prepare_cached(
                "UPDATE certificates SET fence = fence + 1, leased_until = ?2 + ?3 \
                 WHERE name = ?1 AND (due_at <= ?2 OR due_at > ?2 + ?4) \
                 AND (leased_until <= ?2 OR leased_until > ?2 + ?4) \
                 RETURNING fence, failures, order_url, wrapped_order_key, order_directory",
            )?
            .query_row(params![name, now, hold, FURTHEST_DUE_MILLIS], |row| {
                let begun: (Option<String>, Option<Vec<u8>>) = (row.get(2)?, row.get(3)?);
                let directory: Option<String> = row.get(4)?;
                let begun = begun.0.zip(begun.1).map(|(url, wrapped_key)| BegunOrder {
                    url,
                    wrapped_key,
                    directory: directory.unwrap_or_default(),
                });
                Ok((row.get(0)?, row.get(1)?, begun))
            })
            .optional()?;
        if let Some((fence, failures, begun)) = leased {
            let current = certificate(tx, name)?;
            return Ok(Some(OrderLease { name: name.clone(), fence, failures, begun, current }));
        }
    }
    Ok(None)
}

fn end(tx: &Transaction<'_>, lease: &OrderLease, end: &OrderEnd, due_at: UnixMillis) -> Result<bool> {
    let begin = "UPDATE certificates SET due_at = ?3, leased_until = 0";
    let which = "WHERE name = ?1 AND fence = ?2";
    let forget = "order_url = NULL, wrapped_order_key = NULL, order_directory = NULL";
    let (name, fence) = (&lease.name, lease.fence);
    let ended = match end {
        OrderEnd::Obtained { chain, wrapped_key, directory, is_short } => tx.execute(
            &format!(
                "{begin}, failures = CASE WHEN ?7 THEN failures + 1 ELSE 0 END, {forget}, version = version + 1, \
                 chain = ?4, wrapped_key = ?5, directory = ?6 {which}"
            ),
            params![name, fence, due_at, chain, wrapped_key, directory, is_short],
        )?,
        OrderEnd::Failed { keeps_order: true } => {
            tx.execute(&format!("{begin}, failures = failures + 1 {which}"), params![name, fence, due_at])?
        }
        OrderEnd::Failed { keeps_order: false } => tx.execute(
            &format!("{begin}, failures = failures + 1, {forget} {which}"),
            params![name, fence, due_at],
        )?,
        OrderEnd::NotDue => {
            tx.execute(&format!("{begin}, failures = 0 {which}"), params![name, fence, due_at])?
        }
    };
    if ended > 0 {
        tx.execute("DELETE FROM acme_challenges WHERE name = ?1", [name])?;
    }
    Ok(ended > 0)
}

#[async_trait]
impl Certificates for Sqlite {
    async fn acme_account(&self, directory: &str) -> store::Result<Option<Vec<u8>>> {
        let directory = directory.to_owned();
        let sql = "SELECT wrapped FROM acme_accounts WHERE directory = ?1";
        self.connections.read(move |db| db.query_row(sql, [directory], |row| row.get(0)).optional()).await
    }

    async fn add_acme_account(
        &self,
        directory: &str,
        wrapped: &[u8],
        replaces: Option<&[u8]>,
    ) -> store::Result<Vec<u8>> {
        let (directory, wrapped) = (directory.to_owned(), wrapped.to_vec());
        let replaces = replaces.map(<[u8]>::to_vec);
        self.connections
            .write(move |tx| {
                tx.execute(
                    "DELETE FROM acme_accounts WHERE directory = ?1 AND wrapped = ?2",
                    params![directory, replaces],
                )?;
                tx.execute(
                    "INSERT OR IGNORE INTO acme_accounts (directory, wrapped) VALUES (?1, ?2)",
                    params![directory, wrapped],
                )?;
                let sql = "SELECT wrapped FROM acme_accounts WHERE directory = ?1";
                tx.query_row(sql, [directory], |row| row.get(0))
            })
            .await
    }

    async fn certificate_versions(&self) -> store::Result<Vec<(String, i64)>> {
        let read = |db: &Transaction<'_>| {
            db.prepare_cached("SELECT name, version FROM certificates WHERE version > 0")?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        };
        self.connections.read(read).await
    }

    async fn certificate(&self, name: &str) -> store::Result<Option<StoredCertificate>> {
        let name = name.to_owned();
        self.connections.read(move |db| certificate(db, &name)).await
    }

    async fn expect_directory(&self, directory: &str) -> store::Result<()> {
        let (directory, now) = (directory.to_owned(), self.clock.wall());
        self.connections
            .write(move |tx| {
                let sql = "UPDATE certificates SET due_at = ?2 \
                           WHERE version > 0 AND directory IS NOT ?1 AND due_at > ?2";
                tx.execute(sql, params![directory, now]).map(drop)
            })
            .await
    }

    async fn challenges(&self) -> store::Result<Vec<Challenge>> {
        let since = self.clock.wall() - CHALLENGE_MARGIN_MILLIS;
        let sql = "SELECT name, token, key_authorization FROM acme_challenges \
                   WHERE name IN (SELECT name FROM certificates WHERE leased_until > ?1)";
        let read = move |db: &Transaction<'_>| {
            db.prepare_cached(sql)?
                .query_map([since], |row| {
                    Ok(Challenge { name: row.get(0)?, token: row.get(1)?, key_authorization: row.get(2)? })
                })?
                .collect()
        };
        self.connections.read(read).await
    }

    async fn lease_order(&self, names: &[String], hold: i64) -> store::Result<Option<OrderLease>> {
        let (names, now) = (names.to_vec(), self.clock.wall());
        self.connections.write(move |tx| lease(tx, &names, hold, now)).await
    }

    async fn extend_lease(&self, lease: &OrderLease, hold: i64) -> store::Result<bool> {
        let (name, fence, until) = (lease.name.clone(), lease.fence, self.clock.wall() + hold);
        self.connections
            .write(move |tx| {
                let sql = "UPDATE certificates SET leased_until = ?3 WHERE name = ?1 AND fence = ?2";
                Ok(tx.execute(sql, params![name, fence, until])? > 0)
            })
            .await
    }

    async fn order_begun(&self, lease: &OrderLease, begun: &BegunOrder) -> store::Result<bool> {
        let (name, fence) = (lease.name.clone(), lease.fence);
        let BegunOrder { url, wrapped_key, directory } = begun.clone();
        self.connections
            .write(move |tx| {
                let sql = "UPDATE certificates SET order_url = ?3, wrapped_order_key = ?4, order_directory = ?5 \
                           WHERE name = ?1 AND fence = ?2";
                Ok(tx.execute(sql, params![name, fence, url, wrapped_key, directory])? > 0)
            })
            .await
    }

    async fn add_challenge(&self, lease: &OrderLease, challenge: &Challenge) -> store::Result<bool> {
        let (name, fence, challenge) = (lease.name.clone(), lease.fence, challenge.clone());
        self.connections
            .write(move |tx| {
                let sql = "INSERT OR REPLACE INTO acme_challenges (name, token, key_authorization) \
                           SELECT ?3, ?4, ?5 FROM certificates WHERE name = ?1 AND fence = ?2";
                let Challenge { name: of, token, key_authorization } = challenge;
                Ok(tx.execute(sql, params![name, fence, of, token, key_authorization])? > 0)
            })
            .await
    }

    async fn end_order(&self, lease: &OrderLease, how: &OrderEnd, due_at: UnixMillis) -> store::Result<bool> {
        let (lease, how) = (lease.clone(), how.clone());
        self.connections.write(move |tx| end(tx, &lease, &how, due_at)).await
    }
}
