//! The configuration: read once at start, checked at the edge, and not questioned afterwards.
//!
//! [`load`] turns YAML into [`Config`], whose types cannot hold an illegal value, or into
//! [`ConfigErrors`] that name file, line, key, what was found and what is legal. What concerns several
//! routes at once (ambiguity, reachability) is found by [`crate::route`], with the
//! [`Source`]s kept here.

mod access;
mod acme;
mod auth;
mod browser;
mod change;
mod check;
mod claims;
mod dotenv;
mod error;
mod http_url;
mod identity_headers;
mod interpolate;
mod issuer;
mod load;
mod pattern;
mod position;
mod postgres;
mod provider;
mod rate_limit;
mod raw;
mod redirect;
mod rewrite;
mod server;
mod telemetry;
mod tls;
mod units;
mod upstream;
mod username;
mod webhook;

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use http::{Method, StatusCode};
use ipnet::IpNet;

pub use access::{Access, Requirements, RoleRule};
pub use acme::{Acme, ChallengeKind};
pub use auth::{
    ApiKeys, Auth, BreachedList, BreachedService, Compat, Cors, Email, LoginBy, MailsPerHour,
    MasterKeySource, Mfa, Password, Rate, Signing, Smtp, Throttle,
};
pub use browser::{Browser, Cookies, Pages, PublicUrl};
pub use claims::{AttributeRule, AttributeRules, ClaimRule, ClaimSource, Claims, SetBy};
pub use error::{ConfigError, ConfigErrors};
pub use http_url::HttpUrl;
pub use identity_headers::{IdentityHeaders, StripRule};
pub use interpolate::Lookup;
pub use issuer::{ClaimNames, Introspection, Issuer, IssuerKeys, SignatureAlgorithm};
pub use load::{Further, Loaded, Source, digest_of, load, load_file, read_file};
pub use pattern::{Pattern, Segment};
pub use postgres::{PostgresTls, PostgresUrl, RootCertificates, SslMode};
pub use provider::{Provider, ProviderKind, ProviderRegistration};
pub use rate_limit::{MOST_RATE_LIMITS, RateKey, RateLimit};
pub use raw::{
    Algorithm, Encoded, Encryption, Expect, LogFormat, LogLevel, OnStale, Registration, RouteAuth,
    json_schema,
};
pub use redirect::Redirect;
pub use rewrite::{HeaderRules, PathRewrite, Rewrite};
pub use server::Server;
pub use telemetry::{Otlp, OtlpProtocol, Telemetry};
pub use tls::{CertificateFiles, ClientCertificates, ListenerTls, TlsVersion, UpstreamTls};
pub use units::Span;
pub use upstream::{Balance, Buffer, Ejection, HashKey, Health, Probe, Retries, Upstream, WeightedServer};
pub use username::UsernameRules;
pub use webhook::Webhook;

use crate::types::Roles;

/// A whole configuration, checked.
#[derive(Debug)]
pub struct Config {
    /// Where clients connect; at least one.
    pub listeners: Vec<Listener>,
    /// The admin listener.
    pub admin: Listener,
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
    /// The address by which people reach the gateway, if it is known.
    pub public_url: Option<PublicUrl>,
    /// People with browsers, if there are pages for them.
    pub browser: Option<Browser>,
    /// Others whose tokens are accepted.
    pub issuers: Vec<Issuer>,
    /// How other proxies tell of the requests that they ask about.
    pub forward_auth: ForwardAuth,
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
    /// Others by whom people sign in.
    pub providers: Vec<Provider>,
    /// Whether our own responses have headers that tell browsers to be careful.
    pub security_headers: bool,
    /// Logging.
    pub log: Log,
    /// Certificates that an authority issues, if a listener wants them.
    pub acme: Option<Acme>,
    /// Traces.
    pub telemetry: Telemetry,
    /// The end.
    pub drain: Drain,
    /// How long lines of the audit trail are kept.
    pub keep_audit: Duration,
    /// Receivers that are told of events.
    pub webhooks: Vec<Webhook>,
}

/// For other proxies that ask about requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForwardAuth {
    /// How they tell of them.
    pub headers: ForwardedBy,
    /// Whether people who are not signed in are led to the sign-in page.
    pub login_redirect: bool,
}

/// How other proxies tell of the requests that they ask about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedBy {
    /// By `X-Forwarded-Method`, `-Proto`, `-Host` and `-Uri`.
    XForwarded,
    /// By `X-Original-Method` and `X-Original-URL`.
    XOriginal,
}

/// An address that clients or operators connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The address.
    pub address: ListenAddress,
    /// The most connections; `None` for what the limit on open files allows.
    pub max_connections: Option<usize>,
    /// The port by whose https all requests are to come instead.
    pub redirect: Option<u16>,
    /// TLS, if it speaks it.
    pub tls: Option<ListenerTls>,
    /// Whether it speaks HTTP/2 beside HTTP/1.1: on TLS where a client asks for it, else where it begins with it.
    pub http2: bool,
    /// The peers that begin each connection with the PROXY protocol, if any.
    pub proxy_protocol: Option<Vec<IpNet>>,
    /// Whether Envoy asks here what it may forward, and nothing else is served.
    pub ext_authz: bool,
}

/// Where a listener's socket comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// It is bound to this address.
    Ip(SocketAddr),
    /// systemd passes it by this name (`FileDescriptorName` of a socket unit).
    Systemd(String),
}

impl ListenAddress {
    /// What the address of a socket of systemd begins with.
    pub const SYSTEMD: &str = "systemd:";

