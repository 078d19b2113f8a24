//! A snapshot as one worker sees it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::{request_body::RequestBody, snapshot::Snapshot};
use crate::{
    telemetry::Meters,
    types::{OsRandom, Random},
    upstream::Client,
};

/// A snapshot with a worker's own clients and meters. A request takes it once and keeps it until its end.
pub(super) struct View {
    pub(super) snapshot: Arc<Snapshot>,
    /// The worker's way to each upstream, in their order.
    pub(super) clients: Vec<Client<RequestBody>>,
    /// What its requests are counted by.
    pub(super) meters: Meters,
}

impl View {
    /// The view of a worker, by its number.
    pub(super) fn new(snapshot: Arc<Snapshot>, worker: usize) -> Self {
        let upstreams = snapshot.upstreams();
        let seed = || u64::from_ne_bytes((&OsRandom as &dyn Random).bytes());
        let clients = upstreams.iter().map(|cluster| Client::new(cluster.clone(), worker, seed())).collect();
        let names = upstreams.iter().map(|cluster| cluster.config.name.as_str());
        let meters = Meters::new(snapshot.services.metrics.clone(), names);
        Self { snapshot, clients, meters }
    }
}

/// The view that a worker's new requests are served by. Its thread alone takes the lock.
pub(super) struct CurrentView {
    view: Mutex<Arc<View>>,
    /// The number of its snapshot.
    number: AtomicU64,
}

impl CurrentView {
    pub(super) fn new(view: View) -> Self {
        let number = AtomicU64::new(view.snapshot.number());
        Self { view: Mutex::new(Arc::new(view)), number }
    }

    pub(super) fn get(&self) -> Arc<View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the number of its snapshot.
    pub(super) fn number(&self) -> u64 {
        self.number.load(Relaxed)
    }

    pub(super) fn exchange(&self, view: View) {
        self.number.store(view.snapshot.number(), Relaxed);
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(view);
    }
}
