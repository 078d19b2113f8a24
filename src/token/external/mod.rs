//! Tokens of other issuers.
//!
//! The issuer is chosen by the token's `iss` before any key is looked at, and its keys, algorithms and audiences are its own: no token
//! of one is ever verified by another's key. What fetches keys, and what asks an issuer about a token, is [`crate::oidc`].

mod claims;
mod key_set;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicI64,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, watch};

pub use claims::{Claims, ExternalCaller};
pub use key_set::{KeySet, KeySetError};

use super::{
    Principal,
    jws::{TokenError, unverified_payload, verify_signature},
};
use crate::{
    clock::Now,
    config::{Issuer, IssuerKeys},
    types::KeyId,
};

/// How long keys are not fetched again for a token whose key is not known, however many such tokens come.
const AGAIN_AFTER: i64 = 10_000;

/// The event of a logout, and how long a token that tells of it without an expiry is accepted, in seconds.
const LOGOUT_EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
const LOGOUT_TTL: i64 = 120;

/// A logout that an issuer tells of; a session, a subject, or both are named.
#[derive(Debug, PartialEq, Eq)]
pub struct Logout {
    /// The subject.
    pub subject: Option<String>,
    /// The session.
    pub session: Option<String>,
    /// When it was told, in Unix seconds.
    pub issued_at: i64,
}

/// Another issuer whose tokens are accepted, and what is known of its keys.
pub struct ExternalIssuer {
    config: Issuer,
    keys: ArcSwapOption<KeySet>,
    /// When the keys are too old, in milliseconds of the time since boot.
    old_at: AtomicI64,
    /// When the last fetch began, by the same clock.
    asked_at: AtomicI64,
    /// Wakes what fetches keys.
    wanted: Arc<Notify>,
    /// How many fetches have ended.
    fetches: watch::Sender<u64>,
    is_fetching: AtomicBool,
}

/// The issuer that a token says it is of. Nothing of it is verified.
#[derive(Deserialize)]
struct Unverified {
    iss: Option<String>,
}

/// Returns the `iss` of what has the form of a signed token.
pub(super) fn issuer_of(token: &str) -> Option<String> {
    let payload = unverified_payload(token)?;
    serde_json::from_slice::<Unverified>(&payload).ok()?.iss
}

impl ExternalIssuer {
    /// Creates an issuer whose keys are not known yet.
    pub fn new(config: Issuer) -> Self {
        Self {
            config,
            keys: ArcSwapOption::empty(),
            old_at: AtomicI64::new(i64::MIN),
            asked_at: AtomicI64::new(i64::MIN),
            wanted: Arc::default(),
            fetches: watch::Sender::new(0),
            is_fetching: AtomicBool::new(false),
        }
    }

    /// Creates an issuer that goes on with the keys of another one, of which more than the keys has changed in the config.
    pub fn with_keys_of(config: Issuer, before: &Self) -> Self {
        let issuer = Self::new(config);
        issuer.keys.store(before.keys.load_full());
        issuer.old_at.store(before.old_at.load(Acquire), Relaxed);
        issuer.asked_at.store(before.asked_at.load(Relaxed), Relaxed);
        issuer
    }

    /// Returns what the config says of it.
    pub fn config(&self) -> &Issuer {
        &self.config
    }

    /// Whether it is asked about each token.
    pub fn is_asked_about_tokens(&self) -> bool {
        matches!(self.config.keys, IssuerKeys::Introspection(_))
    }

    /// Notes that a fetch of the keys begins.
    pub fn fetch_begins(&self, now: Now) {
        self.asked_at.store(now.boot, Relaxed);
        self.is_fetching.store(true, Release);
    }

