//! Between the socket and the HTTP library: no byte reaches the library that two parsers could
//! read in two ways.
//!
//! The guard looks at each head, follows the framing of each body, and hands the next head over
//! only when the exchange before it is over. What it refuses it answers itself, in order, after
//! the answers that are still being written; the library then sees the end of the stream.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use hyper::rt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::{
    exchange::{BodyFailure, Exchange, Phase},
    refusal,
};
use crate::{
    error::Kind,
    types::framing::{Framing, HeadFault, HeadLimits, request_head},
};

/// The longest run of digits in a chunk's size: 4 GiB, far beyond any limit on bodies.
const MAX_CHUNK_DIGITS: u8 = 8;

/// What is dropped of a client's data after this side has closed.
const MAX_LINGER_BYTES: usize = 1 << 20;

/// Where in the stream of requests the next byte stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Head,
    Length(u64),
    /// In a chunk's size: its value so far, its digits so far.
    ChunkSize(u64, u8),
    /// Behind the CR of a chunk's size.
    ChunkSizeEnd(u64),
    ChunkData(u64),
    /// In the CRLF behind a chunk: bytes seen of it.
    ChunkEnd(u8),
    /// In the CRLF behind the last chunk. Trailers are refused: none is ever passed on.
    BodyEnd(u8),
}

/// What can be said of a run of bytes.
enum Judged {
    /// So many bytes are good, perhaps none.
    Good(usize),
    /// The head or chunk is refused.
    Bad(Kind),
}

/// What is refused, until it is written.
enum Refusal {
    /// An answer that is still to be written.
    Answer(Bytes),
    /// The service answers, or nobody does.
    Silent,
}

/// The guarded stream.
pub(super) struct Guard {
    io: TcpStream,
    exchange: Arc<Exchange>,
    limits: HeadLimits,
    /// Bytes that were read and not handed over yet.
    held: BytesMut,
    /// How many of them are known to be good.
    good: usize,
    position: Position,
    refusal: Option<Refusal>,
    /// Some of what was written may still lie with the library.
    unflushed: bool,
    end: End,
}

/// How far the stream has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Not at all.
    Open,
    /// The client sends no more.
    Read,
    /// We send no more, and drop what the client still sends.
    Lingering(usize),
}

impl Guard {
    pub(super) fn new(io: TcpStream, exchange: Arc<Exchange>, limits: HeadLimits) -> Self {
        Self {
            io,
            exchange,
            limits,
            held: BytesMut::new(),
            good: 0,
            position: Position::Head,
            refusal: None,
            unflushed: false,
            end: End::Open,
        }
    }

    /// Judges the beginning of `bytes` and moves the position behind what is good.
    ///
    /// A head is handed over alone: after what precedes it, and after the exchange before it.
    fn judge(&mut self, bytes: &[u8]) -> Judged {
        let mut good = 0;
        while good < bytes.len() {
            let rest = &bytes[good..];
            match self.position {
                Position::Head if good > 0 || self.must_wait() => break,
                Position::Head => match request_head(rest, self.limits) {
                    Ok(Some(head)) => {
                        good += head.length;
                        self.position = match head.framing {
                            Framing::None | Framing::Length(0) => Position::Head,
                            Framing::Length(length) => Position::Length(length),
                            Framing::Chunked => Position::ChunkSize(0, 0),
                        };
                        self.exchange.head_released();
                    }
                    Ok(None) => {
                        self.exchange.head_begins();
                        break;
                    }
                    Err(HeadFault::Bad) => return Judged::Bad(Kind::BadRequest),
                    Err(HeadFault::TooLarge) => return Judged::Bad(Kind::HeadersTooLarge),
                },
                Position::Length(left) => {
                    let run = left.min(rest.len() as u64);
                    good += run as usize;
                    self.position = if run == left { Position::Head } else { Position::Length(left - run) };
                }
                Position::ChunkData(left) => {
                    let run = left.min(rest.len() as u64);
                    good += run as usize;
                    self.position =
                        if run == left { Position::ChunkEnd(0) } else { Position::ChunkData(left - run) };
                }
                _ => match self.behind(rest[0]) {
                    Some(position) => {
                        self.position = position;
                        good += 1;
                    }
                    // What is good before it goes first; it is met again at the next turn.
                    None if good > 0 => break,
                    None => return Judged::Bad(Kind::BadRequest),
                },
            }
        }
        Judged::Good(good)
    }

    /// The position behind one byte of chunked framing; `None` for a byte that has no place there:
    /// extensions, signs, spaces, bare line feeds, trailers.
    fn behind(&self, byte: u8) -> Option<Position> {
        Some(match (self.position, byte) {
            (Position::ChunkSize(size, digits), b'\r') if digits > 0 => Position::ChunkSizeEnd(size),
            (Position::ChunkSize(size, digits), byte) if digits < MAX_CHUNK_DIGITS => {
                let digit = (byte as char).to_digit(16)?;
                Position::ChunkSize(size * 16 + u64::from(digit), digits + 1)
            }
            (Position::ChunkSizeEnd(0), b'\n') => Position::BodyEnd(0),
            (Position::ChunkSizeEnd(size), b'\n') => Position::ChunkData(size),
            (Position::ChunkEnd(0), b'\r') => Position::ChunkEnd(1),
            (Position::ChunkEnd(1), b'\n') => Position::ChunkSize(0, 0),
            (Position::BodyEnd(0), b'\r') => Position::BodyEnd(1),
            (Position::BodyEnd(1), b'\n') => Position::Head,
            _ => return None,
        })
    }

