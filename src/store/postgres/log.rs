//! The revocation log: rows are found by transaction snapshot, and a lost part of history is noticed.
//!
//! A transaction that was running when the log was last read shows up later under a number that was passed
//! over; neither sequence numbers nor times would find it again.

use std::{collections::HashMap, pin::pin, time::Duration};

use async_trait::async_trait;
use deadpool_postgres::{Client, GenericClient, Transaction};
use futures_util::StreamExt;
use tokio_postgres::{Row, Statement, types::ToSql};
use uuid::Uuid;

use super::{
    PATIENCE, Postgres,
    connection::{QueryError, QueryResult as Result},
    hint,
    statement::{NOW, lock_keys, only, run},
    sweep::sweep_later,
};
use crate::{
    store::{
        self, Beat, Cursor, History, LOG_MARGIN, LogEntry, LogRead, RevocationLog, Revoked, Sink, millis,
    },
    types::KeyId,
};

/// Rows that were not there in the snapshot `$1`.
const SINCE: &str = "r.xid >= pg_snapshot_xmin($1::text::pg_snapshot) AND NOT pg_visible_in_snapshot(r.xid, $1::text::pg_snapshot)";

/// How many rows are taken from the connection at once.
const CHUNK: usize = 1_024;

fn read_entry(row: &Row, first: usize) -> Result<LogEntry> {
    let revoked = Revoked::read(row.try_get(first)?, row.try_get(first + 1)?);
    Ok(LogEntry {
        revoked: revoked.ok_or(QueryError::Broken("revocations.id"))?,
        generation: row.try_get(first + 2)?,
        expires_at: row.try_get(first + 3)?,
    })
}

pub(super) async fn append(tx: &Transaction<'_>, entry: &LogEntry) -> Result<()> {
    run(
        tx,
        "INSERT INTO revocations (kind, id, generation, expires_at) VALUES ($1, $2, $3, $4)",
        &[&entry.revoked.kind(), &entry.revoked.uuid(), &entry.generation, &entry.expires_at],
    )
    .await
    .map(drop)
}

/// A quick look, for a hint: one statement, so that the rows and the snapshot that they are complete for
/// belong together.
pub(super) async fn glance(db: &Client, Cursor(snapshot): &Cursor, sink: Sink<'_>) -> Result<LogRead> {
    let sql = format!(
        "WITH s AS MATERIALIZED (SELECT pg_current_snapshot() AS c) \
         SELECT c::text, r.kind, r.id, r.generation, r.expires_at FROM s LEFT JOIN revocations r ON {SINCE}"
    );
    let rows = db.query(&db.prepare_cached(&sql).await?, &[snapshot]).await?;
    let first = rows.first().ok_or(QueryError::Broken("pg_current_snapshot"))?;
    let cursor = Cursor(first.try_get(0)?);
    for row in &rows {
        if row.try_get::<_, Option<i16>>(1)?.is_some() {
            sink(read_entry(row, 1)?);
        }
    }
    Ok(LogRead { cursor, database_now: None, history: None })
}

/// The first statement of a look that counts: it moves this gateway's beat. Its COMMIT shows that the
/// server can still commit, and makes durable whatever the snapshot calls finished: after a crash no
/// transaction gets a number again that this one has passed over.
struct Head<'a> {
    beat: &'a Beat,
    furthest: Option<&'a str>,
}

impl<'a> Head<'a> {
    fn of(beat: &'a Beat) -> Self {
        Self { beat, furthest: beat.furthest.as_ref().map(|Cursor(snapshot)| snapshot.as_str()) }
    }

    async fn prepare(db: &impl GenericClient) -> Result<Statement> {
        let sql = format!(
            "WITH found AS MATERIALIZED (SELECT beat FROM gateways WHERE id = $1), \
             moved AS (INSERT INTO gateways (id, beat, seen_at, max_staleness) VALUES ($1, $2, {NOW}, $4) \
                ON CONFLICT (id) DO UPDATE SET beat = excluded.beat, seen_at = excluded.seen_at), \
             s AS MATERIALIZED (SELECT pg_current_snapshot() AS c) \
             SELECT c::text AS cursor, {NOW} AS now, (SELECT beat FROM found) AS found, \
                (SELECT system_identifier FROM pg_control_system())::text || ' ' || \
                   substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) AS lineage, \
                coalesce(pg_snapshot_xmax(c) < pg_snapshot_xmax($3::text::pg_snapshot), FALSE) AS rewound FROM s"
        );
        Ok(db.prepare_cached(&sql).await?)
    }

    async fn read(&self, db: &impl GenericClient, statement: &Statement) -> Result<LogRead> {
        let row = db
            .query_one(
                statement,
                &[&self.beat.gateway, &self.beat.number, &self.furthest, &self.beat.max_staleness],
            )
            .await?;
        let history = History {
            found: row.try_get("found")?,
            lineage: row.try_get("lineage")?,
            rewound: row.try_get("rewound")?,
        };
        Ok(LogRead {
            cursor: Cursor(row.try_get("cursor")?),
            database_now: Some(row.try_get("now")?),
            history: Some(history),
        })
    }
}

