//! The end of service, and the connections that it waits for.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
};

use slab::Slab;
use tokio::sync::watch;

/// The end of service: announced, told once, and waited for.
#[derive(Clone)]
pub struct Drain {
    announced: Arc<AtomicBool>,
    pub(super) tell: watch::Sender<bool>,
    pub(super) live: Arc<AtomicUsize>,
    pub(super) resting: Arc<AtomicUsize>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            announced: Arc::default(),
            tell: watch::Sender::new(false),
            live: Arc::default(),
            resting: Arc::default(),
        }
    }
}

/// The end of service for the connections of one worker. Each checks a flag when it is polled,
/// and is woken once: to wait for a channel beside its work would cost at every turn.
#[derive(Default)]
pub(super) struct Draining {
    begun: AtomicBool,
    connections: Mutex<Slab<Waker>>,
}

impl Draining {
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Relaxed)
    }

    /// Takes note of a connection's task.
    pub(super) fn enter(&self, waker: &Waker) -> usize {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).insert(waker.clone())
    }

    /// The connection has ended.
    pub(super) fn leave(&self, place: usize) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).try_remove(place);
    }

    pub(super) fn begin(&self) {
        self.begun.store(true, Relaxed);
        for (_, waker) in &*self.connections.lock().unwrap_or_else(PoisonError::into_inner) {
            waker.wake_by_ref();
        }
    }
}

impl Drain {
    /// Says that the end is near: the gateway is not ready any more, and serves on.
    pub fn announce(&self) {
        self.announced.store(true, Relaxed);
    }

    /// Whether the end is near.
    pub fn is_announced(&self) -> bool {
        self.announced.load(Relaxed)
    }

    /// Tells every worker to stop accepting and to finish requests in flight.
    pub fn begin(&self) {
        self.tell.send_replace(true);
    }

    /// How many connections are open.
    pub fn live(&self) -> usize {
        self.live.load(Relaxed)
    }

    /// How many of them rest.
    pub fn resting(&self) -> usize {
        self.resting.load(Relaxed)
    }
}

/// Counts one until it is dropped.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    pub(super) fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count.clone())
    }

    /// Counts one more, if that is not more than `most`.
    pub(super) fn within(count: &Arc<AtomicUsize>, most: usize) -> Option<Self> {
        let before = count.fetch_add(1, Relaxed);
        let counted = Self(count.clone());
        (before < most).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
