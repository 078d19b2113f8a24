//! Verifying access tokens, each signature once.
//!
//! The cache maps whole tokens, byte for byte, to principals. It only saves the signature check:
//! expiry and the key's state are looked at on every use, here; revocation and generation are
//! looked at on every use by whoever decides.

use std::{
    sync::{Arc, Weak, atomic::Ordering::Relaxed},
    time::Duration,
};

use foldhash::quality::RandomState;
use http::HeaderValue;
use moka::sync::Cache;
use serde::Deserialize;
use tokio::time::MissedTickBehavior;

use super::{
    CurrentKeyring, ExternalIssuer, Principal, SessionCookies, claims,
    cookie::{self, CookieLife},
    external::issuer_of,
    jws::{MAX_TOKEN_BYTES, TokenError, verify_signature},
    principal::{ClientCaller, UserClaims},
};
use crate::{
    clock::{Now, TimeKeeper},
    config,
    types::{ClaimValues, ClientId, ExternalId, KeyId, Proofs, Roles, SessionId, UserId, Username},
};

/// The most memory that verified tokens may take.
const CACHE_BYTES: u64 = 64 << 20;

/// Roughly what an entry costs beside its token and the texts of its principal.
const ENTRY_BYTES: usize = 500;

/// How often tokens that have expired are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_secs(30);

/// Verifies access tokens.
pub struct Verifier {
    issuer: String,
    audience: String,
    claims: Arc<config::Claims>,
    keyring: Arc<CurrentKeyring>,
    external: Vec<Arc<ExternalIssuer>>,
    cache: Tokens,
    /// Those of cookies, which are no bearer tokens.
    cookies: Option<(Arc<SessionCookies>, Tokens)>,
}

type Tokens = Cache<Arc<[u8]>, Arc<Principal>, RandomState>;

fn tokens() -> Tokens {
    Cache::builder()
        .max_capacity(CACHE_BYTES)
        .weigher(|token: &Arc<[u8]>, principal: &Arc<Principal>| {
            (token.len() + principal.size() + ENTRY_BYTES) as u32
        })
        .build_with_hasher(RandomState::default())
}

/// A verified token, and whether its signature had been checked before.
#[derive(Debug)]
pub struct Checked {
    /// Whom it stands for.
    pub principal: Arc<Principal>,
    /// Whether it was in the cache.
    pub hit: bool,
}

/// The claims, each required and of one type; a member that stands twice is refused.
#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: String,
    jti: String,
    #[serde(rename = "iat")]
    _iat: i64,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    #[serde(flatten)]
    user: User,
}

/// The claims of a cookie.
#[derive(Deserialize)]
struct CookieClaims {
    iss: String,
    aud: String,
    iat: i64,
    exp: i64,
    end: i64,
    keep: bool,
    #[serde(flatten)]
    user: User,
}

/// What both say of the user.
#[derive(Deserialize)]
struct User {
    sub: String,
    /// Tokens of clients have none.
    #[serde(default)]
    sid: Option<String>,
    #[serde(default)]
    client_id: Option<String>,
    name: String,
    roles: Vec<String>,
    r#gen: i64,
    /// Tokens of the release before have none.
    #[serde(default)]
    auth_time: i64,
    #[serde(default)]
    amr: Proofs,
    #[serde(default)]
    external_id: Option<String>,
}

impl User {
    /// Only what this program could have issued: a name that is canonical, a few roles.
    fn checked(
        self,
        expires_at: i64,
        claim_values: Box<[Option<HeaderValue>]>,
    ) -> Result<UserClaims, TokenError> {
        let roles = Roles::parse_all(&self.roles).map_err(|_| TokenError::Claims)?;
        let name = Username::new(&self.name).map_err(|_| TokenError::Claims)?;
        if name.as_str() != self.name || self.r#gen < 0 || self.client_id.is_some() {
            return Err(TokenError::Claims);
        }
        Ok(UserClaims {
            user: UserId::parse(&self.sub).ok_or(TokenError::Claims)?,
            session: SessionId::parse(self.sid.as_deref().unwrap_or_default()).ok_or(TokenError::Claims)?,
            generation: self.r#gen,
            expires_at,
            authenticated_at: self.auth_time,
            proofs: self.amr,
            name: self.name,
            external_id: self.external_id,
            roles,
            claim_values,
        })
    }
}

