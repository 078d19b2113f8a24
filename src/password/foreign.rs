//! Password hashes that other programs made.
//!
//! They are verified as they are, with costs capped, and renewed at the next login. What they hash
//! is the password as it was typed: the other programs did not normalise it.

use std::num::NonZeroU32;

use argon2::{Algorithm, Argon2, Params, Version, password_hash::phc::PasswordHash};
use aws_lc_rs::{constant_time, pbkdf2};
use thiserror::Error;

/// The most rounds of PBKDF2.
const MAX_ROUNDS: u32 = 2_000_000;
/// The most memory of scrypt, and of argon2 from elsewhere, in KiB.
const MAX_KIB: u64 = 64 << 10;
/// What our own hashes of other parameters may cost: what the config may say, in KiB and passes.
const MAX_OWN: (u64, u32) = (1 << 20, 100);
/// The highest cost of bcrypt.
const MAX_BCRYPT_COST: u32 = 14;
/// The most lanes of scrypt and argon2, and passes of argon2.
const MAX_LANES: u32 = 16;

/// Why a hash cannot be used. The text never quotes it.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum ForeignHashError {
    /// No scheme that is known here.
    #[error("the hash is of no known scheme (Werkzeug pbkdf2 and scrypt, bcrypt, argon2)")]
    Unknown,
    /// It is cut off, or not what its scheme says.
    #[error("the hash is damaged or incomplete")]
    Damaged,
    /// It would cost more than a login may.
    #[error("the hash costs more than is allowed (pbkdf2 2M rounds, scrypt and argon2 64 MiB, bcrypt 14)")]
    TooCostly,
}

/// A hash of another program.
pub struct ForeignHash {
    scheme: String,
    kind: Kind,
}

enum Kind {
    /// Werkzeug's `pbkdf2:sha256:600000$salt$hex`.
    Pbkdf2 { algorithm: pbkdf2::Algorithm, rounds: NonZeroU32, salt: String, expected: Vec<u8> },
    /// Werkzeug's `scrypt:32768:8:1$salt$hex`.
    Scrypt { params: scrypt::Params, salt: String, expected: Vec<u8> },
    /// `$2b$12$…`.
    Bcrypt(String),
    /// A PHC string (argon2-cffi, libsodium).
    Argon2(Box<PasswordHash>),
}

impl ForeignHash {
    /// Reads a hash that another program made.
    ///
    /// # Errors
    /// [`ForeignHashError`].
    pub fn parse(text: &str) -> Result<Self, ForeignHashError> {
        Self::parse_within(text, (MAX_KIB, MAX_LANES))
    }

    /// Reads a stored hash, which may be one of our own from before the config was changed.
    ///
    /// # Errors
    /// [`ForeignHashError`].
    pub(super) fn parse_stored(text: &str) -> Result<Self, ForeignHashError> {
        Self::parse_within(text, MAX_OWN)
    }

    fn parse_within(text: &str, argon2_caps: (u64, u32)) -> Result<Self, ForeignHashError> {
        if text.starts_with("$argon2") {
            return argon2(text, argon2_caps);
        }
        if ["$2a$", "$2b$", "$2y$", "$2x$"].iter().any(|prefix| text.starts_with(prefix)) {
            return bcrypt(text);
        }
        match text.split_once(':') {
            Some(("pbkdf2", rest)) => pbkdf2(rest),
            Some(("scrypt", rest)) => scrypt(rest),
            _ => Err(ForeignHashError::Unknown),
        }
    }

    /// Scheme and cost: equal for hashes that cost the same.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// A hash of that scheme and cost that no password has, to learn what verifying costs.
    pub(super) fn specimen(scheme: &str) -> Option<Self> {
        let salt = "c3BlY2ltZW5zcGVjaW1lbg";
        let text = match scheme.split([':', '$']).next()? {
            "pbkdf2" => {
                let (_, length) = digest(scheme.split(':').nth(1)?)?;
                format!("{scheme}$specimen${}", "00".repeat(length))
            }
            "scrypt" => format!("{scheme}$specimen${}", "00".repeat(64)),
            _ if scheme.starts_with("$2") => format!("{scheme}${}", ".".repeat(53)),
            _ => format!("{scheme}${salt}${}", "A".repeat(43)),
        };
        Self::parse_stored(&text).ok()
    }

    /// Whether it can be one of our own: those alone are of the normalised password.
    pub(super) fn may_be_own(&self) -> bool {
        self.scheme.starts_with("$argon2id$v=19$")
    }

    /// Whether it is the hash of `password`.
    pub(super) fn verify(&self, password: &[u8]) -> bool {
        match &self.kind {
            Kind::Pbkdf2 { algorithm, rounds, salt, expected } => {
                pbkdf2::verify(*algorithm, *rounds, salt.as_bytes(), password, expected).is_ok()
            }
            Kind::Scrypt { params, salt, expected } => {
                let mut output = vec![0; expected.len()];
                scrypt::scrypt(password, salt.as_bytes(), params, &mut output).is_ok()
                    && constant_time::verify_slices_are_equal(&output, expected).is_ok()
            }
            // Bytes after the 72nd do not count: that is what made the hash, too.
            Kind::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Kind::Argon2(hash) => verify_argon2(hash, password).unwrap_or(false),
        }
    }
}

