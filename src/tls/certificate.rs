//! A certificate with its key, as two files.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_cert::{
    Certificate,
    der::{Decode, Encode},
    ext::pkix::AuthorityKeyIdentifier,
};

use super::{Names, TlsError, provider};
use crate::config::CertificateFiles;

/// A file of certificates is a few KiB; a larger one is a mistake.
const MAX_BYTES: u64 = 1 << 20;

/// The contents of both files, taken up together.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct PairBytes {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl std::fmt::Debug for PairBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The key is secret.
        f.debug_struct("PairBytes").finish_non_exhaustive()
    }
}

impl PairBytes {
    /// Reads both files.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub(super) fn read(files: &CertificateFiles) -> Result<Self, TlsError> {
        Ok(Self { certificate: read(&files.certificate)?, key: read(&files.key)? })
    }
}

/// Reads a file of certificates or keys.
///
/// # Errors
/// When it cannot be read.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |error: &dyn std::fmt::Display| TlsError(format!("{}: {error}", path.display()));
    let size = fs::metadata(path).map_err(|error| failed(&error))?.len();
    if size > MAX_BYTES {
        return Err(failed(&"is over 1 MiB"));
    }
    fs::read(path).map_err(|error| failed(&error))
}

/// A certificate whose key fits it.
#[derive(Debug)]
pub(super) struct Pair {
    pub(super) key: Arc<CertifiedKey>,
    pub(super) names: Names,
    /// When it expires, in seconds since the Unix epoch.
    pub(super) expires: u64,
}

/// A certificate that an authority has issued, and its key.
#[derive(Debug, Clone)]
pub struct Issued {
    pub(super) pair: Arc<Pair>,
    begins: u64,
    identifier: Option<(Vec<u8>, Vec<u8>)>,
}

impl Issued {
    /// Parses a chain in PEM and its key (PKCS #8).
    ///
    /// # Errors
    /// When they hold no certificate or no key, or one that is not of the other.
    pub fn parse(chain: &str, key: &[u8]) -> Result<Self, TlsError> {
        let chain = certificates(chain.as_bytes(), Path::new("the issued chain"))?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_vec()));
        let leaf = Certificate::from_der(&chain[0])
            .map_err(|error| TlsError(format!("the issued chain: no certificate: {error}")))?;
        let certified = CertifiedKey::from_der(chain, key, &provider())
            .map_err(|error| TlsError(format!("the issued certificate: {error}")))?;
        let validity = &leaf.tbs_certificate.validity;
        let authority = leaf.tbs_certificate.get::<AuthorityKeyIdentifier>().ok().flatten();
        let authority = authority.and_then(|(_, authority)| authority.key_identifier);
        let pair = Pair {
            key: Arc::new(certified),
            names: Names::of(&leaf),
            expires: validity.not_after.to_unix_duration().as_secs(),
        };
        Ok(Self {
            pair: Arc::new(pair),
            begins: validity.not_before.to_unix_duration().as_secs(),
            identifier: authority.map(|authority| {
                (authority.as_bytes().to_vec(), leaf.tbs_certificate.serial_number.as_bytes().to_vec())
            }),
        })
    }

    /// Returns the hosts that it is for.
    pub fn names(&self) -> &Names {
        &self.pair.names
    }

    /// Returns when it begins and ends to be valid, in seconds since the Unix epoch.
    pub fn validity(&self) -> (u64, u64) {
        (self.begins, self.pair.expires)
    }

    /// Returns the key identifier of its authority and its serial number, the contents of their encodings, by which an authority
    /// tells when to renew it (RFC 9773, section 4.1).
    pub fn identifier(&self) -> Option<(&[u8], &[u8])> {
        self.identifier.as_ref().map(|(authority, serial)| (&authority[..], &serial[..]))
    }
}

impl Pair {
    /// Parses the contents of `files`.
    ///
    /// # Errors
    /// When they hold no certificate or no key, or one that is not of the other.
    pub(super) fn parse(bytes: &PairBytes, files: &CertificateFiles) -> Result<Self, TlsError> {
        let (certificate, key) = (files.certificate.display(), files.key.display());
        let chain = certificates(&bytes.certificate, &files.certificate)?;
        let key_der = PrivateKeyDer::from_pem_slice(&bytes.key)
            .map_err(|_| TlsError(format!("{key}: no private key in PEM")))?;
        let leaf = Certificate::from_der(&chain[0])
            .map_err(|error| TlsError(format!("{certificate}: no certificate: {error}")))?;
        let provider = provider();
        let certified = CertifiedKey::from_der(chain, key_der, &provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError(format!("{key}: not the key of the certificate in {certificate}"))
            }
            error => TlsError(format!("{key}: {error}")),
        })?;
        Ok(Self {
            key: Arc::new(certified),
            names: Names::of(&leaf),
            expires: leaf.tbs_certificate.validity.not_after.to_unix_duration().as_secs(),
        })
    }
}

/// Parses certificates in PEM; at least one.
///
/// # Errors
/// When there is none.
pub(super) fn certificates(bytes: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(TlsError(format!("{}: no certificate in PEM", path.display()))),
    }
}

/// Parses the authorities in a file.
///
/// # Errors
/// When there is none, or one of them is none.
pub(super) fn authorities(bytes: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(bytes, path)? {
        roots.add(certificate).map_err(|error| TlsError(format!("{}: {error}", path.display())))?;
    }
    Ok(roots)
}

/// Returns the subject of a certificate that was verified (RFC 4514).
pub(super) fn subject(certificate: &CertificateDer<'_>) -> Option<String> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let subject = parsed.tbs_certificate.subject;
    // An empty one says nothing.
    (subject.to_der().ok()?.len() > 2).then(|| subject.to_string())
}
