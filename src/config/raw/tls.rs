//! `tls` of a listener as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::units::Switch;

/// TLS of a listener. Files are read again when they change.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// A PEM file with the certificate and those that lead to its authority, leaf first.
    pub certificate: Option<String>,
    /// A PEM file with the private key of the leaf.
    pub key: Option<String>,
    /// Several pairs in place of one: the host that a client asks for chooses among them. The first is for clients that
    /// name none, or none that is known.
    #[serde(default)]
    pub certificates: Vec<CertificateFiles>,
    /// Whether certificates are obtained and renewed by `acme`, for the hosts of the routes and for `acme.names`, beside those in files.
    /// Default: false.
    pub acme: Option<Switch>,
    /// The oldest version: "1.2" or "1.3". Default: 1.2.
    pub min_version: Option<String>,
    /// Certificates that clients show.
    pub client_certificates: Option<ClientCertificates>,
}

/// A certificate and its key.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// A PEM file with the certificate and those that lead to its authority, leaf first.
    pub certificate: String,
    /// A PEM file with the private key of the leaf.
    pub key: String,
}

/// Certificates that clients show.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificates {
    /// A PEM file with the authorities that are believed.
    pub ca: String,
    /// Whether a client without a certificate is refused. Default: true.
    pub required: Option<Switch>,
    /// Whether upstreams are told the subject, as X-Client-Cert-Subject. Default: false.
    pub forward: Option<Switch>,
}
