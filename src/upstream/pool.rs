//! The connections to one upstream: how many there may be, and who gets the next.

use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use thiserror::Error;
use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use super::{Connection, resolve::Resolver};
use crate::{
    clock::coarse_millis,
    config,
    telemetry::{Counter, WarningLimit},
    types::framing::HeadLimits,
};

/// Why there is no connection. The text is for the log.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The upstream has as many connections as it may, and none became free in time.
    #[error("all connections are busy")]
    Busy,
    /// No server took the connection in time.
    #[error("no connection in time")]
    Timeout,
    /// The server, or the lookup of its name, failed.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// An upstream as all workers see it.
pub struct Upstream<B> {
    /// What the config says.
    pub config: config::Upstream,
    /// Counts responses that it broke off.
    pub aborted: Counter,
    /// Warnings of its failures.
    pub warnings: WarningLimit,
    resolver: Resolver,
    /// One permit for each connection that may be open.
    slots: Arc<Semaphore>,
    waiting: AtomicUsize,
    /// The idle connections of each worker. A worker uses its own; it looks at the others' only when there is
    /// no slot left, to close one of theirs.
    workers: Vec<Mutex<Shelf<B>>>,
}

/// How many connections an upstream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// With a request on them, or being made.
    pub active: usize,
    /// Resting.
    pub idle: usize,
    /// Requests that wait for one.
    pub waiting: usize,
}

/// What one worker keeps.
struct Shelf<B> {
    idle: Vec<Idle<B>>,
    /// Requests that wait for a connection, in the order in which they came.
    waiters: VecDeque<oneshot::Sender<Box<Connection<B>>>>,
    /// Connections that were handed to them one after the other while other workers' requests waited.
    handed_over: u32,
}

/// How many connections a worker keeps to itself before it lets another worker's request have one.
const MAX_HANDED_OVER: u32 = 8;

struct Idle<B> {
    // Boxed from its making to its end: it is moved at each request, and is large.
    connection: Box<Connection<B>>,
    /// A coarse time, as the connection's own.
    since: u64,
}

fn span(since: u64, now: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(since))
}

/// Says that a request may be forwarded. Without it there is no connection; what decides has the one type that says so.
pub trait Allowed {}

/// One worker's connections to one upstream.
pub struct Pool<B> {
    upstream: Arc<Upstream<B>>,
    worker: usize,
    capacity: usize,
}

impl<B> Upstream<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// An upstream that `workers` workers use; `aborted` counts its responses that broke off.
    pub fn new(config: config::Upstream, workers: usize, aborted: Counter) -> Self {
        let shelf = || Mutex::new(Shelf { idle: Vec::new(), waiters: VecDeque::new(), handed_over: 0 });
        Self {
            resolver: Resolver::new(&config.authority),
            slots: Arc::new(Semaphore::new(config.max_connections)),
            waiting: AtomicUsize::new(0),
            aborted,
            warnings: WarningLimit::default(),
            workers: (0..workers.max(1)).map(|_| shelf()).collect(),
            config,
        }
    }

    /// How many connections there are.
    pub fn connections(&self) -> Connections {
        let idle = (0..self.workers.len()).map(|worker| self.shelf(worker).idle.len()).sum();
        let open = self.config.max_connections.saturating_sub(self.slots.available_permits());
        Connections { active: open.saturating_sub(idle), idle, waiting: self.waiting.load(SeqCst) }
    }

    fn shelf(&self, worker: usize) -> MutexGuard<'_, Shelf<B>> {
        self.workers[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// A slot, if need be that of a connection that rests with another worker.
    fn slot_of_any(&self) -> Option<OwnedSemaphorePermit> {
        self.slot().or_else(|| {
            for worker in 0..self.workers.len() {
                let closed = self.shelf(worker).idle.pop();
                if closed.is_some() {
                    drop(closed);
                    return self.slot();
                }
            }
            None
        })
    }
}

