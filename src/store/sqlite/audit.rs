//! The audit trail.

use rusqlite::{Connection, Transaction, params};

use super::{lookup::user, statement::Result};
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
        },
    )?
    .collect()
}
