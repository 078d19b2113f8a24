//! The frames of a connection that are still to be sent.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::AsyncWrite;

use super::{
    PREFACE,
    frame::{self, CONTINUATION, DATA, END_STREAM, HEADERS},
    hpack::encoder::NO_TABLE,
};
use crate::stream::Stream;

/// The bytes that streams may put here before what is here is sent.
const ROOM: usize = 64 << 10;

/// The most bytes that may be here of what the other side makes this side say while it takes nothing. As many of heads may be here
/// until no more streams are opened.
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
    /// How many bytes at the front are the preface, which is no frame.
    preface: usize,
    /// How many bytes reply to what the other side sent, at the most.
    replies: usize,
}

/// What was taken out.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Purged {
    /// Bytes of a body.
    pub(super) body: usize,
    /// Whether a table's size was told there.
    pub(super) resize: bool,
}

impl Outgoing {
    /// Begins with the preface of a client.
    pub(super) fn greet(&mut self) {
        self.bytes.extend_from_slice(PREFACE);
        self.preface = PREFACE.len();
    }

    /// Returns whether everything was sent.
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Returns how many bytes of a body may be added.
    pub(super) fn room(&self) -> usize {
        ROOM.saturating_sub(self.bytes.len() - self.sent)
    }

    /// Returns how many bytes were sent, counted from the begin of the connection.
    pub(super) fn sent(&self) -> u64 {
        self.before + self.sent as u64
    }

    /// Returns whether no more heads may be added.
    pub(super) fn is_full(&self) -> bool {
        self.bytes.len() - self.sent > MOST
    }

    /// Returns whether the other side has made this side say more than it may while it takes nothing.
    pub(super) fn is_stuffed(&self) -> bool {
        self.replies > MOST
    }

    /// Appends a short frame that the other side has made this side write.
    pub(super) fn reply(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        self.replies += frame::HEAD + payload.len();
        frame::write(self.frames(), kind, flags, stream, payload);
    }

    /// Returns the bytes, to append frames.
    pub(super) fn frames(&mut self) -> &mut Vec<u8> {
        if self.sent >= ROOM {
            // Whoever takes a little at a time does not make it grow.
            let begin = self.frames_before(self.sent);
            self.bytes.drain(..begin);
            self.sent -= begin;
            self.before += begin as u64;
            self.preface = self.preface.saturating_sub(begin);
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
        let mut begin = self.preface;
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

    /// Takes out the parts of a stream's message of which nothing was sent, but for heads that something follows; with `whole` all
    /// of its frames.
    pub(super) fn purge(&mut self, stream: u32, whole: bool) -> Purged {
        let mut begin = self.frames_before(self.sent);
        if begin < self.sent {
            begin += self.length_at(begin).unwrap_or_default();
        }
        let mut purged = Purged::default();
        // Whether the header block goes that a frame continues.
        let mut in_block = false;
        while let Some(length) = self.length_at(begin) {
            let (head, payload) = self.bytes[begin..begin + length].split_at(frame::HEAD);
            let is_of_stream = head[5..] == stream.to_be_bytes();
            let goes = match head[3] {
                DATA => true,
                // With its body gone, the end of it would make a whole message of what is left.
                HEADERS => head[4] & END_STREAM != 0,
                CONTINUATION => in_block,
                _ => false,
            };
            if !(is_of_stream && (goes || whole)) {
                begin += length;
                continue;
            }
            in_block = head[3] != DATA;
            purged.body += if head[3] == DATA { payload.len() } else { 0 };
            purged.resize |= head[3] == HEADERS && payload.first() == Some(&NO_TABLE);
            self.bytes.drain(begin..begin + length);
            // So that places behind it stay right.
            self.before += length as u64;
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
        self.replies = self.replies.min(self.bytes.len() - self.sent);
        if polled.is_ready() {
            self.before = self.end();
            self.sent = 0;
            self.preface = 0;
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
        let body = |length| Purged { body: length, resize: false };
        assert_eq!(out.purge(1, false), body("onethree".len()));
        let left = [&whole[..26], &whole[38..50], &whole[64..]].concat();
        assert_eq!(out.bytes, left);
        assert_eq!((out.purge(1, false), out.purge(3, true)), (body(0), body(3)));
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
        assert_eq!(out.purge(3, false).body, 4);
    }

    #[test]
    fn what_ends_a_message_goes_with_its_body() {
        let mut out = Outgoing::default();
        out.greet();
        frame::write_block(out.frames(), 1, false, 100, |block| block.extend_from_slice(b"head"));
        frame::write(out.frames(), DATA, 0, 1, b"body");
        let mut kept = out.bytes.clone();
        kept.truncate(PREFACE.len() + frame::HEAD + 4);
        // Trailers in two frames, and those of another.
        frame::write_block(out.frames(), 1, true, 5, |block| block.extend_from_slice(b"trailers"));
        frame::write_block(out.frames(), 3, true, 5, |block| block.extend_from_slice(b"trailers"));
        frame::write_block(&mut kept, 3, true, 5, |block| block.extend_from_slice(b"trailers"));
        assert_eq!(out.purge(1, false), Purged { body: 4, resize: false });
        assert_eq!(out.bytes, kept);
    }

    #[test]
    fn what_was_told_of_a_table_is_not_lost_with_a_head() {
        let mut out = Outgoing::default();
        out.greet();
        frame::write_block(out.frames(), 1, true, 100, |block| block.extend_from_slice(&[NO_TABLE, 0x82]));
        frame::write_block(out.frames(), 3, true, 100, |block| block.push(0x82));
        assert!(!out.purge(3, true).resize);
        assert!(out.purge(1, true).resize);
        assert_eq!(out.bytes, PREFACE);
    }

    #[test]
    fn own_heads_are_no_flood_of_the_other_side() {
        let mut out = Outgoing::default();
        for stream in 0..40 {
            let head = [b'x'; 60_000];
            frame::write_block(out.frames(), 2 * stream + 1, true, 16_384, |block| {
                block.extend_from_slice(&head)
            });
        }
        assert!(out.is_full() && !out.is_stuffed());
        let mut pings = 0;
        while !out.is_stuffed() {
            out.reply(frame::PING, frame::ACK, 0, &[0; 8]);
            pings += 1;
        }
        assert_eq!(pings, MOST / (frame::HEAD + 8) + 1);
    }
}
