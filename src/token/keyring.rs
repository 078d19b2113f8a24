//! The keys of access tokens: which one signs now, which ones verify.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use arc_swap::ArcSwap;
use aws_lc_rs::{
    digest, hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey};
use thiserror::Error;
use zeroize::Zeroizing;

use super::jws::VerifyingKey;
use crate::{clock::UnixMillis, config, types::Secret};

/// Why a key cannot be used or made.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The algorithm's name is not one of ours.
    #[error("key {0} has an algorithm that is not known")]
    Algorithm(String),
    /// The key's bytes are not a key.
    #[error("key {0} cannot be read")]
    Unreadable(String),
    /// No key was made.
    #[error("no key could be generated")]
    Generation,
    /// Nothing signs, and nothing will.
    #[error("there is no key to sign with")]
    NoneSigns,
    /// The key that signed was revoked, and no other was read since.
    #[error("key {0} was revoked, and no other one is there to sign with")]
    Revoked(String),
    /// The key that signs now is wrapped with a master key that is not here.
    #[error("key {0} signs now, and the master key that wraps it is not here")]
    Locked(String),
    /// Nothing signs before this time: every gateway has to know the new key first.
    #[error("the new key does not sign yet")]
    NotYet(UnixMillis),
}

/// The public half of a key, and until when it verifies.
#[derive(Debug, Clone)]
pub struct PublicKey {
    /// Its id.
    pub kid: String,
    /// `EdDSA` or `ES256`.
    pub algorithm: String,
    /// Raw bytes: 32 for Ed25519, the uncompressed point for P-256.
    pub public: Vec<u8>,
    /// After this time it does not verify.
    pub expires_at: Option<UnixMillis>,
}

/// A key that signs from a time on.
pub struct SigningKey {
    /// Its id.
    pub kid: String,
    /// Not before this time.
    pub signs_at: UnixMillis,
    pub(super) algorithm: Algorithm,
    pub(super) key: EncodingKey,
}

impl SigningKey {
    /// A key pair from its PKCS #8 form.
    ///
    /// # Errors
    /// When the algorithm is not known.
    pub fn pair(kid: &str, algorithm: &str, pkcs8: &[u8], signs_at: UnixMillis) -> Result<Self, KeyError> {
        let (algorithm, key) = match algorithm {
            "EdDSA" => (Algorithm::EdDSA, EncodingKey::from_ed_der(pkcs8)),
            "ES256" => (Algorithm::ES256, EncodingKey::from_ec_der(pkcs8)),
            _ => return Err(KeyError::Algorithm(kid.to_owned())),
        };
        Ok(Self { kid: kid.to_owned(), signs_at, algorithm, key })
    }
}

/// A key pair just made.
pub struct NewKey {
    /// Its id: the thumbprint's beginning.
    pub kid: String,
    /// The public half, raw.
    pub public: Vec<u8>,
    /// The private half, PKCS #8.
    pub pkcs8: Zeroizing<Vec<u8>>,
}

impl NewKey {
    /// Makes a key pair.
    ///
    /// # Errors
    /// When the library cannot.
    pub fn generate(algorithm: config::Algorithm) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let (public, pkcs8) = match algorithm {
            config::Algorithm::EdDSA => {
                let pkcs8 = Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| KeyError::Generation)?;
                let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|_| KeyError::Generation)?;
                (pair.public_key().as_ref().to_vec(), pkcs8.as_ref().to_vec())
            }
            config::Algorithm::ES256 => {
                let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
                let pkcs8 =
                    EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| KeyError::Generation)?;
                let pair =
                    EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref()).map_err(|_| KeyError::Generation)?;
                (pair.public_key().as_ref().to_vec(), pkcs8.as_ref().to_vec())
            }
            config::Algorithm::HS256 => return Err(KeyError::Generation),
        };
        let thumbprint = digest::digest(&digest::SHA256, &public);
        let kid = URL_SAFE_NO_PAD.encode(&thumbprint.as_ref()[..12]);
        Ok(Self { kid, public, pkcs8: Zeroizing::new(pkcs8) })
    }
}

struct Verifying {
    key: Arc<VerifyingKey>,
    expires_at: Option<UnixMillis>,
}

/// The keys in use, as one immutable set.
pub struct Keyring {
    verifying: HashMap<String, Verifying>,
    /// By the time from which they sign, latest first.
    signing: Vec<Arc<SigningKey>>,
    /// Keys that others sign with, and this gateway cannot; and from when on.
    locked: Vec<(String, UnixMillis)>,
    jwks: String,
}

