//! A stream of HTTP/2 as a stream of bytes both ways.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::http2::Stream;

/// The most bytes that are taken over at once.
const PART: usize = 16 << 10;

/// A stream as bytes both ways.
pub(in crate::gateway) struct Duplex {
    stream: Arc<Stream>,
    /// Received and not read.
    received: Bytes,
    /// Taken over and not sent.
    sending: Bytes,
}

impl Duplex {
    pub(super) fn new(stream: Arc<Stream>) -> Self {
        Self { stream, received: Bytes::new(), sending: Bytes::new() }
    }
}

impl AsyncRead for Duplex {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.received.is_empty() {
            match ready!(this.stream.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(failure)) => return Poll::Ready(Err(io::Error::other(failure))),
                Some(Ok(data)) => this.received = data,
            }
        }
        let length = this.received.len().min(buffer.remaining());
        buffer.put_slice(&this.received[..length]);
        this.received.advance(length);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_sent(cx))?;
        let length = bytes.len().min(PART);
        this.sending = Bytes::copy_from_slice(&bytes[..length]);
        Poll::Ready(Ok(length))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_sent(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.stream.poll_send(cx, &mut this.sending, true)).map_err(io::Error::other)?;
        Poll::Ready(Ok(()))
    }
}

impl Duplex {
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.sending.is_empty() {
            return Poll::Ready(Ok(()));
        }
        self.stream.poll_send(cx, &mut self.sending, false).map_err(io::Error::other)
    }
}
