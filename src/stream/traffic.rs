//! Bytes to and from clients, counted by each worker's thread for itself.

use std::{
    cell::OnceCell,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

/// The bytes that a worker has received from clients and sent to them. One thread writes, others read.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

thread_local! {
    static OWN: OnceCell<Arc<Traffic>> = const { OnceCell::new() };
}

impl Traffic {
    /// Counts what this thread moves from now on.
    pub fn count_here(self: &Arc<Self>) {
        // A thread serves one worker.
        let _ = OWN.with(|own| own.set(self.clone()));
    }

    /// Returns how many bytes were received.
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }

    /// Returns how many bytes were sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }
}

fn add(counter: impl FnOnce(&Traffic) -> &AtomicU64, bytes: usize) {
    OWN.with(|own| {
        if let Some(traffic) = own.get() {
            let counter = counter(traffic);
            // Nobody else writes it.
            counter.store(counter.load(Relaxed).wrapping_add(bytes as u64), Relaxed);
        }
    });
}

/// Counts bytes that came from a client.
pub fn received(bytes: usize) {
    add(|traffic| &traffic.received, bytes);
}

/// Counts bytes that went to a client.
pub fn sent(bytes: usize) {
    add(|traffic| &traffic.sent, bytes);
}
