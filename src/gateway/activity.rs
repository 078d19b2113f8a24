//! The state of an HTTP/1.1 connection and its deadline.
//!
//! All deadlines of a connection are one moment, which its parts move ahead as they make progress. During a request the
//! deadline of its [`Exchange`](super::exchange::Exchange) applies instead.

use std::{cell::Cell, time::Duration};

use super::{interim::Interim, turn_budget::TurnBudget};
use crate::{clock::coarse_millis, config::Limits, revocation::Registration, stream::Stream, upstream};
use bytes::BytesMut;

/// The longest pause between two reads after the gateway has closed its sending side, and the longest time for all of
/// them, in milliseconds. nginx calls them `lingering_timeout` and `lingering_time`. An uploader reads a 413 only after it
/// has sent its body.
const LINGER_MILLIS: u64 = 5_000;
const LONGEST_LINGER_MILLIS: u64 = 30_000;

/// The longest time for them if the client has nothing left to send: the last response can arrive meanwhile.
const SHORT_LINGER_MILLIS: u64 = 1_000;

/// The cost of a request in a turn, in bytes. A client can pipeline many requests that are answered at once.
const REQUEST_COST: usize = 4 << 10;

/// The idle time after which a connection gives its HTTP state back, in milliseconds.
const REST_MILLIS: u64 = 3_000;

/// Converts a duration to milliseconds that can be added to a time without overflow.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 4)
}

/// The phase of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waits for a request or for the end of the connection. At the deadline it is closed silently.
    Idle,
    /// Reads a head. At the deadline the client gets 408.
    Head,
    /// Serves a request. The deadline is that of its exchange.
    Exchange,
}

/// The upstream's side of a tunnel, until the response that opens it is written.
pub(super) struct Opening {
    pub(super) upstream: Stream,
    /// Bytes that the upstream sent after its response.
    pub(super) early: BytesMut,
    /// The tunnel's registration, by which the end of its token cuts it. None for an anonymous client.
    pub(super) registration: Option<Registration>,
    /// What the tunnel is counted by at the upstream.
    pub(super) counted: upstream::Counted,
}

/// The state of a connection and its deadline.
pub(super) struct Activity {
    /// The time at the begin of this turn.
    now: Cell<u64>,
    phase: Cell<Phase>,
    /// The deadline of every phase except an exchange.
    due: Cell<u64>,
    /// Whether the head was not complete at its deadline.
    head_is_late: Cell<bool>,
    /// The tunnel that starts once the response is written.
    opening: Cell<Option<Box<Opening>>>,
    /// Interim responses to be written before the final one.
    hints: Cell<Vec<Interim>>,
    pub(super) budget: TurnBudget,
    /// The time since when the client has not read, if it is not reading.
    blocked_since: Cell<Option<u64>>,
    /// The total time that the client did not read before, in milliseconds.
    blocked: Cell<u64>,
    /// Whether the connection was idle once already. At its next deadline it is closed.
    has_rested: Cell<bool>,
    /// The idle time before the HTTP state is given back, and before the connection is closed, in milliseconds.
    rest: Cell<u64>,
    idle: Cell<u64>,
    head: u64,
    drain: u64,
}

impl Activity {
    /// Creates the state of a connection that waits for a request. `rested_until` is the deadline of one that was idle
    /// before.
    pub(super) fn new(limits: &Limits, rested_until: Option<u64>) -> Self {
        let idle = millis(limits.idle_timeout);
        let rest = idle.min(REST_MILLIS);
        let now = coarse_millis();
        Self {
            now: Cell::new(now),
            phase: Cell::new(Phase::Idle),
            due: Cell::new(rested_until.unwrap_or(now + rest)),
            head_is_late: Cell::new(false),
            opening: Cell::default(),
            hints: Cell::default(),
            budget: TurnBudget::new(),
            blocked_since: Cell::new(None),
            blocked: Cell::new(0),
            has_rested: Cell::new(rested_until.is_some()),
            rest: Cell::new(rest),
            idle: Cell::new(idle),
            head: millis(limits.header_timeout),
            drain: millis(limits.response_drain_timeout),
        }
    }

    /// Starts a turn of the connection: reads the clock, and sets the budget anew.
    pub(super) fn turn_begins(&self) {
        self.now.set(coarse_millis());
        self.budget.begins();
    }

