//! The decision: who is calling, and may they.
//!
//! [`Access::decide`] is the only maker of [`Permit`], and nothing is forwarded without one. What
//! a route asks for is looked at on every request and never cached with a token.

mod api_key;
mod credential;
mod denied;
mod external;
mod failure;
mod requirement;

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    task::Waker,
};

use http::HeaderValue;

pub use api_key::{BadKeys, Place, may_reach};
pub use credential::{Credential, CredentialKinds, is_own, shows_api_key};
pub use denied::Denied;
pub use external::ExternalLogout;
pub use failure::Failure;
pub use requirement::{Caller, judge};

use crate::{
    clock::{Now, TimeKeeper},
    config::{self, OnStale},
    oidc::Introspector,
    revocation::{self, Cut, Mirror, Registration, Staleness},
    telemetry::Metrics,
    token::{
        Checked, CookieChange, ExternalIssuer, KeyPrincipals, Principal, SessionCookies, TokenError, Verifier,
    },
    types::looks_like_api_key,
    upstream::Allowed,
};

/// The right to be forwarded once, and in whose name.
#[derive(Debug)]
pub struct Permit(Lease);

impl Permit {
    /// The caller; `None` for an anonymous one.
    pub fn principal(&self) -> Option<&Arc<Principal>> {
        self.0.principal()
    }

    /// The request is forwarded.
    pub fn spend(self) -> Lease {
        self.0
    }
}

/// The lease that a spent permit leaves: the request may continue as long as it is valid.
#[derive(Debug, Clone)]
pub struct Lease {
    principal: Option<Arc<Principal>>,
    on_stale: OnStale,
}

impl Lease {
    /// The caller; `None` for an anonymous one.
    pub fn principal(&self) -> Option<&Arc<Principal>> {
        self.principal.as_ref()
    }
}

impl Allowed for Lease {}

/// Decides.
pub struct Access {
    verifier: Arc<Verifier>,
    mirror: Arc<Mirror>,
    time: Arc<TimeKeeper>,
    metrics: Arc<Metrics>,
    introspector: Option<Arc<Introspector>>,
    /// By what API keys are taken.
    key_kinds: config::ApiKeys,
    keys: KeyPrincipals,
    /// Counts bad keys, by the address that they come from.
    bad_keys: Option<BadKeys>,
}

impl Access {
    /// A decider on these means, for the API keys of `auth`. `introspector` asks the issuer of opaque tokens about them; `bad_keys` counts bad API keys.
    pub fn new(
        verifier: Arc<Verifier>,
        mirror: Arc<Mirror>,
        time: Arc<TimeKeeper>,
        metrics: Arc<Metrics>,
        introspector: Option<Arc<Introspector>>,
        auth: &config::Auth,
        bad_keys: Option<BadKeys>,
    ) -> Self {
        let (key_kinds, keys) = (auth.keys, KeyPrincipals::new(auth.claims.clone()));
        Self { verifier, mirror, time, metrics, introspector, key_kinds, keys, bad_keys }
    }

    /// Whether it goes by the tokens of `auth`, by those of these others, and by the cookies of `browser`.
    pub fn is_for(
        &self,
        auth: &config::Auth,
        external: &[config::Issuer],
        browser: Option<&config::Browser>,
    ) -> bool {
        let counts_alike = self.bad_keys.as_ref().is_some_and(|counts| counts.are_by(auth.throttle));
        self.verifier.is_for(auth, external, browser) && self.key_kinds == auth.keys && counts_alike
    }

