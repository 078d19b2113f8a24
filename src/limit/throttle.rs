//! Counts attempts in memory, in buckets that refill evenly.
//!
//! What is required here:
//! - Buckets are taken from together, all or none, before anything costly, so that a thousand attempts at once are
//!   not a thousand free ones.
//! - Each counter has a place of its own, so that names that do not exist cannot push out the counters of accounts.
//! - Memory is bounded. What was not touched for its whole period is forgotten, which is the same as being full
//!   again; beyond that the least spent bucket goes first.
//!
//! Several gateways on one store count in the store instead.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use foldhash::quality::RandomState;

use crate::{config::Rate, types::hash::sha256};

/// Buckets of one counter that are remembered.
const MAX_BUCKETS: usize = 200_000;

/// Refused: too many attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Throttled {
    /// When the next attempt will be taken.
    pub retry_after: Duration,
}

/// An address as it is counted: IPv4 whole, IPv6 by the /64 that one customer is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Prefix(u64, bool);

impl std::fmt::Display for Prefix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{:x}", if self.1 { "v6" } else { "v4" }, self.0)
    }
}

impl Prefix {
    /// The prefix of an address.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(u32::from(v4)), false),
            IpAddr::V6(v6) => Self((u128::from(v6) >> 64) as u64, true),
        }
    }
}

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// Failures from an address.
    AddressFailures,
    /// Attempts from an address, whatever comes of them.
    AddressAttempts,
    /// Failures of an account, from addresses that are strange to it.
    AccountFailures,
    /// Attempts at such an account, whatever comes of them.
    AccountAttempts,
    /// Failures of an account from an address that is familiar to it.
    FamiliarFailures,
    /// Attempts at such an account, whatever comes of them.
    FamiliarAttempts,
    /// Failures of names that no account has.
    UnknownFailures,
    /// Attempts at such names: counted so that they cost what those at accounts do.
    UnknownAttempts,
    /// Registrations from an address.
    Registrations,
    /// Requests for mails from an address.
    Mails,
    /// Mails to anybody.
    AllMails,
    /// Mails to an account.
    AccountMails,
    /// Mails to an account that tell of changes.
    AccountNotices,
    /// Refreshes of a session.
    Refreshes,
    /// Refresh tokens from an address that are none of ours.
    BadRefreshes,
    /// Challenges from an address that are made for nobody in particular, or are none of ours.
    Challenges,
    /// The addresses that are familiar to an account.
    Familiar,
}

/// How many counters there are.
const COUNTERS: usize = Counter::Familiar as usize + 1;

/// A bucket that refills evenly.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// What it counts.
    pub counter: Counter,
    /// Of whom: a hash, so that no name that somebody tried is kept.
    pub key: [u8; 16],
    /// How many attempts it holds, and in how long it refills.
    pub rate: Rate,
}

impl Bucket {
    /// The bucket of `whom`.
    pub fn new(counter: Counter, whom: &str, rate: Rate) -> Self {
        let hash = sha256(format!("{counter:?}\0{whom}").as_bytes());
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        Self { counter, key, rate }
    }

    fn millis_each(&self) -> f64 {
        self.rate.per.as_millis() as f64 / f64::from(self.rate.count)
    }
}

/// The counters of one gateway.
#[derive(Default)]
pub struct Throttle {
    counters: [Mutex<HashMap<[u8; 16], Spent, RandomState>>; COUNTERS],
}

#[derive(Debug, Clone, Copy)]
struct Spent {
    /// What is spent, in attempts; shrinks with time.
    attempts: f64,
    at: i64,
    /// When nothing is spent any more.
    full_at: i64,
}

impl Spent {
    fn left(&self, each: f64, now: i64) -> f64 {
        (self.attempts - (now - self.at).max(0) as f64 / each).max(0.0)
    }
}

