//! The command line.

mod api_key;
mod args;
mod audit;
mod client;
mod import;
mod inspect;
mod key;
mod operator;
mod password_filter;
mod user;
mod webhook;

use std::{
    fmt::Display,
    io::{self, Write},
    path::Path,
    process::ExitCode,
    sync::Arc,
};

use clap::{CommandFactory, Parser};

use self::args::{Args, Command};
use crate::{
    app::{self, LoadedGateway},
    clock::SystemClock,
    telemetry::{self, LogSettings},
};

/// Refused: a bad config or bad input.
const REFUSED: u8 = 1;
/// `explain`: the request would be denied. `password-filter check`: the password would be.
const DENIED: u8 = 3;
/// `explain`: no route or method takes the request.
const NO_ROUTE: u8 = 4;

/// How a command ended.
type Outcome = Result<ExitCode, Refused>;

/// Why a command was refused, in words for whoever typed it.
struct Refused(String);

impl<E: Display> From<E> for Refused {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Runs the command that the process was started with.
pub fn run() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        // Help and version are no faults; everything else is one of usage, which exits with 2.
        Err(error) => error.exit(),
    };
    match dispatch(args.command) {
        Ok(code) => code,
        Err(Refused(reason)) => {
            // Nothing more can be said when standard error is gone.
            let _ = writeln!(io::stderr(), "{reason}");
            ExitCode::from(REFUSED)
        }
    }
}

fn dispatch(command: Command) -> Outcome {
    match command {
        Command::Demo(demo) => {
            app::demo(&demo.into())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Serve(serve) => {
            // Before anything else could be given one of its descriptors.
            let inherited = app::Inherited::take()?;
            let loaded = load(&serve.config.config)?;
            let log = telemetry::init(app::log_settings(&loaded.config.log));
            let pid_file = serve.pid.map(app::PidFile::new);
            let start = app::Start { inherited, pid_file, on_ready: None };
            app::serve(loaded, Some(serve.config.config), log.logs(), start)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Upgrade { pid } => {
            let serving = app::request_upgrade(&pid)?;
            print(&format!("Process {serving} serves.\n"))
        }
        Command::Check(check) => inspect::check(load(&check.config.config)?, check.against.as_deref()),
        Command::Explain(explain) => inspect::explain(&load(&explain.config.config)?, &explain),
        Command::Migrate(config) => migrate(load(&config.config)?),
        Command::User { command } => user::run(command),
        Command::ApiKey { command } => api_key::run(command),
        Command::Client { command } => client::run(command),
        Command::Webhook { command } => webhook::run(command),
        Command::Key { command } => key::run(command),
        Command::PasswordFilter { command } => password_filter::run(command),
        Command::Audit(audit) => audit::run(&audit),
        Command::Schema => print(&crate::config::json_schema()),
        Command::Postman => print(&format!("{:#}\n", app::collection())),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "authgate", &mut script);
            print(&String::from_utf8_lossy(&script))
        }
    }
}

fn load(path: &Path) -> Result<LoadedGateway, Refused> {
    Ok(app::load(path)?)
}

/// Commands beside `serve` log what goes wrong, and nothing else.
fn quiet_log() -> telemetry::LogGuard {
    telemetry::init(LogSettings { level: tracing::Level::WARN, json: Some(false), access: false })
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

fn migrate(mut loaded: LoadedGateway) -> Outcome {
    let _log = quiet_log();
    loaded.config.store.migrate = true;
    runtime()?.block_on(async {
        app::open_store(&loaded.config, Arc::new(SystemClock)).await?;
        print("The schema is up to date.\n")
    })
}

/// Writes to standard output; a reader that has gone away, such as `head`, is no failure.
fn print(text: &str) -> Outcome {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}
