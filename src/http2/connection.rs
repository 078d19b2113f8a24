//! The task of a connection: it reads frames for the streams, and sends what they have put together.

use std::{
    collections::VecDeque,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    PREFACE,
    closing::{Ended, Phase, goaway},
    config::Config,
    floods::{Flood, Floods},
    frame::{self, Frame, Reader},
    head::Head,
    hpack::Decoder,
    reason::Reason,
    receive::Receiver,
    silence::Silence,
    state::{Failure, INITIAL_WINDOW, Opener, Role, Shared, State, wake_all},
    stream::Stream as HttpStream,
};
use crate::{clock::coarse_millis, config, stream::Stream, types::framing::HeadLimits};

/// The most bytes that are read at once, and in a turn of the worker.
const READ: usize = 64 << 10;
const TURN_BYTES: u64 = 64 << 10;

/// The longest header block that is taken beyond the list that it may become, in bytes: names and values may be repeated there
/// that are not taken.
const BLOCK_SLACK: usize = 64 << 10;

/// What a PING carries that asks whether the other side has seen that the connection ends.
const FAREWELL: [u8; 8] = *b"farewell";

/// How long a server may take nothing before others get what comes, in milliseconds.
const STUCK_MILLIS: u64 = 500;

/// What a server may do, which resets streams as it likes.
const OF_SERVERS: config::Http2Limits = config::Http2Limits {
    streams: 0,
    header_list: 0,
    resets: config::Rate { count: u32::MAX, per: Duration::from_secs(10) },
};

/// Settings (RFC 9113, section 6.5.2; RFC 8441, section 3).
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_HEADER_LIST_SIZE: u16 = 6;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// A connection.
#[derive(Debug)]
pub struct Connection {
    io: Stream,
    /// Bytes that were read before.
    early: BytesMut,
    /// The bytes of the preface that are still to come.
    preface: &'static [u8],
    is_greeted: bool,
    reader: Reader,
    decoder: Decoder,
    shared: Arc<Shared>,
    header_limits: HeadLimits,
    silence: Silence,
    streams: usize,
    floods: Floods,
    accepted: VecDeque<(Head, HttpStream)>,
    phase: Phase,
    ended: Option<Ended>,
    role: Role,
    /// The last stream that is taken, once the other side was told.
    announced: Option<u32>,
    /// What the other side had not acknowledged when nothing more could be sent, in bytes.
    held: usize,
    /// How much it had acknowledged when that was looked at last, in bytes.
    acknowledged: u64,
    /// The coarse time since when a header block has no end.
    block_since: Option<u64>,
    /// Bytes that were read in this turn.
    read: u64,
    /// The coarse time since when the other side takes nothing.
    blocked_since: Option<u64>,
    /// Tasks that are being woken.
    woken: Vec<Waker>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.accepted.clear();
        self.fail("it was given up");
    }
}

impl Connection {
    /// Begins to serve a client, of whose bytes `early` were read before.
    pub fn server(io: Stream, early: BytesMut, config: Config, limits: config::Http2Limits) -> Self {
        let settings = [
            (MAX_CONCURRENT_STREAMS, limits.streams),
            (INITIAL_WINDOW_SIZE, config.stream_window),
            (MAX_HEADER_LIST_SIZE, header_list(&config)),
            (ENABLE_CONNECT_PROTOCOL, 1),
        ];
        let mut connection = Self::new(io, Role::Server, config, &settings);
        connection.early = early;
        connection.preface = PREFACE;
        connection.streams = limits.streams as usize;
        connection.floods = Floods::new(limits, coarse_millis());
        connection
    }

    /// Begins to speak to a server.
    pub fn client(io: Stream, config: Config) -> (Self, Opener) {
        let settings = [
            (ENABLE_PUSH, 0),
            (INITIAL_WINDOW_SIZE, config.stream_window),
            (MAX_HEADER_LIST_SIZE, header_list(&config)),
        ];
        let connection = Self::new(io, Role::Client, config, &settings);
        let opener = Opener(connection.shared.clone());
        (connection, opener)
    }