    /// Returns the coarse time at the begin of this turn, which takes less than the clock's grain.
    pub(super) fn now(&self) -> u64 {
        self.now.get()
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

    /// Starts the deadline for a head, at its first bytes.
    pub(super) fn head_begins(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head, self.now() + self.head);
        }
    }

    /// Notes that the head was not complete at its deadline.
    pub(super) fn head_expires(&self) {
        self.head_is_late.set(true);
    }

    /// Returns whether the head was not complete at its deadline.
    pub(super) fn head_is_late(&self) -> bool {
        self.head_is_late.get()
    }

    /// Starts an exchange, after its whole head was read.
    pub(super) fn exchange_begins(&self) {
        self.budget.spends(REQUEST_COST);
        self.blocked_since.set(None);
        self.blocked.set(0);
        self.phase.set(Phase::Exchange);
        self.head_is_late.set(false);
        self.has_rested.set(false);
    }

    /// Ends an exchange.
    pub(super) fn exchange_ends(&self) {
        self.enter(Phase::Idle, self.now() + self.rest.get());
    }

    /// Returns whether an exchange is in progress.
    pub(super) fn is_busy(&self) -> bool {
        self.phase() == Phase::Exchange
    }

    /// Notes that the client does not read.
    pub(super) fn client_blocks(&self) {
        if self.blocked_since.get().is_none() {
            self.blocked_since.set(Some(self.now()));
        }
    }

    /// Notes that the client has read.
    pub(super) fn client_reads(&self) {
        if let Some(since) = self.blocked_since.take() {
            // The coarse clock counts a short wait as nothing or as one tick; on average that is right.
            self.blocked.set(self.blocked.get() + self.now().saturating_sub(since));
        }
    }

    /// Moves the idle deadline ahead, when the rest of a response leaves or a tunnel carries bytes.
    pub(super) fn moves(&self) {
        if self.phase() == Phase::Idle {
            self.due.set(self.now() + self.rest.get());
            self.has_rested.set(false);
        }
    }

    /// Moves the deadline from the resting time to the idle timeout. Returns false if that was done before.
    pub(super) fn waits_on(&self) -> bool {
        let left = self.idle.get() - self.rest.get();
        let waits_on = left > 0 && !self.has_rested.replace(true);
        if waits_on {
            self.due.set(self.now() + left);
        }
        waits_on
    }

    /// Returns the deadline of the connection. `exchange` is the deadline of the exchange, if one is in progress.
    pub(super) fn due(&self, exchange: u64) -> u64 {
        let due = if self.is_busy() { exchange } else { self.due.get() };
        match self.blocked_since.get() {
            None => due,
            Some(since) => due.min(since + self.drain.saturating_sub(self.blocked.get())),
        }
    }

    /// Adds an interim response, to be written before the final one.
    pub(super) fn hint(&self, head: Interim) {
        let mut hints = self.hints.take();
        hints.push(head);
        self.hints.set(hints);
    }

    /// Takes the interim responses to be written.
    pub(super) fn take_hints(&self) -> Vec<Interim> {
        self.hints.take()
    }

    /// Makes the connection a tunnel once the response is written.
    pub(super) fn becomes(&self, opening: Opening) {
        self.opening.set(Some(Box::new(opening)));
    }

    /// Sets the idle time after which a tunnel is closed.
    pub(super) fn may_idle_for(&self, span: Duration) {
        let idle = millis(span);
        self.idle.set(idle);
        self.rest.set(idle.min(REST_MILLIS));
    }

    /// Returns whether the connection becomes a tunnel.
    pub(super) fn is_opening(&self) -> bool {
        let opening = self.opening.take();
        let is_opening = opening.is_some();
        self.opening.set(opening);
        is_opening
    }

    /// Takes the tunnel that the connection becomes.
    pub(super) fn opening(&self) -> Option<Box<Opening>> {
        self.opening.take()
    }

    /// Notes that the connection ends with a refusal.
    pub(super) fn refuses(&self) {
        self.has_rested.set(true);
        if self.phase() == Phase::Idle {
            self.due.set(self.now() + self.idle.get());
        }
    }

    /// Starts to discard what the client still sends, so that closing does not destroy the response on its way
    /// (RFC 9112, section 9.6). Returns when that ends at the latest. `more_expected` tells whether a part of a request is
    /// still to come.
    pub(super) fn lingers(&self, more_expected: bool) -> u64 {
        let longest = if more_expected { LONGEST_LINGER_MILLIS } else { SHORT_LINGER_MILLIS };
        let end = self.now() + longest;
        self.lingers_on(end);
        end
    }

    /// Moves the deadline ahead while the client still sends, up to `end`.
    pub(super) fn lingers_on(&self, end: u64) {
        self.enter(Phase::Idle, (self.now() + LINGER_MILLIS).min(end));
        // The connection does not wait for a request any more.
        self.has_rested.set(true);
    }
}
