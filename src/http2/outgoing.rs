//! The frames of a connection that are still to be sent.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use super::frame;
use crate::stream::Stream;

/// The bytes that streams may put here before what is here is sent.
const ROOM: usize = 64 << 10;

/// The most bytes that may be here, by what the other side makes this side say while it takes nothing.
const MOST: usize = 1 << 20;

/// A buffer of this size, in bytes, is not kept while there is nothing to send.
const KEPT: usize = 4 << 10;

/// Whole frames, the first of which may have been sent in part.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    bytes: Vec<u8>,
    sent: usize,
    /// What was added before, in bytes.
    before: u64,
}

impl Outgoing {
    /// Returns whether everything was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Returns how many bytes of a body may be added.
    pub(super) fn room(&self) -> usize {
        ROOM.saturating_sub(self.bytes.len() - self.sent)
    }

    /// Returns whether there is more than there may be.
    pub(super) fn is_stuffed(&self) -> bool {
        self.bytes.len() - self.sent > MOST
    }

    /// Returns the bytes, to append frames.
    pub(super) fn frames(&mut self) -> &mut Vec<u8> {
        if self.sent >= ROOM {
            // Whoever takes a little at a time does not make it grow.
            let begin = self.frames_before(self.sent);
            self.bytes.drain(..begin);
            self.sent -= begin;
            self.before += begin as u64;
        }
        &mut self.bytes
    }

    /// Returns the place behind the last frame, counted from the begin of the connection.
    pub(super) fn end(&self) -> u64 {
        self.before + self.bytes.len() as u64
    }

    /// Returns whether nothing was sent of what was added at a place.
    pub(super) fn is_unsent(&self, place: u64) -> bool {
        place >= self.before + self.sent as u64
    }

    /// Returns where the frame begins that a place lies in.
    fn frames_before(&self, place: usize) -> usize {
        let mut begin = 0;
        while let Some(length) = self.length_at(begin)
            && begin + length <= place
        {
            begin += length;
        }
        begin
    }

    /// Returns the length of the frame that begins at a place.
    fn length_at(&self, begin: usize) -> Option<usize> {
        let [a, b, c] = *self.bytes.get(begin..)?.first_chunk()?;
        Some(frame::HEAD + u32::from_be_bytes([0, a, b, c]) as usize)
    }

    /// Takes out the parts of a stream's body of which nothing was sent, and with `whole` all of its frames. Returns the bytes of
    /// the body.
    pub(super) fn purge(&mut self, stream: u32, whole: bool) -> usize {
        let mut begin = self.frames_before(self.sent);
        if begin < self.sent {
            begin += self.length_at(begin).unwrap_or_default();
        }
        let mut purged = 0;
        while let Some(length) = self.length_at(begin) {
            let head = &self.bytes[begin..begin + frame::HEAD];
            let is_data = head[3] == frame::DATA;
            if (is_data || whole) && head[5..] == stream.to_be_bytes() {
                self.bytes.drain(begin..begin + length);
                // So that places behind it stay right.
                self.before += length as u64;
                purged += if is_data { length - frame::HEAD } else { 0 };
            } else {
                begin += length;
            }
        }
        purged
    }

    /// Sends everything. Returns whether anything was sent.
    ///
    /// # Errors
    /// When the connection fails or takes nothing.
    pub(super) fn poll_flush(
        &mut self,
        io: &mut Stream,
        cx: &mut Context<'_>,
    ) -> (bool, Poll<io::Result<()>>) {
        let before = self.sent;
        let polled = self.poll_send(io, cx);
        let has_moved = self.sent > before;
        if polled.is_ready() {
            self.before = self.end();
            self.sent = 0;
            self.bytes.clear();
        }
        (has_moved, polled)
    }

    fn poll_send(&mut self, io: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            let count = ready!(Pin::new(&mut *io).poll_write(cx, &self.bytes[self.sent..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.sent += count;
        }
        Pin::new(io).poll_flush(cx)
    }

    /// Frees the buffer if it is large.
    pub(super) fn rest(&mut self) {
        if self.is_empty() && self.bytes.capacity() > KEPT {
            self.bytes = Vec::new();
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stream_has_not_sent_yet_is_taken_out() {
        let mut out = Outgoing::default();
        for (kind, stream, text) in
            [(1, 1, "head"), (0, 1, "sent"), (0, 1, "one"), (0, 3, "two"), (0, 1, "three"), (1, 3, "head")]
        {
            frame::write(out.frames(), kind, 0, stream, text.as_bytes());
        }
        let whole = out.bytes.clone();
        // The second frame was sent in part.
        out.sent = 9 + 4 + 5;
        assert_eq!(out.purge(1, false), "onethree".len());
        let left = [&whole[..26], &whole[38..50], &whole[64..]].concat();
        assert_eq!(out.bytes, left);
        assert_eq!((out.purge(1, false), out.purge(3, true)), (0, 3));
        assert_eq!(out.bytes, whole[..26]);
        // The place of what comes next is as if nothing had been taken out.
        assert_eq!(out.end(), whole.len() as u64);
        frame::write(out.frames(), 1, 0, 5, b"head");
        assert!(out.is_unsent(whole.len() as u64));
        out.sent = out.bytes.len();
        assert!(!out.is_unsent(whole.len() as u64));
    }

    #[test]
    fn what_was_sent_is_forgotten_frame_by_frame() {
        let mut out = Outgoing::default();
        for _ in 0..5 {
            frame::write(out.frames(), 0, 0, 1, &[b'x'; 16 << 10]);
        }
        out.sent = 65_000 + 600;
        frame::write(out.frames(), 0, 0, 3, b"next");
        assert_eq!(out.sent, 65_600 - 4 * (9 + (16 << 10)));
        assert_eq!(out.length_at(0), Some(9 + (16 << 10)));
        assert_eq!(out.purge(3, false), 4);
    }
}
