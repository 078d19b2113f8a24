//! The cookies that people with browsers are signed in by.
//!
//! A cookie holds a token of its own type and audience: it is never accepted as a bearer token, nor a bearer token as a cookie. Past half
//! of its life it is signed anew on the way, without a write to the store, so that any number of tabs at any number of gateways never
//! race. It ends with its session, by the same mirror as every token.

use std::{
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use http::HeaderValue;
use jsonwebtoken::Header;
use serde::Serialize;

use super::{
    AccessClaims, CurrentKeyring, FreshSession, FreshSessions, Issuer, KeyError, Principal, SigningKey,
    claims::TokenClaims, fresh_sessions::Reading,
};
use crate::{
    clock::{Now, TimeKeeper, millis},
    config::{self, Browser},
    types::{ClaimValues, Proofs, Roles, Subject},
};

/// The type of the token, in its header.
pub(super) const TYPE: &str = "authgate-cookie+jwt";

/// What a cookie says, besides what every token says.
#[derive(Debug)]
pub(super) struct CookieLife {
    /// When its session ends, in Unix seconds.
    pub(super) session_ends_at: i64,
    /// From when on it is signed anew, in Unix seconds.
    pub(super) renew_at: i64,
    /// Whether the browser keeps it when it is closed.
    pub(super) is_kept: bool,
    /// The id that an imported user had before.
    pub(super) external_id: Option<String>,
    /// What claims say.
    claims: ClaimValues,
    /// Its successor. One is enough for all requests that still bring this one.
    successor: OnceLock<HeaderValue>,
    /// An access token for upstreams that are to get one, and when it is made anew, in Unix seconds.
    access: Mutex<Option<(HeaderValue, i64)>>,
}

impl CookieLife {
    /// The life of a cookie that was issued and expires at these times.
    pub(super) fn new(
        issued_at: i64,
        expires_at: i64,
        session_ends_at: i64,
        is_kept: bool,
        external_id: Option<String>,
        claims: Option<ClaimValues>,
    ) -> Self {
        // Nothing is gained by another one at the end of the session.
        let renew_at = match &claims {
            // Its claims were said by other rules.
            None => issued_at,
            Some(_) if expires_at >= session_ends_at => i64::MAX,
            Some(_) => issued_at + (expires_at - issued_at) / 2,
        };
        Self {
            session_ends_at,
            renew_at,
            is_kept,
            external_id,
            claims: claims.unwrap_or_default(),
            successor: OnceLock::new(),
            access: Mutex::default(),
        }
    }
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: String,
    sid: String,
    iat: i64,
    exp: i64,
    end: i64,
    keep: bool,
    name: &'a str,
    roles: &'a Roles,
    auth_time: i64,
    amr: Proofs,
    r#gen: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<&'a str>,
    #[serde(flatten)]
    claims: TokenClaims<'a>,
}

/// What becomes of a browser's cookie.
#[derive(Debug)]
pub enum CookieChange {
    /// This `Set-Cookie`.
    Set(HeaderValue),
    /// A successor, once its session was read.
    Awaited(AwaitedCookie),
}

/// The successor of a cookie whose session is being read.
#[derive(Debug)]
pub struct AwaitedCookie {
    of: Arc<Principal>,
    reading: Reading,
}

/// Makes the cookies of a config.
pub struct SessionCookies {
    /// Issues access tokens to upstreams that are to get one.
    access: Issuer,
    browser: Browser,
    name: &'static str,
    keyring: Arc<CurrentKeyring>,
    /// What is known of sessions by now.
    fresh: Arc<FreshSessions>,
}

impl SessionCookies {
    /// How old the decision on a cookie may be when its response leaves: meanwhile the browser may have got another one, which must not be
    /// replaced.
    pub const LATEST: Duration = Duration::from_secs(2);

    /// Cookies for the sessions of `access`, signed with the keys in use. `fresh` tells what is known of them by now.
    pub fn new(
        access: Issuer,
        browser: &Browser,
        keyring: Arc<CurrentKeyring>,
        fresh: Arc<FreshSessions>,
    ) -> Self {
        // A browser takes `__Host-` for its own host only (RFC 6265bis, section 4.1.3.2).
        let name = if browser.cookies.domain.is_some() { "__Secure-authgate" } else { "__Host-authgate" };
        Self { access, browser: browser.clone(), name, keyring, fresh }
    }

    /// Whether these are the cookies of another config, too.
    pub fn is_for(&self, auth: &config::Auth, browser: &Browser) -> bool {
        let Browser { public_url, cookies, .. } = &self.browser;
        self.access.is_for(auth)
            && self.fresh.is_for(&auth.mfa)
            && *public_url == browser.public_url
            && *cookies == browser.cookies
    }

    /// The cookie's name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The origin that is ours.
    pub fn origin(&self) -> &str {
        &self.browser.public_url.origin
    }

    /// The host of that origin.
    pub fn host(&self) -> &str {
        &self.browser.public_url.host
    }

    /// Whether they are sent to a domain with its subdomains.
    pub fn have_domain(&self) -> bool {
        self.browser.cookies.domain.is_some()
    }

    /// How long cookies and sessions live.
    pub fn lifetimes(&self) -> &config::Cookies {
        &self.browser.cookies
    }

    /// The audience of the token: not that of access tokens, whatever the config calls that.
    pub(super) fn audience(&self) -> &str {
        self.origin()
    }

    /// Issues a cookie: the value of `Set-Cookie`. A browser keeps it when it is closed if it `is_kept`.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn issue(
        &self,
        said: &AccessClaims<'_>,
        is_kept: bool,
        key: &SigningKey,
    ) -> Result<HeaderValue, KeyError> {
        let unreadable = || KeyError::Unreadable(key.kid.clone());
        let mut header = Header::new(key.algorithm);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(key.kid.clone());
        let iat = said.issued_at.div_euclid(1_000);
        let end = said.session_ends_at.div_euclid(1_000);
        let claims = Claims {
            iss: self.access.issuer(),
            aud: self.audience(),
            sub: said.user.to_string(),
            sid: said.session.to_string(),
            iat,
            // Rounded down, so that no cookie outlives its session.
            exp: (said.issued_at + millis(self.browser.cookies.idle)).div_euclid(1_000).min(end),
            end,
            keep: is_kept,
            name: said.name,
            roles: said.roles,
            auth_time: said.authenticated_at.div_euclid(1_000),
            amr: said.proofs,
            r#gen: said.generation,
            external_id: said.external_id,
            claims: self.access.claims(said.claims),
        };
        let token = jsonwebtoken::encode(&header, &claims, &key.key).map_err(|_| unreadable())?;
        let age = is_kept.then(|| (end - iat).max(0));
        self.set(&token, age).ok_or_else(unreadable)
    }

    /// Takes the cookie away: the value of `Set-Cookie`.
    pub fn removal(&self) -> Option<HeaderValue> {
        self.set("", Some(0))
    }

    /// Returns whether a value of `Set-Cookie` sets the cookie.
    pub fn is_set_by(&self, value: &HeaderValue) -> bool {
        value.as_bytes().strip_prefix(self.name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
    }

    fn set(&self, value: &str, max_age: Option<i64>) -> Option<HeaderValue> {
        let mut text = format!("{}={value}; Path=/; Secure; HttpOnly; SameSite=Lax", self.name);
        if let Some(domain) = &self.browser.cookies.domain {
            text.push_str("; Domain=");
            text.push_str(domain);
        }
        if let Some(age) = max_age {
            text.push_str("; Max-Age=");
            text.push_str(&age.to_string());
        }
        HeaderValue::try_from(text).ok()
    }

    /// Returns the successor of a caller's cookie, if it is time for one and a key signs.
    pub fn successor(&self, principal: &Arc<Principal>, now: Now) -> Option<CookieChange> {
        let life = principal.cookie.as_deref()?;
        if now.seconds() < life.renew_at {
            return None;
        }
        if let Some(successor) = life.successor.get() {
            return Some(CookieChange::Set(successor.clone()));
        }
        let said = claims(principal, now)?;
        let (id, generation, since) = (said.session, said.generation, life.renew_at);
        let made = if !self.fresh.bears_on(said.proofs, said.roles) {
            self.sign(life, said, None, now)
        } else if let Some(fresh) = self.fresh.get(id, generation, since, now.seconds()) {
            self.sign(life, said, Some(&fresh), now)
        } else {
            let reading = self.fresh.ask(id, generation, since, now.seconds());
            return Some(CookieChange::Awaited(AwaitedCookie { of: principal.clone(), reading }));
        };
        made.map(CookieChange::Set)
    }

    /// Returns the successor of a caller's cookie by what is known of its session after it was waited for.
    pub async fn awaited(&self, cookie: AwaitedCookie, time: &TimeKeeper) -> Option<HeaderValue> {
        let AwaitedCookie { of: principal, reading } = cookie;
        reading.ends().await;
        let (life, now) = (principal.cookie.as_deref()?, time.now());
        if let Some(successor) = life.successor.get() {
            return Some(successor.clone());
        }
        let said = claims(&principal, now)?;
        let fresh = self.fresh.last(said.session, said.generation, life.renew_at);
        if fresh.is_none() && now.seconds() < life.renew_at + (principal.expires_at - life.renew_at) / 2 {
            // The store did not answer; there is time yet.
            return None;
        }
        self.sign(life, said, fresh.as_deref(), now)
    }

    /// Signs the successor of a cookie, whose session is as `fresh` tells.
    fn sign<'a>(
        &self,
        life: &CookieLife,
        mut said: AccessClaims<'a>,
        fresh: Option<&'a FreshSession>,
        now: Now,
    ) -> Option<HeaderValue> {
        if let Some(fresh) = fresh {
            if !fresh.goes_on {
                // It runs out, and the way in leads to a factor.
                return None;
            }
            // What was shown since with another cookie is that one's to say.
            (said.claims, said.proofs) = (&fresh.claims, said.proofs.and(fresh.proofs));
        }
        let key = self.key(now)?;
        let made = self.issue(&said, life.is_kept, &key).ok()?;
        Some(life.successor.get_or_init(|| made).clone())
    }

    /// Returns the key that signs, unless it is not known any more to be good.
    fn key(&self, now: Now) -> Option<Arc<SigningKey>> {
        let key = self.keyring.get().signing(now.time).ok()?;
        self.keyring.get().verifying(&key.kid, now.time).filter(|key| key.is_in_use())?;
        Some(key)
    }

    /// Returns the value of `Authorization` for an upstream that is to get the access token of a caller with a cookie.
    pub fn authorization(&self, principal: &Principal, now: Now) -> Option<HeaderValue> {
        let life = principal.cookie.as_deref()?;
        let mut access = life.access.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((value, _)) = access.as_ref().filter(|(_, until)| now.seconds() < *until) {
            return Some(value.clone());
        }
        let key = self.key(now)?;
        let token = self.access.issue(&claims(principal, now)?, &key).ok()?;
        let value = HeaderValue::try_from(format!("Bearer {}", token.text)).ok()?;
        *access = Some((value.clone(), now.seconds() + token.expires_in / 2));
        Some(value)
    }
}

/// Returns what a token for the session of a caller with a cookie says.
fn claims(principal: &Principal, now: Now) -> Option<AccessClaims<'_>> {
    let life = principal.cookie.as_deref()?;
    let (Subject::User(user), Some(session)) = (principal.subject, principal.session) else { return None };
    Some(AccessClaims {
        user,
        session,
        generation: principal.generation,
        name: &principal.name,
        roles: &principal.roles,
        external_id: life.external_id.as_deref(),
        issued_at: now.time,
        session_ends_at: life.session_ends_at * 1_000,
        authenticated_at: principal.authenticated_at * 1_000,
        proofs: principal.proofs,
        claims: &life.claims,
    })
}

impl Principal {
    /// Whether a cookie was the credential.
    pub fn is_by_cookie(&self) -> bool {
        self.cookie.is_some()
    }
}