impl Keyring {
    /// A set of key pairs; of those in `locked`, with the time from which they sign, only the public half can be used.
    /// Keys that `previous` holds too keep their state.
    ///
    /// # Errors
    /// When a key cannot be read.
    pub fn of_pairs(
        public: &[PublicKey],
        mut signing: Vec<Arc<SigningKey>>,
        locked: Vec<(String, UnixMillis)>,
        previous: Option<&Self>,
    ) -> Result<Self, KeyError> {
        let mut verifying = HashMap::new();
        let mut jwks = Vec::new();
        for known in public {
            let kept = previous.and_then(|keyring| keyring.verifying.get(&known.kid));
            let key = match kept {
                Some(kept) => kept.key.clone(),
                None => Arc::new(match known.algorithm.as_str() {
                    "EdDSA" if known.public.len() == 32 => VerifyingKey::ed25519(&known.public),
                    "ES256" if known.public.len() == 65 => VerifyingKey::p256(&known.public),
                    "EdDSA" | "ES256" => return Err(KeyError::Unreadable(known.kid.clone())),
                    _ => return Err(KeyError::Algorithm(known.kid.clone())),
                }),
            };
            jwks.push(jwk(known));
            verifying.insert(known.kid.clone(), Verifying { key, expires_at: known.expires_at });
        }
        signing.sort_by_key(|key| std::cmp::Reverse(key.signs_at));
        let jwks = serde_json::json!({ "keys": jwks }).to_string();
        Ok(Self { verifying, signing, locked, jwks })
    }

    /// A shared secret, and the one before it. Keys that are in the ring `before` go on.
    ///
    /// # Errors
    /// When a secret is empty.
    pub fn of_secrets(
        secret: &Secret,
        previous: Option<&Secret>,
        before: Option<&Self>,
    ) -> Result<Self, KeyError> {
        let mut verifying = HashMap::new();
        for secret in [Some(secret), previous].into_iter().flatten() {
            let bytes = secret.expose().as_bytes();
            let kid = secret_kid(bytes);
            let key = match before.and_then(|keyring| keyring.verifying.get(&kid)) {
                Some(known) => known.key.clone(),
                None => {
                    let made = VerifyingKey::hmac(bytes);
                    Arc::new(made.ok_or_else(|| KeyError::Unreadable(kid.clone()))?)
                }
            };
            verifying.insert(kid, Verifying { key, expires_at: None });
        }
        let signs = SigningKey {
            kid: secret_kid(secret.expose().as_bytes()),
            signs_at: 0,
            algorithm: Algorithm::HS256,
            key: EncodingKey::from_secret(secret.expose().as_bytes()),
        };
        Ok(Self {
            verifying,
            signing: vec![Arc::new(signs)],
            locked: Vec::new(),
            jwks: r#"{"keys":[]}"#.to_owned(),
        })
    }

    /// The private half of that id, if it is here.
    pub fn pair(&self, kid: &str) -> Option<Arc<SigningKey>> {
        self.signing.iter().find(|key| key.kid == kid).cloned()
    }

    /// The key of that id, if it still verifies.
    pub fn verifying(&self, kid: &str, now: UnixMillis) -> Option<Arc<VerifyingKey>> {
        let found = self.verifying.get(kid)?;
        found.expires_at.is_none_or(|expires_at| now < expires_at).then(|| found.key.clone())
    }

    /// The key that signs at `now`.
    ///
    /// # Errors
    /// When none does, or none yet, or when it is one that is locked: what an older one signs would soon hold no more.
    pub fn signing(&self, now: UnixMillis) -> Result<Arc<SigningKey>, KeyError> {
        let first = self.signing.last().ok_or(KeyError::NoneSigns)?;
        let signs = self.signing.iter().find(|key| key.signs_at <= now);
        let since = signs.map_or(i64::MIN, |key| key.signs_at);
        if let Some((kid, _)) = self.locked.iter().find(|(_, at)| *at <= now && *at > since) {
            return Err(KeyError::Locked(kid.clone()));
        }
        signs.cloned().ok_or(KeyError::NotYet(first.signs_at))
    }

    /// The public keys as a JWK Set (RFC 7517); empty for a shared secret.
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    fn retire_all_but(&self, kept: &Self) {
        for (kid, known) in &self.verifying {
            if !kept.verifying.contains_key(kid) {
                known.key.in_use.store(false, Relaxed);
            }
        }
    }
}

/// The keys in use at present.
pub struct CurrentKeyring(ArcSwap<Keyring>);

impl CurrentKeyring {
    /// These keys are in use.
    pub fn new(keyring: Keyring) -> Arc<Self> {
        Arc::new(Self(ArcSwap::from_pointee(keyring)))
    }

    /// The keys in use.
    pub fn get(&self) -> Arc<Keyring> {
        self.0.load_full()
    }

    /// Takes other keys into use; tokens of keys that are no longer among them end at once.
    pub fn replace(&self, keyring: Keyring) {
        let keyring = Arc::new(keyring);
        let before = self.0.swap(keyring.clone());
        before.retire_all_but(&keyring);
    }
}

/// The id of a shared secret tells no more of it than any token signed with it does.
fn secret_kid(secret: &[u8]) -> String {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), b"authgate key id");
    URL_SAFE_NO_PAD.encode(&tag.as_ref()[..9])
}

fn jwk(key: &PublicKey) -> serde_json::Value {
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    match key.algorithm.as_str() {
        "ES256" => serde_json::json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": key.kid,
            "x": encode(&key.public[1..33]), "y": encode(&key.public[33..]),
        }),
        _ => serde_json::json!({
            "kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": key.kid, "x": encode(&key.public),
        }),
    }
}
