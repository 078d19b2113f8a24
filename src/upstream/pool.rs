//! The connections of one worker to one server.

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{
    Cluster, Connection,
    endpoint::{Endpoint, Idle, Shelf},
    multiplexed::{Multiplexed, Room},
};
use crate::{clock::coarse_millis, config::Server, stream::Stream, tls::Offer, types::framing::HeadLimits};

/// The reason why no connection is available. The text is for the log.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// All connections that `max_connections` allows are in use, and none became free in time.
    #[error("all connections are busy")]
    Busy,
    /// The server did not accept the connection in time.
    #[error("no connection in time")]
    Timeout,
    /// The connection or the lookup of the name failed.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

/// The number of connections that a worker hands to its own requests before it frees a slot for another worker.
const MAX_HANDED_OVER: u32 = 8;

fn span(since: u64, now: u64) -> Duration {
    Duration::from_millis(now.saturating_sub(since))
}

/// Proof that a request may be forwarded. Connections are handed out for such a proof only; `access` has its one
/// implementation.
pub trait Allowed {}

/// The connections of one worker to one server.
pub(super) struct Pool<B> {
    cluster: Arc<Cluster<B>>,
    endpoint: Arc<Endpoint<B>>,
    worker: usize,
    capacity: usize,
    /// The requests of this worker that the server has.
    in_flight: Arc<AtomicUsize>,
    /// Connections of HTTP/2.
    shared: Mutex<Vec<Arc<Multiplexed>>>,
    /// Held while one of them is being opened, so that requests that come together share it.
    opening: tokio::sync::Mutex<()>,
    /// Told when one of them has room.
    room: Arc<Room>,
}

