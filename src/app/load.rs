//! A config with its compiled routes.

use std::{path::Path, sync::Arc};

use http::Method;
use tracing::Level;

use crate::{
    account::MailWorker,
    auth_api::{self, METADATA},
    config::{self, Config, ConfigError, ConfigErrors, IssuerKeys, LogFormat, LogLevel, Pattern},
    http_client::HttpClient,
    oidc::{Fetcher, read_key_file},
    otlp::Transport,
    pages,
    password::{Breached, BreachedError, BreachedFile, HashError},
    route::{Builtin, Table},
    telemetry::LogSettings,
    tls::{ClientTls, ServerTls, TlsError},
    token::KeySet,
};

/// The protocols that clients may speak on TLS, by their names in ALPN.
const PROTOCOLS: &[&str] = &["h2", "http/1.1"];

/// A config that can be served.
#[derive(Debug)]
pub struct LoadedGateway {
    /// The config.
    pub config: Config,
    /// Its routes.
    pub routes: Table,
    /// TLS of its listeners, in their order.
    pub tls: Vec<Option<Arc<ServerTls>>>,
    /// TLS to its upstreams, in their order.
    pub upstream_tls: Vec<Option<Arc<ClientTls>>>,
    /// What fetches from the other issuers, in their order.
    pub fetchers: Vec<Fetcher>,
    /// What fetches from the providers, in their order.
    pub provider_fetchers: Vec<Fetcher>,
    /// The way to what takes traces.
    pub trace_transport: Option<Transport>,
    /// What reaches the receivers of events, in their order.
    pub webhook_clients: Vec<HttpClient>,
    /// What reaches the service that knows stolen passwords.
    pub breached_client: Option<HttpClient>,
    /// Pages for people with browsers, if there are any.
    pub pages: Option<pages::Loaded>,
    /// What reaches the certificate authority.
    pub acme_client: Option<Arc<HttpClient>>,
    /// TLS of the admin listener.
    pub admin_tls: Option<Arc<ServerTls>>,
    /// Warnings about legal but unwise settings.
    pub warnings: Vec<String>,
    /// What tells the file from one that says something else.
    pub digest: u64,
}

/// What was compiled of a config.
pub(super) struct Parts {
    pub(super) routes: Table,
    /// TLS to its upstreams, in their order.
    pub(super) upstream_tls: Vec<Option<Arc<ClientTls>>>,
    /// What fetches from the other issuers, in their order.
    pub(super) fetchers: Vec<Fetcher>,
    /// What fetches from the providers, in their order.
    pub(super) provider_fetchers: Vec<Fetcher>,
    /// The way to what takes traces.
    pub(super) trace_transport: Option<Transport>,
    /// What reaches the receivers of events, in their order.
    pub(super) webhook_clients: Vec<HttpClient>,
    /// What reaches the service that knows stolen passwords.
    pub(super) breached_client: Option<HttpClient>,
    pub(super) pages: Option<pages::Loaded>,
}

impl LoadedGateway {
    /// Returns the config, and what was compiled of it.
    pub(super) fn split(self) -> (Config, Parts) {
        let Self {
            config,
            routes,
            upstream_tls,
            fetchers,
            provider_fetchers,
            trace_transport,
            webhook_clients,
            breached_client,
            pages,
            ..
        } = self;
        let parts = Parts {
            routes,
            upstream_tls,
            fetchers,
            provider_fetchers,
            trace_transport,
            webhook_clients,
            breached_client,
            pages,
        };
        (config, parts)
    }
}

/// Reads and compiles the config at `path`.
///
/// # Errors
/// Every error that was found.
pub fn load(path: &Path) -> Result<LoadedGateway, ConfigErrors> {
    compile(config::load_file(path, &further)?)
}

/// Reads the files that are only looked at when a config is loaded.
///
/// # Errors
/// What is wrong with them.
pub fn check_files(loaded: &LoadedGateway) -> Result<(), ConfigErrors> {
    let Some(list) = &loaded.config.auth.password.breached else { return Ok(()) };
    Breached::load(&list.path).map(drop).map_err(|error| not_a_list(list, &error))
}

