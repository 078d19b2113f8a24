//! The body of an upstream's response.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{
    Cluster, Connection,
    exchange::Exchange,
    pool::{InFlight, Pool},
};

/// The body of an upstream's response. It drives its connection, and returns it to the pool when the exchange is over.
pub struct Body<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    source: Source<B>,
    pool: Arc<Pool<B>>,
}

/// What the body is read from.
enum Source<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    Http1(Box<Connection<B>>),
    Http2(Box<Exchange<B>>, #[expect(dead_code, reason = "it counts by being there")] InFlight),
    Nothing,
}

impl<B> Body<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Creates the body that follows the head of a response on `connection`.
    pub(super) fn new(connection: Box<Connection<B>>, pool: Arc<Pool<B>>) -> Self {
        Self { source: Source::Http1(connection), pool }
    }

    /// Creates the body of a response by HTTP/2.
    pub(super) fn of_exchange(exchange: Exchange<B>, in_flight: InFlight, pool: Arc<Pool<B>>) -> Self {
        Self { source: Source::Http2(Box::new(exchange), in_flight), pool }
    }

    /// Returns the cluster of the server.
    pub fn cluster(&self) -> &Cluster<B> {
        self.pool.cluster()
    }

    /// Sends the request on while the response has to wait. Returns whether both may go on.
    pub fn sends_on(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.source {
            Source::Http1(connection) => !matches!(connection.poll_upload(cx), Poll::Ready(Err(_))),
            Source::Http2(exchange, _) => !matches!(exchange.poll_upload(cx), Some(Err(_))),
            Source::Nothing => true,
        }
    }

    /// Returns whether all of it was received already.
    pub fn is_there(&self) -> bool {
        match &self.source {
            Source::Http1(connection) => connection.has_whole_response(),
            Source::Http2(exchange, _) => exchange.is_end_stream(),
            Source::Nothing => true,
        }
    }

    /// Notes that the server has broken the response off.
    pub fn was_cut_off(&self) {
        self.pool.cluster().cut_off(self.pool.endpoint());
    }
}

impl<B> http_body::Body for Body<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().source {
            Source::Http1(connection) => {
                connection.poll_data(cx).map(|data| data.map(|data| data.map(Frame::data)))
            }
            Source::Http2(exchange, _) => exchange.poll_frame(cx),
            Source::Nothing => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Http1(connection) => connection.response().is_done(),
            Source::Http2(exchange, _) => exchange.is_end_stream(),
            Source::Nothing => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Http1(connection) => {
                connection.response().remaining().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Source::Http2(exchange, _) => exchange.size_hint(),
            Source::Nothing => SizeHint::with_exact(0),
        }
    }
}

impl<B> Drop for Body<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    fn drop(&mut self) {
        if http_body::Body::is_end_stream(self) {
            self.pool.endpoint().standing.completes();
        }
        if let Source::Http1(connection) = std::mem::replace(&mut self.source, Source::Nothing) {
            self.pool.put(connection);
        }
    }
}
