//! The audit trail.

use rusqlite::{Connection, Transaction, params};

use super::query::{Result, user};
use crate::{
    clock::UnixMillis,
    store::{AuditEntry, AuditFilter, Note},
    types::UserId,
};

pub(super) fn append(
    tx: &Transaction<'_>,
    note: &Note,
    subject_id: Option<UserId>,
    subject: &str,
    now: UnixMillis,
) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO audit (at, actor_id, actor, address, action, subject_id, subject, detail) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )?
    .execute(params![
        now,
        note.actor_id.map(|id| id.to_string()),
        note.actor(subject_id, subject),
        note.address,
        note.action,
        subject_id.map(|id| id.to_string()),
        subject,
        note.detail
    ])?;
    Ok(())
}

/// Notes what changed nothing else; of an account only while there is one.
pub(super) fn note(
    tx: &Transaction<'_>,
    subject: Option<UserId>,
    note: &Note,
    now: UnixMillis,
) -> Result<()> {
    let Some(id) = subject else { return append(tx, note, None, "", now) };
    match user(tx, id)? {
        Some(user) => append(tx, note, Some(id), user.name.as_str(), now),
        None => Ok(()),
    }
}

pub(super) fn entries(db: &Connection, filter: &AuditFilter) -> Result<Vec<AuditEntry>> {
    db.prepare_cached(
        "SELECT seq, at, actor_id, actor, address, action, subject_id, subject, detail FROM audit \
         WHERE seq < ?1 AND (?2 IS NULL OR subject_id = ?2) ORDER BY seq DESC LIMIT ?3",
    )?
    .query_map(
        params![filter.before.unwrap_or(i64::MAX), filter.subject.map(|id| id.to_string()), filter.limit],
        |row| {
            Ok(AuditEntry {
                seq: row.get(0)?,
                at: row.get(1)?,
                actor_id: row.get(2)?,
                actor: row.get(3)?,
                address: row.get(4)?,
                action: row.get(5)?,
                subject_id: row.get(6)?,
                subject: row.get(7)?,
                detail: row.get(8)?,
            })
        },
    )?
    .collect()
}
