//! The secret that all secrets but the private keys are derived from. It lies in the store, wrapped: the master key can
//! be another while refresh tokens, and links in mails, go on.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{
    hkdf::{HKDF_SHA256, Prk, Salt},
    hmac,
};
use zeroize::Zeroizing;

use super::{DeviceTokens, FactorKeys, MailTokens, RefreshTokens, Tickets, master::derive};
use crate::types::{Pseudonyms, Random};

/// The length of the secret, in bytes.
const LENGTH: usize = 32;

/// The secret, ready for use.
pub struct RootSecret {
    prk: Prk,
    random: Arc<dyn Random>,
}

impl RootSecret {
    /// A fresh one, to be wrapped and stored.
    pub fn generate(random: &dyn Random) -> Zeroizing<[u8; LENGTH]> {
        Zeroizing::new(random.bytes())
    }

    /// The one that was stored.
    pub fn new(secret: &[u8], random: Arc<dyn Random>) -> Self {
        Self { prk: Salt::new(HKDF_SHA256, b"authgate root secret v1").extract(secret), random }
    }

    fn key(&self, purpose: &[u8]) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, derive(&self.prk, purpose).as_ref())
    }

    /// The maker of refresh tokens.
    pub fn refresh_tokens(&self) -> RefreshTokens {
        RefreshTokens::new(self.key(b"refresh tokens"), self.random.clone())
    }

    /// The maker of tokens that travel by mail.
    pub fn mail_tokens(&self) -> MailTokens {
        MailTokens::new(self.key(b"mail tokens"))
    }

    /// The maker of tokens by which a device is known again.
    pub fn device_tokens(&self) -> DeviceTokens {
        DeviceTokens::new(self.key(b"device tokens"), DeviceTokens::TTL, self.random.clone())
    }

    /// The maker of tokens by which a device is known again where a second factor was shown, for so long.
    pub fn remembered_devices(&self, ttl: Duration) -> DeviceTokens {
        DeviceTokens::new(self.key(b"remembered devices"), ttl, self.random.clone())
    }

    /// The maker of secrets of second factors.
    pub fn factor_keys(&self) -> FactorKeys {
        FactorKeys::new(self.key(b"factors"))
    }

    /// The maker of tickets for sign-in by providers.
    pub fn tickets(&self) -> Tickets {
        Tickets::new(self.key(b"tickets"))
    }

    /// The key of the tokens in forms.
    pub fn form_key(&self) -> hmac::Key {
        self.key(b"form tokens")
    }

    /// The maker of pseudonyms of accounts that are gone.
    pub fn pseudonyms(&self) -> Pseudonyms {
        Pseudonyms::new(self.key(b"pseudonyms"))
    }
}
