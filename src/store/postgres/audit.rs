//! The audit trail.

use deadpool_postgres::{Client, Transaction};

use super::{
    connection::QueryResult as Result,
    statement::{NOW, run},
};
use crate::{
    store::{AuditEntry, AuditFilter, Note},
    types::UserId,
};

pub(super) async fn append(
    tx: &Transaction<'_>,
    note: &Note,
    subject_id: Option<UserId>,
    subject: &str,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO audit (at, actor_id, actor, address, action, subject_id, subject, detail) \
         VALUES ({NOW}, $1, $2, $3, $4, $5, $6, $7)"
    );
    run(
        tx,
        &sql,
        &[
            &note.actor_id.map(|id| id.to_string()),
            &note.actor(subject_id, subject),
            &note.address,
            &note.action,
            &subject_id.map(|id| id.to_string()),
            &subject,
            &note.detail,
        ],
    )
    .await
    .map(drop)
}

/// Notes what changed nothing else; of an account only while there is one.
pub(super) async fn note(tx: &Transaction<'_>, subject: Option<UserId>, note: &Note) -> Result<()> {
    let Some(id) = subject else { return append(tx, note, None, "").await };
    // One statement, as for nobody: that there is such an account is not told by the time. Whoever deletes it meanwhile
    // waits, and finds the line.
    let sql = format!(
        "INSERT INTO audit (at, actor_id, actor, address, action, subject_id, subject, detail) \
         SELECT {NOW}, $1, CASE WHEN $2 = '' AND $1 = $5 THEN name ELSE $2 END, $3, $4, $5, name, $6 \
         FROM (SELECT name FROM users WHERE id = $7 FOR KEY SHARE) AS subject"
    );
    let (actor_id, subject_id) = (note.actor_id.map(|id| id.to_string()), id.to_string());
    run(
        tx,
        &sql,
        &[&actor_id, &note.actor, &note.address, &note.action, &subject_id, &note.detail, &id.uuid()],
    )
    .await
    .map(drop)
}

pub(super) async fn entries(db: &Client, filter: &AuditFilter) -> Result<Vec<AuditEntry>> {
    let sql = "SELECT seq, at, actor_id, actor, address, action, subject_id, subject, detail FROM audit \
         WHERE seq < $1 AND ($2::text IS NULL OR subject_id = $2) ORDER BY seq DESC LIMIT $3";
    let statement = db.prepare_cached(sql).await?;
    let (before, subject) = (filter.before.unwrap_or(i64::MAX), filter.subject.map(|id| id.to_string()));
    let rows = db.query(&statement, &[&before, &subject, &i64::from(filter.limit)]).await?;
    rows.iter()
        .map(|row| {
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
        })
        .collect()
}
