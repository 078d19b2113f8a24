//! Throttling of logins, registrations and mails, counted in memory.
//!
//! What is required here:
//! - An attempt is reserved before anything costly and given back when it succeeds, so that a
//!   thousand attempts at once are not a thousand free ones.
//! - It is never a lockout: a stranger's failures bind strangers. Whoever has logged in from an
//!   address before has a bucket of his own there.
//! - Names that do not exist are counted in a place of their own, so that random names cannot push
//!   out the counters of real accounts.
//! - Memory is bounded. What was not touched for its whole period is forgotten, which is the same
//!   as being full again; beyond that the least spent bucket goes first.
//!
//! Several gateways on one store count in the store instead.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use foldhash::quality::RandomState;

use crate::config::{self, Rate};

/// The most buckets of each kind.
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

/// The throttle.
pub struct Throttle {
    accounts: Buckets<Box<str>>,
    unknown_names: Buckets<Box<str>>,
    familiar: Buckets<(Box<str>, Prefix)>,
    addresses: Buckets<Prefix>,
    registrations: Buckets<Prefix>,
    mails: Buckets<Prefix>,
}

/// A reserved login attempt. Unless it is marked as succeeded, it counts as a failure.
#[must_use]
pub struct Attempt {
    throttle: Arc<Throttle>,
    account: Box<str>,
    known: bool,
    familiar: bool,
    prefix: Prefix,
    now: i64,
}

impl Throttle {
    /// A throttle that has seen nothing.
    pub fn new(config: &config::Throttle) -> Arc<Self> {
        Arc::new(Self {
            accounts: Buckets::new(config.account),
            unknown_names: Buckets::new(config.account),
            familiar: Buckets::new(config.account),
            addresses: Buckets::new(config.address),
            registrations: Buckets::new(config.registrations),
            mails: Buckets::new(config.mails),
        })
    }

    /// Reserves a login of `account` (its look, so that spellings count together) from `address`
    /// at `now`, boot-time milliseconds. `known` says whether there is such an account.
    ///
    /// # Errors
    /// When there were too many failures.
    pub fn login(
        self: &Arc<Self>,
        account: &str,
        known: bool,
        address: IpAddr,
        now: i64,
    ) -> Result<Attempt, Throttled> {
        let prefix = Prefix::of(address);
        self.addresses.take(prefix, now)?;
        let account: Box<str> = account.into();
        let pair = (account.clone(), prefix);
        let familiar = known && self.familiar.contains(&pair);
        let taken = if familiar {
            self.familiar.take(pair, now)
        } else if known {
            self.accounts.take(account.clone(), now)
        } else {
            self.unknown_names.take(account.clone(), now)
        };
        if let Err(throttled) = taken {
            // Not evaluated, so not a failure of the address either.
            self.addresses.give_back(&prefix, now);
            return Err(throttled);
        }
        Ok(Attempt { throttle: self.clone(), account, known, familiar, prefix, now })
    }

    /// Counts a registration from `address`.
    ///
    /// # Errors
    /// When there were too many.
    pub fn registration(&self, address: IpAddr, now: i64) -> Result<(), Throttled> {
        self.registrations.take(Prefix::of(address), now)
    }

    /// Counts a request for a mail from `address`.
    ///
    /// # Errors
    /// When there were too many.
    pub fn mail(&self, address: IpAddr, now: i64) -> Result<(), Throttled> {
        self.mails.take(Prefix::of(address), now)
    }
}

impl Attempt {
    /// The password was right: nothing is counted, and the address is familiar from now on.
    pub fn succeeded(self) {
        let throttle = self.throttle.clone();
        let pair = (self.account.clone(), self.prefix);
        self.forgotten();
        throttle.familiar.note(pair);
    }

