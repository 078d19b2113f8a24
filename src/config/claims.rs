//! What tokens and headers say of accounts, and which attributes those have.

use std::collections::BTreeMap;

use http::HeaderName;

use crate::types::{ClaimValue, ClaimValues, Profile, hash::sha256};

/// Where the value of a claim comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimSource {
    /// The account's id.
    Id,
    /// Its name.
    Username,
    /// Its e-mail address, verified or not.
    Email,
    /// Its e-mail address if it was verified by a mail, or by a provider that is trusted for that.
    VerifiedEmail,
    /// Whether its e-mail address is verified.
    EmailVerified,
    /// Its id in the program that it was imported from.
    ExternalId,
    /// One of its attributes.
    Attribute(String),
}

/// A claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRule {
    /// Its name in the config.
    pub key: String,
    /// Where its value comes from.
    pub from: ClaimSource,
    /// Its name in tokens, if programs are to read it there.
    pub token: Option<String>,
    /// The header that tells it to upstreams.
    pub header: Option<HeaderName>,
}

/// The claims of a config.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    rules: Vec<ClaimRule>,
    digest: String,
}

impl Claims {
    /// The most claims.
    pub const MOST: usize = 16;

    /// Claims by these rules.
    pub fn new(rules: Vec<ClaimRule>) -> Self {
        let sources: Vec<_> = rules.iter().map(|rule| (&rule.key, &rule.from, &rule.token)).collect();
        let [a, b, c, d, e, f, ..] = sha256(format!("{sources:?}").as_bytes());
        let digest = [a, b, c, d, e, f].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { rules, digest }
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Returns the rules.
    pub fn rules(&self) -> &[ClaimRule] {
        &self.rules
    }

    /// Returns a text that tells these rules from others: what is said, by which name, and where it comes from.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Returns the headers that tell claims to upstreams, in the order of the rules.
    pub fn headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.rules.iter().filter_map(|rule| rule.header.as_ref())
    }

    /// Returns what is said of an account.
    pub fn of(&self, profile: &Profile<'_>) -> ClaimValues {
        let text = |text: &str| Some(ClaimValue::Text(text.to_owned()));
        let value = |rule: &ClaimRule| match &rule.from {
            ClaimSource::Id => Some(ClaimValue::Text(profile.id.to_string())),
            ClaimSource::Username => text(profile.name),
            ClaimSource::Email => profile.email.and_then(text),
            ClaimSource::VerifiedEmail => profile.email.filter(|_| profile.email_verified).and_then(text),
            // Without an address there is no claim.
            ClaimSource::EmailVerified => profile.email.map(|_| ClaimValue::Flag(profile.email_verified)),
            ClaimSource::ExternalId => profile.external_id.and_then(text),
            ClaimSource::Attribute(name) => profile.attributes.get(name).and_then(text),
        };
        self.rules.iter().map(value).collect()
    }
}

/// Who sets an attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetBy {
    /// Operators alone.
    Operator,
    /// The account's owner, and operators.
    Person,
}

/// A declared attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttributeRule {
    /// Who sets it.
    pub by: SetBy,
    /// Its most bytes, in UTF-8.
    pub max: usize,
}

impl AttributeRule {
    /// Returns whether it may have this value: one line of printable characters that is not too long.
    pub fn takes(&self, value: &str) -> bool {
        !value.is_empty()
            && value.len() <= self.max
            && value.trim() == value
            // U+2028 and U+2029 end lines, too.
            && !value.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
    }
}

/// The attributes that accounts may have, by their names.
pub type AttributeRules = BTreeMap<String, AttributeRule>;
