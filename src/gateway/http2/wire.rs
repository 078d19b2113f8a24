//! The socket below HTTP/2: what was read before, the turn of the connection, and the frames that pass.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::floods::{Floods, Frames};
use crate::{clock::coarse_millis, stream::Stream};

/// The bytes that a connection may read in a turn.
const TURN_BYTES: u64 = 64 << 10;

/// What the connection's task knows of its socket, which the library has.
#[derive(Debug)]
pub(super) struct Meter {
    pub(super) floods: Floods,
    /// Bytes that were read in this turn.
    read: AtomicU64,
    /// The coarse time since when the client takes nothing; 0 if it does.
    blocked_since: AtomicU64,
}

impl Meter {
    pub(super) fn new(floods: Floods) -> Self {
        Self { floods, read: AtomicU64::new(0), blocked_since: AtomicU64::new(0) }
    }

    /// Starts a turn.
    pub(super) fn turn_begins(&self) {
        self.read.store(0, Relaxed);
    }

    /// Returns the bytes that were read in this turn.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Relaxed)
    }

    /// Returns whether the turn is over.
    pub(super) fn is_spent(&self) -> bool {
        self.read() >= TURN_BYTES
    }

    /// Returns the coarse time since when the client takes nothing.
    pub(super) fn blocked_since(&self) -> Option<u64> {
        Some(self.blocked_since.load(Relaxed)).filter(|since| *since > 0)
    }
}

/// The socket of a connection.
pub(super) struct Wire {
    stream: Stream,
    /// Bytes that were read before.
    early: BytesMut,
    received: Frames,
    sent: Frames,
    meter: Arc<Meter>,
}

impl Wire {
    pub(super) fn new(stream: Stream, early: BytesMut, meter: Arc<Meter>) -> Self {
        Self { stream, early, received: Frames::after_preface(), sent: Frames::default(), meter }
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.meter.is_spent() || this.meter.floods.found().is_some() {
            // The connection's task sees to it that it comes back.
            return Poll::Pending;
        }
        let before = buffer.filled().len();
        if this.early.is_empty() {
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        } else {
            let length = this.early.len().min(buffer.remaining());
            buffer.put_slice(&this.early[..length]);
            this.early.advance(length);
        }
        let bytes = &buffer.filled()[before..];
        this.meter.read.fetch_add(bytes.len() as u64, Relaxed);
        this.meter.floods.receives(&mut this.received, bytes, coarse_millis());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match Pin::new(&mut this.stream).poll_write(cx, bytes) {
            Poll::Ready(written) => written?,
            Poll::Pending => {
                if this.meter.blocked_since().is_none() {
                    this.meter.blocked_since.store(coarse_millis().max(1), Relaxed);
                }
                return Poll::Pending;
            }
        };
        this.meter.blocked_since.store(0, Relaxed);
        this.meter.floods.sends(&mut this.sent, &bytes[..written], coarse_millis());
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