/// The look that counts: a transaction of one snapshot. It is sent as a whole, so that it takes one way to
/// the server and back; were a part of it to fail, the COMMIT behind it would undo the rest.
pub(super) async fn confirm(
    db: &Client,
    Cursor(snapshot): &Cursor,
    beat: &Beat,
    sink: Sink<'_>,
) -> Result<LogRead> {
    let head = Head::of(beat);
    let first = Head::prepare(db).await?;
    let sql = format!("SELECT r.kind, r.id, r.generation, r.expires_at FROM revocations r WHERE {SINCE}");
    let second = db.prepare_cached(&sql).await?;
    let params: [&(dyn ToSql + Sync); 1] = [snapshot];
    let (begun, read, rows, committed) = tokio::join!(
        biased;
        db.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ"),
        head.read(db, &first),
        db.query(&second, &params),
        db.batch_execute("COMMIT"),
    );
    begun?;
    let (read, rows) = (read?, rows?);
    committed?;
    for row in &rows {
        sink(read_entry(row, 0)?);
    }
    Ok(read)
}

/// The same for all live rows, of which there may be many: they are taken as they come, and what is
/// bounded is the wait for the next ones.
pub(super) async fn load(
    tx: &Transaction<'_>,
    beat: &Beat,
    patience: Duration,
    sink: Sink<'_>,
) -> Result<LogRead> {
    let head = Head::of(beat);
    let begin = async {
        tx.batch_execute("SET LOCAL statement_timeout = 0").await?;
        // Rows that came out of a dump carry numbers of another server, perhaps of its future.
        let sql = "UPDATE revocations SET xid = DEFAULT WHERE xid >= pg_snapshot_xmax(pg_current_snapshot())";
        run(tx, sql, &[]).await?;
        let read = head.read(tx, &Head::prepare(tx).await?).await?;
        let sql = format!(
            "SELECT r.kind, r.id, r.generation, r.expires_at FROM revocations r WHERE r.expires_at > {NOW}"
        );
        let statement = tx.prepare_cached(&sql).await?;
        let none: [&(dyn ToSql + Sync); 0] = [];
        Ok::<_, QueryError>((read, tx.query_raw(&statement, none).await?))
    };
    let (read, rows) = in_time(patience, begin).await??;
    let mut chunks = pin!(rows.ready_chunks(CHUNK));
    let mut taken = 0;
    while let Some(rows) = in_time(patience, chunks.next()).await? {
        for row in rows {
            sink(read_entry(&row?, 0)?);
            taken += 1;
        }
    }
    // No later look brings these rows again: what the server says that it sent must have come.
    if chunks.as_ref().get_ref().get_ref().rows_affected() != Some(taken) {
        return Err(QueryError::Incomplete);
    }
    Ok(read)
}

pub(super) async fn in_time<T>(patience: Duration, work: impl Future<Output = T>) -> Result<T> {
    tokio::time::timeout(patience, work).await.map_err(|_| QueryError::Late)
}

/// Whether a row says already what an entry does.
pub(super) async fn holds(db: &Client, entry: &LogEntry) -> Result<bool> {
    let sql = format!(
        "SELECT EXISTS (SELECT 1 FROM revocations WHERE id = $1 AND kind = $2 AND generation >= $3 \
         AND expires_at >= {NOW} + 1 AND expires_at >= $4)"
    );
    let statement = db.prepare_cached(&sql).await?;
    let (id, kind) = (entry.revoked.uuid(), entry.revoked.kind());
    only(&db.query_one(&statement, &[&id, &kind, &entry.generation, &entry.held_until(0)]).await?)
}

