//! TLS to the servers of an upstream. The name of a server is verified, always.

use std::{io, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName, sign::SingleCertAndKey};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::{
    TlsError,
    certificate::{Pair, PairBytes, authorities, read},
    provider,
};
use crate::config;

/// The protocols that servers are spoken to in, by their names in ALPN.
const PROTOCOLS: &[&[u8]] = &[b"http/1.1"];

/// TLS to the servers of an upstream.
#[derive(Debug)]
pub struct ClientTls {
    settings: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl ClientTls {
    /// Reads the files of `config`.
    ///
    /// # Errors
    /// Each that cannot be used, with where it stands in the config.
    pub fn load(config: &config::UpstreamTls) -> Result<Self, (config::Source, TlsError)> {
        let source = || config.source.clone();
        let roots = match &config.ca {
            Some(path) => {
                read(path).and_then(|bytes| authorities(&bytes, path)).map_err(|error| (source(), error))?
            }
            None => {
                let mut roots = RootCertStore::empty();
                // What of them cannot be read is missed when a certificate is not accepted.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
                roots
            }
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| (source(), TlsError(error.to_string())))?
            .with_root_certificates(roots);
        let mut settings = match &config.own {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let pair = PairBytes::read(files).and_then(|bytes| Pair::parse(&bytes, files));
                let pair = pair.map_err(|error| (files.source.clone(), error))?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair.key)))
            }
        };
        settings.alpn_protocols = PROTOCOLS.iter().map(|name| name.to_vec()).collect();
        // The config was checked for a name that is none.
        let name = config.name.as_ref().and_then(|name| ServerName::try_from(name.clone()).ok());
        Ok(Self { settings: Arc::new(settings), name })
    }

    /// Shakes hands with a server, which must be `host` unless the config names another one.
    ///
    /// # Errors
    /// When it is not, or does not agree.
    pub async fn connect(&self, socket: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let stream = TlsConnector::from(self.settings.clone()).connect(name, socket).await?;
        Ok(stream.into())
    }
}
