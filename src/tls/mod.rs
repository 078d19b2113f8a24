//! TLS: certificates, and the settings by which connections are made with them.

mod accept;
mod certificate;
mod client;
mod names;
mod server;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use accept::{AcceptError, Secured, accept};
pub use client::{ClientTls, Offer};
pub use names::Names;
pub use server::{Refreshed, ServerTls, Shown, TlsError};

/// The one implementation of cryptography in this program.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}