/// Writes entries into a log that has lost them, and does again what they stand for. Several gateways may
/// do so at once; each row is written once. Tokens that were issued since a session or a generation came
/// back are outlived, too.
pub(super) async fn restore(tx: &Transaction<'_>, entries: &[LogEntry]) -> Result<()> {
    tx.execute("SELECT pg_advisory_xact_lock(hashtext('authgate lost revocations'))", &[]).await?;
    // In the order in which everybody else takes locks: keys, users by their ids, sessions.
    if entries.iter().any(|entry| entry.revoked.kind() == Revoked::KEY) {
        lock_keys(tx).await?;
        for row in tx.query("SELECT kid FROM signing_keys", &[]).await? {
            let kid: String = only(&row)?;
            let key = Revoked::Key(KeyId::of(&kid));
            if entries.iter().any(|entry| entry.revoked == key) {
                run(tx, "DELETE FROM signing_keys WHERE kid = $1", &[&kid]).await?;
            }
        }
    }
    let mut issued_until: HashMap<Uuid, i64> = HashMap::new();
    let mut event = |rows: Vec<Row>| -> Result<()> {
        for row in rows {
            issued_until.insert(row.try_get(0)?, row.try_get(1)?);
        }
        Ok(())
    };
    for entry in entries.iter().filter(|entry| matches!(entry.revoked, Revoked::Client(_))) {
        let id = entry.revoked.uuid();
        if entry.generation == LogEntry::ALL {
            let sql = "DELETE FROM clients WHERE id = $1 RETURNING id, access_exp_max";
            event(tx.query(sql, &[&id]).await?)?;
        } else {
            let sql = "UPDATE clients SET generation = greatest(generation, $2) WHERE id = $1 \
                 RETURNING id, access_exp_max";
            event(tx.query(sql, &[&id, &entry.generation]).await?)?;
        }
    }
    let of = |kind: i16| entries.iter().filter(move |entry| entry.revoked.kind() == kind);
    let sessions: Vec<Uuid> = of(Revoked::SESSION).map(|entry| entry.revoked.uuid()).collect();
    let users: Vec<Uuid> = of(Revoked::USER).map(|entry| entry.revoked.uuid()).collect();
    let generations: Vec<i64> = of(Revoked::USER).map(|entry| entry.generation).collect();
    let ended = entries.iter().filter_map(|entry| match entry.revoked {
        Revoked::ApiKey(id) if entry.generation == LogEntry::ALL => Some(id.number()),
        _ => None,
    });
    let ended: Vec<i64> = ended.collect();
    let sql = "SELECT user_id FROM sessions WHERE id = ANY($1) UNION SELECT user_id FROM api_keys WHERE id = ANY($2)";
    let owners = tx.query(sql, &[&sessions, &ended]).await?;
    let mut locked = owners.iter().map(only::<Uuid>).collect::<Result<Vec<_>>>()?;
    locked.extend(&users);
    let sql = "SELECT id, access_exp_max FROM users WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE";
    event(tx.query(sql, &[&locked]).await?)?;
    run(tx, "DELETE FROM api_keys WHERE id = ANY($1)", &[&ended]).await?;
    let sql = "DELETE FROM sessions WHERE id = ANY($1) RETURNING id, access_exp_max";
    event(tx.query(sql, &[&sessions]).await?)?;
    let sql = "UPDATE users u SET generation = greatest(u.generation, m.generation) \
         FROM unnest($1::uuid[], $2::bigint[]) AS m(id, generation) WHERE u.id = m.id";
    run(tx, sql, &[&users, &generations]).await?;
    // Dead they are by their generation; however many there are, their rows are removed later.
    sweep_later(tx, &users, &generations).await?;
    let all_until =
        of(Revoked::KEY).map(|entry| entry.generation).filter(|until| *until != LogEntry::ALL).max();
    if let Some(until) = all_until {
        tx.batch_execute("LOCK TABLE sessions IN EXCLUSIVE MODE").await?;
        run(tx, "DELETE FROM sessions WHERE created_at <= $1", &[&until]).await?;
    }
    let kinds: Vec<i16> = entries.iter().map(|entry| entry.revoked.kind()).collect();
    let ids: Vec<Uuid> = entries.iter().map(|entry| entry.revoked.uuid()).collect();
    let below: Vec<i64> = entries.iter().map(|entry| entry.generation).collect();
    let outlive = |entry: &LogEntry| {
        let issued = issued_until.get(&entry.revoked.uuid()).map_or(0, |end| end + millis(LOG_MARGIN));
        entry.expires_at.max(issued)
    };
    let until: Vec<i64> = entries.iter().map(outlive).collect();
    let sql = "INSERT INTO revocations (kind, id, generation, expires_at) SELECT m.* \
         FROM unnest($1::smallint[], $2::uuid[], $3::bigint[], $4::bigint[]) AS m(kind, id, generation, expires_at) \
         WHERE NOT EXISTS (SELECT 1 FROM revocations r WHERE r.id = m.id AND r.kind = m.kind \
            AND r.generation >= m.generation AND r.expires_at >= m.expires_at)";
    run(tx, sql, &[&kinds, &ids, &below, &until]).await.map(drop)
}

#[async_trait]
impl RevocationLog for Postgres {
    async fn read_log(&self, cursor: Option<&Cursor>, beat: &Beat, sink: Sink<'_>) -> store::Result<LogRead> {
        let Some(cursor) = cursor else {
            let patience = self.following.timeout;
            return self.following.snapshot(async |tx| load(tx, beat, patience, sink).await).await;
        };
        self.following.read(async |db| confirm(db, cursor, beat, sink).await).await
    }

    async fn glance_at_log(&self, cursor: &Cursor, sink: Sink<'_>) -> store::Result<LogRead> {
        self.following.read(async |db| glance(db, cursor, sink).await).await
    }

    async fn restore_log(&self, entries: &[LogEntry]) -> store::Result<()> {
        self.following.write_within(PATIENCE, async |tx| restore(tx, entries).await).await
    }

    async fn settle(&self, entry: &LogEntry) -> store::Result<()> {
        if self.pool.read(async |db| holds(db, entry).await).await? {
            return Ok(());
        }
        self.pool.write(async |tx| restore(tx, std::slice::from_ref(entry)).await).await
    }

    async fn hint(&self) -> store::Result<()> {
        self.pool.read(async |db| hint::send(db).await).await
    }
}
