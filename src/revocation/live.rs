//! Streams that outlive the decision they began with: tunnels, event streams, long transfers.
//!
//! A decision is made at the head of a request. A stream that continues afterwards is registered here by session and
//! subject, and cut when its token ends. Short responses are not registered.

use std::{
    collections::BTreeMap,
    ops::Bound::{self, Excluded, Included, Unbounded},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering::Relaxed, Ordering::SeqCst, fence},
    },
    task::Waker,
};

use crate::{
    clock::Now,
    store::{LogEntry, Revoked},
    types::{ApiKeyId, ExternalId, KeyId, SessionId, Subject, UserId},
};

/// The number of locks that the streams are spread over.
const SHARDS: usize = 64;

/// The number of streams that are checked while a lock is held, which bounds the wait to register one.
const PIECE: usize = 16;

/// The token that a stream lives by.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its session, if it belongs to one of ours.
    pub session: Option<SessionId>,
    /// Whom it stands for.
    pub subject: Subject,
    /// The subject's generation in it.
    pub generation: i64,
    /// What else it can be revoked by, if it is of another issuer: the session, the token, the subject while it is suspended.
    pub others: [Option<ExternalId>; 3],
    /// The API key, if it is one, its owner, and the generation in which they were read.
    pub api_key: Option<(ApiKeyId, UserId, i64)>,
    /// The key that signed it.
    pub key: KeyId,
    /// Falls when the key is taken out of use.
    pub key_in_use: Arc<AtomicBool>,
    /// When it expires, in Unix seconds.
    pub expires_at: i64,
}

/// Why a stream is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Its token was revoked.
    Revoked,
    /// Its token has expired.
    Expired,
    /// The mirror is stale.
    Stale,
    /// The config does not allow it any more.
    Config,
}

impl Cut {
    /// All of them, in the order of the counters.
    pub const ALL: [Self; 4] = [Self::Revoked, Self::Expired, Self::Stale, Self::Config];

    /// Its name in a metric.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Stale => "stale",
            Self::Config => "config",
        }
    }
}

struct Stream {
    token: Token,
    /// Whether it may go on when the mirror is stale.
    outlives_staleness: bool,
    number: u64,
    /// Why it was cut: a [`Cut`] and one; 0 while it flows.
    cut: AtomicU8,
    task: Waker,
}

type Place = (Revoked, u64);
type Shard = BTreeMap<Place, Arc<Stream>>;

/// The streams of all workers.
pub struct LiveStreams {
    shards: [Mutex<Shard>; SHARDS],
    count: AtomicUsize,
    next: AtomicU64,
    cuts: [AtomicU64; Cut::ALL.len()],
}

/// A stream's place in the index, for as long as it lives.
pub struct Registration {
    stream: Arc<Stream>,
    streams: Arc<LiveStreams>,
}

impl Registration {
    /// Whether the stream must end now.
    pub fn is_cut(&self) -> bool {
        self.cut().is_some()
    }

    /// Why the stream must end now.
    pub fn cut(&self) -> Option<Cut> {
        let cut = usize::from(self.stream.cut.load(Relaxed));
        cut.checked_sub(1).and_then(|cut| Cut::ALL.get(cut).copied())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        for key in self.stream.token.keys() {
            self.streams.shard_of(key).remove(&(key, self.stream.number));
        }
        self.streams.count.fetch_sub(1, SeqCst);
    }
}

impl Token {
    /// What its streams are found by.
    fn keys(&self) -> impl Iterator<Item = Revoked> {
        let others = self.others.into_iter().flatten().map(Revoked::External);
        let api_key = self
            .api_key
            .into_iter()
            .flat_map(|(id, owner, _)| [Revoked::ApiKey(id), Revoked::KeyOwner(owner)]);
        self.session
            .map(Revoked::Session)
            .into_iter()
            .chain([self.subject.into()])
            .chain(others)
            .chain(api_key)
    }
}

impl Default for LiveStreams {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            count: AtomicUsize::new(0),
            next: AtomicU64::new(0),
            cuts: Default::default(),
        }
    }
}