    /// Returns what is read as a credential.
    pub fn credential_kinds(&self) -> CredentialKinds<'_> {
        CredentialKinds { cookies: self.cookies().map(AsRef::as_ref), keys: self.key_kinds }
    }

    /// Returns what makes the cookies of people with browsers, if there are any.
    pub fn cookies(&self) -> Option<&Arc<SessionCookies>> {
        self.verifier.cookies()
    }

    /// Returns the value of `Authorization` for an upstream that is to get the access token of a caller with a cookie.
    pub fn authorization(&self, principal: &Principal) -> Option<HeaderValue> {
        self.cookies()?.authorization(principal, self.now())
    }

    /// Returns the successor of the caller's cookie, if it is time for one.
    pub fn renewed_cookie(&self, principal: &Arc<Principal>) -> Option<CookieChange> {
        self.cookies().filter(|_| principal.is_by_cookie())?.successor(principal, self.now())
    }

    /// Returns the value of `Set-Cookie` for a change, which may have to wait for the store a little.
    pub async fn set_cookie(&self, change: CookieChange) -> Option<HeaderValue> {
        match change {
            CookieChange::Set(cookie) => Some(cookie),
            CookieChange::Awaited(cookie) => self.cookies()?.awaited(cookie, &self.time).await,
        }
    }

    /// Returns the other issuers whose tokens it goes by.
    pub fn external_issuers(&self) -> &[Arc<ExternalIssuer>] {
        self.verifier.external()
    }

    /// The time that decisions go by.
    pub fn now(&self) -> Now {
        self.time.now()
    }

    /// Who holds this credential: a signature checked once, everything else on every use.
    ///
    /// # Errors
    /// The reason why the credential identifies no caller.
    pub fn identify(
        &self,
        credential: Credential<'_>,
        on_stale: OnStale,
        now: Now,
    ) -> Result<Arc<Principal>, Denied> {
        let checked = match credential {
            Credential::Bearer(key) if looks_like_api_key(key) => {
                return self.identify_by_key(key, None, on_stale, now);
            }
            Credential::ApiKey(key) => return self.identify_by_key(key, None, on_stale, now),
            Credential::Basic(encoded) => return self.identify_by_basic(encoded, on_stale, now),
            Credential::Bearer(token) => self.or_stale(self.verifier.verify(token, now), now)?,
            Credential::Cookie(token) => self.or_stale(self.verifier.verify_cookie(token, now), now)?,
            Credential::CrossSite => return Err(Denied::CrossSite),
            Credential::Absent => return Err(Denied::NoToken),
            Credential::Unusable => return Err(Denied::UnusableCredential),
        };
        if checked.hit {
            self.metrics.token_cache_hits.inc();
        } else {
            self.metrics.token_cache_misses.inc();
        }
        let principal = checked.principal;
        // Read before the lookup. Read after it, it could belong to a mirror that was confirmed after the lookup had missed an
        // entry.
        let staleness = self.mirror.staleness(now);
        if self.is_revoked(&principal, now) {
            return Err(Denied::Revoked);
        }
        self.may_serve(staleness, on_stale)?;
        Ok(principal)
    }

    /// A key that is not known may be one that this gateway could not read yet: what it has signed is not known to be dead.
    fn or_stale(&self, checked: Result<Checked, TokenError>, now: Now) -> Result<Checked, Denied> {
        match checked {
            Err(TokenError::UnknownKey) if self.mirror.staleness(now) != Staleness::Fresh => {
                Err(Denied::Stale)
            }
            checked => Ok(checked?),
        }
    }

    fn may_serve(&self, staleness: Staleness, on_stale: OnStale) -> Result<(), Denied> {
        match staleness {
            Staleness::Fresh => Ok(()),
            Staleness::Stale if on_stale == OnStale::Allow => {
                self.metrics.revocations.served_stale.inc();
                Ok(())
            }
            Staleness::Stale | Staleness::NeverLoaded => Err(Denied::Stale),
        }
    }

    /// Returns whether a caller whose issuer was asked about the token may go on to use a route: as long as the issuer is the same, what
    /// it said holds.
    ///
    /// # Errors
    /// Why not.
    pub fn decide_again(&self, access: &config::Access, principal: &Principal) -> Result<(), Denied> {
        let asked = principal.asked().ok_or(Denied::NoToken)?;
        if !self.verifier.external().iter().any(|issuer| Arc::ptr_eq(issuer, asked)) {
            return Err(TokenError::UnknownKey.into());
        }
        judge(access, Some(caller(principal, self.now())))
    }

    /// Counts a stream that was cut for a reason that is not its token's.
    pub fn count_cut(&self, cut: Cut) {
        self.mirror.live().count_cut(cut);
    }

    /// Takes in a stream that outlives its decision, carried by `task`: from now on it is cut when the
    /// lease ends. Nothing for an anonymous caller, whose lease has no end.
    ///
    /// # Errors
    /// Why the lease has ended already.
    pub fn watch(&self, lease: &Lease, task: &Waker) -> Result<Option<Registration>, Denied> {
        let Some(principal) = &lease.principal else { return Ok(None) };
        let mut others = principal.others.iter().copied();
        let others = [others.next(), others.next(), others.next()];
        let token = revocation::Token {
            session: principal.session,
            subject: principal.subject,
            generation: principal.generation,
            others,
            api_key: principal.api_key().map(|key| (key.id, key.owner.id, key.owner.generation())),
            key: principal.key,
            key_in_use: principal.key_in_use().clone(),
            expires_at: principal.expires_at,
        };
        let outlives_staleness = lease.on_stale == OnStale::Allow;
        // Taken in first and looked at then: whatever ends it meanwhile finds it, or is found.
        let registration = self.mirror.watch(token, outlives_staleness, task.clone());
        let now = self.now();
        if self.is_revoked(principal, now) || !principal.key_in_use().load(Relaxed) {
            return Err(Denied::Revoked);
        }
        if principal.api_key().is_some_and(|key| !self.mirror.api_keys().holds(key, now)) {
            return Err(Denied::Revoked);
        }
        if principal.expires_at <= now.seconds() {
            return Err(Denied::BadToken(TokenError::Expired));
        }
        match self.mirror.staleness(now) {
            Staleness::Fresh => Ok(Some(registration)),
            _ if outlives_staleness => Ok(Some(registration)),
            _ => Err(Denied::Stale),
        }
    }

    fn is_revoked(&self, principal: &Principal, now: Now) -> bool {
        self.mirror.is_revoked(principal.session, principal.subject, principal.generation)
            || self.mirror.is_key_revoked(principal.key)
            || (!principal.others.is_empty()
                && self.mirror.is_external_revoked(&principal.others, principal.generation, now))
    }

    /// Whether a request with this credential, to and from this place, may use a route.
    ///
    /// # Errors
    /// Why not.
    pub fn decide(
        &self,
        access: &config::Access,
        on_stale: OnStale,
        credential: Credential<'_>,
        place: Place<'_>,
    ) -> Result<Permit, Denied> {
        if matches!(
            (access, credential),
            (config::Access::Open, _) | (config::Access::Optional, Credential::Absent)
        ) {
            return Ok(Permit(Lease { principal: None, on_stale }));
        }
        let now = self.now();
        let principal = match self.identify(credential, on_stale, now) {
            Ok(principal) => Some(principal),
            // A browser sends a cookie by itself, so a dead one makes its user anonymous.
            Err(denied)
                if denied.is_dead()
                    && matches!(access, config::Access::Optional)
                    && credential.is_cookie() =>
            {
                None
            }
            Err(denied) => return Err(denied),
        };
        if let Some(key) = principal.as_ref().and_then(|principal| principal.api_key())
            && !place.is_within(key)
        {
            return Err(Denied::KeyElsewhere);
        }
        judge(access, principal.as_ref().map(|principal| caller(principal, now)))?;
        Ok(Permit(Lease { principal, on_stale }))
    }
}

