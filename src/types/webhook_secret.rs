//! Secrets by which receivers of webhooks know who has sent them (Standard Webhooks, section "Signature scheme").

use std::fmt;

use aws_lc_rs::hmac;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use zeroize::Zeroizing;

/// What a secret begins with, as it is written.
const PREFIX: &str = "whsec_";

/// The least and the most bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 24..=64;

/// A secret that is shared with a receiver. Prints as `***`.
#[derive(Clone)]
pub struct WebhookSecret(hmac::Key);

impl WebhookSecret {
    /// Reads a secret: 24 to 64 bytes in Base64, with `whsec_` before them or without.
    pub fn parse(text: &str) -> Option<Self> {
        let encoded = text.strip_prefix(PREFIX).unwrap_or(text);
        let decoded = STANDARD.decode(encoded).or_else(|_| STANDARD_NO_PAD.decode(encoded));
        let bytes = Zeroizing::new(decoded.ok()?);
        LENGTHS.contains(&bytes.len()).then(|| Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// Returns the value of `webhook-signature` for a message that is sent at `timestamp`, in Unix seconds.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        context.update(format!("{id}.{timestamp}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_signed_as_the_standard_has_it() {
        // Made by Python's hmac of the same key and text.
        let secret = WebhookSecret::parse("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3").unwrap();
        let signed = secret.sign("evt_1", 1_700_000_000, br#"{"type":"user.created"}"#);
        assert_eq!(signed, "v1,9OVP2P1Nf1sq4ieZjr+uvDM4VK3wsVTp+zvvUdTeiFU=");
        assert_eq!(format!("{secret:?}"), "***");
    }

    #[test]
    fn a_secret_has_24_to_64_bytes() {
        let of = |bytes: usize| WebhookSecret::parse(&STANDARD.encode(vec![b'a'; bytes])).is_some();
        assert!(!of(23) && of(24) && of(64) && !of(65));
        assert!(WebhookSecret::parse("whsec_not base64 at all, but long enough").is_none());
    }
}
