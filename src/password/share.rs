//! How many hashes one account and one address may have waiting or running.
//!
//! Counted over all queues together, so that the shares do not tell in which of them a stored hash belongs.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// For whom something is hashed. Nothing is known of what an operator asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Origin {
    /// The account, in the form in which attempts are counted.
    pub account: Option<Box<str>>,
    /// The client's address; IPv6 by /64.
    pub address: Option<IpAddr>,
}

impl Origin {
    /// An origin, its address cut to what counts as one.
    pub fn new(account: Option<&str>, address: IpAddr) -> Self {
        let address = match address.to_canonical() {
            IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) >> 64 << 64).into()),
            v4 => v4,
        };
        Self { account: account.map(Into::into), address: Some(address) }
    }
}

/// The share of the queue that one address, and one account, may fill is one in so many.
const SHARE: usize = 4;

/// How many hashes of each account and address wait or run.
pub(super) struct Shares {
    most: usize,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    accounts: HashMap<Box<str>, usize>,
    addresses: HashMap<IpAddr, usize>,
}

/// The place of a hash in the shares of its origin, until it is dropped.
pub(super) struct Place {
    shares: Arc<Shares>,
    origin: Origin,
}

impl Shares {
    /// The shares of a queue of this capacity.
    pub(super) fn of(capacity: usize) -> Arc<Self> {
        Arc::new(Self { most: (capacity / SHARE).max(1), counts: Mutex::default() })
    }

    /// Takes a place; `None` if the account or the address has its fill.
    pub(super) fn enter(self: &Arc<Self>, origin: &Origin) -> Option<Place> {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let account = origin.account.as_ref().and_then(|account| counts.accounts.get(account));
        let address = origin.address.and_then(|address| counts.addresses.get(&address));
        if account.is_some_and(|count| *count >= self.most)
            || address.is_some_and(|count| *count >= self.most)
        {
            return None;
        }
        if let Some(account) = &origin.account {
            *counts.accounts.entry(account.clone()).or_default() += 1;
        }
        if let Some(address) = origin.address {
            *counts.addresses.entry(address).or_default() += 1;
        }
        Some(Place { shares: self.clone(), origin: origin.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.shares.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = &self.origin.account {
            leave(&mut counts.accounts, account);
        }
        if let Some(address) = &self.origin.address {
            leave(&mut counts.addresses, address);
        }
    }
}

fn leave<K: std::hash::Hash + Eq + std::borrow::Borrow<Q>, Q: std::hash::Hash + Eq + ?Sized>(
    counts: &mut HashMap<K, usize>,
    key: &Q,
) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_account_and_an_address_have_a_share_from_wherever_and_in_whatever_queue() {
        let shares = Shares::of(16);
        let origin = |account: &str, from: &str| Origin::new(Some(account), address(from));
        let places: Vec<_> = (0..4)
            .map(|index| shares.enter(&origin("alice", &format!("192.0.2.{index}"))).unwrap())
            .collect();
        assert!(shares.enter(&origin("alice", "192.0.2.9")).is_none());
        assert!(shares.enter(&origin("bob", "192.0.2.9")).is_some());
        drop(places);
        let places: Vec<_> =
            (0..4).map(|index| shares.enter(&origin(&format!("a{index}"), "192.0.2.1")).unwrap()).collect();
        assert!(shares.enter(&origin("bob", "192.0.2.1")).is_none());
        drop(places);
        assert!(shares.counts.lock().unwrap().accounts.is_empty());
        assert!(shares.counts.lock().unwrap().addresses.is_empty());
    }
}
