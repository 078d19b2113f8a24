//! What the task of a connection and the tasks of its streams share.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

use bytes::BytesMut;
use foldhash::fast::RandomState;
use http::StatusCode;
use slab::Slab;
use thiserror::Error;

use super::{config::Config, frame, hpack::encoder::NO_TABLE, outgoing::Outgoing, reason::Reason};
use crate::{clock::coarse_millis, types::fields::Fields};

/// The window that a peer assumes that was told nothing else, in bytes (RFC 9113, section 6.9.2).
pub(super) const INITIAL_WINDOW: i64 = 65_535;

/// The largest window, in bytes.
pub(super) const MAX_WINDOW: i64 = i32::MAX as i64;

/// The streams that a server gets at once before it has told how many it takes.
const FIRST_STREAMS: usize = 8;

/// How often a server may be asked whether it is there without a part of a message between: gRPC's end the connection of those
/// that ask a third time (gRPC proposal A8).
const ASKS: u8 = 2;

/// How many requests that were answered before their end may go on to it, and for how long, in milliseconds.
const MOST_UNFINISHED: usize = 32;
const UNFINISHED_FOR: u64 = 1_000;

/// Why a stream has ended before its end. The text is for the log.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Failure {
    /// The other side has reset it.
    #[error("the stream was reset: {0}")]
    Reset(Reason),
    /// The other side has not processed it, and will not.
    #[error("the stream was refused")]
    Refused,
    /// What came on it is no message.
    #[error("{0}")]
    Malformed(&'static str),
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    Lost(Arc<str>),
}

/// Which side of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Client,
    Server,
}

/// A stream that somebody uses.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: u32,
    /// Heads of responses that were not read, the final one last.
    pub(super) heads: Vec<(StatusCode, Fields)>,
    pub(super) interim: u8,
    pub(super) has_head: bool,
    /// Whether no body belongs to the response, whatever length is told.
    pub(super) is_bodiless: bool,
    /// What has come of the body and was not read, and the trailers.
    pub(super) data: BytesMut,
    pub(super) trailers: Option<Fields>,
    /// The bytes that are still to come, if a length was told.
    pub(super) expected: Option<u64>,
    pub(super) has_received_end: bool,
    pub(super) has_sent_end: bool,
    pub(super) failure: Option<Failure>,
    /// Whether this side has reset it.
    pub(super) is_reset: bool,
    /// Whether it is counted among those that are open at once.
    pub(super) is_counted: bool,
    /// What may be sent, and what may come, in bytes.
    pub(super) send_window: i64,
    pub(super) receive_window: i64,
    /// Bytes that were read last, and those that were passed on, for which the other side got no room yet.
    pub(super) taken: u32,
    pub(super) owed: u32,
    /// How wide its window is to be: the wider the more was read.
    pub(super) wanted: i64,
    /// The place of its head among what is sent.
    pub(super) opened_at: u64,
    /// Whether it is among those that wait for room.
    pub(super) is_blocked: bool,
    pub(super) waker: Option<Waker>,
}

/// What both sides of a connection have told each other, and the streams on it.
#[derive(Debug)]
pub(super) struct State {
    pub(super) role: Role,
    pub(super) out: Outgoing,
    driver: Option<Waker>,
    is_woken: bool,
    pub(super) slots: Slab<Slot>,
    pub(super) ids: HashMap<u32, usize, RandomState>,
    /// The last stream that was opened.
    pub(super) last: u32,
    /// How many streams are open.
    pub(super) live: usize,
    /// What the other side allows: streams at once, and the window of a new one.
    pub(super) max_streams: usize,
    pub(super) peer_window: i64,
    /// The window of the connection both ways, and what was read of it.
    pub(super) send_window: i64,
    pub(super) receive_window: i64,
    pub(super) owed: u32,
    /// The windows that this side gives, in bytes: that of a new stream, of one that is read, and of the connection.
    pub(super) stream_window: i64,
    pub(super) max_stream_window: i64,
    pub(super) connection_window: i64,
    /// Streams that wait for room.
    pub(super) blocked: Vec<(usize, u32)>,
    /// Tasks to wake once the lock is free.
    pub(super) woken: Vec<Waker>,
    /// Why no stream goes on.
    pub(super) ended: Option<Failure>,
    /// Whether the other side takes no more streams.
    pub(super) is_going: bool,
    /// Whether nobody opens streams any more.
    pub(super) is_left: bool,
    /// Whether the first settings of the other side have come.
    pub(super) is_settled: bool,
    /// The coarse time since when a request is open without a byte from the other side.
    pub(super) waits_since: Option<u64>,
    /// How often the other side may be asked whether it is there until a part of a message comes.
    pub(super) asks_left: u8,
    /// Whether the other side has taken nothing for a while.
    pub(super) is_stuck: bool,
    /// Parts of messages that were sent, for each of which the other side may ask how long they took, and say something when they
    /// are over.
    pub(super) pings_granted: u32,
    pub(super) words_granted: u32,
    /// How often it may still give room for what it got.
    pub(super) updates_granted: u32,
    /// Bytes of bodies that may still come on streams that this side has ended.
    late_granted: u64,
    /// Streams whose requests were answered and have not ended, and the coarse time at which they are reset.
    unfinished: VecDeque<(u32, u64)>,
    /// Whether the other side keeps fewer lines in its table than it did, and was not told that none are needed; and whether it
    /// was told.
    pub(super) must_resize: bool,
    pub(super) has_resized: bool,
}

