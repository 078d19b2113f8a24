//! The part of the config that is about attributes and claims, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::units::Number;

/// Who sets an attribute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum SetBy {
    /// Operators: by the command line or the admin API.
    #[default]
    Operator,
    /// The account's owner, too.
    Person,
}

/// An attribute that accounts may have.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Attribute {
    /// operator or person. Default: operator.
    #[serde(default)]
    pub by: SetBy,
    /// Its most bytes, in UTF-8. Default: 64.
    pub max: Option<Number>,
}

/// What tokens and headers say of accounts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// id, username, email, verified_email, email_verified, external_id, or attributes.NAME.
    pub from: String,
    /// Its name in access tokens. Default: programs cannot read it there.
    pub token: Option<String>,
    /// The header that tells it to upstreams, such as X-User-Email; clients' own are removed. Default: none.
    pub header: Option<String>,
}
