//! The writing half of the guard: responses of the library, interim responses and refusals.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Buf;
use hyper::rt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Guard, PendingRefusal, Position, StreamEnd};
use crate::error::Kind;

/// The size of a read that discards what a client still sends, in bytes.
const LINGER_BUFFER: usize = 16 << 10;

impl Guard {
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
            // A hint that could not be written before the next one is dropped.
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

    /// Starts a write. An interim response is written first.
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