/// The errors that no single place of a config can be checked for.
pub(super) fn further(config: &Config) -> Vec<ConfigError> {
    let mail =
        config.auth.email.as_ref().and_then(|email| {
            MailWorker::check(email).err().map(|error| email.source.error(error.to_string()))
        });
    let routes = Table::compile(&config.routes, &config.auth.path, builtin_calls(config));
    let of = |errors: ConfigErrors| errors.0;
    let routes = routes.err().map(of).unwrap_or_default();
    let tls = config.listeners.iter().chain([&config.admin]).filter_map(|listener| load_tls(listener).err());
    let upstreams = config.upstreams.iter().filter_map(|upstream| load_upstream_tls(upstream).err());
    let issuers = config.issuers.iter().filter_map(|issuer| load_issuer(issuer).err());
    let providers = config.providers.iter().filter_map(|provider| load_provider(provider).err());
    let traces = load_trace_transport(config).err();
    let webhooks = config.webhooks.iter().filter_map(|webhook| load_webhook_client(webhook).err());
    let acme = load_acme_client(config).err();
    let breached = look_at_breached(config).err();
    let breached_service = load_breached_client(config).err();
    let pages = load_pages(config).err();
    let files = tls
        .chain(upstreams)
        .chain(issuers)
        .chain(providers)
        .chain(traces)
        .chain(webhooks)
        .chain(acme)
        .chain(breached)
        .chain(breached_service)
        .chain(pages)
        .flat_map(of);
    mail.into_iter().chain(routes).chain(files).collect()
}

/// Compiles the routes of a config, and reads its certificates.
///
/// # Errors
/// Every error among them.
pub(super) fn compile(loaded: config::Loaded) -> Result<LoadedGateway, ConfigErrors> {
    let mut config = loaded.config;
    let routes = Table::compile(&config.routes, &config.auth.path, builtin_calls(&config))?;
    let tls = config.listeners.iter().map(load_tls).collect::<Result<_, _>>()?;
    let admin_tls = load_tls(&config.admin)?;
    let upstream_tls = config.upstreams.iter().map(load_upstream_tls).collect::<Result<_, _>>()?;
    let fetchers = config.issuers.iter().map(load_issuer).collect::<Result<Vec<_>, _>>()?;
    for (issuer, fetcher) in config.issuers.iter_mut().zip(&fetchers) {
        issuer.files = fetcher.digest();
    }
    let provider_fetchers = config.providers.iter().map(load_provider).collect::<Result<_, _>>()?;
    let trace_transport = load_trace_transport(&config)?;
    let webhook_clients = config.webhooks.iter().map(load_webhook_client).collect::<Result<_, _>>()?;
    let breached_client = load_breached_client(&config)?;
    let acme_client = load_acme_client(&config)?;
    let pages = load_pages(&config)?;
    let (warnings, digest) = (loaded.warnings, loaded.digest);
    Ok(LoadedGateway {
        config,
        routes,
        tls,
        upstream_tls,
        fetchers,
        provider_fetchers,
        trace_transport,
        webhook_clients,
        breached_client,
        acme_client,
        pages,
        admin_tls,
        warnings,
        digest,
    })
}

/// Reads templates, texts and the logo.
fn load_pages(config: &Config) -> Result<Option<pages::Loaded>, ConfigErrors> {
    let Some(browser) = &config.browser else { return Ok(None) };
    let loaded = pages::Loaded::load(browser, &config.auth.path);
    loaded.map(Some).map_err(|problem| ConfigErrors(vec![browser.pages.source.error(problem)]))
}

/// Reads the list of stolen passwords that a config names.
///
/// # Errors
/// When it cannot be read.
pub(super) fn load_breached(password: &config::Password) -> Result<Option<Arc<BreachedFile>>, HashError> {
    let Some(list) = &password.breached else { return Ok(None) };
    let file = BreachedFile::new(&list.path);
    file.list()?;
    Ok(Some(Arc::new(file)))
}

/// Checks that the list of stolen passwords is one, without reading it whole.
fn look_at_breached(config: &Config) -> Result<(), ConfigErrors> {
    let Some(list) = &config.auth.password.breached else { return Ok(()) };
    Breached::identify(&list.path).map(drop).map_err(|error| not_a_list(list, &error))
}

fn not_a_list(list: &config::BreachedList, error: &BreachedError) -> ConfigErrors {
    ConfigErrors(vec![list.source.error(format!("{}: {error}", list.path.display()))])
}

/// Reads the certificates for the certificate authority.
fn load_acme_client(config: &Config) -> Result<Option<Arc<HttpClient>>, ConfigErrors> {
    let client = config.acme.as_ref().map(|acme| HttpClient::new(&acme.tls)).transpose();
    let client = client.map_err(|(source, error)| ConfigErrors(vec![source.error(error.to_string())]));
    Ok(client?.map(Arc::new))
}

/// Reads the certificates for what takes traces.
fn load_trace_transport(config: &Config) -> Result<Option<Transport>, ConfigErrors> {
    let transport = config.telemetry.otlp.as_ref().map(Transport::new).transpose();
    transport.map_err(|(source, error)| ConfigErrors(vec![source.error(error.to_string())]))
}

