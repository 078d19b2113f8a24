//! Roles: what a user may be allowed to do, by name.

use std::{fmt, str::FromStr};

use thiserror::Error;

/// One role: `[a-z0-9][a-z0-9_.:-]{0,63}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Role(Box<str>);

/// Text that is not a role.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("a role is 1 to 64 of a-z, 0-9, '_', '.', ':' and '-', and begins with a letter or digit")]
pub struct RoleError;

/// Texts that are not the roles of one account.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RolesError {
    /// This one is no role.
    #[error("{0}: {RoleError}")]
    Role(String),
    /// There are too many of them.
    #[error("an account has at most {} roles", Roles::MAX)]
    TooMany,
}

impl Role {
    /// The role that administers accounts.
    pub const ADMIN: &'static str = "admin";

    /// The role's name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Role {
    type Err = RoleError;

    fn from_str(text: &str) -> Result<Self, RoleError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let bytes = text.as_bytes();
        let legal = bytes.len() <= 64
            && bytes.first().copied().is_some_and(plain)
            && bytes.iter().all(|&byte| plain(byte) || b"_.:-".contains(&byte));
        legal.then(|| Self(text.into())).ok_or(RoleError)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of roles, sorted and without doubles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles(Vec<Role>);

impl Roles {
    /// How many roles one account may have: what the header and the token can carry.
    pub const MAX: usize = 32;

    /// Reads the joined form that the store keeps and upstreams receive.
    ///
    /// # Errors
    /// When any part is not a role.
    pub fn parse_joined(text: &str) -> Result<Self, RoleError> {
        text.split(',').filter(|part| !part.is_empty()).map(Role::from_str).collect()
    }

    /// Reads roles as people name them, no more than an account may have.
    ///
    /// # Errors
    /// [`RolesError`].
    pub fn parse_all(texts: &[String]) -> Result<Self, RolesError> {
        let parse = |text: &String| text.parse().map_err(|_| RolesError::Role(text.clone()));
        let roles = texts.iter().map(parse).collect::<Result<Self, _>>()?;
        if roles.len() > Self::MAX { Err(RolesError::TooMany) } else { Ok(roles) }
    }

    /// Whether `role` is in the set.
    pub fn contains(&self, role: &str) -> bool {
        self.0.iter().any(|own| own.as_str() == role)
    }

    /// The roles in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Role> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        let mut roles: Vec<Role> = roles.into_iter().collect();
        roles.sort();
        roles.dedup();
        Self(roles)
    }
}

/// Sorted and joined with `,`.
impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, role) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            f.write_str(role.as_str())?;
        }
        Ok(())
    }
}

impl serde::Serialize for Roles {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(Role::as_str))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_that_could_break_a_header_are_refused() {
        for text in ["", "Admin", "a b", "a,b", "-a", "a\r\n", "é", &"a".repeat(65)] {
            assert_eq!(text.parse::<Role>(), Err(RoleError), "{text:?}");
        }
        for text in ["a", "0", "team:read.all_x-1", &"a".repeat(64)] {
            assert!(text.parse::<Role>().is_ok(), "{text:?}");
        }
    }

    #[test]
    fn roles_are_sorted_without_doubles() {
        assert_eq!(Roles::parse_joined("b,a,b").map(|roles| roles.to_string()), Ok("a,b".into()));
    }
}
