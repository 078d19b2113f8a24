//! `telemetry` as it is written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    config::units::{Share, Switch},
    types::Secret,
};

/// Traces of requests (W3C Trace Context).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Whether a request without a valid `traceparent` gets one. With false, requests pass on what they came with. Default: true.
    pub traceparent: Option<Switch>,
    /// Where traces are exported to, by the OpenTelemetry protocol. Default: nowhere.
    pub otlp: Option<Otlp>,
}

/// A receiver of traces.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Otlp {
    /// Its address, such as http://collector:4317 for grpc or http://collector:4318 for http, where /v1/traces is appended.
    pub endpoint: String,
    /// grpc or http. Default: grpc.
    #[serde(default)]
    pub protocol: OtlpProtocol,
    /// Headers that each export carries.
    #[serde(default)]
    pub headers: BTreeMap<String, Secret>,
    /// The share of requests that are exported, unless a trusted proxy has decided. Default: 0.01.
    pub sample: Option<Share>,
    /// What the gateway is called in traces. Default: authgate.
    pub service_name: Option<String>,
    /// A PEM file with the authorities that its certificate may be of. Default: those of the system.
    pub ca: Option<String>,
}

/// How exports are transported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OtlpProtocol {
    /// By gRPC.
    #[default]
    Grpc,
    /// By POST of protobuf.
    Http,
}
