//! TLS towards clients and operators, as a listener asks for it.

use std::path::PathBuf;

use super::Source;

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// The certificates in files; at least one, unless `acme`. The first is for clients that name no known host.
    pub certificates: Vec<CertificateFiles>,
    /// Whether there are certificates that an authority issues.
    pub acme: bool,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
    /// Whether clients show certificates.
    pub client_certificates: Option<ClientCertificates>,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

/// A certificate and its key, as PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key of the leaf.
    pub key: PathBuf,
    /// Where the certificate stands in the config.
    pub source: Source,
}

/// TLS towards the servers of an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The authorities that are believed, as a PEM file; those of the system if none.
    pub ca: Option<PathBuf>,
    /// Whether those of the system are believed beside it.
    pub beside_system: bool,
    /// The name that a server must have a certificate for; that of its URL if none.
    pub name: Option<String>,
    /// What the gateway shows of itself.
    pub own: Option<CertificateFiles>,
    /// Where it stands in the config.
    pub source: Source,
}

impl UpstreamTls {
    /// Returns whether another config says the same, perhaps in another place.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let own = |tls: &Self| tls.own.as_ref().map(|own| (own.certificate.clone(), own.key.clone()));
        self.ca == other.ca
            && self.beside_system == other.beside_system
            && self.name == other.name
            && own(self) == own(other)
    }
}

/// Certificates that clients show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities that are believed, as a PEM file.
    pub ca: PathBuf,
    /// Whether a client without one is refused.
    pub required: bool,
    /// Whether upstreams are told the subject.
    pub forward: bool,
    /// Where `ca` stands in the config.
    pub source: Source,
}
