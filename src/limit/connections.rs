//! How many connections one client address has.

use std::{
    collections::HashMap,
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use foldhash::quality::RandomState;

use super::Prefix;

/// Locks, so that workers that accept at once seldom wait for each other.
const SHARDS: usize = 16;

/// Counts the connections of each client address; IPv6 by /64.
pub struct AddressCounts {
    hasher: RandomState,
    shards: [Mutex<HashMap<Prefix, usize, RandomState>>; SHARDS],
    refused: AtomicU64,
}

/// One connection that is counted, until it is dropped.
pub struct CountedConnection {
    counts: Arc<AddressCounts>,
    prefix: Prefix,
}

impl AddressCounts {
    /// No connections so far.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            hasher: RandomState::default(),
            shards: Default::default(),
            refused: AtomicU64::new(0),
        })
    }

    fn shard(&self, prefix: Prefix) -> MutexGuard<'_, HashMap<Prefix, usize, RandomState>> {
        let shard = self.hasher.hash_one(prefix) as usize % SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts one more connection; `None`, and counted as refused, if the address has `most` of them.
    pub fn enter(self: &Arc<Self>, prefix: Prefix, most: usize) -> Option<CountedConnection> {
        let mut counts = self.shard(prefix);
        let count = counts.entry(prefix).or_default();
        if *count >= most {
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        *count += 1;
        Some(CountedConnection { counts: self.clone(), prefix })
    }

    /// How many connections were refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }
}

impl Drop for CountedConnection {
    fn drop(&mut self) {
        let mut counts = self.counts.shard(self.prefix);
        if let Some(count) = counts.get_mut(&self.prefix) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_share_and_others_theirs() {
        let counts = AddressCounts::new();
        let prefix = |text: &str| Prefix::of(text.parse().unwrap());
        let open: Vec<_> = (0..3).map(|_| counts.enter(prefix("192.0.2.1"), 2)).collect();
        assert_eq!(open.iter().filter(|entered| entered.is_some()).count(), 2);
        assert!(counts.enter(prefix("192.0.2.2"), 2).is_some());
        assert_eq!(counts.refused(), 1);
        drop(open);
        assert!(counts.enter(prefix("192.0.2.1"), 2).is_some());
        assert!(counts.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
