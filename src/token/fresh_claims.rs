//! Claims of accounts for cookies that are signed anew.
//!
//! A cookie is signed anew without a write, by what the one before says. Names and roles cannot have changed meanwhile, since that ends
//! sessions; an address may have been verified. So what claims say is asked for beforehand, and nobody waits for it.

use std::sync::Arc;

use foldhash::fast::RandomState;
use moka::sync::Cache;
use tokio::sync::mpsc;

use crate::types::{ClaimValues, UserId};

/// Accounts whose claims are remembered, and that may wait to be looked up.
const MOST_KNOWN: u64 = 10_000;
const MOST_WANTED: usize = 1_000;

/// How long what was read is fresh, in seconds.
const FRESH_FOR: i64 = 60;

/// Claims of accounts, as they were read a moment ago.
pub struct FreshClaims {
    known: Cache<UserId, Known, RandomState>,
    wanted: mpsc::Sender<UserId>,
}

#[derive(Clone)]
struct Known {
    values: Arc<ClaimValues>,
    /// The account's generation then.
    generation: i64,
    /// In Unix seconds.
    read_at: i64,
}

impl FreshClaims {
    /// Creates an empty set, and what tells whose claims are wanted.
    pub fn new() -> (Arc<Self>, mpsc::Receiver<UserId>) {
        let (wanted, receiver) = mpsc::channel(MOST_WANTED);
        let known = Cache::builder().max_capacity(MOST_KNOWN).build_with_hasher(RandomState::default());
        (Arc::new(Self { known, wanted }), receiver)
    }

    /// Takes claims that were read at `now`, in Unix seconds, of an account that has this generation.
    pub fn learn(&self, user: UserId, generation: i64, values: ClaimValues, now: i64) {
        self.known.insert(user, Known { values: Arc::new(values), generation, read_at: now });
    }

    /// Returns the claims of an account in a generation if they are fresh at `now`, in Unix seconds. If not, they are asked for.
    pub(super) fn get(&self, user: UserId, generation: i64, now: i64) -> Option<Arc<ClaimValues>> {
        let is_fresh = |known: &Known| known.generation == generation && now - known.read_at < FRESH_FOR;
        let fresh = self.known.get(&user).filter(is_fresh);
        if fresh.is_none() {
            // With too many in the queue the next request asks again.
            let _ = self.wanted.try_send(user);
        }
        fresh.map(|known| known.values)
    }
}
