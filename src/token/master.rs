//! The master secret, which never lies in the store, and what is derived from it.

use std::sync::Arc;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
    hmac,
};
use thiserror::Error;
use zeroize::Zeroizing;

use super::{MailTokens, RefreshTokens};
use crate::types::{Random, Secret};

/// Why something could not be wrapped or unwrapped.
#[derive(Debug, Error)]
#[error("the master key does not fit key {0}")]
pub struct MasterError(String);

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// Keys derived from the master secret by HKDF (RFC 5869), one for each purpose.
pub struct MasterKey {
    wrapping: LessSafeKey,
    fingerprint: [u8; 32],
    refresh: hmac::Key,
    mail: hmac::Key,
    random: Arc<dyn Random>,
}

impl MasterKey {
    /// Derives the keys.
    pub fn new(secret: &Secret, random: Arc<dyn Random>) -> Self {
        let prk = Salt::new(HKDF_SHA256, b"authgate master key v1").extract(secret.expose().as_bytes());
        let wrapping: Zeroizing<[u8; 32]> = derive(&prk, b"wrap signing keys");
        let refresh: Zeroizing<[u8; 32]> = derive(&prk, b"refresh tokens");
        let mail: Zeroizing<[u8; 32]> = derive(&prk, b"mail tokens");
        let unbound = UnboundKey::new(&AES_256_GCM, wrapping.as_ref());
        Self {
            wrapping: LessSafeKey::new(unbound.expect("32 bytes are a key for AES-256")),
            fingerprint: *derive(&prk, b"fingerprint"),
            refresh: hmac::Key::new(hmac::HMAC_SHA256, refresh.as_ref()),
            mail: hmac::Key::new(hmac::HMAC_SHA256, mail.as_ref()),
            random,
        }
    }

    /// What the store keeps to know the master secret again; tells nothing of it.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    /// The maker of refresh tokens.
    pub fn refresh_tokens(&self) -> RefreshTokens {
        RefreshTokens::new(self.refresh.clone(), self.random.clone())
    }

    /// The maker of tokens that travel by mail.
    pub fn mail_tokens(&self) -> MailTokens {
        MailTokens::new(self.mail.clone())
    }

    /// Wraps a private key, bound to its id.
    ///
    /// # Errors
    /// Only when the key is too long to be one.
    pub fn wrap(&self, kid: &str, private: &[u8]) -> Result<Vec<u8>, MasterError> {
        let nonce: [u8; NONCE_LEN] = self.random.bytes();
        let mut sealed = Zeroizing::new(private.to_vec());
        let aad = Aad::from(kid.as_bytes());
        self.wrapping
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut *sealed)
            .map_err(|_| MasterError(kid.to_owned()))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// Unwraps a private key.
    ///
    /// # Errors
    /// When it was wrapped with another master secret, for another id, or was altered.
    pub fn unwrap(&self, kid: &str, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, MasterError> {
        let failed = || MasterError(kid.to_owned());
        let (nonce, sealed) = wrapped.split_at_checked(NONCE_LEN).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| failed())?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let length = self
            .wrapping
            .open_in_place(nonce, Aad::from(kid.as_bytes()), &mut opened)
            .map_err(|_| failed())?
            .len();
        opened.truncate(length);
        Ok(opened)
    }
}

fn derive(prk: &Prk, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
    let mut key = Zeroizing::new([0; 32]);
    let purpose = [purpose];
    let okm = prk.expand(&purpose, Length(32)).expect("32 bytes are within what HKDF-SHA256 gives");
    okm.fill(key.as_mut()).expect("the buffer has the length that was asked for");
    key
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::OsRandom;

    fn master(text: &str) -> MasterKey {
        MasterKey::new(&Secret::new(text), Arc::new(OsRandom))
    }

    #[test]
    fn a_wrapped_key_opens_with_its_master_and_its_id_only() {
        let wrapped = master("a").wrap("k1", b"private").unwrap();
        assert_eq!(*master("a").unwrap("k1", &wrapped).unwrap(), b"private");
        assert!(master("a").unwrap("k2", &wrapped).is_err());
        assert!(master("b").unwrap("k1", &wrapped).is_err());
        assert!(master("a").unwrap("k1", &wrapped[..5]).is_err());
        assert!(!wrapped.windows(7).any(|window| window == b"private"));
    }
}
