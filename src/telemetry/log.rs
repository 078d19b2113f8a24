//! Setting up the log.

use std::io::IsTerminal;

use tracing::Level;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt};

use super::access_log::{AccessLog, Writer, standard_error};

/// Lines that may wait for a slow reader of the log before further ones are dropped: the request
/// path never waits for the log.
const MAX_WAITING_LINES: usize = 65_536;

/// Writes the remaining lines when it is dropped.
pub struct LogGuard {
    access: Option<Writer>,
    level: LevelHandle,
    lost: ErrorCounter,
    _worker: WorkerGuard,
}

/// Installs the log.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    /// The least severe level.
    pub level: Level,
    /// JSON or not; by default text for a terminal and JSON otherwise.
    pub json: Option<bool>,
    /// Whether each request leaves a line.
    pub access: bool,
}

/// What the gateway logs through, beside events.
#[derive(Clone)]
pub struct Logs {
    /// The access log, unless it is switched off.
    pub access: Option<AccessLog>,
    /// The least severe level.
    pub level: LevelHandle,
    lost: ErrorCounter,
}

/// Sets the least severe level while the process runs.
#[derive(Clone)]
pub struct LevelHandle(reload::Handle<EnvFilter, Registry>);

impl LevelHandle {
    /// Sets it.
    pub fn set(&self, level: Level) {
        // It fails when nobody logs any more.
        let _ = self.0.reload(filter(level));
    }
}

fn filter(level: Level) -> EnvFilter {
    // What the engine says of its own life cycle is of no use to an operator.
    EnvFilter::new(format!(
        "{level},pingora_core=warn,refinery_core=warn,tokio_postgres=warn,hyper=warn,h2=warn,rustls=error"
    ))
}

impl Logs {
    /// How many lines were lost so far, of any kind.
    pub fn lost(&self) -> u64 {
        let events = self.lost.dropped_lines() as u64;
        events + self.access.as_ref().map_or(0, AccessLog::lost)
    }
}

impl LogGuard {
    /// What the gateway logs through.
    pub fn logs(&self) -> Logs {
        let access = self.access.as_ref().map(|writer| writer.log().clone());
        Logs { access, level: self.level.clone(), lost: self.lost.clone() }
    }
}

/// Starts logging to standard error.
pub fn init(log: LogSettings) -> LogGuard {
    let (writer, worker): (NonBlocking, _) = NonBlockingBuilder::default()
        .buffered_lines_limit(MAX_WAITING_LINES)
        .lossy(true)
        .finish(std::io::stderr());
    let lost = writer.error_counter();
    let (filter, handle) = reload::Layer::new(filter(log.level));
    let json = log.json.unwrap_or_else(|| !std::io::stderr().is_terminal());
    let registry = tracing_subscriber::registry().with(filter);
    // A second call, as in a test that starts two gateways in one process, keeps the first log.
    let _ = if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(writer)).try_init()
    } else {
        registry.with(fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(writer)).try_init()
    };
    let access = log.access.then(|| Writer::start(json, standard_error));
    let access = access.and_then(|started| {
        started.inspect_err(|error| tracing::error!(%error, "the access log could not be started")).ok()
    });
    LogGuard { access, level: LevelHandle(handle), lost, _worker: worker }
}
