//! The body of a client's request, with its bounds.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{
    activity::Activity,
    exchange::{BodyFailure, BodyState, Exchange},
    headers::Headers,
    http2_body::Http2Body,
    inbound::{Inbound, SharedInbound},
    thread_bound::ThreadBound,
};
use crate::{access::Lease, revocation::Cut, types::fields::Fields, upstream::Rewind};

/// The limits of a request's body in size and time.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyBounds {
    /// Bytes.
    pub(super) limit: u64,
    /// The moment by which the response's head is due if the body brings nothing.
    pub(super) due: u64,
    /// Bytes a second that push that moment ahead.
    pub(super) min_rate: u64,
    /// How long the upstream may take once the body is complete.
    pub(super) response_timeout: Duration,
}

/// The body of a request, as it arrives on the client's connection.
pub enum Incoming {
    /// On one of HTTP/1.1.
    Http1(Arc<SharedInbound>),
    /// On a stream of HTTP/2.
    Http2(Http2Body),
}

impl Incoming {
    /// Returns the body of the request whose head was read last on a connection of HTTP/1.1, if it has one.
    pub(super) fn of(inbound: &Arc<SharedInbound>) -> Option<Self> {
        let incoming = Self::Http1(inbound.clone());
        (incoming.left() != Some(0)).then_some(incoming)
    }

    /// Returns the number of bytes that are still to come. None if it is not known.
    pub(super) fn left(&self) -> Option<u64> {
        match self {
            Self::Http1(inbound) => inbound.borrow().as_ref().map_or(Some(0), Inbound::left),
            Self::Http2(body) => body.left(),
        }
    }

