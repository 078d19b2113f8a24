//! Single-use tokens that travel by mail.
//!
//! `base64url(id ‖ HMAC(K, purpose ‖ id))`, K outside the database. The queue holds the id and the
//! token's hash, so a mail that is sent again carries the same token, and who reads the database
//! holds none.

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::types::{Secret, hash::sha256};

const ID: usize = 16;
const LENGTH: usize = ID + 32;

/// Makes and reads the tokens.
pub struct MailTokens {
    key: hmac::Key,
}

/// A token and what the store keeps of it.
pub struct MailToken {
    /// The token.
    pub text: Secret,
    /// Its SHA-256.
    pub hash: [u8; 32],
}

impl MailTokens {
    pub(super) fn new(key: hmac::Key) -> Self {
        Self { key }
    }

    fn bytes(&self, purpose: &str, id: Uuid) -> Vec<u8> {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(purpose.as_bytes());
        context.update(&[0]);
        context.update(id.as_bytes());
        [id.as_bytes(), context.sign().as_ref()].concat()
    }

    /// The token of a mail.
    pub fn token(&self, purpose: &str, id: Uuid) -> MailToken {
        let bytes = self.bytes(purpose, id);
        MailToken { text: Secret::new(URL_SAFE_NO_PAD.encode(&bytes)), hash: sha256(&bytes) }
    }

    /// The hash of a token that this program made for `purpose`; `None` for anything else.
    pub fn read(&self, purpose: &str, text: &str) -> Option<[u8; 32]> {
        if text.len() != LENGTH / 3 * 4 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let id = Uuid::from_slice(bytes.get(..ID)?).ok()?;
        constant_time::verify_slices_are_equal(&self.bytes(purpose, id), &bytes).ok()?;
        Some(sha256(&bytes))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{token::RootSecret, types::OsRandom};

    #[test]
    fn a_token_serves_its_purpose_only() {
        let tokens = RootSecret::new(b"a", Arc::new(OsRandom)).mail_tokens();
        let token = tokens.token("reset", Uuid::from_u128(7));
        assert_eq!(tokens.read("reset", token.text.expose()), Some(token.hash));
        assert_eq!(tokens.read("verify", token.text.expose()), None);
        let other = RootSecret::new(b"b", Arc::new(OsRandom)).mail_tokens();
        assert_eq!(other.read("reset", token.text.expose()), None);
        for text in ["", "AAAA", &"A".repeat(64), &"~".repeat(64)] {
            assert_eq!(tokens.read("reset", text), None);
        }
    }
}
