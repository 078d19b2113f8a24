//! Removing what has expired, a piece at a time: others write in between.

use rusqlite::{Transaction, params};

use super::{
    connection::Connections,
    departed::{forget_lines, forget_names},
    statement,
    sweep::sweep_sessions,
};
use crate::{clock::UnixMillis, store::Result, types::Pseudonyms};

/// Rows that are removed at once.
const PIECE: usize = 5_000;

/// Tables, and what is over in them at `?1`.
const OVER: [(&str, &str); 11] = [
    ("revocations", "expires_at <= ?1"),
    ("signing_keys", "expires_at <= ?1"),
    ("sessions", "refresh_expires_at <= ?1 AND access_exp_max <= ?1"),
    ("invitations", "expires_at <= ?1"),
    ("challenges", "expires_at <= ?1"),
    ("spent_states", "expires_at <= ?1"),
    // What was begun and never confirmed is over long before.
    ("factors", "confirmed_at IS NULL AND created_at <= ?1 - 86400000"),
    ("api_keys", "expires_at <= ?1"),
    // Of receivers that were removed or disabled.
    ("webhook_deliveries", "queued_at <= ?1 AND url NOT IN (SELECT url FROM webhook_endpoints)"),
    (
        "webhook_deliveries",
        "queued_at <= ?1 - 604800000 AND url IN (SELECT url FROM webhook_endpoints WHERE disabled_at IS NOT NULL)",
    ),
    ("mails", "next_attempt_at IS NULL AND coalesce(expires_at, 0) <= ?1"),
];

/// Removes what has expired by `earliest`, and lines of the trail from before `audit_since`.
pub(super) async fn prune(
    connections: &Connections,
    earliest: UnixMillis,
    audit_since: UnixMillis,
    now: UnixMillis,
    pseudonyms: &Pseudonyms,
) -> Result<()> {
    for (table, over) in OVER {
        while connections.write(move |tx| remove(tx, table, over, earliest)).await? == PIECE {}
    }
    while connections.write(move |tx| remove(tx, "events", "at < ?1", audit_since)).await? == PIECE {}
    for forget in [forget_names, forget_lines] {
        loop {
            let pseudonyms = pseudonyms.clone();
            if !connections.write(move |tx| forget(tx, &pseudonyms, now)).await? {
                break;
            }
        }
    }
    while connections.write(sweep_sessions).await? {}
    Ok(())
}

fn remove(tx: &Transaction<'_>, table: &str, over: &str, until: UnixMillis) -> statement::Result<usize> {
    let sql =
        format!("DELETE FROM {table} WHERE rowid IN (SELECT rowid FROM {table} WHERE {over} LIMIT {PIECE})");
    tx.execute(&sql, params![until])
}
