//! The config as it is written. The doc comments become the descriptions in the JSON Schema.

mod acme;
mod auth;
mod browser;
mod claims;
mod issuer;
mod provider;
mod route;
mod telemetry;
mod tls;
mod upstream;
mod webhook;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

pub use acme::Acme;

pub use auth::{
    Algorithm, Auth, BreachedService, Compat, Cors, Email, Encryption, LoginName, Mfa, Password,
    Registration, Signing, Smtp, Throttle, Username,
};

pub use browser::{Cookies, Pages};

pub use claims::{Attribute, Claim, SetBy};
pub use issuer::{Claims, Issuer};

pub use provider::{Link, Provider, ProviderKind, Register};

pub use route::{
    Encoded, HeaderRules, RateHeader, RateKey, RateLimit, RateLimits, Redirect, Respond, Rewrite, RoleRule,
    Route, RouteAuth, RouteHeaders,
};

pub use telemetry::{Otlp, OtlpProtocol, Telemetry};

pub use tls::ListenerTls;

pub use upstream::{
    Balance, Ejection, Expected, HashHeader, HashKey, Health, Retries, RetryOn, RetryRules, Server, Upstream,
    UpstreamTls,
};

pub use webhook::Webhook;

use super::units::{Number, Size, Span, Switch};
use crate::types::Secret;

/// The configuration of authgate.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// The admin listener: health and metrics.
    #[serde(default)]
    pub admin: Admin,
    /// How many worker threads serve requests. Default: the number of cores.
    pub workers: Option<Number>,
    /// The peers whose X-Forwarded-* headers are believed, as networks. Default: none.
    #[serde(default)]
    pub trusted_proxies: Vec<String>,
    /// Where accounts, sessions, revocations and keys are kept.
    #[serde(default)]
    pub store: Store,
    /// Accounts and tokens.
    pub auth: Auth,
    /// Others whose tokens are accepted.
    #[serde(default)]
    pub issuers: Vec<Issuer>,
    /// The address by which people reach the gateway: scheme, host and port. `pages` need it; links in mails begin with it.
    pub public_url: Option<String>,
    /// Others by whom people sign in on the pages. Default: none.
    #[serde(default)]
    pub providers: Vec<Provider>,
    /// Pages for people with browsers. Default: none.
    pub pages: Option<Pages>,
    /// The cookies that people are signed in by.
    pub cookies: Option<Cookies>,
    /// For other proxies that ask at `auth.path`/verify.
    #[serde(default)]
    pub forward_auth: ForwardAuth,
    /// How stale the knowledge of logouts may become.
    #[serde(default)]
    pub revocation: Revocation,
    /// The headers that tell an upstream who is calling, or the name of a preset.
    #[serde(default)]
    pub identity_headers: IdentityHeaders,
    /// What accounts have beside their names and roles, by name. Default: nothing.
    #[serde(default)]
    pub attributes: BTreeMap<String, Attribute>,
    /// What access tokens and headers say of accounts beside that, by name. Default: nothing.
    #[serde(default)]
    pub claims: BTreeMap<String, Claim>,
    /// Bounds of what a client may send and how long it may take.
    #[serde(default)]
    pub limits: Limits,
    /// The backends, by name.
    #[serde(default)]
    pub upstreams: BTreeMap<String, Upstream>,
    /// Which path goes where, and who may use it.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// Expectations that `authgate check` verifies.
    #[serde(default)]
    pub tests: Vec<Test>,
    /// Whether the gateway's own responses tell browsers to be careful: nosniff, Referrer-Policy, frame-ancestors, and on https
    /// Strict-Transport-Security. Default: true.
    pub security_headers: Option<Switch>,
    /// What is logged and how.
    #[serde(default)]
    pub log: Log,
    /// Certificates that an authority issues.
    pub acme: Option<Acme>,
    /// Traces of requests.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// How the gateway ends.
    #[serde(default)]
    pub drain: Drain,
    /// The audit trail.
    #[serde(default)]
    pub audit: Audit,
    /// Receivers that are told of events. Default: none.
    #[serde(default)]
    pub webhooks: Vec<Webhook>,
}

