//! Whether a server gets requests: what its probes say, and what became of its last requests.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// The least share of its weight that a server has which has just come back, in thousandths.
const FIRST_SHARE: u64 = 100;
const WHOLE: u64 = 1_000;

/// Where a server stands. Workers read it at each request, and write only when something changes.
pub(super) struct Standing {
    healthy: AtomicBool,
    /// How many probes in a row must still succeed, since it was unhealthy when another config came to hold.
    unconfirmed: AtomicU32,
    failures: AtomicU32,
    /// Responses that broke off in their bodies, in a row. Their heads were successes.
    cuts: AtomicU32,
    /// The coarse time until which it is ejected; 0 for not at all.
    ejected_until: AtomicU64,
    /// Whether a request is on its way that tries it.
    on_trial: AtomicBool,
    /// The coarse time since which it is back; 0 for always.
    back_since: AtomicU64,
}

/// Whether a request may go to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It may.
    Open,
    /// One may, which tries it.
    Trial,
    /// None may.
    Closed,
}

/// The state of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// It gets requests.
    Up,
    /// Its probes fail.
    Unhealthy,
    /// Its requests have failed, and it gets none for a while.
    Ejected,
    /// It gets no new requests, as configured.
    Drained,
}

impl ServerState {
    /// Returns the state as operators read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unhealthy => "unhealthy",
            Self::Ejected => "ejected",
            Self::Drained => "drained",
        }
    }
}

impl Standing {
    /// Creates the standing of a server that gets requests.
    pub(super) fn new() -> Self {
        Self {
            healthy: AtomicBool::new(true),
            unconfirmed: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            cuts: AtomicU32::new(0),
            ejected_until: AtomicU64::new(0),
            on_trial: AtomicBool::new(false),
            back_since: AtomicU64::new(0),
        }
    }

    /// Returns the same standing for another config: one that has the server probed, and takes it for healthy after so many
    /// probes, and one that may eject it.
    pub(super) fn carried_on(&self, healthy_after: Option<usize>, may_be_ejected: bool) -> Self {
        let healthy = healthy_after.is_none() || self.healthy.load(Relaxed);
        let ejected_until = if may_be_ejected { self.ejected_until.load(Relaxed) } else { 0 };
        let probes = healthy_after.and_then(|probes| u32::try_from(probes).ok()).unwrap_or(1);
        Self {
            healthy: AtomicBool::new(healthy),
            unconfirmed: AtomicU32::new(if healthy { 0 } else { probes }),
            failures: AtomicU32::new(self.failures.load(Relaxed)),
            cuts: AtomicU32::new(self.cuts.load(Relaxed)),
            ejected_until: AtomicU64::new(ejected_until),
            on_trial: AtomicBool::new(false),
            back_since: AtomicU64::new(self.back_since.load(Relaxed)),
        }
    }

    /// Returns whether a request may go to the server at the coarse time `now`.
    pub(super) fn admission(&self, now: u64) -> Admission {
        if !self.healthy.load(Relaxed) {
            return Admission::Closed;
        }
        match self.ejected_until.load(Relaxed) {
            0 => Admission::Open,
            until if until > now || self.on_trial.load(Relaxed) => Admission::Closed,
            _ => Admission::Trial,
        }
    }

    /// Takes the one trial of a server that may come back. Returns false if another request has it.
    pub(super) fn begin_trial(&self) -> bool {
        !self.on_trial.swap(true, Relaxed)
    }

    /// Gives back a trial of which nothing is known: the client left.
    pub(super) fn give_up_trial(&self) {
        self.on_trial.store(false, Relaxed);
    }

    /// Notes what a probe says. After so many that succeed a server is healthy.
    pub(super) fn probed(&self, succeeds: bool, healthy_after: usize) {
        let left = self.unconfirmed.load(Relaxed);
        if left > 0 {
            let all = u32::try_from(healthy_after).unwrap_or(1);
            self.unconfirmed.store(if succeeds { left - 1 } else { all }, Relaxed);
        }
    }

    /// Notes what the probes say. Returns whether that is new.
    pub(super) fn set_healthy(&self, healthy: bool, now: u64) -> bool {
        // Whoever counts them begins with a server that is well.
        if healthy && self.unconfirmed.load(Relaxed) > 0 {
            return false;
        }
        let changed = self.healthy.swap(healthy, Relaxed) != healthy;
        if changed && healthy {
            self.comes_back(now);
        }
        changed
    }

    /// Notes that a request has succeeded. Returns whether the server comes back by that: by the trial, and by no request that
    /// it was sent before.
    pub(super) fn succeeds(&self, is_trial: bool, now: u64) -> bool {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
        let comes_back = is_trial && self.ejected_until.load(Relaxed) != 0;
        if comes_back {
            self.comes_back(now);
        }
        comes_back
    }

