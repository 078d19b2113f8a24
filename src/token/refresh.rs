//! Refresh tokens: opaque, used once, and replaced by a successor that can be computed again.
//!
//! `base64url(session ‖ number ‖ secret ‖ tag)`. The tag is an HMAC under a key outside the
//! database, so a forged token changes nothing. The next secret is an HMAC over the present one
//! and a nonce from the store: whoever replays the token within the grace gets the same successor,
//! and the store needs to keep hashes only.

use std::sync::Arc;

use aws_lc_rs::{constant_time, hmac};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use uuid::Uuid;

use crate::types::{Random, Secret, SessionId, hash::sha256};

const SESSION: usize = 16;
const NUMBER: usize = SESSION + 4;
const SECRET: usize = NUMBER + 32;
const LENGTH: usize = SECRET + 16;

/// A token to be given to a client.
#[derive(Debug)]
pub struct RefreshToken {
    /// The token.
    pub text: Secret,
    /// What the store keeps of it: its SHA-256.
    pub hash: [u8; 32],
}

/// A token that was presented and is genuine: this program made it, at some time.
#[derive(Debug)]
pub struct Presented {
    /// The session that it names.
    pub session: SessionId,
    /// Its SHA-256.
    pub hash: [u8; 32],
    number: u32,
    secret: [u8; 32],
}

/// Makes and reads refresh tokens.
pub struct RefreshTokens {
    key: hmac::Key,
    random: Arc<dyn Random>,
}

impl RefreshTokens {
    pub(super) fn new(key: hmac::Key, random: Arc<dyn Random>) -> Self {
        Self { key, random }
    }

    /// A fresh nonce for a rotation.
    pub fn nonce(&self) -> [u8; 16] {
        self.random.bytes()
    }

    /// The first token of a session.
    pub fn first(&self, session: SessionId) -> RefreshToken {
        self.token(session, 0, self.random.bytes())
    }

    /// The token that replaces `presented` when `nonce` is the store's.
    pub fn successor(&self, presented: &Presented, nonce: &[u8; 16]) -> RefreshToken {
        let number = presented.number.wrapping_add(1);
        let next = self.sign(&[
            b"next",
            presented.session.uuid().as_bytes(),
            &number.to_be_bytes(),
            nonce,
            &presented.secret,
        ]);
        self.token(presented.session, number, next)
    }

    /// Reads a token; `None` unless it is genuine.
    pub fn read(&self, text: &str) -> Option<Presented> {
        if text.len() != LENGTH.div_ceil(3) * 4 - (3 - LENGTH % 3) % 3 {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let bytes: &[u8; LENGTH] = bytes.as_slice().try_into().ok()?;
        constant_time::verify_slices_are_equal(&self.tag(&bytes[..SECRET]), &bytes[SECRET..]).ok()?;
        Some(Presented {
            session: SessionId::from_uuid(Uuid::from_slice(&bytes[..SESSION]).ok()?)?,
            number: u32::from_be_bytes(bytes[SESSION..NUMBER].try_into().ok()?),
            secret: bytes[NUMBER..SECRET].try_into().ok()?,
            hash: sha256(bytes),
        })
    }

    fn token(&self, session: SessionId, number: u32, secret: [u8; 32]) -> RefreshToken {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend_from_slice(session.uuid().as_bytes());
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(&secret);
        bytes.extend_from_slice(&self.tag(&bytes));
        RefreshToken { hash: sha256(&bytes), text: Secret::new(URL_SAFE_NO_PAD.encode(&bytes)) }
    }

    fn tag(&self, body: &[u8]) -> [u8; 16] {
        let full = self.sign(&[b"tag", body]);
        let mut tag = [0; 16];
        tag.copy_from_slice(&full[..16]);
        tag
    }

    fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        parts.iter().for_each(|part| context.update(part));
        let mut signature = [0; 32];
        signature.copy_from_slice(context.sign().as_ref());
        signature
    }
}

#[cfg(test)]
#[path = "../../fuzz/refresh.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{token::RootSecret, types::OsRandom};

    fn tokens(master: &str) -> RefreshTokens {
        RootSecret::new(master.as_bytes(), Arc::new(OsRandom)).refresh_tokens()
    }

    #[test]
    fn the_successor_is_the_same_however_often_it_is_computed() {
        let tokens = tokens("a");
        let session = SessionId::generate(&OsRandom);
        let first = tokens.first(session);
        let presented = tokens.read(first.text.expose()).unwrap();
        assert_eq!((presented.session, presented.hash), (session, first.hash));
        let successor = tokens.successor(&presented, &[7; 16]);
        assert_eq!(successor.text.expose(), tokens.successor(&presented, &[7; 16]).text.expose());
        assert_ne!(successor.text.expose(), tokens.successor(&presented, &[8; 16]).text.expose());
        assert_eq!(tokens.read(successor.text.expose()).unwrap().hash, successor.hash);
    }

    #[test]
    fn a_token_altered_in_any_bit_is_not_genuine() {
        let tokens = tokens("a");
        let genuine = tokens.first(SessionId::generate(&OsRandom));
        let bytes = URL_SAFE_NO_PAD.decode(genuine.text.expose()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            assert!(tokens.read(&URL_SAFE_NO_PAD.encode(&altered)).is_none(), "bit {bit}");
        }
        assert!(super::tests::tokens("b").read(genuine.text.expose()).is_none());
        assert!(tokens.read("").is_none());
    }
}
