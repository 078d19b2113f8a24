//! A config with its compiled routes.

use std::path::Path;

use tracing::Level;

use crate::{
    account::Postman,
    auth_api,
    config::{self, Config, Fault, Faults, LogFormat, LogLevel, Pattern},
    route::{Owned, Table},
    telemetry::LogSettings,
};

/// A config that can be served.
#[derive(Debug)]
pub struct LoadedGateway {
    /// The config.
    pub config: Config,
    /// Its routes.
    pub routes: Table,
    /// What is legal but unwise.
    pub warnings: Vec<String>,
}

/// Reads and compiles the config at `path`.
///
/// # Errors
/// Every fault that was found.
pub fn load(path: &Path) -> Result<LoadedGateway, Faults> {
    compile(config::load_file(path, &further)?)
}

/// The faults that no single place of a config can be checked for.
pub(super) fn further(config: &Config) -> Vec<Fault> {
    let mail = config
        .auth
        .email
        .as_ref()
        .and_then(|email| Postman::check(email).err().map(|error| email.source.fault(error.to_string())));
    let routes = Table::compile(&config.routes, &config.auth.path, own_calls(&config.auth.path));
    mail.into_iter().chain(routes.err().map(|Faults(faults)| faults).unwrap_or_default()).collect()
}

/// Compiles the routes of a config.
///
/// # Errors
/// Every fault among the routes.
pub(super) fn compile(loaded: config::Loaded) -> Result<LoadedGateway, Faults> {
    let config = loaded.config;
    let routes = Table::compile(&config.routes, &config.auth.path, own_calls(&config.auth.path))?;
    Ok(LoadedGateway { config, routes, warnings: loaded.warnings })
}

fn own_calls(mount: &str) -> Vec<Owned> {
    auth_api::calls()
        .into_iter()
        .filter_map(|call| {
            // The paths are constants below a mount that was checked.
            let pattern = Pattern::parse(&format!("{mount}{}", call.path)).ok()?;
            Some(Owned { method: call.method, pattern })
        })
        .collect()
}

/// What a config says of logging, as telemetry takes it.
pub fn log_settings(log: &config::Log) -> LogSettings {
    LogSettings {
        level: match log.level {
            LogLevel::Error => Level::ERROR,
            LogLevel::Warn => Level::WARN,
            LogLevel::Info => Level::INFO,
            LogLevel::Debug => Level::DEBUG,
        },
        json: match log.format {
            LogFormat::Auto => None,
            LogFormat::Text => Some(false),
            LogFormat::Json => Some(true),
        },
        access: log.access,
    }
}
