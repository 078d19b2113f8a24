//! The gateway's own requests by HTTP: to issuers, certificate authorities and what takes its telemetry. One connection for each,
//! since they are few; no redirect is followed.

use std::{future::Future, io, time::Duration};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    time::timeout,
};

use crate::{
    config::{self, HttpUrl},
    tls::{ClientTls, Offer, TlsError},
};

/// `User-Agent`.
const USER_AGENT: &str = concat!("authgate/", env!("CARGO_PKG_VERSION"));

/// The largest head of a response, in bytes.
const MAX_HEAD: usize = 64 << 10;

/// Why there is no response.
#[derive(Debug, Error)]
pub enum HttpError {
    /// There was no connection.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// The server spoke no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The request could not be written.
    #[error("{0}")]
    Request(#[from] http::Error),
    /// The response is too large, or broke off.
    #[error("its response is too large or broke off")]
    Body,
    /// It took too long.
    #[error("it did not respond within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// The version of HTTP that a request is sent by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without TLS by prior knowledge.
    Http2,
}

/// What a response may be.
#[derive(Debug, Clone, Copy)]
pub struct ResponseBounds {
    /// The largest body, in bytes; with 0 none is read, and the head is all that matters.
    pub body: usize,
    /// The longest time for the whole exchange.
    pub timeout: Duration,
}

/// Sends requests.
#[derive(Debug)]
pub struct HttpClient {
    tls: ClientTls,
}

impl HttpClient {
    /// Creates a client that believes the authorities of `tls`.
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

    /// Sends a request to the server of `url`, whose target and `Host` are set by it. Returns the whole response.
    ///
    /// # Errors
    /// [`HttpError`]. A status is none.
    pub async fn send(
        &self,
        url: &HttpUrl,
        version: HttpVersion,
        mut request: Request<Full<Bytes>>,
        bounds: ResponseBounds,
    ) -> Result<Response<Collected<Bytes>>, HttpError> {
        let user_agent = http::HeaderValue::from_static(USER_AGENT);
        request.headers_mut().insert(header::USER_AGENT, user_agent);
        let offer = match version {
            HttpVersion::Http1 => {
                let host = http::HeaderValue::try_from(&url.authority).map_err(http::Error::from)?;
                request.headers_mut().insert(header::HOST, host);
                *request.uri_mut() = url.target.parse().map_err(http::Error::from)?;
                Offer::Http1
            }
            HttpVersion::Http2 => {
                let scheme = if url.is_https { "https" } else { "http" };
                let uri = format!("{scheme}://{}{}", url.authority, url.target);
                *request.uri_mut() = uri.parse().map_err(http::Error::from)?;
                *request.version_mut() = http::Version::HTTP_2;
                Offer::Http2
            }
        };
        let sent = async {
            let socket = connect(url).await?;
            if url.is_https {
                let (stream, _) = self.tls.connect(socket, &url.host, offer).await?;
                exchange(stream, version, request, bounds.body).await
            } else {
                exchange(socket, version, request, bounds.body).await
            }
        };
        timeout(bounds.timeout, sent).await.map_err(|_| HttpError::Timeout(bounds.timeout))?
    }
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

async fn exchange<S>(
    stream: S,
    version: HttpVersion,
    request: Request<Full<Bytes>>,
    most: usize,
) -> Result<Response<Collected<Bytes>>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let stream = TokioIo::new(stream);
    match version {
        HttpVersion::Http1 => {
            let (mut sender, connection) =
                http1::Builder::new().max_buf_size(MAX_HEAD).handshake(stream).await?;
            driven(connection, async { whole(sender.send_request(request).await?, most).await }).await
        }
        HttpVersion::Http2 => {
            let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
                .max_header_list_size(MAX_HEAD as u32)
                .handshake(stream)
                .await?;
            driven(connection, async { whole(sender.send_request(request).await?, most).await }).await
        }
    }
}

/// Drives a connection beside the exchange on it, with which it ends.
async fn driven<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    exchange: impl Future<Output = Result<T, HttpError>>,
) -> Result<T, HttpError> {
    let ended = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        exchanged = exchange => exchanged,
        () = ended => Err(HttpError::Body),
    }
}

async fn whole(response: Response<Incoming>, most: usize) -> Result<Response<Collected<Bytes>>, HttpError> {
    let (head, body) = response.into_parts();
    if most == 0 {
        let Ok(none) = Full::new(Bytes::new()).collect().await;
        return Ok(Response::from_parts(head, none));
    }
    let body = Limited::new(body, most).collect().await.map_err(|_| HttpError::Body)?;
    Ok(Response::from_parts(head, body))
}
