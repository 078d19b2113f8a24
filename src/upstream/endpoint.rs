//! One server of a cluster, shared by all workers: its connection slots and idle connections.

use std::{
    collections::VecDeque,
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicU8, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    net::{TcpStream, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
};

use super::{Connection, standing::Standing};
use crate::{
    config::Server,
    stream::Stream,
    tls::{ClientTls, Offer},
};

/// How long to wait before a socket of the machine is tried again whose backlog is full.
const BACKLOG_PAUSE: Duration = Duration::from_millis(2);

/// Where a server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// An address and a port.
    Tcp(SocketAddr),
    /// The path of a socket.
    Unix(PathBuf),
}

impl Address {
    /// Returns where a server is, unless it has a name to be looked up.
    pub(super) fn of(server: &Server) -> Option<Self> {
        match server {
            Server::Tcp(authority) | Server::Tls(authority) | Server::H2c(authority) => {
                authority.parse().ok().map(Self::Tcp)
            }
            Server::Unix(url) => Some(Self::Unix(url.strip_prefix("unix:").unwrap_or(url).into())),
        }
    }

    /// Opens a connection, by TLS to a server of a name where `tls` is given. Returns whether it was agreed there to speak
    /// HTTP/2.
    ///
    /// # Errors
    /// When nobody answers, or not the one that was meant.
    pub(super) async fn connect(
        &self,
        tls: Option<(&ClientTls, &str)>,
        offer: Offer,
    ) -> io::Result<(Stream, bool)> {
        match self {
            Self::Tcp(address) => {
                let socket = TcpStream::connect(address).await?;
                // Requests are written whole; waiting for more would only delay them.
                socket.set_nodelay(true)?;
                match tls {
                    None => Ok((socket.into(), false)),
                    Some((tls, name)) => {
                        let (stream, is_http2) = tls.connect(socket, name, offer).await?;
                        Ok((stream.into(), is_http2))
                    }
                }
            }
            Self::Unix(path) => loop {
                match UnixStream::connect(path).await {
                    // Its backlog is full. TCP would wait by itself; here whoever connects has a timeout, too.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        tokio::time::sleep(BACKLOG_PAUSE).await;
                    }
                    connected => return connected.map(|socket| (socket.into(), false)),
                }
            },
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A server of a cluster.
pub(super) struct Endpoint<B> {
    pub(super) address: Address,
    /// The address as logs and metrics have it; with its host, if another server of the upstream has the same address.
    pub(super) name: String,
    /// What it is known by to those who choose.
    pub(super) id: u64,
    /// Its place among the servers in the config, of which a name may be several.
    pub(super) server: usize,
    pub(super) weight: u32,
    pub(super) standing: Standing,
    /// What was agreed on with a server by TLS.
    agreed: AtomicU8,
    /// One permit for each connection that may be open.
    pub(super) slots: Arc<Semaphore>,
    max_connections: usize,
    pub(super) waiting: AtomicUsize,
    /// The idle connections of each worker. A worker uses its own, and closes another worker's only if no slot is left.
    workers: Vec<Mutex<Shelf<B>>>,
}

/// The number of connections, by state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connections {
    /// Connections that serve a request or are being opened.
    pub active: usize,
    /// Idle connections.
    pub idle: usize,
    /// Requests that wait for a connection.
    pub waiting: usize,
}

/// The idle connections and waiting requests of one worker.
pub(super) struct Shelf<B> {
    pub(super) idle: Vec<Idle<B>>,
    /// Requests that wait for a connection, in the order in which they came.
    pub(super) waiters: VecDeque<oneshot::Sender<Box<Connection<B>>>>,
    /// The connections that were handed over in succession while requests of other workers waited.
    pub(super) handed_over: u32,
}

/// An idle connection.
pub(super) struct Idle<B> {
    // Boxed for its whole life, because it is large and moves at each request.
    pub(super) connection: Box<Connection<B>>,
    /// The coarse time since when it is idle.
    pub(super) since: u64,
}

impl<B> Endpoint<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Creates the endpoint for a server, used by `workers` workers.
    pub(super) fn new(
        address: Address,
        name: String,
        id: u64,
        server: usize,
        weight: u32,
        max_connections: usize,
        workers: usize,
    ) -> Self {
        let shelf = || Mutex::new(Shelf { idle: Vec::new(), waiters: VecDeque::new(), handed_over: 0 });
        Self {
            id,
            address,
            name,
            server,
            weight,
            standing: Standing::new(),
            agreed: AtomicU8::new(0),
            slots: Arc::new(Semaphore::new(max_connections)),
            max_connections,
            waiting: AtomicUsize::new(0),
            workers: (0..workers.max(1)).map(|_| shelf()).collect(),
        }
    }

    /// The same with another standing.
    pub(super) fn standing(self, standing: Standing) -> Self {
        Self { standing, ..self }
    }

    /// Returns what was agreed on with the server by TLS, if that is known.
    pub(super) fn agreed(&self) -> Option<Offer> {
        match self.agreed.load(Relaxed) {
            1 => Some(Offer::Http1),
            2 => Some(Offer::Http2),
            _ => None,
        }
    }

    /// Notes what was agreed on with the server; none if that holds no longer.
    pub(super) fn agrees(&self, offer: Option<Offer>) {
        self.agreed.store(
            match offer {
                Some(Offer::Http1) => 1,
                Some(Offer::Http2) => 2,
                Some(Offer::Either) | None => 0,
            },
            Relaxed,
        );
    }

    /// Returns the number of connections, by state.
    pub(super) fn connections(&self) -> Connections {
        let idle = (0..self.workers.len()).map(|worker| self.shelf(worker).idle.len()).sum();
        let open = self.max_connections.saturating_sub(self.slots.available_permits());
        Connections { active: open.saturating_sub(idle), idle, waiting: self.waiting.load(SeqCst) }
    }

    /// Returns the number of workers.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Returns the shelf of a worker, by its number.
    pub(super) fn shelf(&self, worker: usize) -> MutexGuard<'_, Shelf<B>> {
        self.workers[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// Returns a slot. If none is free, closes an idle connection of any worker for it.
    pub(super) fn slot_of_any(&self) -> Option<OwnedSemaphorePermit> {
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
