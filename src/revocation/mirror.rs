//! The copy of the log that every decision looks at.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use foldhash::fast::RandomState;
use papaya::{HashMap, ResizeMode};

use crate::{
    clock::{Now, UnixMillis},
    store::{LogEntry, Subject},
    types::{SessionId, UserId},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dead {
    /// Tokens below this generation are dead.
    below: i64,
    until: UnixMillis,
}

/// The mirror. Readers take no lock.
pub struct Mirror {
    /// Sessions and users in one map, so that a decision pins it once. Their ids never meet: the
    /// version nibble of the UUIDs differs.
    dead: HashMap<u128, Dead, RandomState>,
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
            // look-up would search both halves: 3.5 µs among a million, measured.
            dead: HashMap::builder().hasher(RandomState::default()).resize_mode(ResizeMode::Blocking).build(),
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

    /// Takes an entry in, however often and in whatever order: the highest generation and the
    /// latest expiry stand.
    pub fn apply(&self, entry: &LogEntry) {
        let key = match entry.subject {
            Subject::Session(id) => id.as_u128(),
            Subject::User(id) => id.as_u128(),
        };
        let new = Dead { below: entry.generation, until: entry.expires_at };
        self.dead.pin().update_or_insert(
            key,
            |old| Dead { below: old.below.max(new.below), until: old.until.max(new.until) },
            new,
        );
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
        self.confirmed_wall.store(asked.wall, Relaxed);
        self.confirmed_boot.store(asked.boot, Relaxed);
    }

    /// Milliseconds since the last confirmation, by the clock that saw more of them pass; `None`
    /// when there was none.
    pub fn lag(&self, now: Now) -> Option<i64> {
        let (wall, boot) = (self.confirmed_wall.load(Relaxed), self.confirmed_boot.load(Relaxed));
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