fn hex(text: &str) -> Result<Vec<u8>, ForeignHashError> {
    let digit = |byte: u8| (byte as char).to_digit(16).map(|digit| digit as u8);
    if text.is_empty() || !text.len().is_multiple_of(2) || text.len() > 256 {
        return Err(ForeignHashError::Damaged);
    }
    text.as_bytes()
        .chunks(2)
        .map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?))
        .collect::<Option<_>>()
        .ok_or(ForeignHashError::Damaged)
}

/// Salt and hash of Werkzeug's form.
fn salt_and_hash(rest: &str) -> Result<(String, Vec<u8>), ForeignHashError> {
    let (salt, hash) = rest.split_once('$').ok_or(ForeignHashError::Damaged)?;
    if salt.is_empty() || salt.len() > 256 {
        return Err(ForeignHashError::Damaged);
    }
    Ok((salt.to_owned(), hex(hash)?))
}

/// A digest by Werkzeug's name, and its length in bytes.
fn digest(name: &str) -> Option<(pbkdf2::Algorithm, usize)> {
    Some(match name {
        "sha1" => (pbkdf2::PBKDF2_HMAC_SHA1, 20),
        "sha256" => (pbkdf2::PBKDF2_HMAC_SHA256, 32),
        "sha384" => (pbkdf2::PBKDF2_HMAC_SHA384, 48),
        "sha512" => (pbkdf2::PBKDF2_HMAC_SHA512, 64),
        _ => return None,
    })
}

fn pbkdf2(rest: &str) -> Result<ForeignHash, ForeignHashError> {
    let (method, rest) = rest.split_once('$').ok_or(ForeignHashError::Damaged)?;
    let (digest, rounds) = method.split_once(':').ok_or(ForeignHashError::Damaged)?;
    let (algorithm, length) = self::digest(digest).ok_or(ForeignHashError::Unknown)?;
    let rounds: NonZeroU32 = rounds.parse().map_err(|_| ForeignHashError::Damaged)?;
    if rounds.get() > MAX_ROUNDS {
        return Err(ForeignHashError::TooCostly);
    }
    let (salt, expected) = salt_and_hash(rest)?;
    if expected.len() != length {
        return Err(ForeignHashError::Damaged);
    }
    let scheme = format!("pbkdf2:{digest}:{rounds}");
    Ok(ForeignHash { scheme, kind: Kind::Pbkdf2 { algorithm, rounds, salt, expected } })
}

fn scrypt(rest: &str) -> Result<ForeignHash, ForeignHashError> {
    let (costs, rest) = rest.split_once('$').ok_or(ForeignHashError::Damaged)?;
    let costs: Vec<u32> =
        costs.split(':').map(str::parse).collect::<Result<_, _>>().map_err(|_| ForeignHashError::Damaged)?;
    let &[n, r, p] = costs.as_slice() else { return Err(ForeignHashError::Damaged) };
    if !n.is_power_of_two() || n < 2 || r == 0 || p == 0 {
        return Err(ForeignHashError::Damaged);
    }
    // 128 · N · r bytes (RFC 7914, section 2).
    if u64::from(n) * u64::from(r) / 8 > MAX_KIB || p > MAX_LANES {
        return Err(ForeignHashError::TooCostly);
    }
    let (salt, expected) = salt_and_hash(rest)?;
    if expected.len() < 16 {
        return Err(ForeignHashError::Damaged);
    }
    let log_n = n.trailing_zeros() as u8;
    let params = scrypt::Params::new(log_n, r, p).map_err(|_| ForeignHashError::Damaged)?;
    Ok(ForeignHash { scheme: format!("scrypt:{n}:{r}:{p}"), kind: Kind::Scrypt { params, salt, expected } })
}

fn bcrypt(text: &str) -> Result<ForeignHash, ForeignHashError> {
    let parts: bcrypt::HashParts = text.parse().map_err(|_| ForeignHashError::Damaged)?;
    match parts.get_cost() {
        4..=MAX_BCRYPT_COST => {
            Ok(ForeignHash { scheme: text[..6].to_owned(), kind: Kind::Bcrypt(text.to_owned()) })
        }
        _ => Err(ForeignHashError::TooCostly),
    }
}