    /// The password was never looked at, as when the store is away: nothing is counted.
    pub fn forgotten(self) {
        let throttle = &self.throttle;
        throttle.addresses.give_back(&self.prefix, self.now);
        if self.familiar {
            throttle.familiar.give_back(&(self.account, self.prefix), self.now);
        } else if self.known {
            throttle.accounts.give_back(&self.account, self.now);
        } else {
            throttle.unknown_names.give_back(&self.account, self.now);
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// What is spent, in attempts; shrinks with time.
    spent: f64,
    at: i64,
}

/// Buckets that refill evenly over their period.
struct Buckets<K> {
    rate: Rate,
    map: Mutex<HashMap<K, Bucket, RandomState>>,
}

impl<K: Hash + Eq + Clone> Buckets<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, map: Mutex::default() }
    }

    fn millis_each(&self) -> f64 {
        self.rate.per.as_millis() as f64 / f64::from(self.rate.count)
    }

    fn spent(&self, bucket: Bucket, now: i64) -> f64 {
        (bucket.spent - (now - bucket.at).max(0) as f64 / self.millis_each()).max(0.0)
    }

    fn take(&self, key: K, now: i64) -> Result<(), Throttled> {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MAX_BUCKETS && !map.contains_key(&key) {
            self.make_room(&mut map, now);
        }
        let bucket = map.entry(key).or_insert(Bucket { spent: 0.0, at: now });
        let spent = self.spent(*bucket, now);
        let over = spent + 1.0 - f64::from(self.rate.count);
        if over > 1e-9 {
            return Err(Throttled {
                retry_after: Duration::from_millis((over * self.millis_each()).ceil() as u64),
            });
        }
        *bucket = Bucket { spent: spent + 1.0, at: now.max(bucket.at) };
        Ok(())
    }

    fn give_back(&self, key: &K, now: i64) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = map.get_mut(key) {
            let spent = (self.spent(*bucket, now) - 1.0).max(0.0);
            *bucket = Bucket { spent, at: now.max(bucket.at) };
        }
    }

    fn contains(&self, key: &K) -> bool {
        self.map.lock().unwrap_or_else(PoisonError::into_inner).contains_key(key)
    }

    /// Makes sure that `key` is there.
    fn note(&self, key: K) {
        let mut map = self.map.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MAX_BUCKETS {
            let victim = map.keys().next().cloned();
            victim.map(|victim| map.remove(&victim));
        }
        map.entry(key).or_insert(Bucket { spent: 0.0, at: i64::MIN / 2 });
    }

    fn make_room(&self, map: &mut HashMap<K, Bucket, RandomState>, now: i64) {
        map.retain(|_, bucket| self.spent(*bucket, now) > 0.0);
        if map.len() >= MAX_BUCKETS {
            // A sample is enough: what matters is that a spent bucket survives those around it.
            let least = map
                .iter()
                .take(64)
                .min_by(|a, b| self.spent(*a.1, now).total_cmp(&self.spent(*b.1, now)))
                .map(|(key, _)| key.clone());
            least.map(|key| map.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    fn throttle() -> Arc<Throttle> {
        let rate = |count| Rate { count, per: Duration::from_secs(100) };
        Throttle::new(&config::Throttle {
            account: rate(3),
            address: rate(50),
            registrations: rate(2),
            mails: rate(2),
        })
    }

    #[test]
    fn failures_of_an_account_are_bounded_and_come_back_evenly() {
        let throttle = throttle();
        for _ in 0..3 {
            drop(throttle.login("a", true, HERE, 0).unwrap());
        }
        let refused = throttle.login("a", true, HERE, 0).err().unwrap();
        assert_eq!(refused.retry_after, Duration::from_millis(33_334));
        assert!(throttle.login("a", true, HERE, 33_334).is_ok());
        assert!(throttle.login("a", true, HERE, 33_335).is_err());
        assert!(throttle.login("b", true, HERE, 0).is_ok());
    }

    #[test]
    fn a_success_is_not_counted() {
        let throttle = throttle();
        for _ in 0..100 {
            throttle.login("a", true, HERE, 0).unwrap().succeeded();
        }
    }

    #[test]
    fn a_stranger_cannot_lock_out_whoever_has_logged_in_before() {
        let throttle = throttle();
        throttle.login("a", true, HERE, 0).unwrap().succeeded();
        for _ in 0..3 {
            drop(throttle.login("a", true, THERE, 0).unwrap());
        }
        assert!(throttle.login("a", true, THERE, 0).is_err());
        assert!(throttle.login("a", true, HERE, 0).is_ok());
    }

    #[test]
    fn attempts_at_once_are_reserved_before_they_are_judged() {
        let throttle = throttle();
        let open: Vec<_> = (0..3).map(|_| throttle.login("a", true, HERE, 0).unwrap()).collect();
        assert!(throttle.login("a", true, HERE, 0).is_err());
        open.into_iter().for_each(Attempt::forgotten);
        assert!(throttle.login("a", true, HERE, 0).is_ok());
    }

    #[test]
    fn addresses_are_bounded_and_ipv6_counts_by_its_network() {
        let throttle = throttle();
        for host in 0..50_u16 {
            let address: IpAddr = format!("2001:db8::{host:x}").parse().unwrap();
            drop(throttle.login(&host.to_string(), false, address, 0).unwrap());
        }
        assert!(throttle.login("x", false, "2001:db8::ffff".parse().unwrap(), 0).is_err());
        assert!(throttle.login("x", false, "2001:db8:0:1::1".parse().unwrap(), 0).is_ok());
    }

    #[test]
    fn random_names_do_not_push_out_real_accounts() {
        let throttle = throttle();
        for _ in 0..3 {
            drop(throttle.login("real", true, HERE, 0).unwrap());
        }
        for name in 0..MAX_BUCKETS + 100 {
            let address = IpAddr::V4(std::net::Ipv4Addr::from(name as u32));
            drop(throttle.login(&name.to_string(), false, address, 1).unwrap());
        }
        assert!(throttle.login("real", true, HERE, 1).is_err());
        assert!(throttle.unknown_names.map.lock().unwrap().len() <= MAX_BUCKETS);
    }

    #[test]
    fn registrations_are_counted_by_address() {
        let throttle = throttle();
        assert!(throttle.registration(HERE, 0).is_ok());
        assert!(throttle.registration(HERE, 0).is_ok());
        assert!(throttle.registration(HERE, 0).is_err());
        assert!(throttle.registration(THERE, 0).is_ok());
    }
}
