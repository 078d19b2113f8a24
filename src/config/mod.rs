//! The configuration: read once at start, checked at the edge, and not questioned afterwards.
//!
//! [`load`] turns YAML into [`Config`], whose types cannot hold an illegal value, or into
//! [`ConfigErrors`] that name file, line, key, what was found and what is legal. What concerns several
//! routes at once (ambiguity, reachability) is found by [`crate::route`], with the
//! [`Source`]s kept here.

mod access;
mod check;
mod error;
mod interpolate;
mod load;
mod pattern;
mod position;
mod postgres;
mod raw;
mod units;
mod username;

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;

pub use access::{Access, Requirements, RoleRule};
pub use error::{ConfigError, ConfigErrors};
pub use interpolate::Lookup;
pub use load::{Further, Loaded, Source, load, load_file};
pub use pattern::{Pattern, Segment};
pub use postgres::{PostgresTls, PostgresUrl, RootCertificates, SslMode};
pub use raw::{
    Algorithm, Encryption, Expect, LogFormat, LogLevel, OnStale, Registration, RouteAuth, json_schema,
};
pub use username::UsernameRules;

use crate::{
    error::Statuses,
    types::{Roles, Secret},
};

/// A whole configuration, checked.
#[derive(Debug)]
pub struct Config {
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// The admin listener.
    pub admin: SocketAddr,
    /// The names that it answers to, besides addresses.
    pub admin_hosts: Vec<String>,
    /// How many worker threads serve requests.
    pub workers: usize,
    /// The peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The store.
    pub store: Store,
    /// Accounts and tokens.
    pub auth: Auth,
    /// Staleness.
    pub revocation: Revocation,
    /// The headers that carry an identity upstream.
    pub identity_headers: IdentityHeaders,
    /// Bounds for clients.
    pub limits: Limits,
    /// The backends; routes refer to them by index.
    pub upstreams: Vec<Upstream>,
    /// The routes, in the order of the file.
    pub routes: Vec<Route>,
    /// The expectations.
    pub tests: Vec<Test>,
    /// Logging.
    pub log: Log,
    /// The end.
    pub drain: Drain,
    /// How long lines of the audit trail are kept.
    pub keep_audit: Duration,
}

/// An address that clients connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// The address.
    pub address: SocketAddr,
    /// The most connections; `None` for what the limit on open files allows.
    pub max_connections: Option<usize>,
}

/// How the gateway ends.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Between not ready and closed listeners.
    pub delay: Duration,
    /// For what is in flight then.
    pub limit: Duration,
}

/// Which store, and how it is used.
#[derive(Debug, Clone)]
pub struct Store {
    /// Where it is.
    pub location: StoreLocation,
    /// The most connections.
    pub pool_size: usize,
    /// For one call.
    pub timeout: Duration,
    /// Whether `serve` migrates.
    pub migrate: bool,
}

/// Where the store is.
#[derive(Debug, Clone)]
pub enum StoreLocation {
    /// A file of the embedded database.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres(PostgresUrl),
}

/// Accounts and tokens.
#[derive(Debug, Clone)]
pub struct Auth {
    /// The mount, without a final slash; empty for the root.
    pub path: String,
    /// `iss`.
    pub issuer: String,
    /// `aud`.
    pub audience: String,
    /// Whether strangers may register.
    pub registration: Registration,
    /// What people log in by.
    pub login_by: LoginBy,
    /// The roles of a new account.
    pub default_roles: Roles,
    /// The roles that a caller may ask for.
    pub self_assignable_roles: Roles,
    /// Life of an access token.
    pub access_token_ttl: Duration,
    /// Life of a refresh token since it was made.
    pub refresh_token_ttl: Duration,
    /// For how long a replay gives the same successor.
    pub refresh_grace: Duration,
    /// Life of a session.
    pub session_max_ttl: Duration,
    /// Sessions of one account.
    pub max_sessions: u32,
    /// Where the master key comes from.
    pub master_key: MasterKeySource,
    /// Where the one before comes from, while it is being replaced.
    pub previous_master_key: Option<MasterKeySource>,
    /// How recent a login counts as proof.
    pub reauth_window: Duration,
    /// How tokens are signed.
    pub signing: Signing,
    /// Names that people choose.
    pub username: UsernameRules,
    /// Passwords.
    pub password: Password,
    /// Throttling.
    pub throttle: Throttle,
    /// Calls from pages of other origins.
    pub cors: Option<Cors>,
    /// For clients of older services.
    pub compat: Compat,
    /// Mails.
    pub email: Option<Email>,
}

/// What people may give as `username` to log in; one of them at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginBy {
    /// The account's name.
    pub username: bool,
    /// A verified e-mail address.
    pub email: bool,
}

