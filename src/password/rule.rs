//! Which passwords are accepted.

use thiserror::Error;
use zxcvbn::matching::patterns::MatchPattern;

use crate::types::{Secret, precis};

/// Anything longer is refused before it costs anything.
pub const MAX_PASSWORD_BYTES: usize = 1_024;

/// Why a password is not accepted, in words for the person who chose it.
#[derive(Debug, Error, PartialEq, Eq, Clone)]
pub enum PasswordError {
    /// Under the least number of characters.
    #[error("a password has at least {0} characters")]
    TooShort(usize),
    /// Over [`MAX_PASSWORD_BYTES`].
    #[error("a password has at most 1024 bytes")]
    TooLong,
    /// One of those that are tried first.
    #[error("this password is among the most common ones")]
    Common,
    /// One of those that were stolen somewhere.
    #[error("this password is known from a theft of passwords")]
    Breached,
    /// The same as the name.
    #[error("the password must not be the username")]
    IsUsername,
    /// It holds control characters or what nobody sees.
    #[error("a password must not hold control characters")]
    NotAllowed,
}

/// The rules for new passwords.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Least number of characters.
    pub min_length: usize,
}

impl Rules {
    /// Brings a password into the form that is hashed: PRECIS `OpaqueString` (RFC 8265, section 4.2),
    /// so that two keyboards' ways to write one character are one password. What a new one may not hold is no matter
    /// here: an imported one may.
    ///
    /// # Errors
    /// When it is too long.
    pub fn prepare(password: &Secret) -> Result<Secret, PasswordError> {
        if password.expose().len() > MAX_PASSWORD_BYTES {
            return Err(PasswordError::TooLong);
        }
        Ok(Secret::new(precis::opaque(password.expose())))
    }

    /// Checks a prepared new password of the account `username` by what costs nothing. Whether it is a common or a stolen
    /// one is for the password workers to find out.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, password: &Secret, username: &str) -> Result<(), PasswordError> {
        let text = password.expose();
        if text.chars().count() < self.min_length {
            return Err(PasswordError::TooShort(self.min_length));
        }
        if !precis::is_opaque(text) {
            return Err(PasswordError::NotAllowed);
        }
        if text.to_lowercase() == username {
            return Err(PasswordError::IsUsername);
        }
        Ok(())
    }
}

/// The longest entry of the list of common passwords, in characters.
const LONGEST_COMMON: usize = 20;

/// Whether the whole of `text` is a known password, its case, reversal and letter swaps aside.
///
/// The library tries every reading of every sign that could stand for a letter, which takes a tenth of a second
/// where there are many. So it is asked twice for what can be read in few ways: with the signs taken for letters, and
/// with the digits, too.
pub(super) fn is_common(text: &str) -> bool {
    if text.chars().count() > LONGEST_COMMON {
        return false;
    }
    let letters = |fold_digits: bool| -> String {
        let folded = text.chars().map(|c| match c {
            '@' => 'a',
            '(' | '{' | '[' | '<' => 'c',
            '!' | '|' => 'i',
            '$' => 's',
            '+' => 't',
            '%' => 'x',
            '4' if fold_digits => 'a',
            '8' if fold_digits => 'b',
            '3' if fold_digits => 'e',
            '6' | '9' if fold_digits => 'g',
            '1' if fold_digits => 'i',
            '0' if fold_digits => 'o',
            '5' if fold_digits => 's',
            '7' if fold_digits => 't',
            '2' if fold_digits => 'z',
            other => other,
        });
        folded.collect()
    };
    [letters(false), letters(true)].iter().any(|text| is_listed(text))
}

fn is_listed(text: &str) -> bool {
    let estimate = zxcvbn::zxcvbn(text, &[]);
    match estimate.sequence() {
        [only] => match &only.pattern {
            // The library does not export the type of this name.
            MatchPattern::Dictionary(found) => format!("{:?}", found.dictionary_name) == "Passwords",
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { min_length: 8 };

    fn check(text: &str) -> Result<(), PasswordError> {
        let prepared = Rules::prepare(&Secret::new(text))?;
        RULES.check(&prepared, "alice-anderson")?;
        if is_common(prepared.expose()) { Err(PasswordError::Common) } else { Ok(()) }
    }

    #[test]
    fn well_known_passwords_are_refused_in_any_case() {
        for text in
            ["password", "PassWord", "iloveyou", "p4ssw0rd", "p@$$w0rd", "1234567890", "drowssap", "!lovey0u"]
        {
            assert_eq!(check(text), Err(PasswordError::Common), "{text}");
        }
    }

    #[test]
    fn ordinary_long_passwords_pass() {
        for text in [
            "correct horse battery staple",
            "a long enough password",
            "xxxxxxxxxxxxxxxxxxxx",
            &"y".repeat(1024),
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn limits_are_on_characters_below_and_on_bytes_above() {
        assert_eq!(check("äöüäöüä"), Err(PasswordError::TooShort(8)));
        assert_eq!(check(&"x".repeat(1025)), Err(PasswordError::TooLong));
        assert_eq!(check("Alice-Anderson"), Err(PasswordError::IsUsername));
        assert_eq!(check("with\u{7}a bell in it"), Err(PasswordError::NotAllowed));
    }

    #[test]
    fn two_ways_to_write_a_character_are_one_password() {
        let composed = Rules::prepare(&Secret::new("caf\u{e9} au lait, s'il vous plait")).unwrap();
        let decomposed = Rules::prepare(&Secret::new("cafe\u{301} au lait, s'il vous plait")).unwrap();
        assert_eq!(composed.expose(), decomposed.expose());
    }
}
