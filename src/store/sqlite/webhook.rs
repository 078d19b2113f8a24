//! What receivers of events are to be told.

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Transaction, params};

use super::{Sqlite, event, statement::Result};
use crate::{
    clock::UnixMillis,
    store::{
        self, ClaimedDelivery, Delivered, DeliveryLease, DeliveryNote, WebhookState, WebhookSubscription,
        Webhooks,
        webhook::{REPLAYED_AT_ONCE, Standing},
    },
};

fn subscribe(tx: &Transaction<'_>, subscriptions: &[WebhookSubscription]) -> Result<()> {
    let urls: Vec<&str> = subscriptions.iter().map(|subscription| subscription.url.as_str()).collect();
    let urls = serde_json::json!(urls).to_string();
    tx.execute("DELETE FROM webhook_subscriptions", [])?;
    // What waits for them is removed later, in pieces.
    tx.execute("DELETE FROM webhook_endpoints WHERE url NOT IN (SELECT value FROM json_each(?1))", [&urls])?;
    for subscription in subscriptions {
        tx.prepare_cached("INSERT OR IGNORE INTO webhook_endpoints (url) VALUES (?1)")?
            .execute([&subscription.url])?;
        for (action, kind) in subscription.actions() {
            tx.prepare_cached("INSERT INTO webhook_subscriptions (action, url, type) VALUES (?1, ?2, ?3)")?
                .execute([action, &subscription.url, kind])?;
        }
    }
    Ok(())
}

fn standing(tx: &Transaction<'_>, url: &str) -> Result<Option<Standing>> {
    tx.prepare_cached(
        "SELECT failures, failing_since, retry_at, disabled_at FROM webhook_endpoints WHERE url = ?1",
    )?
    .query_row([url], |row| {
        Ok(Standing {
            failures: row.get("failures")?,
            failing_since: row.get("failing_since")?,
            retry_at: row.get("retry_at")?,
            disabled_at: row.get("disabled_at")?,
        })
    })
    .optional()
}

fn set_standing(tx: &Transaction<'_>, url: &str, standing: Standing) -> Result<()> {
    let Standing { failures, failing_since, retry_at, disabled_at } = standing;
    tx.prepare_cached(
        "UPDATE webhook_endpoints SET failures = ?2, failing_since = ?3, retry_at = ?4, disabled_at = ?5 \
         WHERE url = ?1",
    )?
    .execute(params![url, failures, failing_since, retry_at, disabled_at])?;
    Ok(())
}

fn is_any_due(tx: &Transaction<'_>, url: &str, now: UnixMillis) -> Result<bool> {
    tx.prepare_cached("SELECT EXISTS (SELECT 1 FROM webhook_deliveries WHERE url = ?1 AND due_at <= ?2)")?
        .query_row(params![url, now], |row| row.get(0))
}

fn claim(
    tx: &Transaction<'_>,
    url: &str,
    lease: DeliveryLease,
    now: UnixMillis,
) -> Result<Vec<ClaimedDelivery>> {
    let Some(known) = standing(tx, url)? else { return Ok(Vec::new()) };
    let most = known.takes(now, lease.most);
    if most == 0 {
        return Ok(Vec::new());
    }
    if known.failures > 0 {
        set_standing(tx, url, Standing { retry_at: now + lease.hold, ..known })?;
    }
    let claimed: Vec<(i64, String, i64, i64)> = tx
        .prepare_cached(
            "UPDATE webhook_deliveries SET attempts = attempts + 1, due_at = ?2 + ?3 WHERE url = ?1 AND (seq, type) IN \
             (SELECT seq, type FROM webhook_deliveries WHERE url = ?1 AND due_at <= ?2 ORDER BY due_at, seq LIMIT ?4) \
             RETURNING seq, type, attempts, ?2 - queued_at",
        )?
        .query_map(params![url, now, lease.hold, most], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))
        })?
        .collect::<Result<_>>()?;
    let mut deliveries = Vec::new();
    for (seq, kind, attempts, age) in claimed {
        match event::entry(tx, seq)? {
            Some(event) => deliveries.push(ClaimedDelivery { event, kind, attempts, age }),
            // It was removed from the trail.
            None => remove(tx, url, seq, &kind)?,
        }
    }
    deliveries.sort_by_key(|delivery| delivery.event.seq);
    Ok(deliveries)
}

fn remove(tx: &Transaction<'_>, url: &str, seq: i64, kind: &str) -> Result<()> {
    tx.prepare_cached("DELETE FROM webhook_deliveries WHERE url = ?1 AND seq = ?2 AND type = ?3")?
        .execute(params![url, seq, kind])?;
    Ok(())
}