/// Counts a request of a worker until it is dropped.
pub struct InFlight(Arc<AtomicUsize>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Counts a waiting request until it is dropped.
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
    /// Creates the pool of a worker, by its number, for a server of the cluster.
    pub(super) fn new(cluster: Arc<Cluster<B>>, endpoint: Arc<Endpoint<B>>, worker: usize) -> Self {
        let workers = endpoint.workers();
        let capacity = cluster.config.idle_connections.div_ceil(workers);
        Self {
            cluster,
            endpoint,
            worker: worker % workers,
            capacity,
            in_flight: Arc::default(),
            shared: Mutex::default(),
            opening: tokio::sync::Mutex::default(),
            room: Arc::default(),
        }
    }

    /// Returns the cluster of the server.
    pub(super) fn cluster(&self) -> &Cluster<B> {
        &self.cluster
    }

    /// Returns the server.
    pub(super) fn endpoint(&self) -> &Arc<Endpoint<B>> {
        &self.endpoint
    }

    /// Counts a request that the server gets.
    pub(super) fn enters(&self) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self.in_flight.clone())
    }

    /// Returns how many requests of this worker the server has.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<B>> {
        self.endpoint.shelf(self.worker)
    }

    fn server(&self) -> &Server {
        &self.cluster.config.servers[self.endpoint.server].server
    }

    fn header_limits(&self) -> HeadLimits {
        HeadLimits { bytes: self.cluster.config.header_bytes, count: self.cluster.config.header_count }
    }

    /// Returns whether the server is spoken to by TLS.
    pub(super) fn is_tls(&self) -> bool {
        matches!(self.server(), Server::Tls(_))
    }

    /// Returns whether the server has agreed to HTTP/2.
    pub(super) fn has_agreed_to_http2(&self) -> bool {
        self.endpoint.agreed() == Some(Offer::Http2)
    }

    /// Returns how much longer a request waits for a connection of this server, for which it was chosen at the lower half of a coarse
    /// time.
    fn patience(&self, since: u32) -> Duration {
        let waited = (coarse_millis() as u32).wrapping_sub(since);
        self.cluster.config.max_wait.saturating_sub(Duration::from_millis(waited.into()))
    }

    /// Returns whether the server is spoken to in HTTP/2; asks it if that is not known. `since` is when the request was
    /// sent to it, as the lower half of a coarse time.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub(super) async fn is_http2(&self, _: &impl Allowed, since: u32) -> Result<bool, ConnectError> {
        match self.server() {
            Server::H2c(_) => return Ok(true),
            Server::Tls(_) => {}
            Server::Tcp(_) | Server::Unix(_) => return Ok(false),
        }
        if let Some(agreed) = self.endpoint.agreed() {
            return Ok(agreed == Offer::Http2);
        }
        let config = &self.cluster.config;
        let mut slot = None;
        loop {
            // What was agreed on is forgotten when a connection fails, and others may go on.
            if self.share(coarse_millis()).is_some() {
                return Ok(true);
            }
            let asked = pingora_timeout::timeout(config.connect_timeout, self.ask(&mut slot)).await;
            match asked.map_err(|_| ConnectError::Timeout)?? {
                Some(is_http2) => return Ok(is_http2),
                None => slot = self.wait_for_room(since).await?,
            }
        }
    }

    /// Asks the server whether it speaks HTTP/2, unless another request has done so meanwhile, with a slot that may be there
    /// already. Returns none if there is none.
    async fn ask(&self, slot: &mut Option<OwnedSemaphorePermit>) -> Result<Option<bool>, ConnectError> {
        let _opening = self.opening.lock().await;
        if let Some(agreed) = self.endpoint.agreed() {
            return Ok(Some(agreed == Offer::Http2));
        }
        let Some(slot) = slot.take().or_else(|| self.endpoint.slot_of_any()) else { return Ok(None) };
        let tls = self.cluster.tls_of(self.endpoint.server);
        let (stream, is_http2) = self.endpoint.address.connect(tls, Offer::Either).await?;
        if is_http2 {
            self.multiplexed(stream, slot);
        } else {
            let limits = self.header_limits();
            self.put(Box::new(Connection::new(stream, limits, slot)));
        }
        self.endpoint.agrees(Some(if is_http2 { Offer::Http2 } else { Offer::Http1 }));
        Ok(Some(is_http2))
    }

    /// Returns a connection of HTTP/2 that has room for another request.
    fn share(&self, now: u64) -> Option<Arc<Multiplexed>> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        shared.retain(|connection| !connection.has_ended());
        let config = &self.cluster.config;
        let is_young = |connection: &&Arc<Multiplexed>| span(connection.made_at(), now) < config.max_age;
        shared.iter().filter(is_young).find(|connection| connection.has_room()).cloned()
    }

    /// Returns a connection of HTTP/2 whose server has not told yet how many requests it takes, and whether another one's has.
    fn unsettled(&self) -> (Option<Arc<Multiplexed>>, bool) {
        let shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = shared.iter().find(|connection| !connection.is_settled()).cloned();
        (fresh, shared.iter().any(|connection| connection.is_settled()))
    }

    /// Returns a connection of HTTP/2 with room, and whether it was opened for this. `since` is as for
    /// [`Self::is_http2`].
    ///
    /// # Errors
    /// [`ConnectError`].
    pub(super) async fn connect_shared(
        &self,
        _: &impl Allowed,
        since: u32,
    ) -> Result<(Arc<Multiplexed>, bool), ConnectError> {
        let config = &self.cluster.config;
        let begun = coarse_millis();
        let mut slot = None;
        loop {
            let now = coarse_millis();
            if let Some(connection) = self.share(now) {
                return Ok((connection, false));
            }
            let left = config.connect_timeout.saturating_sub(span(begun, now));
            if let (Some(fresh), has_others) = self.unsettled()
                && !left.is_zero()
            {
                // One that was opened a moment ago may take many more.
                let settles = async {
                    tokio::select! {
                        () = fresh.settles() => {}
                        () = self.room.wait(|| self.share(coarse_millis()).is_some()) => {}
                    }
                };
                if pingora_timeout::timeout(left, settles).await.is_err() && !has_others {
                    return Err(ConnectError::Timeout);
                }
                continue;
            }
            let opening = self.open_shared(&mut slot, left.is_zero());
            let opened = pingora_timeout::timeout(config.connect_timeout, opening).await;
            match opened.map_err(|_| ConnectError::Timeout)?? {
                Opened::Connection(connection, made) => return Ok((connection, made)),
                Opened::Meanwhile => {}
                Opened::NoSlot => slot = self.wait_for_room(since).await?,
            }
        }
    }

    /// Opens a connection of HTTP/2, with a slot that may be there already, unless another request has done so or has left room
    /// meanwhile. `now` tells not to wait for what another one has opened.
    async fn open_shared(
        &self,
        slot: &mut Option<OwnedSemaphorePermit>,
        now: bool,
    ) -> Result<Opened, ConnectError> {
        let _opening = self.opening.lock().await;
        if let Some(connection) = self.share(coarse_millis()) {
            return Ok(Opened::Connection(connection, false));
        }
        if !now && self.unsettled().0.is_some() {
            return Ok(Opened::Meanwhile);
        }
        let Some(slot) = slot.take().or_else(|| self.endpoint.slot_of_any()) else {
            return Ok(Opened::NoSlot);
        };
        let tls = self.cluster.tls_of(self.endpoint.server);
        let connected = self.endpoint.address.connect(tls, Offer::Http2).await;
        let (stream, _) = connected.inspect_err(|_| self.endpoint.agrees(None))?;
        Ok(Opened::Connection(self.multiplexed(stream, slot), true))
    }

    /// Begins to speak HTTP/2, for all requests of the worker.
    fn multiplexed(&self, stream: Stream, slot: OwnedSemaphorePermit) -> Arc<Multiplexed> {
        let connection = Multiplexed::begin(stream, self.header_limits(), slot, self.room.clone());
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).push(connection.clone());
        connection
    }

    /// Waits until a connection of HTTP/2 has room, or another one may be opened, for which it returns a slot.
    async fn wait_for_room(&self, since: u32) -> Result<Option<OwnedSemaphorePermit>, ConnectError> {
        let most = self.cluster.config.max_waiting;
        let _waiting = Waiting::enter(&self.endpoint.waiting, most).ok_or(ConnectError::Busy)?;
        let next = async {
            tokio::select! {
                biased;
                // Looked at again, because there may have been room before this request was counted as waiting.
                () = self.room.wait(|| self.share(coarse_millis()).is_some()) => None,
                // The semaphore is never closed. It is fair: a slot that was let go would go to the next who waits.
                slot = self.endpoint.slots.clone().acquire_owned() => slot.ok(),
            }
        };
        let rest = self.patience(since);
        if rest.is_zero() {
            return Err(ConnectError::Busy);
        }
        pingora_timeout::timeout(rest, next).await.map_err(|_| ConnectError::Busy)
    }

    /// Takes the usable connection that was idle for the shortest time.
    pub(super) fn take(&self, _: &impl Allowed) -> Option<Box<Connection<B>>> {
        let mut shelf = self.shelf();
        if shelf.idle.is_empty() {
            return None;
        }
        let now = coarse_millis();
        while let Some(mut candidate) = shelf.idle.pop() {
            if self.is_good(&mut candidate, now) {
                return Some(candidate.connection);
            }
        }
        None
    }

    fn is_good(&self, idle: &mut Idle<B>, now: u64) -> bool {
        let config = &self.cluster.config;
        span(idle.since, now) < config.idle_timeout
            && span(idle.connection.made_at(), now) < config.max_age
            && idle.connection.is_quiet()
    }

    /// Opens a connection, or waits for one that another request gives back. `since` is as for [`Self::is_http2`].
    ///
    /// # Errors
    /// [`ConnectError`].
    pub(super) async fn connect(
        &self,
        _: &impl Allowed,
        since: u32,
    ) -> Result<Box<Connection<B>>, ConnectError> {
        let slot = loop {
            if let Some(slot) = self.endpoint.slot_of_any() {
                break slot;
            }
            match self.wait(since).await? {
                Next::Connection(mut connection) => {
                    if connection.is_quiet() {
                        return Ok(connection);
                    }
                }
                Next::Slot(slot) => break slot,
            }
        };
        let config = &self.cluster.config;
        let tls = self.cluster.tls_of(self.endpoint.server);
        let connect = self.endpoint.address.connect(tls, Offer::Http1);
        let (stream, _) = pingora_timeout::timeout(config.connect_timeout, connect)
            .await
            .map_err(|_| ConnectError::Timeout)?
            .inspect_err(|_| {
                // With a server that has agreed to HTTP/2, only a WebSocket asks for HTTP/1.1.
                if self.endpoint.agreed() != Some(Offer::Http2) {
                    self.endpoint.agrees(None);
                }
            })?;
        Ok(Box::new(Connection::new(stream, self.header_limits(), slot)))
    }

    async fn wait(&self, since: u32) -> Result<Next<B>, ConnectError> {
        let config = &self.cluster.config;
        let _waiting =
            Waiting::enter(&self.endpoint.waiting, config.max_waiting).ok_or(ConnectError::Busy)?;
        // Tried again, because a slot may have become free before this request was counted as waiting.
        if let Some(slot) = self.endpoint.slot_of_any() {
            return Ok(Next::Slot(slot));
        }
        let (sender, receiver) = oneshot::channel();
        {
            let mut shelf = self.shelf();
            // Removes requests that gave up.
            shelf.waiters.retain(|waiter| !waiter.is_closed());
            shelf.waiters.push_back(sender);
        }
        let next = async {
            tokio::select! {
                biased;
                Ok(connection) = receiver => Next::Connection(connection),
                Ok(slot) = self.endpoint.slots.clone().acquire_owned() => Next::Slot(slot),
                // The channel and the semaphore are never closed.
                else => std::future::pending().await,
            }
        };
        pingora_timeout::timeout(self.patience(since), next).await.map_err(|_| ConnectError::Busy)
    }

    /// Takes a connection back if its exchange is complete, and hands it to a waiting request or keeps it. Closes it
    /// otherwise.
    pub(super) fn put(&self, mut connection: Box<Connection<B>>) {
        if !connection.is_complete() {
            return;
        }
        let now = coarse_millis();
        if span(connection.made_at(), now) >= self.cluster.config.max_age {
            return;
        }
        connection.rest();
        let mut shelf = self.shelf();
        if !shelf.waiters.is_empty() {
            shelf.waiters.retain(|waiter| !waiter.is_closed());
        }
        // A request of another worker waits for the slot, and gets it when the connection is closed.
        let is_wanted = self.endpoint.waiting.load(SeqCst) > shelf.waiters.len();
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

    /// Closes idle connections that are too old or that the server has closed.
    pub(super) fn sweep(&self) {
        let now = coarse_millis();
        let mut shelf = self.shelf();
        shelf.idle.retain_mut(|idle| self.is_good(idle, now));
        if shelf.idle.capacity() > shelf.idle.len() * 2 + 16 {
            shelf.idle.shrink_to_fit();
        }
        drop(shelf);
        let config = &self.cluster.config;
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        // One without requests ends when nobody has it any more.
        shared.retain(|connection| {
            let is_idle = connection.idle_since().is_some_and(|since| {
                span(since, now) >= config.idle_timeout || span(connection.made_at(), now) >= config.max_age
            });
            !connection.has_ended() && !is_idle
        });
    }
}

/// The result of opening a connection of HTTP/2.
enum Opened {
    /// A connection, and whether it was opened for this.
    Connection(Arc<Multiplexed>, bool),
    /// Another request has opened one.
    Meanwhile,
    /// There may be no more.
    NoSlot,
}

/// The result of waiting.
enum Next<B> {
    Connection(Box<Connection<B>>),
    Slot(OwnedSemaphorePermit),
}
