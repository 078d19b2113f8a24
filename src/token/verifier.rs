//! Verifying access tokens, each signature once.
//!
//! The cache maps whole tokens, byte for byte, to principals. It only saves the signature check:
//! expiry and the key's state are looked at on every use, here; revocation and generation are
//! looked at on every use by whoever decides.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use foldhash::quality::RandomState;
use moka::sync::Cache;
use serde::Deserialize;

use super::{
    CurrentKeyring, ExternalIssuer, Principal,
    external::issuer_of,
    jws::{MAX_TOKEN_BYTES, TokenError, verify_signature},
    principal::UserClaims,
};
use crate::{
    clock::Now,
    config,
    types::{KeyId, Roles, SessionId, UserId, Username},
};

/// The most memory that verified tokens may take.
const CACHE_BYTES: u64 = 64 << 20;

/// Roughly what an entry costs beside its token and the texts of its principal.
const ENTRY_BYTES: usize = 500;

/// Verifies access tokens.
pub struct Verifier {
    issuer: String,
    audience: String,
    keyring: Arc<CurrentKeyring>,
    external: Vec<Arc<ExternalIssuer>>,
    cache: Cache<Arc<[u8]>, Arc<Principal>, RandomState>,
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
    sub: String,
    sid: String,
    #[serde(rename = "jti")]
    _jti: String,
    #[serde(rename = "iat")]
    _iat: i64,
    exp: i64,
    #[serde(default)]
    nbf: Option<i64>,
    name: String,
    roles: Vec<String>,
    r#gen: i64,
    #[serde(default)]
    external_id: Option<String>,
}

impl Verifier {
    /// A verifier of tokens for `audience` by `issuer`, and of those of `external` issuers.
    pub fn new(
        issuer: &str,
        audience: &str,
        keyring: Arc<CurrentKeyring>,
        external: Vec<Arc<ExternalIssuer>>,
    ) -> Self {
        let cache = Cache::builder()
            .max_capacity(CACHE_BYTES)
            .weigher(|token: &Arc<[u8]>, principal: &Arc<Principal>| {
                (token.len() + principal.size() + ENTRY_BYTES) as u32
            })
            .build_with_hasher(RandomState::default());
        Self { issuer: issuer.to_owned(), audience: audience.to_owned(), keyring, external, cache }
    }

    /// Whether it verifies tokens for `audience` by `issuer`, and those of these others.
    pub fn is_for(&self, issuer: &str, audience: &str, external: &[config::Issuer]) -> bool {
        let same = |(one, other): (&Arc<ExternalIssuer>, &config::Issuer)| one.config().is_like(other);
        self.issuer == issuer
            && self.audience == audience
            && self.external.len() == external.len()
            && self.external.iter().zip(external).all(same)
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(&self, token: &[u8], now: Now) -> Result<Checked, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::Malformed);
        }
        let in_use = |principal: &Arc<Principal>| principal.key_in_use.load(Relaxed);
        let usable = |principal: &Arc<Principal>| in_use(principal) && principal.asked_until > now.seconds();
        // A key that is gone may come back, as another one of the same name.
        let (principal, hit) = match self.cache.get(token).filter(usable) {
            Some(principal) => (principal, true),
            None => (Arc::new(self.verify_new(token, now)?), false),
        };
        if principal.expires_at <= now.seconds() {
            return Err(TokenError::Expired);
        }
        if !in_use(&principal) {
            return Err(TokenError::UnknownKey);
        }
        if !hit {
            self.cache.insert(token.into(), principal.clone());
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
        let roles = Roles::parse_all(&claims.roles).map_err(|_| TokenError::Claims)?;
        // Only what this program could have issued: a name that is canonical, a few roles.
        let name = Username::new(&claims.name).map_err(|_| TokenError::Claims)?;
        if name.as_str() != claims.name || claims.r#gen < 0 {
            return Err(TokenError::Claims);
        }
        let user = UserId::parse(&claims.sub).ok_or(TokenError::Claims)?;
        let session = SessionId::parse(&claims.sid).ok_or(TokenError::Claims)?;
        let claims = UserClaims {
            user,
            session,
            generation: claims.r#gen,
            expires_at: claims.exp,
            name: claims.name,
            external_id: claims.external_id,
            roles,
        };
        let kid = KeyId::of(payload.kid.as_deref().unwrap_or_default());
        Principal::new(claims, kid, key.in_use.clone()).ok_or(TokenError::Claims)
    }
}