    /// Returns whether nothing more comes, not even trailers.
    fn is_end_stream(&self) -> bool {
        match self {
            Self::Http1(_) => self.left() == Some(0),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn poll_data(&mut self, cx: &mut Context<'_>, activity: &Activity) -> Poll<Option<io::Result<Bytes>>> {
        let inbound = match self {
            Self::Http1(inbound) => inbound,
            Self::Http2(body) => return body.poll_data(cx, activity),
        };
        match &mut *inbound.borrow_mut() {
            Some(inbound) => inbound.poll_data(cx, activity),
            None => Poll::Ready(Some(Err(io::ErrorKind::NotConnected.into()))),
        }
    }
}

/// The body of a client's request, on its way to an upstream.
#[derive(Default)]
pub enum RequestBody {
    /// There is none.
    #[default]
    Empty,
    /// As it arrives.
    Streaming(Box<Streaming>),
}

/// A body that arrives while it is forwarded.
pub struct Streaming {
    incoming: Incoming,
    exchange: Arc<ThreadBound<Exchange>>,
    bounds: BodyBounds,
    received: u64,
    /// What the body ends with, if it turns out to be a long one.
    lease: Option<Lease>,
    /// What trailers must not say.
    headers: Arc<Headers>,
    /// What was read before a server was asked, and whether it was all.
    ahead: BytesMut,
    is_read: bool,
    /// Trailers that were taken before.
    trailers: Option<HeaderMap>,
}

impl RequestBody {
    pub(super) fn new(
        incoming: Option<Incoming>,
        exchange: &Arc<ThreadBound<Exchange>>,
        bounds: BodyBounds,
        lease: Option<&Lease>,
        headers: &Arc<Headers>,
    ) -> Self {
        let is_empty = incoming.as_ref().is_none_or(|incoming| incoming.left() == Some(0));
        if is_empty && incoming.is_some() {
            exchange.body_is(BodyState::Complete);
        }
        // Nobody waits for the bytes of one that has none.
        let first =
            if is_empty { exchange.moment(bounds.response_timeout) } else { exchange.next_body_byte() };
        exchange.expect_by(bounds.due.min(first));
        // Trailers may follow no byte.
        let Some(incoming) = incoming.filter(|incoming| !incoming.is_end_stream()) else {
            return Self::Empty;
        };
        let lease = lease.filter(|lease| lease.principal().is_some()).cloned();
        let (exchange, headers) = (exchange.clone(), headers.clone());
        Self::Streaming(Box::new(Streaming {
            incoming,
            exchange,
            bounds,
            received: 0,
            lease,
            headers,
            ahead: BytesMut::new(),
            is_read: false,
            trailers: None,
        }))
    }
}

impl Streaming {
    /// Reads on until the body is there, or so many bytes of it.
    ///
    /// # Errors
    /// The body's own, which its exchange knows.
    pub(super) async fn read_ahead(&mut self, most: usize) -> io::Result<()> {
        poll_fn(|cx| self.poll_ahead(cx, most)).await
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<()>> {
        while self.ahead.len() < most && !self.is_read && self.incoming.left() != Some(0) {
            match ready!(self.poll_data(cx)).transpose()? {
                // Copied, since many parts are small.
                Some(data) => self.ahead.extend_from_slice(&data),
                None => self.is_read = true,
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(self.ahead.split().freeze()))));
        }
        if let Some(trailers) = self.trailers.take() {
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        let data = if self.is_read { None } else { ready!(self.poll_data(cx)) };
        Poll::Ready(match data {
            Some(data) => Some(data.map(Frame::data)),
            None => self.take_trailers().map(|trailers| Ok(Frame::trailers(trailers.into()))),
        })
    }

    /// Takes the trailers, which are there once the body was read: what is left of them when they are stripped like headers.
    fn take_trailers(&self) -> Option<Fields> {
        let Incoming::Http2(body) = &self.incoming else { return None };
        let mut trailers = body.trailers()?;
        self.headers.strip(&mut trailers, false, false);
        (trailers.iter().len() > 0).then_some(trailers)
    }

    fn fail(&self, failure: BodyFailure) -> io::Error {
        self.exchange.body_fails(failure);
        io::Error::other("the request's body was given up")
    }

    fn go_on(&mut self, cx: &Context<'_>) -> io::Result<()> {
        if self.received == 0 {
            return Ok(());
        }
        let watched = self.lease.take().map_or(Ok(()), |lease| self.exchange.watch(&lease, cx));
        match watched.err().or_else(|| self.exchange.cut()) {
            None => Ok(()),
            Some(Cut::Stale) => Err(self.fail(BodyFailure::Stale)),
            Some(Cut::Config) => Err(self.fail(BodyFailure::Forbidden)),
            Some(_) => Err(self.fail(BodyFailure::Dead)),
        }
    }

    /// Returns when the response's head is due, given the bytes that have arrived.
    fn due(&self) -> u64 {
        self.bounds.due + self.received.saturating_mul(1_000) / self.bounds.min_rate
    }

    /// The whole body has arrived: now it is the upstream's turn.
    fn complete(&self) {
        self.exchange.body_is(BodyState::Complete);
        self.exchange.upload_ends();
        self.exchange.expect_by(self.due().min(self.exchange.moment(self.bounds.response_timeout)));
    }

    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if self.exchange.is_expired() {
            return Poll::Ready(Some(Err(self.fail(BodyFailure::Late))));
        }
        let data = match self.incoming.poll_data(cx, self.exchange.activity()) {
            Poll::Pending => {
                // A body that is incomplete after its first part is a long one.
                if let Err(error) = self.go_on(cx) {
                    return Poll::Ready(Some(Err(error)));
                }
                if self.incoming.left() != Some(0) {
                    self.exchange.body_is(BodyState::Awaited);
                }
                return Poll::Pending;
            }
            Poll::Ready(data) => data,
        };
        let data = match data {
            Some(Ok(data)) => data,
            Some(Err(_)) => return Poll::Ready(Some(Err(self.fail(BodyFailure::Malformed)))),
            None => {
                self.complete();
                return Poll::Ready(None);
            }
        };
        if let Err(error) = self.go_on(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        let length = data.len() as u64;
        self.received += length;
        if self.received > self.bounds.limit {
            return Poll::Ready(Some(Err(self.fail(BodyFailure::TooLarge))));
        }
        if self.incoming.left() == Some(0) {
            // A body is not polled again after its last byte.
            self.exchange.upload_moves(length, self.due());
            self.complete();
        } else {
            self.exchange.body_is(BodyState::Open);
            let due = self.due().min(self.exchange.next_body_byte());
            self.exchange.upload_moves(length, due);
        }
        Poll::Ready(Some(Ok(data)))
    }
}

impl Rewind for RequestBody {
    fn put_back(&mut self, bytes: BytesMut, trailers: Option<HeaderMap>) {
        if let Self::Streaming(body) = self {
            let rest = std::mem::replace(&mut body.ahead, bytes);
            body.ahead.unsplit(rest);
            body.trailers = trailers;
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Streaming(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Streaming(body) if !body.ahead.is_empty() || body.trailers.is_some() => false,
            // Trailers may follow the last byte.
            Self::Streaming(body) => body.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Streaming(body) => {
                let left = if body.is_read { Some(0) } else { body.incoming.left() };
                left.map_or_else(SizeHint::default, |left| {
                    SizeHint::with_exact(left + body.ahead.len() as u64)
                })
            }
        }
    }
}
