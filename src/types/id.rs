//! Identifiers of accounts, sessions and signing keys.
//!
//! Users are UUIDv7, sessions UUIDv4 and keys UUIDv8 (RFC 9562), so no two share a value: the version
//! nibble differs. The revocation mirror relies on that to keep all in one map.

use std::fmt;

use aws_lc_rs::digest;
use uuid::{Builder, Uuid};

use super::Random;

/// A user, UUIDv7: the `sub` of access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Uuid);

/// A login and what was refreshed from it, UUIDv4: the `sid` of access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Uuid);

/// A signing key, UUIDv8: what stands for its `kid` in the revocation log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Uuid);

impl KeyId {
    /// The id of the key that tokens call `kid`: the beginning of its SHA-256.
    pub fn of(kid: &str) -> Self {
        let hash = digest::digest(&digest::SHA256, kid.as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&hash.as_ref()[..16]);
        Self(Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl UserId {
    /// A new id for an account made at `unix_millis`.
    pub fn generate(unix_millis: i64, random: &dyn Random) -> Self {
        let millis = u64::try_from(unix_millis).unwrap_or(0);
        Self(Builder::from_unix_timestamp_millis(millis, &random.bytes()).into_uuid())
    }
}

impl SessionId {
    /// A new id for a session.
    pub fn generate(random: &dyn Random) -> Self {
        Self(Builder::from_random_bytes(random.bytes()).into_uuid())
    }
}

macro_rules! uuid_newtype {
    ($name:ident, $version:literal) => {
        impl $name {
            /// Takes a UUID of the right version; `None` for any other.
            pub fn from_uuid(uuid: Uuid) -> Option<Self> {
                (uuid.get_version_num() == $version).then_some(Self(uuid))
            }

            /// Reads the hyphenated form; `None` for anything else.
            pub fn parse(text: &str) -> Option<Self> {
                if text.len() != 36 {
                    return None;
                }
                Self::from_uuid(Uuid::try_parse(text).ok()?)
            }

            /// The bare UUID, as the store keeps it.
            pub fn uuid(self) -> Uuid {
                self.0
            }

            /// The id as a number: the key of the revocation mirror.
            pub fn as_u128(self) -> u128 {
                self.0.as_u128()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_newtype!(UserId, 7);
uuid_newtype!(SessionId, 4);
uuid_newtype!(KeyId, 8);
