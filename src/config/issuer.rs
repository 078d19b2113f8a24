//! Issuers whose tokens are accepted beside the gateway's own.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use super::{HttpUrl, Source, UpstreamTls};
use crate::types::{Role, Secret};

/// An issuer whose tokens are accepted.
#[derive(Debug, Clone)]
pub struct Issuer {
    /// What its callers' ids begin with.
    pub name: String,
    /// The `iss` of its tokens.
    pub issuer: String,
    /// Where what verifies a token comes from.
    pub keys: IssuerKeys,
    /// A token must name one of these.
    pub audiences: Vec<String>,
    /// What its tokens about logouts must name, if that is another.
    pub client_id: Option<String>,
    /// What tells the contents of its files from others.
    pub files: u64,
    /// The algorithms of its signatures.
    pub algorithms: Vec<SignatureAlgorithm>,
    /// The types of its tokens in lower case; an empty one for tokens that tell none.
    pub types: Vec<String>,
    /// How far its clock may differ.
    pub leeway: Duration,
    /// The longest that a token may be valid from now on.
    pub max_ttl: Duration,
    /// How long keys are used that cannot be fetched anew.
    pub keys_max_age: Duration,
    /// TLS to its server.
    pub tls: UpstreamTls,
    /// Where a token tells what.
    pub claims: ClaimNames,
    /// What its roles are called here.
    pub roles: BTreeMap<String, Role>,
    /// What the names of its other roles begin with here; none of them is kept without one.
    pub role_prefix: Option<String>,
    /// Where it stands in the config.
    pub source: Source,
}

/// Where what verifies a token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IssuerKeys {
    /// The issuer's OpenID configuration (OpenID Connect Discovery 1.0, section 4).
    Discovery(HttpUrl),
    /// The address of a key set (RFC 7517).
    Address(HttpUrl),
    /// A file with a key set.
    File(PathBuf),
    /// The issuer is asked about each token (RFC 7662).
    Introspection(Introspection),
}

/// Where an issuer is asked about tokens.
#[derive(Debug, Clone)]
pub struct Introspection {
    /// The address.
    pub url: HttpUrl,
    /// The gateway's id there.
    pub client_id: String,
    /// The gateway's secret there.
    pub client_secret: Secret,
    /// How long what the issuer says holds.
    pub cache: Duration,
}

impl PartialEq for Introspection {
    fn eq(&self, other: &Self) -> bool {
        let secret = |one: &Self| one.client_secret.expose().to_owned();
        self.url == other.url
            && self.client_id == other.client_id
            && self.cache == other.cache
            && secret(self) == secret(other)
    }
}

impl Eq for Introspection {}

/// Algorithms of signatures by key pairs (RFC 7518, section 3.1; RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SignatureAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519.
    EdDSA,
}

impl SignatureAlgorithm {
    /// All of them, by their names.
    pub const ALL: [(&'static str, Self); 7] = [
        ("RS256", Self::RS256),
        ("RS384", Self::RS384),
        ("RS512", Self::RS512),
        ("PS256", Self::PS256),
        ("ES256", Self::ES256),
        ("ES384", Self::ES384),
        ("EdDSA", Self::EdDSA),
    ];
}

/// Claims, each as the names that lead to it from the outermost object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    /// Whom a token stands for.
    pub id: Vec<String>,
    /// The name.
    pub name: Vec<String>,
    /// The roles.
    pub roles: Vec<String>,
    /// The session.
    pub session: Vec<String>,
}

impl Issuer {
    /// The longest that a config may let tokens be valid.
    pub const MOST_TTL: Duration = Duration::from_secs(366 * 86_400);

    /// Returns whether its keys are those of another config, fetched alike, though other things have changed.
    pub fn has_keys_of(&self, other: &Self) -> bool {
        let of = |issuer: &Self| {
            (issuer.issuer.clone(), issuer.algorithms.clone(), issuer.keys.clone(), issuer.files)
        };
        of(self) == of(other) && self.tls.is_like(&other.tls)
    }

    /// Returns whether another config says the same, perhaps in another place.
    pub fn is_like(&self, other: &Self) -> bool {
        let of = |issuer: &Self| {
            let Self { name, issuer, keys, audiences, algorithms, types, .. } = issuer.clone();
            (name, issuer, keys, audiences, algorithms, types)
        };
        let bounds = |issuer: &Self| {
            let Self { leeway, max_ttl, keys_max_age, client_id, files, .. } = issuer.clone();
            (leeway, max_ttl, keys_max_age, client_id, files)
        };
        of(self) == of(other)
            && bounds(self) == bounds(other)
            && self.tls.is_like(&other.tls)
            && self.claims == other.claims
            && (&self.roles, &self.role_prefix) == (&other.roles, &other.role_prefix)
    }
}
