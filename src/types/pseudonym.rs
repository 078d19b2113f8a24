//! Keyed hashes in the place of names and addresses of those who are gone.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

/// The prefix of a pseudonym.
const MARK: char = '~';

/// The length of a pseudonym in bytes: its prefix and the base64 of its hash.
const LENGTH: usize = 1 + KEPT / 3 * 4;

/// How much of the hash is kept, in bytes: enough that no two of a billion texts meet by chance.
const KEPT: usize = 15;

/// Makes pseudonyms. Equal texts have equal pseudonyms, and without the key texts cannot be guessed from them.
#[derive(Clone)]
pub struct Pseudonyms {
    key: hmac::Key,
}

impl Pseudonyms {
    /// Pseudonyms under a key.
    pub fn new(key: hmac::Key) -> Self {
        Self { key }
    }

    /// The pseudonym of a text.
    pub fn of(&self, text: &str) -> String {
        let tag = hmac::sign(&self.key, text.as_bytes());
        format!("{MARK}{}", URL_SAFE_NO_PAD.encode(&tag.as_ref()[..KEPT]))
    }

    /// The same, of a text that may be one already.
    pub fn once(&self, text: &str) -> String {
        if text.len() == LENGTH && text.starts_with(MARK) { text.to_owned() } else { self.of(text) }
    }
}

impl fmt::Debug for Pseudonyms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pseudonyms(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pseudonym_is_the_same_for_the_same_text_and_key_only() {
        let of = |key: &[u8], text| Pseudonyms::new(hmac::Key::new(hmac::HMAC_SHA256, key)).of(text);
        assert_eq!(of(b"a", "alice"), of(b"a", "alice"));
        assert_ne!(of(b"a", "alice"), of(b"a", "bob"));
        assert_ne!(of(b"a", "alice"), of(b"b", "alice"));
        let pseudonyms = Pseudonyms::new(hmac::Key::new(hmac::HMAC_SHA256, b"a"));
        assert_eq!(pseudonyms.once(&pseudonyms.once("alice")), pseudonyms.of("alice"));
    }
}
