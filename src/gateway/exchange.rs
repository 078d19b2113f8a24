//! What one connection is doing, and until when it may.
//!
//! All deadlines of a connection are one moment in time that its parts push ahead as they make
//! progress. The connection's task holds a single timer, which it moves only when the moment comes
//! closer than the timer's; so a request costs no timer at all.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Waker},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    access::{Access, Denied, Lease},
    clock::coarse_millis as now_millis,
    config::Limits,
    error::Kind,
    revocation::{Cut, Registration},
    stream::Stream,
};

/// How long a connection that was closed from this side is still read from while bytes come, and in all. As
/// nginx's `lingering_timeout` and `lingering_time`: an uploader reads a 413 only once it has sent its fill.
const LINGER_MILLIS: u64 = 5_000;
const LONGEST_LINGER_MILLIS: u64 = 30_000;

/// The same where nothing more is expected: time for the last response to arrive.
const SHORT_LINGER_MILLIS: u64 = 1_000;

/// What a connection reads, from its client or for it, before the others of its worker have their turn, in bytes: a
/// fraction of a millisecond of work, whatever it is cut into.
const TURN_BYTES: u64 = 64 << 10;

/// What a request costs of a turn, in bytes: of those that are answered at once a client may send many in one piece.
const REQUEST_COST: usize = 4 << 10;

/// How long a connection rests before what serves requests on it is given back, in milliseconds.
const REST_MILLIS: u64 = 3_000;

/// How far a request's body has come.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum BodyState {
    /// To its end, or there is none.
    Complete,
    /// More may come; nobody has asked for it yet.
    Open,
    /// The client was asked for more, and has not sent it.
    Awaited,
}

/// Why a request's body ends before its end.
#[derive(Debug, Clone, Copy)]
#[repr(u8)]
pub(super) enum BodyFailure {
    /// Over its limit.
    TooLarge = 1,
    /// Too slow.
    Late = 2,
    /// Broken framing, or broken off.
    Malformed = 3,
    /// The token that it came with has died meanwhile.
    Dead = 4,
    /// Nobody knows any more whether it has.
    Stale = 5,
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

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Phase {
    /// Waiting for a request; late means: close silently.
    Idle,
    /// Reading a head; late means: 408.
    Head,
    /// Between a request's head and its response's; late means: 408 or 504.
    Request,
    /// Sending a response; late means: break off.
    Response,
}

fn lock<T>(slot: &Mutex<T>) -> MutexGuard<'_, T> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX / 4)
}

/// The state that a connection's reader, service and bodies share. One thread uses it; the atomics
/// are there because futures must be `Send`, and cost what plain fields would.
pub(super) struct Exchange {
    phase: AtomicU8,
    due: AtomicU64,
    expired: AtomicBool,
    /// The guard holds bytes of the next request back until this exchange is over.
    holding: AtomicBool,
    reader: Mutex<Option<Waker>>,
    /// A service call was made for the last head, so what is written is ours.
    called: AtomicBool,
    body_failure: AtomicU8,
    body: AtomicU8,
    access: Arc<Access>,
    /// Whether this exchange has turned out to be a long one, which ends with its token.
    watched: AtomicBool,
    registration: Mutex<Option<Registration>>,
    /// What the connection becomes once the response is written.
    opening: Mutex<Option<Opening>>,
    /// An interim response that waits to be written.
    hints: Mutex<Option<Bytes>>,
    has_hints: AtomicBool,
    /// What may still be read in this turn of the connection's task, in bytes.
    turn: AtomicU64,
    /// Bytes of the request's body so far.
    received: AtomicU64,
    /// Since when the client takes nothing of what is there for it, and how long it took before; both in
    /// milliseconds, and 0 for not at all.
    blocked_since: AtomicU64,
    blocked: AtomicU64,
    /// Whether all that was written has left the library.
    flushed: AtomicBool,
    /// Whether the connection may rest no more, and is closed when it is due again.
    rested: AtomicBool,
    /// How long it waits for a request before it may rest; and how long in all.
    rest: u64,
    idle: u64,
    head: u64,
    body_idle: u64,
    drain: u64,
}

