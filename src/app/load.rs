//! A config with its compiled routes.

use std::path::Path;

use tracing::Level;

use crate::{
    account::MailWorker,
    auth_api,
    config::{self, Config, ConfigError, ConfigErrors, LogFormat, LogLevel, Pattern},
    route::{Builtin, Table},
    telemetry::LogSettings,
};

/// A config that can be served.
#[derive(Debug)]
pub struct LoadedGateway {
    /// The config.
    pub config: Config,
    /// Its routes.
    pub routes: Table,
    /// Warnings about legal but unwise settings.
    pub warnings: Vec<String>,
}

/// Reads and compiles the config at `path`.
///
/// # Errors
/// Every error that was found.
pub fn load(path: &Path) -> Result<LoadedGateway, ConfigErrors> {
    compile(config::load_file(path, &further)?)
}

/// The errors that no single place of a config can be checked for.
pub(super) fn further(config: &Config) -> Vec<ConfigError> {
    let mail =
        config.auth.email.as_ref().and_then(|email| {
            MailWorker::check(email).err().map(|error| email.source.error(error.to_string()))
        });
    let routes = Table::compile(&config.routes, &config.auth.path, builtin_calls(&config.auth.path));
    mail.into_iter().chain(routes.err().map(|ConfigErrors(errors)| errors).unwrap_or_default()).collect()
}

/// Compiles the routes of a config.
///
/// # Errors
/// Every error among the routes.
pub(super) fn compile(loaded: config::Loaded) -> Result<LoadedGateway, ConfigErrors> {
    let config = loaded.config;
    let routes = Table::compile(&config.routes, &config.auth.path, builtin_calls(&config.auth.path))?;
    Ok(LoadedGateway { config, routes, warnings: loaded.warnings })
}

fn builtin_calls(mount: &str) -> Vec<Builtin> {
    auth_api::calls()
        .into_iter()
        .filter_map(|call| {
            // The paths are constants below a mount that was checked.
            let pattern = Pattern::parse(&format!("{mount}{}", call.path)).ok()?;
            Some(Builtin { method: call.method, pattern })
        })
        .collect()
}

/// Converts the log settings of a config for telemetry.
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
