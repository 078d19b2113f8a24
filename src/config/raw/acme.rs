//! `acme` as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

/// Certificates that an authority issues by ACME (RFC 8555), for listeners with `acme: true`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Acme {
    /// The authority's directory. Default: https://acme-v02.api.letsencrypt.org/directory, whose terms of service you agree to.
    pub directory: Option<String>,
    /// Where the authority can reach you.
    pub email: Option<String>,
    /// Names beside the hosts of the routes.
    #[serde(default)]
    pub names: Vec<String>,
    /// tls-alpn-01 (the authority comes to port 443) and http-01 (to port 80), the preferred one first. Default: both.
    pub challenges: Option<Vec<String>>,
    /// A PEM file with authorities that the directory's certificate may be of, beside those of the system.
    pub ca: Option<String>,
}