/// Counts a request as waiting for as long as it does.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicUsize, most: usize) -> Option<Self> {
        let entered = count.fetch_add(1, SeqCst);
        let waiting = Self(count);
        (entered < most).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl<B> Pool<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// The pool of one worker of an upstream, by its number.
    pub fn new(upstream: Arc<Upstream<B>>, worker: usize) -> Self {
        let workers = upstream.workers.len();
        let capacity = upstream.config.idle_connections.div_ceil(workers);
        Self { upstream, worker: worker % workers, capacity }
    }

    /// The upstream.
    pub fn upstream(&self) -> &Upstream<B> {
        &self.upstream
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<B>> {
        self.upstream.shelf(self.worker)
    }

    /// An idle connection that is still good: the one that rested least.
    pub fn take(&self, _: &impl Allowed) -> Option<Box<Connection<B>>> {
        let mut shelf = self.shelf();
        if shelf.idle.is_empty() {
            return None;
        }
        let now = coarse_millis();
        while let Some(candidate) = shelf.idle.pop() {
            if self.is_good(&candidate, now) {
                return Some(candidate.connection);
            }
        }
        None
    }

    fn is_good(&self, idle: &Idle<B>, now: u64) -> bool {
        let config = &self.upstream.config;
        span(idle.since, now) < config.idle_timeout
            && span(idle.connection.made_at(), now) < config.max_age
            && idle.connection.is_quiet()
    }

    /// Makes a connection, or waits for one that another request gives back.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(&self, _: &impl Allowed) -> Result<Box<Connection<B>>, ConnectError> {
        let slot = loop {
            if let Some(slot) = self.upstream.slot_of_any() {
                break slot;
            }
            match self.wait().await? {
                Next::Connection(connection) if connection.is_quiet() => return Ok(connection),
                Next::Connection(_) => {}
                Next::Slot(slot) => break slot,
            }
        };
        let config = &self.upstream.config;
        let connect = async {
            let addresses = self.upstream.resolver.addresses().await?;
            TcpStream::connect(&*addresses).await
        };
        let socket = pingora_timeout::timeout(config.connect_timeout, connect)
            .await
            .map_err(|_| ConnectError::Timeout)??;
        socket.set_nodelay(true)?;
        let limits = HeadLimits { bytes: config.header_bytes, count: config.header_count };
        Ok(Box::new(Connection::new(socket.into(), limits, slot)))
    }

    async fn wait(&self) -> Result<Next<B>, ConnectError> {
        let config = &self.upstream.config;
        let _waiting =
            Waiting::enter(&self.upstream.waiting, config.max_waiting).ok_or(ConnectError::Busy)?;
        // Once more, now that whoever gives a connection back knows that somebody waits.
        if let Some(slot) = self.upstream.slot_of_any() {
            return Ok(Next::Slot(slot));
        }
        let (sender, receiver) = oneshot::channel();
        {
            let mut shelf = self.shelf();
            // Those that gave up must not pile up.
            shelf.waiters.retain(|waiter| !waiter.is_closed());
            shelf.waiters.push_back(sender);
        }
        let next = async {
            tokio::select! {
                biased;
                Ok(connection) = receiver => Next::Connection(connection),
                Ok(slot) = self.upstream.slots.clone().acquire_owned() => Next::Slot(slot),
                // Neither channel nor semaphore is ever closed.
                else => std::future::pending().await,
            }
        };
        pingora_timeout::timeout(config.max_wait, next).await.map_err(|_| ConnectError::Busy)
    }

    /// Takes a connection back if its exchange is over: for a request that waits, or to rest if there is room.
    /// Otherwise it is closed.
    fn put(&self, mut connection: Box<Connection<B>>) {
        if !connection.is_complete() {
            return;
        }
        let now = coarse_millis();
        if span(connection.made_at(), now) >= self.upstream.config.max_age {
            return;
        }
        connection.rest();
        let mut shelf = self.shelf();
        if !shelf.waiters.is_empty() {
            shelf.waiters.retain(|waiter| !waiter.is_closed());
        }
        // Another worker's request waits for the slot: closing the connection lets it have it, in its turn.
        let is_wanted = self.upstream.waiting.load(SeqCst) > shelf.waiters.len();
        if is_wanted && shelf.handed_over >= MAX_HANDED_OVER {
            shelf.handed_over = 0;
            return;
        }
        while let Some(waiter) = shelf.waiters.pop_front() {
            match waiter.send(connection) {
                Ok(()) => {
                    shelf.handed_over = if is_wanted { shelf.handed_over + 1 } else { 0 };
                    return;
                }
                Err(returned) => connection = returned,
            }
        }
        if shelf.idle.len() < self.capacity && !is_wanted {
            shelf.idle.push(Idle { connection, since: now });
        }
    }

    /// Closes connections that rested too long or that the other side has closed.
    pub fn sweep(&self) {
        let now = coarse_millis();
        let mut shelf = self.shelf();
        shelf.idle.retain(|idle| self.is_good(idle, now));
        if shelf.idle.capacity() > shelf.idle.len() * 2 + 16 {
            shelf.idle.shrink_to_fit();
        }
    }
}

/// What a request that waited gets.
enum Next<B> {
    Connection(Box<Connection<B>>),
    Slot(OwnedSemaphorePermit),
}

/// The body of an upstream's response. It drives the connection that it comes from, and gives it
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
    /// The body that arrives on `connection`, behind the head of a response.
    pub fn new(connection: Box<Connection<B>>, pool: Arc<Pool<B>>) -> Self {
        Self { connection: Some(connection), pool }
    }

    /// The upstream that it comes from.
    pub fn upstream(&self) -> &Upstream<B> {
        self.pool.upstream()
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