    fn new(io: Stream, role: Role, config: Config, settings: &[(u16, u32)]) -> Self {
        let mut state = State::new(role, &config);
        if role == Role::Client {
            state.out.greet();
        }
        let out = state.out.frames();
        frame::write_head(out, settings.len() * 6, frame::SETTINGS, 0, 0);
        for (name, value) in settings {
            out.extend_from_slice(&name.to_be_bytes());
            out.extend_from_slice(&value.to_be_bytes());
        }
        let more = i64::from(config.connection_window) - INITIAL_WINDOW;
        if let Some(more) = u32::try_from(more).ok().filter(|more| *more > 0) {
            frame::write(out, frame::WINDOW_UPDATE, 0, 0, &more.to_be_bytes());
            state.receive_window = config.connection_window.into();
        }
        Self {
            io,
            early: BytesMut::new(),
            preface: b"",
            is_greeted: false,
            reader: Reader::new(config.header_limits.bytes + BLOCK_SLACK),
            decoder: match role {
                Role::Client => Decoder::of_many(),
                Role::Server => Decoder::new(),
            },
            shared: Shared::new(state),
            header_limits: config.header_limits,
            silence: Silence::new(config.silence),
            streams: 0,
            floods: Floods::new(OF_SERVERS, coarse_millis()),
            accepted: VecDeque::new(),
            phase: Phase::Open,
            ended: None,
            role,
            announced: None,
            held: 0,
            acknowledged: 0,
            block_since: None,
            read: 0,
            blocked_since: None,
            woken: Vec::new(),
        }
    }

    /// Returns how many bytes were sent since the connection began.
    pub fn sent(&self) -> u64 {
        self.shared.lock().out.sent()
    }

    /// Starts a turn.
    pub fn turn_begins(&mut self) {
        self.read = 0;
    }

    /// Returns the bytes that were read in this turn.
    pub fn read(&self) -> u64 {
        self.read
    }

    /// Returns whether the turn is over: nothing more is read before the next one.
    pub fn is_spent(&self) -> bool {
        self.read >= TURN_BYTES
    }

    /// Returns the coarse time since when the other side takes nothing of what is to be sent.
    pub fn blocked_since(&self) -> Option<u64> {
        self.blocked_since
    }

    /// Returns the coarse time since when a header block has no end.
    pub fn block_since(&self) -> Option<u64> {
        self.block_since
    }

    /// Returns whether nothing is left to say, or the other side does not deserve to be waited for.
    pub fn has_said_all(&self) -> bool {
        self.phase >= Phase::Lingering || matches!(self.ended, Some(Ended::Broken(_)))
    }

    /// Asks a server that leaves requests without a byte whether it is there. To be called about once a second.
    pub fn checks_silence(&mut self) {
        let now = coarse_millis();
        let unacknowledged = self.io.unacknowledged() as u64;
        let mut state = self.shared.lock();
        let acknowledged = state.out.sent().saturating_sub(unacknowledged);
        let takes = acknowledged > std::mem::replace(&mut self.acknowledged, acknowledged);
        state.is_stuck = self.blocked_since.is_some_and(|since| now.saturating_sub(since) >= STUCK_MILLIS);
        self.silence.check(&mut state, takes, now);
    }

    /// Resets requests that were answered and take too long to end. Returns whether there are streams, and the coarse time at which the
    /// next such request is reset.
    pub fn tidies(&mut self, now: u64) -> (bool, Option<u64>) {
        let mut state = self.shared.lock();
        let next = state.next_unfinished(now);
        (!state.slots.is_empty(), next)
    }

    /// Returns whether nothing more is read, and only what is left to say holds the connection.
    pub fn is_closing(&self) -> bool {
        self.phase >= Phase::Closing
    }

    /// Returns how many more streams may be opened, of which there are at most so many.
    pub fn room(&self, most: usize) -> usize {
        self.shared.lock().room(most)
    }

    /// Returns whether streams may be opened as the server has told, or no more ever.
    pub fn is_settled(&self) -> bool {
        let state = self.shared.lock();
        state.is_settled || state.is_going
    }

    /// Returns what the other side has flooded with.
    pub fn flood(&self) -> Option<Flood> {
        self.floods.found()
    }

    /// Returns why it has ended.
    pub fn ended(&mut self) -> Ended {
        self.ended.take().unwrap_or(Ended::Quietly)
    }

    /// Tells the client that the connection ends, in two steps (RFC 9113, section 6.8): what is on its way is still taken.
    pub fn graceful_shutdown(&mut self) {
        if self.phase == Phase::Open {
            self.phase = Phase::Told;
            let mut state = self.shared.lock();
            goaway(&mut state, i32::MAX as u32, Reason::NO_ERROR);
            frame::write(state.out.frames(), frame::PING, 0, 0, &FAREWELL);
        }
    }

