//! What hashes cost, as it was seen: from that comes the moment at which failed logins are answered.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// What each scheme was seen to cost, in CPU time: the wall clock would count other work in.
#[derive(Default)]
pub(super) struct Costs {
    seen: Mutex<HashMap<String, Duration>>,
}

/// More schemes than a store of one history holds.
const MAX_SCHEMES: usize = 200;

impl Costs {
    pub(super) fn observe(&self, scheme: &str, cost: Duration) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = seen.get_mut(scheme) {
            *known = cost.max(*known);
        } else if seen.len() < MAX_SCHEMES {
            seen.insert(scheme.to_owned(), cost);
        }
    }

    pub(super) fn knows(&self, scheme: &str) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).contains_key(scheme)
    }

    pub(super) fn knows_foreign(&self) -> bool {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).len() > 1
    }

    pub(super) fn slowest(&self) -> Duration {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).values().max().copied().unwrap_or_default()
    }
}

/// CPU time of the calling thread.
pub(super) fn thread_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid timespec for the duration of the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
