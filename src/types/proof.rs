//! Proofs of identity.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A proof of a user's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The account's password.
    Password,
    /// A one-time code: of an authenticator app or a mail, or a recovery code.
    Code,
    /// A sign-in by a provider.
    Provider,
    /// A passkey.
    Passkey {
        /// Whether its device verified the user, by a PIN or biometrics.
        verified: bool,
    },
}

/// The proofs of a session, which tokens name in `amr` (RFC 8176, section 2).
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Proofs(u8);

const PASSWORD: u8 = 1;
const CODE: u8 = 2;
const KEY: u8 = 4;
const SEVERAL: u8 = 8;
const PROVIDER: u8 = 16;

/// `fed` is not registered: RFC 8176 has no name for a provider.
const NAMES: [(u8, &str); 5] =
    [(PASSWORD, "pwd"), (PROVIDER, "fed"), (CODE, "otp"), (KEY, "pop"), (SEVERAL, "mfa")];

impl Proofs {
    /// None.
    pub const NONE: Self = Self(0);

    /// A password alone.
    pub const PASSWORD: Self = Self(PASSWORD);

    /// Returns these and one more.
    #[must_use]
    pub const fn with(self, proof: Proof) -> Self {
        let all = self.0
            | match proof {
                Proof::Password => PASSWORD,
                Proof::Code => CODE,
                Proof::Provider => PROVIDER,
                Proof::Passkey { verified: false } => KEY,
                Proof::Passkey { verified: true } => KEY | SEVERAL,
            };
        let has_both = all & (PASSWORD | PROVIDER) != 0 && all & (CODE | KEY) != 0;
        Self(if has_both { all | SEVERAL } else { all })
    }

    /// Returns those that are among both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Returns whether there are two kinds of proof, or a passkey that verified its user.
    pub const fn is_multi_factor(self) -> bool {
        self.0 & SEVERAL != 0
    }

    /// Returns whether a provider's is among them.
    pub const fn has_provider(self) -> bool {
        self.0 & PROVIDER != 0
    }

    /// Returns whether a second factor is among them.
    pub const fn has_factor(self) -> bool {
        self.0 & (CODE | KEY) != 0
    }

    /// Parses names that are separated by spaces. Unknown names are ignored.
    pub fn parse(names: &str) -> Self {
        names.split(' ').fold(Self::NONE, Self::with_name)
    }

    fn with_name(self, name: &str) -> Self {
        let bit = NAMES.iter().find(|(_, known)| *known == name).map_or(0, |(bit, _)| *bit);
        Self(self.0 | bit)
    }

    fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().filter(move |(bit, _)| self.0 & bit != 0).map(|(_, name)| *name)
    }
}

/// The names with spaces between them.
impl fmt::Display for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, name) in self.names().enumerate() {
            f.write_str(if index > 0 { " " } else { "" })?;
            f.write_str(name)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Proofs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proofs({self})")
    }
}

impl Serialize for Proofs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.names())
    }
}

impl<'de> Deserialize<'de> for Proofs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;

        impl<'de> de::Visitor<'de> for Names {
            type Value = Proofs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names")
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut names: A) -> Result<Proofs, A::Error> {
                let mut proofs = Proofs::NONE;
                while let Some(name) = names.next_element::<&str>()? {
                    proofs = proofs.with_name(name);
                }
                Ok(proofs)
            }
        }

        deserializer.deserialize_seq(Names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_kinds_or_a_passkey_that_knows_its_user_are_several_factors() {
        let passkey = |verified| Proof::Passkey { verified };
        for (proofs, expected) in [
            (&[Proof::Password][..], "pwd"),
            (&[Proof::Password, Proof::Password], "pwd"),
            (&[Proof::Password, Proof::Code], "pwd otp mfa"),
            (&[Proof::Code, Proof::Password], "pwd otp mfa"),
            (&[passkey(false)], "pop"),
            (&[passkey(true)], "pop mfa"),
            (&[Proof::Password, passkey(false)], "pwd pop mfa"),
            (&[Proof::Code, Proof::Code], "otp"),
            (&[Proof::Provider, Proof::Code], "fed otp mfa"),
        ] {
            let all = proofs.iter().fold(Proofs::NONE, |all, proof| all.with(*proof));
            assert_eq!(all.to_string(), expected);
            assert_eq!(all.is_multi_factor(), expected.contains("mfa"));
            assert_eq!(all.has_factor(), expected != "pwd");
            assert_eq!(Proofs::parse(expected), all);
            let json = serde_json::to_string(&all).unwrap();
            assert_eq!(serde_json::from_str::<Proofs>(&json).unwrap(), all);
        }
        assert_eq!(Proofs::parse("pwd face"), Proofs::PASSWORD);
        assert_eq!(Proofs::parse(""), Proofs::NONE);
    }
}
