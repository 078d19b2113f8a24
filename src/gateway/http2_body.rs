//! The body of a request on a stream of HTTP/2.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::StatusCode;

use super::{activity::Activity, interim::Interim};
use crate::{http2::Stream, types::fields::Fields};

/// The body of a request on a stream.
pub struct Http2Body {
    stream: Arc<Stream>,
    /// The bytes that are still to come, if the head says so.
    left: Option<u64>,
    /// Whether the client waits for `100 Continue`.
    expects: bool,
}

impl Http2Body {
    /// Creates the body of a request whose head was read. `left` is its length, if the head says so; `expects` tells whether
    /// the client waits for `100 Continue`.
    pub(super) fn new(stream: Arc<Stream>, left: Option<u64>, expects: bool) -> Self {
        Self { stream, left, expects }
    }

    /// Returns the number of bytes that are still to come. None if it is not known.
    pub(super) fn left(&self) -> Option<u64> {
        if self.stream.is_end_stream() { Some(0) } else { self.left }
    }

    /// Returns whether nothing more comes, not even trailers.
    pub(super) fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// Takes the trailers, which are there once the body was read.
    pub(super) fn trailers(&self) -> Option<Fields> {
        self.stream.trailers()
    }

    /// Reads a part of the body. Returns none at its end.
    pub(super) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        activity: &Activity,
    ) -> Poll<Option<io::Result<Bytes>>> {
        if activity.budget.is_spent() {
            // The stream's task sees to it that it comes back.
            return Poll::Pending;
        }
        let polled = self.stream.poll_data(cx);
        if polled.is_pending() && std::mem::take(&mut self.expects) {
            activity.hint(Interim { status: StatusCode::CONTINUE, fields: Fields::default() });
        }
        polled.map(|data| {
            let data = data?.map_err(io::Error::other);
            if let Ok(data) = &data {
                activity.budget.spends(data.len());
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
            }
            Some(data)
        })
    }
}
