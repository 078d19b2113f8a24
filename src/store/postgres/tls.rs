//! TLS to PostgreSQL, by tokio-postgres's own adapter for rustls.

use std::sync::Arc;

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
};
use tokio_postgres::{
    Config,
    config::{Host, SslMode as Negotiation},
};
pub(super) use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    config::{PostgresTls, PostgresUrl, RootCertificates, SslMode},
    store::{Result, StoreError},
};

/// The protocol's name in ALPN, which a server asks for where TLS begins without negotiation.
const ALPN: &[u8] = b"postgresql";

/// Reads a connection string: the driver's settings, and what makes its TLS connections.
pub(super) fn settings(location: &PostgresUrl) -> Result<(Config, MakeRustlsConnect)> {
    // The error's own text could quote the connection string.
    let mut config: Config = location.url.expose().parse().map_err(|_| {
        unusable("store.url, or the source of an import, is not a PostgreSQL connection string")
    })?;
    let (hosts, addresses) = (config.get_hosts(), config.get_hostaddrs());
    let somewhere = !hosts.is_empty() || !addresses.is_empty();
    // An address is where the connection goes, whatever name stands beside it.
    let local = hosts.iter().all(is_local) && addresses.iter().all(std::net::IpAddr::is_loopback);
    let clear = local && somewhere && location.tls.root == RootCertificates::Unsaid;
    let mode = location.tls.mode.unwrap_or(if clear { SslMode::Disable } else { SslMode::VerifyFull });
    config.ssl_mode(match mode {
        SslMode::Disable => Negotiation::Disable,
        SslMode::Prefer => Negotiation::Prefer,
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => Negotiation::Require,
    });
    Ok((config, MakeRustlsConnect::new(client_config(mode, &location.tls)?)))
}

fn unusable(problem: impl Into<String>) -> StoreError {
    StoreError::Unusable(problem.into())
}

/// Whether a host is this machine: then nobody is between who could listen or pretend to be it.
fn is_local(host: &Host) -> bool {
    match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name.eq_ignore_ascii_case("localhost")
                || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    }
}

/// What is verified of a server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verified {
    Nothing,
    Authority,
    AuthorityAndName,
}

fn client_config(mode: SslMode, tls: &PostgresTls) -> Result<ClientConfig> {
    let verified = match mode {
        // With a root certificate, libpq takes `require` for `verify-ca`.
        SslMode::Require if tls.root != RootCertificates::Unsaid => Verified::Authority,
        SslMode::Disable | SslMode::Prefer | SslMode::Require => Verified::Nothing,
        SslMode::VerifyCa => Verified::Authority,
        SslMode::VerifyFull => Verified::AuthorityAndName,
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(format!("TLS: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier::new(verified, tls, provider)?));
    let mut config = match (&tls.certificate, &tls.key) {
        (Some(certificate), Some(key)) => {
            let chain = read_certificates(certificate)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| unusable(format!("{}: {error}", key.display())))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| unusable(format!("{}: {error}", certificate.display())))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    Ok(config)
}

fn read_certificates(path: &std::path::Path) -> Result<Vec<CertificateDer<'static>>> {
    let failed = |error: &dyn std::fmt::Display| unusable(format!("{}: {error}", path.display()));
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))?;
    let certificates: Vec<_> =
        certificates.collect::<std::result::Result<_, _>>().map_err(|error| failed(&error))?;
    if certificates.is_empty() { Err(failed(&"no certificate in it")) } else { Ok(certificates) }
}

/// Verifies as much as `sslmode` asks for.
#[derive(Debug)]
struct Verifier {
    verified: Verified,
    provider: Arc<CryptoProvider>,
    /// None where nothing is verified.
    authorities: Option<Arc<WebPkiServerVerifier>>,
}

impl Verifier {
    fn new(verified: Verified, tls: &PostgresTls, provider: Arc<CryptoProvider>) -> Result<Self> {
        if verified == Verified::Nothing {
            return Ok(Self { verified, provider, authorities: None });
        }
        let mut roots = RootCertStore::empty();
        match &tls.root {
            RootCertificates::File(path) => {
                for certificate in read_certificates(path)? {
                    roots
                        .add(certificate)
                        .map_err(|error| unusable(format!("{}: {error}", path.display())))?;
                }
            }
            // What of them cannot be read is missed when a certificate is not accepted.
            RootCertificates::Unsaid | RootCertificates::System => {
                let _ = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| unusable(format!("TLS: no authority to trust, give sslrootcert: {error}")))?;
        Ok(Self { verified, provider, authorities: Some(authorities) })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        let Some(authorities) = &self.authorities else { return Ok(ServerCertVerified::assertion()) };
        match authorities.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.verified == Verified::Authority => Ok(ServerCertVerified::assertion()),
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Secret;

    #[test]
    fn a_host_that_is_not_local_is_verified_unless_somebody_says_otherwise() {
        let negotiation = |url: &str| {
            let location = PostgresUrl::parse(&Secret::new(url), std::path::Path::new(".")).unwrap();
            settings(&location).unwrap().0.get_ssl_mode()
        };
        assert_eq!(negotiation("postgres://db.example.com/x"), Negotiation::Require);
        assert_eq!(negotiation("postgres://192.0.2.1/x"), Negotiation::Require);
        assert_eq!(negotiation("postgres://db.example.com,localhost/x"), Negotiation::Require);
        assert_eq!(negotiation("postgres://db.example.com/x?sslmode=disable"), Negotiation::Disable);
        assert_eq!(negotiation("postgres://u@/x?hostaddr=192.0.2.1"), Negotiation::Require);
        assert_eq!(negotiation("postgres://localhost/x?hostaddr=192.0.2.1"), Negotiation::Require);
        assert_eq!(negotiation("postgres://localhost/x?sslrootcert=system"), Negotiation::Require);
        assert_eq!(negotiation("postgres://u:p?@db.example.com/x"), Negotiation::Require);
        for local in ["localhost", "127.0.0.1", "[::1]", "%2Frun%2Fpostgresql"] {
            assert_eq!(negotiation(&format!("postgres://{local}/x")), Negotiation::Disable, "{local}");
        }
    }
}
