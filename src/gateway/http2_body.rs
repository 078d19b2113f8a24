//! The body of a request on a stream of HTTP/2.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::RecvStream;
use http::StatusCode;

use super::{activity::Activity, interim::Interim};
use crate::types::fields::Fields;

/// The body of a request on a stream.
pub struct Http2Body {
    stream: RecvStream,
    /// The bytes that are still to come, if the head says so.
    left: Option<u64>,
    /// Whether the client waits for `100 Continue`.
    expects: bool,
}

impl Http2Body {
    /// Creates the body of a request whose head was read. `left` is its length, if the head says so; `expects` tells whether
    /// the client waits for `100 Continue`.
    pub(super) fn new(stream: RecvStream, left: Option<u64>, expects: bool) -> Self {
        Self { stream, left, expects }
    }

    /// Returns the number of bytes that are still to come. None if it is not known.
    pub(super) fn left(&self) -> Option<u64> {
        if self.stream.is_end_stream() { Some(0) } else { self.left }
    }

    /// Reads a part of the body. Returns none at its end. Trailers are dropped.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        activity: &Activity,
    ) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            if activity.budget.is_spent() {
                // The stream's task sees to it that it comes back.
                return Poll::Pending;
            }
            let polled = self.stream.poll_data(cx);
            if polled.is_pending() && std::mem::take(&mut self.expects) {
                activity.hint(Interim { status: StatusCode::CONTINUE, fields: Fields::default() });
            }
            let data = match ready!(polled) {
                None => return Poll::Ready(None),
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                Some(Ok(data)) => data,
            };
            activity.budget.spends(data.len());
            // The window opens as far as was passed on.
            if self.stream.flow_control().release_capacity(data.len()).is_err() {
                return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
            }
            self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
            if !data.is_empty() || self.stream.is_end_stream() {
                return Poll::Ready(Some(Ok(data)));
            }
        }
    }
}