    fn comes_back(&self, now: u64) {
        self.failures.store(0, Relaxed);
        self.cuts.store(0, Relaxed);
        self.back_since.store(now.max(1), Relaxed);
        self.ejected_until.store(0, Relaxed);
        self.on_trial.store(false, Relaxed);
    }

    /// Notes that a request has failed. Returns the number of failures in a row.
    pub(super) fn fails(&self) -> u32 {
        self.failures.fetch_add(1, Relaxed).saturating_add(1)
    }

    /// Notes that a response broke off in its body. Returns the number of them in a row.
    pub(super) fn cuts_off(&self) -> u32 {
        self.cuts.fetch_add(1, Relaxed).saturating_add(1)
    }

    /// Notes that a response came to its end.
    pub(super) fn completes(&self) {
        if self.cuts.load(Relaxed) != 0 {
            self.cuts.store(0, Relaxed);
        }
    }

    /// Ejects the server until a coarse time.
    pub(super) fn eject(&self, until: u64) {
        self.ejected_until.store(until.max(1), Relaxed);
        self.on_trial.store(false, Relaxed);
    }

    /// Returns whether it is ejected, be it that it may be tried.
    pub(super) fn is_ejected(&self) -> bool {
        self.ejected_until.load(Relaxed) != 0
    }

    /// Returns the state.
    pub(super) fn state(&self) -> ServerState {
        if !self.healthy.load(Relaxed) {
            ServerState::Unhealthy
        } else if self.is_ejected() {
            ServerState::Ejected
        } else {
            ServerState::Up
        }
    }

    /// Returns the share of its weight that the server gets, in thousandths: it rises over `slow_start` after it has come
    /// back.
    pub(super) fn share(&self, slow_start: Duration, now: u64) -> u64 {
        let since = self.back_since.load(Relaxed);
        let span = u64::try_from(slow_start.as_millis()).unwrap_or(u64::MAX);
        let elapsed = now.saturating_sub(since);
        if since == 0 || elapsed >= span {
            return WHOLE;
        }
        (elapsed.saturating_mul(WHOLE) / span).max(FIRST_SHARE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ejected_server_comes_back_by_one_trial() {
        let standing = Standing::new();
        assert_eq!(standing.admission(5), Admission::Open);
        assert_eq!((standing.fails(), standing.fails()), (1, 2));
        assert!(!standing.succeeds(false, 5));
        assert_eq!(standing.fails(), 1, "only failures in a row count");
        standing.eject(100);
        assert_eq!(standing.admission(99), Admission::Closed);
        assert!(!standing.succeeds(false, 99), "the response of a request that went there before");
        assert_eq!(standing.admission(100), Admission::Trial);
        assert!(standing.begin_trial());
        assert_eq!(standing.admission(100), Admission::Closed, "one trial at a time");
        assert!(!standing.begin_trial());
        standing.give_up_trial();
        assert!(standing.begin_trial());
        standing.eject(200);
        assert_eq!(standing.admission(199), Admission::Closed);
        assert!(standing.begin_trial() && !standing.succeeds(false, 200) && standing.succeeds(true, 200));
        assert_eq!((standing.admission(200), standing.state()), (Admission::Open, ServerState::Up));
    }

    #[test]
    fn what_is_known_of_a_server_holds_under_another_config() {
        let standing = Standing::new();
        standing.eject(100);
        assert!(standing.begin_trial());
        let after = standing.carried_on(None, true);
        assert_eq!((after.admission(99), after.admission(100)), (Admission::Closed, Admission::Trial));
        standing.set_healthy(false, 5);
        let after = standing.carried_on(Some(2), true);
        for succeeds in [true, false, true] {
            after.probed(succeeds, 2);
            assert!(!after.set_healthy(true, 6), "two probes in a row are wanted");
        }
        assert_eq!(after.state(), ServerState::Unhealthy);
        after.probed(true, 2);
        assert!(after.set_healthy(true, 7));
        assert_eq!(standing.carried_on(None, true).state(), ServerState::Ejected, "it is probed no more");
        assert_eq!(standing.carried_on(None, false).state(), ServerState::Up, "it is the only one");
    }

    #[test]
    fn a_server_that_comes_back_begins_slowly() {
        let standing = Standing::new();
        let slow = Duration::from_secs(1);
        assert_eq!(standing.share(slow, 5), WHOLE);
        assert!(standing.set_healthy(false, 1_000) && !standing.set_healthy(false, 1_001));
        assert!(standing.set_healthy(true, 2_000));
        let shares = [2_000, 2_050, 2_500, 2_999, 3_000].map(|now| standing.share(slow, now));
        assert_eq!(shares, [FIRST_SHARE, FIRST_SHARE, 500, 999, WHOLE]);
        assert_eq!(standing.share(Duration::ZERO, 2_000), WHOLE);
    }
}
