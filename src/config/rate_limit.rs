//! How many requests a route takes.

use std::time::Duration;

use http::HeaderName;

/// The most limits of a route: each is looked up at each request.
pub const MOST_RATE_LIMITS: usize = 8;

/// A limit of a route.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// How many requests.
    pub requests: u32,
    /// In how long.
    pub per: Duration,
    /// How many may come at once.
    pub burst: u32,
    /// What is counted.
    pub by: RateKey,
}

/// What the requests of a limit are counted by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RateKey {
    /// The caller; whoever is not signed in by the address.
    User,
    /// The client's address.
    Address,
    /// The value of a header; those without it are counted together.
    Header(HeaderName),
    /// All of the route together.
    Route,
}

impl RateKey {
    /// Returns what it is called in policies and descriptions.
    pub fn name(&self) -> &str {
        match self {
            Self::User => "user",
            Self::Address => "address",
            Self::Header(name) => name.as_str(),
            Self::Route => "route",
        }
    }
}

impl std::fmt::Display for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {:?} by {}", self.requests, self.per, self.by.name())
    }
}
