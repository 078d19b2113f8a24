//! Setting up the log.

use std::io::IsTerminal;

use tracing::Level;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// The target of the line that each request leaves.
pub const ACCESS_TARGET: &str = "access";

/// Lines that may wait for a slow reader of the log before further ones are dropped: the request
/// path never waits for the log.
const MAX_WAITING_LINES: usize = 65_536;

/// Writes out what is still waiting when it is dropped.
pub struct LogGuard {
    _worker: WorkerGuard,
}

/// What is logged and how.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    /// The least severe level.
    pub level: Level,
    /// JSON or not; by default text for a terminal and JSON otherwise.
    pub json: Option<bool>,
    /// Whether each request leaves a line.
    pub access: bool,
}

/// Starts logging to standard error.
pub fn init(log: LogSettings) -> LogGuard {
    let (writer, worker): (NonBlocking, _) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_WAITING_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let level = log.level;
    let access = if log.access { "info" } else { "off" };
    // What the engine says of its own life cycle is of no use to an operator.
    let filter = EnvFilter::new(format!(
        "{level},pingora_core=warn,refinery_core=warn,tokio_postgres=warn,hyper=warn,{ACCESS_TARGET}={access}"
    ));
    let json = log.json.unwrap_or_else(|| !std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    // A second call, as in a test that starts two gateways in one process, keeps the first log.
    let _ = if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init()
    } else {
        registry.with(fmt::layer().with_writer(writer)).try_init()
    };
    LogGuard { _worker: worker }
}
