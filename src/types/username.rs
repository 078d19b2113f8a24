//! Usernames: one spelling and one look for each account.

use std::fmt;

use thiserror::Error;

use super::{UserId, precis};

/// A name in its canonical form: PRECIS `UsernameCaseMapped` (RFC 8265, section 3.3).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Username(Box<str>);

/// Why a name is not accepted. Each text is fit for the person who chose the name.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum UsernameError {
    /// Nothing is left of it.
    #[error("a username must not be empty")]
    Empty,
    /// Longer than [`Username::MAX_CHARS`].
    #[error("a username has at most 64 characters")]
    TooLong,
    /// PRECIS refuses it, or changes it a second time.
    #[error("a username must not hold spaces, control characters or symbols that look alike in other forms")]
    NotAllowed,
    /// Shorter than the operator allows.
    #[error("a username has at least {0} characters")]
    TooShort(usize),
    /// Longer than the operator allows.
    #[error("a username has at most {0} characters")]
    OverLimit(usize),
    /// Not of the form that the operator allows.
    #[error("this username is not of the form that is accepted here")]
    Pattern,
    /// Kept for the operator.
    #[error("this username is reserved")]
    Reserved,
}

impl Username {
    /// The longest name, in characters of the canonical form.
    pub const MAX_CHARS: usize = 64;

    /// Brings a name into its canonical form.
    ///
    /// # Errors
    /// When PRECIS disallows it, or enforcing the profile twice gives two results: such a name
    /// would be one account at registration and another at login.
    pub fn new(raw: &str) -> Result<Self, UsernameError> {
        if raw.is_empty() {
            return Err(UsernameError::Empty);
        }
        // PRECIS may shrink or grow a name by a small factor, so this bounds the work only.
        if raw.len() > Self::MAX_CHARS * 8 {
            return Err(UsernameError::TooLong);
        }
        let once = precis::username(raw).map_err(|_| UsernameError::NotAllowed)?;
        let twice = precis::username(&once).map_err(|_| UsernameError::NotAllowed)?;
        if once != twice {
            return Err(UsernameError::NotAllowed);
        }
        if once.chars().count() > Self::MAX_CHARS {
            return Err(UsernameError::TooLong);
        }
        if once.chars().any(char::is_control) {
            return Err(UsernameError::NotAllowed);
        }
        Ok(Self(once.into()))
    }

    /// A name that the store has kept: it was canonical when it was written.
    pub fn from_stored(name: &str) -> Self {
        Self(name.into())
    }

    /// The canonical form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the name looks like: equal for names that a person could take for each other
    /// (Unicode UTS 39, section 4).
    pub fn skeleton(&self) -> String {
        unicode_security::confusable_detection::skeleton(&self.0).collect()
    }

    /// Returns the skeleton that is stored for a name that may be similar to another's: one of its own, so that the other's stays
    /// the one that further names are compared with.
    pub fn own_skeleton(&self, id: UserId) -> String {
        format!("{}\u{1}{id}", self.skeleton())
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_have_one_canonical_form() {
        for spelling in ["Alice", "ALICE", "alice", "\u{ff41}lice"] {
            assert_eq!(Username::new(spelling).map(|name| name.to_string()), Ok("alice".into()));
        }
        assert_eq!(Username::new("Jose\u{301}"), Username::new("JOS\u{c9}"));
    }

    #[test]
    fn look_alikes_share_a_skeleton() {
        let latin = Username::new("paypal").map(|name| name.skeleton());
        let cyrillic = Username::new("p\u{430}yp\u{430}l").map(|name| name.skeleton());
        assert_eq!(latin, cyrillic);
    }

    #[test]
    fn names_that_could_break_a_header_are_refused() {
        for name in ["", "a b", "a\r\nb", "a\0b", "\u{7f}", "a\u{202e}b", "\u{2028}"] {
            assert!(Username::new(name).is_err(), "{name:?}");
        }
        assert_eq!(Username::new(&"a".repeat(65)), Err(UsernameError::TooLong));
        assert_eq!(Username::new(&"a".repeat(100_000)), Err(UsernameError::TooLong));
    }
}