/// A connection as its streams and its task share it.
#[derive(Debug)]
pub(super) struct Shared(Mutex<State>);

impl Shared {
    pub(super) fn new(state: State) -> Arc<Self> {
        Arc::new(Self(Mutex::new(state)))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(super) fn new(role: Role, config: &Config) -> Self {
        Self {
            role,
            out: Outgoing::default(),
            driver: None,
            is_woken: false,
            slots: Slab::new(),
            ids: HashMap::default(),
            last: 0,
            live: 0,
            max_streams: FIRST_STREAMS,
            peer_window: INITIAL_WINDOW,
            send_window: INITIAL_WINDOW,
            receive_window: INITIAL_WINDOW,
            owed: 0,
            stream_window: config.stream_window.into(),
            max_stream_window: config.max_stream_window.into(),
            connection_window: config.connection_window.into(),
            blocked: Vec::new(),
            woken: Vec::new(),
            ended: None,
            is_going: false,
            is_left: false,
            is_settled: false,
            waits_since: None,
            asks_left: ASKS,
            is_stuck: false,
            pings_granted: 0,
            words_granted: 0,
            updates_granted: 0,
            late_granted: 0,
            unfinished: VecDeque::new(),
            must_resize: false,
            has_resized: false,
        }
    }

    /// Notes who drives the connection, and that it does so now.
    pub(super) fn drives(&mut self, cx: &Context<'_>) {
        self.is_woken = false;
        if !self.driver.as_ref().is_some_and(|driver| driver.will_wake(cx.waker())) {
            self.driver = Some(cx.waker().clone());
        }
    }

    /// Wakes the task that drives the connection: there is something to send.
    pub(super) fn wake_driver(&mut self) {
        if !std::mem::replace(&mut self.is_woken, true)
            && let Some(driver) = &self.driver
        {
            driver.wake_by_ref();
        }
    }

    /// Returns the slot of a stream, unless another has it by now.
    pub(super) fn slot(&mut self, key: usize, id: u32) -> Option<&mut Slot> {
        self.slots.get_mut(key).filter(|slot| slot.id == id)
    }

    /// Opens a stream.
    pub(super) fn insert(&mut self, id: u32) -> usize {
        self.live += 1;
        let key = self.slots.insert(Slot {
            id,
            heads: Vec::new(),
            interim: 0,
            has_head: false,
            is_bodiless: false,
            data: BytesMut::new(),
            trailers: None,
            expected: None,
            has_received_end: false,
            has_sent_end: false,
            failure: None,
            is_reset: false,
            is_counted: true,
            send_window: self.peer_window,
            receive_window: self.stream_window,
            taken: 0,
            owed: 0,
            wanted: self.stream_window,
            opened_at: self.out.end(),
            is_blocked: false,
            waker: None,
        });
        self.ids.insert(id, key);
        key
    }

    /// Lets the task of a stream be woken.
    pub(super) fn wake(&mut self, key: usize) {
        if let Some(waker) = self.slots.get_mut(key).and_then(|slot| slot.waker.take()) {
            self.woken.push(waker);
        }
    }

    /// Lets those be woken that wait for room.
    pub(super) fn wake_blocked(&mut self) {
        for (key, id) in std::mem::take(&mut self.blocked) {
            if let Some(slot) = self.slot(key, id) {
                slot.is_blocked = false;
                self.wake(key);
            }
        }
    }

    /// Writes the header block of a stream.
    pub(super) fn send_block(&mut self, id: u32, ends: bool, encode: impl FnOnce(&mut Vec<u8>)) {
        self.grants();
        let resizes = std::mem::take(&mut self.must_resize);
        self.has_resized |= resizes;
        frame::write_block(self.out.frames(), id, ends, frame::MAX_LENGTH, |out| {
            if resizes {
                out.push(NO_TABLE);
            }
            encode(out);
        });
    }

    /// Gives the other side room on a stream for what was read. What is read on and on gets more room.
    pub(super) fn releases(&mut self, key: usize, length: u32) {
        let most = self.max_stream_window;
        let Some(slot) = self.slots.get_mut(key) else { return };
        slot.owed += length;
        if i64::from(slot.owed) >= slot.wanted / 2 && !slot.has_received_end && slot.failure.is_none() {
            let wanted = (slot.wanted * 2).min(most).max(slot.wanted);
            // Windows have 31 bits.
            let by = std::mem::take(&mut slot.owed) + (wanted - slot.wanted) as u32;
            slot.wanted = wanted;
            slot.receive_window += i64::from(by);
            let id = slot.id;
            self.send_number(frame::WINDOW_UPDATE, id, by);
        }
    }

    /// Takes note of a part of a message that is sent: it may be answered by a PING, as clients do that measure the way, and by a
    /// word on a stream that is over by then. Whoever reads it bit by bit may give room as often.
    pub(super) fn grants(&mut self) {
        const MOST: u32 = 10_000;
        const BITS: u32 = 16;
        self.updates_granted = (self.updates_granted + BITS).min(BITS * MOST);
        self.pings_granted = (self.pings_granted + 1).min(MOST);
        self.words_granted = (self.words_granted + 1).min(MOST);
    }

    /// Returns how many more streams may be opened, of which there are at most so many.
    pub(super) fn room(&self, most: usize) -> usize {
        let takes_more = !self.is_going && !self.is_stuck && !self.out.is_full();
        if takes_more { self.max_streams.min(most).saturating_sub(self.live) } else { 0 }
    }

    /// Takes note of a part of a message that has come.
    pub(super) fn hears(&mut self) {
        self.asks_left = ASKS;
    }

    /// Returns whether what comes on a stream that is over was on its way before the other side knew.
    pub(super) fn takes_late(&mut self, length: u32) -> bool {
        let left = self.late_granted.checked_sub(length.into());
        self.late_granted = left.unwrap_or_default();
        left.is_some()
    }

    /// Frees what a connection without streams does not need.
    pub(super) fn rest(&mut self) {
        const KEPT: usize = 8;
        self.out.rest();
        if self.slots.capacity() > KEPT {
            self.slots = Slab::new();
            self.ids = HashMap::default();
        }
        self.blocked = Vec::new();
        if self.woken.capacity() > KEPT {
            self.woken = Vec::new();
        }
    }

    /// Gives the other side room on the connection.
    pub(super) fn credits(&mut self, length: u32) {
        self.owed += length;
        if i64::from(self.owed) >= self.connection_window / 2 && self.ended.is_none() {
            let by = std::mem::take(&mut self.owed);
            self.receive_window += i64::from(by);
            self.send_number(frame::WINDOW_UPDATE, 0, by);
        }
    }

    /// Writes a frame that carries a number.
    pub(super) fn send_number(&mut self, kind: u8, stream: u32, number: u32) {
        self.out.reply(kind, 0, stream, &number.to_be_bytes());
        self.wake_driver();
    }

    /// Notes that a stream has failed, and lets its task be woken.
    pub(super) fn fails(&mut self, key: usize, failure: Failure) {
        if let Some(slot) = self.slots.get_mut(key) {
            slot.failure.get_or_insert(failure);
        }
        self.uncount(key);
        self.wake(key);
    }

    /// Resets a stream. What of it was not sent yet never is.
    pub(super) fn resets(&mut self, key: usize, reason: Reason) {
        let Some(slot) = self.slots.get_mut(key) else { return };
        let is_over = slot.has_sent_end && slot.has_received_end;
        let is_gone = slot.failure.is_some();
        if std::mem::replace(&mut slot.is_reset, true) || is_gone || is_over || self.ended.is_some() {
            return;
        }
        let (id, opened_at) = (slot.id, slot.opened_at);
        // A server never hears of a request of which nothing was sent.
        let is_unknown = self.role == Role::Client && self.out.is_unsent(opened_at);
        if reason != Reason::NO_ERROR {
            let purged = self.out.purge(id, is_unknown);
            self.send_window += purged.body as i64;
            // What told that no lines are needed went with the head.
            self.must_resize |= purged.resize;
            if purged.body > 0 {
                self.wake_blocked();
            }
        }
        if is_unknown {
            self.wake_driver();
        } else {
            self.send_number(frame::RST_STREAM, id, reason.0);
        }
        self.uncount(key);
    }

    /// Counts a stream no longer that is over.
    pub(super) fn uncount(&mut self, key: usize) {
        if let Some(slot) = self.slots.get_mut(key)
            && std::mem::take(&mut slot.is_counted)
        {
            self.live -= 1;
        }
    }

    /// Counts a stream no longer if both sides have said all.
    pub(super) fn uncount_if_over(&mut self, key: usize) {
        if self.slots.get(key).is_some_and(|slot| slot.has_sent_end && slot.has_received_end) {
            self.uncount(key);
        }
    }

    /// Lets a request that was answered come to its end, of which nothing is kept. A client that is reset as it begins to send may lose
    /// the response (curl 7.88 does), although it is whole (RFC 9113, section 8.1).
    fn awaits_end(&mut self, id: u32) {
        if self.ended.is_some() {
            return;
        }
        self.unfinished.push_back((id, coarse_millis() + UNFINISHED_FOR));
        if self.unfinished.len() > MOST_UNFINISHED {
            self.resets_first_unfinished();
        }
        // The one who drives waits for the time.
        self.wake_driver();
    }

    fn resets_first_unfinished(&mut self) {
        if let Some((id, _)) = self.unfinished.pop_front() {
            self.send_number(frame::RST_STREAM, id, Reason::NO_ERROR.0);
        }
    }

    /// Notes that a client has said all on a stream, or has reset it.
    pub(super) fn finishes(&mut self, id: u32) {
        self.unfinished.retain(|(unfinished, _)| *unfinished != id);
    }

    /// Resets the streams whose time is over at `now`, and returns the coarse time at which the next one's is.
    pub(super) fn next_unfinished(&mut self, now: u64) -> Option<u64> {
        while self.unfinished.front().is_some_and(|(_, due)| *due <= now) {
            self.resets_first_unfinished();
        }
        self.unfinished.front().map(|(_, due)| *due)
    }

    /// Forgets a stream that nobody uses any more.
    pub(super) fn leaves(&mut self, key: usize) {
        let role = self.role;
        let Some(slot) = self.slots.get(key) else { return };
        let is_whole = slot.failure.is_none() && !slot.is_reset && !slot.has_received_end;
        match role {
            Role::Server if slot.has_sent_end && is_whole => {
                let id = slot.id;
                self.awaits_end(id);
            }
            Role::Server if slot.has_sent_end => self.resets(key, Reason::NO_ERROR),
            Role::Server => self.resets(key, Reason::INTERNAL_ERROR),
            Role::Client => self.resets(key, Reason::CANCEL),
        }
        self.uncount(key);
        let slot = self.slots.remove(key);
        self.ids.remove(&slot.id);
        if role == Role::Server {
            self.credits(slot.data.len() as u32 + slot.taken);
            if !slot.has_received_end {
                self.late_granted += slot.receive_window.max(0).unsigned_abs();
            }
        }
        if self.slots.is_empty() && (self.is_left || self.is_going || role == Role::Server) {
            self.wake_driver();
        }
    }

    /// Ends all streams.
    pub(super) fn ends(&mut self, failure: &Failure) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(failure.clone());
        self.is_going = true;
        let keys: Vec<_> = self.slots.iter().map(|(key, _)| key).collect();
        for key in keys {
            self.fails(key, failure.clone());
        }
    }
}

/// Wakes tasks, which must not happen under the lock.
pub(super) fn wake_all(woken: &mut Vec<Waker>) {
    woken.drain(..).for_each(Waker::wake);
}

/// Opens streams on a connection to a server. When it is dropped, the connection ends with its last stream.
#[derive(Debug)]
pub struct Opener(pub(super) Arc<Shared>);

impl Drop for Opener {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.is_left = true;
        state.wake_driver();
    }
}
