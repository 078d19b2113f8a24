//! Who is calling, with the header values that tell an upstream so.

use std::{
    fmt::Write,
    sync::{Arc, atomic::AtomicBool},
};

use http::HeaderValue;

use crate::types::{KeyId, Roles, SessionId, UserId, Username};

/// A caller whose token was verified. The header values are made once, when the token is first
/// seen, and shared by every request that it is used for.
#[derive(Debug)]
pub struct Identity {
    /// The user.
    pub user: UserId,
    /// The session that the token belongs to.
    pub session: SessionId,
    /// The user's generation when the token was issued.
    pub generation: i64,
    /// When the token expires, in Unix seconds.
    pub expires_at: i64,
    /// The user's canonical name.
    pub name: Username,
    /// The user's roles.
    pub roles: Roles,
    /// The id for an upstream.
    pub id_value: HeaderValue,
    /// The name for an upstream, percent-encoded where it is not plain ASCII.
    pub name_value: HeaderValue,
    /// The roles for an upstream, sorted and joined with commas.
    pub roles_value: HeaderValue,
    /// The id that an imported user had before, for an upstream.
    pub external_id_value: Option<HeaderValue>,
    /// The key that signed the token.
    pub key: KeyId,
    pub(super) key_in_use: Arc<AtomicBool>,
}

impl Identity {
    pub(super) fn new(
        (user, session, generation): (UserId, SessionId, i64),
        expires_at: i64,
        (name, external_id): (Username, Option<String>),
        roles: Roles,
        (key, key_in_use): (KeyId, Arc<AtomicBool>),
    ) -> Option<Self> {
        Some(Self {
            id_value: HeaderValue::try_from(user.to_string()).ok()?,
            name_value: HeaderValue::try_from(encode(name.as_str())).ok()?,
            roles_value: HeaderValue::try_from(roles.to_string()).ok()?,
            external_id_value: match external_id {
                Some(id) => Some(HeaderValue::try_from(encode(&id)).ok()?),
                None => None,
            },
            user,
            session,
            generation,
            expires_at,
            name,
            roles,
            key,
            key_in_use,
        })
    }
}

/// Percent-encodes `%`, control characters and everything beyond ASCII, by UTF-8 bytes.
fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if (0x21..0x7f).contains(&byte) && byte != b'%' {
            encoded.push(byte as char);
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn names_beyond_ascii_are_percent_encoded() {
        assert_eq!(encode("alice"), "alice");
        assert_eq!(encode("j\u{f6}rg%1"), "j%C3%B6rg%251");
        assert_eq!(encode("a\r\nb c"), "a%0D%0Ab%20c");
    }
}
