//! The body of an upstream's response.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::{Cluster, Connection, pool::Pool};

/// The body of an upstream's response. It drives its connection, and returns it to the pool when the exchange is over.
pub struct Body<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    connection: Option<Box<Connection<B>>>,
    pool: Arc<Pool<B>>,
}

impl<B> Body<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Creates the body that follows the head of a response on `connection`.
    pub(super) fn new(connection: Box<Connection<B>>, pool: Arc<Pool<B>>) -> Self {
        Self { connection: Some(connection), pool }
    }

    /// Returns the cluster of the server.
    pub fn cluster(&self) -> &Cluster<B> {
        self.pool.cluster()
    }
}

impl<B> http_body::Body for Body<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match &mut self.get_mut().connection {
            Some(connection) => connection.poll_data(cx).map(|data| data.map(|data| data.map(Frame::data))),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.connection.as_ref().is_none_or(|connection| connection.response().is_done())
    }

    fn size_hint(&self) -> SizeHint {
        match self.connection.as_ref().and_then(|connection| connection.response().remaining()) {
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

impl<B> Drop for Body<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.pool.put(connection);
        }
    }
}
