//! Public keys of passkeys in COSE form (RFC 9052, RFC 9053), and verification of their signatures.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use ciborium::Value;

/// The accepted algorithms, best first: EdDSA, ES256, RS256 (the registry of COSE algorithms).
pub(super) const ALGORITHMS: [i64; 3] = [-8, -7, -257];

/// A public key.
pub(super) enum PublicKey {
    Ed25519(Vec<u8>),
    /// The point, uncompressed.
    P256(Vec<u8>),
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

impl PublicKey {
    /// Parses a key. Returns `None` for other algorithms.
    pub(super) fn read(key: &Value) -> Option<Self> {
        let map = key.as_map()?;
        let find = |label: i64| {
            let mut found = map.iter().filter(|(key, _)| key.as_integer() == Some(label.into()));
            found.next().map(|(_, value)| value).filter(|_| found.next().is_none())
        };
        let integer =
            |label| find(label).and_then(Value::as_integer).and_then(|value| i64::try_from(value).ok());
        let bytes = |label| find(label).and_then(Value::as_bytes).cloned();
        match (integer(1)?, integer(3)?) {
            (1, -8) if integer(-1) == Some(6) => bytes(-2).filter(|x| x.len() == 32).map(Self::Ed25519),
            (2, -7) if integer(-1) == Some(1) => {
                let (x, y) = (bytes(-2)?, bytes(-3)?);
                let point = [&[4][..], &x, &y].concat();
                (x.len() == 32 && y.len() == 32).then_some(Self::P256(point))
            }
            (3, -257) => Some(Self::Rsa { modulus: bytes(-1)?, exponent: bytes(-2)? }),
            _ => None,
        }
    }

    /// Decodes a key.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        Self::read(&ciborium::from_reader(bytes).ok()?)
    }

    /// Returns whether the signature of a message is valid.
    pub(super) fn has_signed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok(),
            Self::P256(point) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
            }
            Self::Rsa { modulus, exponent } => {
                // Numbers in COSE have no leading zeros (RFC 8230, section 4).
                let key = RsaPublicKeyComponents { n: modulus, e: exponent };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
        }
    }
}
