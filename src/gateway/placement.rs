//! Which worker serves a new connection.
//!
//! One worker waits on a listening socket, and passes what it accepts to the worker with the fewest connections. If all of
//! them waited there, each connection would wake all idle workers, and the fastest would keep most of them
//! (`benches/gateway/shares.py`).

use std::{
    net::{SocketAddr, TcpStream},
    pin::pin,
    sync::{
        Arc,
        atomic::{
            AtomicU64, AtomicUsize,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use tokio::sync::{Notify, mpsc};

use super::{drain::Counted, listener::Listener};
use crate::{clock::coarse_millis, stream::Traffic};

/// The number of workers for which one of them accepts. Where connections are short, it could not serve more.
const ACCEPTS_FOR: usize = 8;

/// A connection that was accepted, with the counts that it is in.
pub(super) struct Accepted {
    /// The socket, which does not block.
    pub(super) socket: TcpStream,
    /// The other end.
    pub(super) peer: SocketAddr,
    /// Counts it in the process.
    pub(super) live: Counted,
    /// Counts it in its worker.
    pub(super) open: Counted,
    /// Counts it in its listener.
    pub(super) of_listener: Counted,
    /// The listener that it came to.
    pub(super) listener: Arc<Listener>,
}

/// The workers of a process, as places for connections.
pub struct Placement {
    workers: Box<[Place]>,
    max_connections: usize,
    /// Told when a worker has taken another snapshot up.
    taken_up: Notify,
}

struct Place {
    open: Arc<AtomicUsize>,
    inbox: mpsc::UnboundedSender<Accepted>,
    /// The number of the snapshot that it serves new requests by.
    snapshot: AtomicU64,
    /// What it moves to and from clients.
    traffic: Arc<Traffic>,
    /// When it was seen to live, in milliseconds of the coarse clock.
    alive_at: AtomicU64,
}

/// The connections that other workers have accepted for one. Those in it count as open, which bounds them.
pub struct Inbox(pub(super) mpsc::UnboundedReceiver<Accepted>);

impl Placement {
    /// Creates places for the connections of so many workers, each for at most `max_connections`, with their inboxes in the
    /// order of their numbers.
    pub fn new(workers: usize, max_connections: usize) -> (Arc<Self>, Vec<Inbox>) {
        let place = |_| {
            let (inbox, receiver) = mpsc::unbounded_channel();
            (
                Place {
                    open: Arc::default(),
                    inbox,
                    snapshot: AtomicU64::new(0),
                    traffic: Arc::default(),
                    alive_at: AtomicU64::new(coarse_millis()),
                },
                Inbox(receiver),
            )
        };
        let (workers, inboxes): (Vec<_>, _) = (0..workers).map(place).unzip();
        (Arc::new(Self { workers: workers.into(), max_connections, taken_up: Notify::new() }), inboxes)
    }

    /// A worker serves new requests by the snapshot of a number.
    pub(super) fn has_taken_up(&self, worker: usize, number: u64) {
        self.workers[worker].snapshot.store(number, Release);
        self.taken_up.notify_waiters();
    }

    /// Returns what a worker moves to and from clients.
    pub(super) fn traffic(&self, worker: usize) -> &Arc<Traffic> {
        &self.workers[worker].traffic
    }

    /// Returns how many bytes all workers have received from clients, and sent to them.
    pub fn moved(&self) -> (u64, u64) {
        let all = |of: fn(&Traffic) -> u64| self.workers.iter().map(|place| of(&place.traffic)).sum();
        (all(Traffic::received), all(Traffic::sent))
    }

    /// A worker comes to its turns.
    pub(super) fn lives(&self, worker: usize) {
        self.workers[worker].alive_at.store(coarse_millis(), Relaxed);
    }

    /// Returns whether all workers came to their turns within a time.
    pub fn all_alive(&self, within: Duration) -> bool {
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let now = coarse_millis();
        self.workers.iter().all(|place| now.saturating_sub(place.alive_at.load(Relaxed)) <= within)
    }

    /// Waits until all workers serve new requests by the snapshot of a number, or a later one.
    pub async fn all_take_up(&self, number: u64) {
        loop {
            let told = self.taken_up.notified();
            let mut told = pin!(told);
            told.as_mut().enable();
            if self.workers.iter().all(|place| place.snapshot.load(Acquire) >= number) {
                return;
            }
            told.await;
        }
    }

    /// Returns whether a worker accepts on a listener, both by their numbers.
    pub fn accepts(&self, worker: usize, listener: usize) -> bool {
        let workers = self.workers.len();
        // Counted from another worker for each listener.
        let number = (worker + workers - listener % workers) % workers;
        number.is_multiple_of(ACCEPTS_FOR)
    }

    /// Returns the count of a worker's connections.
    pub(super) fn open(&self, worker: usize) -> &Arc<AtomicUsize> {
        &self.workers[worker].open
    }

    /// Returns the worker with the fewest connections, which is `own` if no other has fewer.
    pub(super) fn fewest(&self, own: usize) -> usize {
        let open = |&worker: &usize| self.open(worker).load(Relaxed);
        let fewest = (0..self.workers.len()).min_by_key(open).unwrap_or(own);
        if open(&fewest) < open(&own) { fewest } else { own }
    }

    /// Returns whether any worker may have another connection.
    pub(super) fn has_room(&self) -> bool {
        self.workers.iter().any(|place| place.open.load(Relaxed) < self.max_connections)
    }

    /// Passes a connection to its worker.
    ///
    /// # Errors
    /// The connection, if the worker ends.
    pub(super) fn pass(&self, worker: usize, accepted: Accepted) -> Result<(), Accepted> {
        self.workers[worker].inbox.send(accepted).map_err(|mpsc::error::SendError(accepted)| accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listener_has_a_worker_that_accepts_and_few_of_them() {
        for workers in 1..40 {
            let (placement, _) = Placement::new(workers, 1);
            for listener in 0..10 {
                let accepting = (0..workers).filter(|&worker| placement.accepts(worker, listener)).count();
                assert_eq!(accepting, workers.div_ceil(ACCEPTS_FOR), "{listener} of {workers}");
            }
        }
    }

    #[test]
    fn the_worker_with_the_fewest_is_chosen_and_ones_own_if_none_has_fewer() {
        let (placement, _inboxes) = Placement::new(3, 2);
        let mut counted = Vec::new();
        for (own, expected) in [(1, 1), (1, 0), (2, 2), (2, 2), (2, 0), (0, 1)] {
            assert!(placement.has_room());
            let fewest = placement.fewest(own);
            assert_eq!(fewest, expected);
            counted.push(Counted::new(placement.open(fewest)));
        }
        assert!(!placement.has_room());
    }
}