fn argon2(text: &str, (max_kib, max_passes): (u64, u32)) -> Result<ForeignHash, ForeignHashError> {
    let hash = PasswordHash::new(text).map_err(|_| ForeignHashError::Damaged)?;
    Algorithm::try_from(hash.algorithm.as_str()).map_err(|_| ForeignHashError::Unknown)?;
    let params = Params::try_from(&hash).map_err(|_| ForeignHashError::Damaged)?;
    if hash.salt.is_none() || hash.hash.is_none() {
        return Err(ForeignHashError::Damaged);
    }
    let costly =
        u64::from(params.m_cost()) > max_kib || params.t_cost() > max_passes || params.p_cost() > MAX_LANES;
    if costly {
        return Err(ForeignHashError::TooCostly);
    }
    // `$argon2id$v=19$m=…,t=…,p=…`, without salt and hash.
    let end = text.match_indices('$').map(|(at, _)| at).rev().nth(1).unwrap_or(text.len());
    Ok(ForeignHash { scheme: text[..end].to_owned(), kind: Kind::Argon2(Box::new(hash)) })
}

fn verify_argon2(hash: &PasswordHash, password: &[u8]) -> Option<bool> {
    let algorithm = Algorithm::try_from(hash.algorithm.as_str()).ok()?;
    let version = match hash.version {
        Some(version) => Version::try_from(version).ok()?,
        None => Version::V0x10,
    };
    let params = Params::try_from(hash).ok()?;
    let (salt, expected) = (hash.salt.as_ref()?, hash.hash.as_ref()?);
    let mut output = vec![0; expected.as_bytes().len()];
    Argon2::new(algorithm, version, params).hash_password_into(password, salt.as_ref(), &mut output).ok()?;
    Some(constant_time::verify_slices_are_equal(&output, expected.as_bytes()).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by Werkzeug 3.1.9, bcrypt 5.0.0 and argon2-cffi 25.1.0 of `a password for the tests`.
    const HASHES: &[(&str, &str)] = &[
        (
            "pbkdf2:sha256:1000$n2yKFw5eBdgztk64$67098cd174795ac5faffbb7091a100c27ecf8685803646202b7033bcece9a5f1",
            "pbkdf2:sha256:1000",
        ),
        ("pbkdf2:sha1:1000$yipbxPrOOxGwpYvD$cf55ed70faa8da6ccc7f9ed93e8326770d8e468c", "pbkdf2:sha1:1000"),
        (
            "scrypt:1024:8:1$zMCmcN1AfiASXbgF$40fd135d853c45c79d5951aa29f6b5bcc182113a91d4e681f3f78d2bfecdc879373215b6e8886d42c6b84bddfb0b30e7b4e26e977f1d823b84437d75a3d3b1f1",
            "scrypt:1024:8:1",
        ),
        ("$2b$04$vsBx34Ny3ynwJLX4NjaTn.HsNg4JZiF1EK52kh0NKCTqdBymz2eZS", "$2b$04"),
        (
            "$argon2id$v=19$m=1024,t=2,p=2$uSHL6qmn4zMwT6iUjvljxA$Gaqx/RvBs4WmgPCVc5qXw46JXC/DijoKKHhZbVPwRS0",
            "$argon2id$v=19$m=1024,t=2,p=2",
        ),
    ];

    #[test]
    fn hashes_of_other_programs_verify() {
        for (hash, scheme) in HASHES {
            let parsed = ForeignHash::parse(hash).unwrap();
            assert_eq!(parsed.scheme(), *scheme);
            assert!(parsed.verify(b"a password for the tests"), "{scheme}");
            assert!(!parsed.verify(b"a password for the test"), "{scheme}");
            let specimen = ForeignHash::specimen(scheme).unwrap();
            assert_eq!(specimen.scheme(), *scheme);
            assert!(!specimen.verify(b"a password for the tests"), "{scheme}");
        }
    }

    #[test]
    fn hashes_that_cost_too_much_or_are_damaged_are_refused() {
        let hex = "00".repeat(32);
        for (hash, error) in [
            (format!("pbkdf2:sha256:2000001$salt${hex}"), ForeignHashError::TooCostly),
            (format!("scrypt:1048576:8:1$salt${hex}"), ForeignHashError::TooCostly),
            (format!("scrypt:32768:8:99$salt${hex}"), ForeignHashError::TooCostly),
            (format!("$2b$15${}", ".".repeat(53)), ForeignHashError::TooCostly),
            ("$argon2id$v=19$m=1048576,t=2,p=1$c29tZXNhbHQ$AAAA".to_owned(), ForeignHashError::Damaged),
            (
                format!("$argon2id$v=19$m=1048576,t=2,p=1$c29tZXNhbHQ${}", "A".repeat(43)),
                ForeignHashError::TooCostly,
            ),
            (format!("pbkdf2:sha256:0$salt${hex}"), ForeignHashError::Damaged),
            ("pbkdf2:sha256:1000$salt$00".to_owned(), ForeignHashError::Damaged),
            (format!("pbkdf2:md5:1000$salt${hex}"), ForeignHashError::Unknown),
            (format!("sha256$salt${hex}"), ForeignHashError::Unknown),
            ("plain text".to_owned(), ForeignHashError::Unknown),
            (String::new(), ForeignHashError::Unknown),
        ] {
            assert_eq!(ForeignHash::parse(&hash).err(), Some(error), "{hash}");
        }
    }
}
