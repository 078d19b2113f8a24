//! Removing the rows of sessions that ended all at once: a few with what ended them, the others later.

use deadpool_postgres::Transaction;
use uuid::Uuid;

use super::{connection::QueryResult as Result, statement::run};
use crate::{
    store,
    types::{SessionId, UserId},
};

/// Rows that are removed at once, later.
const PIECE: u64 = 5_000;

/// Removes the rows of sessions below a generation, but for one; those that are too many are left for later.
pub(super) async fn remove_sessions(
    tx: &Transaction<'_>,
    user: UserId,
    kept: Option<SessionId>,
    generation: i64,
) -> Result<()> {
    let sql = "DELETE FROM sessions WHERE ctid = ANY(ARRAY(SELECT ctid FROM sessions \
         WHERE user_id = $1 AND id IS DISTINCT FROM $2 AND generation < $3 LIMIT $4))";
    let kept = kept.map(SessionId::uuid);
    let removed = run(tx, sql, &[&user.uuid(), &kept, &generation, &store::REMOVED_AT_ONCE]).await?;
    if removed == store::REMOVED_AT_ONCE as u64 {
        sweep_later(tx, &[user.uuid()], &[generation]).await?;
    }
    Ok(())
}

/// Leaves the rows of these users' sessions below these generations for later.
pub(super) async fn sweep_later(tx: &Transaction<'_>, users: &[Uuid], generations: &[i64]) -> Result<()> {
    let sql = "INSERT INTO session_sweeps (user_id, generation) \
         SELECT id, max(generation) FROM unnest($1::uuid[], $2::bigint[]) AS m(id, generation) GROUP BY id \
         ON CONFLICT (user_id) \
         DO UPDATE SET generation = greatest(session_sweeps.generation, excluded.generation)";
    run(tx, sql, &[&users, &generations]).await.map(drop)
}

/// Removes a piece of the sessions of an account that all ended; whether there may be more.
pub(super) async fn sweep_sessions(tx: &Transaction<'_>) -> Result<bool> {
    let sql = "SELECT user_id, generation FROM session_sweeps LIMIT 1 FOR UPDATE SKIP LOCKED";
    let Some(row) = tx.query_opt(sql, &[]).await? else { return Ok(false) };
    let (user, generation): (Uuid, i64) = (row.try_get(0)?, row.try_get(1)?);
    let sql = format!(
        "DELETE FROM sessions WHERE ctid = ANY(ARRAY(SELECT ctid FROM sessions \
         WHERE user_id = $1 AND generation < $2 LIMIT {PIECE} FOR UPDATE SKIP LOCKED))"
    );
    let whole = run(tx, &sql, &[&user, &generation]).await? == PIECE;
    // Rows that somebody holds are left, and with them the note of them.
    let sql = "DELETE FROM session_sweeps WHERE user_id = $1 \
         AND NOT EXISTS (SELECT 1 FROM sessions WHERE user_id = $1 AND generation < $2)";
    let done = !whole && run(tx, sql, &[&user, &generation]).await? > 0;
    Ok(whole || done)
}
