//! The copy of the log that every decision looks at.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicI64,
            Ordering::{Acquire, Relaxed, Release, SeqCst},
        },
    },
    task::Waker,
    time::Duration,
};

use foldhash::fast::RandomState;
use papaya::{HashMap, ResizeMode};
use seize::Collector;

use super::{LiveApiKeys, LiveStreams, Registration, Token};
use crate::{
    clock::{Now, UnixMillis},
    store::{self, ApiKeys, LogEntry, Revoked},
    types::{ExternalId, KeyId, SessionId, Subject},
};

/// The generation below which tokens are revoked, and the expiry of the entry. Stored as bytes to avoid padding: with its
/// key an entry takes 31 bytes, and there can be millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Dead {
    below: [u8; 8],
    until: [u8; 6],
}

impl Dead {
    /// The last millisecond that six bytes can tell, in the year 10889.
    const FOR_EVER: UnixMillis = (1 << 48) - 1;

    fn new(below: i64, until: UnixMillis) -> Self {
        let until = until.clamp(0, Self::FOR_EVER).to_le_bytes();
        let [a, b, c, d, e, f, ..] = until;
        Self { below: below.to_le_bytes(), until: [a, b, c, d, e, f] }
    }

    /// Tokens below this generation are dead.
    fn below(self) -> i64 {
        i64::from_le_bytes(self.below)
    }

    fn until(self) -> UnixMillis {
        let [a, b, c, d, e, f] = self.until;
        i64::from_le_bytes([a, b, c, d, e, f, 0, 0])
    }

    fn join(self, other: Self) -> Self {
        Self::new(self.below().max(other.below()), self.until().max(other.until()))
    }
}

type Doubts = std::collections::HashMap<Revoked, LogEntry>;

/// The mirror. Readers take no lock.
pub struct Mirror {
    /// All kinds in one map, so that a decision pins it once.
    dead: HashMap<Revoked, Dead, RandomState>,
    /// Whether a key was ever revoked: as long as none was, none is looked up.
    any_key: AtomicBool,
    live: Arc<LiveStreams>,
    api_keys: LiveApiKeys,
    in_doubt: Mutex<Doubts>,
    confirmed_wall: AtomicI64,
    confirmed_boot: AtomicI64,
    max_staleness: AtomicI64,
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

fn in_millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

impl Mirror {
    /// An empty mirror, not loaded.
    pub fn new(max_staleness: Duration) -> Self {
        Self {
            // A writer that makes the map grow copies it at once, and readers never wait for it. Copied a
            // few entries at a time, the map would stay half-way as long as there is no write, and each
            // lookup would search both halves: 3.5 µs among a million, measured.
            dead: HashMap::builder()
                .hasher(RandomState::default())
                .resize_mode(ResizeMode::Blocking)
                // Old tables are freed at once. By default 32 of them are collected first, which would be
                // as much memory again.
                .collector(Collector::new().batch_size(1))
                .build(),
            any_key: AtomicBool::new(false),
            live: Arc::default(),
            api_keys: LiveApiKeys::default(),
            in_doubt: Mutex::default(),
            confirmed_wall: AtomicI64::new(i64::MIN),
            confirmed_boot: AtomicI64::new(i64::MIN),
            max_staleness: AtomicI64::new(in_millis(max_staleness)),
        }
    }

    /// Whether a credential of this session, if it has one, subject and generation is dead.
    pub fn is_revoked(&self, session: Option<SessionId>, subject: Subject, generation: i64) -> bool {
        let dead = self.dead.pin();
        let hit = |key: Revoked| dead.get(&key).is_some_and(|dead| generation < dead.below());
        session.is_some_and(|session| hit(Revoked::Session(session))) || hit(subject.into())
    }

    /// Whether every token of this session is dead.
    pub fn is_session_revoked(&self, session: SessionId) -> bool {
        self.dead.pin().contains_key(&Revoked::Session(session))
    }

