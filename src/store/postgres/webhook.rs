//! What receivers of events are to be told.

use std::collections::HashMap;

use async_trait::async_trait;
use deadpool_postgres::Transaction;

use super::{
    Postgres,
    connection::QueryResult as Result,
    event,
    statement::{now, one, only_bool, run},
};
use crate::{
    clock::UnixMillis,
    store::{
        self, ClaimedDelivery, Delivered, DeliveryLease, DeliveryNote, WebhookState, WebhookSubscription,
        Webhooks,
        webhook::{REPLAYED_AT_ONCE, Standing},
    },
};

async fn subscribe(tx: &Transaction<'_>, subscriptions: &[WebhookSubscription]) -> Result<()> {
    // Gateways that start at the same time do it one after the other.
    tx.execute("SELECT pg_advisory_xact_lock(hashtext('authgate webhooks'))", &[]).await?;
    let urls: Vec<&str> = subscriptions.iter().map(|subscription| subscription.url.as_str()).collect();
    run(tx, "DELETE FROM webhook_subscriptions", &[]).await?;
    // What waits for them is removed later, in pieces.
    run(tx, "DELETE FROM webhook_endpoints WHERE url <> ALL($1)", &[&urls]).await?;
    for subscription in subscriptions {
        let sql = "INSERT INTO webhook_endpoints (url) VALUES ($1) ON CONFLICT DO NOTHING";
        run(tx, sql, &[&subscription.url]).await?;
        let (actions, kinds): (Vec<&str>, Vec<&str>) = subscription.actions().unzip();
        let sql = "INSERT INTO webhook_subscriptions (action, url, type) \
             SELECT s.action, $1, s.type FROM unnest($2::text[], $3::text[]) AS s (action, type)";
        run(tx, sql, &[&subscription.url, &actions, &kinds]).await?;
    }
    Ok(())
}

/// Returns how a receiver fares, and locks it.
async fn standing(tx: &Transaction<'_>, url: &str) -> Result<Option<Standing>> {
    let sql = "SELECT failures, failing_since, retry_at, disabled_at FROM webhook_endpoints WHERE url = $1 \
         FOR NO KEY UPDATE";
    one(tx, sql, &[&url], |row| {
        Ok(Standing {
            failures: row.try_get("failures")?,
            failing_since: row.try_get("failing_since")?,
            retry_at: row.try_get("retry_at")?,
            disabled_at: row.try_get("disabled_at")?,
        })
    })
    .await
}

async fn set_standing(tx: &Transaction<'_>, url: &str, standing: Standing) -> Result<()> {
    let Standing { failures, failing_since, retry_at, disabled_at } = standing;
    let sql = "UPDATE webhook_endpoints SET failures = $2, failing_since = $3, retry_at = $4, disabled_at = $5 \
         WHERE url = $1";
    run(tx, sql, &[&url, &failures, &failing_since, &retry_at, &disabled_at]).await.map(drop)
}

async fn claim(tx: &Transaction<'_>, url: &str, lease: DeliveryLease) -> Result<Vec<ClaimedDelivery>> {
    let Some(known) = standing(tx, url).await? else { return Ok(Vec::new()) };
    let now = now(tx).await?;
    let most = known.takes(now, lease.most);
    if most == 0 {
        return Ok(Vec::new());
    }
    if known.failures > 0 {
        set_standing(tx, url, Standing { retry_at: now + lease.hold, ..known }).await?;
    }
    let sql = "UPDATE webhook_deliveries d SET attempts = attempts + 1, due_at = $2::bigint + $3 FROM \
         (SELECT seq, type FROM webhook_deliveries WHERE url = $1 AND due_at <= $2 ORDER BY due_at, seq \
         LIMIT $4 FOR UPDATE SKIP LOCKED) AS due WHERE d.url = $1 AND d.seq = due.seq AND d.type = due.type \
         RETURNING d.seq, d.type, d.attempts, $2::bigint - d.queued_at AS age";
    let statement = tx.prepare_cached(sql).await?;
    let rows = tx.query(&statement, &[&url, &now, &lease.hold, &i64::from(most)]).await?;
    let numbers = rows.iter().map(|row| Ok(row.try_get("seq")?)).collect::<Result<Vec<i64>>>()?;
    let events = event::of_numbers(tx, &numbers).await?;
    let events: HashMap<_, _> = events.into_iter().map(|event| (event.seq, event)).collect();
    let mut deliveries = Vec::new();
    for (row, seq) in rows.iter().zip(numbers) {
        let kind: String = row.try_get("type")?;
        match events.get(&seq).cloned() {
            Some(event) => deliveries.push(ClaimedDelivery {
                event,
                kind,
                attempts: row.try_get("attempts")?,
                age: row.try_get("age")?,
            }),
            // It was removed from the trail.
            None => remove(tx, url, seq, &kind).await?,
        }
    }
    deliveries.sort_by_key(|delivery| delivery.event.seq);
    Ok(deliveries)
}

async fn remove(tx: &Transaction<'_>, url: &str, seq: i64, kind: &str) -> Result<()> {
    let sql = "DELETE FROM webhook_deliveries WHERE url = $1 AND seq = $2 AND type = $3";
    run(tx, sql, &[&url, &seq, &kind]).await.map(drop)
}

