//! Telling others what happened (Standard Webhooks).
//!
//! A message is queued in the transaction of what it tells of, so none is lost; it is removed once its receiver has taken it, so it may come
//! twice, with the same `webhook-id`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::Serialize;
use tokio::sync::{Mutex, Notify};

use crate::{
    clock::{TimeKeeper, millis, rfc3339},
    config::Webhook,
    http_client::{HttpClient, HttpError, HttpVersion, ResponseBounds},
    store::{
        AuditEntry, ClaimedDelivery, Delivered, DeliveryLease, DeliveryNote, Store, WEBHOOK_PATIENCE,
        WebhookSubscription,
    },
    telemetry::Metrics,
    types::Random,
};

/// Messages that are sent to a receiver at once.
const AT_ONCE: u32 = 16;

/// How long the queue is left alone when nothing is due.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How much longer than the message itself a claim holds.
const LEEWAY: Duration = Duration::from_secs(10);

/// The waits between attempts at a message, in milliseconds: doubled each time, between these.
const FIRST_WAIT: i64 = 1_000;
const LAST_WAIT: i64 = 3_600_000;

/// The longest wait that a receiver may ask for, in milliseconds.
const LONGEST_ASKED: i64 = 6 * 3_600_000;

/// Sends messages to the receivers of a config.
pub struct WebhookWorker {
    receivers: Vec<Receiver>,
    store: Arc<dyn Store>,
    time: Arc<TimeKeeper>,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
    /// Held while the receivers of a config are subscribed, so that those of an older config never replace them.
    turn: Arc<Mutex<()>>,
    stopped: AtomicBool,
    wake: Notify,
}

struct Receiver {
    config: Webhook,
    client: HttpClient,
}

/// Why a receiver has not taken a message.
enum NotTaken {
    /// There was no response, or the message could not be written.
    Failed(HttpError),
    /// A status, and how long it asks to wait, in milliseconds.
    Status(StatusCode, Option<i64>),
}

impl WebhookWorker {
    /// Creates what sends to these receivers; `clients` are theirs, in the same order.
    pub fn new(
        webhooks: &[Webhook],
        clients: Vec<HttpClient>,
        store: Arc<dyn Store>,
        time: Arc<TimeKeeper>,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
        turn: Arc<Mutex<()>>,
    ) -> Self {
        let receivers = webhooks.iter().cloned().zip(clients);
        Self {
            receivers: receivers.map(|(config, client)| Receiver { config, client }).collect(),
            store,
            time,
            random,
            metrics,
            turn,
            stopped: AtomicBool::new(false),
            wake: Notify::new(),
        }
    }

    /// Returns how many receivers there are.
    pub fn receivers(&self) -> usize {
        self.receivers.len()
    }

    /// Has everything queued from now on that the receivers are told of, unless this was stopped.
    ///
    /// # Errors
    /// The store's.
    pub async fn subscribe(&self) -> crate::store::Result<()> {
        let _turn = self.turn.lock().await;
        if self.stopped.load(Relaxed) {
            return Ok(());
        }
        let subscription = |receiver: &Receiver| WebhookSubscription {
            url: receiver.config.name.clone(),
            events: receiver.config.events.clone(),
        };
        let subscriptions: Vec<_> = self.receivers.iter().map(subscription).collect();
        self.store.subscribe_webhooks(&subscriptions).await
    }

    /// Subscribes once the store can be reached again.
    pub async fn keep_subscribing(self: Arc<Self>) {
        while let Err(error) = self.subscribe().await {
            tracing::debug!(%error, "the receivers of webhooks could not be noted");
            let _ = tokio::time::timeout(LOOK_EVERY, self.wake.notified()).await;
        }
    }

    /// Lets what is being sent be the last.
    pub fn stop(&self) {
        self.stopped.store(true, Relaxed);
        self.wake.notify_waiters();
    }

    /// Sends to one of the receivers, by its number, until it is stopped.
    pub async fn work(self: Arc<Self>, number: usize) {
        let Some(receiver) = self.receivers.get(number) else { return };
        while !self.stopped.load(Relaxed) {
            match self.deliver(receiver).await {
                Ok(true) => {}
                Ok(false) => drop(tokio::time::timeout(LOOK_EVERY, self.wake.notified()).await),
                Err(error) => {
                    tracing::debug!(%error, "the queue of webhooks cannot be read or written");
                    let _ = tokio::time::timeout(LOOK_EVERY, self.wake.notified()).await;
                }
            }
        }
    }

    /// Sends what is due to a receiver. Returns whether there was anything.
    async fn deliver(&self, receiver: &Receiver) -> crate::store::Result<bool> {
        let url = &receiver.config.name;
        let hold = millis(receiver.config.timeout + LEEWAY);
        let claimed = self.store.claim_deliveries(url, DeliveryLease { most: AT_ONCE, hold }).await?;
        if claimed.is_empty() {
            return Ok(false);
        }
        let notes = join_all(claimed.iter().map(|delivery| self.attempt(receiver, delivery))).await;
        if self.store.note_deliveries(url, &notes).await? {
            tracing::error!(
                server.address = receiver.config.url.authority,
                "a receiver of webhooks is not asked any more; see `authgate webhook list` and `enable`"
            );
        }
        Ok(true)
    }

