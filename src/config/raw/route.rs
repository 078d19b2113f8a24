//! `routes`, as they are written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Cors, OnStale};
use crate::config::units::{Number, Size, Span, Switch};

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
    /// Only for this host; `*.example.com` stands for all names below. An exact host wins, then the longer pattern.
    pub host: Option<String>,
    /// Only for these methods; GET implies HEAD. Default: all.
    pub methods: Option<Vec<String>>,
    /// required, optional or none. Default: required.
    pub auth: Option<RouteAuth>,
    /// The roles that may use it; implies required.
    pub roles: Option<RoleRule>,
    /// How long ago at most the caller must have shown who they are, such as 5m; implies required. A program gets 401 (RFC 9470), a person
    /// with a browser is asked for the password.
    pub fresh: Option<Span>,
    /// Whether the caller must have shown who they are by two factors, or by a passkey that knows its user; implies required. Default: false.
    pub mfa: Option<Switch>,
    /// The name of the upstream.
    pub upstream: Option<String>,
    /// Whether the Authorization header goes on to the upstream. Default: false.
    #[serde(default)]
    pub forward_token: Option<Switch>,
    /// In place of limits.request_timeout.
    pub timeout: Option<Span>,
    /// In place of limits.body.
    pub body: Option<Size>,
    /// How long a stream or a WebSocket may be idle, in place of limits.body_idle_timeout and limits.idle_timeout.
    pub idle_timeout: Option<Span>,
    /// In place of revocation.on_stale.
    pub on_stale: Option<OnStale>,
    /// What happens to `%2F` and `;` in a path. Default: refuse.
    #[serde(default)]
    pub encoded: Encoded,
    /// Whether X-HTTP-Method-Override and its kin go on to the upstream; the request must then be allowed by
    /// either method. Default: false.
    pub method_override: Option<Switch>,
    /// The path and the host by which the upstream is asked.
    pub rewrite: Option<Rewrite>,
    /// What is changed of headers, beside what authgate itself does.
    #[serde(default)]
    pub headers: RouteHeaders,
    /// A response by the gateway itself, in place of an upstream.
    pub respond: Option<Respond>,
    /// Where clients are sent, in place of an upstream.
    pub redirect: Option<Redirect>,
    /// Which pages of other origins may call this route from a browser; authgate answers their
    /// questions itself. Default: it is the upstream's business.
    pub cors: Option<Cors>,
    /// How many requests are taken; beyond that 429. One limit, or a list of which all hold.
    pub rate_limit: Option<RateLimits>,
}

/// One limit, or several.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected {requests, per, burst, by}, or a list of such limits")]
pub enum RateLimits {
    /// One.
    One(RateLimit),
    /// All of these hold. What one of them refuses spends nothing of the others.
    All(Vec<RateLimit>),
}

/// How many requests a route takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateLimit {
    /// How many requests.
    pub requests: Number,
    /// In how long, up to a day.
    pub per: Span,
    /// How many may come at once. Default: `requests`.
    pub burst: Option<Number>,
    /// What they are counted by. Default: user.
    pub by: Option<RateKey>,
}

/// What requests are counted by.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected user, address, route or {header: NAME}")]
pub enum RateKey {
    /// user (whoever is not signed in by the address), address (that of IPv6 by its /64), or route: all together.
    Name(String),
    /// A header; those without it together.
    Header(RateHeader),
}

/// A header by which requests are counted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RateHeader {
    /// Its name.
    pub header: String,
}

/// What happens to `%2F` and `;` in a path.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Encoded {
    /// Such a request is 400.
    #[default]
    Refuse,
    /// They go on as they came, if every reading of the path belongs to this route.
    Keep,
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

/// How an upstream is asked: `strip_prefix` and `add_prefix`, or `path`; and `host`. The query stays as it is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rewrite {
    /// Whole segments at the begin of the path that are taken away. Every path of the route must have them.
    pub strip_prefix: Option<String>,
    /// Whole segments that are put before the path.
    pub add_prefix: Option<String>,
    /// One path for all requests.
    pub path: Option<String>,
    /// The Host header, in place of the client's.
    pub host: Option<String>,
}

/// What a route changes of headers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteHeaders {
    /// On the way to the upstream.
    #[serde(default)]
    pub request: HeaderRules,
    /// On the way back.
    #[serde(default)]
    pub response: HeaderRules,
}

/// What is changed of the headers of a message: first `remove`, then `set`, then `add`.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HeaderRules {
    /// Headers that replace those of their name.
    #[serde(default)]
    pub set: BTreeMap<String, String>,
    /// Headers that stand beside those of their name.
    #[serde(default)]
    pub add: BTreeMap<String, String>,
    /// Headers that are taken out.
    #[serde(default)]
    pub remove: Vec<String>,
}

/// Where clients are sent.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// https://HOST/…, or a path. `{path}` stands for the path of the request; its query is appended unless there is one here.
    pub to: String,
    /// 301, 302, 303, 307 or 308. Default: 308.
    pub status: Option<Number>,
}

/// A response by the gateway itself.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// The status. Default: 200.
    pub status: Option<Number>,
    /// The body. `{user.id}`, `{user.name}` and `{user.roles}` in its strings are filled in.
    pub json: serde_json::Value,
}