/// Reads the certificates for a receiver of events.
fn load_webhook_client(webhook: &config::Webhook) -> Result<HttpClient, ConfigErrors> {
    let client = HttpClient::new(&webhook.tls);
    client.map_err(|(source, error)| ConfigErrors(vec![source.error(error.to_string())]))
}

/// Reads the certificates for the service that knows stolen passwords.
fn load_breached_client(config: &Config) -> Result<Option<HttpClient>, ConfigErrors> {
    let service = config.auth.password.breached_service.as_ref();
    let client = service.map(|service| HttpClient::new(&service.tls)).transpose();
    client.map_err(|(source, error)| ConfigErrors(vec![source.error(error.to_string())]))
}

/// Reads the certificates for an upstream.
fn load_upstream_tls(upstream: &config::Upstream) -> Result<Option<Arc<ClientTls>>, ConfigErrors> {
    if !upstream.servers.iter().any(|server| matches!(server.server, config::Server::Tls(_))) {
        return Ok(None);
    }
    match ClientTls::load(&upstream.tls) {
        Ok(tls) => Ok(Some(Arc::new(tls))),
        Err((source, error)) => Err(ConfigErrors(vec![source.error(error.to_string())])),
    }
}

/// Reads the files of another issuer. Returns what fetches from it.
fn load_issuer(issuer: &config::Issuer) -> Result<Fetcher, ConfigErrors> {
    let failed = |source: config::Source, problem: String| ConfigErrors(vec![source.error(problem)]);
    if let IssuerKeys::File(path) = &issuer.keys {
        let keys = read_key_file(path).and_then(|bytes| {
            KeySet::parse(&bytes, &issuer.algorithms, None).map_err(|error| error.to_string())
        });
        keys.map_err(|problem| {
            failed(issuer.source.clone(), format!("`jwks_file` {}: {problem}", path.display()))
        })?;
    }
    Fetcher::new(&issuer.tls).map_err(|(source, error)| failed(source, error.to_string()))
}

/// Reads the certificates for a provider. Returns what fetches from it.
fn load_provider(provider: &config::Provider) -> Result<Fetcher, ConfigErrors> {
    let fetcher = Fetcher::new(&provider.tls);
    fetcher.map_err(|(source, error)| ConfigErrors(vec![source.error(error.to_string())]))
}

/// Reads the certificates of a listener.
fn load_tls(listener: &config::Listener) -> Result<Option<Arc<ServerTls>>, ConfigErrors> {
    let Some(tls) = &listener.tls else { return Ok(None) };
    match ServerTls::load(tls, &PROTOCOLS[usize::from(!listener.http2)..]) {
        Ok(tls) => Ok(Some(Arc::new(tls))),
        Err(errors) => {
            let error = |(source, error): (config::Source, TlsError)| source.error(error.to_string());
            Err(ConfigErrors(errors.into_iter().map(error).collect()))
        }
    }
}

pub(super) fn builtin_calls(config: &Config) -> Vec<Builtin> {
    let mount = &config.auth.path;
    let calls = auth_api::calls().into_iter().map(|call| (call.method, call.path.to_owned()));
    let pages = config.browser.iter().flat_map(|_| pages::endpoints());
    // The paths are constants below a mount that was checked.
    let builtin = |(method, path)| {
        Pattern::parse(&format!("{mount}{path}")).ok().map(|pattern| Builtin { method, pattern })
    };
    // Without a public address there is no metadata, and a route may serve that path for a server behind this one.
    let paths = ["", config.auth.issuer_path()];
    let paths = if paths[1].is_empty() { &paths[..1] } else { &paths[..] };
    let metadata = config.public_base().into_iter().flat_map(|_| paths);
    let metadata = metadata.filter_map(|path| Pattern::parse(&format!("{METADATA}{path}")).ok());
    let metadata = metadata.map(|pattern| Builtin { method: Method::GET, pattern });
    calls.chain(pages).filter_map(builtin).chain(metadata).collect()
}

/// Converts the level of the log for telemetry.
pub(super) fn level_of(level: LogLevel) -> Level {
    match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
    }
}

/// Converts the log settings of a config for telemetry.
pub fn log_settings(log: &config::Log) -> LogSettings {
    LogSettings {
        level: level_of(log.level),
        json: match log.format {
            LogFormat::Auto => None,
            LogFormat::Text => Some(false),
            LogFormat::Json => Some(true),
        },
        access: log.access,
    }
}
