//! The way to a receiver, by gRPC or by HTTP.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{Collected, Full};
use thiserror::Error;

use crate::{
    config::{self, HttpUrl, OtlpProtocol},
    http_client::{HttpClient, HttpError, HttpVersion, ResponseBounds},
    tls::TlsError,
    types::grpc_message,
};

const BOUNDS: ResponseBounds = ResponseBounds { body: 64 << 10, timeout: Duration::from_secs(10) };

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
    /// There was no response.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The request could not be written.
    #[error("{0}")]
    Request(#[from] http::Error),
    /// The receiver did not take it.
    #[error("it responded with {0}")]
    Status(StatusCode),
    /// The receiver did not take it, by its `grpc-status`; empty if it has none.
    #[error("it responded with grpc-status {0}")]
    Code(String),
}

impl ExportError {
    /// Returns whether the same batch may be taken later.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Status(status) => PASSING_STATUSES.contains(&status.as_u16()),
            Self::Code(code) => code.is_empty() || PASSING_CODES.contains(&code.as_str()),
            Self::Request(_) | Self::Http(HttpError::Request(_)) => false,
            Self::Http(_) => true,
        }
    }
}

/// The way to a receiver.
#[derive(Debug)]
pub struct Transport {
    url: HttpUrl,
    protocol: OtlpProtocol,
    headers: HeaderMap,
    client: HttpClient,
}

impl Transport {
    /// Creates the way that a config describes. No connection is made yet.
    ///
    /// # Errors
    /// When its files cannot be used.
    pub fn new(config: &config::Otlp) -> Result<Self, (config::Source, TlsError)> {
        let path = match config.protocol {
            OtlpProtocol::Grpc => GRPC_PATH,
            OtlpProtocol::Http => HTTP_PATH,
        };
        Ok(Self {
            url: config.endpoint.below(path),
            protocol: config.protocol,
            headers: config.headers.iter().cloned().collect(),
            client: HttpClient::new(&config.tls)?,
        })
    }

    /// Exports a batch. Returns the message that is the response.
    pub(super) async fn export(&self, batch: Bytes) -> Result<Bytes, ExportError> {
        match self.protocol {
            OtlpProtocol::Grpc => {
                let mut request = self.request(grpc_message::body_of(&batch), "application/grpc")?;
                request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
                let response = self.client.send(&self.url, HttpVersion::Http2, request, BOUNDS).await?;
                message_of(response)
            }
            OtlpProtocol::Http => {
                let request = self.request(batch, "application/x-protobuf")?;
                let response = self.client.send(&self.url, HttpVersion::Http1, request, BOUNDS).await?;
                let status = response.status();
                status
                    .is_success()
                    .then(|| response.into_body().to_bytes())
                    .ok_or(ExportError::Status(status))
            }
        }
    }

    fn request(&self, body: Bytes, content_type: &'static str) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut request = Request::builder().method(Method::POST).body(Full::new(body))?;
        *request.headers_mut() = self.headers.clone();
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        Ok(request)
    }
}

/// Returns the message that a call is responded to with; empty if there is none that can be read.
fn message_of(response: Response<Collected<Bytes>>) -> Result<Bytes, ExportError> {
    if response.status() != StatusCode::OK {
        return Err(ExportError::Status(response.status()));
    }
    let code = |headers: &HeaderMap| {
        Some(headers.get("grpc-status")?.to_str().unwrap_or_default().chars().take(3).collect::<String>())
    };
    let in_head = code(response.headers());
    let body = response.into_body();
    let code = in_head.or_else(|| code(body.trailers()?)).unwrap_or_default();
    if code != "0" {
        return Err(ExportError::Code(code));
    }
    Ok(grpc_message::only_message(body.to_bytes()).unwrap_or_default())
}
