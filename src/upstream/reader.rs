//! Between an upstream's socket and the HTTP library: the heads of answers are looked at first.
//!
//! Interim answers (1xx) end here, a bounded number of them; an answer whose length has two
//! readings is an error, which closes the connection.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use hyper::rt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use crate::types::framing::{HeadLimits, response_head};

const LIMITS: HeadLimits = HeadLimits { bytes: 256 << 10, count: 100 };

/// A well-behaved upstream sends one `100 Continue` or a few `103 Early Hints`.
const MAX_INTERIM: u8 = 8;

pub(super) struct Reader {
    io: TcpStream,
    /// Raised by whoever sends a request: the next bytes are the head of its answer.
    expects_head: Arc<AtomicBool>,
    /// A head that is incomplete, or what came in the same read behind an interim one.
    held: BytesMut,
    interim: u8,
}

impl Reader {
    pub(super) fn new(io: TcpStream, expects_head: Arc<AtomicBool>) -> Self {
        Self { io, expects_head, held: BytesMut::new(), interim: 0 }
    }

    fn fault(text: &'static str) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, text)
    }

    /// Skips interim heads at the beginning of `bytes`. Whether a final head stands there now,
    /// and how many bytes were skipped.
    fn inspect(&mut self, bytes: &[u8]) -> io::Result<(bool, usize)> {
        let mut skipped = 0;
        loop {
            let head = response_head(&bytes[skipped..], LIMITS)
                .map_err(|_| Self::fault("the head of the answer is ambiguous or too large"))?;
            let Some(head) = head else { return Ok((false, skipped)) };
            if head.status >= 200 {
                self.interim = 0;
                self.expects_head.store(false, Relaxed);
                return Ok((true, skipped));
            }
            self.interim += 1;
            if head.status == 101 || self.interim > MAX_INTERIM {
                return Err(Self::fault("interim answers that nobody asked for"));
            }
            skipped += head.length;
        }
    }

    fn hand_over(&mut self, out: &mut rt::ReadBufCursor<'_>) {
        let length = self.held.len().min(out.remaining());
        out.put_slice(&self.held[..length]);
        self.held.advance(length);
    }
}

impl rt::Read for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut out: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.held.is_empty() && !self.expects_head.load(Relaxed) {
            self.hand_over(&mut out);
            return Poll::Ready(Ok(()));
        }
        loop {
            // SAFETY: the buffer is only written to through `ReadBuf`, which keeps track of what is
            // initialised, and the cursor is advanced over filled bytes only.
            let mut buffer = ReadBuf::uninit(unsafe { out.as_mut() });
            ready!(Pin::new(&mut self.io).poll_read(cx, &mut buffer))?;
            let filled = buffer.filled();
            let length = filled.len();
            if length == 0 {
                return Poll::Ready(Ok(()));
            }
            if !self.expects_head.load(Relaxed) {
                // SAFETY: `length` bytes were filled just now.
                unsafe { out.advance(length) };
                return Poll::Ready(Ok(()));
            }
            if self.held.is_empty() {
                let (complete, skipped) = self.inspect(filled)?;
                if complete && skipped == 0 {
                    // SAFETY: as above.
                    unsafe { out.advance(length) };
                    return Poll::Ready(Ok(()));
                }
                self.held.extend_from_slice(&filled[skipped..]);
                if complete {
                    self.hand_over(&mut out);
                    return Poll::Ready(Ok(()));
                }
            } else {
                self.held.extend_from_slice(filled);
                let held = std::mem::take(&mut self.held);
                let inspected = self.inspect(&held);
                self.held = held;
                let (complete, skipped) = inspected?;
                self.held.advance(skipped);
                if complete {
                    self.hand_over(&mut out);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl rt::Write for Reader {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
