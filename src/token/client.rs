//! Assertions by which client programs show who they are (RFC 7523, section 3), in place of a secret.

use thiserror::Error;

use super::{
    Claims, KeySet, KeySetError, TokenError,
    jws::{unverified_payload, verify_signature},
};
use crate::{clock::Now, config::SignatureAlgorithm, types::ClientId};

/// The longest time that an assertion may be good for, in seconds: for so long it is remembered. It is what libraries ask for.
const LONGEST: i64 = 3_600;

/// How far the clock of a client may be ahead, in seconds.
const LEEWAY: i64 = 30;

/// The public keys of a client.
pub struct ClientKeys(KeySet);

impl ClientKeys {
    /// Reads a key set (RFC 7517).
    ///
    /// # Errors
    /// When no key of it can verify a signature.
    pub fn parse(jwks: &str) -> Result<Self, KeySetError> {
        // A secret that came here by mistake is not to be kept.
        let keys: serde_json::Value = serde_json::from_str(jwks).map_err(|_| KeySetError::NotASet)?;
        let listed = keys.get("keys").and_then(serde_json::Value::as_array);
        let is_secret = |key: &serde_json::Value| ["d", "k", "p"].iter().any(|name| key.get(name).is_some());
        if listed.is_some_and(|keys| keys.iter().any(is_secret)) {
            return Err(KeySetError::NoneUsable);
        }
        let all = SignatureAlgorithm::ALL.map(|(_, algorithm)| algorithm);
        KeySet::parse(jwks.as_bytes(), &all, None).map(Self)
    }
}

/// Why an assertion is not accepted. For the log.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum AssertionError {
    /// Its signature, or a claim, does not hold.
    #[error("assertion: {0}")]
    Token(#[from] TokenError),
    /// It is good for too long.
    #[error("assertion: it is good for more than an hour")]
    TooLong,
}

/// An assertion that holds, and may be used once.
#[derive(Debug)]
pub struct ClientAssertion {
    /// Its `jti`.
    pub id: String,
    /// When it expires, in Unix seconds.
    pub expires_at: i64,
}

impl ClientAssertion {
    /// Returns which client an assertion says that it is of. Nothing of it is verified.
    pub fn client_of(assertion: &str) -> Option<ClientId> {
        let claims = Claims::parse(&unverified_payload(assertion)?).ok()?;
        ClientId::parse(claims.text("sub").ok()??)
    }

    /// Verifies an assertion of `client` for one of these audiences.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn verify(
        assertion: &str,
        client: ClientId,
        keys: &ClientKeys,
        audiences: &[&str],
        now: Now,
    ) -> Result<Self, AssertionError> {
        let (payload, _) = verify_signature(assertion, |kid, algorithm| keys.0.find(kid, algorithm))?;
        // A token of another purpose says which; an assertion need not.
        let typ = payload.typ.unwrap_or_default().to_ascii_lowercase();
        let typ = typ.strip_prefix("application/").unwrap_or(&typ);
        if !matches!(typ, "" | "jwt" | "client-authentication+jwt") {
            return Err(TokenError::Header.into());
        }
        let claims = Claims::parse(&payload.bytes)?;
        let client = client.to_string();
        let is_ours = |name: &str| claims.text(name).is_ok_and(|text| text == Some(client.as_str()));
        let is_for_us = match claims.get("aud") {
            Some(serde_json::Value::String(audience)) => audiences.contains(&audience.as_str()),
            Some(serde_json::Value::Array(named)) => {
                named.iter().any(|audience| audience.as_str().is_some_and(|text| audiences.contains(&text)))
            }
            _ => false,
        };
        if !is_ours("iss") || !is_ours("sub") || !is_for_us {
            return Err(TokenError::Claims.into());
        }
        let now = now.seconds();
        let (expires_at, begins) = (claims.date("exp")?.ok_or(TokenError::Claims)?, claims.date("nbf")?);
        let issued_at = claims.date("iat")?;
        if expires_at <= now {
            return Err(TokenError::Expired.into());
        }
        if begins.max(issued_at).is_some_and(|begins| begins > now + LEEWAY) {
            return Err(TokenError::NotYetValid.into());
        }
        if expires_at > now + LONGEST + LEEWAY {
            return Err(AssertionError::TooLong);
        }
        let id = claims.text("jti")?.ok_or(TokenError::Claims)?.to_owned();
        Ok(Self { id, expires_at })
    }
}
