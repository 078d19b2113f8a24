//! Rates of requests, counted by many threads at once: the generic cell rate algorithm (ITU-T I.371, annex A).
//!
//! Of each key one number is kept: the time at which its bucket would be full again. It is an atomic, so threads that count different
//! keys share nothing, and those that count the same one agree to the request. The table has a fixed size. A key whose bucket is full
//! is as good as none, so its place is given away; only what is new takes a lock, one of many.

use std::{
    hash::{BuildHasher, Hash},
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicU64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant},
};

use foldhash::quality::RandomState;

/// How many keys there are places for: with 16 bytes each, 16 MiB, of which a system gives what is touched. And how many of those that
/// a client makes up as it likes, which take no place of the others.
const PLACES: usize = 1 << 20;
const FREE_PLACES: usize = 1 << 18;

/// What marks a key that a client makes up.
const FREE: u64 = 1 << 63;

/// The places among which a key may lie.
const WAYS: usize = 8;

/// The locks of those that are new.
const LOCKS: usize = 64;

const NANOS: u64 = 1_000_000_000;

/// What stands in a place that is being given away.
const TAKEN: u64 = u64::MAX;

/// A rate, as it is counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rate {
    /// The time that a request takes to come back to the bucket, in nanoseconds.
    interval: u64,
    /// The time that the whole bucket takes, in nanoseconds.
    bucket: u64,
}

impl Rate {
    /// `requests` in `per`, with a bucket of `burst`.
    pub fn new(requests: u32, per: Duration, burst: u32) -> Self {
        let per = u64::try_from(per.as_nanos()).unwrap_or(u64::MAX);
        let interval = (per / u64::from(requests.max(1))).max(1);
        Self { interval, bucket: interval.saturating_mul(burst.max(1).into()) }
    }
}

/// What is left of a bucket.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Left {
    /// Requests.
    pub requests: u64,
    /// Until the bucket is full again, in nanoseconds.
    pub full_in: u64,
    /// Until another request is taken, if this one was not, or 0, in nanoseconds.
    wait: u64,
}

impl Left {
    /// Returns the time until another request is taken, if this one was not.
    pub fn wait(&self) -> Option<Duration> {
        (self.wait > 0).then(|| Duration::from_nanos(self.wait))
    }
}

struct Place {
    key: AtomicU64,
    /// When the bucket is full again, in nanoseconds since the table was made.
    full_at: AtomicU64,
}

/// Counts requests by key.
pub struct Rates {
    places: Box<[Place]>,
    free: Box<[Place]>,
    locks: [Mutex<()>; LOCKS],
    hasher: RandomState,
    begun: Instant,
}

impl Default for Rates {
    fn default() -> Self {
        Self::new(PLACES, FREE_PLACES)
    }
}

impl Rates {
    /// Creates tables for so many keys, powers of two.
    fn new(places: usize, free: usize) -> Self {
        // SAFETY: a place is two numbers, which may be 0.
        let zeroed = |count| unsafe { Box::<[Place]>::new_zeroed_slice(count).assume_init() };
        Self {
            places: zeroed(places),
            free: zeroed(free),
            locks: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::default(),
            begun: Instant::now(),
        }
    }

    /// Returns the key of what is counted.
    pub fn key(&self, of: impl Hash) -> u64 {
        // No key is that of an empty place.
        (self.hasher.hash_one(of) & !FREE).max(1)
    }

    /// Returns the key of what a client may call as it likes.
    pub fn free_key(&self, of: impl Hash) -> u64 {
        self.hasher.hash_one(of) | FREE
    }

    fn nanos(&self, at: Instant) -> u64 {
        // The bucket of a place that was never used is full at 0.
        let since = at.saturating_duration_since(self.begun);
        since.as_secs().saturating_mul(NANOS).saturating_add(since.subsec_nanos().into()).min(TAKEN - 2) + 1
    }

    /// Takes a request from the buckets of all `keys`, or from none of them, and tells what is `left` of each, up to the first that was
    /// empty. Returns how many were looked at.
    pub fn take(&self, keys: &[(u64, Rate)], at: Instant, left: &mut [Left]) -> usize {
        let now = self.nanos(at);
        for (index, &(key, rate)) in keys.iter().enumerate() {
            let of = self.take_one(key, rate, now);
            left[index] = of;
            if of.wait > 0 {
                for (&(key, rate), left) in keys[..index].iter().zip(&mut *left) {
                    self.give_back(key, rate, now);
                    left.requests += 1;
                    left.full_in = left.full_in.saturating_sub(rate.interval);
                }
                return index + 1;
            }
        }
        keys.len()
    }

    fn take_one(&self, key: u64, rate: Rate, now: u64) -> Left {
        loop {
            let place = self.place(key, now);
            let full_at = place.full_at.load(Acquire);
            if full_at == TAKEN || place.key.load(Acquire) != key {
                continue;
            }
            let taken = full_at.max(now).saturating_add(rate.interval).min(TAKEN - 1);
            let owed = taken - now;
            if owed > rate.bucket {
                let before = full_at.saturating_sub(now);
                let left = rate.bucket.saturating_sub(before) / rate.interval;
                return Left { requests: left, full_in: before, wait: owed - rate.bucket };
            }
            if place.full_at.compare_exchange_weak(full_at, taken, Release, Relaxed).is_ok() {
                let requests = (rate.bucket - owed) / rate.interval;
                return Left { requests, full_in: owed, wait: 0 };
            }
        }
    }

