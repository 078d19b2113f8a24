//! One stream, as the task of its request uses it.

use std::{
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use http::StatusCode;

use super::{
    frame,
    hpack::encoder,
    reason::Reason,
    state::{Failure, Opener, Role, Shared, Slot, State},
};
use crate::{clock::coarse_millis, types::fields::Fields};

/// A stream. When it is dropped before its end it is reset.
#[derive(Debug)]
pub struct Stream {
    shared: Arc<Shared>,
    key: usize,
    id: u32,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.lock().leaves(self.key);
    }
}

/// The head of a request that is sent.
#[derive(Debug)]
pub struct RequestLine<'a> {
    /// Its method.
    pub method: &'a str,
    /// Whether the connection is one of TLS.
    pub is_tls: bool,
    /// The host that it asks for, with its port.
    pub authority: &'a [u8],
    /// Path and query.
    pub path: &'a str,
}

impl Opener {
    /// Returns whether another stream can be opened, of which there are at most so many.
    pub fn has_room(&self, most: usize) -> bool {
        self.0.lock().room(most) > 0
    }

    /// Returns whether the server has told how many streams it takes.
    pub fn is_settled(&self) -> bool {
        self.0.lock().is_settled
    }

    /// Returns whether no more streams can be opened.
    pub fn has_ended(&self) -> bool {
        self.0.lock().is_going
    }

    /// Opens a stream and sends the head of a request, with the lines that `lines` gives. `ends` tells that there is no body.
    ///
    /// # Errors
    /// [`Failure::Refused`].
    pub fn open<'a>(
        &self,
        request: &RequestLine<'_>,
        lines: impl Iterator<Item = (&'a str, &'a [u8])>,
        ends: bool,
    ) -> Result<Stream, Failure> {
        const MOST: u32 = i32::MAX as u32 - 1;
        let mut state = self.0.lock();
        if state.is_going || state.last >= MOST {
            state.is_going = true;
            return Err(Failure::Refused);
        }
        let id = if state.last == 0 { 1 } else { state.last + 2 };
        state.last = id;
        state.waits_since.get_or_insert_with(coarse_millis);
        let key = state.insert(id);
        if let Some(slot) = state.slot(key, id) {
            slot.has_sent_end = ends;
            slot.is_bodiless = request.method == "HEAD";
        }
        state.send_block(id, ends, |out| {
            encoder::request(out, request.method, request.is_tls, request.authority, request.path);
            lines.for_each(|(name, value)| encoder::line(out, name, value));
        });
        state.wake_driver();
        drop(state);
        Ok(Stream { shared: self.0.clone(), key, id })
    }
}

impl Stream {
    pub(super) fn new(shared: Arc<Shared>, key: usize, id: u32) -> Self {
        Self { shared, key, id }
    }

    /// Calls `act` with what is known of the stream.
    fn with<T>(&self, act: impl FnOnce(&mut State, usize) -> T) -> T {
        act(&mut self.shared.lock(), self.key)
    }

    /// Polls `ready` on the stream, and remembers the task if it is not.
    fn poll_slot<T>(&self, cx: &Context<'_>, ready: impl FnOnce(&mut Slot) -> Option<T>) -> Poll<T> {
        let mut state = self.shared.lock();
        let Some(slot) = state.slot(self.key, self.id) else { return Poll::Pending };
        match ready(slot) {
            Some(value) => Poll::Ready(value),
            None => {
                slot.waits(cx);
                Poll::Pending
            }
        }
    }

