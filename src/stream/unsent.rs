//! The bytes of a message that are still to be sent.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::io::AsyncWrite;

use super::Stream;

/// The bytes of a message that are gathered before a write.
const GATHERED: usize = 64 << 10;

/// A part of a body up to this size, in bytes, is copied after the bytes before it. A second buffer in the system call
/// costs more.
const COPIED: usize = 16 << 10;

/// The bytes of a message that were gathered, the first of which may have been written.
#[derive(Debug, Default)]
pub struct Unsent {
    /// The head, and what was gathered after it.
    bytes: Vec<u8>,
    written: usize,
    /// A large part of the body, to be written after `bytes`, and the end of its chunk, to be written after that.
    data: Bytes,
    tail: &'static [u8],
}

impl Unsent {
    /// Returns whether everything was written.
    pub fn is_empty(&self) -> bool {
        self.written == self.bytes.len() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Returns how many bytes are still to be written.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.written + self.data.len()
    }

    /// Returns whether another part of the body may be gathered. A large part is the last one before a write.
    pub fn has_room(&self) -> bool {
        self.data.is_empty() && self.tail.is_empty() && self.bytes.len() - self.written < GATHERED
    }

    /// Returns the gathered bytes, to append more. There must be room.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        if self.written == self.bytes.len() {
            self.bytes.clear();
            self.written = 0;
        } else if self.written >= GATHERED {
            // A peer that takes a little at a time does not make it grow.
            self.bytes.drain(..self.written);
            self.written = 0;
        }
        &mut self.bytes
    }

    /// Starts a new message, without the rest of the one before.
    pub fn begin(&mut self) -> &mut Vec<u8> {
        *self = Self { bytes: std::mem::take(&mut self.bytes), ..Self::default() };
        self.bytes.clear();
        &mut self.bytes
    }

    /// Starts to send again what was gathered, from its first byte. Nothing must have been gathered after a write.
    pub fn rewind(&mut self) {
        self.written = 0;
    }

    /// Appends a part of a body, and `tail` after it. There must be room.
    pub fn add(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() <= COPIED {
            let bytes = self.bytes();
            bytes.extend_from_slice(&data);
            bytes.extend_from_slice(tail);
        } else {
            self.data = data;
            self.tail = tail;
        }
    }

    /// Writes once. Returns the number of bytes that were written.
    ///
    /// # Errors
    /// When the stream fails or takes nothing.
    pub fn poll_write(&mut self, io: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let bytes = &self.bytes[self.written..];
        let left = bytes.len();
        let count = if self.data.is_empty() && self.tail.is_empty() {
            ready!(Pin::new(io).poll_write(cx, bytes))?
        } else {
            let slices = [IoSlice::new(bytes), IoSlice::new(&self.data), IoSlice::new(self.tail)];
            ready!(Pin::new(io).poll_write_vectored(cx, &slices))?
        };
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        let of_bytes = count.min(left);
        self.written += of_bytes;
        let of_data = (count - of_bytes).min(self.data.len());
        self.data.advance(of_data);
        self.tail = &self.tail[count - of_bytes - of_data..];
        Poll::Ready(Ok(count))
    }
}