    /// Takes no streams any more that come behind those that are there. Returns whether it did before.
    pub fn refuse_more(&mut self) -> bool {
        if self.phase > Phase::Told {
            return false;
        }
        self.phase = Phase::Leaving;
        let mut state = self.shared.lock();
        let last = state.last;
        goaway(&mut state, last, Reason::NO_ERROR);
        self.announced = Some(last);
        true
    }

    /// Returns whether the other side has begun to speak HTTP/2.
    pub fn is_greeted(&self) -> bool {
        self.is_greeted
    }

    /// Ends the connection with a reason that the other side is told.
    fn breaks(&mut self, reason: Reason) {
        if reason == Reason::ENHANCE_YOUR_CALM {
            // What no count has found is a block without an end.
            self.floods.finds(Flood::Continuations);
            self.io.narrows();
        }
        self.phase = Phase::Closing;
        self.ended = Some(Ended::Broken(reason));
        {
            let mut state = self.shared.lock();
            let last = if state.role == Role::Server { state.last } else { 0 };
            // It never grows (RFC 9113, section 6.8).
            goaway(&mut state, self.announced.map_or(last, |announced| announced.min(last)), reason);
        }
        self.fail("the other side broke the rules");
    }

    /// Ends all streams.
    fn fail(&mut self, text: &str) {
        let mut state = self.shared.lock();
        state.ends(&Failure::Lost(text.into()));
        std::mem::swap(&mut state.woken, &mut self.woken);
        drop(state);
        wake_all(&mut self.woken);
    }

    fn lost(&mut self, error: io::Error) {
        self.fail(&error.to_string());
        self.phase = Phase::Over;
        self.ended = Some(Ended::Lost(error));
    }

