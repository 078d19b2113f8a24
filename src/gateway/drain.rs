//! The end of service, and the connections that it waits for.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
};

use slab::Slab;
use tokio::sync::watch;

use super::listener::Listener;

/// The end of service: announced, told once, and waited for.
#[derive(Clone)]
pub struct Drain {
    announced: Arc<AtomicBool>,
    handed_over: Arc<AtomicBool>,
    pub(super) tell: watch::Sender<bool>,
    pub(super) live: Arc<AtomicUsize>,
    pub(super) accepting: Arc<AtomicUsize>,
    pub(super) resting: Arc<AtomicUsize>,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            announced: Arc::default(),
            handed_over: Arc::default(),
            tell: watch::Sender::new(false),
            live: Arc::default(),
            accepting: Arc::default(),
            resting: Arc::default(),
        }
    }
}

/// How far the end of service has come for some connections.
const LISTENER_IS_GONE: u8 = 1;
const PROCESS_ENDS: u8 = 2;

/// The end of service for the connections of one listener on one worker. Each checks a flag when it is polled,
/// and is woken once: to wait for a channel beside its work would cost at every turn.
#[derive(Default)]
pub(super) struct Draining {
    begun: AtomicU8,
    connections: Mutex<Slab<Waker>>,
}

impl Draining {
    /// Returns whether no further request is to be taken.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.load(Relaxed) > 0
    }

    /// Returns whether the process ends: then so do tunnels, which have no end that could be waited for, and what has not begun.
    pub(super) fn is_of_the_process(&self) -> bool {
        self.begun.load(Relaxed) == PROCESS_ENDS
    }

    /// Takes note of a connection's task.
    pub(super) fn enter(&self, waker: &Waker) -> usize {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).insert(waker.clone())
    }

    /// The connection has ended.
    pub(super) fn leave(&self, place: usize) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).try_remove(place);
    }

    /// The process ends.
    pub(super) fn begin(&self) {
        self.begun.store(PROCESS_ENDS, Relaxed);
        self.wakers().iter().for_each(Waker::wake_by_ref);
    }

    /// The listener is gone, or is another by now.
    pub(super) fn begin_for_listener(&self) {
        self.begun.fetch_max(LISTENER_IS_GONE, Relaxed);
        self.wakers().iter().for_each(Waker::wake_by_ref);
    }

    /// Returns what wakes the connections.
    pub(super) fn wakers(&self) -> Vec<Waker> {
        let connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        connections.iter().map(|(_, waker)| waker.clone()).collect()
    }
}

/// The ends of service of one worker, by listener. Its thread alone takes the lock.
#[derive(Default)]
pub(super) struct Drains(Mutex<ByListener>);

#[derive(Default)]
struct ByListener {
    /// The listeners as they are now, once that is known.
    current: Option<Vec<Arc<Listener>>>,
    known: Vec<(Arc<Listener>, Arc<Draining>)>,
}

impl ByListener {
    fn is_gone(&self, listener: &Arc<Listener>) -> bool {
        self.current.as_ref().is_some_and(|current| !current.iter().any(|known| Arc::ptr_eq(known, listener)))
    }
}

impl Drains {
    fn lock(&self) -> MutexGuard<'_, ByListener> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns that of a listener.
    pub(super) fn of(&self, listener: &Arc<Listener>) -> Arc<Draining> {
        let mut drains = self.lock();
        if let Some((_, draining)) = drains.known.iter().find(|(known, _)| Arc::ptr_eq(known, listener)) {
            return draining.clone();
        }
        let draining = Arc::<Draining>::default();
        if drains.is_gone(listener) {
            draining.begin_for_listener();
        }
        drains.known.push((listener.clone(), draining.clone()));
        draining
    }

    /// Takes note of the listeners as they are now. The connections of others end with what they are at.
    pub(super) fn listen(&self, now: Vec<Arc<Listener>>) {
        let mut drains = self.lock();
        drains.current = Some(now);
        let ByListener { known, .. } = &mut *drains;
        // A connection that has not begun yet has it, too.
        known.retain(|(_, draining)| Arc::strong_count(draining) > 1);
        let gone: Vec<_> =
            drains.known.iter().filter(|(listener, _)| drains.is_gone(listener)).cloned().collect();
        drop(drains);
        gone.iter().for_each(|(_, draining)| draining.begin_for_listener());
    }

    /// The process ends.
    pub(super) fn begin(&self) {
        self.lock().known.iter().for_each(|(_, draining)| draining.begin());
    }

    /// Returns what wakes all connections.
    pub(super) fn wakers(&self) -> Vec<Waker> {
        self.lock().known.iter().flat_map(|(_, draining)| draining.wakers()).collect()
    }
}

impl Drain {
    /// Another process accepts on the sockets from now on, and what waits in them is its.
    pub fn hand_over(&self) {
        self.handed_over.store(true, Relaxed);
    }

    /// Returns whether another process accepts.
    pub fn is_handed_over(&self) -> bool {
        self.handed_over.load(Relaxed)
    }

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

    /// How many tasks accept connections.
    pub fn accepting(&self) -> usize {
        self.accepting.load(Relaxed)
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
