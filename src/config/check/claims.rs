//! Attributes and claims: `attributes`, `claims`.

use std::collections::{BTreeMap, HashSet};

use super::Check;
use crate::config::{
    AttributeRule, AttributeRules, ClaimRule, ClaimSource, Claims, IdentityHeaders, SetBy, raw,
};

/// Names that mean something in tokens already (RFC 7519, RFC 9068, and this gateway's own).
const TAKEN: &[&str] = &[
    "iss",
    "sub",
    "aud",
    "exp",
    "nbf",
    "iat",
    "jti",
    "typ",
    "cnf",
    "act",
    "azp",
    "acr",
    "amr",
    "auth_time",
    "nonce",
    "sid",
    "scope",
    "client_id",
    "roles",
    "groups",
    "entitlements",
    "name",
    "gen",
    "external_id",
    "end",
    "keep",
    "events",
    "headers",
    "claims",
];

/// The most attributes.
const MOST_ATTRIBUTES: usize = 16;

/// The most bytes of one attribute, and of all in claims together: a browser keeps no cookie of more than 4,096 bytes.
const MOST_BYTES: u64 = 256;
const MOST_BYTES_IN_CLAIMS: usize = 1_024;

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.len() <= 32
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

impl Check<'_> {
    pub(super) fn attributes(&mut self, raw: BTreeMap<String, raw::Attribute>) -> AttributeRules {
        if raw.len() > MOST_ATTRIBUTES {
            self.error("attributes", format!("expected at most {MOST_ATTRIBUTES}"));
        }
        let mut rules = AttributeRules::new();
        for (name, attribute) in raw {
            let key = format!("attributes.{name}");
            if !is_name(&name) {
                self.error(&key, "expected a name of at most 32 lower-case letters, digits and `_`");
            }
            let by = match attribute.by {
                raw::SetBy::Operator => SetBy::Operator,
                raw::SetBy::Person => SetBy::Person,
            };
            let max = self.number(&format!("{key}.max"), attribute.max, 64, (1, MOST_BYTES));
            rules.insert(name, AttributeRule { by, max });
        }
        rules
    }

    pub(super) fn claims(
        &mut self,
        raw: BTreeMap<String, raw::Claim>,
        attributes: &AttributeRules,
        identity: &IdentityHeaders,
    ) -> Claims {
        if raw.len() > Claims::MOST {
            self.error("claims", format!("expected at most {}", Claims::MOST));
        }
        let (mut rules, mut tokens, mut bytes) = (Vec::new(), HashSet::new(), 0);
        let mut headers: HashSet<_> = identity.names().cloned().collect();
        for (name, claim) in raw {
            let key = format!("claims.{name}");
            if !is_name(&name) {
                self.error(&key, "expected a name of at most 32 lower-case letters, digits and `_`");
            }
            // Whatever else is wrong with it is told, too.
            let from = self.claim_source(&format!("{key}.from"), &claim.from, attributes);
            if let Some(ClaimSource::Attribute(name)) = &from {
                bytes += attributes.get(name).map_or(0, |rule| rule.max);
            }
            if let Some(token) = &claim.token {
                let (key, legal) = (format!("{key}.token"), !token.is_empty() && token.len() <= 64);
                if !legal
                    || !token.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\'))
                {
                    self.error(&key, "expected 1 to 64 printable characters");
                } else if TAKEN.contains(&token.as_str()) {
                    self.error(&key, "has a meaning of its own in tokens; choose another name");
                } else if !tokens.insert(token.clone()) {
                    self.error(&key, "is the name of another claim");
                }
            }
            let header = claim.header.map(|text| {
                let key = format!("{key}.header");
                let errors = self.errors.len();
                // The fallback is never used: a name that is not legal is an error.
                let header = self.own_header(&key, Some(text), identity.id.clone());
                if self.errors.len() == errors && !headers.insert(header.clone()) {
                    self.error(&key, "is another claim's, or tells who is calling already");
                }
                header
            });
            if claim.token.is_none() && header.is_none() {
                self.error(&key, "expected `token`, `header`, or both");
            }
            rules.extend(from.map(|from| ClaimRule { key: name, from, token: claim.token, header }));
        }
        if bytes > MOST_BYTES_IN_CLAIMS {
            let all = "expected attributes of at most 1024 bytes together (`max`): a cookie holds no more";
            self.error("claims", all);
        }
        Claims::new(rules)
    }

    fn claim_source(&mut self, key: &str, from: &str, attributes: &AttributeRules) -> Option<ClaimSource> {
        let source = match from {
            "id" => ClaimSource::Id,
            "username" => ClaimSource::Username,
            "email" => ClaimSource::Email,
            "verified_email" => ClaimSource::VerifiedEmail,
            "email_verified" => ClaimSource::EmailVerified,
            "external_id" => ClaimSource::ExternalId,
            _ => match from.strip_prefix("attributes.") {
                Some(name) if attributes.contains_key(name) => ClaimSource::Attribute(name.to_owned()),
                Some(name) => {
                    self.error(key, format!("there is no `{name}` among `attributes`"));
                    return None;
                }
                None => {
                    const LEGAL: &str = "expected id, username, email, verified_email, email_verified, external_id, or attributes.NAME";
                    self.error(key, LEGAL);
                    return None;
                }
            },
        };
        Some(source)
    }
}
