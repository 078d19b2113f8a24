//! What is known of sessions by now, for cookies that are signed anew.
//!
//! A cookie is signed anew without a write, by what the one before says. Names and roles cannot have changed meanwhile, since that ends
//! sessions; but an address may have been verified, the last factor removed, or a factor have become a must. Where a cookie depends on any
//! of that, the session is read first, while its request is at the upstream.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use foldhash::fast::RandomState;
use moka::sync::Cache;
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use crate::{
    config::{self, Mfa},
    types::{ClaimValues, Proofs, Roles, SessionId},
};

/// Sessions that are remembered, that may wait to be read, and that requests wait for.
const MOST_KNOWN: u64 = 10_000;
const MOST_WANTED: usize = 1_000;
const MOST_AWAITED: usize = 200;

/// How long what was read is fresh, in seconds.
const FRESH_FOR: i64 = 60;

/// How long a request waits for its session to be read.
const PATIENCE: Duration = Duration::from_millis(500);

/// How long no request waits once the store could not be read, in seconds.
const PAUSE: i64 = 5;

/// Sessions, as they were read a moment ago.
pub struct FreshSessions {
    known: Cache<SessionId, Arc<FreshSession>, RandomState>,
    wanted: mpsc::Sender<WantedSession>,
    has_claims: bool,
    mfa: Mfa,
    /// Until when no request waits, in Unix seconds.
    paused_until: AtomicI64,
}

/// A session that is to be read. Whoever waits for it goes on when this is dropped.
pub struct WantedSession {
    /// Which.
    pub id: SessionId,
    generation: i64,
    since: i64,
    _awaited: oneshot::Sender<()>,
}

/// What is known of a session.
#[derive(Debug)]
pub struct FreshSession {
    /// Whether its cookie may be signed anew: it has not ended, and its user does not have to get a factor first.
    pub goes_on: bool,
    /// What claims say of its user.
    pub claims: ClaimValues,
    /// How its holder has shown who they are.
    pub proofs: Proofs,
    /// Its user's generation, which no cookie's exceeds.
    pub generation: i64,
    /// When it was read, in Unix seconds.
    pub read_at: i64,
}

impl FreshSession {
    /// One that is not there any more.
    pub fn ended(read_at: i64) -> Self {
        let (claims, proofs) = (ClaimValues::default(), Proofs::default());
        Self { goes_on: false, claims, proofs, generation: i64::MAX, read_at }
    }
}

/// The reading of a session that was asked for.
#[derive(Debug)]
pub(super) struct Reading(Option<oneshot::Receiver<()>>);

impl Reading {
    /// Waits until the session was read, or cannot be read in time.
    pub(super) async fn ends(self) {
        if let Some(read) = self.0 {
            let _ = timeout(PATIENCE, read).await;
        }
    }
}

impl FreshSessions {
    /// Creates an empty set for a config, and what tells which are wanted.
    pub fn new(auth: &config::Auth) -> (Arc<Self>, mpsc::Receiver<WantedSession>) {
        let (wanted, receiver) = mpsc::channel(MOST_WANTED);
        let known = Cache::builder().max_capacity(MOST_KNOWN).build_with_hasher(RandomState::default());
        let (has_claims, mfa) = (!auth.claims.is_empty(), auth.mfa.clone());
        (Arc::new(Self { known, wanted, has_claims, mfa, paused_until: AtomicI64::new(0) }), receiver)
    }

    /// Returns whether the same roles as in `mfa` require a factor.
    pub(super) fn is_for(&self, mfa: &Mfa) -> bool {
        self.mfa.required_for == mfa.required_for
    }

    /// Takes what was read of a session.
    pub fn learn(&self, session: SessionId, read: FreshSession) {
        self.known.insert(session, Arc::new(read));
    }

    /// Notes at `now`, in Unix seconds, that the store cannot be read: for a while no request waits for it.
    pub fn pause(&self, now: i64) {
        self.paused_until.store(now + PAUSE, Relaxed);
    }

    /// Returns whether a wanted session was read already.
    pub fn has(&self, wanted: &WantedSession, now: i64) -> bool {
        self.get(wanted.id, wanted.generation, wanted.since, now).is_some()
    }

    /// Returns whether the cookie of a session depends on what may have changed.
    pub(super) fn bears_on(&self, proofs: Proofs, roles: &Roles) -> bool {
        self.has_claims || proofs.has_factor() || proofs.is_multi_factor() || self.mfa.binds(roles)
    }

    /// Returns what was read of a session at `since` or later, whose user is of this generation, if it is fresh at `now`. Times are Unix
    /// seconds.
    pub(super) fn get(
        &self,
        session: SessionId,
        generation: i64,
        since: i64,
        now: i64,
    ) -> Option<Arc<FreshSession>> {
        self.last(session, generation, since).filter(|known| now - known.read_at < FRESH_FOR)
    }

    /// Returns what was read of a session last, as [`Self::get`] does, however long ago.
    pub(super) fn last(&self, session: SessionId, generation: i64, since: i64) -> Option<Arc<FreshSession>> {
        self.known.get(&session).filter(|known| known.generation >= generation && known.read_at >= since)
    }

    /// Asks for a session, about which nothing is known that [`Self::get`] returns.
    pub(super) fn ask(&self, id: SessionId, generation: i64, since: i64, now: i64) -> Reading {
        let (awaited, read) = oneshot::channel();
        let is_busy = self.wanted.capacity() < MOST_WANTED - MOST_AWAITED;
        let is_sent =
            self.wanted.try_send(WantedSession { id, generation, since, _awaited: awaited }).is_ok();
        let is_awaited = is_sent && !is_busy && now >= self.paused_until.load(Relaxed);
        Reading(is_awaited.then_some(read))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{config::tests::auth, types::OsRandom};

    #[tokio::test(start_paused = true)]
    async fn requests_wait_for_a_store_that_answers_and_for_no_other() {
        let (fresh, mut wanted) = FreshSessions::new(&auth());
        let id = SessionId::generate(&OsRandom);
        let asked = fresh.ask(id, 1, 100, 100);
        drop(wanted.recv().await.filter(|wanted| wanted.id == id && !fresh.has(wanted, 100)));
        asked.ends().await;

        let begun = tokio::time::Instant::now();
        fresh.ask(id, 1, 100, 100).ends().await;
        assert_eq!(begun.elapsed(), PATIENCE);
        fresh.pause(100);
        for now in [100, 104] {
            assert!(fresh.ask(id, 1, 100, now).0.is_none());
        }
        assert!(fresh.ask(id, 1, 100, 105).0.is_some());
        for _ in 0..MOST_AWAITED {
            fresh.ask(id, 1, 100, 105);
        }
        assert!(fresh.ask(id, 1, 100, 105).0.is_none(), "too many wait already");
    }

    #[test]
    fn what_was_read_before_or_of_another_generation_says_nothing() {
        let (fresh, _wanted) = FreshSessions::new(&auth());
        let id = SessionId::generate(&OsRandom);
        fresh.learn(id, FreshSession { generation: 2, ..FreshSession::ended(100) });
        let is_known = |generation, since, now| fresh.get(id, generation, since, now).is_some();
        assert!(is_known(2, 100, 159) && is_known(1, 99, 100));
        assert!(!is_known(2, 101, 101) && !is_known(3, 100, 100) && !is_known(2, 100, 160));
        assert!(fresh.last(id, 2, 100).is_some());
        fresh.learn(id, FreshSession::ended(100));
        assert!(is_known(i64::MAX, 100, 100));
    }
}