    /// Goes on, and returns the next request of a client. None at the end of the connection.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<(Head, HttpStream)>> {
        self.shared.lock().drives(cx);
        let is_client = self.role == Role::Client;
        loop {
            if let Some(accepted) = self.accepted.pop_front() {
                return Poll::Ready(Some(accepted));
            }
            match self.phase {
                Phase::Over => return Poll::Ready(None),
                // Who floods is not listened to; the time until the end lets it read why.
                Phase::Lingering if self.floods.found().is_some() => return Poll::Pending,
                Phase::Lingering => {
                    ready!(self.poll_discard(cx));
                    self.phase = Phase::Over;
                    continue;
                }
                _ => {}
            }
            // A client that takes nothing gets no more to take: heads are bound by no window.
            let is_full = !is_client && self.shared.lock().out.is_full();
            if self.phase < Phase::Closing && !is_full && self.poll_read(cx).is_ready() {
                continue;
            }
            let is_flushed = match self.poll_flush(cx) {
                Poll::Ready(Err(error)) => {
                    self.lost(error);
                    continue;
                }
                Poll::Ready(Ok(())) if is_full => continue,
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            if self.phase == Phase::Closing {
                // A server is not waited for.
                if !is_flushed && !is_client {
                    return Poll::Pending;
                }
                if is_flushed {
                    let polled = Pin::new(&mut self.io).poll_shutdown(cx);
                    self.notes_block(polled.is_pending(), false);
                    ready!(polled).ok();
                }
                self.phase = if is_client { Phase::Over } else { Phase::Lingering };
            } else if self.is_done() {
                self.phase = Phase::Closing;
            } else {
                if is_client && self.is_spent() {
                    // Others have their turn.
                    self.read = 0;
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        }
    }

    /// Returns whether there is nothing left to do on it.
    fn is_done(&self) -> bool {
        let state = self.shared.lock();
        let is_left = match state.role {
            Role::Client => state.is_left || state.is_going,
            Role::Server => self.phase == Phase::Leaving,
        };
        is_left && state.slots.is_empty()
    }

    /// Reads once, and takes what has come. Ready if there was something.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.is_spent() {
            return Poll::Pending;
        }
        if !self.early.is_empty() {
            let early = std::mem::take(&mut self.early);
            self.take(&early);
            return Poll::Ready(());
        }
        // A connection that waits keeps no buffer, and the stack lies in the processor's cache.
        let mut space = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        match ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer)) {
            Err(error) => self.lost(error),
            Ok(()) if buffer.filled().is_empty() => {
                self.fail("it was closed");
                self.phase = Phase::Over;
            }
            Ok(()) => self.take(buffer.filled()),
        }
        Poll::Ready(())
    }

    /// Drops what comes. Ready when nothing more does.
    fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while !self.is_spent() {
            let mut space = [MaybeUninit::uninit(); READ];
            let mut buffer = ReadBuf::uninit(&mut space);
            let read = ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(());
            }
            self.read += buffer.filled().len() as u64;
        }
        Poll::Pending
    }

    fn take(&mut self, mut bytes: &[u8]) {
        self.read += bytes.len() as u64;
        self.silence.ends();
        let preface = self.preface.len().min(bytes.len());
        if bytes[..preface] != self.preface[..preface] {
            return self.breaks(Reason::PROTOCOL_ERROR);
        }
        self.preface = &self.preface[preface..];
        bytes = &bytes[preface..];
        if let Err(reason) = self.take_frames(bytes) {
            self.breaks(reason);
        }
    }

    fn take_frames(&mut self, mut bytes: &[u8]) -> Result<(), Reason> {
        let shared = self.shared.clone();
        let mut state = shared.lock();
        let accepted = &mut self.accepted;
        let mut accept = |head, key, id| accepted.push_back((head, HttpStream::new(shared.clone(), key, id)));
        let mut receiver = Receiver {
            state: &mut state,
            decoder: &mut self.decoder,
            floods: &mut self.floods,
            header_limits: self.header_limits,
            streams: self.streams,
            refuses: self.phase >= Phase::Leaving,
            now: coarse_millis(),
            accepted: &mut accept,
        };
        let mut result = Ok(());
        let mut is_seen = false;
        while result.is_ok() {
            let frame = match self.reader.next(&mut bytes) {
                Ok(Some(frame)) => frame,
                Ok(None) => break,
                Err(reason) => {
                    result = Err(reason);
                    break;
                }
            };
            if !self.is_greeted && !matches!(frame, Frame::Settings { .. }) {
                result = Err(Reason::PROTOCOL_ERROR);
                break;
            }
            self.is_greeted = true;
            is_seen |= matches!(frame, Frame::Pong { data: FAREWELL });
            result = receiver.take(frame);
        }
        state.waits_since = (state.live > 0).then(coarse_millis);
        std::mem::swap(&mut state.woken, &mut self.woken);
        drop(state);
        wake_all(&mut self.woken);
        self.block_since =
            if self.reader.is_in_block() { self.block_since.or_else(|| Some(coarse_millis())) } else { None };
        if is_seen && self.phase == Phase::Told {
            self.refuse_more();
        }
        result
    }

    /// Frees what a connection without streams does not need.
    fn rest(&mut self) {
        let mut state = self.shared.lock();
        if !state.slots.is_empty() {
            return;
        }
        state.rest();
        self.reader.rest();
        if self.accepted.is_empty() {
            self.accepted = VecDeque::new();
        }
    }

    /// Sends what there is.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        let is_empty = state.out.is_empty();
        let (has_moved, mut polled) =
            if is_empty { (false, Poll::Ready(Ok(()))) } else { state.out.poll_flush(&mut self.io, cx) };
        if has_moved {
            state.wake_blocked();
        }
        std::mem::swap(&mut state.woken, &mut self.woken);
        drop(state);
        wake_all(&mut self.woken);
        if is_empty && self.io.holds_back() {
            polled = Pin::new(&mut self.io).poll_flush(cx);
        }
        self.notes_block(polled.is_pending(), has_moved);
        if polled.is_ready() {
            self.rest();
        }
        polled
    }

    /// Takes note of whether the other side takes what is to be sent. `has_moved` tells that it has taken something.
    fn notes_block(&mut self, is_blocked: bool, has_moved: bool) {
        if !is_blocked {
            self.blocked_since = None;
            return;
        }
        let held = self.io.unacknowledged();
        if has_moved || held != std::mem::replace(&mut self.held, held) {
            self.blocked_since = Some(coarse_millis());
        } else {
            self.blocked_since.get_or_insert_with(coarse_millis);
        }
    }
}

fn header_list(config: &Config) -> u32 {
    u32::try_from(config.header_limits.bytes).unwrap_or(u32::MAX)
}