/// How other proxies tell of the requests that they ask about.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForwardAuth {
    /// x-forwarded: X-Forwarded-Method, -Proto, -Host and -Uri (Caddy, Traefik, HAProxy). x-original: X-Original-Method
    /// and X-Original-URL (nginx). Default: x-forwarded.
    pub headers: Option<String>,
    /// Whether navigations of people who are not signed in are redirected to the sign-in page, and of those who must show again who they are to
    /// the page for that, for proxies that pass such a response on (Caddy, Traefik, HAProxy, Envoy). Needs `pages`. Default: false.
    pub login_redirect: Option<Switch>,
}

/// The audit trail: who did what to which account, when, from where.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// How long its lines are kept. Default: 400d.
    pub keep: Option<Span>,
}

/// How the gateway ends once it is told to.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    /// How long /readyz says that it ends before the listeners close: time for a load balancer to notice.
    /// Default: 0s.
    pub delay: Option<Span>,
    /// How long what is in flight may take then. Default: 30s.
    pub limit: Option<Span>,
}

/// One address that clients connect to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// IP address and port, or systemd:NAME for a socket that systemd passes.
    pub address: String,
    /// The most connections of this listener; beyond them, further ones wait. Default: what the limit on open
    /// files allows.
    pub max_connections: Option<Number>,
    /// `https`, or `https:PORT`: all requests are sent there, to the same host, path and query.
    pub redirect: Option<String>,
    /// TLS. Default: none.
    pub tls: Option<ListenerTls>,
    /// Whether HTTP/2 is spoken beside HTTP/1.1: on TLS where a client asks for it by ALPN, without TLS where it begins with
    /// it. Default: true with TLS, false without.
    pub http2: Option<Switch>,
    /// Load balancers that say whose connections they pass on.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Whether this listener is for Envoy, which asks by gRPC what it may forward (envoy.service.auth.v3). It serves nothing else.
    /// Default: false.
    pub ext_authz: Option<Switch>,
}

/// The PROXY protocol, version 1 or 2.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProxyProtocol {
    /// The networks of the peers that begin each connection with it. From others it is not taken.
    pub from: Vec<String>,
}

/// The admin listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// IP address and port. Default: 127.0.0.1:9901.
    pub address: Option<String>,
    /// Whether the address may be another than loopback, without TLS. Default: false.
    pub insecure: Option<Switch>,
    /// TLS. Default: none.
    pub tls: Option<ListenerTls>,
    /// Names that requests may have in `Host`, besides addresses and localhost, such as a service's in a cluster.
    #[serde(default)]
    pub hosts: Vec<String>,
}

/// The store.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE. Default: sqlite:authgate.db.
    pub url: Option<Secret>,
    /// The most connections for requests; on PostgreSQL two more follow the revocations. Default: 16.
    pub pool_size: Option<Number>,
    /// How long a call to the store may take before it counts as away. Default: 2s.
    pub timeout: Option<Span>,
    /// Whether `serve` brings the schema up to date by itself. Default: true.
    pub migrate: Option<Switch>,
}

/// What to do when it is not known who has logged out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnStale {
    /// Answer 503.
    #[default]
    Deny,
    /// Serve on, and count it.
    Allow,
}

/// How stale the knowledge of logouts may become.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// Since the store last confirmed it; 500ms or more. Default: 5s.
    pub max_staleness: Option<Span>,
    /// deny or allow. Default: deny.
    #[serde(default)]
    pub on_stale: OnStale,
}

/// The headers that tell an upstream who is calling.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected a map of id, name and roles, or a preset: oauth2-proxy, authelia or grafana"
)]
pub enum IdentityHeaders {
    /// A preset: oauth2-proxy, authelia or grafana.
    Preset(String),
    /// One name for each.
    Names(HeaderNames),
}

