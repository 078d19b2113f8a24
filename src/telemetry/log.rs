//! Setting up the log.

use std::io::IsTerminal;

use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::{Log, LogFormat, LogLevel};

/// The target of the line that each request leaves.
pub const ACCESS_TARGET: &str = "access";

/// Lines that may wait for a slow reader of the log before further ones are dropped: the request
/// path never waits for the log.
const MAX_WAITING_LINES: usize = 65_536;

/// Writes out what is still waiting when it is dropped.
pub struct LogGuard {
    _worker: Option<WorkerGuard>,
}

/// Starts logging to standard error.
pub fn init(log: &Log) -> LogGuard {
    let (writer, worker): (NonBlocking, _) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_WAITING_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let level = match log.level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
    };
    let access = if log.access { "info" } else { "off" };
    // What the engine says of its own life cycle is of no use to an operator.
    let filter = EnvFilter::new(format!(
        "{level},pingora_core=warn,refinery_core=warn,tokio_postgres=warn,hyper=warn,{ACCESS_TARGET}={access}"
    ));
    let text = match log.format {
        LogFormat::Auto => std::io::stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let registry = tracing_subscriber::registry().with(filter);
    // A second call, as in a test that starts two gateways in one process, keeps the first log.
    let _ = if text {
        registry.with(fmt::layer().with_writer(writer)).try_init()
    } else {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init()
    };
    LogGuard { _worker: Some(worker) }
}