impl Exchange {
    /// The state of a connection that waits for a request: of a fresh one, or of one that has rested and may go on so until
    /// a moment that was named then.
    pub(super) fn new(limits: &Limits, access: Arc<Access>, rested_until: Option<u64>) -> Self {
        let idle = millis(limits.idle_timeout);
        let rest = idle.min(REST_MILLIS);
        Self {
            phase: AtomicU8::new(Phase::Idle as u8),
            due: AtomicU64::new(rested_until.unwrap_or_else(|| now_millis() + rest)),
            expired: AtomicBool::new(false),
            holding: AtomicBool::new(false),
            reader: Mutex::new(None),
            called: AtomicBool::new(false),
            body_failure: AtomicU8::new(0),
            body: AtomicU8::new(BodyState::Complete as u8),
            access,
            watched: AtomicBool::new(false),
            registration: Mutex::default(),
            opening: Mutex::default(),
            hints: Mutex::default(),
            has_hints: AtomicBool::new(false),
            turn: AtomicU64::new(TURN_BYTES),
            received: AtomicU64::new(0),
            blocked_since: AtomicU64::new(0),
            blocked: AtomicU64::new(0),
            drain: millis(limits.response_drain_timeout),
            flushed: AtomicBool::new(true),
            rested: AtomicBool::new(rested_until.is_some()),
            rest,
            idle,
            head: millis(limits.header_timeout),
            body_idle: millis(limits.body_idle_timeout),
        }
    }

    pub(super) fn phase(&self) -> Phase {
        match self.phase.load(Relaxed) {
            0 => Phase::Idle,
            1 => Phase::Head,
            2 => Phase::Request,
            _ => Phase::Response,
        }
    }

    fn enter(&self, phase: Phase, due: u64) {
        self.phase.store(phase as u8, Relaxed);
        self.due.store(due, Relaxed);
        self.expired.store(false, Relaxed);
        self.rested.store(false, Relaxed);
    }

    /// Something is being written: some of it may still lie with the library.
    pub(super) fn write_begins(&self) {
        self.flushed.store(false, Relaxed);
    }

    /// All that was written has left the library; whether something was written since the last time.
    pub(super) fn write_ends(&self) -> bool {
        let written = !self.is_flushed();
        self.flushed.store(true, Relaxed);
        written
    }

    /// Whether all that was written has left the library.
    pub(super) fn is_flushed(&self) -> bool {
        self.flushed.load(Relaxed)
    }

    /// Until when the connection may rest without what serves requests on it; none where nothing is gained, or where
    /// something is still to be written. Then it is given the rest of its time.
    pub(super) fn may_rest(&self) -> Option<u64> {
        if !self.waits_on() {
            return None;
        }
        let is_written = self.is_flushed() && self.blocked_since.load(Relaxed) == 0;
        if is_written && !self.has_hints.load(Relaxed) && !self.body_is_open() && !self.watched.load(Relaxed)
        {
            return Some(self.due.load(Relaxed));
        }
        None
    }

    /// Gives what has waited for as long as it takes to rest the remaining time that it may wait; false where it has had
    /// that.
    pub(super) fn waits_on(&self) -> bool {
        let left = self.idle - self.rest;
        let waits_on = left > 0 && !self.rested.swap(true, Relaxed);
        if waits_on {
            self.due.store(now_millis() + left, Relaxed);
        }
        waits_on
    }

    /// The first bytes of a head have arrived.
    pub(super) fn head_begins(&self) {
        if self.phase() == Phase::Idle {
            self.enter(Phase::Head, now_millis() + self.head);
        }
    }

    /// A head was handed to the library, everything before it being answered and written.
    pub(super) fn head_released(&self) {
        self.called.store(false, Relaxed);
    }

    /// Whether what the library writes now is a response of ours.
    pub(super) fn is_called(&self) -> bool {
        self.called.load(Relaxed)
    }

    /// A whole head was read: its response's head is due after `timeout`. `body` says whether more of the request
    /// may come.
    pub(super) fn request_begins(&self, timeout: Duration, body: bool) {
        self.spends(REQUEST_COST);
        self.called.store(true, Relaxed);
        self.body_failure.store(0, Relaxed);
        self.received.store(0, Relaxed);
        self.blocked.store(0, Relaxed);
        self.blocked_since.store(0, Relaxed);
        self.body_is(if body { BodyState::Open } else { BodyState::Complete });
        self.enter(Phase::Request, now_millis() + millis(timeout));
    }

