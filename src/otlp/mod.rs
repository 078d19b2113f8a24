//! Exporting traces by the OpenTelemetry protocol (OTLP 1.x), over gRPC or HTTP.
//!
//! Requests wait in a bounded queue and leave in batches. Nothing waits for a receiver that is away or slow: what does not fit is lost,
//! and counted.

mod exporter;
mod message;
mod transport;

pub use exporter::Exporter;
pub use transport::Transport;