impl Default for IdentityHeaders {
    fn default() -> Self {
        Self::Names(HeaderNames::default())
    }
}

/// The names of the identity headers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderNames {
    /// The user's id. Default: X-User-Id.
    pub id: Option<String>,
    /// The user's name. Default: X-User-Name.
    pub name: Option<String>,
    /// The user's roles, sorted and joined with commas. Default: X-User-Roles.
    pub roles: Option<String>,
    /// The id that an imported user had before; sent for those only. Default: not sent.
    pub external_id: Option<String>,
    /// Further headers that no client may send to an upstream: names, or beginnings of names that end in `*`.
    #[serde(default)]
    pub strip: Vec<String>,
}

/// Bounds of what a client may send and how long it may take.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// A whole head. Default: 64KiB.
    pub header_bytes: Option<Size>,
    /// The number of headers. Default: 100.
    pub header_count: Option<Number>,
    /// A body. Default: 10MiB.
    pub body: Option<Size>,
    /// For a whole head, from its first byte. Default: 10s.
    pub header_timeout: Option<Span>,
    /// For a connection between two requests, or a WebSocket without a byte. Default: 75s.
    pub idle_timeout: Option<Span>,
    /// From the request's head to the response's head. Default: 60s.
    pub request_timeout: Option<Span>,
    /// A body that keeps above this rate a second extends request_timeout. Default: 1KiB.
    pub body_min_rate: Option<Size>,
    /// Between two bytes of a body, either way. Default: 30s.
    pub body_idle_timeout: Option<Span>,
    /// For all the time in which a client leaves what is there of a response unread. Default: 10m.
    pub response_drain_timeout: Option<Span>,
    /// Connections of one client address (IPv6: one /64); further ones are closed. Trusted proxies are never
    /// bound by it, loopback only where it is set. Default: 1000.
    pub connections_per_address: Option<Number>,
    /// Of HTTP/2.
    #[serde(default)]
    pub http2: Http2Limits,
}

/// Bounds of what a client may send by HTTP/2.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Http2Limits {
    /// Streams of a connection at once. Default: 100.
    pub streams: Option<Number>,
    /// A list of headers, each counted with 32 bytes more. Default: 64KiB.
    pub header_list: Option<Size>,
    /// Resets of streams by either side, such as 100 per 10s; beyond them the connection ends. Default: 100 per 10s.
    pub resets: Option<String>,
}

/// What a test expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Expect {
    /// The request goes through.
    Allow,
    /// The request is refused with 401 or 403.
    Deny,
    /// No route takes it.
    None,
}

/// One expectation that `authgate check` verifies.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// The method.
    pub method: String,
    /// The path.
    pub path: String,
    /// The host.
    pub host: Option<String>,
    /// The roles of the caller, who is signed in. Default: none.
    pub roles: Option<Vec<String>>,
    /// Whether the caller has no token. Default: false.
    #[serde(default)]
    pub anonymous: Option<Switch>,
    /// allow, deny or none.
    pub expect: Expect,
}

/// The form of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for a terminal, JSON otherwise.
    #[default]
    Auto,
    /// Lines for a person.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least severe events that are logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Failures that need an operator.
    Error,
    /// And what is suspicious.
    Warn,
    /// And what happened.
    #[default]
    Info,
    /// And why.
    Debug,
}

/// What is logged and how.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// error, warn, info or debug. Default: info.
    #[serde(default)]
    pub level: LogLevel,
    /// auto, text or json. Default: auto.
    #[serde(default)]
    pub format: LogFormat,
    /// Whether each request leaves a line. Default: true.
    pub access: Option<Switch>,
}

/// The JSON Schema of the config, as committed beside the examples.
pub fn json_schema() -> String {
    let schema = schemars::schema_for!(Gateway);
    let mut text = serde_json::to_string_pretty(&schema).unwrap_or_default();
    text.push('\n');
    text
}