    /// Notes the keys that a fetch brought, if it brought any, and wakes whoever waits for them.
    ///
    /// Their age counts from `begun`, before they were asked for.
    pub fn fetch_ends(&self, keys: Option<KeySet>, begun: Now) {
        if let Some(keys) = keys {
            let age = i64::try_from(self.config.keys_max_age.as_millis()).unwrap_or(i64::MAX);
            self.old_at.store(begun.boot.saturating_add(age), Release);
            self.exchange(Some(keys));
        }
        self.is_fetching.store(false, Release);
        self.fetches.send_modify(|fetches| *fetches += 1);
    }

    /// Takes the keys out of use once they are too old.
    pub fn expire(&self, now: Now) {
        if self.is_old(now) {
            self.exchange(None);
        }
    }

    fn exchange(&self, keys: Option<KeySet>) {
        let keys = keys.map(Arc::new);
        if let Some(before) = self.keys.swap(keys.clone()) {
            before.retire(keys.as_deref());
        }
    }

    fn is_old(&self, now: Now) -> bool {
        now.boot >= self.old_at.load(Acquire)
    }

    /// Returns the keys that are known.
    pub fn keys(&self) -> Option<Arc<KeySet>> {
        self.keys.load_full()
    }

    /// Returns after how long the keys are too old; none if there are none.
    pub fn old_in(&self, now: Now) -> Option<Duration> {
        self.keys.load().as_ref()?;
        let old_at = self.old_at.load(Acquire);
        Some(Duration::from_millis(u64::try_from(old_at.saturating_sub(now.boot)).unwrap_or(0)))
    }

    /// Returns what tells that the keys are wanted sooner than they would be fetched, or that nobody wants them any more.
    pub fn wanted(&self) -> Arc<Notify> {
        self.wanted.clone()
    }

    /// Has the keys fetched, and waits for them, for a while.
    pub async fn fetch_for_token(&self, now: Now, longest: Duration) {
        let fetched = self.fetched();
        if !self.may_fetch(now) {
            // One has ended since the token was looked at.
            return;
        }
        self.wanted.notify_one();
        // Whether it came to something, the next look at the token tells.
        let _ = tokio::time::timeout(longest, fetched).await;
    }

    /// Returns what waits for the end of a fetch.
    pub fn fetched(&self) -> impl Future<Output = ()> + use<> {
        let mut fetches = self.fetches.subscribe();
        async move {
            let _ = fetches.changed().await;
        }
    }

    /// Whether a fetch may help a token whose key is not known.
    fn may_fetch(&self, now: Now) -> bool {
        let asked_at = self.asked_at.load(Relaxed);
        self.is_fetching.load(Acquire) || now.boot.saturating_sub(asked_at) >= AGAIN_AFTER
    }

