//! TLS: certificates, and the settings by which connections are made with them.

mod accept;
mod certificate;
mod challenge;
mod client;
mod names;
mod server;

use std::sync::Arc;

use rustls::{
    CipherSuite,
    crypto::{CryptoProvider, aws_lc_rs},
};

pub use accept::{AcceptError, Secured, accept};
pub use certificate::Issued;
pub use challenge::{Challenges, Proof};
pub use client::{ClientTls, Offer};
pub use names::Names;
pub use server::{Refreshed, ServerTls, Shown, TlsError};

/// The one implementation of cryptography in this program, with the suites in the order in which a server prefers them:
/// AES-128 and SHA-256 first, which processors have instructions for. With SHA-384 a handshake takes half as long again.
fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let first = [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ];
        !first.contains(&suite.suite())
    });
    Arc::new(provider)
}
