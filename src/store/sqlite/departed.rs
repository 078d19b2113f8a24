//! Pseudonyms in the place of the names and addresses of accounts that were deleted, a piece at a time.

use rusqlite::{OptionalExtension, Transaction, params};

use super::statement::Result;
use crate::{
    clock::UnixMillis,
    store::{AGAIN_AFTER_MILLIS, without_ids},
    types::{Pseudonyms, UserId},
};

/// Rows that are rewritten at once.
const PIECE: i64 = 1_000;

/// Remembers that an account is gone and its lines in the trail are to be rewritten.
pub(super) fn depart(tx: &Transaction<'_>, user: UserId) -> Result<()> {
    tx.execute("INSERT OR IGNORE INTO departed_users (user_id, seq) VALUES (?1, 0)", [user.to_string()])?;
    Ok(())
}

/// Rewrites a piece of the names that nobody has any more; whether there may be more.
pub(super) fn forget_names(tx: &Transaction<'_>, pseudonyms: &Pseudonyms, _: UnixMillis) -> Result<bool> {
    let names: Vec<String> = tx
        .prepare_cached("SELECT skeleton FROM retired_names WHERE user_id IS NULL AND name <> '' LIMIT ?1")?
        .query_map([PIECE], |row| row.get(0))?
        .collect::<Result<_>>()?;
    for name in &names {
        tx.prepare_cached(
            "INSERT OR IGNORE INTO retired_names (skeleton, name, retired_at) \
             SELECT ?2, '', retired_at FROM retired_names WHERE skeleton = ?1",
        )?
        .execute([name, &pseudonyms.of(name)])?;
        tx.prepare_cached("DELETE FROM retired_names WHERE skeleton = ?1")?.execute([name])?;
    }
    Ok(names.len() as i64 == PIECE)
}

/// A line of the trail, as far as it is rewritten.
struct Line {
    seq: i64,
    actor_id: Option<String>,
    actor: String,
    address: Option<String>,
    subject_id: Option<String>,
    subject: String,
    detail: String,
}

/// Rewrites a piece of the lines of one account that is gone; whether there may be more.
pub(super) fn forget_lines(tx: &Transaction<'_>, pseudonyms: &Pseudonyms, now: UnixMillis) -> Result<bool> {
    let departed = "SELECT user_id, seq, again_at IS NOT NULL FROM departed_users \
         WHERE coalesce(again_at, 0) <= ?1 LIMIT 1";
    let departed = tx
        .query_row(departed, [now], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, bool>(2)?))
        })
        .optional()?;
    let Some((user, done, again)) = departed else { return Ok(false) };
    let lines: Vec<Line> = tx
        .prepare_cached(
            "SELECT seq, actor_id, actor, address, subject_id, subject, detail FROM events WHERE seq IN ( \
             SELECT seq FROM (SELECT seq FROM events WHERE subject_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3) \
             UNION SELECT seq FROM (SELECT seq FROM events WHERE actor_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3) \
             ORDER BY seq LIMIT ?3) ORDER BY seq",
        )?
        .query_map(params![user, done, PIECE], |row| {
            Ok(Line {
                seq: row.get("seq")?,
                actor_id: row.get("actor_id")?,
                actor: row.get("actor")?,
                address: row.get("address")?,
                subject_id: row.get("subject_id")?,
                subject: row.get("subject")?,
                detail: row.get("detail")?,
            })
        })?
        .collect::<Result<_>>()?;
    let Some(last) = lines.last().map(|line| line.seq) else {
        // What was under way when it was deleted may write a line yet: it is all looked through once more.
        if again {
            tx.execute("DELETE FROM departed_users WHERE user_id = ?1", [&user])?;
        } else {
            let sql = "UPDATE departed_users SET seq = 0, again_at = ?2 WHERE user_id = ?1";
            tx.execute(sql, params![user, now + AGAIN_AFTER_MILLIS])?;
        }
        return Ok(true);
    };
    for line in lines {
        let is_actor = line.actor_id.as_ref() == Some(&user);
        // Whoever tried to log in as the account is most often its holder.
        let is_nobody = line.actor_id.is_none() && line.actor.is_empty();
        let is_subject = line.subject_id.as_ref() == Some(&user);
        let detail = if is_subject { without_ids(&line.detail) } else { &line.detail };
        let replaced = |text: String, by: bool| if by { pseudonyms.once(&text) } else { text };
        tx.prepare_cached(
            "UPDATE events SET actor = ?2, address = ?3, subject = ?4, detail = ?5 WHERE seq = ?1",
        )?
        .execute(params![
            line.seq,
            replaced(line.actor, is_actor),
            line.address.map(|address| replaced(address, is_actor || is_nobody)),
            replaced(line.subject, is_subject),
            detail
        ])?;
    }
    tx.execute("UPDATE departed_users SET seq = ?2 WHERE user_id = ?1", params![user, last])?;
    Ok(true)
}