    /// The request must go on by `at`, a moment of [`Self::moment`]. Once the response has begun, its own
    /// progress counts.
    pub(super) fn expect_by(&self, at: u64) {
        if self.phase() == Phase::Request {
            self.due.store(at, Relaxed);
        }
    }

    /// The connection's task has its turn.
    pub(super) fn turn_begins(&self) {
        self.turn.store(TURN_BYTES, Relaxed);
    }

    /// Bytes were read, at a cost of so many.
    pub(super) fn spends(&self, bytes: usize) {
        let left = self.turn.load(Relaxed);
        self.turn.store(left.saturating_sub(bytes as u64), Relaxed);
    }

    /// What was read in this turn so far, in bytes.
    pub(super) fn turn_bytes(&self) -> u64 {
        TURN_BYTES - self.turn.load(Relaxed)
    }

    /// Whether as much was read as a turn allows: nothing more is read before the connection's task has its next one.
    pub(super) fn has_spent_its_turn(&self) -> bool {
        self.turn.load(Relaxed) == 0
    }

    /// Bytes of the request's body arrived; the request must go on by `at`. Once the response has begun, bytes either
    /// way count for both.
    pub(super) fn upload_moves(&self, bytes: u64, at: u64) {
        self.received.fetch_add(bytes, Relaxed);
        match self.phase() {
            Phase::Request => self.due.store(at, Relaxed),
            Phase::Response => self.response_moves(),
            Phase::Idle | Phase::Head => {}
        }
    }