    /// Returns the address, if it is known before the start.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Systemd(_) => None,
        }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Systemd(name) => write!(f, "{}{name}", Self::SYSTEMD),
        }
    }
}

impl Config {
    /// Returns how long what a key signs may live: an access token, or a cookie before it is signed anew.
    pub fn longest_signed(&self) -> Duration {
        let cookie = self.browser.as_ref().map(|browser| browser.cookies.idle);
        self.auth.access_token_ttl.max(cookie.unwrap_or_default())
    }

    /// Returns the address of the page on which people register, if there are pages.
    pub fn registration_page(&self) -> Option<String> {
        let origin = &self.browser.as_ref()?.public_url.origin;
        Some(format!("{origin}{}/ui/register", self.auth.path))
    }

    /// Returns what addresses of the gateway begin with, as far as that is known: the public URL, or the origin of the issuer if that is
    /// a URL.
    pub fn public_base(&self) -> Option<String> {
        if let Some(public_url) = &self.public_url {
            return Some(public_url.origin.clone());
        }
        let (scheme, rest) = self.auth.issuer.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next().filter(|authority| !authority.is_empty())?;
        matches!(scheme, "https" | "http").then(|| format!("{scheme}://{authority}"))
    }

    /// Returns the link to the page on which people set a new password, with `{token}` in it, if one is known.
    pub fn reset_page(&self) -> Option<String> {
        if let Some(email) = &self.auth.email {
            return Some(email.reset_link.clone());
        }
        let origin = &self.browser.as_ref()?.public_url.origin;
        Some(format!("{origin}{}/ui/reset?token={{token}}", self.auth.path))
    }

    /// Returns the addresses of all listeners, the admin listener included, as far as they are known.
    pub fn own_addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().chain([&self.admin]).filter_map(|listener| listener.address.ip()).collect()
    }
}

/// Returns whether requests for `server` would come to one of `listeners`.
pub fn is_own(server: SocketAddr, listeners: &[SocketAddr]) -> bool {
    let (address, port) = (server.ip().to_canonical(), server.port());
    listeners.iter().any(|listener| {
        let own = listener.ip().to_canonical();
        let leads_here = || {
            // To connect to no address in particular is to connect to this machine.
            let is_here = address.is_unspecified() || address.is_loopback() || is_of_this_machine(address);
            own == address
                || (address.is_unspecified() && own.is_loopback())
                || (own.is_unspecified() && is_here)
        };
        listener.port() != 0 && listener.port() == port && leads_here()
    })
}

/// Returns whether an address is one of this machine's: others cannot be bound to.
fn is_of_this_machine(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// How the gateway ends.
#[derive(Debug, Clone, Copy)]
pub struct Drain {
    /// Between not ready and closed listeners.
    pub delay: Duration,
    /// The longest time for requests in flight.
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

/// Staleness of the revocation mirror.
#[derive(Debug, Clone, Copy)]
pub struct Revocation {
    /// The bound.
    pub max_staleness: Duration,
    /// What happens beyond it.
    pub on_stale: OnStale,
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
    /// Of HTTP/2.
    pub http2: Http2Limits,
}

/// Bounds for clients that speak HTTP/2.
#[derive(Debug, Clone, Copy)]
pub struct Http2Limits {
    /// Streams of a connection at once.
    pub streams: u32,
    /// Bytes of a list of headers, each counted with 32 more (RFC 9113, section 6.5.2).
    pub header_list: u32,
    /// Resets of streams, by either side.
    pub resets: Rate,
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
    /// The client is sent elsewhere.
    Redirect(Redirect),
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
    /// Its action.
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
    /// How long a stream or a tunnel may be idle, in place of the limits.
    pub idle_timeout: Option<Duration>,
    /// Whether `%2F` and `;` in a path go on.
    pub encoded: Encoded,
    /// What is changed of the path and the host.
    pub rewrite: Option<Rewrite>,
    /// What is changed of the headers of a request.
    pub request_headers: HeaderRules,
    /// What is changed of the headers of a response.
    pub response_headers: HeaderRules,
    /// Calls from pages of other origins.
    pub cors: Option<Cors>,
    /// How many requests it takes; all of these hold.
    pub rate_limits: Vec<RateLimit>,
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
    /// The expected result.
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Accounts and tokens of the issuer and for the audience `tests`.
    pub(crate) fn auth() -> Auth {
        const TEXT: &str =
            "listeners: [{address: \"127.0.0.1:0\"}]\nauth: {issuer: tests, audience: tests}\n";
        let loaded = load("test", TEXT, std::path::Path::new("."), &|_| None, &|_| Vec::new());
        loaded.unwrap().config.auth
    }

    /// People with browsers, as nothing else is said.
    pub(crate) fn browser() -> Browser {
        Browser {
            public_url: PublicUrl {
                origin: "https://app.example.com".to_owned(),
                host: "app.example.com".to_owned(),
                is_https: true,
            },
            pages: Pages {
                name: "Example".to_owned(),
                logo: None,
                accent: "#2457c5".to_owned(),
                folder: None,
                languages: vec!["en".to_owned(), "de".to_owned()],
                after_login: "/".to_owned(),
                source: Source { file: "test".into(), line: 1, key: "pages".to_owned() },
            },
            cookies: Cookies {
                domain: None,
                idle: Duration::from_secs(7_200),
                ttl: Duration::from_secs(43_200),
                remember: Duration::from_secs(2_592_000),
            },
        }
    }
}
