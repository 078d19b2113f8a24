//! The master key, which never lies in the store: what lies there and must not be read is wrapped with it.

use std::sync::Arc;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, KeyType, Prk, Salt},
};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::types::{Random, Secret};

/// Why something could not be wrapped or unwrapped.
#[derive(Debug, Error)]
pub enum MasterError {
    /// None of the master keys that are there has wrapped it.
    #[error("{0} is wrapped with a master key that is not there")]
    NotThere(String),
    /// It was wrapped for something else, or was altered.
    #[error("{0} cannot be unwrapped: it was altered, or is another's")]
    Altered(String),
}

/// What is wrapped, and which one of them: a value that is put in another's place does not open.
#[derive(Debug, Clone, Copy)]
pub struct Wrapped<'a> {
    /// What it is for.
    pub purpose: &'a str,
    /// The id of its row.
    pub id: &'a str,
}

impl<'a> Wrapped<'a> {
    /// The secret that all secrets but the private keys are derived from.
    pub const ROOT: Wrapped<'static> = Wrapped { purpose: "root", id: "" };

    /// The private half of a signing key.
    pub fn signing_key(kid: &'a str) -> Self {
        Self { purpose: "signing key", id: kid }
    }

    /// The gateways' account at a certificate authority, by its directory.
    pub fn acme_account(directory: &'a str) -> Self {
        Self { purpose: "acme account", id: directory }
    }

    /// The private key of the certificate for a name.
    pub fn certificate_key(name: &'a str) -> Self {
        Self { purpose: "certificate key", id: name }
    }

    /// The private key of the certificate that is being ordered for a name.
    pub fn order_key(name: &'a str) -> Self {
        Self { purpose: "order key", id: name }
    }

    fn name(&self) -> String {
        format!("{} {}", self.purpose, self.id).trim_end().to_owned()
    }

    fn associated(&self) -> Vec<u8> {
        [self.purpose.as_bytes(), &[0], self.id.as_bytes()].concat()
    }
}

/// The form of wrapped values: this number, the beginning of the master key's fingerprint, a nonce, what is sealed.
const VERSION: u8 = 1;
const MARK: usize = 8;
const HEADER: usize = 1 + MARK + NONCE_LEN;

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// A master key: it wraps, and nothing else.
pub struct MasterKey {
    wrapping: LessSafeKey,
    fingerprint: [u8; 32],
    random: Arc<dyn Random>,
}

impl MasterKey {
    /// Derives the keys by HKDF (RFC 5869), one for each purpose.
    pub fn new(secret: &Secret, random: Arc<dyn Random>) -> Self {
        let prk = Salt::new(HKDF_SHA256, b"authgate master key v1").extract(secret.expose().as_bytes());
        let wrapping: Zeroizing<[u8; 32]> = derive(&prk, b"wrap");
        let unbound = UnboundKey::new(&AES_256_GCM, wrapping.as_ref());
        Self {
            wrapping: LessSafeKey::new(unbound.expect("32 bytes are a key for AES-256")),
            fingerprint: *derive(&prk, b"fingerprint"),
            random,
        }
    }

    /// What the store keeps to know the master key again; tells nothing of it.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }

    fn mark(&self) -> &[u8] {
        &self.fingerprint[..MARK]
    }

    /// Wraps a value, bound to what it is.
    ///
    /// # Errors
    /// Only when the value is too long to be a key.
    pub fn wrap(&self, what: Wrapped<'_>, plain: &[u8]) -> Result<Vec<u8>, MasterError> {
        let nonce: [u8; NONCE_LEN] = self.random.bytes();
        let mut sealed = Zeroizing::new(plain.to_vec());
        let aad = Aad::from(what.associated());
        self.wrapping
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut *sealed)
            .map_err(|_| MasterError::Altered(what.name()))?;
        Ok([&[VERSION], self.mark(), &nonce, &sealed].concat())
    }

    /// Whether this one has wrapped a value, by what that says of itself.
    fn has_wrapped(&self, wrapped: &[u8]) -> bool {
        wrapped.first() == Some(&VERSION) && wrapped.get(1..=MARK) == Some(self.mark())
    }

    fn unwrap(&self, what: Wrapped<'_>, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, MasterError> {
        let failed = || MasterError::Altered(what.name());
        let (header, sealed) = wrapped.split_at_checked(HEADER).ok_or_else(failed)?;
        let nonce = Nonce::try_assume_unique_for_key(&header[1 + MARK..]).map_err(|_| failed())?;
        let mut opened = Zeroizing::new(sealed.to_vec());
        let aad = Aad::from(what.associated());
        let length = self.wrapping.open_in_place(nonce, aad, &mut opened).map_err(|_| failed())?.len();
        opened.truncate(length);
        Ok(opened)
    }
}

