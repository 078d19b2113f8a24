//! Opaque tokens: random, looked up by their hash. They stand for challenges, invitations and reset links.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::types::{Random, Secret, hash::sha256};

/// Bytes of a token.
const BYTES: usize = 32;

/// A new opaque token.
pub struct OpaqueToken {
    /// The token.
    pub text: Secret,
    /// Its SHA-256, which the store has.
    pub hash: [u8; 32],
}

impl OpaqueToken {
    /// The length of a token, in characters.
    pub const LENGTH: usize = (BYTES * 4).div_ceil(3);

    /// Generates a token.
    pub fn generate(random: &dyn Random) -> Self {
        let text = URL_SAFE_NO_PAD.encode(random.bytes::<BYTES>());
        Self { hash: Self::hash_of(&text), text: Secret::new(text) }
    }

    /// Returns the hash of a token.
    pub fn hash_of(text: &str) -> [u8; 32] {
        sha256(text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::OsRandom;

    #[test]
    fn a_token_is_found_by_its_hash() {
        let token = OpaqueToken::generate(&OsRandom);
        assert_eq!(OpaqueToken::hash_of(token.text.expose()), token.hash);
        assert_eq!(token.text.expose().len(), OpaqueToken::LENGTH);
    }
}