    /// Whether anything of these, by which a token of another issuer can be ended, is dead for its generation.
    pub fn is_external_revoked(&self, ids: &[ExternalId], generation: i64, now: Now) -> bool {
        let dead = self.dead.pin();
        // To the moment: a subject may be shut out for a short time.
        let is_dead = |dead: &Dead| generation < dead.below() && now.time < dead.until();
        ids.iter().any(|id| dead.get(&Revoked::External(*id)).is_some_and(is_dead))
    }

    /// Whether every token that this key has signed is dead.
    pub fn is_key_revoked(&self, key: KeyId) -> bool {
        self.any_key.load(SeqCst) && self.dead.pin().contains_key(&Revoked::Key(key))
    }

    /// Takes an entry in, however often and in whatever order: the highest generation and the
    /// latest expiry stand. Streams that it concerns are cut.
    pub fn apply(&self, entry: &LogEntry) {
        match entry.revoked {
            Revoked::ApiKey(id) if entry.generation == 0 => return self.api_keys.add(id),
            Revoked::KeyOwner(owner) => {
                self.api_keys.outdate(owner, entry.generation);
                return self.live.revoke(entry);
            }
            _ => {}
        }
        let new = Dead::new(entry.generation, entry.expires_at);
        self.dead.pin().update_or_insert(entry.revoked, |old| old.join(new), new);
        if matches!(entry.revoked, Revoked::Key(_)) {
            self.any_key.store(true, SeqCst);
        }
        if let Revoked::ApiKey(id) = entry.revoked {
            self.api_keys.remove(id);
        }
        self.live.revoke(entry);
    }

    /// Returns the API keys that live.
    pub fn api_keys(&self) -> &LiveApiKeys {
        &self.api_keys
    }

    /// Reads the API keys that are to be read again; with `waits`, after whoever reads them now.
    ///
    /// # Errors
    /// When the store fails. What was to be read stays to be read, and those keys are refused until then.
    pub async fn refresh_api_keys(&self, store: &(impl ApiKeys + ?Sized), waits: bool) -> store::Result<()> {
        let has_ended = |id| self.dead.pin().contains_key(&Revoked::ApiKey(id));
        self.api_keys.refresh(store, waits, has_ended).await
    }

    /// Applies an uncertain revocation, to be settled when the store can be reached:
    /// until then they may differ, and no login would succeed on this gateway.
    pub fn deny_in_doubt(&self, entry: &LogEntry) {
        self.apply(entry);
        let mut doubts = self.lock_doubts();
        let known = doubts.entry(entry.revoked).or_insert(*entry);
        known.generation = known.generation.max(entry.generation);
        known.expires_at = known.expires_at.max(entry.expires_at);
    }

    /// Returns the entries to be settled.
    pub fn doubts(&self) -> Vec<LogEntry> {
        self.lock_doubts().values().copied().collect()
    }

