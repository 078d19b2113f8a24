//! What has happened.

use async_trait::async_trait;
use deadpool_postgres::{Client, Transaction};
use tokio_postgres::Row;

use super::{
    Postgres,
    connection::QueryResult as Result,
    statement::{NOW, run},
};
use crate::{
    store::{self, AuditEntry, AuditFilter, Event, Events},
    types::UserId,
};

pub(super) async fn append(
    tx: &Transaction<'_>,
    event: &Event,
    subject_id: Option<UserId>,
    subject: &str,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO events (at, actor_id, actor, address, action, subject_id, subject, detail) \
         VALUES ({NOW}, $1, $2, $3, $4, $5, $6, $7)"
    );
    run(
        tx,
        &sql,
        &[
            &event.actor_id.map(|id| id.to_string()),
            &event.actor(subject_id, subject),
            &event.address,
            &event.action,
            &subject_id.map(|id| id.to_string()),
            &subject,
            &event.detail,
        ],
    )
    .await
    .map(drop)
}

/// Notes what changed nothing else; of an account only while there is one.
pub(super) async fn record(tx: &Transaction<'_>, subject: Option<UserId>, event: &Event) -> Result<()> {
    let Some(id) = subject else { return append(tx, event, None, "").await };
    // One statement, as for nobody: that there is such an account is not told by the time. Whoever deletes it meanwhile
    // waits, and finds the line.
    let sql = format!(
        "INSERT INTO events (at, actor_id, actor, address, action, subject_id, subject, detail) \
         SELECT {NOW}, $1, CASE WHEN $2 = '' AND $1 = $5 THEN name ELSE $2 END, $3, $4, $5, name, $6 \
         FROM (SELECT name FROM users WHERE id = $7 FOR KEY SHARE) AS subject"
    );
    let (actor_id, subject_id) = (event.actor_id.map(|id| id.to_string()), id.to_string());
    run(
        tx,
        &sql,
        &[&actor_id, &event.actor, &event.address, &event.action, &subject_id, &event.detail, &id.uuid()],
    )
    .await
    .map(drop)
}

fn read(row: &Row) -> Result<AuditEntry> {
    Ok(AuditEntry {
        seq: row.try_get("seq")?,
        at: row.try_get("at")?,
        actor_id: row.try_get("actor_id")?,
        actor: row.try_get("actor")?,
        address: row.try_get("address")?,
        action: row.try_get("action")?,
        subject_id: row.try_get("subject_id")?,
        subject: row.try_get("subject")?,
        detail: row.try_get("detail")?,
    })
}

/// Returns the events of these numbers, as far as they are there.
pub(super) async fn of_numbers(tx: &Transaction<'_>, numbers: &[i64]) -> Result<Vec<AuditEntry>> {
    let sql = "SELECT seq, at, actor_id, actor, address, action, subject_id, subject, detail FROM events \
         WHERE seq = ANY($1)";
    let statement = tx.prepare_cached(sql).await?;
    tx.query(&statement, &[&numbers]).await?.iter().map(read).collect()
}

pub(super) async fn entries(db: &Client, filter: &AuditFilter) -> Result<Vec<AuditEntry>> {
    let sql = "SELECT seq, at, actor_id, actor, address, action, subject_id, subject, detail FROM events \
         WHERE seq < $1 AND ($2::text IS NULL OR subject_id = $2) ORDER BY seq DESC LIMIT $3";
    let statement = db.prepare_cached(sql).await?;
    let (before, subject) = (filter.before.unwrap_or(i64::MAX), filter.subject.map(|id| id.to_string()));
    let rows = db.query(&statement, &[&before, &subject, &i64::from(filter.limit)]).await?;
    rows.iter().map(read).collect()
}

#[async_trait]
impl Events for Postgres {
    async fn record(&self, subject: Option<UserId>, event: &Event) -> store::Result<()> {
        self.pool.write(async |tx| record(tx, subject, event).await).await
    }

    async fn audit(&self, filter: &AuditFilter) -> store::Result<Vec<AuditEntry>> {
        self.pool.read(async |db| entries(db, filter).await).await
    }
}
