//! The connections that one worker keeps to one upstream.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use hyper::body::{Frame, Incoming, SizeHint};
use tokio::net::TcpStream;

use super::Connection;
use crate::config;

/// An idle connection is not used after this time: servers commonly close at 60 s or later, and
/// a request on a connection that is just being closed is lost.
const MAX_IDLE: Duration = Duration::from_secs(50);

/// An upstream as all workers see it.
#[derive(Debug)]
pub struct Upstream {
    /// What the config says.
    pub config: config::Upstream,
    /// Its number, as routes refer to it.
    pub index: u32,
}

struct Idle<B: hyper::body::Body + 'static> {
    // Boxed from its making to its end: it is moved at each request, and is large.
    connection: Box<Connection<B>>,
    since: Instant,
}

/// One worker's connections to one upstream. The lock is never contended: it is there because
/// futures must be `Send`.
pub struct Pool<B: hyper::body::Body + 'static> {
    upstream: Arc<Upstream>,
    capacity: usize,
    idle: Mutex<Vec<Idle<B>>>,
}

impl<B> Pool<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// An empty pool for one of `workers` workers.
    pub fn new(upstream: Arc<Upstream>, workers: usize) -> Self {
        let capacity = upstream.config.idle_connections.div_ceil(workers.max(1));
        Self { upstream, capacity, idle: Mutex::default() }
    }

    /// The upstream.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// An idle connection that is still good: the one that rested least.
    pub fn take(&self) -> Option<Box<Connection<B>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(mut candidate) = idle.pop() {
            if candidate.connection.is_idle() {
                return Some(candidate.connection);
            }
        }
        None
    }

    /// Makes a connection.
    ///
    /// # Errors
    /// When nobody takes it within `connect_timeout`.
    pub async fn connect(&self) -> io::Result<Box<Connection<B>>> {
        let config = &self.upstream.config;
        let connect = TcpStream::connect(config.authority.as_str());
        let socket = pingora_timeout::timeout(config.connect_timeout, connect)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no connection in time"))??;
        socket.set_nodelay(true)?;
        Ok(Box::new(Connection::start(socket).await.map_err(io::Error::other)?))
    }

    /// Takes a connection back if there is room; otherwise it is closed. Whether it is good for
    /// another request is found out when it is taken: by then the last of its answer has been
    /// written, and its read buffer is its own again.
    pub fn put(&self, connection: Box<Connection<B>>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.capacity {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes connections that rested too long or that the other side has closed.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain_mut(|idle| now - idle.since < MAX_IDLE && idle.connection.is_idle());
        idle.shrink_to_fit();
    }
}

/// The body of an upstream's answer. It drives the connection that it comes from, and gives it
/// back to the pool once it has been read to its end.
pub struct Body<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    incoming: Incoming,
    connection: Option<Box<Connection<B>>>,
    pool: Arc<Pool<B>>,
    ended: bool,
}

impl<B> Body<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    /// The body `incoming` that arrives on `connection`.
    pub fn new(incoming: Incoming, connection: Box<Connection<B>>, pool: Arc<Pool<B>>) -> Self {
        Self { incoming, connection: Some(connection), pool, ended: false }
    }
}

impl<B> hyper::body::Body for Body<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let this = self.get_mut();
        let Some(connection) = &mut this.connection else { return Poll::Ready(None) };
        loop {
            let incoming = &mut this.incoming;
            return match connection.poll_with(cx, |cx| Pin::new(&mut *incoming).poll_frame(cx)) {
                // Trailers are not passed on: they could be read as headers.
                Poll::Ready(Some(Ok(frame))) if !frame.is_data() => continue,
                Poll::Ready(None) => {
                    this.ended = true;
                    Poll::Ready(None)
                }
                other => other,
            };
        }
    }

    fn is_end_stream(&self) -> bool {
        self.ended || self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl<B> Drop for Body<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    fn drop(&mut self) {
        if hyper::body::Body::is_end_stream(self)
            && let Some(connection) = self.connection.take()
        {
            self.pool.put(connection);
        }
    }
}
