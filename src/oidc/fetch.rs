//! Short documents by HTTP, from addresses that an operator chose.

use std::{io, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use crate::{
    config::{self, HttpUrl},
    tls::{ClientTls, Offer, TlsError},
    types::Secret,
};

/// For a whole fetch.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The largest document, in bytes.
const MAX_BODY: usize = 256 << 10;

/// The largest one that another gateway tells.
const MAX_LARGE_BODY: usize = 64 << 20;

/// The largest head of a response, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// Why a document could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// There was no connection.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// The server spoke no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The response is none that was asked for.
    #[error("it responded with {0}")]
    Status(StatusCode),
    /// The response is too large, or broke off.
    #[error("its response is too large or broke off")]
    Body,
    /// It took too long.
    #[error("it did not respond within 5 s")]
    Timeout,
    /// The request could not be written.
    #[error("{0}")]
    Request(#[from] http::Error),
}

/// Fetches documents. A response that is not 200 is an error; a redirect, too.
#[derive(Debug)]
pub struct Fetcher {
    tls: ClientTls,
}

impl Fetcher {
    /// Creates a fetcher that believes the authorities of `tls`.
    ///
    /// # Errors
    /// When its files cannot be used.
    pub fn new(tls: &config::UpstreamTls) -> Result<Self, (config::Source, TlsError)> {
        Ok(Self { tls: ClientTls::load(tls)? })
    }

    /// Returns what tells its files from others.
    pub fn digest(&self) -> u64 {
        self.tls.digest()
    }

    /// Fetches a document.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get(&self, url: &HttpUrl) -> Result<Bytes, FetchError> {
        let request = base(url, Method::GET).body(Full::default())?;
        self.fetch(url, request).await
    }

    /// Fetches a document that may be large.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn get_large(&self, url: &HttpUrl) -> Result<Bytes, FetchError> {
        let request = base(url, Method::GET).body(Full::default())?;
        self.fetch_up_to(MAX_LARGE_BODY, url, request).await
    }

    /// Sends a form with the credentials of a client (RFC 6749, section 2.3.1). Returns the document that is the response.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn post(
        &self,
        url: &HttpUrl,
        form: &[(&str, &str)],
        client_id: &str,
        secret: &Secret,
    ) -> Result<Bytes, FetchError> {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let credentials = format!("{}:{}", encode(client_id), encode(secret.expose()));
        let mut basic = HeaderValue::try_from(format!("Basic {}", STANDARD.encode(credentials)))
            .map_err(http::Error::from)?;
        basic.set_sensitive(true);
        let body = serde_urlencoded::to_string(form).unwrap_or_default();
        let request = base(url, Method::POST)
            .header(header::AUTHORIZATION, basic)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::from(body))?;
        self.fetch(url, request).await
    }

    async fn fetch(&self, url: &HttpUrl, request: Request<Full<Bytes>>) -> Result<Bytes, FetchError> {
        self.fetch_up_to(MAX_BODY, url, request).await
    }

    async fn fetch_up_to(
        &self,
        most: usize,
        url: &HttpUrl,
        request: Request<Full<Bytes>>,
    ) -> Result<Bytes, FetchError> {
        let fetched = async {
            let socket = connect(url).await?;
            if url.is_https {
                let (stream, _) = self.tls.connect(socket, &url.host, Offer::Http1).await?;
                exchange(stream, request, most).await
            } else {
                exchange(socket, request, most).await
            }
        };
        timeout(TIMEOUT, fetched).await.map_err(|_| FetchError::Timeout)?
    }
}

fn base(url: &HttpUrl, method: Method) -> http::request::Builder {
    Request::builder()
        .method(method)
        .uri(&url.target)
        .header(header::HOST, &url.authority)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, concat!("authgate/", env!("CARGO_PKG_VERSION")))
}

async fn connect(url: &HttpUrl) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "its name has no address");
    for address in lookup_host((url.host.as_str(), url.port)).await? {
        match TcpStream::connect(address).await {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, most: usize) -> Result<Bytes, FetchError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await?;
    let response = async {
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(FetchError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), most).collect().await;
        Ok(body.map_err(|_| FetchError::Body)?.to_bytes())
    };
    // The connection has to be driven beside the response, and ends with it.
    let driven = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        response = response => response,
        () = driven => Err(FetchError::Body),
    }
}
