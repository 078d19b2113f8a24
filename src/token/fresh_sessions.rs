//! What is known of sessions by now, for cookies that are signed anew.
//!
//! A cookie is signed anew without a write, by what the one before says. Names and roles cannot have changed meanwhile, since that ends
//! sessions; but an address may have been verified, the last factor removed, or a factor have become a must. Where a cookie depends on any
//! of that, the session is read beforehand, so that no request waits for the store.

use std::sync::Arc;

use foldhash::fast::RandomState;
use moka::sync::Cache;
use tokio::sync::mpsc;

use crate::types::{ClaimValues, Proofs, Role, Roles, SessionId};

/// Sessions that are remembered, and that may wait to be looked up.
const MOST_KNOWN: u64 = 10_000;
const MOST_WANTED: usize = 1_000;

/// How long what was read is fresh, in seconds.
const FRESH_FOR: i64 = 60;

/// Sessions, as they were read a moment ago.
pub struct FreshSessions {
    known: Cache<SessionId, Arc<FreshSession>, RandomState>,
    wanted: mpsc::Sender<SessionId>,
    has_claims: bool,
    /// The roles whose holders must have a factor.
    required_for: Roles,
}

/// What is known of a session.
pub struct FreshSession {
    /// What claims say of its user.
    pub claims: ClaimValues,
    /// How its holder has shown who they are.
    pub proofs: Proofs,
    /// Whether its user must get a factor first.
    pub lacks_factor: bool,
    /// Its user's generation.
    pub generation: i64,
    /// When it was read, in Unix seconds.
    pub read_at: i64,
}

impl FreshSessions {
    /// Creates an empty set, and what tells which are wanted. `has_claims` tells whether claims say anything of users, and `required_for`
    /// whose holders must have a factor.
    pub fn new(has_claims: bool, required_for: Roles) -> (Arc<Self>, mpsc::Receiver<SessionId>) {
        let (wanted, receiver) = mpsc::channel(MOST_WANTED);
        let known = Cache::builder().max_capacity(MOST_KNOWN).build_with_hasher(RandomState::default());
        (Arc::new(Self { known, wanted, has_claims, required_for }), receiver)
    }

    /// Returns whether the holders of these roles must have a factor.
    pub(super) fn is_for(&self, required_for: &Roles) -> bool {
        self.required_for == *required_for
    }

    /// Takes what was read of a session.
    pub fn learn(&self, session: SessionId, read: FreshSession) {
        self.known.insert(session, Arc::new(read));
    }

    /// Returns whether the cookie of a session depends on what may have changed.
    pub(super) fn bears_on(&self, proofs: Proofs, roles: &Roles) -> bool {
        let must = |role: &Role| self.required_for.contains(role.as_str());
        self.has_claims || proofs.has_factor() || proofs.is_multi_factor() || roles.iter().any(must)
    }

    /// Returns what was read of a session at `since` or later, whose user is of this generation. If that is nothing, or not fresh at `now`, it
    /// is asked for. Times are Unix seconds.
    pub(super) fn get(
        &self,
        session: SessionId,
        generation: i64,
        since: i64,
        now: i64,
    ) -> Option<Arc<FreshSession>> {
        let known = self.known.get(&session);
        let known = known.filter(|known| known.generation == generation && known.read_at >= since);
        if known.as_ref().is_none_or(|known| now - known.read_at >= FRESH_FOR) {
            // With too many in the queue the next request asks again.
            let _ = self.wanted.try_send(session);
        }
        known
    }
}
