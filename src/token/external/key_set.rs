//! Key sets of other issuers (RFC 7517).

use std::sync::{Arc, atomic::Ordering::Relaxed};

use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use thiserror::Error;

use super::super::jws::VerifyingKey;
use crate::config::SignatureAlgorithm;

/// The most keys of a set.
const MOST_KEYS: usize = 100;

/// Lengths of RSA moduli, in bytes: 2,048 to 8,192 bits.
const MODULUS: std::ops::RangeInclusive<usize> = 256..=1024;

/// The error of a set that cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum KeySetError {
    /// The text is no key set.
    #[error("it is no JSON Web Key Set")]
    NotASet,
    /// There are too many keys.
    #[error("it has more than {MOST_KEYS} keys")]
    TooMany,
    /// No key can verify a signature by the issuer's algorithms.
    #[error("none of its keys is of an algorithm that `algorithms` allows")]
    NoneUsable,
}

/// The key set of an issuer, as far as it verifies signatures by the issuer's algorithms.
#[derive(Default)]
pub struct KeySet(Vec<Entry>);

struct Entry {
    kid: Option<String>,
    /// The public key as it was written.
    material: [String; 3],
    key: Arc<VerifyingKey>,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

/// A key as it is written (RFC 7518, section 6; RFC 8037, section 2). Members that do not matter here are not read.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    #[serde(default)]
    r#use: Option<String>,
    #[serde(default)]
    key_ops: Option<Vec<String>>,
    #[serde(default)]
    alg: Option<String>,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crv: String,
    #[serde(default)]
    n: String,
    #[serde(default)]
    e: String,
    #[serde(default)]
    x: String,
    #[serde(default)]
    y: String,
}

impl Jwk {
    fn verifies(&self) -> bool {
        self.r#use.as_ref().is_none_or(|usage| usage == "sig")
            && self.key_ops.as_ref().is_none_or(|usages| usages.iter().any(|usage| usage == "verify"))
    }

    /// The public key as it was written.
    fn material(&self) -> [String; 3] {
        match self.kty.as_str() {
            "RSA" => [self.n.clone(), self.e.clone(), String::new()],
            _ => [self.crv.clone(), self.x.clone(), self.y.clone()],
        }
    }

    /// Returns the key for an algorithm, if it is one of that kind and as long as it has to be.
    fn decoding_key(&self, algorithm: SignatureAlgorithm) -> Option<DecodingKey> {
        use SignatureAlgorithm::{ES256, ES384, EdDSA, PS256, RS256, RS384, RS512};
        let length = |text: &str| base64_length(text);
        match (algorithm, self.kty.as_str(), self.crv.as_str()) {
            (RS256 | RS384 | RS512 | PS256, "RSA", _) => {
                let is_long = length(&self.n).is_some_and(|bytes| MODULUS.contains(&bytes));
                is_long.then(|| DecodingKey::from_rsa_components(&self.n, &self.e).ok()).flatten()
            }
            (ES256, "EC", "P-256") | (ES384, "EC", "P-384") => {
                let wanted = Some(if algorithm == ES256 { 32 } else { 48 });
                let fits = length(&self.x) == wanted && length(&self.y) == wanted;
                fits.then(|| DecodingKey::from_ec_components(&self.x, &self.y).ok()).flatten()
            }
            (EdDSA, "OKP", "Ed25519") if length(&self.x) == Some(32) => {
                DecodingKey::from_ed_components(&self.x).ok()
            }
            _ => None,
        }
    }
}

/// Returns how many bytes a text in base64url stands for.
fn base64_length(text: &str) -> Option<usize> {
    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    URL_SAFE_NO_PAD.decode(text).ok().map(|bytes| bytes.len())
}

impl KeySet {
    /// Reads a key set. Keys that are as they were `before` go on, and with them the tokens that were verified by them.
    ///
    /// # Errors
    /// When no key of it is of use.
    pub fn parse(
        bytes: &[u8],
        algorithms: &[SignatureAlgorithm],
        before: Option<&Self>,
    ) -> Result<Self, KeySetError> {
        let document: Document = serde_json::from_slice(bytes).map_err(|_| KeySetError::NotASet)?;
        if document.keys.len() > MOST_KEYS {
            return Err(KeySetError::TooMany);
        }
        let mut entries: Vec<Entry> = Vec::new();
        // A key that cannot be read is not for us (RFC 7517, section 5).
        let keys = document.keys.into_iter().filter_map(|key| serde_json::from_value::<Jwk>(key).ok());
        for jwk in keys.filter(Jwk::verifies) {
            for (name, algorithm) in SignatureAlgorithm::ALL {
                let is_allowed = algorithms.contains(&algorithm);
                if !is_allowed || jwk.alg.as_ref().is_some_and(|alg| alg != name) {
                    continue;
                }
                let Some(key) = jwk.decoding_key(algorithm) else { continue };
                let algorithm = algorithm.into();
                // Which of two with one name is meant cannot be told: the first one is.
                if entries.iter().any(|other| other.kid == jwk.kid && other.key.algorithm == algorithm) {
                    continue;
                }
                let mut entry = Entry {
                    kid: jwk.kid.clone(),
                    material: jwk.material(),
                    key: Arc::new(VerifyingKey::new(algorithm, key)),
                };
                if let Some(known) = before.and_then(|before| before.like(&entry)) {
                    entry.key = known.key.clone();
                }
                entries.push(entry);
            }
        }
        if entries.is_empty() { Err(KeySetError::NoneUsable) } else { Ok(Self(entries)) }
    }