/// Which pages of other origins may call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// The origins; `None` for any.
    pub origins: Option<Vec<HeaderValue>>,
    /// Whether with credentials.
    pub credentials: bool,
    /// How long a response may be remembered, in seconds.
    pub max_age: HeaderValue,
}

/// What older clients expect otherwise.
#[derive(Debug, Clone)]
pub struct Compat {
    /// The statuses that they expect.
    pub statuses: Statuses,
    /// Further members that carry the access token.
    pub token_fields: Vec<String>,
    /// Whether login answers it in a header, too.
    pub token_in_header: bool,
}

/// Mails.
#[derive(Debug, Clone)]
pub struct Email {
    /// The server.
    pub smtp: Smtp,
    /// The sender.
    pub from: String,
    /// The link to verify an address, with `{token}` in it.
    pub verify_link: String,
    /// The link to reset a password, with `{token}` in it.
    pub reset_link: String,
    /// Life of a link to verify an address.
    pub verify_ttl: Duration,
    /// Life of a link to reset a password.
    pub reset_ttl: Duration,
    /// For how long a mail is tried again.
    pub retry_for: Duration,
    /// How many are queued.
    pub per_hour: MailsPerHour,
    /// The folder of the operator's own texts.
    pub templates: Option<PathBuf>,
    /// Where it stands in the config.
    pub source: Source,
}

/// How many mails are queued in an hour.
#[derive(Debug, Clone, Copy)]
pub struct MailsPerHour {
    /// To all accounts together.
    pub all: u32,
    /// To one account.
    pub account: u32,
}

/// A mail server.
#[derive(Debug, Clone)]
pub struct Smtp {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is protected.
    pub encryption: Encryption,
    /// User name and password.
    pub credentials: Option<(String, Secret)>,
    /// Certificates to trust beside the system's.
    pub ca: Option<PathBuf>,
    /// For one mail.
    pub timeout: Duration,
}

/// Where a master key comes from.
#[derive(Debug, Clone)]
pub enum MasterKeySource {
    /// Written in the config.
    Given(Secret),
    /// A file, made at first start.
    File(PathBuf),
}

impl MasterKeySource {
    /// Whether the other is the same for certain.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Given(one), Self::Given(other)) => one.expose() == other.expose(),
            (Self::File(one), Self::File(other)) => one == other,
            _ => false,
        }
    }
}

/// How access tokens are signed.
#[derive(Debug, Clone)]
pub enum Signing {
    /// A key pair from the store.
    KeyPair(Algorithm),
    /// A shared secret from the config.
    Shared {
        /// Signs and verifies.
        secret: Secret,
        /// Verifies only.
        previous: Option<Secret>,
    },
}

/// Rules for passwords, and what hashing may cost.
#[derive(Debug, Clone)]
pub struct Password {
    /// Least number of characters.
    pub min_length: usize,
    /// Whether well-known ones are refused.
    pub reject_common: bool,
    /// Argon2 memory in KiB.
    pub memory_kib: u32,
    /// Argon2 passes.
    pub iterations: u32,
    /// Argon2 lanes.
    pub parallelism: u32,
    /// Hashing threads.
    pub workers: usize,
    /// Hashes that may wait.
    pub queue: usize,
    /// How long one may wait.
    pub queue_timeout: Duration,
}

/// So many in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How many.
    pub count: u32,
    /// In how long.
    pub per: Duration,
}

/// Attempts that are taken before 429.
#[derive(Debug, Clone, Copy)]
pub struct Throttle {
    /// Failures of one account.
    pub account: Rate,
    /// Failures from one address.
    pub address: Rate,
    /// Registrations from one address.
    pub registrations: Rate,
    /// Requests for mails from one address.
    pub mails: Rate,
}

/// Staleness of the revocation mirror.
#[derive(Debug, Clone, Copy)]
pub struct Revocation {
    /// The bound.
    pub max_staleness: Duration,
    /// What happens beyond it.
    pub on_stale: OnStale,
}

/// The headers that carry an identity upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdentityHeaders {
    /// The user's id.
    pub id: HeaderName,
    /// The user's name.
    pub name: HeaderName,
    /// The user's roles.
    pub roles: HeaderName,
    /// The id that an imported user had before.
    pub external_id: Option<HeaderName>,
    /// Further headers that no client may send.
    pub strip: Vec<StripRule>,
}

/// Headers that are stripped, folded as [`IdentityHeaders::fold`] does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StripRule {
    /// Of this name.
    Name(String),
    /// Whose names begin so.
    Prefix(String),
}