impl Throttle {
    /// Counters that have counted nothing.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    fn counter(&self, counter: Counter) -> MutexGuard<'_, HashMap<[u8; 16], Spent, RandomState>> {
        self.counters[counter as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one from each bucket, or from none, at `now`, boot-time milliseconds.
    ///
    /// # Errors
    /// When one of them is empty.
    pub fn take(&self, buckets: &[Bucket], now: i64) -> Result<(), Throttled> {
        for (index, bucket) in buckets.iter().enumerate() {
            if let Err(throttled) = self.take_one(bucket, now) {
                self.give_back(&buckets[..index], now);
                return Err(throttled);
            }
        }
        Ok(())
    }

    fn take_one(&self, bucket: &Bucket, now: i64) -> Result<(), Throttled> {
        let mut counter = self.counter(bucket.counter);
        if counter.len() >= MAX_BUCKETS && !counter.contains_key(&bucket.key) {
            make_room(&mut counter, now);
        }
        let each = bucket.millis_each();
        let entry = counter.entry(bucket.key).or_insert(Spent { attempts: 0.0, at: now, full_at: now });
        let spent = entry.left(each, now);
        let over = spent + 1.0 - f64::from(bucket.rate.count);
        if over > 1e-9 {
            return Err(Throttled { retry_after: Duration::from_millis((over * each).ceil() as u64) });
        }
        let at = now.max(entry.at);
        *entry = Spent { attempts: spent + 1.0, at, full_at: at + ((spent + 1.0) * each).ceil() as i64 };
        Ok(())
    }

    /// Gives one back to each bucket.
    pub fn give_back(&self, buckets: &[Bucket], now: i64) {
        for bucket in buckets {
            let each = bucket.millis_each();
            if let Some(entry) = self.counter(bucket.counter).get_mut(&bucket.key) {
                let spent = (entry.left(each, now) - 1.0).max(0.0);
                let at = now.max(entry.at);
                *entry = Spent { attempts: spent, at, full_at: at + (spent * each).ceil() as i64 };
            }
        }
    }

    /// Remembers a bucket for its period, from which nothing is taken.
    pub fn note(&self, bucket: &Bucket, now: i64) {
        let mut counter = self.counter(bucket.counter);
        if counter.len() >= MAX_BUCKETS && !counter.contains_key(&bucket.key) {
            make_room(&mut counter, now);
        }
        let full_at = now + bucket.rate.per.as_millis() as i64;
        counter.insert(bucket.key, Spent { attempts: 0.0, at: now, full_at });
    }

    /// Whether a bucket is remembered.
    pub fn is_known(&self, bucket: &Bucket, now: i64) -> bool {
        self.counter(bucket.counter).get(&bucket.key).is_some_and(|entry| now < entry.full_at)
    }
}

fn make_room(counter: &mut HashMap<[u8; 16], Spent, RandomState>, now: i64) {
    counter.retain(|_, entry| now < entry.full_at);
    if counter.len() >= MAX_BUCKETS {
        // A sample is enough: what matters is that a spent bucket survives those around it.
        let least = counter.iter().take(64).min_by_key(|(_, entry)| entry.full_at).map(|(key, _)| *key);
        least.map(|key| counter.remove(&key));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(counter: Counter, whom: &str, count: u32) -> Bucket {
        Bucket::new(counter, whom, Rate { count, per: Duration::from_secs(100) })
    }

    fn account(name: &str) -> [Bucket; 1] {
        [bucket(Counter::AccountFailures, name, 3)]
    }

    #[test]
    fn a_bucket_is_bounded_and_refills_evenly() {
        let throttle = Throttle::new();
        for _ in 0..3 {
            assert_eq!(throttle.take(&account("a"), 0), Ok(()));
        }
        let refused = throttle.take(&account("a"), 0).unwrap_err();
        assert_eq!(refused.retry_after, Duration::from_millis(33_334));
        assert_eq!(throttle.take(&account("a"), 33_334), Ok(()));
        assert!(throttle.take(&account("a"), 33_335).is_err());
        assert_eq!(throttle.take(&account("b"), 0), Ok(()));
    }

    #[test]
    fn what_is_given_back_was_not_taken() {
        let throttle = Throttle::new();
        for _ in 0..100 {
            assert_eq!(throttle.take(&account("a"), 0), Ok(()));
            throttle.give_back(&account("a"), 0);
        }
    }

    #[test]
    fn buckets_are_taken_together_or_not_at_all() {
        let throttle = Throttle::new();
        let both = [bucket(Counter::AddressFailures, "here", 10), bucket(Counter::AccountFailures, "a", 1)];
        assert_eq!(throttle.take(&both, 0), Ok(()));
        for _ in 0..20 {
            assert!(throttle.take(&both, 0).is_err());
        }
        for _ in 0..9 {
            assert_eq!(throttle.take(&both[..1], 0), Ok(()));
        }
        assert!(throttle.take(&both[..1], 0).is_err());
    }

    #[test]
    fn what_is_noted_is_known_for_its_period() {
        let throttle = Throttle::new();
        let pair = bucket(Counter::Familiar, "here a", 1);
        assert!(!throttle.is_known(&pair, 0));
        throttle.note(&pair, 0);
        assert!(throttle.is_known(&pair, 99_999));
        assert!(!throttle.is_known(&pair, 100_000));
    }

    #[test]
    fn ipv6_counts_by_its_network() {
        let prefix = |text: &str| Prefix::of(text.parse().unwrap());
        assert_eq!(prefix("2001:db8::1"), prefix("2001:db8::ffff"));
        assert_ne!(prefix("2001:db8::1"), prefix("2001:db8:0:1::1"));
        assert_eq!(prefix("::ffff:192.0.2.1"), prefix("192.0.2.1"));
    }

    #[test]
    fn a_flood_of_keys_pushes_out_none_that_is_spent() {
        let throttle = Throttle::new();
        for _ in 0..3 {
            assert_eq!(throttle.take(&account("real"), 0), Ok(()));
        }
        for name in 0..MAX_BUCKETS + 100 {
            let unknown = [bucket(Counter::UnknownFailures, &name.to_string(), 3)];
            assert_eq!(throttle.take(&unknown, 1), Ok(()));
        }
        assert!(throttle.take(&account("real"), 1).is_err());
        assert!(throttle.counter(Counter::UnknownFailures).len() <= MAX_BUCKETS);
    }
}
