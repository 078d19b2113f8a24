//! An upstream: its servers, and how requests are spread over them.

use std::{ops::RangeInclusive, time::Duration};

use http::HeaderName;

use super::{Server, Source, UpstreamTls};

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Its name in the config.
    pub name: String,
    /// Its servers; at least one.
    pub servers: Vec<WeightedServer>,
    /// How often names are looked up again.
    pub resolve: Duration,
    /// Which server a request goes to.
    pub balance: Balance,
    /// How it is found out whether a server works; none for taking it for granted.
    pub health: Option<Health>,
    /// When a server that fails gets no more requests.
    pub ejection: Ejection,
    /// How long a server that comes back gets fewer requests than its weight says.
    pub slow_start: Duration,
    /// When a request is tried again.
    pub retries: Retries,
    /// TLS to servers with `https`.
    pub tls: UpstreamTls,
    /// For a connection.
    pub connect_timeout: Duration,
    /// For the head of a response.
    pub response_timeout: Duration,
    /// Idle connections to a server, of all workers together.
    pub idle_connections: usize,
    /// How long one may rest.
    pub idle_timeout: Duration,
    /// How old one may become.
    pub max_age: Duration,
    /// Connections to a server, of all workers together.
    pub max_connections: usize,
    /// Requests that may wait for one.
    pub max_waiting: usize,
    /// How long one may wait.
    pub max_wait: Duration,
    /// What is read ahead of a slow side.
    pub buffer: Buffer,
    /// Bytes of a response's head.
    pub header_bytes: usize,
    /// Header lines of a response's head.
    pub header_count: usize,
    /// Where it stands in the config.
    pub source: Source,
}

impl Upstream {
    /// Returns whether another config defines the same upstream, perhaps in another place.
    pub fn is_like(&self, other: &Self) -> bool {
        let (source, tls) = (self.source.clone(), self.tls.clone());
        self.tls.is_like(&other.tls) && *self == Self { source, tls, ..other.clone() }
    }

    /// Returns the `Host` of a request that names none.
    pub fn host(&self) -> &str {
        self.servers.first().map_or("localhost", |server| server.server.host())
    }
}

/// What of a body is read ahead of the side that it goes to, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffer {
    /// Of a request, before a server is asked.
    pub request: usize,
    /// Of a response, while the client takes nothing.
    pub response: usize,
}

/// A server, and its share of the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WeightedServer {
    /// The server.
    pub server: Server,
    /// Its share, relative to the others. A server with 0 gets no new requests.
    pub weight: u32,
}

/// How the server of a request is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Balance {
    /// The one of two at random that has fewer requests.
    LeastRequests,
    /// One after the other.
    RoundRobin,
    /// The same one for the same key, as long as it is there.
    Hash(HashKey),
}

/// What requests with the same server have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The user, or the client's address where there is none.
    User,
    /// The client's address.
    Address,
    /// The value of a header, or the client's address where there is none.
    Header(HeaderName),
}

/// How it is found out whether a server works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// What is asked.
    pub probe: Probe,
    /// Between two probes.
    pub interval: Duration,
    /// For one of them.
    pub timeout: Duration,
    /// Successes in a row after which a server is used again.
    pub healthy_after: usize,
    /// Failures in a row after which it is not.
    pub unhealthy_after: usize,
}

/// What a server is asked to find out whether it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// To take a connection.
    Connect,
    /// To respond to a GET.
    Get {
        /// Path and query.
        target: String,
        /// `Host`; that of the server if none.
        host: Option<String>,
        /// The statuses of success.
        expect: Vec<RangeInclusive<u16>>,
    },
}

/// When a server that fails gets no more requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ejection {
    /// Failures in a row.
    pub failures: u32,
    /// How long it gets none.
    pub span: Duration,
    /// The share of the servers that may be ejected at once, in percent.
    pub at_most: u32,
}

/// When a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// How often.
    pub attempts: u32,
    /// The share of the requests of the last ten seconds that may be tried again, in percent.
    pub budget: u32,
    /// Whether where no connection could be made, or nothing was sent on it.
    pub on_connect: bool,
    /// Whether where a connection broke before the response.
    pub on_reset: bool,
    /// The statuses for which.
    pub on_status: Vec<u16>,
}
