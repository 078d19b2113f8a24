//! What operators see: metrics and logs.
//!
//! The rules for logs: a failure is logged once, where it is handled; fields are dotted
//! (`user.id`); query strings, attempted names, bodies, tokens and connection strings are never
//! logged.

mod access_line;
mod access_log;
mod log;
mod metrics;
mod span;
mod warning;

pub use access_line::{AccessEntry, UpstreamEntry};
pub use access_log::AccessLog;
pub use log::{LevelHandle, LogGuard, LogSettings, Logs, init};
pub use metrics::{Meters, MethodLabel, Metrics, RequestLabels, UpstreamCounters};
pub use span::{RequestTrace, TraceQueue, TraceTry};
pub use warning::WarningLimit;
