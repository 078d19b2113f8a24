//! How many calls run at once, and whose.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use foldhash::quality::RandomState;

use super::Prefix;

/// Places that an address has in any case, however many others there are.
const LEAST_SHARE: usize = 4;

/// Admits calls up to a bound, fairly by client address: an address that has calls running already is admitted only up
/// to its share, which shrinks with the number of addresses, and one more share is always left for those to come.
pub struct CallGate {
    most: usize,
    running: Mutex<Running>,
}

#[derive(Default)]
struct Running {
    all: usize,
    by_address: HashMap<Prefix, usize, RandomState>,
}

/// A call that was admitted, until it is dropped.
pub struct Admitted {
    gate: Arc<CallGate>,
    prefix: Prefix,
}

impl CallGate {
    /// A gate for up to `most` calls.
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, running: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Admits a call, or `None`.
    pub fn admit(self: &Arc<Self>, prefix: Prefix) -> Option<Admitted> {
        let mut running = self.lock();
        let own = running.by_address.get(&prefix).copied().unwrap_or_default();
        let addresses = running.by_address.len() + usize::from(own == 0);
        let share = (self.most / (addresses + 1)).max(LEAST_SHARE);
        if running.all >= self.most || own >= share {
            return None;
        }
        running.all += 1;
        *running.by_address.entry(prefix).or_default() += 1;
        Some(Admitted { gate: self.clone(), prefix })
    }

    /// How many calls run.
    pub fn running(&self) -> usize {
        self.lock().all
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut running = self.gate.lock();
        running.all -= 1;
        if let Some(own) = running.by_address.get_mut(&self.prefix) {
            *own -= 1;
            if *own == 0 {
                running.by_address.remove(&self.prefix);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(last: u8) -> Prefix {
        Prefix::of(std::net::IpAddr::from([192, 0, 2, last]))
    }

    #[test]
    fn one_address_never_has_all_places() {
        let gate = CallGate::new(100);
        let greedy: Vec<_> = std::iter::from_fn(|| gate.admit(prefix(1))).collect();
        assert_eq!(greedy.len(), 50);
        let second: Vec<_> = std::iter::from_fn(|| gate.admit(prefix(2))).collect();
        assert_eq!(second.len(), 33);
        assert!(gate.admit(prefix(1)).is_none());
        assert!(gate.admit(prefix(3)).is_some());
        drop(greedy);
        drop(second);
        assert_eq!(gate.running(), 0);
    }

    #[test]
    fn many_addresses_have_a_few_places_each_up_to_the_bound() {
        let gate = CallGate::new(64);
        let admitted: Vec<_> = (0..=255_u8).flat_map(|last| (0..8).map(move |_| last)).collect();
        let admitted: Vec<_> = admitted.into_iter().filter_map(|last| gate.admit(prefix(last))).collect();
        assert_eq!(admitted.len(), 64);
        assert!(gate.admit(prefix(9)).is_none());
    }
}
