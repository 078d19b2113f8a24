//! What a client sends on an HTTP/1.1 connection: heads, bodies, and the end.
//!
//! Each head must have one reading (RFC 9112; [`crate::types::framing`]), and each body is followed to its end, so that what
//! stands behind it is the next head and nothing else. Bytes are read when they are asked for: a client that sends ahead
//! waits in its socket.

use std::{
    cell::RefCell,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use tokio::time::Sleep;

use super::{
    activity::Activity,
    head::{Received, parse},
    interim::Interim,
    thread_bound::ThreadBound,
};
use crate::{
    error::Kind,
    stream::{LARGE_READ, SMALL_READ, Stream, traffic},
    types::{
        chunked::Chunked,
        fields::Fields,
        framing::{Framing, HeadError, HeadLimits, HeadScanner},
    },
};

/// The cost of a byte of a chunked body, relative to other bytes.
const CHUNKED_COST: usize = 8;

/// A chunk below this size, in bytes, may be one of thousands. Then a read is bounded to `SMALL_CHUNKS_AT_ONCE` bytes, which
/// take a tenth of a millisecond, so that other connections of the worker do not wait.
const SMALL_CHUNK: u64 = 1 << 10;
const SMALL_CHUNKS_AT_ONCE: usize = 8 << 10;

/// A read of so few bytes of a head brings a crumb. After a few in a row there is a pause before each, in which the kernel
/// does not tell of less than so many bytes: what costs a client a byte must not cost a wake-up here.
const CRUMB: usize = 16;
const MAX_CRUMBS: u8 = 16;
const CRUMB_PAUSE: Duration = Duration::from_millis(10);
const TOLD_IN_PAUSE: u16 = 4 << 10;

/// The end of a line (RFC 9112, section 2.2).
const LINE_END: &[u8] = b"\r\n";

/// The place of the next byte in the stream of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Head,
    Length(u64),
    Chunked(Chunked),
}

/// What a client sends, shared by what reads heads and what reads bodies; none once the socket is handed on.
pub(super) type SharedInbound = ThreadBound<RefCell<Option<Inbound>>>;

