//! Identifiers of accounts, programs, sessions and signing keys, all UUIDs (RFC 9562).

use std::fmt;

use aws_lc_rs::digest;
use uuid::{Builder, Uuid};

use super::Random;

/// A user, UUIDv7: the `sub` of access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserId(Uuid);

/// A session, UUIDv4: the `sid` of access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Uuid);

/// A second factor of an account, UUIDv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FactorId(Uuid);

/// A signing key, UUIDv8: what stands for its `kid` in the revocation log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Uuid);

/// A client program that has an account, UUIDv7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientId(Uuid);

/// A subject, a session or a token of another issuer, UUIDv8: identifies the issuer and its `sub`, `sid` or `jti` in the
/// revocation log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ExternalId(Uuid);

/// The subject of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A user with an account.
    User(UserId),
    /// A client program with an account.
    Client(ClientId),
    /// A subject of another issuer.
    External(ExternalId),
}

/// The beginning of a SHA-256 as a UUIDv8.
fn hashed(text: &[u8]) -> Uuid {
    let hash = digest::digest(&digest::SHA256, text);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.as_ref()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

impl KeyId {
    /// The id of the key that tokens call `kid`.
    pub fn of(kid: &str) -> Self {
        Self(hashed(kid.as_bytes()))
    }
}

impl ExternalId {
    /// Returns the id of a subject of an issuer.
    pub fn of(issuer: &str, subject: &str) -> Self {
        // The separator occurs in no issuer, so different pairs give different texts.
        Self(hashed(format!("{issuer}\0{subject}").as_bytes()))
    }

    /// Returns the id of a session of an issuer.
    pub fn of_session(issuer: &str, session: &str) -> Self {
        Self::of("session", &format!("{issuer}\0{session}"))
    }

    /// Returns the id of all that a subject of an issuer has without a session.
    pub fn of_sessionless(issuer: &str, subject: &str) -> Self {
        Self::of("sessionless", &format!("{issuer}\0{subject}"))
    }

    /// Returns the id of a subject of an issuer as one that is shut out for a time, whenever its tokens were issued.
    pub fn of_suspended(issuer: &str, subject: &str) -> Self {
        Self::of("suspended", &format!("{issuer}\0{subject}"))
    }

    /// Returns the id of a token of an issuer.
    pub fn of_token(issuer: &str, token: &str) -> Self {
        Self::of("token", &format!("{issuer}\0{token}"))
    }
}

impl UserId {
    /// A new id for an account made at `unix_millis`.
    pub fn generate(unix_millis: i64, random: &dyn Random) -> Self {
        let millis = u64::try_from(unix_millis).unwrap_or(0);
        Self(Builder::from_unix_timestamp_millis(millis, &random.bytes()).into_uuid())
    }
}

impl ClientId {
    /// A new id for a client made at `unix_millis`.
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

impl FactorId {
    /// A new id for a factor.
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
uuid_newtype!(FactorId, 4);
uuid_newtype!(KeyId, 8);
uuid_newtype!(ClientId, 7);
uuid_newtype!(ExternalId, 8);