    /// Whether the exchange before is not over to its last byte.
    fn must_wait(&self) -> bool {
        self.unflushed || self.exchange.is_busy()
    }

    fn refuse(&mut self, kind: Kind) {
        self.held = BytesMut::new();
        self.good = 0;
        self.refusal = Some(if self.position == Position::Head {
            Refusal::Answer(refusal::raw(kind))
        } else {
            // The request was handed over already: its body fails, and the service answers.
            self.exchange.body_fails(BodyFailure::Malformed);
            Refusal::Silent
        });
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
            self.exchange.hold(cx);
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
            Judged::Bad(kind) => {
                self.refuse(kind);
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
            Judged::Bad(kind) => self.refuse(kind),
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
            if this.good == 0 && !this.held.is_empty() && this.refusal.is_none() {
                this.judge_held();
            }
            if this.good > 0 {
                this.hand_over_held(&mut out);
                return Poll::Ready(Ok(()));
            }
            if this.refusal.is_none() && this.exchange.is_expired() && this.exchange.phase() == Phase::Head {
                this.refuse(Kind::RequestTimeout);
            }
            if this.refusal.is_some() {
                return this.refused(cx);
            }
            if !this.held.is_empty() && this.must_wait() {
                this.exchange.hold(cx);
                if this.held.len() >= this.limits.bytes {
                    return Poll::Pending;
                }
            }
            // SAFETY: the buffer is only written to through `ReadBuf`, which keeps track of what is
            // initialised, and the cursor is advanced over filled bytes only.
            let mut buffer = ReadBuf::uninit(unsafe { out.as_mut() });
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer))?;
            let filled = buffer.filled();
            if filled.is_empty() {
                this.end = End::Read;
                return Poll::Ready(Ok(()));
            }
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
    pub(super) fn into_socket(self) -> Option<(TcpStream, BytesMut)> {
        let whole = !self.unflushed && self.refusal.is_none() && self.good == 0;
        whole.then_some((self.io, self.held))
    }

    /// Whether the library is about to write an answer of its own, to a head that it alone found
    /// wanting. It would have no body and no request id; ours takes its place.
    fn replace_library_answer(&mut self, bytes: &[u8]) -> bool {
        if self.exchange.is_called() {
            return false;
        }
        if self.refusal.is_none() {
            let too_large = bytes.get(9..12).is_some_and(|status| status == b"431" || status == b"414");
            let kind = if too_large { Kind::HeadersTooLarge } else { Kind::BadRequest };
            self.refusal = Some(Refusal::Answer(refusal::raw(kind)));
        }
        true
    }
}

impl rt::Write for Guard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.replace_library_answer(bytes) {
            return Poll::Ready(Ok(bytes.len()));
        }
        self.unflushed = true;
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, bytes))?;
        self.exchange.answer_moves();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.first().map_or(&[][..], |slice| &slice[..]);
        if self.replace_library_answer(first) {
            return Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()));
        }
        self.unflushed = true;
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, slices))?;
        self.exchange.answer_moves();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing is buffered here. But the library asks at each turn, also while a request is being
    /// answered and it does not read: so this is where a client that has gone is noticed. Were it
    /// the library's to notice, it would read into a fresh buffer at each request.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unflushed {
            self.unflushed = false;
            if !self.held.is_empty() || self.refusal.is_some() {
                // The next head was waiting for this.
                cx.waker().wake_by_ref();
            }
        }
        let waits = self.exchange.is_busy() && self.position == Position::Head && self.held.is_empty();
        if waits && self.io.poll_read_ready(cx).is_ready() {
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            match self.io.poll_peek(cx, &mut buffer) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into())),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // The next request is there already, or it was a false alarm.
                Poll::Ready(Ok(_)) | Poll::Pending => {}
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while let Some(Refusal::Answer(answer)) = &mut this.refusal
            && !answer.is_empty()
        {
            let written = ready!(Pin::new(&mut this.io).poll_write(cx, answer))?;
            answer.advance(written);
        }
        if this.end == End::Open {
            ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
            this.exchange.lingers();
            this.end = End::Lingering(0);
        }
        let mut scratch = [0; 4_096];
        while let End::Lingering(dropped) = this.end
            && dropped < MAX_LINGER_BYTES
        {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer))?;
            let length = buffer.filled().len();
            this.end = if length == 0 { End::Read } else { End::Lingering(dropped + length) };
        }
        Poll::Ready(Ok(()))
    }
}