    /// The store has what this entry says. One that says more by now stays.
    pub fn forget_doubt(&self, entry: &LogEntry) {
        let mut doubts = self.lock_doubts();
        if doubts.get(&entry.revoked) == Some(entry) {
            doubts.remove(&entry.revoked);
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

    /// Returns the entries that have not expired.
    pub fn entries(&self, now: Now) -> Vec<LogEntry> {
        let dead = self.dead.pin();
        let live = dead.iter().filter(|(_, dead)| dead.until() > now.time);
        let entry = |(&revoked, dead): (&Revoked, &Dead)| LogEntry {
            revoked,
            generation: dead.below(),
            expires_at: dead.until(),
        };
        live.map(entry).collect()
    }

    /// Forgets the entries whose tokens have all expired.
    pub fn prune(&self, now: Now) {
        self.dead.pin().retain(|_, dead| dead.until() > now.time);
        self.api_keys.prune(now);
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
        // Readers that see this also see what was applied before.
        self.confirmed_wall.store(asked.wall, Release);
        self.confirmed_boot.store(asked.boot, Release);
    }

    /// The bound, in milliseconds.
    pub fn max_staleness(&self) -> i64 {
        self.max_staleness.load(Relaxed)
    }

    /// Sets the bound.
    pub fn set_max_staleness(&self, max_staleness: Duration) {
        self.max_staleness.store(in_millis(max_staleness), Relaxed);
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
            Some(lag) if lag > self.max_staleness() => Staleness::Stale,
            Some(_) => Staleness::Fresh,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::{ClientId, OsRandom, UserId};

    fn at(wall: i64, boot: i64) -> Now {
        Now { time: wall, wall, boot }
    }

    #[test]
    fn entries_join_to_the_highest_generation_and_the_latest_expiry() {
        let mirror = Mirror::new(Duration::from_secs(5));
        let (session, user) = (Some(SessionId::generate(&OsRandom)), UserId::generate(1, &OsRandom));
        let entry =
            |generation, expires_at| LogEntry { revoked: Revoked::User(user), generation, expires_at };
        mirror.apply(&entry(3, 10));
        mirror.apply(&entry(2, 20));
        assert!(mirror.is_revoked(session, Subject::User(user), 2));
        assert!(!mirror.is_revoked(session, Subject::User(user), 3));
        mirror.prune(at(15, 0));
        assert!(mirror.is_revoked(session, Subject::User(user), 2));
        mirror.prune(at(20, 0));
        assert!(mirror.is_empty());
    }

    #[test]
    fn an_ended_session_is_dead_at_every_generation_and_others_live() {
        let mirror = Mirror::new(Duration::from_secs(5));
        let session = SessionId::generate(&OsRandom);
        let subject = Subject::User(UserId::generate(1, &OsRandom));
        let revoked = Revoked::Session(session);
        mirror.apply(&LogEntry { revoked, generation: LogEntry::ALL, expires_at: 10 });
        assert!(mirror.is_revoked(Some(session), subject, 1_000_000));
        assert!(!mirror.is_revoked(Some(SessionId::generate(&OsRandom)), subject, 1));
    }

    #[test]
    fn one_id_of_two_kinds_is_two_entries() {
        let mirror = Mirror::new(Duration::from_secs(5));
        let user = UserId::generate(1, &OsRandom);
        let client = ClientId::from_uuid(user.uuid()).unwrap();
        mirror.apply(&LogEntry { revoked: Revoked::Client(client), generation: 5, expires_at: 10 });
        assert!(mirror.is_revoked(None, Subject::Client(client), 4));
        assert!(!mirror.is_revoked(None, Subject::User(user), 4));
    }

    #[test]
    fn a_revoked_key_is_dead_and_others_live() {
        let mirror = Mirror::new(Duration::from_secs(5));
        let revoked = Revoked::Key(KeyId::of("a"));
        assert!(!mirror.is_key_revoked(KeyId::of("a")));
        mirror.apply(&LogEntry { revoked, generation: LogEntry::ALL, expires_at: 10 });
        assert!(mirror.is_key_revoked(KeyId::of("a")) && !mirror.is_key_revoked(KeyId::of("b")));
    }

    #[test]
    fn every_entry_can_be_written_down_again() {
        let mirror = Mirror::new(Duration::from_secs(5));
        let kinds = [
            Revoked::Session(SessionId::generate(&OsRandom)),
            Revoked::User(UserId::generate(1, &OsRandom)),
            Revoked::Key(KeyId::of("a")),
            Revoked::External(ExternalId::of("https://a", "b")),
        ];
        let entries = kinds.map(|revoked| LogEntry { revoked, generation: 7, expires_at: 10 });
        entries.iter().for_each(|entry| mirror.apply(entry));
        let found = mirror.entries(at(9, 0));
        assert!(found.len() == 4 && entries.iter().all(|entry| found.contains(entry)));
        assert!(mirror.entries(at(10, 0)).is_empty());
    }

    #[test]
    fn the_lag_follows_the_clock_that_saw_more_time_pass() {
        let mirror = Mirror::new(Duration::from_secs(5));
        assert_eq!(mirror.staleness(at(0, 0)), Staleness::NeverLoaded);
        mirror.confirm(at(100_000, 1_000));
        assert_eq!(mirror.staleness(at(105_000, 6_000)), Staleness::Fresh);
        // The wall clock was set back, but time has passed.
        assert_eq!(mirror.staleness(at(0, 6_001)), Staleness::Stale);
        assert_eq!(mirror.staleness(at(105_001, 1_000)), Staleness::Stale);
    }
}