impl LiveStreams {
    fn shard_of(&self, key: Revoked) -> MutexGuard<'_, Shard> {
        self.lock(Self::number_of(key))
    }

    fn number_of(key: Revoked) -> usize {
        // The last bits of each kind of id are random.
        key.uuid().as_u128() as usize % SHARDS
    }

    fn lock(&self, shard: usize) -> MutexGuard<'_, Shard> {
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in a stream that `task` carries. Whether its token still holds must be looked at after this:
    /// then nothing that is revoked before or after the look is missed.
    pub(super) fn register(
        self: &Arc<Self>,
        token: Token,
        outlives_staleness: bool,
        task: Waker,
    ) -> Registration {
        let number = self.next.fetch_add(1, Relaxed);
        let stream = Arc::new(Stream { token, outlives_staleness, number, cut: AtomicU8::new(0), task });
        self.count.fetch_add(1, SeqCst);
        for key in stream.token.keys() {
            self.shard_of(key).insert((key, number), stream.clone());
        }
        fence(SeqCst);
        Registration { stream, streams: self.clone() }
    }

    /// Cuts what an entry concerns, which must be in the mirror already.
    pub(super) fn revoke(&self, entry: &LogEntry) {
        fence(SeqCst);
        if self.is_empty() {
            return;
        }
        match entry.revoked {
            Revoked::Session(_) | Revoked::ApiKey(_) => {
                self.cut_under(entry.revoked, |_| Some(Cut::Revoked));
            }
            Revoked::KeyOwner(_) => self.cut_under(entry.revoked, |stream| {
                let read_in = stream.token.api_key.map_or(i64::MAX, |(_, _, generation)| generation);
                (read_in < entry.generation).then_some(Cut::Revoked)
            }),
            Revoked::User(_) | Revoked::Client(_) | Revoked::External(_) => {
                self.cut_under(entry.revoked, |stream| {
                    (stream.token.generation < entry.generation).then_some(Cut::Revoked)
                });
            }
            Revoked::Key(id) => self.cut_all(|stream| (stream.token.key == id).then_some(Cut::Revoked)),
        }
    }

    /// Cuts expired streams and, with `stale`, those that must not continue on a stale mirror. Returns the Unix second
    /// at which the next one expires.
    pub(super) fn sweep(&self, now: Now, stale: bool) -> Option<i64> {
        let mut next: Option<i64> = None;
        self.cut_all(|stream| {
            let expires_at = stream.token.expires_at;
            if expires_at <= now.seconds() {
                return Some(Cut::Expired);
            }
            if !stream.token.key_in_use.load(Relaxed) {
                return Some(Cut::Revoked);
            }
            next = Some(next.map_or(expires_at, |next| next.min(expires_at)));
            (stale && !stream.outlives_staleness).then_some(Cut::Stale)
        });
        next
    }

    fn cut_under(&self, key: Revoked, judge: impl FnMut(&Stream) -> Option<Cut>) {
        self.cut_between(Self::number_of(key), Included((key, 0)), Included((key, u64::MAX)), judge);
    }

    fn cut_all(&self, mut judge: impl FnMut(&Stream) -> Option<Cut>) {
        for shard in 0..SHARDS {
            self.cut_between(shard, Unbounded, Unbounded, &mut judge);
        }
    }

    fn cut_between(
        &self,
        shard: usize,
        first: Bound<Place>,
        last: Bound<Place>,
        mut judge: impl FnMut(&Stream) -> Option<Cut>,
    ) {
        let mut from = first;
        loop {
            let piece: Vec<_> = self
                .lock(shard)
                .range((from, last))
                .take(PIECE)
                .map(|(key, stream)| (*key, stream.clone()))
                .collect();
            for (_, stream) in &piece {
                if let Some(cut) = judge(stream)
                    && stream.cut.compare_exchange(0, cut as u8 + 1, SeqCst, SeqCst).is_ok()
                {
                    self.cuts[cut as usize].fetch_add(1, Relaxed);
                    stream.task.wake_by_ref();
                }
            }
            match piece.last() {
                Some((key, _)) if piece.len() == PIECE => from = Excluded(*key),
                _ => return,
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count.load(SeqCst)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Counts one that was cut for a reason that is not its token's.
    pub fn count_cut(&self, cut: Cut) {
        self.cuts[cut as usize].fetch_add(1, Relaxed);
    }

    /// How many were cut since the start.
    pub fn cuts(&self, cut: Cut) -> u64 {
        self.cuts[cut as usize].load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{OsRandom, UserId};

    fn token(user: UserId, generation: i64) -> Token {
        let session = Some(SessionId::generate(&OsRandom));
        let subject = Subject::User(user);
        Token {
            session,
            subject,
            generation,
            others: [None; 3],
            api_key: None,
            key: KeyId::of("a"),
            key_in_use: Arc::new(AtomicBool::new(true)),
            expires_at: 100,
        }
    }

    fn entry(revoked: Revoked, generation: i64) -> LogEntry {
        LogEntry { revoked, generation, expires_at: 1_000_000 }
    }

    fn at(seconds: i64) -> Now {
        Now { time: seconds * 1_000, wall: seconds * 1_000, boot: 0 }
    }

    #[test]
    fn what_a_revocation_concerns_is_cut_and_nothing_else() {
        let streams = Arc::new(LiveStreams::default());
        let user = UserId::generate(1, &OsRandom);
        let begin = |token| streams.register(token, false, Waker::noop().clone());
        let (ended, other) = (token(user, 1), token(user, 1));
        let (ended, other, newer) = (begin(ended), begin(other), begin(token(user, 2)));
        let stranger = begin(token(UserId::generate(2, &OsRandom), 1));
        streams.revoke(&entry(Revoked::Session(ended.stream.token.session.unwrap()), LogEntry::ALL));
        assert!(ended.is_cut() && !other.is_cut());
        streams.revoke(&entry(Revoked::User(user), 2));
        assert!(other.is_cut() && !newer.is_cut() && !stranger.is_cut());
        streams.revoke(&entry(Revoked::Key(KeyId::of("b")), LogEntry::ALL));
        assert!(!stranger.is_cut());
        streams.revoke(&entry(Revoked::Key(KeyId::of("a")), LogEntry::ALL));
        assert!(stranger.is_cut() && newer.is_cut());
        assert_eq!((streams.len(), streams.cuts(Cut::Revoked)), (4, 4));
        drop((ended, other, newer, stranger));
        assert!(streams.is_empty());
        assert!(streams.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }

    #[test]
    fn hundreds_of_streams_of_one_user_are_all_cut() {
        let streams = Arc::new(LiveStreams::default());
        let user = UserId::generate(1, &OsRandom);
        let begin = |_| streams.register(token(user, 1), false, Waker::noop().clone());
        let all: Vec<_> = (0..500).map(begin).collect();
        streams.revoke(&entry(Revoked::User(user), 2));
        assert!(all.iter().all(Registration::is_cut));
    }

    #[test]
    fn what_expires_and_what_may_not_outlive_staleness_is_cut() {
        let streams = Arc::new(LiveStreams::default());
        let user = UserId::generate(1, &OsRandom);
        let begin = |expires_at, outlives| {
            streams.register(Token { expires_at, ..token(user, 1) }, outlives, Waker::noop().clone())
        };
        let (short, strict, lax) = (begin(10, true), begin(20, false), begin(30, true));
        assert_eq!(streams.sweep(at(9), false), Some(10));
        assert!(!short.is_cut());
        assert_eq!(streams.sweep(at(10), false), Some(20));
        assert_eq!((short.cut(), strict.cut()), (Some(Cut::Expired), None));
        streams.sweep(at(11), true);
        assert_eq!((strict.cut(), lax.cut()), (Some(Cut::Stale), None));
        assert_eq!(streams.cuts(Cut::Stale), 1);
    }
}
