//! Warnings that one event each could cause thousands of.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Warnings that are logged in a window.
const MAX_WARNINGS: u64 = 10;

/// The window, in milliseconds.
const WINDOW: u64 = 1_000;

/// Lets a bounded number of warnings through.
#[derive(Debug, Default)]
pub struct WarningLimit {
    window: AtomicU64,
    count: AtomicU64,
    suppressed: AtomicU64,
}

impl WarningLimit {
    /// Whether a warning may be logged at `now`, in milliseconds of any clock that never steps; with it, how many
    /// were not since the last one that was. Threads that ask at once may let a few more through.
    pub fn admit(&self, now: u64) -> Option<u64> {
        let window = now / WINDOW + 1;
        if self.window.swap(window, Relaxed) != window {
            self.count.store(0, Relaxed);
        }
        if self.count.fetch_add(1, Relaxed) < MAX_WARNINGS {
            return Some(self.suppressed.swap(0, Relaxed));
        }
        self.suppressed.fetch_add(1, Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_warnings_is_a_few_and_a_count() {
        let limit = WarningLimit::default();
        let admitted = (0..100).filter(|_| limit.admit(5).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(limit.admit(1_005), Some(90));
        assert_eq!(limit.admit(1_006), Some(0));
    }
}
