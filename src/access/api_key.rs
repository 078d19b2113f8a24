//! Callers by API keys.

use std::{net::IpAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::runtime::Handle;

use super::{Access, Caller, Denied, judge};
use crate::{
    account::{AccountError, Attempts},
    clock::Now,
    config::{self, OnStale, Pattern},
    limit::{CallGate, Prefix},
    revocation::{KeyRefused, Staleness},
    route::Table,
    token::{KeyCaller, Principal},
    types::{API_KEY_LENGTH, Proofs, Roles, read_api_key},
};

/// The longest user and password, decoded, in bytes: a name of 64 characters, a colon and a key.
const MAX_BASIC: usize = 64 * 4 + 1 + API_KEY_LENGTH;

/// Where a request goes, and where it comes from.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its path, canonical and decoded.
    pub path: &'a str,
    /// All readings of a path that has several.
    pub readings: &'a [String],
    /// The address of its client; none if that was judged before.
    pub client: Option<IpAddr>,
}

impl Place<'_> {
    /// Returns whether a key is good there.
    pub(super) fn is_within(&self, key: &KeyCaller) -> bool {
        if self.readings.is_empty() {
            key.is_good_for(self.path, self.client)
        } else {
            self.readings.iter().all(|reading| key.is_good_for(reading, self.client))
        }
    }

    #[cfg(test)]
    pub(super) fn anywhere() -> Self {
        Self { path: "/", readings: &[], client: None }
    }
}

impl Access {
    /// Who holds an API key; `user` is the name that came with it.
    pub(super) fn identify_by_key(
        &self,
        key: &[u8],
        user: Option<&str>,
        on_stale: OnStale,
        now: Now,
    ) -> Result<Arc<Principal>, Denied> {
        // Read before the look-up, as for tokens.
        let staleness = self.mirror.staleness(now);
        let accepted = match self.mirror.api_keys().accept(key, now) {
            Ok(accepted) => accepted,
            Err(KeyRefused::Outdated) => return Err(Denied::Stale),
            // It may be a new one that this gateway could not read yet.
            Err(KeyRefused::Unknown) if staleness != Staleness::Fresh && read_api_key(key).is_some() => {
                return Err(Denied::Stale);
            }
            Err(KeyRefused::Unknown) => return Err(Denied::BadKey),
        };
        if user.is_some_and(|user| !accepted.caller.is_user(user)) {
            return Err(Denied::BadKey);
        }
        self.may_serve(staleness, on_stale)?;
        self.keys.of(accepted.caller, accepted.expires_at).ok_or(Denied::BadKey)
    }

    /// The same for a user and a password (RFC 7617, section 2).
    pub(super) fn identify_by_basic(
        &self,
        encoded: &[u8],
        on_stale: OnStale,
        now: Now,
    ) -> Result<Arc<Principal>, Denied> {
        let mut decoded = [0; MAX_BASIC];
        let length = STANDARD.decode_slice(encoded, &mut decoded).map_err(|_| Denied::BadKey)?;
        let decoded = &decoded[..length];
        let colon = decoded.iter().position(|byte| *byte == b':').ok_or(Denied::BadKey)?;
        let user = std::str::from_utf8(&decoded[..colon]).map_err(|_| Denied::BadKey)?;
        self.identify_by_key(&decoded[colon + 1..], Some(user), on_stale, now)
    }

    /// Counts a bad key from an address, and returns why its request is denied.
    pub(super) async fn count_bad_key(&self, client: IpAddr) -> Denied {
        match &self.bad_keys {
            Some(bad_keys) => bad_keys.count(client).await,
            None => Denied::BadKey,
        }
    }
}

/// The most tries with bad keys that are counted at once.
const MOST_COUNTED: usize = 256;

/// Counts tries with bad keys, where the store's connections are used.
pub struct BadKeys {
    attempts: Arc<Attempts>,
    gate: Arc<CallGate>,
    runtime: Handle,
}

impl BadKeys {
    /// Creates what counts as `attempts` does, on `runtime`.
    pub fn new(attempts: Attempts, runtime: Handle) -> Self {
        Self { attempts: Arc::new(attempts), gate: CallGate::new(MOST_COUNTED), runtime }
    }

    /// Returns whether they are counted by these rates.
    pub(super) fn are_by(&self, rates: config::Throttle) -> bool {
        self.attempts.are_by(rates)
    }

    async fn count(&self, client: IpAddr) -> Denied {
        let Some(admitted) = self.gate.admit(Prefix::of(client)) else { return Denied::Stale };
        let attempts = self.attempts.clone();
        // To its end: whoever hangs up has tried.
        let counted = self.runtime.spawn(async move {
            let _admitted = admitted;
            attempts.bad_key(client).await
        });
        match counted.await {
            Ok(Err(AccountError::Throttled(after))) => Denied::Throttled(after),
            Ok(Ok(())) => Denied::BadKey,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a bad API key could not be counted");
                Denied::BadKey
            }
            Err(_) => Denied::BadKey,
        }
    }
}

/// Returns whether an owner with these roles may reach all that a pattern opens, and anything: what takes a request there is a route that
/// lets them in. What routes ask for beside roles is not looked at: keys never meet it.
pub fn may_reach(routes: &Table, pattern: &Pattern, roles: &Roles) -> bool {
    let routes: Vec<_> =
        routes.routes().iter().filter(|route| route.config.pattern.overlaps(pattern)).collect();
    let decides = |index: usize| {
        let own = &routes[index].config;
        // Another one that takes all of it, of every method, comes first.
        !routes.iter().enumerate().any(|(other_index, other)| {
            let other = &other.config;
            other_index != index
                && other.methods.is_none()
                && other.host == own.host
                && other.pattern.covers(pattern)
                && own.pattern.covers(&other.pattern)
        })
    };
    let caller = Caller { roles, proofs: Proofs::NONE, proved: i64::MAX };
    let allows =
        |index: usize| !matches!(judge(&routes[index].config.access, Some(caller)), Err(Denied::Role));
    let mut deciding = (0..routes.len()).filter(|index| decides(*index)).peekable();
    deciding.peek().is_some() && deciding.all(allows)
}