fn note(tx: &Transaction<'_>, url: &str, notes: &[DeliveryNote], now: UnixMillis) -> Result<bool> {
    let Some(known) = standing(tx, url)? else { return Ok(false) };
    for DeliveryNote { seq, kind, delivered } in notes {
        let wait = match delivered {
            Delivered::Done | Delivered::GivenUp => {
                remove(tx, url, *seq, kind)?;
                continue;
            }
            Delivered::Again(wait) => *wait,
            Delivered::Unwanted => 0,
        };
        tx.prepare_cached(
            "UPDATE webhook_deliveries SET due_at = ?4 WHERE url = ?1 AND seq = ?2 AND type = ?3",
        )?
        .execute(params![url, seq, kind, now + wait])?;
    }
    let mut after = known.after(notes, now);
    let sql = "SELECT EXISTS (SELECT 1 FROM webhook_deliveries WHERE url = ?1)";
    if after.failures > 0 && !tx.query_row(sql, [url], |row| row.get(0))? {
        after = Standing { disabled_at: after.disabled_at, ..Standing::FINE };
    }
    if after != known {
        set_standing(tx, url, after)?;
    }
    Ok(known.disabled_at.is_none() && after.disabled_at.is_some())
}

fn states(tx: &Transaction<'_>) -> Result<Vec<WebhookState>> {
    tx.prepare(
        "SELECT e.url, e.failing_since, e.disabled_at, \
         (SELECT count(*) FROM webhook_deliveries d WHERE d.url = e.url) AS waiting \
         FROM webhook_endpoints e ORDER BY e.url",
    )?
    .query_map([], |row| {
        Ok(WebhookState {
            url: row.get("url")?,
            failing_since: row.get("failing_since")?,
            disabled_at: row.get("disabled_at")?,
            waiting: row.get("waiting")?,
        })
    })?
    .collect()
}

fn enable(tx: &Transaction<'_>, url: &str) -> Result<bool> {
    let Some(_) = standing(tx, url)? else { return Ok(false) };
    set_standing(tx, url, Standing::FINE)?;
    Ok(true)
}

/// Queues a piece of what happened after the event `after` and since a time. Returns how many messages that are, and the last event, if there
/// was any.
fn replay(
    tx: &Transaction<'_>,
    url: &str,
    (after, since): (i64, UnixMillis),
    now: UnixMillis,
) -> Result<Option<(u64, Option<i64>)>> {
    let Some(_) = standing(tx, url)? else { return Ok(None) };
    let sql =
        "SELECT max(seq) FROM (SELECT seq FROM events WHERE seq > ?1 AND at >= ?2 ORDER BY seq LIMIT ?3)";
    let last: Option<i64> = tx.query_row(sql, params![after, since, REPLAYED_AT_ONCE], |row| row.get(0))?;
    let told = tx.execute(
        "INSERT INTO webhook_deliveries (url, seq, type, queued_at, due_at) \
         SELECT s.url, e.seq, s.type, ?3, ?3 FROM events e JOIN webhook_subscriptions s ON s.action = e.action \
         WHERE s.url = ?1 AND e.at >= ?2 AND e.seq > ?4 AND e.seq <= ?5 \
         ON CONFLICT (url, seq, type) DO UPDATE SET due_at = ?3, queued_at = ?3",
        params![url, since, now, after, last.unwrap_or(after)],
    )?;
    Ok(Some((told as u64, last)))
}

#[async_trait]
impl Webhooks for Sqlite {
    async fn subscribe_webhooks(&self, subscriptions: &[WebhookSubscription]) -> store::Result<()> {
        let subscriptions = subscriptions.to_vec();
        self.connections.write(move |tx| subscribe(tx, &subscriptions)).await
    }

    async fn claim_deliveries(&self, url: &str, lease: DeliveryLease) -> store::Result<Vec<ClaimedDelivery>> {
        let (url, now) = (url.to_owned(), self.clock.wall());
        let asked = url.clone();
        // Most looks find nothing, and need not wait for whoever writes.
        if !self.connections.read(move |tx| is_any_due(tx, &asked, now)).await? {
            return Ok(Vec::new());
        }
        self.connections.write(move |tx| claim(tx, &url, lease, now)).await
    }

    async fn note_deliveries(&self, url: &str, notes: &[DeliveryNote]) -> store::Result<bool> {
        let (url, notes, now) = (url.to_owned(), notes.to_vec(), self.clock.wall());
        self.connections.write(move |tx| note(tx, &url, &notes, now)).await
    }

    async fn webhook_states(&self) -> store::Result<Vec<WebhookState>> {
        self.connections.read(states).await
    }

    async fn enable_webhook(&self, url: &str) -> store::Result<bool> {
        let url = url.to_owned();
        self.connections.write(move |tx| enable(tx, &url)).await
    }

    async fn replay_webhook(&self, url: &str, since: UnixMillis) -> store::Result<Option<u64>> {
        let (mut all, mut after, now) = (0, 0, self.clock.wall());
        loop {
            let url = url.to_owned();
            let piece = self.connections.write(move |tx| replay(tx, &url, (after, since), now)).await?;
            let Some((told, last)) = piece else { return Ok(None) };
            all += told;
            let Some(last) = last else { return Ok(Some(all)) };
            after = last;
        }
    }
}
