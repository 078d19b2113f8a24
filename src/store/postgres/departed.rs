//! Pseudonyms in the place of the names and addresses of accounts that were deleted, a piece at a time.

use deadpool_postgres::Transaction;

use super::{
    connection::QueryResult as Result,
    statement::{NOW, only, run},
};
use crate::{
    store::{AGAIN_AFTER_MILLIS, without_ids},
    types::{Pseudonyms, UserId},
};

/// Rows that are rewritten at once.
const PIECE: i64 = 1_000;

/// Remembers that an account is gone and its lines in the trail are to be rewritten.
pub(super) async fn depart(tx: &Transaction<'_>, user: UserId) -> Result<()> {
    let sql = "INSERT INTO departed_users (user_id, seq) VALUES ($1, 0) ON CONFLICT DO NOTHING";
    run(tx, sql, &[&user.to_string()]).await.map(drop)
}

/// Rewrites a piece of the names that nobody has any more; whether there may be more.
pub(super) async fn forget_names(tx: &Transaction<'_>, pseudonyms: &Pseudonyms) -> Result<bool> {
    let sql = "SELECT skeleton FROM retired_names WHERE user_id IS NULL AND name <> '' LIMIT $1 \
         FOR UPDATE SKIP LOCKED";
    let rows = tx.query(&tx.prepare_cached(sql).await?, &[&PIECE]).await?;
    let names = rows.iter().map(only).collect::<Result<Vec<String>>>()?;
    let kept: Vec<String> = names.iter().map(|name| pseudonyms.of(name)).collect();
    let sql = "INSERT INTO retired_names (skeleton, name, retired_at) SELECT n.kept, '', r.retired_at \
         FROM unnest($1::text[], $2::text[]) AS n (name, kept) JOIN retired_names r ON r.skeleton = n.name \
         ON CONFLICT DO NOTHING";
    run(tx, sql, &[&names, &kept]).await?;
    run(tx, "DELETE FROM retired_names WHERE skeleton = ANY($1)", &[&names]).await?;
    Ok(names.len() as i64 == PIECE)
}

/// Rewrites a piece of the lines of one account that is gone; whether there may be more.
pub(super) async fn forget_lines(tx: &Transaction<'_>, pseudonyms: &Pseudonyms) -> Result<bool> {
    // Of several gateways one does it, another takes another account.
    let sql = format!(
        "SELECT user_id, seq, again_at IS NOT NULL FROM departed_users WHERE coalesce(again_at, 0) <= {NOW} \
         LIMIT 1 FOR UPDATE SKIP LOCKED"
    );
    let Some(row) = tx.query_opt(&tx.prepare_cached(&sql).await?, &[]).await? else { return Ok(false) };
    let (user, done, again): (String, i64, bool) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    // Locked: a line is about two accounts, and another gateway may be at the other one.
    let sql = "SELECT seq, actor_id, actor, address, subject_id, subject, detail FROM events WHERE seq IN ( \
         (SELECT seq FROM events WHERE subject_id = $1 AND seq > $2 ORDER BY seq LIMIT $3) \
         UNION (SELECT seq FROM events WHERE actor_id = $1 AND seq > $2 ORDER BY seq LIMIT $3) \
         ORDER BY seq LIMIT $3) ORDER BY seq FOR UPDATE";
    let rows = tx.query(&tx.prepare_cached(sql).await?, &[&user, &done, &PIECE]).await?;
    let (mut seqs, mut actors, mut addresses) = (vec![], vec![], vec![]);
    let (mut subjects, mut details) = (vec![], vec![]);
    for row in &rows {
        let (actor_id, actor): (Option<&str>, &str) = (row.try_get("actor_id")?, row.try_get("actor")?);
        let (address, subject_id): (Option<&str>, Option<&str>) =
            (row.try_get("address")?, row.try_get("subject_id")?);
        let is_actor = actor_id == Some(&user);
        // Whoever tried to log in as the account is most often its holder.
        let is_nobody = actor_id.is_none() && actor.is_empty();
        let is_subject = subject_id == Some(&user);
        let replaced = |text: &str, by: bool| if by { pseudonyms.once(text) } else { text.to_owned() };
        seqs.push(row.try_get::<_, i64>("seq")?);
        actors.push(replaced(actor, is_actor));
        addresses.push(address.map(|address| replaced(address, is_actor || is_nobody)));
        subjects.push(replaced(row.try_get("subject")?, is_subject));
        details.push(
            row.try_get::<_, &str>("detail")
                .map(|detail| if is_subject { without_ids(detail) } else { detail })?,
        );
    }
    let Some(last) = seqs.last() else {
        // What was under way when it was deleted may write a line yet, and a number that was given out earlier may
        // become visible later: it is all looked through once more.
        if again {
            run(tx, "DELETE FROM departed_users WHERE user_id = $1", &[&user]).await?;
        } else {
            let sql = format!("UPDATE departed_users SET seq = 0, again_at = {NOW} + $2 WHERE user_id = $1");
            run(tx, &sql, &[&user, &AGAIN_AFTER_MILLIS]).await?;
        }
        return Ok(true);
    };
    let sql = "UPDATE events SET actor = n.actor, address = n.address, subject = n.subject, detail = n.detail \
         FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[]) \
         AS n (seq, actor, address, subject, detail) WHERE events.seq = n.seq";
    run(tx, sql, &[&seqs, &actors, &addresses, &subjects, &details]).await?;
    run(tx, "UPDATE departed_users SET seq = $2 WHERE user_id = $1", &[&user, last]).await?;
    Ok(true)
}
