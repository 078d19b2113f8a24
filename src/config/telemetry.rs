//! Traces of requests.

use http::{HeaderName, HeaderValue};

pub use super::raw::OtlpProtocol;
use super::{HttpUrl, UpstreamTls};

/// Traces of requests.
#[derive(Debug, Clone)]
pub struct Telemetry {
    /// Whether a request without a valid `traceparent` gets one.
    pub traceparent: bool,
    /// Where traces are exported to, if anywhere.
    pub otlp: Option<Otlp>,
}

/// A receiver of traces.
#[derive(Debug, Clone)]
pub struct Otlp {
    /// Its address, without the path of a signal.
    pub endpoint: HttpUrl,
    /// How exports are transported.
    pub protocol: OtlpProtocol,
    /// Headers that each export carries. Their values are sensitive.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The share of requests that are exported, from 0 to 1.
    pub sample: f64,
    /// `service.name` of the resource.
    pub service_name: String,
    /// TLS to it.
    pub tls: UpstreamTls,
}
