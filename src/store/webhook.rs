//! What receivers of events are to be told, and how they take it.

use async_trait::async_trait;

use super::{AuditEntry, Result};
use crate::{clock::UnixMillis, types::EventType};

/// How long a receiver may fail, and a message wait, in milliseconds: a week.
pub const WEBHOOK_PATIENCE: i64 = 7 * 86_400_000;

/// The waits between messages to a receiver that fails, in milliseconds: doubled each time, between these.
const FIRST_WAIT: i64 = 1_000;
const LAST_WAIT: i64 = 60_000;

/// Events that are looked through at once, to be told again.
pub(super) const REPLAYED_AT_ONCE: i64 = 5_000;

/// A receiver, and what it is told of.
#[derive(Debug, Clone)]
pub struct WebhookSubscription {
    /// Its address, which tells it from others.
    pub url: String,
    /// What it is told of.
    pub events: Vec<EventType>,
}

impl WebhookSubscription {
    /// Returns the actions of events that it is told of, each with the kind that it is told as.
    pub(super) fn actions(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.events.iter().flat_map(|kind| kind.actions().iter().map(|action| (*action, kind.name())))
    }
}

/// A message that this gateway may send now, and no other does for a while.
#[derive(Debug, Clone)]
pub struct ClaimedDelivery {
    /// The event.
    pub event: AuditEntry,
    /// The name of the kind that it is told as.
    pub kind: String,
    /// How often it was tried, this time included.
    pub attempts: i64,
    /// How long it has waited, in milliseconds.
    pub age: i64,
}

/// How messages are claimed.
#[derive(Debug, Clone, Copy)]
pub struct DeliveryLease {
    /// The most messages. To a receiver that fails it is one.
    pub most: u32,
    /// Nobody else tries them for this long, in milliseconds.
    pub hold: i64,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivered {
    /// The receiver took it.
    Done,
    /// To be tried again after so many milliseconds.
    Again(i64),
    /// It has waited too long.
    GivenUp,
    /// The receiver says that it wants none any more; to be tried again should that change.
    Unwanted,
}

/// A message, and what became of it.
#[derive(Debug, Clone)]
pub struct DeliveryNote {
    /// The number of its event.
    pub seq: i64,
    /// The name of the kind that it was told as.
    pub kind: String,
    /// What became of it.
    pub delivered: Delivered,
}

/// How a receiver fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookState {
    /// Its address.
    pub url: String,
    /// Since when it fails.
    pub failing_since: Option<UnixMillis>,
    /// Since when it is not asked any more.
    pub disabled_at: Option<UnixMillis>,
    /// How many messages wait for it.
    pub waiting: i64,
}

/// What receivers of events are to be told.
#[async_trait]
pub trait Webhooks: Send + Sync {
    /// Sets who is told of what from now on. What waits for a receiver that is not named any more is dropped, in time.
    async fn subscribe_webhooks(&self, subscriptions: &[WebhookSubscription]) -> Result<()>;

    /// Takes messages for a receiver that are due.
    async fn claim_deliveries(&self, url: &str, lease: DeliveryLease) -> Result<Vec<ClaimedDelivery>>;

    /// Records what became of claimed messages. Returns whether the receiver is not asked any more from now on: it has failed for
    /// [`WEBHOOK_PATIENCE`], or wants nothing.
    async fn note_deliveries(&self, url: &str, notes: &[DeliveryNote]) -> Result<bool>;

    /// Returns how all receivers fare.
    async fn webhook_states(&self) -> Result<Vec<WebhookState>>;

    /// Asks a receiver again. Returns false if there is none of this address.
    async fn enable_webhook(&self, url: &str) -> Result<bool>;

    /// Tells a receiver again of what happened since a time. Returns how many messages that are, or `None` if there is no receiver of this
    /// address.
    async fn replay_webhook(&self, url: &str, since: UnixMillis) -> Result<Option<u64>>;
}

