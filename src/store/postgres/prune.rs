//! Removing what has expired, a piece at a time: were it all or nothing, a table that has grown too large for
//! the time that a call has would never become smaller again.

use deadpool_postgres::Transaction;

use super::{
    connection::{Pool, QueryResult},
    departed::{forget_lines, forget_names},
    statement::{now, run},
    sweep::sweep_sessions,
};
use crate::{clock::UnixMillis, store::Result, types::Pseudonyms};

/// Rows that are removed at once.
const PIECE: u64 = 5_000;

/// A gateway that was not seen for so long has ended. Were it to come back, it would miss its row and
/// read everything anew.
const GATEWAY_GONE_MILLIS: i64 = 24 * 3_600 * 1_000;

/// Tables, what is over in them at `$1`, and by how much later than the others they are cleaned. Each
/// condition has an index.
const OVER: [(&str, &str, i64); 13] = [
    ("revocations", "expires_at <= $1", 0),
    ("signing_keys", "expires_at <= $1", 0),
    ("sessions", "refresh_expires_at <= $1 AND access_exp_max <= $1", 0),
    ("attempts", "full_at <= $1", 0),
    ("mails", "next_attempt_at IS NULL AND coalesce(expires_at, 0) <= $1", 0),
    ("invitations", "expires_at <= $1", 0),
    ("challenges", "expires_at <= $1", 0),
    ("spent_states", "expires_at <= $1", 0),
    // What was begun and never confirmed is over long before.
    ("factors", "confirmed_at IS NULL AND created_at <= $1", 86_400_000),
    ("api_keys", "expires_at <= $1", 0),
    // Of receivers that were removed or disabled.
    ("webhook_deliveries", "queued_at <= $1 AND url NOT IN (SELECT url FROM webhook_endpoints)", 0),
    (
        "webhook_deliveries",
        "queued_at <= $1 AND url IN (SELECT url FROM webhook_endpoints WHERE disabled_at IS NOT NULL)",
        604_800_000,
    ),
    ("gateways", "seen_at <= $1", GATEWAY_GONE_MILLIS),
];

/// Removes what has expired by the database's clock and by `earliest`, and lines of the trail that are older by
/// `keep_audit`, in milliseconds.
pub(super) async fn prune(
    pool: &Pool,
    earliest: UnixMillis,
    keep_audit: i64,
    pseudonyms: &Pseudonyms,
) -> Result<()> {
    for (table, over, later) in OVER.into_iter().chain([("events", "at < $1", keep_audit)]) {
        let piece = async |tx: &Transaction<'_>| remove(tx, table, over, earliest, later).await;
        while pool.write(piece).await? == PIECE {}
    }
    while pool.write(async |tx| forget_names(tx, pseudonyms).await).await? {}
    while pool.write(async |tx| forget_lines(tx, pseudonyms).await).await? {}
    while pool.write(sweep_sessions).await? {}
    Ok(())
}

async fn remove(
    tx: &Transaction<'_>,
    table: &str,
    over: &str,
    earliest: UnixMillis,
    later: i64,
) -> QueryResult<u64> {
    let until = now(tx).await?.min(earliest) - later;
    // Rows that somebody holds are left for the next time: waiting for them in another order than others
    // take them would be a deadlock.
    let sql = format!(
        "DELETE FROM {table} WHERE ctid = ANY(ARRAY \
         (SELECT ctid FROM {table} WHERE {over} LIMIT {PIECE} FOR UPDATE SKIP LOCKED))"
    );
    run(tx, &sql, &[&until]).await
}
