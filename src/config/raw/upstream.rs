//! `upstreams` as they are written.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::units::{Number, Size, Span, Switch};

/// A backend.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// The servers; at least one.
    pub servers: Vec<Server>,
    /// How often names are looked up again; each address of a name is a server. Default: 30s.
    pub resolve: Option<Span>,
    /// least_requests (the one of two at random that has fewer), round_robin, hash (on the user, else the client's
    /// address), or {hash: user | address | {header: NAME}}. Default: least_requests.
    pub balance: Option<Balance>,
    /// How it is found out whether a server works. Default: it is taken for granted.
    pub health: Option<Health>,
    /// When a server that fails gets no more requests.
    #[serde(default)]
    pub ejection: Ejection,
    /// How long a server that comes back gets fewer requests than its weight says. Default: 0s.
    pub slow_start: Option<Span>,
    /// When a request is tried again: a number of times, or a map. Default: once.
    pub retries: Option<Retries>,
    /// TLS to servers with https. Names are verified, always.
    pub tls: Option<UpstreamTls>,
    /// For a connection to be made. Default: 1s.
    pub connect_timeout: Option<Span>,
    /// For the head of the response, once the request was sent. Default: 30s.
    pub response_timeout: Option<Span>,
    /// How many idle connections to a server all workers keep together. Default: 512.
    pub idle_connections: Option<Number>,
    /// How long a connection may rest before it is closed: less than the server keeps one. Default: 4s.
    pub idle_timeout: Option<Span>,
    /// How old a connection may become. Default: 10m.
    pub max_age: Option<Span>,
    /// The most connections to a server, of all workers together. Default: 1000.
    pub max_connections: Option<Number>,
    /// How many requests may wait for a connection. Default: 1000.
    pub max_waiting: Option<Number>,
    /// How long a request may wait for a connection before it is answered 503. Default: 1s.
    pub max_wait: Option<Span>,
    /// What is read ahead of a slow side.
    #[serde(default)]
    pub buffer: Buffer,
    /// The largest head of a response. Default: 256KiB.
    pub header_bytes: Option<Size>,
    /// The most header lines of a response. Default: 100.
    pub header_count: Option<Number>,
}

/// What is read ahead of a slow side, so that a server is free soon. A longer body streams.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Buffer {
    /// Of a request's body, before a server is asked. Default: 0B.
    pub request: Option<Size>,
    /// Of a response's body, while the client takes nothing. Default: 64KiB.
    pub response: Option<Size>,
}

/// One server of a backend.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// http://HOST:PORT, https://HOST:PORT, h2c://HOST:PORT (HTTP/2 by prior knowledge), or unix: and the path of a socket.
    pub url: String,
    /// Its share of the requests, relative to the others; 0 for none. Default: 1.
    pub weight: Option<Number>,
}

/// TLS to the servers of a backend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTls {
    /// A PEM file with the authorities that are believed. Default: those of the system.
    pub ca: Option<String>,
    /// The name that a server must have a certificate for, and that it is asked for by SNI. Default: that of its URL.
    pub name: Option<String>,
    /// A PEM file with the certificate that the gateway shows.
    pub certificate: Option<String>,
    /// A PEM file with its private key.
    pub key: Option<String>,
}

/// How the server of a request is chosen.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "expected least_requests, round_robin, hash, or {hash: user | address | {header: NAME}}"
)]
pub enum Balance {
    /// least_requests, round_robin or hash.
    Name(String),
    /// Of `hash`, what it is made of.
    Key(BTreeMap<String, HashKey>),
}

/// What requests with the same server have in common.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected user, address or {header: NAME}")]
pub enum HashKey {
    /// user or address.
    Name(String),
    /// A header.
    Header(HashHeader),
}

/// A header by whose value servers are chosen.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HashHeader {
    /// Its name.
    pub header: String,
}

/// How it is found out whether a server works.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// The path that is asked for by GET.
    pub path: Option<String>,
    /// The statuses of success, such as 200-299 or "200,204". Default: 200-299.
    pub expect: Option<Expected>,
    /// The Host of the probes. Default: that of the server.
    pub host: Option<String>,
    /// In place of `path`: whether the server only has to take a connection.
    pub tcp: Option<Switch>,
    /// Between two probes. Default: 2s.
    pub interval: Option<Span>,
    /// For one of them. Default: 1s.
    pub timeout: Option<Span>,
    /// Successes in a row after which a server is used again. Default: 2.
    pub healthy_after: Option<Number>,
    /// Failures in a row after which it is not. Default: 3.
    pub unhealthy_after: Option<Number>,
}

/// Statuses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a status such as 200, or ranges of them such as 200-299,401")]
pub enum Expected {
    /// One.
    One(u16),
    /// Ranges of them, with commas between.
    Ranges(String),
}

/// When a server that fails gets no more requests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ejection {
    /// Failures in a row: to connect, before a response, and 502, 503 or 504 as one. Default: 5.
    pub failures: Option<Number>,
    /// How long it gets none; then one request tries it. Default: 10s.
    pub r#for: Option<Span>,
    /// The share of the servers that may be ejected at once. Default: 50%.
    pub at_most: Option<String>,
}

/// When a request is tried again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected a number, or a map of attempts, budget and on")]
pub enum Retries {
    /// How often.
    Attempts(Number),
    /// How often, and when.
    Rules(RetryRules),
}

/// When a request is tried again.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryRules {
    /// How often. Default: 1.
    pub attempts: Option<Number>,
    /// The share of the requests of the last ten seconds that may be tried again; three always may. Default: 20%.
    pub budget: Option<String>,
    /// For which failures, of connect, reset and the statuses 500 to 599. Default: connect, reset, 502, 503, 504.
    pub on: Option<Vec<RetryOn>>,
}

/// A failure for which a request is tried again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "expected connect, reset, or a status from 500 to 599")]
pub enum RetryOn {
    /// A status.
    Status(u16),
    /// connect or reset.
    Name(String),
}
