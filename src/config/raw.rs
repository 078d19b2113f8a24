//! The config as it is written. The doc comments become the descriptions in the JSON Schema.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

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
    /// How stale the knowledge of logouts may become.
    #[serde(default)]
    pub revocation: Revocation,
    /// The headers that tell an upstream who is calling, or the name of a preset.
    #[serde(default)]
    pub identity_headers: IdentityHeaders,
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
    /// What is logged and how.
    #[serde(default)]
    pub log: Log,
}

/// One address that clients connect to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// IP address and port.
    pub address: String,
}

/// The admin listener.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// IP address and port. Default: 127.0.0.1:9901.
    pub address: Option<String>,
    /// Whether the address may be another than loopback, without TLS. Default: false.
    pub insecure: Option<Switch>,
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

/// Whether strangers may register.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Registration {
    /// Anyone may register.
    #[default]
    Open,
    /// Only an operator makes accounts: by the command line or the admin API.
    Closed,
}

/// Accounts and tokens.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// The path below which authgate answers itself; empty for the root. Default: /auth.
    pub path: Option<String>,
    /// The `iss` of tokens.
    pub issuer: String,
    /// The `aud` of tokens.
    pub audience: String,
    /// open or closed. Default: open.
    #[serde(default)]
    pub registration: Registration,
    /// The roles of a new account. Default: [user].
    pub default_roles: Option<Vec<String>>,
    /// The roles that a caller may ask for at registration. Default: none.
    #[serde(default)]
    pub self_assignable_roles: Vec<String>,
    /// How long an access token lives. Default: 15m.
    pub access_token_ttl: Option<Span>,
    /// How long a refresh token lives, from each rotation on. Default: 30d.
    pub refresh_token_ttl: Option<Span>,
    /// For how long the replay of the token that was just replaced gives the same successor. Default: 30s.
    pub refresh_grace: Option<Span>,
    /// How long a session lives, whatever is refreshed. Default: 30d.
    pub session_max_ttl: Option<Span>,
    /// 32 bytes or more that wrap the private keys in the store. Default: the file master.key beside the
    /// SQLite database, or beside this file.
    pub master_key: Option<Secret>,
    /// How recent a login must be to change credentials without the current password. Default: 5m.
    pub reauth_window: Option<Span>,
    /// How access tokens are signed.
    #[serde(default)]
    pub signing: Signing,
    /// Rules for passwords, and what hashing may cost.
    #[serde(default)]
    pub password: Password,
    /// How many attempts are taken before 429.
    #[serde(default)]
    pub throttle: Throttle,
    /// Which pages of other origins may call authgate from a browser. Default: none.
    pub cors: Option<Cors>,
    /// For clients of older services.
    #[serde(default)]
    pub compat: Compat,
    /// Mails to verify addresses and to reset passwords. Default: none are sent.
    pub email: Option<Email>,
}

/// Which pages of other origins may call from a browser (Fetch standard, CORS protocol).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// Origins such as https://app.example.com; or `*` alone for any.
    pub origins: Vec<String>,
    /// Whether they may send cookies and the like. Default: false.
    pub credentials: Option<Switch>,
    /// How long a browser may remember the answer to its question. Default: 10m.
    pub max_age: Option<Span>,
}

/// What older clients expect otherwise.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compat {
    /// The status when a name is taken: 409, 400 or 422. Default: 409.
    pub duplicate_username: Option<Number>,
    /// The status for a missing, bad or expired token: 401 or 403. Default: 401.
    pub unauthenticated: Option<Number>,
    /// The members that carry the access token in answers; access_token always does. Default: [access_token].
    pub token_fields: Option<Vec<String>>,
    /// Whether login also answers `Authorization: Bearer …`. Default: false.
    pub token_in_header: Option<Switch>,
}

/// Mails.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Email {
    /// The server that takes them.
    pub smtp: Smtp,
    /// The sender, such as `Example <no-reply@example.com>`.
    pub from: String,
    /// What links begin with, such as https://app.example.com.
    pub base_url: String,
    /// The page for a token that verifies an address. Default: /verify-email?token={token}.
    pub verify_path: Option<String>,
    /// The page for a token that resets a password. Default: /reset-password?token={token}.
    pub reset_path: Option<String>,
    /// How long a link to verify an address lives. Default: 1d.
    pub verify_ttl: Option<Span>,
    /// How long a link to reset a password lives. Default: 30m.
    pub reset_ttl: Option<Span>,
    /// For how long an undelivered mail is tried again. Default: 3d.
    pub retry_for: Option<Span>,
    /// A folder with verify.txt, verify.html, reset.txt or reset.html in place of the built-in texts.
    pub templates: Option<String>,
}

/// How the connection to the mail server is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// STARTTLS, required.
    #[default]
    Starttls,
    /// TLS from the first byte.
    Tls,
    /// None; for a server on loopback.
    None,
}

/// A mail server.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Smtp {
    /// Its name, which its certificate must show.
    pub host: String,
    /// Default: 587; 465 with tls, 25 with none.
    pub port: Option<Number>,
    /// starttls, tls or none. Default: starttls.
    #[serde(default)]
    pub encryption: Encryption,
    /// The user name, if it wants one.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// A file of certificates (PEM) to trust beside the system's.
    pub ca: Option<String>,
    /// For one mail. Default: 20s.
    pub timeout: Option<Span>,
}

