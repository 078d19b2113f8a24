//! The copy of the log that every decision looks at.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering::Acquire, Ordering::Release, Ordering::SeqCst},
    },
    task::Waker,
};

use foldhash::fast::RandomState;
use papaya::{HashMap, ResizeMode};
use seize::Collector;
use uuid::Uuid;

use super::{LiveStreams, Registration, Token};
use crate::{
    clock::{Now, UnixMillis},
    store::{LogEntry, Subject},
    types::{KeyId, SessionId, UserId},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dead {
    /// Tokens below this generation are dead.
    below: i64,
    until: UnixMillis,
}

type Doubts = std::collections::HashMap<Subject, LogEntry>;

/// The mirror. Readers take no lock.
pub struct Mirror {
    /// Sessions, users and keys in one map, so that a decision pins it once. Their ids never meet: the
    /// version nibble of the UUIDs differs.
    dead: HashMap<u128, Dead, RandomState>,
    /// Whether a key was ever revoked: as long as none was, none is looked up.
    any_key: AtomicBool,
    live: Arc<LiveStreams>,
    in_doubt: Mutex<Doubts>,
    confirmed_wall: AtomicI64,
    confirmed_boot: AtomicI64,
    max_staleness: i64,
}

/// How old the mirror is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Staleness {
    /// Confirmed within the bound.
    Fresh,
    /// Confirmed once, too long ago.
    Stale,
    /// Never loaded: nothing can be said.
    NeverLoaded,
}

impl Mirror {
    /// An empty mirror, not loaded.
    pub fn new(max_staleness: std::time::Duration) -> Self {
        Self {
            // A writer that makes the map grow copies it at once, and readers never wait for it. Copied a
            // few entries at a time, the map would stay half-way for as long as nobody writes, and each
            // lookup would search both halves: 3.5 µs among a million, measured.
            dead: HashMap::builder()
                .hasher(RandomState::default())
                .resize_mode(ResizeMode::Blocking)
                // What was outgrown is given back at once: left for 32 of them to come together, it would be
                // as much memory again.
                .collector(Collector::new().batch_size(1))
                .build(),
            any_key: AtomicBool::new(false),
            live: Arc::default(),
            in_doubt: Mutex::default(),
            confirmed_wall: AtomicI64::new(i64::MIN),
            confirmed_boot: AtomicI64::new(i64::MIN),
            max_staleness: i64::try_from(max_staleness.as_millis()).unwrap_or(i64::MAX),
        }
    }

    /// Whether a token of this session, user and generation is dead.
    pub fn is_revoked(&self, session: SessionId, user: UserId, generation: i64) -> bool {
        let dead = self.dead.pin();
        let hit = |key: u128| dead.get(&key).is_some_and(|dead| generation < dead.below);
        hit(session.as_u128()) || hit(user.as_u128())
    }

    /// Whether every token of this session is dead.
    pub fn is_session_revoked(&self, session: SessionId) -> bool {
        self.dead.pin().contains_key(&session.as_u128())
    }

    /// Whether every token that this key has signed is dead.
    pub fn is_key_revoked(&self, key: KeyId) -> bool {
        self.any_key.load(SeqCst) && self.dead.pin().contains_key(&key.as_u128())
    }

    /// Takes an entry in, however often and in whatever order: the highest generation and the
    /// latest expiry stand. Streams that it concerns are cut.
    pub fn apply(&self, entry: &LogEntry) {
        let key = match entry.subject {
            Subject::Session(id) => id.as_u128(),
            Subject::User(id) => id.as_u128(),
            Subject::Key(id) => id.as_u128(),
        };
        let new = Dead { below: entry.generation, until: entry.expires_at };
        self.dead.pin().update_or_insert(
            key,
            |old| Dead { below: old.below.max(new.below), until: old.until.max(new.until) },
            new,
        );
        if matches!(entry.subject, Subject::Key(_)) {
            self.any_key.store(true, SeqCst);
        }
        self.live.revoke(entry);
    }

    /// Takes in what may or may not have been revoked in the store, to be settled with it when it answers:
    /// until then they may differ, and nobody could log in again on this gateway.
    pub fn deny_in_doubt(&self, entry: &LogEntry) {
        self.apply(entry);
        let mut doubts = self.lock_doubts();
        let known = doubts.entry(entry.subject).or_insert(*entry);
        known.generation = known.generation.max(entry.generation);
        known.expires_at = known.expires_at.max(entry.expires_at);
    }

    /// What is to be settled.
    pub fn doubts(&self) -> Vec<LogEntry> {
        self.lock_doubts().values().copied().collect()
    }

    /// The store has what this entry says. One that says more by now stays.
    pub fn forget_doubt(&self, entry: &LogEntry) {
        let mut doubts = self.lock_doubts();
        if doubts.get(&entry.subject) == Some(entry) {
            doubts.remove(&entry.subject);
        }
    }

    /// Whether there is anything to be settled.
    pub fn has_doubts(&self) -> bool {
        !self.lock_doubts().is_empty()
    }

    fn lock_doubts(&self) -> MutexGuard<'_, Doubts> {
        self.in_doubt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a stream that outlives its decision; see [`LiveStreams::register`]. Whether the token
    /// still holds must be looked at after this.
    pub fn watch(&self, token: Token, outlives_staleness: bool, task: Waker) -> Registration {
        self.live.register(token, outlives_staleness, task)
    }

    /// The streams that live.
    pub fn live(&self) -> &LiveStreams {
        &self.live
    }

