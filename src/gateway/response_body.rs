//! The body of a response to a client.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::{
    exchange::{EndOfResponse, Exchange},
    record::Record,
    request_body::RequestBody,
    thread_bound::ThreadBound,
};
use crate::{access::Lease, clock::coarse_millis, upstream};

/// The body of a response to a client.
pub struct ResponseBody {
    source: Source,
    /// Why the body breaks off, told only once what came before has had a turn to be written.
    failure: Option<io::Error>,
    /// What the body ends with, if it turns out to be a long one.
    lease: Option<Lease>,
    /// Whether a part of it was sent already.
    begun: bool,
    record: Option<Box<Record>>,
    // Dropped last: the exchange is over when the body is.
    end: EndOfResponse,
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let (Some(record), Some(exchange)) = (&mut self.record, self.end.0.get()) {
            record.request_bytes = exchange.request_bytes();
        }
    }
}

enum Source {
    Whole(Option<Bytes>),
    Upstream(upstream::Body<RequestBody>),
}

impl ResponseBody {
    /// A body that is there as a whole.
    pub(super) fn whole(bytes: Bytes, exchange: &Arc<ThreadBound<Exchange>>) -> Self {
        let bytes = Some(bytes).filter(|bytes| !bytes.is_empty());
        Self::new(Source::Whole(bytes), exchange)
    }

    /// A body that arrives from an upstream. If it goes on for long, it ends with the lease.
    pub(super) fn upstream(
        body: upstream::Body<RequestBody>,
        exchange: &Arc<ThreadBound<Exchange>>,
        lease: Lease,
    ) -> Self {
        let mut body = Self::new(Source::Upstream(body), exchange);
        body.lease = Some(lease).filter(|lease| lease.principal().is_some());
        body
    }

    fn new(source: Source, exchange: &Arc<ThreadBound<Exchange>>) -> Self {
        let end = EndOfResponse(exchange.clone());
        Self { source, failure: None, lease: None, begun: false, record: None, end }
    }

    /// The line that the request leaves once the body ends.
    pub(super) fn leaves(&mut self, record: Option<Box<Record>>) {
        self.record = record;
    }

    fn count(&mut self, bytes: usize) {
        if let Some(record) = &mut self.record {
            record.response_bytes += bytes as u64;
        }
    }

    /// The upstream ended the response before its end.
    fn broke_off(&mut self, error: &io::Error) {
        if let Some(kind) = self.end.0.body_failure() {
            tracing::debug!(reason = kind.code(), "a response was given up with its request's body");
            return;
        }
        let Source::Upstream(body) = &self.source else { return };
        let cluster = body.cluster();
        cluster.counters.aborted.inc();
        let mut request_id = None;
        if let Some(record) = &mut self.record {
            record.aborted = true;
            request_id = Some(record.request_id());
        }
        if let Some(suppressed) = cluster.warnings.admit(coarse_millis()) {
            let (name, id) = (&cluster.config.name, request_id.unwrap_or_default());
            tracing::warn!(upstream.name = name, request.id = id, %error, suppressed, "response broke off");
        }
    }

    /// Whether the body may wait for a client that has no room: then it is a long one.
    pub(super) fn may_wait(&mut self, cx: &Context<'_>) -> bool {
        self.begun = true;
        self.may_go_on(cx)
    }

    /// Whether the body may go on, once it has turned out to be a long one.
    fn may_go_on(&mut self, cx: &Context<'_>) -> bool {
        let exchange = &self.end.0;
        // Asked again each time: an upload that ends meanwhile ends the watch over itself.
        self.lease.as_ref().is_none_or(|lease| exchange.watch(lease, cx).is_ok()) && exchange.cut().is_none()
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let body = match &mut this.source {
            Source::Whole(bytes) => {
                let bytes = bytes.take();
                this.count(bytes.as_ref().map_or(0, Bytes::len));
                return Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))));
            }
            Source::Upstream(body) => body,
        };
        if let Some(failure) = this.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        if this.end.0.is_expired() {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        // Who downloads as fast as the upstream sends gives the others of the worker their turn, too.
        // The connection's task sees to it that it comes back.
        if this.end.0.budget().is_spent() {
            return Poll::Pending;
        }
        let polled = Pin::new(body).poll_frame(cx);
        // A short response is over with its first part; whatever goes on ends with its token.
        let goes_on = match &polled {
            Poll::Ready(Some(Ok(_))) => std::mem::replace(&mut this.begun, true),
            Poll::Ready(_) => false,
            Poll::Pending => true,
        };
        if goes_on && !this.may_go_on(cx) {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                let length = frame.data_ref().map_or(0, Bytes::len);
                this.end.0.response_moves();
                this.end.0.budget().spends(length);
                this.count(length);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.broke_off(&error);
                this.failure = Some(io::Error::other(error));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Whole(bytes) => bytes.is_none(),
            Source::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Upstream(body) => body.size_hint(),
        }
    }
}