/// The algorithm of access tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// Ed25519.
    #[default]
    EdDSA,
    /// ECDSA on P-256.
    ES256,
    /// HMAC with a shared secret: every holder of it can make tokens.
    HS256,
}

/// How access tokens are signed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Signing {
    /// EdDSA, ES256 or HS256. Default: EdDSA.
    #[serde(default)]
    pub algorithm: Algorithm,
    /// HS256 only: the shared secret, 32 bytes or more.
    pub secret: Option<Secret>,
    /// HS256 only: the secret before this one; its tokens verify until they expire.
    pub previous_secret: Option<Secret>,
}

/// Rules for passwords.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Password {
    /// The least number of characters. Default: 15 (NIST SP 800-63B-4 for a password alone).
    pub min_length: Option<Number>,
    /// Whether well-known passwords are refused. Default: true.
    pub reject_common: Option<Switch>,
    /// The cost of one hash.
    #[serde(default)]
    pub argon2: Argon2,
    /// How many threads hash. Default: the number of cores.
    pub workers: Option<Number>,
    /// How many hashes may wait. Default: 64.
    pub queue: Option<Number>,
    /// How long one may wait before it is refused with 503. Default: 2s.
    pub queue_timeout: Option<Span>,
}

/// The cost of one Argon2id hash (RFC 9106).
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Argon2 {
    /// Memory. Default: 19MiB.
    pub memory: Option<Size>,
    /// Passes. Default: 2.
    pub iterations: Option<Number>,
    /// Lanes. Default: 1.
    pub parallelism: Option<Number>,
}

/// How many attempts are taken.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Throttle {
    /// Failed logins of one account from addresses it does not know. Default: 10 per 5m.
    pub account: Option<Failures>,
    /// Failed logins from one address (IPv6: one /64). Default: 100 per 5m.
    pub address: Option<Failures>,
    /// Registrations from one address (IPv6: one /64). Default: 20 per 1m.
    pub registrations: Option<Requests>,
    /// Requests for mails from one address (IPv6: one /64). Default: 10 per 10m.
    pub mails: Option<Requests>,
}

/// A number of failures in a span of time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Failures {
    /// How many.
    pub failures: Number,
    /// In how long.
    pub per: Span,
}

/// A number of requests in a span of time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requests {
    /// How many.
    pub requests: Number,
    /// In how long.
    pub per: Span,
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
    /// From the request's head to the answer's head. Default: 60s.
    pub request_timeout: Option<Span>,
    /// A body that keeps above this rate a second extends request_timeout. Default: 1KiB.
    pub body_min_rate: Option<Size>,
    /// Between two bytes of a body, either way. Default: 30s.
    pub body_idle_timeout: Option<Span>,
}

/// A backend.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// The server; one for now.
    pub servers: Vec<Server>,
    /// For a connection to be made. Default: 1s.
    pub connect_timeout: Option<Span>,
    /// For the head of the answer, once the request was sent. Default: 30s.
    pub response_timeout: Option<Span>,
    /// How many idle connections all workers keep together. Default: 512.
    pub idle_connections: Option<Number>,
}

/// One server of a backend.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// http://HOST:PORT.
    pub url: String,
}

/// Whether a route asks for a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RouteAuth {
    /// A good token, or 401.
    Required,
    /// No token is anonymous; a bad one is 401.
    Optional,
    /// Tokens are removed, not read.
    None,
}

/// Which path goes where, and who may use it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// A path; `{x}` stands for one segment, a final `/**` for the path and all below it.
    pub path: String,
    /// Only for this host.
    pub host: Option<String>,
    /// Only for these methods; GET implies HEAD. Default: all.
    pub methods: Option<Vec<String>>,
    /// required, optional or none. Default: required.
    pub auth: Option<RouteAuth>,
    /// The roles that may use it; implies required.
    pub roles: Option<RoleRule>,
    /// The name of the upstream.
    pub upstream: Option<String>,
    /// Whether the Authorization header goes on to the upstream. Default: false.
    #[serde(default)]
    pub forward_token: Option<Switch>,
    /// In place of limits.request_timeout.
    pub timeout: Option<Span>,
    /// In place of limits.body.
    pub body: Option<Size>,
    /// In place of revocation.on_stale.
    pub on_stale: Option<OnStale>,
    /// An answer by the gateway itself, in place of an upstream.
    pub respond: Option<Respond>,
    /// Which pages of other origins may call this route from a browser; authgate answers their
    /// questions itself. Default: it is the upstream's business.
    pub cors: Option<Cors>,
}

/// The roles that may use a route: any or all of a list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleRule {
    /// One of these is enough.
    pub any: Option<Vec<String>>,
    /// All of these are needed.
    pub all: Option<Vec<String>>,
}

/// An answer by the gateway itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// The status. Default: 200.
    pub status: Option<Number>,
    /// The body. `{user.id}`, `{user.name}` and `{user.roles}` in its strings are filled in.
    pub json: serde_json::Value,
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