    async fn attempt(&self, receiver: &Receiver, delivery: &ClaimedDelivery) -> DeliveryNote {
        let delivered = match self.send(receiver, delivery).await {
            Ok(()) => Delivered::Done,
            Err(not_taken) => self.judge(receiver, delivery, &not_taken),
        };
        let result = match delivered {
            Delivered::Done => "sent",
            Delivered::Again(_) | Delivered::Unwanted => "failed",
            Delivered::GivenUp => "given_up",
        };
        self.metrics.webhook_delivery(&receiver.config.url.authority, result);
        DeliveryNote { seq: delivery.event.seq, kind: delivery.kind.clone(), delivered }
    }

    async fn send(&self, receiver: &Receiver, delivery: &ClaimedDelivery) -> Result<(), NotTaken> {
        let config = &receiver.config;
        let body = Bytes::from(Message::of(delivery).json());
        let (id, timestamp) = (message_id(delivery), self.time.now().wall.div_euclid(1_000));
        let signature = config.secret.sign(&id, timestamp, &body);
        let request = Request::builder()
            .method(Method::POST)
            .header(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .header("webhook-id", &id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .body(Full::new(body))
            .map_err(|error| NotTaken::Failed(error.into()))?;
        let bounds = ResponseBounds { body: 0, timeout: config.timeout };
        let response = receiver.client.send(&config.url, HttpVersion::Http1, request, bounds).await;
        let response = response.map_err(NotTaken::Failed)?;
        match response.status() {
            status if status.is_success() => Ok(()),
            status => Err(NotTaken::Status(status, self.asked_wait(response.headers()))),
        }
    }

    /// Returns how long a receiver asks to wait, in milliseconds (RFC 9110, section 10.2.3).
    fn asked_wait(&self, headers: &HeaderMap) -> Option<i64> {
        let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?;
        if let Ok(seconds) = text.parse::<u32>() {
            return Some(i64::from(seconds) * 1_000);
        }
        let until = httpdate::parse_http_date(text).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        Some((millis(until) - self.time.now().wall).max(0))
    }

    /// Returns what becomes of a message that was not taken.
    fn judge(&self, receiver: &Receiver, delivery: &ClaimedDelivery, not_taken: &NotTaken) -> Delivered {
        let (reason, asked) = match not_taken {
            NotTaken::Failed(error) => (error.to_string(), None),
            NotTaken::Status(status, asked) => (format!("it responded with {status}"), *asked),
        };
        let (server, kind, attempts) = (&receiver.config.url.authority, &delivery.kind, delivery.attempts);
        if delivery.age > WEBHOOK_PATIENCE {
            tracing::error!(server.address = server, kind, attempts, reason, "webhook given up");
            return Delivered::GivenUp;
        }
        tracing::warn!(server.address = server, kind, attempts, reason, "webhook not sent");
        if matches!(not_taken, NotTaken::Status(StatusCode::GONE, _)) {
            return Delivered::Unwanted;
        }
        let doublings = u32::try_from(attempts - 1).unwrap_or(0).min(20);
        let wait = (FIRST_WAIT << doublings).min(LAST_WAIT);
        // Messages that failed together do not come back together.
        let [byte] = self.random.bytes();
        let wait = wait + wait * i64::from(byte) / 1_024;
        Delivered::Again(wait.max(asked.unwrap_or(0).min(LONGEST_ASKED)))
    }
}

/// Returns what tells a message from others: the same at each attempt and when it is replayed. A database that is given back an older state
/// uses numbers again, but not at the same time.
fn message_id(delivery: &ClaimedDelivery) -> String {
    let AuditEntry { at, seq, .. } = delivery.event;
    format!("evt_{at}_{seq}_{}", delivery.kind.replace('.', "_"))
}

/// The body of a message (Standard Webhooks, section "Payload structure").
#[derive(Serialize)]
struct Message<'a> {
    r#type: &'a str,
    timestamp: String,
    data: Data<'a>,
}

#[derive(Serialize)]
struct Data<'a> {
    /// The number of the line in the audit trail.
    seq: i64,
    /// What was done, by the word of the audit trail.
    action: &'a str,
    /// The account that it was done to.
    user: Option<Account<'a>>,
    /// Who did it: the account itself, an administrator, or the system user of the command line, which has no id.
    actor: Option<Account<'a>>,
    /// The address of the client that did it.
    address: Option<&'a str>,
    /// Further details.
    detail: &'a str,
}

#[derive(Serialize)]
struct Account<'a> {
    id: Option<&'a str>,
    username: &'a str,
}

impl<'a> Account<'a> {
    fn of(id: Option<&'a str>, username: &'a str) -> Option<Self> {
        (id.is_some() || !username.is_empty()).then_some(Self { id, username })
    }
}

impl<'a> Message<'a> {
    fn of(delivery: &'a ClaimedDelivery) -> Self {
        let event = &delivery.event;
        Self {
            r#type: &delivery.kind,
            timestamp: rfc3339(event.at),
            data: Data {
                seq: event.seq,
                action: &event.action,
                user: Account::of(event.subject_id.as_deref(), &event.subject),
                actor: Account::of(event.actor_id.as_deref(), &event.actor),
                address: event.address.as_deref(),
                detail: &event.detail,
            },
        }
    }

    fn json(&self) -> String {
        serde_json::json!(self).to_string()
    }
}
