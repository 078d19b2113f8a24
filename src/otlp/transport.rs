//! The way to a receiver: one connection for each batch, since batches are few.

use std::{io, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Full, Limited};
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
    config::{self, HttpUrl, OtlpProtocol},
    tls::{ClientTls, Offer, TlsError},
};

/// For a whole export.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The largest response that is read, in bytes.
const MAX_RESPONSE: usize = 64 << 10;

/// The method of the collector's service (opentelemetry-proto, trace_service.proto).
const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Where the collector takes traces by HTTP (OTLP, section "OTLP/HTTP Request").
const HTTP_PATH: &str = "/v1/traces";

/// Statuses by HTTP that may pass (OTLP, section "Retryable Response Codes").
const PASSING_STATUSES: [u16; 4] = [429, 502, 503, 504];

/// Statuses by gRPC that may pass: cancelled, deadline exceeded, aborted, out of range, unavailable and data loss (OTLP, section
/// "Failures").
const PASSING_CODES: [&str; 6] = ["1", "4", "10", "11", "14", "15"];

/// Why a batch could not be exported.
#[derive(Debug, Error)]
pub(super) enum ExportError {
    /// There was no connection.
    #[error("{0}")]
    Connection(#[from] io::Error),
    /// The receiver spoke no HTTP.
    #[error("{0}")]
    Http(#[from] hyper::Error),
    /// The request could not be written.
    #[error("{0}")]
    Request(#[from] http::Error),
    /// The receiver did not take it.
    #[error("it responded with {0}")]
    Status(StatusCode),
    /// The receiver did not take it, by its `grpc-status`.
    #[error("it responded with grpc-status {0}")]
    Code(String),
    /// The response is too large, or broke off.
    #[error("its response is too large or broke off")]
    Response,
    /// It took too long.
    #[error("it did not respond within 10 s")]
    Timeout,
}

impl ExportError {
    /// Returns whether the same batch may be taken later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Status(status) => PASSING_STATUSES.contains(&status.as_u16()),
            Self::Code(code) => PASSING_CODES.contains(&code.as_str()),
            Self::Request(_) => false,
            Self::Connection(_) | Self::Http(_) | Self::Response | Self::Timeout => true,
        }
    }
}

/// The way to a receiver.
#[derive(Debug)]
pub struct Transport {
    endpoint: HttpUrl,
    protocol: OtlpProtocol,
    headers: HeaderMap,
    tls: ClientTls,
}

impl Transport {
    /// Creates the way that a config describes. No connection is made yet.
    ///
    /// # Errors
    /// When its files cannot be used.
    pub fn new(config: &config::Otlp) -> Result<Self, (config::Source, TlsError)> {
        let endpoint = match config.protocol {
            OtlpProtocol::Grpc => config.endpoint.below(GRPC_PATH),
            OtlpProtocol::Http => config.endpoint.below(HTTP_PATH),
        };
        let headers = config.headers.iter().cloned().collect();
        Ok(Self { endpoint, protocol: config.protocol, headers, tls: ClientTls::load(&config.tls)? })
    }

    /// Exports a batch. Returns the message that is the response.
    pub(super) async fn export(&self, batch: Bytes) -> Result<Bytes, ExportError> {
        timeout(TIMEOUT, self.exchange(batch)).await.map_err(|_| ExportError::Timeout)?
    }

    async fn exchange(&self, batch: Bytes) -> Result<Bytes, ExportError> {
        let offer = match self.protocol {
            OtlpProtocol::Grpc => Offer::Http2,
            OtlpProtocol::Http => Offer::Http1,
        };
        let socket = connect(&self.endpoint).await?;
        if self.endpoint.is_https {
            let (stream, _) = self.tls.connect(socket, &self.endpoint.host, offer).await?;
            self.send(stream, batch).await
        } else {
            self.send(socket, batch).await
        }
    }

    async fn send<S>(&self, stream: S, batch: Bytes) -> Result<Bytes, ExportError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        match self.protocol {
            OtlpProtocol::Grpc => {
                let request = self.grpc(batch)?;
                let (mut sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                driven(connection, async { grpc_response(sender.send_request(request).await?).await }).await
            }
            OtlpProtocol::Http => {
                let request = self.http(batch)?;
                let (mut sender, connection) = http1::handshake(stream).await?;
                driven(connection, async { http_response(sender.send_request(request).await?).await }).await
            }
        }
    }

    fn http(&self, batch: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(&self.endpoint.target)
            .header(header::HOST, &self.endpoint.authority)
            .body(Full::new(batch))?;
        self.add_headers(request.headers_mut(), "application/x-protobuf");
        Ok(request)
    }

    /// A call of one message (gRPC over HTTP/2, section "Requests").
    fn grpc(&self, batch: Bytes) -> Result<Request<Full<Bytes>>, http::Error> {
        let scheme = if self.endpoint.is_https { "https" } else { "http" };
        let uri = format!("{scheme}://{}{}", self.endpoint.authority, self.endpoint.target);
        let mut message = BytesMut::with_capacity(batch.len() + 5);
        message.put_u8(0);
        message.put_u32(u32::try_from(batch.len()).unwrap_or(u32::MAX));
        message.put(batch);
        let mut request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(uri)
            .header(header::TE, "trailers")
            .body(Full::new(message.freeze()))?;
        self.add_headers(request.headers_mut(), "application/grpc");
        Ok(request)
    }

    fn add_headers(&self, headers: &mut HeaderMap, content_type: &'static str) {
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(concat!("authgate/", env!("CARGO_PKG_VERSION"))),
        );
        for (name, value) in &self.headers {
            headers.insert(name, value.clone());
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
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

/// Drives a connection beside the exchange on it, with which it ends.
async fn driven<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    exchange: impl Future<Output = Result<T, ExportError>>,
) -> Result<T, ExportError> {
    let ended = async {
        let _ = connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        exchanged = exchange => exchanged,
        () = ended => Err(ExportError::Response),
    }
}

async fn http_response(response: Response<Incoming>) -> Result<Bytes, ExportError> {
    if !response.status().is_success() {
        return Err(ExportError::Status(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_RESPONSE).collect().await;
    Ok(body.map_err(|_| ExportError::Response)?.to_bytes())
}

async fn grpc_response(response: Response<Incoming>) -> Result<Bytes, ExportError> {
    const STATUS: &str = "grpc-status";
    if response.status() != StatusCode::OK {
        return Err(ExportError::Status(response.status()));
    }
    let code = |headers: &HeaderMap| {
        Some(headers.get(STATUS)?.to_str().unwrap_or_default().chars().take(3).collect::<String>())
    };
    let in_head = code(response.headers());
    let body = Limited::new(response.into_body(), MAX_RESPONSE).collect().await;
    let body = body.map_err(|_| ExportError::Response)?;
    let code = in_head.or_else(|| code(body.trailers()?)).ok_or(ExportError::Response)?;
    if code != "0" {
        return Err(ExportError::Code(code));
    }
    let message = body.to_bytes();
    Ok(if message.len() > 5 { message.slice(5..) } else { Bytes::new() })
}
