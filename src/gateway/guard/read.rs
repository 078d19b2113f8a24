//! The reading half of the guard.

use std::{
    future::Future,
    io,
    ops::ControlFlow,
    pin::Pin,
    task::{Context, Poll, ready},
};

use hyper::rt;
use tokio::io::{AsyncRead, ReadBuf};

use super::{CHUNKED_COST, Guard, Position, SMALL_CHUNK, SMALL_CHUNKS_AT_ONCE, StreamEnd};
use crate::error::Kind;

impl Guard {
    /// Hands over bytes that were read before. Continues if the socket should be read.
    fn before_reading(
        &mut self,
        cx: &mut Context<'_>,
        out: &mut rt::ReadBufCursor<'_>,
    ) -> ControlFlow<Poll<io::Result<()>>> {
        let pending = ControlFlow::Break(Poll::Pending);
        let handed_over = ControlFlow::Break(Poll::Ready(Ok(())));
        if self.activity().budget.is_spent() && !self.state.is_expired() && self.refusal.is_none() {
            // The connection's task sees to it that it comes back.
            return pending;
        }
        if self.decoded.is_empty() && self.good == 0 && !self.held.is_empty() && self.refusal.is_none() {
            self.judge_held();
        }
        if !self.decoded.is_empty() {
            self.hand_over_decoded(out);
            return handed_over;
        }
        if self.good > 0 {
            self.hand_over_held(out);
            return handed_over;
        }
        if self.refusal.is_none() && self.activity().head_is_late() {
            let head = self.held.split();
            self.refuse(Kind::RequestTimeout, &head);
        }
        if self.refusal.is_some() {
            return ControlFlow::Break(self.refused(cx));
        }
        if !self.held.is_empty() && self.must_wait() {
            self.activity().hold(cx);
            if self.held.len() >= self.limits.bytes {
                return pending;
            }
        }
        if let Some(pause) = &mut self.pause {
            if pause.as_mut().poll(cx).is_pending() {
                return pending;
            }
            self.pause = None;
        }
        ControlFlow::Continue(())
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
            if let ControlFlow::Break(done) = this.before_reading(cx, &mut out) {
                return done;
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
