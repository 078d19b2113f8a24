//! The task of a connection: it reads frames for the streams, and sends what they have put together.

use std::{
    collections::VecDeque,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    PREFACE,
    floods::{Flood, Floods},
    frame::{self, Frame, Reader},
    head::Head,
    hpack::Decoder,
    reason::Reason,
    receive::Receiver,
    state::{Failure, INITIAL_WINDOW, Opener, Role, Shared, State, wake_all},
    stream::Stream as HttpStream,
};
use crate::{clock::coarse_millis, config, stream::Stream};

/// The most bytes that are read at once, and in a turn of the worker.
const READ: usize = 64 << 10;
const TURN_BYTES: u64 = 64 << 10;

/// The longest header block that is taken beyond the list that it may become, in bytes: names and values may be repeated there
/// that are not taken.
const BLOCK_SLACK: usize = 64 << 10;

/// What a PING carries that asks whether the other side has seen that the connection ends.
const FAREWELL: [u8; 8] = *b"farewell";

/// Settings (RFC 9113, section 6.5.2; RFC 8441, section 3).
const ENABLE_PUSH: u16 = 2;
const MAX_CONCURRENT_STREAMS: u16 = 3;
const INITIAL_WINDOW_SIZE: u16 = 4;
const MAX_HEADER_LIST_SIZE: u16 = 6;
const ENABLE_CONNECT_PROTOCOL: u16 = 8;

/// What one side of a connection allows the other.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The window of a stream, in bytes.
    pub stream_window: u32,
    /// The window of the connection, in bytes.
    pub connection_window: u32,
    /// The largest list of header lines, in bytes (RFC 9113, section 6.5.2).
    pub header_list: u32,
}

/// Why a connection has ended. The text is for the log.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// Nothing was wrong.
    #[error("it came to its end")]
    Quietly,
    /// The other side broke the rules.
    #[error("the other side broke the rules: {0}")]
    Broken(Reason),
    /// The socket failed.
    #[error(transparent)]
    Lost(#[from] io::Error),
}