    /// Bytes of the request's body so far.
    pub(super) fn request_bytes(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// The client takes nothing of what is there for it.
    pub(super) fn client_blocks(&self) {
        if self.blocked_since.load(Relaxed) == 0 {
            self.blocked_since.store(now_millis().max(1), Relaxed);
        }
    }

    /// The client has taken something.
    fn client_reads(&self) {
        let since = self.blocked_since.load(Relaxed);
        if since != 0 {
            self.blocked_since.store(0, Relaxed);
            // Short waits are counted as nothing or as a grain of the clock, and rightly on average.
            self.blocked.fetch_add(now_millis().saturating_sub(since), Relaxed);
        }
    }

    /// An interim response to be written before the final one.
    pub(super) fn hint(&self, head: Bytes) {
        *lock(&self.hints) = Some(head);
        self.has_hints.store(true, Relaxed);
    }

    /// The interim response to be written, if there is one.
    pub(super) fn take_hint(&self) -> Option<Bytes> {
        if !self.has_hints.load(Relaxed) {
            return None;
        }
        self.has_hints.store(false, Relaxed);
        lock(&self.hints).take()
    }

    /// The moment that is `span` from now.
    pub(super) fn moment(&self, span: Duration) -> u64 {
        now_millis() + millis(span)
    }

    /// The moment by which a body must go on.
    pub(super) fn next_body_byte(&self) -> u64 {
        now_millis() + self.body_idle
    }

    /// The response's head is ready.
    pub(super) fn response_begins(&self) {
        self.enter(Phase::Response, now_millis() + self.body_idle);
    }

    /// Bytes of the response were written.
    pub(super) fn response_leaves(&self) {
        self.client_reads();
        self.response_moves();
    }

    /// Bytes of the response went out or came in.
    pub(super) fn response_moves(&self) {
        match self.phase() {
            Phase::Response => self.due.store(now_millis() + self.body_idle, Relaxed),
            // The last of a response may leave after its body was dropped.
            Phase::Idle => {
                self.due.store(now_millis() + self.rest, Relaxed);
                self.rested.store(false, Relaxed);
            }
            Phase::Head | Phase::Request => {}
        }
    }

    /// The response is complete, or was given up.
    pub(super) fn response_ends(&self) {
        self.enter(Phase::Idle, now_millis() + self.rest);
        if self.watched.load(Relaxed) {
            self.watched.store(false, Relaxed);
            drop(lock(&self.registration).take());
        }
        if self.holding.swap(false, Relaxed) {
            let reader = lock(&self.reader).take();
            if let Some(waker) = reader {
                waker.wake();
            }
        }
    }

    /// The exchange has turned out to be a long one: from now on it ends with the lease.
    ///
    /// # Errors
    /// Why it has ended already.
    pub(super) fn watch(&self, lease: &Lease, cx: &Context<'_>) -> Result<(), Cut> {
        if self.watched.load(Relaxed) {
            return Ok(());
        }
        match self.access.watch(lease, cx.waker()) {
            Ok(registration) => {
                self.watched.store(registration.is_some(), Relaxed);
                *lock(&self.registration) = registration;
                Ok(())
            }
            Err(Denied::Stale) => Err(Cut::Stale),
            Err(_) => Err(Cut::Revoked),
        }
    }

    /// The request is complete, and its response may come as that of any other.
    pub(super) fn upload_ends(&self) {
        if self.phase() == Phase::Request && self.watched.swap(false, Relaxed) {
            drop(lock(&self.registration).take());
        }
    }

    /// Why a long exchange must end, if its lease has.
    pub(super) fn cut(&self) -> Option<Cut> {
        if self.watched.load(Relaxed) {
            lock(&self.registration).as_ref().and_then(Registration::cut)
        } else {
            None
        }
    }

    /// Once its response is written, the connection is a tunnel.
    pub(super) fn becomes(&self, opening: Opening) {
        *lock(&self.opening) = Some(opening);
    }

    /// The tunnel that the connection becomes, if it does.
    pub(super) fn opening(&self) -> Option<Opening> {
        lock(&self.opening).take()
    }

    /// The request's body cannot be read to its end.
    pub(super) fn body_fails(&self, failure: BodyFailure) {
        self.body_failure.store(failure as u8, Relaxed);
    }

    /// How far the request's body has come.
    pub(super) fn body_is(&self, state: BodyState) {
        self.body.store(state as u8, Relaxed);
    }

    /// Whether there is more of the request's body to come.
    pub(super) fn body_is_open(&self) -> bool {
        self.body.load(Relaxed) != BodyState::Complete as u8
    }

    /// Why the request's body could not be read to its end.
    pub(super) fn body_failure(&self) -> Option<Kind> {
        match self.body_failure.load(Relaxed) {
            0 if self.is_expired() && self.body.load(Relaxed) == BodyState::Awaited as u8 => {
                Some(Kind::RequestTimeout)
            }
            0 => None,
            1 => Some(Kind::BodyTooLarge),
            2 => Some(Kind::RequestTimeout),
            4 => Some(Kind::Unauthenticated),
            5 => Some(Kind::Unavailable),
            _ => Some(Kind::BadRequest),
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

    /// A refusal is to be written, and then there is no further request.
    pub(super) fn refuses(&self) {
        self.rested.store(true, Relaxed);
        if self.phase() == Phase::Idle {
            self.due.store(now_millis() + self.idle, Relaxed);
        }
    }

    /// The client still sends.
    pub(super) fn lingers_on(&self, end: u64) {
        self.enter(Phase::Idle, (now_millis() + LINGER_MILLIS).min(end));
        // It waits for no request.
        self.rested.store(true, Relaxed);
    }

    /// Whether a request is being answered.
    pub(super) fn is_busy(&self) -> bool {
        matches!(self.phase(), Phase::Request | Phase::Response)
    }

    /// The guard waits for the end of this exchange.
    pub(super) fn hold(&self, cx: &Context<'_>) {
        self.holding.store(true, Relaxed);
        *lock(&self.reader) = Some(cx.waker().clone());
    }

    /// Whether the moment has come and gone without progress.
    pub(super) fn is_expired(&self) -> bool {
        self.expired.load(Relaxed)
    }

    /// The present moment, and the one by which something must move.
    pub(super) fn clock(&self) -> (u64, u64) {
        let due = self.due.load(Relaxed);
        let since = self.blocked_since.load(Relaxed);
        if since == 0 {
            return (now_millis(), due);
        }
        let left = self.drain.saturating_sub(self.blocked.load(Relaxed));
        (now_millis(), due.min(since + left))
    }

    /// The moment has come and gone.
    pub(super) fn expire(&self) {
        self.expired.store(true, Relaxed);
    }
}

/// Marks the end of an exchange when the response's body is dropped, however that comes about.
pub(super) struct EndOfResponse(pub(super) std::sync::Arc<Exchange>);

impl Drop for EndOfResponse {
    fn drop(&mut self) {
        self.0.response_ends();
    }
}
