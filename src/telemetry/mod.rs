//! What operators see: metrics and logs.
//!
//! The rules for logs: a failure is logged once, where it is handled; fields are dotted
//! (`user.id`); query strings, attempted names, bodies, tokens and connection strings are never
//! logged.

mod log;
mod metrics;

pub use log::{ACCESS_TARGET, LogGuard, LogSettings, init};
pub use metrics::{MethodLabel, Metrics, RequestLabels};
