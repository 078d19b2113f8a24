//! Removing the rows of sessions that ended all at once: a few with what ended them, the others later.

use rusqlite::{OptionalExtension, Result, Transaction, params};

use crate::{
    store,
    types::{SessionId, UserId},
};

/// Rows that are removed at once, later.
const PIECE: usize = 5_000;

/// Removes the rows of sessions below a generation, but for one; those that are too many are left for later.
pub(super) fn remove_sessions(
    tx: &Transaction<'_>,
    user: UserId,
    kept: Option<SessionId>,
    generation: i64,
) -> Result<()> {
    let kept = kept.map(SessionId::uuid);
    let removed = tx.execute(
        "DELETE FROM sessions WHERE rowid IN (SELECT rowid FROM sessions WHERE user_id = ?1 AND id IS NOT ?2 \
         AND generation < ?3 LIMIT ?4)",
        params![
            user.uuid().as_bytes(),
            kept.as_ref().map(|kept| kept.as_bytes()),
            generation,
            store::REMOVED_AT_ONCE
        ],
    )?;
    if removed as i64 == store::REMOVED_AT_ONCE {
        tx.execute(
            "INSERT INTO session_sweeps (user_id, generation) VALUES (?1, ?2) \
             ON CONFLICT (user_id) DO UPDATE SET generation = max(generation, excluded.generation)",
            params![user.uuid().as_bytes(), generation],
        )?;
    }
    Ok(())
}

/// Removes a piece of the sessions of an account that all ended; whether there may be more.
pub(super) fn sweep_sessions(tx: &Transaction<'_>) -> Result<bool> {
    let sweep = "SELECT user_id, generation FROM session_sweeps LIMIT 1";
    let sweep =
        tx.query_row(sweep, [], |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?))).optional()?;
    let Some((user, generation)) = sweep else { return Ok(false) };
    let sql = format!(
        "DELETE FROM sessions WHERE rowid IN \
         (SELECT rowid FROM sessions WHERE user_id = ?1 AND generation < ?2 LIMIT {PIECE})"
    );
    if tx.execute(&sql, params![user, generation])? < PIECE {
        tx.execute(
            "DELETE FROM session_sweeps WHERE user_id = ?1 AND generation = ?2",
            params![user, generation],
        )?;
    }
    Ok(true)
}
