//! What proves to a certificate authority that names are served here (RFC 8555, section 8; RFC 8737).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwap;
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};

use super::{TlsError, provider};
use crate::types::hash::sha256;

/// The protocol of a handshake that is such a proof (RFC 8737, section 3).
pub(super) const ACME_TLS: &[u8] = b"acme-tls/1";

/// A proof that is pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// The name.
    pub name: String,
    /// The token, by which an authority asks.
    pub token: String,
    /// What it expects to be told.
    pub key_authorization: String,
}

/// The proofs that are pending on any gateway.
#[derive(Default)]
pub struct Challenges {
    is_pending: AtomicBool,
    known: ArcSwap<Known>,
}

#[derive(Default)]
struct Known {
    proofs: Vec<Proof>,
    by_name: HashMap<String, Arc<ServerConfig>>,
}

impl std::fmt::Debug for Challenges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Challenges").field("is_pending", &self.is_pending).finish_non_exhaustive()
    }
}

impl Challenges {
    /// Takes over which proofs are pending; called by one after the other.
    ///
    /// # Errors
    /// When one cannot be shown by TLS; the others are.
    pub fn set(&self, mut proofs: Vec<Proof>) -> Result<(), TlsError> {
        proofs.sort_unstable_by(|one, other| (&one.name, &one.token).cmp(&(&other.name, &other.token)));
        let before = self.known.load();
        if before.proofs == proofs {
            return Ok(());
        }
        let mut result = Ok(());
        let mut by_name = HashMap::new();
        for proof in &proofs {
            match settings(proof) {
                Ok(settings) => drop(by_name.insert(proof.name.clone(), Arc::new(settings))),
                Err(error) => result = Err(error),
            }
        }
        self.is_pending.store(!proofs.is_empty(), Relaxed);
        self.known.store(Arc::new(Known { proofs, by_name }));
        result
    }

    /// Returns whether any is pending.
    pub fn is_pending(&self) -> bool {
        self.is_pending.load(Relaxed)
    }

    /// Returns what an authority is told that asks by `token`.
    pub fn key_authorization(&self, token: &str) -> Option<String> {
        let known = self.known.load();
        let proof = known.proofs.iter().find(|proof| proof.token == token)?;
        Some(proof.key_authorization.clone())
    }

    /// Returns the settings of a handshake that proves that a name, in lower case, is served here.
    pub(super) fn settings(&self, name: &str) -> Option<Arc<ServerConfig>> {
        self.known.load().by_name.get(name).cloned()
    }
}

/// Returns the settings of a handshake that is a proof: its certificate carries the digest of the key authorization (RFC 8737,
/// section 3).
fn settings(proof: &Proof) -> Result<ServerConfig, TlsError> {
    let failed = |error: &dyn std::fmt::Display| TlsError(format!("the proof for {}: {error}", proof.name));
    let mut params = CertificateParams::new(vec![proof.name.clone()]).map_err(|error| failed(&error))?;
    let digest = sha256(proof.key_authorization.as_bytes());
    params.custom_extensions.push(CustomExtension::new_acme_identifier(&digest));
    let key = KeyPair::generate().map_err(|error| failed(&error))?;
    let certificate = params.self_signed(&key).map_err(|error| failed(&error))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = provider().key_provider.load_private_key(key).map_err(|error| failed(&error))?;
    // Not checked against each other: the library knows no critical extension of this kind.
    let shown = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut settings = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])
        .map_err(|error| failed(&error))?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shown)));
    settings.alpn_protocols = vec![ACME_TLS.to_vec()];
    Ok(settings)
}