async fn note(tx: &Transaction<'_>, url: &str, notes: &[DeliveryNote]) -> Result<bool> {
    let Some(known) = standing(tx, url).await? else { return Ok(false) };
    let now = now(tx).await?;
    for DeliveryNote { seq, kind, delivered } in notes {
        let wait = match delivered {
            Delivered::Done | Delivered::GivenUp => {
                remove(tx, url, *seq, kind).await?;
                continue;
            }
            Delivered::Again(wait) => *wait,
            Delivered::Unwanted => 0,
        };
        let sql = "UPDATE webhook_deliveries SET due_at = $4 WHERE url = $1 AND seq = $2 AND type = $3";
        run(tx, sql, &[&url, seq, kind, &(now + wait)]).await?;
    }
    let mut after = known.after(notes, now);
    let sql = "SELECT EXISTS (SELECT 1 FROM webhook_deliveries WHERE url = $1)";
    if after.failures > 0 && one(tx, sql, &[&url], only_bool).await? == Some(false) {
        after = Standing { disabled_at: after.disabled_at, ..Standing::FINE };
    }
    if after != known {
        set_standing(tx, url, after).await?;
    }
    Ok(known.disabled_at.is_none() && after.disabled_at.is_some())
}

async fn enable(tx: &Transaction<'_>, url: &str) -> Result<bool> {
    let Some(_) = standing(tx, url).await? else { return Ok(false) };
    set_standing(tx, url, Standing::FINE).await?;
    Ok(true)
}

/// Queues a piece of what happened after the event `after` and since a time. Returns how many messages that are, and the last event, if there
/// was any.
async fn replay(
    tx: &Transaction<'_>,
    url: &str,
    (after, since): (i64, UnixMillis),
) -> Result<Option<(u64, Option<i64>)>> {
    let Some(_) = standing(tx, url).await? else { return Ok(None) };
    let now = now(tx).await?;
    let sql = "SELECT max(seq) FROM (SELECT seq FROM events WHERE seq > $1 AND at >= $2 ORDER BY seq LIMIT $3) AS piece";
    let last = one(tx, sql, &[&after, &since, &REPLAYED_AT_ONCE], |row| Ok(row.try_get(0)?)).await?.flatten();
    let sql = "INSERT INTO webhook_deliveries (url, seq, type, queued_at, due_at) \
         SELECT s.url, e.seq, s.type, $3::bigint, $3 FROM events e JOIN webhook_subscriptions s ON s.action = e.action \
         WHERE s.url = $1 AND e.at >= $2 AND e.seq > $4 AND e.seq <= $5 \
         ON CONFLICT (url, seq, type) DO UPDATE SET due_at = excluded.due_at, queued_at = excluded.queued_at";
    let told = run(tx, sql, &[&url, &since, &now, &after, &last.unwrap_or(after)]).await?;
    Ok(Some((told, last)))
}

#[async_trait]
impl Webhooks for Postgres {
    async fn subscribe_webhooks(&self, subscriptions: &[WebhookSubscription]) -> store::Result<()> {
        self.pool.write(async |tx| subscribe(tx, subscriptions).await).await
    }

    async fn claim_deliveries(&self, url: &str, lease: DeliveryLease) -> store::Result<Vec<ClaimedDelivery>> {
        let sql = format!(
            "SELECT EXISTS (SELECT 1 FROM webhook_deliveries WHERE url = $1 AND due_at <= {})",
            super::statement::NOW
        );
        // Most looks find nothing.
        let due = self.pool.read(async |db| one(db, &sql, &[&url], only_bool).await).await?;
        if due != Some(true) {
            return Ok(Vec::new());
        }
        self.pool.write(async |tx| claim(tx, url, lease).await).await
    }

    async fn note_deliveries(&self, url: &str, notes: &[DeliveryNote]) -> store::Result<bool> {
        self.pool.write(async |tx| note(tx, url, notes).await).await
    }

    async fn webhook_states(&self) -> store::Result<Vec<WebhookState>> {
        let sql = "SELECT e.url, e.failing_since, e.disabled_at, \
             (SELECT count(*) FROM webhook_deliveries d WHERE d.url = e.url) AS waiting \
             FROM webhook_endpoints e ORDER BY e.url";
        self.pool
            .read(async |db| {
                let rows = db.query(sql, &[]).await?;
                let state = |row: &tokio_postgres::Row| {
                    Ok(WebhookState {
                        url: row.try_get("url")?,
                        failing_since: row.try_get("failing_since")?,
                        disabled_at: row.try_get("disabled_at")?,
                        waiting: row.try_get("waiting")?,
                    })
                };
                rows.iter().map(state).collect()
            })
            .await
    }

    async fn enable_webhook(&self, url: &str) -> store::Result<bool> {
        self.pool.write(async |tx| enable(tx, url).await).await
    }

    async fn replay_webhook(&self, url: &str, since: UnixMillis) -> store::Result<Option<u64>> {
        let (mut all, mut after) = (0, 0);
        loop {
            let piece = self.pool.write(async |tx| replay(tx, url, (after, since)).await).await?;
            let Some((told, last)) = piece else { return Ok(None) };
            all += told;
            let Some(last) = last else { return Ok(Some(all)) };
            after = last;
        }
    }
}