impl Claims {
    /// What the token of a client says, if it is one.
    fn of_client(&self) -> Result<Option<ClientCaller>, TokenError> {
        let User { sub, sid, client_id, name, roles, r#gen, .. } = &self.user;
        let Some(client_id) = client_id else { return Ok(None) };
        if client_id != sub || sid.is_some() || *r#gen < 0 {
            return Err(TokenError::Claims);
        }
        Ok(Some(ClientCaller {
            client: ClientId::parse(sub).ok_or(TokenError::Claims)?,
            generation: *r#gen,
            expires_at: self.exp,
            name: name.clone(),
            roles: Roles::parse_all(roles).map_err(|_| TokenError::Claims)?,
            token: ExternalId::of_token(&self.iss, &self.jti),
        }))
    }
}

impl Verifier {
    /// A verifier of the tokens of `auth`, of those of `external` issuers, and of cookies if there are any.
    pub fn new(
        auth: &config::Auth,
        keyring: Arc<CurrentKeyring>,
        external: Vec<Arc<ExternalIssuer>>,
        cookies: Option<Arc<SessionCookies>>,
    ) -> Self {
        let (issuer, audience, claims) = (auth.issuer.clone(), auth.audience.clone(), auth.claims.clone());
        let cookies = cookies.map(|cookies| (cookies, tokens()));
        Self { issuer, audience, claims, keyring, external, cache: tokens(), cookies }
    }

    /// Returns what makes the cookies, if there are any.
    pub fn cookies(&self) -> Option<&Arc<SessionCookies>> {
        self.cookies.as_ref().map(|(cookies, _)| cookies)
    }

    /// Whether it verifies the tokens of `auth`, those of these others, and the cookies of `browser`.
    pub fn is_for(
        &self,
        auth: &config::Auth,
        external: &[config::Issuer],
        browser: Option<&config::Browser>,
    ) -> bool {
        let same_cookies = match (self.cookies(), browser) {
            (Some(cookies), Some(browser)) => cookies.is_for(auth, browser),
            (None, None) => true,
            _ => false,
        };
        let same = |(one, other): (&Arc<ExternalIssuer>, &config::Issuer)| one.config().is_like(other);
        same_cookies
            && self.issuer == auth.issuer
            && self.audience == auth.audience
            && self.claims == auth.claims
            && self.external.len() == external.len()
            && self.external.iter().zip(external).all(same)
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(&self, token: &[u8], now: Now) -> Result<Checked, TokenError> {
        self.verify_by(&self.cache, token, now, |token| self.verify_new(token, now))
    }

    /// Verifies the token of a cookie.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify_cookie(&self, token: &[u8], now: Now) -> Result<Checked, TokenError> {
        let (cookies, cache) = self.cookies.as_ref().ok_or(TokenError::Header)?;
        self.verify_by(cache, token, now, |token| self.verify_new_cookie(cookies, token, now))
    }

