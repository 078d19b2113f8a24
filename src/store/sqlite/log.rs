//! The revocation log. One writer at a time makes its sequence numbers the order of commits.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use super::{
    Sqlite,
    statement::{Result, broken, uuid},
    sweep::remove_sessions,
};
use crate::{
    clock::UnixMillis,
    store::{self, Beat, Cursor, LogEntry, LogRead, RevocationLog, Revoked, Sink},
    types::KeyId,
};

pub(super) fn append(tx: &Transaction<'_>, entry: &LogEntry) -> Result<()> {
    tx.prepare_cached("INSERT INTO revocations (kind, id, generation, expires_at) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![
            entry.revoked.kind(),
            entry.revoked.uuid().as_bytes(),
            entry.generation,
            entry.expires_at
        ])?;
    Ok(())
}

/// The rows behind `cursor` and the cursor behind them.
pub(super) fn since(
    db: &Connection,
    cursor: Option<&Cursor>,
    now: UnixMillis,
) -> Result<(Vec<LogEntry>, Cursor)> {
    let from = cursor.and_then(|cursor| cursor.0.parse().ok()).unwrap_or(0_i64);
    let mut last = from;
    let mut entries = Vec::new();
    let mut statement = db.prepare_cached(
        "SELECT seq, kind, id, generation, expires_at FROM revocations WHERE seq > ?1 AND expires_at > ?2",
    )?;
    let mut rows = statement.query(params![from, now])?;
    while let Some(row) = rows.next()? {
        last = last.max(row.get("seq")?);
        entries.push(LogEntry {
            revoked: Revoked::read(row.get("kind")?, uuid(row, "id")?)
                .ok_or_else(|| broken("revocations.kind"))?,
            generation: row.get("generation")?,
            expires_at: row.get("expires_at")?,
        });
    }
    Ok((entries, Cursor(last.to_string())))
}

/// Writes an entry unless a row says the same already, and does what it stands for. Tokens that were issued
/// for longer than the entry knows are outlived, too.
pub(super) fn settle(tx: &Transaction<'_>, entry: &LogEntry, now: UnixMillis) -> Result<()> {
    let id = entry.revoked.uuid();
    let id = id.as_bytes();
    let held: bool = tx.query_row(
        "SELECT EXISTS (SELECT 1 FROM revocations WHERE id = ?1 AND kind = ?2 AND generation >= ?3 AND expires_at >= ?4)",
        params![id, entry.revoked.kind(), entry.generation, entry.held_until(now)],
        |row| row.get(0),
    )?;
    if held {
        return Ok(());
    }
    let mut issued = None;
    match entry.revoked {
        Revoked::Session(_) => {
            let end = "DELETE FROM sessions WHERE id = ?1 RETURNING access_exp_max";
            issued = tx.query_row(end, [id], |row| row.get(0)).optional()?;
        }
        Revoked::User(user) => {
            let raise =
                "UPDATE users SET generation = max(generation, ?2) WHERE id = ?1 RETURNING access_exp_max";
            issued = tx.query_row(raise, params![id, entry.generation], |row| row.get(0)).optional()?;
            remove_sessions(tx, user, None, entry.generation)?;
        }
        // Nothing of theirs is kept beside the log.
        Revoked::External(_) | Revoked::KeyOwner(_) => {}
        Revoked::Client(_) if entry.generation == LogEntry::ALL => {
            let end = "DELETE FROM clients WHERE id = ?1 RETURNING access_exp_max";
            issued = tx.query_row(end, [id], |row| row.get(0)).optional()?;
        }
        Revoked::Client(_) => {
            let raise =
                "UPDATE clients SET generation = max(generation, ?2) WHERE id = ?1 RETURNING access_exp_max";
            issued = tx.query_row(raise, params![id, entry.generation], |row| row.get(0)).optional()?;
        }
        Revoked::ApiKey(key) if entry.generation == LogEntry::ALL => {
            tx.execute("DELETE FROM api_keys WHERE id = ?1", [key.number()])?;
        }
        Revoked::ApiKey(_) => {}
        Revoked::Key(key) => {
            let kids: Vec<String> = tx
                .prepare("SELECT kid FROM signing_keys")?
                .query_map([], |row| row.get(0))?
                .collect::<Result<_>>()?;
            for kid in kids.iter().filter(|kid| KeyId::of(kid) == key) {
                tx.execute("DELETE FROM signing_keys WHERE kid = ?1", [kid])?;
            }
        }
    }
    let outlives = match entry.revoked {
        // Whoever revokes it says for how long.
        Revoked::External(_) => entry.expires_at,
        _ => LogEntry::new(entry.revoked, entry.generation, issued.unwrap_or(0), now).expires_at,
    };
    append(tx, &LogEntry { expires_at: entry.expires_at.max(outlives), ..*entry })
}

#[async_trait]
impl RevocationLog for Sqlite {
    async fn read_log(&self, cursor: Option<&Cursor>, _: &Beat, sink: Sink<'_>) -> store::Result<LogRead> {
        let (cursor, now) = (cursor.cloned(), self.clock.wall());
        let read = move |db: &rusqlite::Transaction<'_>| since(db, cursor.as_ref(), now);
        let (entries, cursor) = self.connections.follow(read).await?;
        entries.into_iter().for_each(sink);
        Ok(LogRead { cursor, database_now: None, history: None })
    }

    async fn glance_at_log(&self, cursor: &Cursor, sink: Sink<'_>) -> store::Result<LogRead> {
        let nobody = Beat { gateway: uuid::Uuid::nil(), number: 0, furthest: None, max_staleness: 0 };
        self.read_log(Some(cursor), &nobody, sink).await
    }

    async fn restore_log(&self, entries: &[LogEntry]) -> store::Result<()> {
        let (entries, now) = (entries.to_vec(), self.clock.wall());
        let settle =
            move |tx: &rusqlite::Transaction<'_>| entries.iter().try_for_each(|entry| settle(tx, entry, now));
        self.connections.write(settle).await
    }

    async fn settle(&self, entry: &LogEntry) -> store::Result<()> {
        self.restore_log(std::slice::from_ref(entry)).await
    }

    async fn hint(&self) -> store::Result<()> {
        Ok(())
    }
}
