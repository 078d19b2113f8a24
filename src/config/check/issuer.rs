//! Issuers whose tokens are accepted: `issuers`.

use std::{collections::BTreeMap, time::Duration};

use super::Check;
use crate::{
    config::{
        ClaimNames, HttpUrl, Introspection, Issuer, IssuerKeys, SignatureAlgorithm, UpstreamTls, raw,
        units::Span,
    },
    types::Role,
};

/// The longest that a clock may differ.
const MOST_LEEWAY: Duration = Duration::from_secs(300);

/// The longest that what an issuer said of a token may hold.
const MOST_CACHE: Duration = Duration::from_secs(3_600);

impl Check<'_> {
    /// The issuers; `own` is the `iss` of the gateway's own tokens.
    pub(super) fn issuers(&mut self, raw: Vec<raw::Issuer>, own: &str) -> Vec<Issuer> {
        let mut issuers: Vec<Issuer> = Vec::new();
        for (index, raw) in raw.into_iter().enumerate() {
            let key = format!("issuers[{index}]");
            let issuer = self.issuer(&key, raw);
            if issuers.iter().any(|other| other.name == issuer.name) {
                self.error(&format!("{key}.name"), "another issuer has this name");
            }
            if issuers.iter().any(|other| other.issuer == issuer.issuer) {
                self.error(&format!("{key}.issuer"), "another issuer has this `issuer`");
            }
            if issuer.issuer == own {
                self.error(
                    &format!("{key}.issuer"),
                    "this is `auth.issuer`, the issuer of the gateway's own tokens",
                );
            }
            issuers.push(issuer);
        }
        let asked = |issuer: &Issuer| matches!(issuer.keys, IssuerKeys::Introspection(_));
        if issuers.iter().filter(|issuer| asked(issuer)).count() > 1 {
            // An opaque token does not tell whose it is.
            self.error("issuers", "expected at most one with `introspection`");
        }
        issuers
    }

    fn issuer(&mut self, key: &str, raw: raw::Issuer) -> Issuer {
        let of = |name: &str| format!("{key}.{name}");
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if raw.name.is_empty() || raw.name.len() > 32 || !raw.name.bytes().all(legal) {
            self.error(&of("name"), "expected 1 to 32 of a-z, 0-9 and `-`");
        }
        if raw.issuer.is_empty() || raw.issuer.len() > 512 || raw.issuer.contains(char::is_control) {
            self.error(&of("issuer"), "expected 1 to 512 characters");
        }
        if raw.audiences.is_empty() || raw.audiences.iter().any(String::is_empty) {
            self.error(&of("audiences"), "expected the audiences of which a token must name one");
        }
        let leeway = raw.leeway.map_or(Duration::from_secs(30), |Span(leeway)| leeway);
        if leeway > MOST_LEEWAY {
            self.error(&of("leeway"), "expected up to 5m");
        }
        let max_ttl = self.span(&of("max_ttl"), raw.max_ttl, Duration::from_secs(30 * 86_400));
        if max_ttl > Issuer::MOST_TTL {
            self.error(&of("max_ttl"), "expected up to 366d");
        }
        let day = Duration::from_secs(86_400);
        Issuer {
            keys: self.issuer_keys(key, &raw),
            algorithms: self.algorithms(&of("algorithms"), raw.algorithms.as_deref()),
            types: raw
                .typ
                .unwrap_or_else(|| vec!["JWT".to_owned(), "at+jwt".to_owned()])
                .iter()
                .map(|typ| typ.to_ascii_lowercase().trim_start_matches("application/").to_owned())
                .collect(),
            leeway,
            max_ttl,
            keys_max_age: self.span(&of("jwks_max_age"), raw.jwks_max_age, day),
            tls: UpstreamTls {
                ca: raw.ca.map(|ca| self.document.folder.join(ca)),
                beside_system: false,
                name: None,
                own: None,
                source: self.document.source(&of("ca")),
            },
            claims: self.claim_names(&of("claims"), raw.claims),
            role_prefix: self.role_prefix(&of("roles.prefix"), raw.roles.prefix),
            roles: self.role_map(&of("roles.map"), raw.roles.map),
            source: self.document.source(key),
            name: raw.name,
            issuer: raw.issuer,
            audiences: raw.audiences,
            client_id: raw.client_id,
            files: 0,
        }
    }

    fn issuer_keys(&mut self, key: &str, raw: &raw::Issuer) -> IssuerKeys {
        let discovery = raw.discovery.is_some_and(|discovery| discovery.0);
        let ways = [discovery, raw.jwks.is_some(), raw.jwks_file.is_some(), raw.introspection.is_some()];
        if ways.iter().filter(|way| **way).count() != 1 {
            self.error(key, "expected one of `discovery: true`, `jwks`, `jwks_file` and `introspection`");
        }
        if let Some(introspection) = &raw.introspection {
            let key = format!("{key}.introspection");
            let cache = introspection.cache.map_or(Duration::from_secs(30), |Span(cache)| cache);
            if cache > MOST_CACHE || cache < Duration::from_secs(1) {
                self.error(
                    &format!("{key}.cache"),
                    "expected 1s to 1h: a token that its issuer ends is accepted for so long",
                );
            }
            if introspection.client_id.is_empty() {
                self.error(&format!("{key}.client_id"), "expected the gateway's id at the issuer");
            }
            return IssuerKeys::Introspection(Introspection {
                url: self.url(&format!("{key}.url"), &introspection.url),
                client_id: introspection.client_id.clone(),
                client_secret: introspection.client_secret.clone(),
                cache,
            });
        }
        if let Some(file) = &raw.jwks_file {
            return IssuerKeys::File(self.document.folder.join(file));
        }
        match &raw.jwks {
            Some(jwks) => IssuerKeys::Address(self.url(&format!("{key}.jwks"), jwks)),
            None => IssuerKeys::Discovery(self.url(&format!("{key}.issuer"), &raw.issuer)),
        }
    }

    pub(super) fn url(&mut self, key: &str, text: &str) -> HttpUrl {
        HttpUrl::parse(text).unwrap_or_else(|legal| {
            self.error(key, legal);
            HttpUrl {
                is_https: true,
                host: String::new(),
                port: 443,
                authority: String::new(),
                target: "/".to_owned(),
            }
        })
    }

    fn algorithms(&mut self, key: &str, raw: Option<&[String]>) -> Vec<SignatureAlgorithm> {
        let all = SignatureAlgorithm::ALL;
        let Some(names) = raw else { return all.map(|(_, algorithm)| algorithm).to_vec() };
        let legal = all.map(|(name, _)| name).join(", ");
        if names.is_empty() {
            self.error(key, format!("expected some of {legal}"));
        }
        let mut algorithms = Vec::new();
        for (index, name) in names.iter().enumerate() {
            match all.iter().find(|(known, _)| known == name) {
                Some((_, algorithm)) => algorithms.push(*algorithm),
                None => self.error(&format!("{key}[{index}]"), format!("expected one of {legal}")),
            }
        }
        algorithms
    }

    /// Returns the names that lead to a claim.
    pub(super) fn claim(&mut self, key: &str, text: String) -> Vec<String> {
        // A name that is an address, as some issuers have, has dots of its own.
        let names: Vec<String> =
            if text.contains("://") { vec![text] } else { text.split('.').map(str::to_owned).collect() };
        if names.iter().any(String::is_empty) || names.len() > 8 {
            self.error(key, "expected names of claims, with dots between, such as realm_access.roles");
        }
        names
    }

    fn claim_names(&mut self, key: &str, raw: raw::Claims) -> ClaimNames {
        let mut names = |name: &str, text: Option<String>, default: &str| {
            self.claim(&format!("{key}.{name}"), text.unwrap_or_else(|| default.to_owned()))
        };
        ClaimNames {
            id: names("id", raw.id, "sub"),
            name: names("name", raw.name, "preferred_username"),
            roles: names("roles", raw.roles, "roles"),
            session: names("session", raw.session, "sid"),
        }
    }

    pub(super) fn role_map(&mut self, key: &str, raw: BTreeMap<String, String>) -> BTreeMap<String, Role> {
        let mut roles = BTreeMap::new();
        for (theirs, ours) in raw {
            let place = format!("{key}.{theirs}");
            match ours.parse::<Role>() {
                Ok(role) if role.as_str() == Role::ADMIN => {
                    self.error(&place, "no issuer can make its callers administrators");
                }
                Ok(role) => {
                    roles.insert(theirs, role);
                }
                Err(error) => self.error(&place, error.to_string()),
            }
        }
        roles
    }

    fn role_prefix(&mut self, key: &str, raw: Option<String>) -> Option<String> {
        let prefix = raw?;
        // With a character between that no role of ours need have, the two do not meet by accident.
        let is_role = prefix.parse::<Role>().is_ok();
        if !is_role || !prefix.ends_with([':', '.', '-', '_']) || prefix.len() > 32 {
            self.error(
                key,
                "expected 2 to 32 characters of a role that end in `:`, `.`, `-` or `_`, such as corp:",
            );
        }
        Some(prefix)
    }
}
