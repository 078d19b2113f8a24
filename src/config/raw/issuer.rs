//! `issuers` as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    config::units::{Span, Switch},
    types::Secret,
};

/// An issuer whose tokens are accepted beside the gateway's own. Its keys come from `discovery`, `jwks`, `jwks_file` or
/// `introspection`: exactly one of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Issuer {
    /// What its callers' ids begin with: a name of a-z, 0-9 and `-`. An upstream receives `NAME:SUB`.
    pub name: String,
    /// The `iss` of its tokens, compared exactly.
    pub issuer: String,
    /// Whether its keys are found by its OpenID configuration, below `issuer`.
    pub discovery: Option<Switch>,
    /// The address of its keys.
    pub jwks: Option<String>,
    /// A file with its keys.
    pub jwks_file: Option<String>,
    /// Asks the issuer about each token, in place of keys (RFC 7662).
    pub introspection: Option<Introspection>,
    /// The audiences of which a token must name one.
    #[serde(default)]
    pub audiences: Vec<String>,
    /// The gateway's id at the issuer, for which tokens about logouts are. Default: they name one of `audiences`.
    pub client_id: Option<String>,
    /// RS256, RS384, RS512, PS256, ES256, ES384 or EdDSA. Default: all of them.
    pub algorithms: Option<Vec<String>>,
    /// The types that a token's header may tell, without case and without `application/`; `""` for a token that tells none. Default:
    /// JWT, at+jwt.
    pub typ: Option<Vec<String>>,
    /// How far its clock may differ. Default: 30s.
    pub leeway: Option<Span>,
    /// The longest that a token may be valid from its issue on; others are refused. Revocations are remembered for so long. Default: 30d.
    pub max_ttl: Option<Span>,
    /// How long its keys are used while they cannot be fetched. Default: 24h.
    pub jwks_max_age: Option<Span>,
    /// A PEM file with the authorities that its server's certificate may be of. Default: those of the system.
    pub ca: Option<String>,
    /// Where a token tells what.
    #[serde(default)]
    pub claims: Claims,
    /// Which roles its callers have.
    #[serde(default)]
    pub roles: IssuerRoles,
}

/// Where a token tells what: names of claims, with dots between those that lie in others.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    /// Whom it stands for. Default: sub.
    pub id: Option<String>,
    /// The name. Default: preferred_username.
    pub name: Option<String>,
    /// The roles: a list, or a text with blanks between. Default: roles.
    pub roles: Option<String>,
    /// The session. Default: sid.
    pub session: Option<String>,
}

/// Which roles callers have.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct IssuerRoles {
    /// What a role of the issuer is called here; never admin.
    #[serde(default)]
    pub map: BTreeMap<String, String>,
    /// What the names of its other roles begin with here. Default: other roles are dropped.
    pub prefix: Option<String>,
}

/// Where an issuer is asked about tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Introspection {
    /// The address.
    pub url: String,
    /// The gateway's id there.
    pub client_id: String,
    /// The gateway's secret there.
    pub client_secret: Secret,
    /// How long what the issuer says holds. Default: 30s.
    pub cache: Option<Span>,
}