    /// Waits for the next head of the response, of which the last one is not interim.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn poll_head(&self, cx: &Context<'_>) -> Poll<Result<(StatusCode, Fields), Failure>> {
        self.poll_slot(cx, |slot| {
            if slot.heads.is_empty() { slot.failure.clone().map(Err) } else { Some(Ok(slot.heads.remove(0))) }
        })
    }

    /// Reads a part of the body. Returns none at its end.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn poll_data(&self, cx: &Context<'_>) -> Poll<Option<Result<Bytes, Failure>>> {
        let mut state = self.shared.lock();
        let is_server = state.role == Role::Server;
        if let Some(slot) = state.slot(self.key, self.id)
            && slot.taken > 0
        {
            // Whoever asks for more has passed on what it got.
            let length = std::mem::take(&mut slot.taken);
            state.releases(self.key, length);
            if is_server {
                state.credits(length);
            }
        }
        let Some(slot) = state.slot(self.key, self.id) else { return Poll::Pending };
        if is_server && slot.expected == Some(0) && !slot.has_received_end && slot.failure.is_none() {
            // It may turn out to be longer than was told, and would be whole without its last part.
            slot.waits(cx);
            return Poll::Pending;
        }
        // What a request has that will never be whole is not passed on.
        let is_void = is_server && slot.failure.is_some() && !slot.has_received_end;
        if !slot.data.is_empty() && !is_void {
            let data = slot.data.split().freeze();
            slot.taken = data.len() as u32;
            return Poll::Ready(Some(Ok(data)));
        }
        if slot.has_received_end {
            return Poll::Ready(None);
        }
        if let Some(failure) = &slot.failure {
            return Poll::Ready(Some(Err(failure.clone())));
        }
        slot.waits(cx);
        Poll::Pending
    }

    /// Takes the trailers, which are there once the body was read.
    pub fn trailers(&self) -> Option<Fields> {
        self.with(|state, key| state.slots.get_mut(key)?.trailers.take())
    }

    /// Returns whether the body was read, and no trailers are left.
    pub fn is_end_stream(&self) -> bool {
        self.with(|state, key| {
            let slot = state.slots.get(key);
            slot.is_none_or(|slot| slot.has_received_end && slot.data.is_empty() && slot.trailers.is_none())
        })
    }

    /// Returns whether the stream has failed.
    pub fn has_failed(&self) -> bool {
        self.with(|state, key| state.slots.get(key).is_none_or(|slot| slot.failure.is_some()))
    }

    /// Waits for the failure of the stream.
    pub fn poll_failure(&self, cx: &Context<'_>) -> Poll<Failure> {
        self.poll_slot(cx, |slot| slot.failure.clone())
    }

    /// Sends the head of a response. `ends` tells that nothing follows.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn send_head<'a>(
        &self,
        status: StatusCode,
        lines: impl Iterator<Item = (&'a str, &'a [u8])>,
        ends: bool,
    ) -> Result<(), Failure> {
        self.send_lines(ends, |out| {
            encoder::status(out, status);
            lines.for_each(|(name, value)| encoder::line(out, name, value));
        })
    }

    /// Sends trailers, the end of the message.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn send_trailers<'a>(&self, lines: impl Iterator<Item = (&'a str, &'a [u8])>) -> Result<(), Failure> {
        self.send_lines(true, |out| lines.for_each(|(name, value)| encoder::line(out, name, value)))
    }

    fn send_lines(&self, ends: bool, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), Failure> {
        self.with(|state, key| {
            let Some(slot) = state.slots.get_mut(key) else { return Ok(()) };
            if let Some(failure) = &slot.failure {
                return Err(failure.clone());
            }
            slot.has_sent_end |= ends;
            let id = slot.id;
            state.send_block(id, ends, encode);
            state.uncount_if_over(key);
            state.wake_driver();
            Ok(())
        })
    }

    /// Sends `part` of a body, as far as there is room, and takes away what was sent. Ready when all of it was. `ends` tells that
    /// it is the last part.
    ///
    /// # Errors
    /// [`Failure`].
    pub fn poll_send(&self, cx: &Context<'_>, part: &mut Bytes, ends: bool) -> Poll<Result<(), Failure>> {
        let mut state = self.shared.lock();
        let state = &mut *state;
        let mut has_moved = false;
        loop {
            let Some(slot) = state.slots.get_mut(self.key) else { return Poll::Ready(Ok(())) };
            if let Some(failure) = &slot.failure {
                return Poll::Ready(Err(failure.clone()));
            }
            let window = usize::try_from(slot.send_window.min(state.send_window)).unwrap_or_default();
            let length = part.len().min(window).min(state.out.room()).min(frame::MAX_LENGTH);
            if length == 0 && !part.is_empty() {
                slot.waits(cx);
                if slot.send_window > 0 && !std::mem::replace(&mut slot.is_blocked, true) {
                    state.blocked.push((self.key, self.id));
                }
                if has_moved {
                    state.wake_driver();
                }
                return Poll::Pending;
            }
            let is_end = ends && length == part.len();
            slot.send_window -= length as i64;
            state.send_window -= length as i64;
            slot.has_sent_end |= is_end;
            let flags = if is_end { frame::END_STREAM } else { 0 };
            if length > 0 || is_end {
                state.grants();
                frame::write(state.out.frames(), frame::DATA, flags, self.id, &part[..length]);
                has_moved = true;
            }
            part.advance(length);
            if part.is_empty() {
                if is_end {
                    state.uncount_if_over(self.key);
                }
                if has_moved {
                    state.wake_driver();
                }
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Resets the stream.
    pub fn reset(&self, reason: Reason) {
        self.with(|state, key| state.resets(key, reason));
    }
}

impl Slot {
    /// Remembers the task that waits for something.
    fn waits(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }
}
