//! What tokens and headers say of an account, beside its name and its roles.

use super::{Attributes, UserId};

/// The fields of an account that claims come from.
#[derive(Debug, Clone, Copy)]
pub struct Profile<'a> {
    /// Its id.
    pub id: UserId,
    /// Its canonical name.
    pub name: &'a str,
    /// Its e-mail address.
    pub email: Option<&'a str>,
    /// Whether that is verified.
    pub email_verified: bool,
    /// Its id in the program that it was imported from.
    pub external_id: Option<&'a str>,
    /// Its attributes.
    pub attributes: &'a Attributes,
}

/// The value of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimValue {
    /// A text.
    Text(String),
    /// True or false.
    Flag(bool),
}

/// The values of an account's claims, one for each rule of the config, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClaimValues(Box<[Option<ClaimValue>]>);

impl ClaimValues {
    /// Returns the values, one for each rule.
    pub fn iter(&self) -> impl Iterator<Item = Option<&ClaimValue>> {
        self.0.iter().map(Option::as_ref)
    }
}

impl FromIterator<Option<ClaimValue>> for ClaimValues {
    fn from_iter<I: IntoIterator<Item = Option<ClaimValue>>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}
