//! A stream of HTTP/2 as a stream of bytes both ways.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A stream as bytes both ways.
pub(in crate::gateway) struct Duplex {
    receiving: RecvStream,
    sending: SendStream<Bytes>,
    /// Received and not read.
    received: Bytes,
}

impl Duplex {
    pub(super) fn new(receiving: RecvStream, sending: SendStream<Bytes>) -> Self {
        Self { receiving, sending, received: Bytes::new() }
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
            match ready!(this.receiving.poll_data(cx)) {
                None => return Poll::Ready(Ok(())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(data)) => this.received = data,
            }
        }
        let length = this.received.len().min(buffer.remaining());
        buffer.put_slice(&this.received[..length]);
        this.received.advance(length);
        Poll::Ready(this.receiving.flow_control().release_capacity(length).map_err(io::Error::other))
    }
}

impl AsyncWrite for Duplex {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.sending.reserve_capacity(bytes.len());
        loop {
            match ready!(this.sending.poll_capacity(cx)) {
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                Some(Ok(0)) => {}
                Some(Ok(room)) => {
                    let length = room.min(bytes.len());
                    let sent = this.sending.send_data(Bytes::copy_from_slice(&bytes[..length]), false);
                    return Poll::Ready(sent.map(|()| length).map_err(io::Error::other));
                }
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().sending.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