/// Returns what the rules of routes ask about a principal.
fn caller(principal: &Principal, now: Now) -> Caller<'_> {
    // A proof that is yet to come is none: a clock was set back.
    let proved = now.seconds() - principal.authenticated_at;
    Caller {
        roles: &principal.roles,
        proofs: principal.proofs,
        proved: if proved < 0 { i64::MAX } else { proved },
    }
}

#[cfg(test)]
#[path = "../../fuzz/tokens.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        clock::ManualClock,
        store::{LogEntry, Revoked},
        token::{AccessClaims, CurrentKeyring, FreshSessions, Issuer, Keyring},
        types::{ClaimValues, KeyId, OsRandom, Proofs, Roles, Secret, SessionId, UserId},
    };

    const NOW: i64 = 1_800_000_000_000;

    struct Parts {
        access: Access,
        mirror: Arc<Mirror>,
        clock: Arc<ManualClock>,
        token: String,
        session: SessionId,
        kid: String,
    }

    /// What decides, and a token that it accepts.
    pub(super) fn decider() -> (Access, String) {
        let Parts { access, mirror, token, .. } = parts();
        mirror.confirm(access.now());
        (access, token)
    }

    fn parts() -> Parts {
        let keyring =
            Keyring::of_secrets(&Secret::new("a-secret-for-unit-tests-only-0123456789"), None, None).unwrap();
        let kid = keyring.signing(NOW).ok().unwrap().kid.clone();
        let keyring = CurrentKeyring::new(keyring);
        let auth = config::tests::auth();
        let verifier = Arc::new(Verifier::new(&auth, keyring.clone(), Vec::new(), None));
        let issuer = Issuer::new(&auth, keyring, Arc::new(OsRandom));
        let session = SessionId::generate(&OsRandom);
        let claims = AccessClaims {
            user: UserId::generate(NOW, &OsRandom),
            session,
            generation: 1,
            name: "alice",
            roles: &Roles::parse_joined("user").unwrap(),
            external_id: None,
            issued_at: NOW,
            session_ends_at: i64::MAX,
            authenticated_at: NOW,
            proofs: Proofs::PASSWORD,
            claims: &ClaimValues::default(),
        };
        let token = issuer.issue(&claims, &issuer.key(NOW).unwrap()).unwrap().text;
        let clock = ManualClock::at(NOW);
        let time = Arc::new(TimeKeeper::new(clock.clone()));
        let mirror = Arc::new(Mirror::new(Duration::from_secs(5)));
        let metrics = Arc::new(Metrics::new().unwrap());
        let access = Access::new(verifier, mirror.clone(), time, metrics, None, &auth, None);
        Parts { access, mirror, clock, token, session, kid }
    }

    impl Parts {
        fn identify(&self, on_stale: OnStale) -> Result<Arc<Principal>, Denied> {
            self.access.identify(Credential::Bearer(self.token.as_bytes()), on_stale, self.access.now())
        }

        fn revoke(&self, revoked: Revoked) {
            self.mirror.apply(&LogEntry { revoked, generation: LogEntry::ALL, expires_at: i64::MAX });
        }
    }

    #[test]
    fn a_mirror_that_was_never_loaded_denies_whatever_a_route_says() {
        let parts = parts();
        for on_stale in [OnStale::Deny, OnStale::Allow] {
            assert_eq!(parts.identify(on_stale).unwrap_err(), Denied::Stale);
        }
        parts.mirror.confirm(parts.access.now());
        assert!(parts.identify(OnStale::Deny).is_ok());
        parts.clock.advance(5_001);
        assert_eq!(parts.identify(OnStale::Deny).unwrap_err(), Denied::Stale);
        assert!(parts.identify(OnStale::Allow).is_ok());
    }

    #[test]
    fn a_cookie_of_a_key_that_may_be_new_is_not_dead_while_the_mirror_is_stale() {
        let keyring = |secret: &str| {
            CurrentKeyring::new(Keyring::of_secrets(&Secret::new(secret), None, None).unwrap())
        };
        let (known, unknown) = (
            keyring("a-secret-for-unit-tests-only-0123456789"),
            keyring("another-secret-0123456789-abcdefgh"),
        );
        let browser = crate::config::tests::browser();
        let auth = config::tests::auth();
        let cookies = |keyring: &Arc<CurrentKeyring>| {
            let issuer = Issuer::new(&auth, keyring.clone(), Arc::new(OsRandom));
            Arc::new(SessionCookies::new(issuer, &browser, keyring.clone(), FreshSessions::new(&auth).0))
        };
        let claims = AccessClaims {
            user: UserId::generate(NOW, &OsRandom),
            session: SessionId::generate(&OsRandom),
            generation: 1,
            name: "alice",
            roles: &Roles::parse_joined("user").unwrap(),
            external_id: None,
            issued_at: NOW,
            session_ends_at: NOW + 1_000_000,
            authenticated_at: NOW,
            proofs: Proofs::PASSWORD,
            claims: &ClaimValues::default(),
        };
        let set = cookies(&unknown).issue(&claims, false, &unknown.get().signing(NOW).ok().unwrap()).unwrap();
        let token = set.to_str().unwrap().split(['=', ';']).nth(1).unwrap().to_owned();
        let verifier = Arc::new(Verifier::new(&auth, known.clone(), Vec::new(), Some(cookies(&known))));
        let clock = ManualClock::at(NOW);
        let mirror = Arc::new(Mirror::new(Duration::from_secs(5)));
        let metrics = Arc::new(Metrics::new().unwrap());
        let time = Arc::new(TimeKeeper::new(clock.clone()));
        let access = Access::new(verifier, mirror.clone(), time, metrics, None, &auth, None);
        let identify = || {
            access.identify(Credential::Cookie(token.as_bytes()), OnStale::Allow, access.now()).unwrap_err()
        };
        mirror.confirm(access.now());
        assert_eq!(identify(), Denied::BadToken(TokenError::UnknownKey));
        clock.advance(5_001);
        assert_eq!(identify(), Denied::Stale);
    }

    #[test]
    fn a_cached_token_is_dead_with_its_session_and_with_its_key() {
        for by_key in [false, true] {
            let parts = parts();
            parts.mirror.confirm(parts.access.now());
            assert!(parts.identify(OnStale::Deny).is_ok());
            parts.revoke(if by_key {
                Revoked::Key(KeyId::of(&parts.kid))
            } else {
                Revoked::Session(parts.session)
            });
            assert_eq!(parts.identify(OnStale::Allow).unwrap_err(), Denied::Revoked);
        }
    }

    #[test]
    fn a_verified_token_is_forgotten_once_it_has_expired() {
        let parts = parts();
        parts.mirror.confirm(parts.access.now());
        assert!(parts.identify(OnStale::Allow).is_ok());
        let forgotten = || parts.access.verifier.forget_expired(parts.access.now());
        assert_eq!(forgotten(), 0);
        parts.clock.advance(900_000);
        assert_eq!((forgotten(), forgotten()), (1, 0));
    }

    #[test]
    fn what_ended_between_decision_and_stream_ends_the_stream_before_it_begins() {
        type End = fn(&Parts);
        let ends: [(End, Denied); 3] = [
            (|parts| parts.revoke(Revoked::Session(parts.session)), Denied::Revoked),
            (|parts| parts.clock.advance(5_001), Denied::Stale),
            (|parts| parts.clock.advance(900_000), Denied::BadToken(TokenError::Expired)),
        ];
        for (end, denied) in ends {
            let parts = parts();
            parts.mirror.confirm(parts.access.now());
            let credential = Credential::Bearer(parts.token.as_bytes());
            let lease = parts
                .access
                .decide(
                    &config::Access::SignedIn(config::Requirements::default()),
                    OnStale::Deny,
                    credential,
                    Place::anywhere(),
                )
                .unwrap()
                .spend();
            assert!(parts.access.watch(&lease, Waker::noop()).is_ok_and(|taken| taken.is_some()));
            end(&parts);
            assert_eq!(parts.access.watch(&lease, Waker::noop()).err(), Some(denied));
            assert!(parts.mirror.live().is_empty());
        }
    }
}
