//! Signatures of compact JWS (RFC 7515), and what a header may say (RFC 8725).
//!
//! The key decides the algorithm, never the token. Whatever would make a verifier look elsewhere
//! for a key, or read the payload in another way, is refused.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use thiserror::Error;

/// The longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 8 << 10;

/// Why a token is not accepted. For the log; a client hears `Missing or invalid token`.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum TokenError {
    /// Not three parts of base64url, or too long.
    #[error("not a compact JWS")]
    Malformed,
    /// The header is not JSON, has a member twice, or asks for what is never done.
    #[error("header not accepted")]
    Header,
    /// No key of that id, or not of that algorithm.
    #[error("unknown key")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("bad signature")]
    Signature,
    /// A claim is absent, twice there, of the wrong type or the wrong value.
    #[error("claims not accepted")]
    Claims,
    /// `exp` has passed.
    #[error("expired")]
    Expired,
    /// `nbf`, or the time of issue of another issuer's token, lies ahead.
    #[error("not valid yet")]
    NotYetValid,
    /// The issuer says that it is not active.
    #[error("not active")]
    Inactive,
    /// Whether it holds, its issuer has to be asked: for a new key, or about the token.
    #[error("its issuer has to be asked")]
    Unsettled,
    /// Its issuer is not asked, since too many bad tokens came from the client's address.
    #[error("too many bad tokens")]
    Throttled,
    /// Its issuer cannot be asked, and its keys are not known or too old.
    #[error("its issuer is out of reach")]
    NoKeys,
}

/// A key that verifies.
pub struct VerifyingKey {
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
    /// Falls when the key is taken out of use; looked at on every use of a cached token.
    pub(super) in_use: Arc<AtomicBool>,
}

impl VerifyingKey {
    /// An Ed25519 key from its 32 bytes.
    pub fn ed25519(public: &[u8]) -> Self {
        Self::new(Algorithm::EdDSA, DecodingKey::from_ed_der(public))
    }

    /// A P-256 key from its uncompressed point.
    pub fn p256(point: &[u8]) -> Self {
        Self::new(Algorithm::ES256, DecodingKey::from_ec_der(point))
    }

    /// A shared secret; never an empty one.
    pub fn hmac(secret: &[u8]) -> Option<Self> {
        (!secret.is_empty()).then(|| Self::new(Algorithm::HS256, DecodingKey::from_secret(secret)))
    }

    pub(super) fn new(algorithm: Algorithm, key: DecodingKey) -> Self {
        Self { algorithm, key, in_use: Arc::new(AtomicBool::new(true)) }
    }

    /// Whether the key may still be used.
    pub fn is_in_use(&self) -> bool {
        self.in_use.load(Relaxed)
    }
}

/// What a header may hold. Members that no verifier acts on are let through (RFC 7515, section 4).
#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    #[serde(default)]
    typ: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Present,
    #[serde(default)]
    b64: Present,
    #[serde(default)]
    jwk: Present,
    #[serde(default)]
    jku: Present,
    #[serde(default)]
    x5u: Present,
    #[serde(default)]
    x5c: Present,
    #[serde(default)]
    zip: Present,
    #[serde(default)]
    enc: Present,
}

/// Whether a member is there at all, `null` included.
#[derive(Default)]
struct Present(bool);

impl<'de> Deserialize<'de> for Present {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(deserializer).map(|_| Self(true))
    }
}

/// A payload whose signature holds.
#[derive(Debug)]
pub struct Payload {
    /// `typ` of the header.
    pub typ: Option<String>,
    /// `kid` of the header.
    pub kid: Option<String>,
    /// The payload's bytes.
    pub bytes: Vec<u8>,
}

/// Returns the payload of what has the form of a compact JWS. Nothing of it is verified.
pub(super) fn unverified_payload(token: &str) -> Option<Vec<u8>> {
    let mut parts = token.split('.');
    let payload = parts.nth(1)?;
    let is_jws = parts.next().is_some() && parts.next().is_none();
    is_jws.then(|| URL_SAFE_NO_PAD.decode(payload).ok()).flatten()
}

/// Checks header and signature of a compact JWS. `find` returns the key for a `kid` and an algorithm.
///
/// # Errors
/// What is wrong with it.
pub fn verify_signature(
    token: &str,
    find: impl FnOnce(Option<&str>, Algorithm) -> Option<Arc<VerifyingKey>>,
) -> Result<(Payload, Arc<VerifyingKey>), TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
    if payload.contains('.') {
        return Err(TokenError::Malformed);
    }
    let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| TokenError::Malformed);
    let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Header)?;
    let refused = [
        &header.crit,
        &header.b64,
        &header.jwk,
        &header.jku,
        &header.x5u,
        &header.x5c,
        &header.zip,
        &header.enc,
    ];
    if refused.iter().any(|member| member.0) {
        return Err(TokenError::Header);
    }
    let key = find(header.kid.as_deref(), header.alg).ok_or(TokenError::UnknownKey)?;
    if header.alg != key.algorithm || !key.is_in_use() {
        return Err(TokenError::UnknownKey);
    }
    let bytes = decode(payload)?;
    match jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, key.algorithm) {
        Ok(true) => Ok((Payload { typ: header.typ, kid: header.kid, bytes }, key)),
        _ => Err(TokenError::Signature),
    }
}
