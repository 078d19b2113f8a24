//! Certificates by ACME.

use super::{HttpUrl, UpstreamTls};

/// How certificates are obtained (RFC 8555).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acme {
    /// The directory of the certificate authority (section 7.1.1).
    pub directory: HttpUrl,
    /// Its address as it is written, which the account belongs to.
    pub directory_text: String,
    /// Where the authority can reach the operator.
    pub email: Option<String>,
    /// The names, in lower case, each once: those of the routes' hosts, and further ones.
    pub names: Vec<String>,
    /// How the authority is shown that a name is served here, the preferred way first; at least one.
    pub challenges: Vec<ChallengeKind>,
    /// TLS to the authority.
    pub tls: UpstreamTls,
}

/// How an authority is shown that a name is served here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengeKind {
    /// By a certificate of its own on the listener of https (RFC 8737).
    TlsAlpn01,
    /// By a document on the listener of http (RFC 8555, section 8.3).
    Http01,
}

impl ChallengeKind {
    /// The kinds, by their names in the config.
    pub const NAMES: [(&str, Self); 2] = [("tls-alpn-01", Self::TlsAlpn01), ("http-01", Self::Http01)];
}
