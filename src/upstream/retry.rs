//! How many requests may be tried again: a share of those of the last ten seconds, so that retries never multiply the load
//! on servers that fail.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// For how many seconds requests count.
const SECONDS: usize = 10;

/// Retries that are always allowed in that time.
const ALWAYS: u64 = 3;

/// Counts what happened in the last seconds. Each bucket is a second and a count.
#[derive(Default)]
pub(super) struct Window([AtomicU64; SECONDS]);

const COUNT_BITS: u32 = 32;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

impl Window {
    /// Counts one at a coarse time. To be called by one thread only: of two at once, one may be lost.
    pub(super) fn count(&self, now: u64) {
        let second = now / 1_000;
        let bucket = &self.0[second as usize % SECONDS];
        let before = bucket.load(Relaxed);
        let counted = if before >> COUNT_BITS == second { before } else { second << COUNT_BITS };
        bucket.store(counted + 1, Relaxed);
    }

    /// Returns how many there were in the last seconds.
    fn sum(&self, now: u64) -> u64 {
        let second = now / 1_000;
        let recent = |count: &u64| second.saturating_sub(count >> COUNT_BITS) < SECONDS as u64;
        self.0.iter().map(|bucket| bucket.load(Relaxed)).filter(recent).map(|count| count & COUNT).sum()
    }
}

/// The retries of a cluster. It is looked at only when one is wanted.
#[derive(Default)]
pub(super) struct Budget {
    /// The requests of each worker.
    requests: Mutex<Vec<Arc<Window>>>,
    retries: Mutex<Window>,
}

impl Budget {
    /// Returns a window for the requests of another worker.
    pub(super) fn window(&self) -> Arc<Window> {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of workers' clients that are gone count for no one.
        requests.retain(|window| Arc::strong_count(window) > 1);
        let window = Arc::<Window>::default();
        requests.push(window.clone());
        window
    }

    /// Takes one retry at the coarse time `now`, if `percent` of the requests are not used up.
    pub(super) fn take(&self, percent: u32, now: u64) -> bool {
        let requests: u64 = {
            let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
            requests.iter().map(|window| window.sum(now)).sum()
        };
        let retries = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = retries.sum(now) < (requests.saturating_mul(percent.into()) / 100).max(ALWAYS);
        if allowed {
            retries.count(now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_last_ten_seconds_may_be_tried_again_and_three_always_may() {
        let budget = Budget::default();
        let (a, b) = (budget.window(), budget.window());
        let taken = |now: u64| (0..1_000).take_while(|_| budget.take(20, now)).count();
        assert_eq!(taken(1_000_000), 3);
        assert_eq!(taken(1_009_999), 0);
        for _ in 0..50 {
            a.count(1_009_999);
            b.count(1_010_000);
        }
        assert_eq!(taken(1_010_000), 20);
        assert_eq!(taken(1_019_000), 0, "those of 1010 still count");
        assert_eq!(taken(1_020_000), 3);
    }
}
