//! TLS to the servers of an upstream. The name of a server is verified, always.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    sync::Arc,
};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName, sign::SingleCertAndKey};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::{
    TlsError,
    certificate::{Pair, PairBytes, authorities, read},
    provider,
};
use crate::config;

/// The protocols that a server is offered, by their names in ALPN (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// Both: it chooses.
    Either,
    /// HTTP/2 alone.
    Http2,
    /// HTTP/1.1 alone.
    Http1,
}

const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// TLS to the servers of an upstream.
#[derive(Debug)]
pub struct ClientTls {
    either: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
    http1: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
    /// What the files said, in short.
    digest: u64,
}

impl ClientTls {
    /// Reads the files of `config`.
    ///
    /// # Errors
    /// Each that cannot be used, with where it stands in the config.
    pub fn load(config: &config::UpstreamTls) -> Result<Self, (config::Source, TlsError)> {
        let source = || config.source.clone();
        let mut digest = DefaultHasher::new();
        let mut roots = match &config.ca {
            Some(path) => {
                let bytes = read(path).map_err(|error| (source(), error))?;
                bytes.hash(&mut digest);
                authorities(&bytes, path).map_err(|error| (source(), error))?
            }
            None => RootCertStore::empty(),
        };
        if config.ca.is_none() || config.beside_system {
            // What of them cannot be read is missed when a certificate is not accepted.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| (source(), TlsError(error.to_string())))?
            .with_root_certificates(roots);
        let settings = match &config.own {
            None => builder.with_no_client_auth(),
            Some(files) => {
                let bytes = PairBytes::read(files).map_err(|error| (files.source.clone(), error))?;
                bytes.hash(&mut digest);
                let pair = Pair::parse(&bytes, files).map_err(|error| (files.source.clone(), error))?;
                builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair.key)))
            }
        };
        let offering = |names: &[&[u8]]| {
            let mut settings = settings.clone();
            settings.alpn_protocols = names.iter().map(|name| name.to_vec()).collect();
            Arc::new(settings)
        };
        // The config was checked for a name that is none.
        let name = config.name.as_ref().and_then(|name| ServerName::try_from(name.clone()).ok());
        let (either, http2, http1) = (offering(&[HTTP2, HTTP1]), offering(&[HTTP2]), offering(&[HTTP1]));
        Ok(Self { either, http2, http1, name, digest: digest.finish() })
    }

    /// Returns what tells the contents of the files from others.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Returns whether the files of both say the same.
    pub fn is_like(&self, other: &Self) -> bool {
        self.digest == other.digest
    }

    /// Shakes hands with a server, which must be `host` unless the config names another one. Returns whether HTTP/2 was
    /// agreed on.
    ///
    /// # Errors
    /// When it is another one, or does not agree.
    pub async fn connect(
        &self,
        socket: TcpStream,
        host: &str,
        offer: Offer,
    ) -> io::Result<(TlsStream<TcpStream>, bool)> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        let settings = match offer {
            Offer::Either => &self.either,
            Offer::Http2 => &self.http2,
            Offer::Http1 => &self.http1,
        };
        let stream = TlsConnector::from(settings.clone()).connect(name, socket).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP2);
        if offer == Offer::Http2 && !is_http2 {
            return Err(io::Error::other("the server does not speak HTTP/2 any more"));
        }
        Ok((stream.into(), is_http2))
    }
}
