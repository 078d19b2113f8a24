//! Between the socket and the HTTP library: no byte reaches the library that two parsers could
//! read in two ways.
//!
//! The guard looks at each head, follows the framing of each body, and hands the next head over
//! only when the exchange before it is over. What it refuses it answers itself, in order, after
//! the responses that are still being written; the library then sees the end of the stream.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use hyper::rt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{activity::Activity, exchange::BodyFailure, record, refusal, state::ConnectionState};
use crate::{
    error::Kind,
    stream::Stream,
    types::{
        chunked::{ChunkError, Chunked},
        framing::{Framing, HeadError, HeadLimits, HeadScanner},
    },
};

/// What is read and dropped at once of a client that still sends, in bytes.
const LINGER_BUFFER: usize = 16 << 10;

/// How much more a byte of a chunked body may cost than another.
const CHUNKED_COST: usize = 8;

/// A chunk that is smaller, in bytes, may be one of thousands; then so many bytes are read at once and no more, which
/// take a tenth of a millisecond: whoever sends such chunks does not hold up the others of the worker.
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

/// What can be said of a run of bytes.
enum Judged {
    /// So many bytes are good, perhaps none.
    Good(usize),
    /// So many bytes were decoded.
    Decoded(usize),
    /// The head or chunk is refused.
    Bad(Kind),
}

/// What is refused, until it is written.
enum PendingRefusal {
    /// A response that is still to be written.
    Response(Bytes),
    /// The service answers, or nobody does.
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
    /// What was decoded of a chunked body and not handed over yet; it goes before what is held.
    decoded: BytesMut,
    scanner: HeadScanner,
    position: Position,
    /// Reads in a row that brought a crumb of a head, and the pause before the next one.
    crumbs: u8,
    pause: Option<Pin<Box<Sleep>>>,
    /// What is left of an interim response that is being written.
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

    /// Judges the beginning of `bytes` and moves the position behind what is good.
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

    /// Takes note of what a read has brought: a head that comes in crumbs is read a few times, and then so often only.
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
            // The request was handed over already: its body fails, and the service answers.
            self.state.exchange.body_fails(BodyFailure::Malformed);
            PendingRefusal::Silent
        });
        self.held = BytesMut::new();
        self.decoded = BytesMut::new();
        self.good = 0;
    }

    /// A refusal, written down as any response is. `head` is what there is of the request.
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