/// How a receiver has fared, read under its lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) failures: i64,
    pub(super) failing_since: Option<UnixMillis>,
    /// When it is asked again at the earliest.
    pub(super) retry_at: UnixMillis,
    pub(super) disabled_at: Option<UnixMillis>,
}

impl Standing {
    /// A receiver that takes what it is sent.
    pub(super) const FINE: Self = Self { failures: 0, failing_since: None, retry_at: 0, disabled_at: None };

    /// Returns how many messages it may be sent at `now`, of at most so many.
    pub(super) fn takes(&self, now: UnixMillis, most: u32) -> u32 {
        match self {
            Self { disabled_at: Some(_), .. } => 0,
            Self { failures: 0, .. } => most,
            // One shows whether it fares better.
            Self { retry_at, .. } => u32::from(*retry_at <= now),
        }
    }

    /// Returns how it fares after these outcomes at `now`.
    pub(super) fn after(&self, notes: &[DeliveryNote], now: UnixMillis) -> Self {
        let is_any = |wanted: fn(Delivered) -> bool| notes.iter().any(|note| wanted(note.delivered));
        if is_any(|delivered| delivered == Delivered::Unwanted) {
            return Self { disabled_at: Some(now), ..*self };
        }
        if is_any(|delivered| delivered == Delivered::Done) {
            return Self { disabled_at: self.disabled_at, ..Self::FINE };
        }
        let since = self.failing_since.unwrap_or(now);
        let doublings = u32::try_from(self.failures).unwrap_or(u32::MAX).min(16);
        let is_over = now - since >= WEBHOOK_PATIENCE;
        Self {
            failures: self.failures + 1,
            failing_since: Some(since),
            retry_at: now + (FIRST_WAIT << doublings).min(LAST_WAIT),
            disabled_at: self.disabled_at.or(is_over.then_some(now)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(delivered: &[Delivered]) -> Vec<DeliveryNote> {
        let note = |(seq, delivered): (i64, &Delivered)| DeliveryNote {
            seq,
            kind: "user.created".to_owned(),
            delivered: *delivered,
        };
        (1..).zip(delivered).map(note).collect()
    }

    #[test]
    fn a_receiver_that_fails_is_sent_one_message_now_and_then_until_it_takes_one() {
        let failed = notes(&[Delivered::Again(1), Delivered::GivenUp]);
        let mut standing = Standing::FINE;
        for (now, wait) in [(10, 1_000), (2_000, 2_000), (5_000, 4_000)] {
            standing = standing.after(&failed, now);
            assert_eq!((standing.retry_at - now, standing.failing_since), (wait, Some(10)));
            assert_eq!((standing.takes(now, 16), standing.takes(now + wait, 16)), (0, 1));
        }
        for now in 0..20 {
            standing = standing.after(&failed, 10_000 + now);
        }
        assert_eq!(standing.retry_at, 10_019 + LAST_WAIT);
        let one = standing.after(&notes(&[Delivered::Again(1), Delivered::Done]), 20_000);
        assert_eq!((one, one.takes(20_000, 16)), (Standing::FINE, 16));
    }

    #[test]
    fn a_receiver_that_fails_for_a_week_or_wants_nothing_is_not_asked_any_more() {
        let failed = notes(&[Delivered::Again(1)]);
        let failing = Standing::FINE.after(&failed, 10);
        let later = |span: i64| failing.after(&failed, 10 + span);
        assert_eq!(later(WEBHOOK_PATIENCE - 1).disabled_at, None);
        let disabled = later(WEBHOOK_PATIENCE);
        assert_eq!(disabled.disabled_at, Some(10 + WEBHOOK_PATIENCE));
        assert_eq!(disabled.takes(i64::MAX, 16), 0);
        assert_eq!(
            Standing::FINE.after(&notes(&[Delivered::Unwanted, Delivered::Done]), 5).disabled_at,
            Some(5)
        );
    }
}