    fn verify_by(
        &self,
        cache: &Tokens,
        token: &[u8],
        now: Now,
        verify_new: impl FnOnce(&[u8]) -> Result<Principal, TokenError>,
    ) -> Result<Checked, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let in_use = |principal: &Arc<Principal>| principal.key_in_use.load(Relaxed);
        let usable = |principal: &Arc<Principal>| in_use(principal) && principal.asked_until > now.seconds();
        // A key that is gone may come back, as another one of the same name.
        let (principal, hit) = match cache.get(token).filter(usable) {
            Some(principal) => (principal, true),
            None => (Arc::new(verify_new(token)?), false),
        };
        if principal.expires_at <= now.seconds() {
            return Err(TokenError::Expired);
        }
        if !in_use(&principal) {
            return Err(TokenError::UnknownKey);
        }
        if !hit {
            cache.insert(token.into(), principal.clone());
        }
        Ok(Checked { principal, hit })
    }

    /// Returns the other issuer that a token is of, or none if it is to be one of the gateway's own. Whose key verifies it is chosen
    /// by this alone.
    ///
    /// # Errors
    /// When it is of nobody who is known.
    pub fn issuer_to_ask(&self, token: &str) -> Result<Option<&Arc<ExternalIssuer>>, TokenError> {
        if self.external.is_empty() {
            return Ok(None);
        }
        let found = match issuer_of(token) {
            Some(issuer) if issuer == self.issuer => return Ok(None),
            Some(issuer) => self.external.iter().find(|external| external.config().issuer == issuer),
            // It tells nothing: only who made it knows it.
            None => self.external.iter().find(|external| external.is_asked_about_tokens()),
        };
        found.map(Some).ok_or(TokenError::Claims)
    }

    /// Returns the other issuers.
    pub fn external(&self) -> &[Arc<ExternalIssuer>] {
        &self.external
    }

    /// Notes whom a token stands for by what its issuer said.
    pub fn learn(&self, token: &[u8], principal: Principal) {
        self.cache.insert(token.into(), Arc::new(principal));
    }

    /// Forgets what has expired, now and then, for as long as the verifier is in use.
    pub async fn stay_small(verifier: Weak<Self>, time: Arc<TimeKeeper>) {
        let mut ticks = tokio::time::interval(FORGET_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Some(verifier) = verifier.upgrade() else { return };
            verifier.forget_expired(time.now());
        }
    }

    /// Forgets tokens that have expired, which would take memory until others need it. Returns how many.
    pub fn forget_expired(&self, now: Now) -> usize {
        let caches = [Some(&self.cache), self.cookies.as_ref().map(|(_, cache)| cache)];
        let mut count = 0;
        for cache in caches.into_iter().flatten() {
            for (token, principal) in cache {
                if principal.expires_at <= now.seconds() {
                    cache.invalidate(&**token);
                    count += 1;
                }
            }
        }
        count
    }

    fn verify_new(&self, token: &[u8], now: Now) -> Result<Principal, TokenError> {
        let token = std::str::from_utf8(token).map_err(|_| TokenError::Malformed)?;
        if let Some(issuer) = self.issuer_to_ask(token)? {
            return issuer.verify(token, now);
        }
        let keyring = self.keyring.get();
        let (payload, key) = verify_signature(token, |kid, _| keyring.verifying(kid?, now.time))?;
        // RFC 9068, section 4: the type is compared without case, and `application/` may lead.
        let typ = payload.typ.unwrap_or_default().to_ascii_lowercase();
        if typ.strip_prefix("application/").unwrap_or(&typ) != "at+jwt" {
            return Err(TokenError::Header);
        }
        let claims: Claims = serde_json::from_slice(&payload.bytes).map_err(|_| TokenError::Claims)?;
        if claims.iss != self.issuer || claims.aud != self.audience {
            return Err(TokenError::Claims);
        }
        if claims.nbf.is_some_and(|nbf| nbf > now.seconds()) {
            return Err(TokenError::NotYetValid);
        }
        let kid = KeyId::of(payload.kid.as_deref().unwrap_or_default());
        let principal = match claims.of_client()? {
            Some(client) => Principal::of_client(client, kid, key.in_use.clone()),
            None => {
                let said =
                    self.header_values(&claims::read(&self.claims, &payload.bytes)?.unwrap_or_default())?;
                Principal::new(claims.user.checked(claims.exp, said)?, kid, key.in_use.clone())
            }
        };
        principal.ok_or(TokenError::Claims)
    }

    fn header_values(&self, said: &ClaimValues) -> Result<Box<[Option<HeaderValue>]>, TokenError> {
        claims::header_values(&self.claims, said).ok_or(TokenError::Claims)
    }

    /// Only the gateway's own keys verify a cookie, whatever other issuers there are.
    fn verify_new_cookie(
        &self,
        cookies: &SessionCookies,
        token: &[u8],
        now: Now,
    ) -> Result<Principal, TokenError> {
        let token = std::str::from_utf8(token).map_err(|_| TokenError::Malformed)?;
        let keyring = self.keyring.get();
        let (payload, key) = verify_signature(token, |kid, _| keyring.verifying(kid?, now.time))?;
        if payload.typ.as_deref() != Some(cookie::TYPE) {
            return Err(TokenError::Header);
        }
        let claims: CookieClaims = serde_json::from_slice(&payload.bytes).map_err(|_| TokenError::Claims)?;
        if claims.iss != self.issuer || claims.aud != cookies.audience() {
            return Err(TokenError::Claims);
        }
        let external_id = claims.user.external_id.clone();
        let said = claims::read(&self.claims, &payload.bytes)?;
        let values = self.header_values(said.as_ref().unwrap_or(&ClaimValues::default()))?;
        let life = CookieLife::new(claims.iat, claims.exp, claims.end, claims.keep, external_id, said);
        let kid = KeyId::of(payload.kid.as_deref().unwrap_or_default());
        let principal = Principal::new(claims.user.checked(claims.exp, values)?, kid, key.in_use.clone());
        Ok(Principal { cookie: Some(Box::new(life)), ..principal.ok_or(TokenError::Claims)? })
    }
}