/// The bytes that a client sends, and its socket.
pub(super) struct Inbound {
    socket: Stream,
    limits: HeadLimits,
    /// Bytes that were read and not processed.
    received: BytesMut,
    scanner: HeadScanner,
    position: Position,
    /// Whether the client waits for `100 Continue` before it sends a body.
    expects: bool,
    /// Reads in a row that brought a crumb of a head, and the pause before the next one.
    crumbs: u8,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Inbound {
    /// Creates the state of a connection that waits for a head. `received` was read from the socket before.
    pub(super) fn new(socket: Stream, received: BytesMut, limits: HeadLimits) -> Self {
        Self {
            socket,
            limits,
            received,
            scanner: HeadScanner::default(),
            position: Position::Head,
            expects: false,
            crumbs: 0,
            pause: None,
        }
    }

    /// Returns the socket, to write to.
    pub(super) fn socket(&mut self) -> &mut Stream {
        &mut self.socket
    }

    /// Returns whether the last request has arrived completely.
    pub(super) fn is_between_requests(&self) -> bool {
        self.position == Position::Head
    }

    /// Returns whether nothing was read that begins a further request. Empty lines begin none (RFC 9112, section 2.2).
    pub(super) fn is_idle(&self) -> bool {
        self.received.iter().all(|byte| LINE_END.contains(byte))
    }

    /// Returns the length of the body that is still to arrive, or none if it is chunked.
    pub(super) fn left(&self) -> Option<u64> {
        match self.position {
            Position::Head => Some(0),
            Position::Length(left) => Some(left),
            Position::Chunked(_) => None,
        }
    }

    /// Returns the socket and the bytes that were read from it and not processed.
    pub(super) fn into_parts(mut self) -> (Stream, BytesMut) {
        self.ends_pause();
        (self.socket, self.received)
    }

    /// Drops empty lines before a request, so that a connection can rest.
    pub(super) fn drop_empty_lines(&mut self) {
        if self.is_idle() && self.received.ends_with(LINE_END) {
            self.received = BytesMut::new();
            self.scanner = HeadScanner::default();
        }
    }

    /// Drops what was received of a head that is refused. Returns whether its method is HEAD.
    pub(super) fn refuse(&mut self) -> bool {
        self.ends_pause();
        let received = std::mem::take(&mut self.received);
        let begin = received.iter().position(|byte| !LINE_END.contains(byte)).unwrap_or(received.len());
        received[begin..].starts_with(b"HEAD ")
    }

    /// Reads a head, the exchange before which is over. Returns none at the end of the stream.
    ///
    /// # Errors
    /// The refusal of the head, or the error of the socket.
    pub(super) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        activity: &Activity,
    ) -> Poll<io::Result<Result<Option<Received>, Kind>>> {
        loop {
            if activity.head_is_late() {
                return Poll::Ready(Ok(Err(Kind::RequestTimeout)));
            }
            if activity.budget.is_spent() {
                // The connection's task sees to it that it comes back.
                return Poll::Pending;
            }
            if !self.received.is_empty() {
                match self.scan() {
                    Ok(None) => {}
                    scanned => return Poll::Ready(Ok(scanned)),
                }
                if !self.is_idle() {
                    activity.head_begins();
                }
            }
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.ends_pause();
            }
            let length = ready!(self.poll_read(cx, SMALL_READ))?;
            if length == 0 {
                return Poll::Ready(Ok(Ok(None)));
            }
            activity.budget.spends(length);
            self.pauses(length);
        }
    }

    /// Looks for the end of the head in the received bytes.
    fn scan(&mut self) -> Result<Option<Received>, Kind> {
        let head = match self.scanner.request(&self.received, self.limits) {
            Ok(Some(head)) => head,
            Ok(None) => return Ok(None),
            Err(HeadError::Bad) => return Err(Kind::BadRequest),
            Err(HeadError::TooLarge) => return Err(Kind::HeadersTooLarge),
            Err(HeadError::Version) => return Err(Kind::VersionNotSupported),
        };
        self.scanner = HeadScanner::default();
        self.crumbs = 0;
        self.ends_pause();
        let bytes = self.received.split_to(head.length).freeze();
        self.frees();
        let request = parse(&bytes, &head).inspect_err(|_| self.received = BytesMut::from(&bytes[..]))?;
        self.position = match head.framing {
            Framing::None | Framing::Length(0) => Position::Head,
            Framing::Length(length) => Position::Length(length),
            Framing::Chunked => Position::Chunked(Chunked::new(false)),
        };
        self.expects = request.expects_continue;
        Ok(Some(request))
    }

    /// Lets the kernel tell of each byte again.
    fn ends_pause(&mut self) {
        if self.pause.take().is_some() {
            self.socket.is_readable_from(1);
        }
    }

    /// Counts small reads of a head. After a few in a row, the next reads are delayed.
    fn pauses(&mut self, length: usize) {
        if length > CRUMB {
            self.crumbs = 0;
            return;
        }
        self.crumbs = self.crumbs.saturating_add(1);
        if self.crumbs > MAX_CRUMBS {
            self.socket.is_readable_from(TOLD_IN_PAUSE);
            self.pause = Some(Box::pin(tokio::time::sleep(CRUMB_PAUSE)));
        }
    }

    /// Reads a part of the body. Returns none at its end. Trailers are dropped, so that no upstream reads them as headers.
    ///
    /// # Errors
    /// When the framing is broken, or the client breaks off.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        activity: &Activity,
    ) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            match self.decode() {
                Ok(data) if !data.is_empty() => return Poll::Ready(Some(Ok(data))),
                Ok(_) if self.position == Position::Head => return Poll::Ready(None),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            if activity.budget.is_spent() {
                return Poll::Pending;
            }
            if std::mem::take(&mut self.expects) {
                activity.hint(Interim { status: StatusCode::CONTINUE, fields: Fields::default() });
            }
            let (wanted, cost) = match &self.position {
                Position::Chunked(chunked) if chunked.left() < SMALL_CHUNK => {
                    (SMALL_CHUNKS_AT_ONCE, CHUNKED_COST)
                }
                Position::Chunked(_) => (LARGE_READ, CHUNKED_COST),
                Position::Length(left) => (usize::try_from(*left).unwrap_or(usize::MAX), 1),
                Position::Head => (SMALL_READ, 1),
            };
            match ready!(self.poll_read(cx, wanted)) {
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(length) => activity.budget.spends(length * cost),
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// Takes the received part of the body.
    fn decode(&mut self) -> io::Result<Bytes> {
        if self.received.is_empty() {
            return Ok(Bytes::new());
        }
        match &mut self.position {
            Position::Head => Ok(Bytes::new()),
            Position::Length(left) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(self.received.len());
                *left -= length as u64;
                if *left == 0 {
                    self.position = Position::Head;
                }
                let data = self.received.split_to(length).freeze();
                self.frees();
                Ok(data)
            }
            Position::Chunked(chunked) => {
                let mut data = BytesMut::with_capacity(self.received.len());
                let taken = chunked
                    .decode(&self.received, &mut data)
                    .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
                if chunked.is_done() {
                    self.position = Position::Head;
                }
                self.received.advance(taken);
                self.frees();
                Ok(data.freeze())
            }
        }
    }

    /// Gives back the buffer if nothing is left in it. A connection that waits keeps none.
    fn frees(&mut self) {
        if self.received.is_empty() {
            self.received = BytesMut::new();
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
        let read = self.socket.poll_receive(cx, &mut self.received, wanted);
        match read {
            Poll::Ready(Ok(length @ 1..)) => traffic::received(length),
            _ => self.frees(),
        }
        read
    }

    /// Returns an error once a client that has sent its whole request sends no more. Nothing is read.
    pub(super) fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        if self.is_between_requests() && self.received.is_empty() {
            self.socket.poll_end(cx)
        } else {
            Poll::Pending
        }
    }
}
