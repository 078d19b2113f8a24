//! What has happened.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::{Sqlite, lookup::user, statement::Result};
use crate::{
    clock::UnixMillis,
    store::{self, AuditEntry, AuditFilter, Event, Events},
    types::UserId,
};

pub(super) fn append(
    tx: &Transaction<'_>,
    event: &Event,
    subject_id: Option<UserId>,
    subject: &str,
    now: UnixMillis,
) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO events (at, actor_id, actor, address, action, subject_id, subject, detail) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        now,
        event.actor_id.map(|id| id.to_string()),
        event.actor(subject_id, subject),
        event.address,
        event.action,
        subject_id.map(|id| id.to_string()),
        subject,
        event.detail
    ])?;
    Ok(())
}

/// Notes what changed nothing else; of an account only while there is one.
pub(super) fn record(
    tx: &Transaction<'_>,
    subject: Option<UserId>,
    event: &Event,
    now: UnixMillis,
) -> Result<()> {
    let Some(id) = subject else { return append(tx, event, None, "", now) };
    match user(tx, id)? {
        Some(user) => append(tx, event, Some(id), user.name.as_str(), now),
        None => Ok(()),
    }
}

fn read(row: &Row<'_>) -> Result<AuditEntry> {
    Ok(AuditEntry {
        seq: row.get("seq")?,
        at: row.get("at")?,
        actor_id: row.get("actor_id")?,
        actor: row.get("actor")?,
        address: row.get("address")?,
        action: row.get("action")?,
        subject_id: row.get("subject_id")?,
        subject: row.get("subject")?,
        detail: row.get("detail")?,
    })
}

/// Returns the event of a number.
pub(super) fn entry(tx: &Transaction<'_>, seq: i64) -> Result<Option<AuditEntry>> {
    tx.prepare_cached(
        "SELECT seq, at, actor_id, actor, address, action, subject_id, subject, detail FROM events WHERE seq = ?1",
    )?
    .query_row([seq], read)
    .optional()
}

pub(super) fn entries(db: &Connection, filter: &AuditFilter) -> Result<Vec<AuditEntry>> {
    db.prepare_cached(
        "SELECT seq, at, actor_id, actor, address, action, subject_id, subject, detail FROM events \
         WHERE seq < ?1 AND (?2 IS NULL OR subject_id = ?2) ORDER BY seq DESC LIMIT ?3",
    )?
    .query_map(
        params![filter.before.unwrap_or(i64::MAX), filter.subject.map(|id| id.to_string()), filter.limit],
        read,
    )?
    .collect()
}

#[async_trait]
impl Events for Sqlite {
    async fn record(&self, subject: Option<UserId>, event: &Event) -> store::Result<()> {
        let (event, now) = (event.clone(), self.clock.wall());
        self.connections.write(move |tx| record(tx, subject, &event, now)).await
    }

    async fn audit(&self, filter: &AuditFilter) -> store::Result<Vec<AuditEntry>> {
        let filter = filter.clone();
        self.connections.read(move |db| entries(db, &filter)).await
    }
}
