//! The body of a response to a client.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
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
    /// What the body ends with, if it turns out to be a long one.
    lease: Option<Lease>,
    /// Whether a part of it was sent already.
    begun: bool,
    record: Option<Box<Record>>,
    /// What was read while the client took nothing, and what ends it.
    ahead: Option<Box<Ahead>>,
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

/// What waits for the client.
#[derive(Default)]
struct Ahead {
    data: BytesMut,
    /// What stands behind it.
    trailers: Option<HeaderMap>,
    /// Why the body breaks off, told only once what came before has had a turn to be written.
    failure: Option<io::Error>,
}

impl Ahead {
    fn add(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            // Copied, since many parts are small.
            Ok(data) => self.data.extend_from_slice(&data),
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
    }

    fn take(&mut self) -> Option<Frame<Bytes>> {
        if self.data.is_empty() {
            return self.trailers.take().map(Frame::trailers);
        }
        Some(Frame::data(std::mem::take(&mut self.data).freeze()))
    }

    fn is_empty(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
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

    /// A body that is there as a whole, with trailers after it.
    pub(super) fn with_trailers(
        bytes: Bytes,
        trailers: HeaderMap,
        exchange: &Arc<ThreadBound<Exchange>>,
    ) -> Self {
        let mut body = Self::new(Source::Whole(None), exchange);
        body.ahead = Some(Box::new(Ahead { data: bytes.into(), trailers: Some(trailers), failure: None }));
        body
    }

    fn new(source: Source, exchange: &Arc<ThreadBound<Exchange>>) -> Self {
        let end = EndOfResponse(exchange.clone());
        Self { source, lease: None, begun: false, record: None, ahead: None, end }
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
        body.was_cut_off();
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

    /// Whether the body may wait for a client that has no room: then it is a long one. What comes meanwhile is read up to a bound,
    /// of which `waiting` bytes are on their way already.
    pub(super) fn may_wait(&mut self, cx: &mut Context<'_>, waiting: usize) -> bool {
        self.begun = true;
        if !self.may_go_on(cx) {
            return false;
        }
        let most = match &self.source {
            Source::Whole(_) => 0,
            Source::Upstream(body) => body.cluster().config.buffer.response,
        };
        loop {
            let (held, ends) = self.ahead.as_ref().map_or((0, false), |ahead| {
                (ahead.data.len(), ahead.trailers.is_some() || ahead.failure.is_some())
            });
            // What does not fit as a whole frees nobody.
            let left = match &self.source {
                Source::Upstream(body) => body.size_hint().exact().unwrap_or(1),
                Source::Whole(_) => break,
            };
            if ends || left.saturating_add((held + waiting) as u64) > most as u64 {
                break;
            }
            // A failure is told by the next poll.
            let Poll::Ready(Some(Ok(frame))) = self.poll_upstream(cx) else { break };
            self.ahead.get_or_insert_default().add(frame);
        }
        self.frees_upstream();
        // Whoever does not read may go on to write.
        match &mut self.source {
            Source::Upstream(body) => body.sends_on(cx),
            Source::Whole(_) => true,
        }
    }

    fn holds_something(&self) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| !ahead.is_empty())
    }

    /// Lets the upstream's connection go once the body has ended.
    fn frees_upstream(&mut self) {
        if let Source::Upstream(body) = &self.source
            && body.is_end_stream()
            && self.holds_something()
        {
            self.source = Source::Whole(None);
        }
    }

    /// Whether the body may go on, once it has turned out to be a long one.
    fn may_go_on(&mut self, cx: &Context<'_>) -> bool {
        let exchange = &self.end.0;
        // Asked again each time: an upload that ends meanwhile ends the watch over itself.
        self.lease.as_ref().is_none_or(|lease| exchange.watch(lease, cx).is_ok()) && exchange.cut().is_none()
    }
}

impl ResponseBody {
    fn poll_upstream(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let Source::Upstream(body) = &mut self.source else { return Poll::Ready(None) };
        if let Some(failure) = self.ahead.as_mut().and_then(|ahead| ahead.failure.take()) {
            return Poll::Ready(Some(Err(failure)));
        }
        if self.end.0.is_expired() {
            return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into())));
        }
        // Who downloads as fast as the upstream sends gives the others of the worker their turn, too.
        // The connection's task sees to it that it comes back.
        if self.end.0.budget().is_spent() {
            return Poll::Pending;
        }
        let polled = Pin::new(body).poll_frame(cx);
        // A short response is over with its first part; whatever goes on ends with its token.
        let goes_on = match &polled {
            Poll::Ready(Some(Ok(_))) => std::mem::replace(&mut self.begun, true),
            Poll::Ready(_) => false,
            Poll::Pending => true,
        };
        if goes_on && !self.may_go_on(cx) {
            return Poll::Ready(Some(Err(io::ErrorKind::ConnectionAborted.into())));
        }
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                self.end.0.response_moves();
                self.end.0.budget().spends(frame.data_ref().map_or(0, Bytes::len));
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                self.broke_off(&error);
                self.ahead.get_or_insert_default().failure = Some(io::Error::other(error));
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let ahead = this.ahead.as_mut().and_then(|ahead| ahead.take());
        let polled = match (ahead, &mut this.source) {
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, Source::Whole(bytes)) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            (None, Source::Upstream(_)) => this.poll_upstream(cx),
        };
        if let Poll::Ready(Some(Ok(frame))) = &polled {
            this.count(frame.data_ref().map_or(0, Bytes::len));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        if self.holds_something() {
            return false;
        }
        match &self.source {
            Source::Whole(bytes) => bytes.is_none(),
            Source::Upstream(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            // Trailers follow where no length is told.
            _ if self.ahead.as_ref().is_some_and(|ahead| ahead.trailers.is_some()) => SizeHint::default(),
            Source::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Source::Upstream(body) => body.size_hint(),
        }
    }
}