    fn like(&self, wanted: &Entry) -> Option<&Entry> {
        self.0.iter().find(|entry| {
            entry.kid == wanted.kid
                && entry.material == wanted.material
                && entry.key.algorithm == wanted.key.algorithm
        })
    }

    /// Returns the key of a name for an algorithm. A token that names no key is verified by the only one of its algorithm.
    pub fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<Arc<VerifyingKey>> {
        let mut fit = self.0.iter().filter(|entry| {
            entry.key.algorithm == algorithm && (kid.is_none() || entry.kid.as_deref() == kid)
        });
        let found = fit.next()?;
        fit.next().is_none().then(|| found.key.clone())
    }

    /// Takes the keys out of use that `next` does not have, and with them the tokens that were verified by them.
    pub(super) fn retire(&self, next: Option<&Self>) {
        for entry in &self.0 {
            if next.and_then(|next| next.like(entry)).is_none() {
                entry.key.in_use.store(false, Relaxed);
            }
        }
    }

    /// Returns how many keys there are, each counted once for each of its algorithms.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<SignatureAlgorithm> for Algorithm {
    fn from(algorithm: SignatureAlgorithm) -> Self {
        match algorithm {
            SignatureAlgorithm::RS256 => Self::RS256,
            SignatureAlgorithm::RS384 => Self::RS384,
            SignatureAlgorithm::RS512 => Self::RS512,
            SignatureAlgorithm::PS256 => Self::PS256,
            SignatureAlgorithm::ES256 => Self::ES256,
            SignatureAlgorithm::ES384 => Self::ES384,
            SignatureAlgorithm::EdDSA => Self::EdDSA,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    // RFC 8037, appendix A.2.
    const ED25519: &str = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";

    fn all() -> Vec<SignatureAlgorithm> {
        SignatureAlgorithm::ALL.map(|(_, algorithm)| algorithm).to_vec()
    }

    fn ed25519(kid: &str) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "x": ED25519, "kid": kid})
    }

    fn parse(keys: &[Value], before: Option<&KeySet>) -> Result<KeySet, KeySetError> {
        KeySet::parse(json!({"keys": keys}).to_string().as_bytes(), &all(), before)
    }

    #[test]
    fn a_key_is_found_by_its_name_and_its_algorithm() {
        let set = parse(&[ed25519("a"), ed25519("b")], None).unwrap();
        assert!(set.find(Some("a"), Algorithm::EdDSA).is_some());
        assert!(set.find(Some("c"), Algorithm::EdDSA).is_none());
        assert!(set.find(Some("a"), Algorithm::RS256).is_none());
        assert!(set.find(None, Algorithm::EdDSA).is_none(), "two could be meant");
        let one = parse(&[ed25519("a")], None).unwrap();
        assert!(one.find(None, Algorithm::EdDSA).is_some());
    }

    #[test]
    fn keys_that_are_no_use_are_left_out() {
        let short = "A".repeat(171);
        for key in [
            json!({"kty": "oct", "k": "AAAA", "alg": "HS256", "kid": "a"}),
            json!({"kty": "RSA", "n": short, "e": "AQAB", "kid": "a"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "a"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": ED25519, "use": "enc"}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": ED25519, "key_ops": ["sign"]}),
            json!({"kty": "OKP", "crv": "Ed25519", "x": ED25519, "alg": "HS256"}),
            json!({"kty": "EC", "crv": "P-256", "x": ED25519, "y": "AAAA"}),
            json!({"kty": 7}),
            json!("key"),
        ] {
            assert_eq!(parse(std::slice::from_ref(&key), None).err(), Some(KeySetError::NoneUsable), "{key}");
            assert_eq!(parse(&[key, ed25519("b")], None).unwrap().len(), 1);
        }
    }

    #[test]
    fn what_is_no_set_or_too_large_is_refused() {
        let parse_text = |text: &str| KeySet::parse(text.as_bytes(), &all(), None).err();
        for text in ["", "[]", "{}", r#"{"keys": {}}"#, "<html>"] {
            assert_eq!(parse_text(text), Some(KeySetError::NotASet), "{text}");
        }
        let many: Vec<_> = (0..=MOST_KEYS).map(|number| ed25519(&number.to_string())).collect();
        assert_eq!(parse(&many, None).err(), Some(KeySetError::TooMany));
    }

    #[test]
    fn a_key_that_stays_goes_on_and_one_that_leaves_is_out_of_use() {
        let before = parse(&[ed25519("a"), ed25519("b")], None).unwrap();
        let next = parse(&[ed25519("b")], Some(&before)).unwrap();
        before.retire(Some(&next));
        assert!(!before.find(Some("a"), Algorithm::EdDSA).unwrap().is_in_use());
        let [old, new] = [&before, &next].map(|set| set.find(Some("b"), Algorithm::EdDSA).unwrap());
        assert!(Arc::ptr_eq(&old, &new) && old.is_in_use());
        next.retire(None);
        assert!(!old.is_in_use());
    }
}
