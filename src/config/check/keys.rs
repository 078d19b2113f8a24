//! Keys and secrets: `auth.master_key`, `auth.signing`.

use super::Check;
use crate::{
    config::{MasterKeySource, Signing, Store, StoreLocation, raw},
    types::Secret,
};

impl Check<'_> {
    /// Beside the database, or the config.
    pub(super) fn default_master_key(&self, store: &Store) -> MasterKeySource {
        MasterKeySource::File(match &store.location {
            StoreLocation::Sqlite(path) => path.with_file_name("master.key"),
            StoreLocation::Postgres(_) => self.document.folder.join("master.key"),
        })
    }

    pub(super) fn master_key(
        &mut self,
        key: &str,
        given: Option<Secret>,
        file: Option<String>,
    ) -> Option<MasterKeySource> {
        if given.is_some() && file.is_some() {
            self.error(&format!("{key}_file"), "is given twice, here and in the line without `_file`");
        }
        match (given, file) {
            (Some(given), _) => {
                self.secret_key(key, &given);
                Some(MasterKeySource::Given(given))
            }
            (None, Some(file)) => Some(MasterKeySource::File(self.document.folder.join(file))),
            (None, None) => None,
        }
    }

    pub(super) fn signing(&mut self, raw: raw::Signing) -> Signing {
        if raw.algorithm == raw::Algorithm::HS256 {
            let Some(secret) = raw.secret else {
                self.error("auth.signing", "HS256 needs `secret`, 32 bytes or more");
                return Signing::KeyPair(raw::Algorithm::EdDSA);
            };
            self.secret_key("auth.signing.secret", &secret);
            if let Some(previous) = &raw.previous_secret {
                self.secret_key("auth.signing.previous_secret", previous);
                if previous.expose() == secret.expose() {
                    self.error("auth.signing.previous_secret", "is the same as `secret`");
                }
            }
            self.warnings.push(
                "auth.signing: with HS256 every holder of the secret can make an admin's token; EdDSA keeps the key here"
                    .to_owned(),
            );
            return Signing::Shared { secret, previous: raw.previous_secret };
        }
        for (key, secret) in
            [("auth.signing.secret", &raw.secret), ("auth.signing.previous_secret", &raw.previous_secret)]
        {
            if secret.is_some() {
                self.error(
                    key,
                    "is for HS256 only; the keys of EdDSA and ES256 are made and kept in the store",
                );
            }
        }
        Signing::KeyPair(raw.algorithm)
    }

    fn secret_key(&mut self, key: &str, secret: &Secret) {
        if secret.expose().len() < 32 {
            self.error(key, "expected 32 bytes or more, for example from `openssl rand -base64 32`");
        } else if is_published(secret.expose()) || is_guessable(secret.expose()) {
            self.error(key, "is a default or placeholder that anyone can look up; make your own, for example with `openssl rand -base64 32`");
        }
    }
}

/// Whether a key is one that projects ship as their default, or a placeholder meant to be replaced.
fn is_published(key: &str) -> bool {
    const MARKS: &[&str] = &[
        "changeme",
        "changethis",
        "replaceme",
        "replacethis",
        "yoursecret",
        "yourjwt",
        "yourmasterkey",
        "yourprivatekey",
        "your256bit",
        "yoursupersecret",
        "yourverysecret",
        "defaultsecret",
        "secretkeyhere",
        "supersecretkey",
        "supersecretjwt",
        "jwtsecretkey",
        "jwtsecretstring",
        "mysecretkey",
        "thisissecret",
        "thisisasecret",
        "devsecret",
        "developmentsecret",
        "flasksecret",
        "insecure",
    ];
    let plain: String =
        key.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    MARKS.iter().any(|mark| plain.contains(mark))
}

/// Whether a key is a few characters over and over, or a row of neighbours.
fn is_guessable(key: &str) -> bool {
    let bytes = key.as_bytes();
    let different: std::collections::HashSet<&u8> = bytes.iter().collect();
    let steps = bytes.windows(2).filter(|pair| pair[1].wrapping_sub(pair[0]) <= 1).count();
    let repeats = (1..=bytes.len() / 2).any(|period| bytes[period..] == bytes[..bytes.len() - period]);
    different.len() < 8 || repeats || steps * 4 > bytes.len() * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_anyone_can_look_up_are_known() {
        for key in ["your-secret-key-change-me-in-production", "CHANGE_ME_CHANGE_ME_CHANGE_ME_CHANGE_ME"] {
            assert!(is_published(key), "{key}");
        }
        assert!(!is_published("kX9vQ2mZ7rT4wB8nL1pC6dF3hJ5gS0aE"));
    }

    #[test]
    fn keys_that_can_be_guessed_are_known() {
        for key in [
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "0123456789012345678901234567890123456789",
            "abcdefghijklmnopqrstuvwxyz0123456789",
            "passwordpasswordpasswordpassword",
        ] {
            assert!(is_guessable(key), "{key}");
        }
        for key in ["kX9vQ2mZ7rT4wB8nL1pC6dF3hJ5gS0aE", "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822c"] {
            assert!(!is_guessable(key), "{key}");
        }
    }
}
