//! Between the socket and the HTTP library: no byte reaches the library that two parsers could
//! read in two ways.
//!
//! The guard looks at each head, follows the framing of each body, and hands the next head over
//! only when the exchange before it is over. It responds to refused heads itself, in order, after
//! the responses that are still being written; the library then sees the end of the stream.

mod read;
mod write;

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use hyper::rt;
use tokio::time::Sleep;

use super::{activity::Activity, exchange::BodyFailure, record, refusal, state::ConnectionState};
use crate::{
    error::Kind,
    stream::Stream,
    types::{
        chunked::{ChunkError, Chunked},
        framing::{Framing, HeadError, HeadLimits, HeadScanner},
    },
};

/// The cost of a byte of a chunked body, relative to other bytes.
const CHUNKED_COST: usize = 8;

/// A chunk below this size, in bytes, may be one of thousands. Then a read is bounded to `SMALL_CHUNKS_AT_ONCE` bytes, which
/// take a tenth of a millisecond, so that other connections of the worker do not wait.
const SMALL_CHUNK: u64 = 1 << 10;
const SMALL_CHUNKS_AT_ONCE: usize = 8 << 10;

/// A read of so few bytes of a head brings a crumb. After a few in a row there is a pause before each: what costs a
/// client a byte must not cost a wake-up here.
const CRUMB: usize = 16;
const MAX_CRUMBS: u8 = 16;
const CRUMB_PAUSE: Duration = Duration::from_millis(10);

/// Where in the stream of requests the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Head,
    Length(u64),
    /// In a chunked body. It is decoded here and handed over in chunks as large as what was read at once: a body
    /// in small pieces costs no more than one in large ones, and neither extensions nor trailers get any further.
    Chunked(Chunked),
}

/// The verdict on a run of bytes.
enum Judged {
    /// This many bytes are valid, perhaps none.
    Good(usize),
    /// This many bytes were decoded.
    Decoded(usize),
    /// The head or chunk is refused.
    Bad(Kind),
}

/// A refusal to be written.
enum PendingRefusal {
    /// A response that is still to be written.
    Response(Bytes),
    /// The service responds, if a request is in progress.
    Silent,
}

/// The guarded stream.
pub(super) struct Guard {
    io: Stream,
    state: Arc<ConnectionState>,
    limits: HeadLimits,
    /// Bytes that were read and not handed over yet.
    held: BytesMut,
    /// How many of them are known to be good.
    good: usize,
    /// The decoded part of a chunked body, to be handed over before `held`.
    decoded: BytesMut,
    scanner: HeadScanner,
    position: Position,
    /// Reads in a row that brought a crumb of a head, and the pause before the next one.
    crumbs: u8,
    pause: Option<Pin<Box<Sleep>>>,
    /// The rest of an interim response that is being written.
    hint: Bytes,
    refusal: Option<PendingRefusal>,
    end: StreamEnd,
}

/// How far the stream has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamEnd {
    /// Not at all.
    Open,
    /// The client sends no more.
    Read,
    /// We send no more, and drop what the client still sends, until a moment of the exchange's.
    Lingering(u64),
}

impl Guard {
    /// Guards a socket; `early` was read from it before.
    pub(super) fn new(io: Stream, early: BytesMut, state: Arc<ConnectionState>, limits: HeadLimits) -> Self {
        Self {
            io,
            state,
            limits,
            held: early,
            good: 0,
            decoded: BytesMut::new(),
            scanner: HeadScanner::default(),
            position: Position::Head,
            crumbs: 0,
            pause: None,
            hint: Bytes::new(),
            refusal: None,
            end: StreamEnd::Open,
        }
    }

    fn activity(&self) -> &Activity {
        &self.state.activity
    }

    /// Checks the beginning of `bytes` and advances the position over valid bytes.
    ///
    /// A head is handed over alone: after what precedes it, and after the exchange before it. A chunked body
    /// begins in a call of its own, which decodes it.
    fn judge(&mut self, bytes: &[u8]) -> Judged {
        let mut good = 0;
        while good < bytes.len() {
            let rest = &bytes[good..];
            match self.position {
                Position::Head if good > 0 || self.must_wait() => break,
                Position::Chunked(_) if good > 0 => break,
                Position::Head => match self.scanner.request(rest, self.limits) {
                    Ok(Some(head)) => {
                        good += head.length;
                        self.scanner = HeadScanner::default();
                        self.position = match head.framing {
                            Framing::None | Framing::Length(0) => Position::Head,
                            Framing::Length(length) => Position::Length(length),
                            Framing::Chunked => Position::Chunked(Chunked::new(false)),
                        };
                        self.activity().head_released();
                    }
                    Ok(None) => {
                        // An empty line before a request (RFC 9112, section 2.2) begins none.
                        if rest.iter().any(|byte| !b"\r\n".contains(byte)) {
                            self.activity().head_begins();
                        }
                        break;
                    }
                    Err(HeadError::Bad) => return Judged::Bad(Kind::BadRequest),
                    Err(HeadError::TooLarge) => return Judged::Bad(Kind::HeadersTooLarge),
                    Err(HeadError::Version) => return Judged::Bad(Kind::VersionNotSupported),
                },
                Position::Length(left) => {
                    let run = left.min(rest.len() as u64);
                    good += run as usize;
                    self.position = if run == left { Position::Head } else { Position::Length(left - run) };
                }
                Position::Chunked(mut chunked) => match chunked.decode(rest, &mut self.decoded) {
                    Ok(taken) => {
                        self.position =
                            if chunked.is_done() { Position::Head } else { Position::Chunked(chunked) };
                        return Judged::Decoded(taken);
                    }
                    Err(ChunkError) => return Judged::Bad(Kind::BadRequest),
                },
            }
        }
        Judged::Good(good)
    }

