//! What an HTTP/1.1 connection is doing, and until when it may.
//!
//! All its deadlines are one moment in time that its parts push ahead as they make progress. While a request is under
//! way that moment is the one of its [`Exchange`](super::exchange::Exchange).

use std::{
    cell::Cell,
    task::{Context, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use super::turn_budget::TurnBudget;
use crate::{clock::coarse_millis as now_millis, config::Limits, revocation::Registration, stream::Stream};

/// How long a connection that was closed from this side is still read from while bytes come, and in all. As
/// nginx's `lingering_timeout` and `lingering_time`: an uploader reads a 413 only once it has sent its fill.
const LINGER_MILLIS: u64 = 5_000;
const LONGEST_LINGER_MILLIS: u64 = 30_000;

/// The same where nothing more is expected: time for the last response to arrive.
const SHORT_LINGER_MILLIS: u64 = 1_000;

/// What a request costs of a turn, in bytes: of those that are answered at once a client may send many in one piece.
const REQUEST_COST: usize = 4 << 10;

/// How long a connection rests before what serves requests on it is given back, in milliseconds.
const REST_MILLIS: u64 = 3_000;

/// A span in milliseconds, within what can be added to a time.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 4)
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting for a request, or for its end; late means: close silently.
    Idle,
    /// Reading a head; late means: 408.
    Head,
    /// A request is under way, whose exchange says until when.
    Exchange,
}

/// The upstream's side of a tunnel, until the response that opens it is written.
pub(super) struct Opening {
    pub(super) upstream: Stream,
    /// What the upstream sent behind its response.
    pub(super) early: BytesMut,
    /// The tunnel's place among what lives on a token; none for an anonymous client.
    pub(super) registration: Option<Registration>,
    /// What it takes of the connections that the upstream may have.
    pub(super) slot: OwnedSemaphorePermit,
}

/// What a connection is doing, and until when it may.
pub(super) struct Activity {
    phase: Cell<Phase>,
    /// The moment of every phase but an exchange.
    due: Cell<u64>,
    /// Whether a head did not come to its end in time.
    head_is_late: Cell<bool>,
    /// The guard, while it holds bytes of the next request back until an exchange is over.
    reader: Cell<Option<Waker>>,
    /// A service call was made for the last head, so what is written is ours.
    is_called: Cell<bool>,
    /// What the connection becomes once the response is written.
    opening: Cell<Option<Box<Opening>>>,
    /// An interim response that waits to be written.
    hint: Cell<Option<Box<Bytes>>>,
    pub(super) budget: TurnBudget,
    /// Since when the client takes nothing of what is there for it, if it does not.
    blocked_since: Cell<Option<u64>>,
    /// How long it took nothing before, in milliseconds.
    blocked: Cell<u64>,
    /// Whether all that was written has left the library.
    is_flushed: Cell<bool>,
    /// Whether the connection may rest no more, and is closed when it is due again.
    has_rested: Cell<bool>,
    /// How long it waits for a request before it may rest; and how long in all.
    rest: u64,
    idle: u64,
    head: u64,
    drain: u64,
}

impl Activity {
    /// The state of a connection that waits for a request: of a fresh one, or of one that has rested and may go on so until
    /// a moment that was named then.
    pub(super) fn new(limits: &Limits, rested_until: Option<u64>) -> Self {
        let idle = millis(limits.idle_timeout);
        let rest = idle.min(REST_MILLIS);
        Self {
            phase: Cell::new(Phase::Idle),
            due: Cell::new(rested_until.unwrap_or_else(|| now_millis() + rest)),
            head_is_late: Cell::new(false),
            reader: Cell::default(),
            is_called: Cell::new(false),
            opening: Cell::default(),
            hint: Cell::default(),
            budget: TurnBudget::new(),
            blocked_since: Cell::new(None),
            blocked: Cell::new(0),
            is_flushed: Cell::new(true),
            has_rested: Cell::new(rested_until.is_some()),
            rest,
            idle,
            head: millis(limits.header_timeout),
            drain: millis(limits.response_drain_timeout),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        self.phase.get()
    }

    fn enter(&self, phase: Phase, due: u64) {
        self.phase.set(phase);
        self.due.set(due);
        self.head_is_late.set(false);
        self.has_rested.set(false);
    }

    /// The first bytes of a head have arrived.
    pub(super) fn head_begins(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head, now_millis() + self.head);
        }
    }

    /// A head was handed to the library, everything before it being answered and written.
    pub(super) fn head_released(&self) {
        self.is_called.set(false);
    }

    /// The moment by which a head must be there has come and gone.
    pub(super) fn head_expires(&self) {
        self.head_is_late.set(true);
    }

    /// Whether a head is being read that is late.
    pub(super) fn head_is_late(&self) -> bool {
        self.head_is_late.get()
    }

    /// Whether what the library writes now is a response of ours.
    pub(super) fn is_called(&self) -> bool {
        self.is_called.get()
    }

    /// A whole head was read.
    pub(super) fn exchange_begins(&self) {
        self.budget.spends(REQUEST_COST);
        self.is_called.set(true);
        self.blocked_since.set(None);
        self.blocked.set(0);
        self.phase.set(Phase::Exchange);
        self.head_is_late.set(false);
        self.has_rested.set(false);
    }

    /// The response is complete, or was given up.
    pub(super) fn exchange_ends(&self) {
        self.enter(Phase::Idle, now_millis() + self.rest);
        if let Some(waker) = self.reader.take() {
            waker.wake();
        }
    }

    /// Whether a request is being answered.
    pub(super) fn is_busy(&self) -> bool {
        self.phase() == Phase::Exchange
    }

    /// The guard waits for the end of the exchange.
    pub(super) fn hold(&self, cx: &Context<'_>) {
        self.reader.set(Some(cx.waker().clone()));
    }

    /// Something is being written: some of it may still lie with the library.
    pub(super) fn write_begins(&self) {
        self.is_flushed.set(false);
    }

    /// All that was written has left the library; whether something was written since the last time.
    pub(super) fn write_ends(&self) -> bool {
        !self.is_flushed.replace(true)
    }

    /// Whether all that was written has left the library.
    pub(super) fn is_flushed(&self) -> bool {
        self.is_flushed.get()
    }

    /// The client takes nothing of what is there for it.
    pub(super) fn client_blocks(&self) {
        if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(now_millis()));
        }
    }

    /// The client has taken something.
    pub(super) fn client_reads(&self) {
        if let Some(since) = self.blocked_since.take() {
            // Short waits are counted as nothing or as a grain of the clock, and rightly on average.
            self.blocked.set(self.blocked.get() + now_millis().saturating_sub(since));
        }
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_written(&self) -> bool {
        let hint = self.hint.take();
        let is_written = self.is_flushed() && self.blocked_since.get().is_none() && hint.is_none();
        self.hint.set(hint);
        is_written
    }

    /// Something moves on a connection that is between two requests: the last of a response, or a tunnel.
    pub(super) fn moves(&self) {
        if self.phase() == Phase::Idle {
            self.due.set(now_millis() + self.rest);
            self.has_rested.set(false);
        }
    }

    /// Gives what has waited for as long as it takes to rest the remaining time that it may wait; false where it has had
    /// that.
    pub(super) fn waits_on(&self) -> bool {
        let left = self.idle - self.rest;
        let waits_on = left > 0 && !self.has_rested.replace(true);
        if waits_on {
            self.due.set(now_millis() + left);
        }
        waits_on
    }

    /// The moment by which something must move, given that of an exchange that is under way.
    pub(super) fn due(&self, exchange: u64) -> u64 {
        let due = if self.is_busy() { exchange } else { self.due.get() };
        match self.blocked_since.get() {
            None => due,
            Some(since) => due.min(since + self.drain.saturating_sub(self.blocked.get())),
        }
    }

    /// An interim response to be written before the final one.
    pub(super) fn hint(&self, head: Bytes) {
        self.hint.set(Some(Box::new(head)));
    }

    /// The interim response to be written, if there is one.
    pub(super) fn take_hint(&self) -> Option<Bytes> {
        self.hint.take().map(|head| *head)
    }

    /// Once its response is written, the connection is a tunnel.
    pub(super) fn becomes(&self, opening: Opening) {
        self.opening.set(Some(Box::new(opening)));
    }

    /// The tunnel that the connection becomes, if it does.
    pub(super) fn opening(&self) -> Option<Box<Opening>> {
        self.opening.take()
    }

    /// A refusal is to be written, and then there is no further request.
    pub(super) fn refuses(&self) {
        self.has_rested.set(true);
        if self.phase() == Phase::Idle {
            self.due.set(now_millis() + self.idle);
        }
    }

    /// No further request will be read: what the client still sends is taken in and dropped for a
    /// while, so that closing does not destroy the response on its way (RFC 9112, section 9.6). The moment at which
    /// that ends at the latest. `more_expected` says whether a part of a request is still to come.
    pub(super) fn lingers(&self, more_expected: bool) -> u64 {
        let longest = if more_expected { LONGEST_LINGER_MILLIS } else { SHORT_LINGER_MILLIS };
        let end = now_millis() + longest;
        self.lingers_on(end);
        end
    }

    /// The client still sends.
    pub(super) fn lingers_on(&self, end: u64) {
        self.enter(Phase::Idle, (now_millis() + LINGER_MILLIS).min(end));
        // It waits for no request.
        self.has_rested.set(true);
    }
}