/// The master keys that are accepted: the one that is wanted and, while it takes over, the one before.
pub struct MasterKeys {
    wanted: MasterKey,
    previous: Option<MasterKey>,
}

impl MasterKeys {
    /// One, or two of them.
    pub fn new(wanted: MasterKey, previous: Option<MasterKey>) -> Self {
        Self { wanted, previous }
    }

    /// The one that values are to be wrapped with in the end.
    pub fn wanted(&self) -> &MasterKey {
        &self.wanted
    }

    /// The one with this fingerprint.
    pub fn with_fingerprint(&self, fingerprint: &[u8]) -> Option<&MasterKey> {
        self.all().find(|key| key.fingerprint == *fingerprint)
    }

    /// Whether one of them has wrapped a value, by what that says of itself.
    pub fn can_unwrap(&self, wrapped: &[u8]) -> bool {
        self.all().any(|key| key.has_wrapped(wrapped))
    }

    /// Unwraps a value, whichever has wrapped it.
    ///
    /// # Errors
    /// When none of them has, or when it was wrapped for something else or altered.
    pub fn unwrap(&self, what: Wrapped<'_>, wrapped: &[u8]) -> Result<Zeroizing<Vec<u8>>, MasterError> {
        let key = self.all().find(|key| key.has_wrapped(wrapped));
        key.ok_or_else(|| MasterError::NotThere(what.name()))?.unwrap(what, wrapped)
    }

    /// Wraps a value anew with the wanted key.
    ///
    /// # Errors
    /// As [`Self::unwrap`].
    pub fn rewrap(&self, what: Wrapped<'_>, wrapped: &[u8]) -> Result<Vec<u8>, MasterError> {
        self.wanted.wrap(what, &self.unwrap(what, wrapped)?)
    }

    fn all(&self) -> impl Iterator<Item = &MasterKey> {
        std::iter::once(&self.wanted).chain(&self.previous)
    }
}

/// A key for one purpose (RFC 5869, section 2.3).
pub(super) fn derive(prk: &Prk, purpose: &[u8]) -> Zeroizing<[u8; 32]> {
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

    fn key(text: &str) -> MasterKey {
        MasterKey::new(&Secret::new(text), Arc::new(OsRandom))
    }

    #[test]
    fn a_value_opens_with_its_master_key_its_purpose_and_its_id_only() {
        let what = Wrapped::signing_key("k1");
        let wrapped = key("a").wrap(what, b"private").unwrap();
        let keys = MasterKeys::new(key("a"), None);
        assert_eq!(*keys.unwrap(what, &wrapped).unwrap(), b"private");
        assert!(keys.unwrap(Wrapped::signing_key("k2"), &wrapped).is_err());
        assert!(keys.unwrap(Wrapped { purpose: "root", id: "k1" }, &wrapped).is_err());
        assert!(keys.unwrap(what, &wrapped[..5]).is_err());
        assert!(!wrapped.windows(7).any(|window| window == b"private"));
        let other = MasterKeys::new(key("b"), None);
        assert!(matches!(other.unwrap(what, &wrapped), Err(MasterError::NotThere(_))));
    }

    #[test]
    fn while_a_master_key_takes_over_both_open_and_the_new_one_wraps() {
        let old = key("a").wrap(Wrapped::ROOT, b"root").unwrap();
        let both = MasterKeys::new(key("b"), Some(key("a")));
        assert_eq!(*both.unwrap(Wrapped::ROOT, &old).unwrap(), b"root");
        let new = both.rewrap(Wrapped::ROOT, &old).unwrap();
        assert_eq!(*MasterKeys::new(key("b"), None).unwrap(Wrapped::ROOT, &new).unwrap(), b"root");
        assert!(MasterKeys::new(key("a"), None).unwrap(Wrapped::ROOT, &new).is_err());
    }
}