impl IdentityHeaders {
    /// Every header name that any preset or the defaults use: none of them may come from a client,
    /// because the backend may have been set up for another preset before.
    pub const RESERVED: &'static [&'static str] = &[
        "x-user-id",
        "x-user-name",
        "x-user-roles",
        "x-auth-request-user",
        "x-auth-request-preferred-username",
        "x-auth-request-groups",
        "x-auth-request-email",
        "x-auth-request-access-token",
        "remote-user",
        "remote-name",
        "remote-groups",
        "remote-email",
        "remote-id",
        "x-webauth-user",
        "x-webauth-name",
        "x-webauth-email",
        "x-webauth-role",
        "x-webauth-groups",
        "x-webauth-id",
    ];

    /// The form in which spellings of a header name are one: CGI, WSGI and PHP fold `-`, `_` and `.` into one.
    pub fn fold(name: &str) -> String {
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' }).collect()
    }

    /// The names of a preset.
    pub fn preset(name: &str) -> Option<Self> {
        let names = match name {
            "oauth2-proxy" => {
                ["x-auth-request-user", "x-auth-request-preferred-username", "x-auth-request-groups"]
            }
            "authelia" => ["remote-id", "remote-user", "remote-groups"],
            "grafana" => ["x-webauth-id", "x-webauth-user", "x-webauth-groups"],
            _ => return None,
        };
        let [id, name, roles] = names.map(HeaderName::from_static);
        Some(Self { id, name, roles, external_id: None, strip: Vec::new() })
    }
}

/// Bounds for clients.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of a head.
    pub header_bytes: usize,
    /// Headers of a head.
    pub header_count: usize,
    /// Bytes of a body.
    pub body: u64,
    /// For a head.
    pub header_timeout: Duration,
    /// Between two requests.
    pub idle_timeout: Duration,
    /// From head to head.
    pub request_timeout: Duration,
    /// Bytes a second that extend it.
    pub body_min_rate: u64,
    /// Between two bytes of a body.
    pub body_idle_timeout: Duration,
    /// For a whole response.
    pub response_drain_timeout: Duration,
    /// Connections of one client address.
    pub connections_per_address: usize,
    /// Whether that binds clients on loopback, too.
    pub bounds_loopback: bool,
}

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name in the config.
    pub name: String,
    /// `host:port` of its server, as it is resolved.
    pub authority: String,
    /// For a connection.
    pub connect_timeout: Duration,
    /// For the head of a response.
    pub response_timeout: Duration,
    /// Idle connections of all workers together.
    pub idle_connections: usize,
    /// How long one may rest.
    pub idle_timeout: Duration,
    /// How old one may become.
    pub max_age: Duration,
    /// Connections of all workers together.
    pub max_connections: usize,
    /// Requests that may wait for one.
    pub max_waiting: usize,
    /// How long one may wait.
    pub max_wait: Duration,
    /// Bytes of a response's head.
    pub header_bytes: usize,
    /// Header lines of a response's head.
    pub header_count: usize,
    /// Where it stands in the config.
    pub source: Source,
}

impl Upstream {
    /// Whether another config says the same of it, if perhaps in another place.
    pub fn is_like(&self, other: &Self) -> bool {
        *self == Self { source: self.source.clone(), ..other.clone() }
    }
}

/// What happens to a request that is allowed.
#[derive(Debug, Clone)]
pub enum Action {
    /// It goes to this upstream, an index of [`Config::upstreams`].
    Forward(usize),
    /// The gateway answers.
    Respond {
        /// The status.
        status: StatusCode,
        /// The body, with placeholders in its strings.
        json: serde_json::Value,
    },
}

/// A route.
#[derive(Debug, Clone)]
pub struct Route {
    /// Where it stands in the config.
    pub source: Source,
    /// Its path.
    pub pattern: Pattern,
    /// Its host in lower case, or any.
    pub host: Option<String>,
    /// Its methods as written, or all.
    pub methods: Option<Vec<Method>>,
    /// Who may use it.
    pub access: Access,
    /// What it does.
    pub action: Action,
    /// Whether the token goes on.
    pub forward_token: bool,
    /// From head to head.
    pub timeout: Duration,
    /// Bytes of a body.
    pub body: u64,
    /// What happens when the mirror is stale.
    pub on_stale: OnStale,
    /// Whether a client may ask the upstream for another method.
    pub method_override: bool,
    /// Calls from pages of other origins.
    pub cors: Option<Cors>,
}

/// One expectation.
#[derive(Debug, Clone)]
pub struct Test {
    /// Where it stands in the config.
    pub source: Source,
    /// The method.
    pub method: Method,
    /// The path.
    pub path: String,
    /// The host.
    pub host: Option<String>,
    /// The caller's roles; `None` for an anonymous one.
    pub roles: Option<Roles>,
    /// What is expected.
    pub expect: Expect,
}

/// Logging.
#[derive(Debug, Clone, Copy)]
pub struct Log {
    /// The least severe level.
    pub level: LogLevel,
    /// The form.
    pub format: LogFormat,
    /// Whether each request leaves a line.
    pub access: bool,
}