/// How far a connection has come on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Open,
    /// The other side was told that it ends, and what is on its way is still taken.
    Told,
    /// Nothing new is taken.
    Leaving,
    /// What is left to send is sent, then it is closed.
    Closing,
    Over,
}

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
    header_list: usize,
    streams: usize,
    floods: Option<Floods>,
    accepted: VecDeque<(Head, HttpStream)>,
    phase: Phase,
    ended: Option<Ended>,
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
        let floods = Floods::new(limits, coarse_millis());
        let settings = [
            (MAX_CONCURRENT_STREAMS, limits.streams),
            (INITIAL_WINDOW_SIZE, config.stream_window),
            (MAX_HEADER_LIST_SIZE, config.header_list),
            (ENABLE_CONNECT_PROTOCOL, 1),
        ];
        let mut connection = Self::new(io, Role::Server, config, &settings);
        connection.early = early;
        connection.preface = PREFACE;
        connection.streams = limits.streams as usize;
        connection.floods = Some(floods);
        connection
    }

    /// Begins to speak to a server.
    pub fn client(io: Stream, config: Config) -> (Self, Opener) {
        let settings = [
            (ENABLE_PUSH, 0),
            (INITIAL_WINDOW_SIZE, config.stream_window),
            (MAX_HEADER_LIST_SIZE, config.header_list),
        ];
        let connection = Self::new(io, Role::Client, config, &settings);
        let opener = Opener(connection.shared.clone());
        (connection, opener)
    }

    fn new(io: Stream, role: Role, config: Config, settings: &[(u16, u32)]) -> Self {
        let mut state = State::new(role, config.stream_window, config.connection_window);
        let out = state.out.frames();
        if role == Role::Client {
            out.extend_from_slice(PREFACE);
        }
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
        let header_list = config.header_list as usize;
        Self {
            io,
            early: BytesMut::new(),
            preface: b"",
            is_greeted: false,
            reader: Reader::new(header_list + BLOCK_SLACK),
            decoder: Decoder::new(),
            shared: Shared::new(state),
            header_list,
            streams: 0,
            floods: None,
            accepted: VecDeque::new(),
            phase: Phase::Open,
            ended: None,
            read: 0,
            blocked_since: None,
            woken: Vec::new(),
        }
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

    /// Returns whether there are streams.
    pub fn has_streams(&self) -> bool {
        !self.shared.lock().slots.is_empty()
    }

    /// Returns whether nothing more is read, and only what is left to say holds the connection.
    pub fn is_closing(&self) -> bool {
        self.phase >= Phase::Closing
    }

    /// Returns what the other side has flooded with.
    pub fn flood(&self) -> Option<Flood> {
        self.floods.as_ref().and_then(Floods::found)
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
        true
    }

    /// Returns whether the other side has begun to speak HTTP/2.
    pub fn is_greeted(&self) -> bool {
        self.is_greeted
    }

    /// Ends the connection with a reason that the other side is told.
    fn breaks(&mut self, reason: Reason) {
        if reason == Reason::ENHANCE_YOUR_CALM
            && let Some(floods) = &mut self.floods
        {
            // What no count has found is a block without an end.
            floods.finds(Flood::Continuations);
        }
        self.phase = Phase::Closing;
        self.ended = Some(Ended::Broken(reason));
        {
            let mut state = self.shared.lock();
            let last = if state.role == Role::Server { state.last } else { 0 };
            goaway(&mut state, last, reason);
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
        let is_client = self.floods.is_none();
        loop {
            if let Some(accepted) = self.accepted.pop_front() {
                return Poll::Ready(Some(accepted));
            }
            if self.phase == Phase::Over {
                return Poll::Ready(None);
            }
            if self.phase < Phase::Closing && self.poll_read(cx).is_ready() {
                continue;
            }
            let is_flushed = match self.poll_flush(cx) {
                Poll::Ready(Err(error)) => {
                    self.lost(error);
                    continue;
                }
                Poll::Ready(Ok(())) => true,
                Poll::Pending => false,
            };
            if self.phase == Phase::Closing {
                // A server is not waited for.
                if !is_flushed && !is_client {
                    return Poll::Pending;
                }
                if is_flushed {
                    ready!(Pin::new(&mut self.io).poll_shutdown(cx)).ok();
                }
                self.phase = Phase::Over;
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

    fn take(&mut self, mut bytes: &[u8]) {
        self.read += bytes.len() as u64;
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
            floods: self.floods.as_mut(),
            header_list: self.header_list,
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
        std::mem::swap(&mut state.woken, &mut self.woken);
        drop(state);
        wake_all(&mut self.woken);
        if is_seen && self.phase == Phase::Told {
            self.refuse_more();
        }
        result
    }

    /// Sends what there is.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.shared.lock();
        if state.out.is_empty() {
            if state.slots.is_empty() {
                state.out.rest();
            }
            drop(state);
            self.blocked_since = None;
            return if self.io.holds_back() {
                Pin::new(&mut self.io).poll_flush(cx)
            } else {
                Poll::Ready(Ok(()))
            };
        }
        let (has_moved, polled) = state.out.poll_flush(&mut self.io, cx);
        if has_moved {
            self.blocked_since = None;
            if !state.blocked.is_empty() {
                state.wake_blocked();
                std::mem::swap(&mut state.woken, &mut self.woken);
                drop(state);
                wake_all(&mut self.woken);
            }
        }
        if polled.is_pending() {
            self.blocked_since.get_or_insert_with(coarse_millis);
        }
        polled
    }
}

fn goaway(state: &mut State, last: u32, reason: Reason) {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&last.to_be_bytes());
    payload[4..].copy_from_slice(&reason.0.to_be_bytes());
    frame::write(state.out.frames(), frame::GOAWAY, 0, 0, &payload);
}