    /// Cuts the streams whose time is over; the Unix second at which the next one's is.
    pub fn sweep(&self, now: Now) -> Option<i64> {
        if self.live.is_empty() {
            None
        } else {
            self.live.sweep(now, self.staleness(now) != Staleness::Fresh)
        }
    }

    /// What it holds that has not expired.
    pub fn entries(&self, now: Now) -> Vec<LogEntry> {
        let dead = self.dead.pin();
        let live = dead.iter().filter(|(_, dead)| dead.until > now.time);
        live.filter_map(|(&key, dead)| {
            let id = Uuid::from_u128(key);
            let subject = (SessionId::from_uuid(id).map(Subject::Session))
                .or_else(|| UserId::from_uuid(id).map(Subject::User))
                .or_else(|| KeyId::from_uuid(id).map(Subject::Key))?;
            Some(LogEntry { subject, generation: dead.below, expires_at: dead.until })
        })
        .collect()
    }

    /// Forgets the entries whose tokens have all expired.
    pub fn prune(&self, now: Now) {
        self.dead.pin().retain(|_, dead| dead.until > now.time);
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.dead.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.dead.is_empty()
    }

    /// The store has confirmed the mirror; `asked` was read before the question was sent.
    pub fn confirm(&self, asked: Now) {
        // What was applied before is seen by whoever sees this.
        self.confirmed_wall.store(asked.wall, Release);
        self.confirmed_boot.store(asked.boot, Release);
    }

    /// The bound, in milliseconds.
    pub fn max_staleness(&self) -> i64 {
        self.max_staleness
    }

    /// Milliseconds since the last confirmation, by the clock that saw more of them pass; `None`
    /// when there was none.
    pub fn lag(&self, now: Now) -> Option<i64> {
        let (wall, boot) = (self.confirmed_wall.load(Acquire), self.confirmed_boot.load(Acquire));
        if boot == i64::MIN {
            return None;
        }
        Some((now.boot - boot).max(now.wall - wall).max(0))
    }

    /// Compares the lag with the bound.
    pub fn staleness(&self, now: Now) -> Staleness {
        match self.lag(now) {
            None => Staleness::NeverLoaded,
            Some(lag) if lag > self.max_staleness => Staleness::Stale,
            Some(_) => Staleness::Fresh,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::OsRandom;

    fn at(wall: i64, boot: i64) -> Now {
        Now { time: wall, wall, boot }
    }

    #[test]
    fn entries_join_to_the_highest_generation_and_the_latest_expiry() {
        let mirror = Mirror::new(Duration::from_secs(5));
        let (session, user) = (SessionId::generate(&OsRandom), UserId::generate(1, &OsRandom));
        let entry =
            |generation, expires_at| LogEntry { subject: Subject::User(user), generation, expires_at };
        mirror.apply(&entry(3, 10));
        mirror.apply(&entry(2, 20));
        assert!(mirror.is_revoked(session, user, 2));
        assert!(!mirror.is_revoked(session, user, 3));
        mirror.prune(at(15, 0));
        assert!(mirror.is_revoked(session, user, 2));
        mirror.prune(at(20, 0));
        assert!(mirror.is_empty());
    }

    #[test]
    fn an_ended_session_is_dead_at_every_generation_and_others_live() {
        let mirror = Mirror::new(Duration::from_secs(5));
        let (session, user) = (SessionId::generate(&OsRandom), UserId::generate(1, &OsRandom));
        let subject = Subject::Session(session);
        mirror.apply(&LogEntry { subject, generation: LogEntry::ALL, expires_at: 10 });
        assert!(mirror.is_revoked(session, user, 1_000_000));
        assert!(!mirror.is_revoked(SessionId::generate(&OsRandom), user, 1));
    }

    #[test]
    fn a_revoked_key_is_dead_and_others_live() {
        let mirror = Mirror::new(Duration::from_secs(5));
        let subject = Subject::Key(KeyId::of("a"));
        assert!(!mirror.is_key_revoked(KeyId::of("a")));
        mirror.apply(&LogEntry { subject, generation: LogEntry::ALL, expires_at: 10 });
        assert!(mirror.is_key_revoked(KeyId::of("a")) && !mirror.is_key_revoked(KeyId::of("b")));
    }

    #[test]
    fn every_entry_can_be_written_down_again() {
        let mirror = Mirror::new(Duration::from_secs(5));
        let subjects = [
            Subject::Session(SessionId::generate(&OsRandom)),
            Subject::User(UserId::generate(1, &OsRandom)),
            Subject::Key(KeyId::of("a")),
        ];
        let entries = subjects.map(|subject| LogEntry { subject, generation: 7, expires_at: 10 });
        entries.iter().for_each(|entry| mirror.apply(entry));
        let found = mirror.entries(at(9, 0));
        assert!(found.len() == 3 && entries.iter().all(|entry| found.contains(entry)));
        assert!(mirror.entries(at(10, 0)).is_empty());
    }

    #[test]
    fn the_lag_follows_the_clock_that_saw_more_time_pass() {
        let mirror = Mirror::new(Duration::from_secs(5));
        assert_eq!(mirror.staleness(at(0, 0)), Staleness::NeverLoaded);
        mirror.confirm(at(100_000, 1_000));
        assert_eq!(mirror.staleness(at(105_000, 6_000)), Staleness::Fresh);
        // Somebody set the wall clock back; time passed all the same.
        assert_eq!(mirror.staleness(at(0, 6_001)), Staleness::Stale);
        assert_eq!(mirror.staleness(at(105_001, 1_000)), Staleness::Stale);
    }
}