    /// Gives a request back that was taken.
    fn give_back(&self, key: u64, rate: Rate, now: u64) {
        let Some(place) = self.known(key) else { return };
        let back = |full_at: u64| {
            (full_at != TAKEN && full_at > now).then(|| full_at - rate.interval.min(full_at - 1))
        };
        let _ = place.full_at.fetch_update(Release, Relaxed, back);
    }

    fn ways(&self, key: u64) -> &[Place] {
        let places = if key & FREE == 0 { &self.places } else { &self.free };
        let first = first_of(key, places.len());
        &places[first..first + WAYS]
    }

    fn known(&self, key: u64) -> Option<&Place> {
        self.ways(key).iter().find(|place| place.key.load(Acquire) == key)
    }

    /// Returns the place of a key, which gets one if it has none: one whose bucket is full, or the one that is full first.
    fn place(&self, key: u64, now: u64) -> &Place {
        if let Some(place) = self.known(key) {
            return place;
        }
        let lock = &self.locks[first_of(key, FREE_PLACES.min(self.places.len())) / WAYS % LOCKS];
        let _new = lock.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = self.known(key) {
            return place;
        }
        let ways = self.ways(key);
        let mut oldest = (&ways[0], u64::MAX);
        for place in ways {
            let full_at = place.full_at.load(Acquire);
            if full_at < oldest.1 {
                oldest = (place, full_at);
            }
            if full_at <= now {
                break;
            }
        }
        let place = oldest.0;
        // Whoever counts its old key meanwhile finds another number, and looks for its place again.
        place.full_at.store(TAKEN, Release);
        place.key.store(key, Release);
        place.full_at.store(0, Release);
        place
    }
}

/// Returns the first place of a key among so many.
fn first_of(key: u64, places: usize) -> usize {
    key as usize & (places - 1) & !(WAYS - 1)
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
    };

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn take(rates: &Rates, key: u64, rate: Rate, at: Instant) -> Left {
        let mut left = [Left::default()];
        rates.take(&[(key, rate)], at, &mut left);
        left[0]
    }

    #[test]
    fn a_bucket_empties_and_fills_by_its_rate() {
        let rates = Rates::new(64, 64);
        let (key, rate) = (rates.key("alice"), Rate::new(10, SECOND, 3));
        let begin = Instant::now();
        for left in [2, 1, 0] {
            let of = take(&rates, key, rate, begin);
            assert_eq!((of.requests, of.wait()), (left, None));
        }
        let of = take(&rates, key, rate, begin);
        assert_eq!((of.requests, of.wait()), (0, Some(SECOND / 10)));
        assert_eq!(of.full_in, 3 * NANOS / 10);
        assert!(take(&rates, key, rate, begin + SECOND / 10 - Duration::from_nanos(1)).wait().is_some());
        assert_eq!(take(&rates, key, rate, begin + SECOND / 10).wait(), None);
        // However long it rests, it holds no more than its size.
        let later = begin + 100 * SECOND;
        assert_eq!((0..9).filter(|_| take(&rates, key, rate, later).wait().is_none()).count(), 3);
        // Another one is another.
        assert_eq!(take(&rates, rates.key("bob"), rate, later).requests, 2);
    }

    #[test]
    fn what_one_refuses_spends_nothing_of_the_others() {
        let rates = Rates::new(64, 64);
        let begin = Instant::now();
        let wide = (rates.key("wide"), Rate::new(100, SECOND, 100));
        let narrow = (rates.key("narrow"), Rate::new(1, SECOND, 1));
        let mut left = [Left::default(); 2];
        rates.take(&[wide, narrow], begin, &mut left);
        assert_eq!(left[1].wait(), None);
        for _ in 0..200 {
            rates.take(&[wide, narrow], begin, &mut left);
            assert_eq!((left[0].requests, left[1].wait()), (99, Some(SECOND)));
        }
        assert_eq!(take(&rates, wide.0, wide.1, begin).requests, 98);
    }

    #[test]
    fn threads_take_what_there_is_to_the_request() {
        let rates = Rates::new(1 << 10, 64);
        let taken: Vec<_> = (0..8).map(|_| AtomicUsize::new(0)).collect();
        let begin = Instant::now();
        let rate = Rate::new(1_000, SECOND, 500);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..40_000_u32 {
                        // Half a second passes, and brings half as much again.
                        let at = begin + SECOND * (round / 400) / 200;
                        let key = round as usize % taken.len();
                        if take(&rates, rates.key(key), rate, at).wait().is_none() {
                            taken[key].fetch_add(1, SeqCst);
                        }
                    }
                });
            }
        });
        for taken in taken {
            let taken = taken.load(SeqCst);
            // The clocks of the threads are not the same: whoever is behind sees less.
            assert!((990..=1_000).contains(&taken), "{taken}");
        }
    }

    #[test]
    fn a_flood_of_keys_takes_no_more_room_and_pushes_out_what_is_full_first() {
        let rates = Rates::new(64, 64);
        let begin = Instant::now();
        let (slow, fast) = (Rate::new(1, 60 * SECOND, 1), Rate::new(1_000, SECOND, 1));
        let spent: Vec<_> = (0..4).map(|index| rates.key(("spent", index))).collect();
        for key in &spent {
            assert_eq!(take(&rates, *key, slow, begin).wait(), None);
        }
        for index in 0..100_000 {
            take(&rates, rates.key(("flood", index)), fast, begin + SECOND);
        }
        // And what clients make up pushes out nobody at all.
        for index in 0..100_000 {
            take(&rates, rates.free_key(index), slow, begin + SECOND);
        }
        for key in spent {
            assert!(take(&rates, key, slow, begin + 2 * SECOND).wait().is_some());
        }
    }
}