    /// Counts small reads of a head. After a few in a row, the next reads are delayed.
    fn pauses(&mut self, length: usize) {
        if self.position != Position::Head || length > CRUMB || self.activity().is_busy() {
            self.crumbs = 0;
            return;
        }
        self.crumbs = self.crumbs.saturating_add(1);
        if self.crumbs > MAX_CRUMBS {
            self.pause = Some(Box::pin(tokio::time::sleep(CRUMB_PAUSE)));
        }
    }

    /// Whether the exchange before is not over to its last byte.
    fn must_wait(&self) -> bool {
        !self.activity().is_flushed() || self.activity().is_busy()
    }

    fn refuse(&mut self, kind: Kind, head: &[u8]) {
        self.refusal = Some(if self.position == Position::Head {
            self.refusal(kind, head)
        } else {
            // The request was handed over already: its body fails, and the service responds.
            self.state.exchange.body_fails(BodyFailure::Malformed);
            PendingRefusal::Silent
        });
        self.held = BytesMut::new();
        self.decoded = BytesMut::new();
        self.good = 0;
    }

    /// Creates a refusal, which is counted and logged as any response. `head` is the received part of the request.
    fn refusal(&self, kind: Kind, head: &[u8]) -> PendingRefusal {
        self.activity().refuses();
        let id = refusal::request_id();
        record::refused(&self.state, kind, &id);
        PendingRefusal::Response(refusal::raw(kind, &id, head.starts_with(b"HEAD ")))
    }

    /// What the library reads of a refused stream: an end between requests, a failure within one.
    fn refused(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if self.position != Position::Head {
            return Poll::Ready(Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the body's framing is broken",
            )));
        }
        if self.must_wait() {
            self.activity().hold(cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    /// Judges bytes that lie in the library's own buffer; how many of them it may keep there. The
    /// others are held.
    fn judge_in_place(&mut self, filled: &[u8]) -> usize {
        match self.judge(filled) {
            Judged::Good(good) => {
                self.held.extend_from_slice(&filled[good..]);
                good
            }
            Judged::Decoded(taken) => {
                self.held.extend_from_slice(&filled[taken..]);
                0
            }
            Judged::Bad(kind) => {
                self.refuse(kind, filled);
                0
            }
        }
    }

    fn judge_held(&mut self) {
        let held = std::mem::take(&mut self.held);
        let judged = self.judge(&held);
        self.held = held;
        match judged {
            Judged::Good(good) => self.good = good,
            Judged::Decoded(taken) => {
                self.held.advance(taken);
                if self.held.is_empty() {
                    self.held = BytesMut::new();
                }
            }
            Judged::Bad(kind) => {
                let head = self.held.split();
                self.refuse(kind, &head);
            }
        }
    }

    fn hand_over_decoded(&mut self, out: &mut rt::ReadBufCursor<'_>) {
        let length = self.decoded.len().min(out.remaining());
        out.put_slice(&self.decoded[..length]);
        self.decoded.advance(length);
        if self.decoded.is_empty() {
            self.decoded = BytesMut::new();
        }
    }

    fn hand_over_held(&mut self, out: &mut rt::ReadBufCursor<'_>) {
        let length = self.good.min(out.remaining());
        out.put_slice(&self.held[..length]);
        self.held.advance(length);
        self.good -= length;
        if self.held.is_empty() {
            // An idle connection keeps no buffer.
            self.held = BytesMut::new();
        }
    }
}

impl Guard {
    /// Returns the socket with the bytes that were not handed over. None if something is left to be written.
    pub(super) fn into_socket(self) -> Option<(Stream, BytesMut)> {
        let is_written = self.activity().is_flushed() && self.refusal.is_none();
        let whole = is_written && self.good == 0 && self.decoded.is_empty();
        whole.then_some((self.io, self.held))
    }

    /// Returns the socket of an idle connection. None if a request is in progress.
    pub(super) fn into_resting_socket(self) -> Option<(Stream, BytesMut)> {
        let rests = self.position == Position::Head && self.end == StreamEnd::Open && self.hint.is_empty();
        if rests { self.into_socket() } else { None }
    }
}