    /// Verifies a token that says it is of this issuer.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub(super) fn verify(&self, token: &str, now: Now) -> Result<Principal, TokenError> {
        let config = &self.config;
        if self.is_asked_about_tokens() {
            return Err(TokenError::Unsettled);
        }
        let claims = self.verified_claims(token, &config.types, &config.audiences, now)?;
        let is_dated = claims.date("exp")?.is_some() && claims.date("iat")?.is_some();
        if !is_dated || claims.is_for_something_else() {
            return Err(TokenError::Claims);
        }
        let caller = claims.caller(config)?;
        let expires_at = caller.expires_at.ok_or(TokenError::Claims)?;
        Principal::external(caller, expires_at, None, claims.key, claims.in_use.clone())
            .ok_or(TokenError::Claims)
    }

    /// Verifies signature, type, issuer, audience and times of a token.
    ///
    /// # Errors
    /// Why it is not accepted.
    fn verified_claims(
        &self,
        token: &str,
        types: &[String],
        audiences: &[String],
        now: Now,
    ) -> Result<Verified, TokenError> {
        let keys = self.keys.load();
        let keys = match &*keys {
            Some(keys) if !self.is_old(now) => keys,
            _ if self.may_fetch(now) => return Err(TokenError::Unsettled),
            _ => return Err(TokenError::NoKeys),
        };
        let mut is_unknown = false;
        let verified = verify_signature(token, |kid, algorithm| {
            let found = keys.find(kid, algorithm);
            is_unknown = found.is_none();
            found
        });
        let (payload, key) = match verified {
            Err(TokenError::UnknownKey) if is_unknown && self.may_fetch(now) => {
                return Err(TokenError::Unsettled);
            }
            verified => verified?,
        };
        let typ = payload.typ.unwrap_or_default().to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        if !types.iter().any(|legal| legal == typ) {
            return Err(TokenError::Header);
        }
        let claims = Claims::parse(&payload.bytes)?;
        if claims.text("iss")? != Some(self.config.issuer.as_str()) {
            return Err(TokenError::Claims);
        }
        claims.check(&self.config, audiences, now.seconds())?;
        // Names of keys of different issuers are different keys.
        let kid = format!("{}\0{}", self.config.issuer, payload.kid.unwrap_or_default());
        Ok(Verified { claims, key: KeyId::of(&kid), in_use: key.in_use.clone() })
    }

    /// Verifies a token by which the issuer tells of a logout (OpenID Connect Back-Channel Logout 1.0, section 2.6).
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn logout(&self, token: &str, now: Now) -> Result<Logout, TokenError> {
        let types = ["logout+jwt", "jwt", ""].map(str::to_owned);
        let audiences = match &self.config.client_id {
            Some(client_id) => std::slice::from_ref(client_id),
            None => &self.config.audiences,
        };
        let claims = self.verified_claims(token, &types, audiences, now)?;
        let is_logout =
            claims.get("events").and_then(|events| events.get(LOGOUT_EVENT)).is_some_and(Value::is_object);
        let issued_at = claims.date("iat")?.ok_or(TokenError::Claims)?;
        let (subject, session) = (claims.text("sub")?, claims.text("sid")?);
        // Without an expiry it holds for as long as one usually does.
        let is_old = claims.date("exp")?.is_none() && issued_at.saturating_add(LOGOUT_TTL) <= now.seconds();
        let names_someone = subject.is_some() || session.is_some();
        if !is_logout || !names_someone || claims.get("nonce").is_some() || is_old {
            return Err(TokenError::Claims);
        }
        Ok(Logout { subject: subject.map(str::to_owned), session: session.map(str::to_owned), issued_at })
    }

    /// Returns whom a token stands for by what the issuer says of it, which holds until `until`, in Unix seconds.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn introspected(
        self: &Arc<Self>,
        said: &Claims,
        until: i64,
        now: Now,
    ) -> Result<Principal, TokenError> {
        if said.get("active") != Some(&Value::Bool(true)) {
            return Err(TokenError::Inactive);
        }
        // What it says of its own name is optional (RFC 7662, section 2.2).
        if said.text("iss")?.is_some_and(|iss| iss != self.config.issuer) {
            return Err(TokenError::Claims);
        }
        said.check(&self.config, &self.config.audiences, now.seconds())?;
        if said.is_for_something_else() {
            return Err(TokenError::Claims);
        }
        let longest = said.longest(&self.config)?.unwrap_or(until);
        let caller = said.caller(&self.config)?;
        let expires_at = caller.expires_at.unwrap_or(longest);
        let key = KeyId::of(&self.config.issuer);
        let in_use = Arc::new(AtomicBool::new(true));
        Principal::external(caller, expires_at, Some((self.clone(), until)), key, in_use)
            .ok_or(TokenError::Claims)
    }
}

impl std::fmt::Debug for ExternalIssuer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ExternalIssuer").field(&self.config.name).finish()
    }
}

impl Drop for ExternalIssuer {
    fn drop(&mut self) {
        self.wanted.notify_one();
    }
}

/// The claims of a token whose signature and times hold.
pub struct Verified {
    claims: Claims,
    key: KeyId,
    in_use: Arc<AtomicBool>,
}

impl std::ops::Deref for Verified {
    type Target = Claims;

    fn deref(&self) -> &Claims {
        &self.claims
    }
}
