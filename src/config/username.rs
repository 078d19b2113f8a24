//! Which names strangers may take.

use std::collections::HashSet;

use regex::Regex;

use crate::types::{Username, UsernameError};

/// Letters and digits of any script, and the marks that stand with them; no name that could be read as an address or a
/// URL.
const PATTERN: &str = r"[\p{L}\p{M}\p{Nd}._-]+";

/// The rules for names that people choose. Those that an operator gives may go beyond them.
#[derive(Debug, Clone)]
pub struct UsernameRules {
    pub(super) pattern: Regex,
    pub(super) min_length: usize,
    pub(super) max_length: usize,
    /// Skeletons, so that look-alikes are reserved, too.
    pub(super) reserved: HashSet<String>,
}

impl UsernameRules {
    /// Names that only an operator can assign, because they look official.
    pub(super) const RESERVED: &'static [&'static str] = &[
        "abuse",
        "admin",
        "administrator",
        "authgate",
        "daemon",
        "hostmaster",
        "no-reply",
        "noreply",
        "postmaster",
        "root",
        "security",
        "superuser",
        "sysadmin",
        "system",
        "webmaster",
    ];

    /// The pattern where the config has none.
    pub(super) fn default_pattern() -> Regex {
        Self::whole(PATTERN).expect("a constant that a test compiles")
    }

    /// A pattern that has to match a whole name.
    ///
    /// # Errors
    /// The problem.
    pub(super) fn whole(pattern: &str) -> Result<Regex, String> {
        Regex::new(&format!("^(?:{pattern})$")).map_err(|error| error.to_string())
    }

    /// The greatest number of characters.
    pub fn max_length(&self) -> usize {
        self.max_length
    }

    /// Checks a requested name.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self, name: &Username) -> Result<(), UsernameError> {
        let length = name.as_str().chars().count();
        if length < self.min_length {
            return Err(UsernameError::TooShort(self.min_length));
        }
        if length > self.max_length {
            return Err(UsernameError::OverLimit(self.max_length));
        }
        if !self.pattern.is_match(name.as_str()) {
            return Err(UsernameError::Pattern);
        }
        if self.reserved.contains(&name.skeleton()) {
            return Err(UsernameError::Reserved);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> UsernameRules {
        let reserved = UsernameRules::RESERVED.iter().map(|name| Username::new(name).unwrap().skeleton());
        UsernameRules {
            pattern: UsernameRules::default_pattern(),
            min_length: 1,
            max_length: 64,
            reserved: reserved.collect(),
        }
    }

    fn check(name: &str) -> Result<(), UsernameError> {
        rules().check(&Username::new(name)?)
    }

    #[test]
    fn names_are_names_and_nothing_that_could_be_taken_for_something_else() {
        for name in ["alice", "bob.the-builder_2", "jos\u{e9}", "\u{5d0}\u{5d1}", "\u{5f20}\u{4f1f}"] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
        for name in
            ["ceo@corp.example", "https://corp.example", "a/b", "a:b", "a+b", "a,b", "a%b", "a\u{1f600}"]
        {
            assert!(check(name).is_err(), "{name}");
        }
        for name in ["admin", "Root", "\u{430}dmin", "SYSTEM", "r\u{43e}ot"] {
            assert_eq!(check(name), Err(UsernameError::Reserved), "{name}");
        }
    }
}