impl rt::Read for Guard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut out: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            if this.activity().budget.is_spent() && !this.state.is_expired() && this.refusal.is_none() {
                // The connection's task sees to it that it comes back.
                return Poll::Pending;
            }
            if !this.decoded.is_empty() {
                this.hand_over_decoded(&mut out);
                return Poll::Ready(Ok(()));
            }
            if this.good == 0 && !this.held.is_empty() && this.refusal.is_none() {
                this.judge_held();
                if !this.decoded.is_empty() {
                    continue;
                }
            }
            if this.good > 0 {
                this.hand_over_held(&mut out);
                return Poll::Ready(Ok(()));
            }
            if this.refusal.is_none() && this.activity().head_is_late() {
                let head = this.held.split();
                this.refuse(Kind::RequestTimeout, &head);
            }
            if this.refusal.is_some() {
                return this.refused(cx);
            }
            if !this.held.is_empty() && this.must_wait() {
                this.activity().hold(cx);
                if this.held.len() >= this.limits.bytes {
                    return Poll::Pending;
                }
            }
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            // SAFETY: the buffer is only written to through `ReadBuf`, which keeps track of what is
            // initialised, and the cursor is advanced over filled bytes only.
            let mut space = unsafe { out.as_mut() };
            if let Position::Chunked(chunked) = &this.position
                && chunked.left() < SMALL_CHUNK
                && space.len() > SMALL_CHUNKS_AT_ONCE
            {
                space = &mut space[..SMALL_CHUNKS_AT_ONCE];
            }
            let mut buffer = ReadBuf::uninit(space);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer))?;
            let filled = buffer.filled();
            if filled.is_empty() {
                this.end = StreamEnd::Read;
                return Poll::Ready(Ok(()));
            }
            let chunked = matches!(this.position, Position::Chunked(_));
            this.activity().budget.spends(if chunked { filled.len() * CHUNKED_COST } else { filled.len() });
            this.pauses(filled.len());
            if !this.held.is_empty() {
                this.held.extend_from_slice(filled);
                continue;
            }
            let good = this.judge_in_place(filled);
            if good > 0 {
                // SAFETY: `good` is at most the number of bytes that were filled just now.
                unsafe { out.advance(good) };
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Guard {
    /// The bare socket and what was read from it and not handed over, for a connection that becomes
    /// another; none while a part of what was written before may not have left.
    pub(super) fn into_socket(self) -> Option<(Stream, BytesMut)> {
        let is_written = self.activity().is_flushed() && self.refusal.is_none();
        let whole = is_written && self.good == 0 && self.decoded.is_empty();
        whole.then_some((self.io, self.held))
    }

    /// The same for a connection on which nothing is under way.
    pub(super) fn into_resting_socket(self) -> Option<(Stream, BytesMut)> {
        let rests = self.position == Position::Head && self.end == StreamEnd::Open && self.hint.is_empty();
        if rests { self.into_socket() } else { None }
    }

    /// Whether the library is about to write a response of its own, to a head that it alone found
    /// wanting. It would have no body and no request id; ours takes its place.
    fn replace_library_response(&mut self, bytes: &[u8]) -> bool {
        if self.activity().is_called() {
            return false;
        }
        if self.refusal.is_none() {
            let too_large = bytes.get(9..12).is_some_and(|status| status == b"431" || status == b"414");
            let kind = if too_large { Kind::HeadersTooLarge } else { Kind::BadRequest };
            self.refusal = Some(self.refusal(kind, b""));
        }
        true
    }

    /// Writes an interim response that waits.
    fn poll_hint(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(hint) = self.activity().take_hint() {
            // Those that could not be written in time are dropped: nobody waits for them.
            if self.hint.is_empty() {
                self.hint = hint;
            }
        }
        while !self.hint.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.hint))?;
            self.hint.advance(written);
        }
        Poll::Ready(Ok(()))
    }

    /// Notes that something is to be written, and writes what goes before it.
    fn begins_to_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.activity().write_begins();
        let begun = self.poll_hint(cx);
        if begun.is_pending() {
            self.activity().client_blocks();
        }
        begun
    }

    /// Notes what became of a write.
    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match &written {
            Poll::Ready(Ok(_)) => self.state.response_leaves(),
            Poll::Pending => self.activity().client_blocks(),
            Poll::Ready(Err(_)) => {}
        }
        written
    }
}

impl rt::Write for Guard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replace_library_response(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.begins_to_write(cx))?;
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.wrote(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.first().map_or(&[][..], |slice| &slice[..]);
        if self.replace_library_response(first) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        ready!(self.begins_to_write(cx))?;
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.wrote(written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// The library asks at each turn, also while a request is being
    /// answered and it does not read: so this is where a client that has gone is noticed. Were it
    /// the library's to notice, it would read into a fresh buffer at each request.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        if self.activity().write_ends() && (!self.held.is_empty() || self.refusal.is_some()) {
            // The next head was waiting for this.
            cx.waker().wake_by_ref();
        }
        if let Poll::Ready(Err(error)) = self.poll_hint(cx) {
            return Poll::Ready(Err(error));
        }
        let waits = self.activity().is_busy() && self.position == Position::Head && self.held.is_empty();
        match waits.then(|| self.io.poll_end(cx)) {
            Some(Poll::Ready(error)) => Poll::Ready(Err(error)),
            Some(Poll::Pending) | None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while let Some(PendingRefusal::Response(response)) = &mut this.refusal
            && !response.is_empty()
        {
            let written = ready!(Pin::new(&mut this.io).poll_write(cx, response))?;
            response.advance(written);
        }
        if this.end == StreamEnd::Open {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            let more_expected = this.position != Position::Head
                || this.refusal.is_some()
                || this.state.exchange.body_is_open();
            this.end = StreamEnd::Lingering(this.activity().lingers(more_expected));
        }
        let mut scratch = [0; LINGER_BUFFER];
        while let StreamEnd::Lingering(end) = this.end {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                this.end = StreamEnd::Read;
            } else {
                this.activity().lingers_on(end);
                this.activity().budget.spends(buffer.filled().len());
                if this.activity().budget.is_spent() {
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }
}
