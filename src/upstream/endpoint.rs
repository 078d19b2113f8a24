//! One server of a cluster as all workers see it: how many connections there may be, and who gets the next.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::{Connection, resolve::Resolver};

/// A server.
pub(super) struct Endpoint<B> {
    pub(super) resolver: Resolver,
    /// One permit for each connection that may be open.
    pub(super) slots: Arc<Semaphore>,
    max_connections: usize,
    pub(super) waiting: AtomicUsize,
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
pub(super) struct Shelf<B> {
    pub(super) idle: Vec<Idle<B>>,
    /// Requests that wait for a connection, in the order in which they came.
    pub(super) waiters: VecDeque<oneshot::Sender<Box<Connection<B>>>>,
    /// Connections that were handed to them one after the other while other workers' requests waited.
    pub(super) handed_over: u32,
}

/// A connection that rests.
pub(super) struct Idle<B> {
    // Boxed from its making to its end: it is moved at each request, and is large.
    pub(super) connection: Box<Connection<B>>,
    /// A coarse time, as the connection's own.
    pub(super) since: u64,
}

impl<B> Endpoint<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// The server at `authority`, `host:port`, that `workers` workers use.
    pub(super) fn new(authority: &str, max_connections: usize, workers: usize) -> Self {
        let shelf = || Mutex::new(Shelf { idle: Vec::new(), waiters: VecDeque::new(), handed_over: 0 });
        Self {
            resolver: Resolver::new(authority),
            slots: Arc::new(Semaphore::new(max_connections)),
            max_connections,
            waiting: AtomicUsize::new(0),
            workers: (0..workers.max(1)).map(|_| shelf()).collect(),
        }
    }

    /// How many connections there are.
    pub(super) fn connections(&self) -> Connections {
        let idle = (0..self.workers.len()).map(|worker| self.shelf(worker).idle.len()).sum();
        let open = self.max_connections.saturating_sub(self.slots.available_permits());
        Connections { active: open.saturating_sub(idle), idle, waiting: self.waiting.load(SeqCst) }
    }

    /// How many workers use it.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }

    /// What a worker keeps, by its number.
    pub(super) fn shelf(&self, worker: usize) -> MutexGuard<'_, Shelf<B>> {
        self.workers[worker].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn slot(&self) -> Option<OwnedSemaphorePermit> {
        self.slots.clone().try_acquire_owned().ok()
    }

    /// A slot, if need be that of a connection that rests with another worker.
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
