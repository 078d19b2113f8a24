//! The connections that one worker keeps to one upstream.

use std::{
    io,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
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

struct Idle<B> {
    // Boxed from its making to its end: it is moved at each request, and is large.
    connection: Box<Connection<B>>,
    since: Instant,
}

/// One worker's connections to one upstream. The lock is never contended: it is there because
/// futures must be `Send`.
pub struct Pool<B> {
    upstream: Arc<Upstream>,
    capacity: usize,
    idle: Mutex<Vec<Idle<B>>>,
}

impl<B> Pool<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
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
        while let Some(candidate) = idle.pop() {
            if candidate.connection.is_quiet() {
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
        Ok(Box::new(Connection::new(socket)))
    }

    /// Takes a connection back if its exchange is over and there is room; otherwise it is closed.
    fn put(&self, connection: Box<Connection<B>>) {
        if !connection.is_complete() {
            return;
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < self.capacity {
            idle.push(Idle { connection, since: Instant::now() });
        }
    }

    /// Closes connections that rested too long or that the other side has closed.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|idle| now - idle.since < MAX_IDLE && idle.connection.is_quiet());
        idle.shrink_to_fit();
    }
}

/// The body of an upstream's answer. It drives the connection that it comes from, and gives it
/// back to the pool once the exchange is over.
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
    /// The body that arrives on `connection`, behind the head of an answer.
    pub fn new(connection: Box<Connection<B>>, pool: Arc<Pool<B>>) -> Self {
        Self { connection: Some(connection), pool }
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
        self.connection.as_ref().is_none_or(|connection| connection.answer().is_done())
    }

    fn size_hint(&self) -> SizeHint {
        match self.connection.as_ref().and_then(|connection| connection.answer().remaining()) {
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
