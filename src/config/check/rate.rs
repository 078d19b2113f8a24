//! How many requests a route takes: `rate_limit`.

use std::time::Duration;

use http::HeaderName;

use super::Check;
use crate::config::{MOST_RATE_LIMITS, RateKey, RateLimit, raw};

/// The longest time that requests are counted in.
const LONGEST: Duration = Duration::from_secs(86_400);

/// The longest time in which a bucket is full again.
const FULL_IN: Duration = Duration::from_secs(366 * 86_400);

/// The most requests in that time, and at once.
const MOST: u64 = 1_000_000_000;

impl Check<'_> {
    /// The limits of a route.
    pub(super) fn rate_limits(&mut self, key: &str, raw: Option<raw::RateLimits>) -> Vec<RateLimit> {
        let limits = match raw {
            None => return Vec::new(),
            Some(raw::RateLimits::One(limit)) => vec![self.rate_limit(key, limit)],
            Some(raw::RateLimits::All(limits)) => {
                if limits.is_empty() || limits.len() > MOST_RATE_LIMITS {
                    self.error(key, format!("expected 1 to {MOST_RATE_LIMITS} limits"));
                }
                let limits = limits.into_iter().enumerate();
                limits.map(|(index, limit)| self.rate_limit(&format!("{key}[{index}]"), limit)).collect()
            }
        };
        for (index, limit) in limits.iter().enumerate() {
            if limits[..index].contains(limit) {
                self.error(key, "the same limit stands there twice");
            }
        }
        limits
    }

    fn rate_limit(&mut self, key: &str, raw: raw::RateLimit) -> RateLimit {
        let requests = self.number(&format!("{key}.requests"), Some(raw.requests), 1, (1, MOST));
        let burst = self.number(&format!("{key}.burst"), raw.burst, requests as u64, (1, MOST));
        let per_key = format!("{key}.per");
        let per = self.span(&per_key, Some(raw.per), Duration::from_secs(1));
        if per > LONGEST {
            self.error(&per_key, "expected up to 24h");
        }
        let by_key = format!("{key}.by");
        let by = match raw.by {
            None => RateKey::User,
            Some(raw::RateKey::Name(name)) => match name.as_str() {
                "user" => RateKey::User,
                "address" => RateKey::Address,
                "route" => RateKey::Route,
                _ => {
                    self.error(&by_key, "expected user, address, route or {header: NAME}");
                    RateKey::Route
                }
            },
            Some(raw::RateKey::Header(raw::RateHeader { header })) => match HeaderName::try_from(&header) {
                Ok(name) => RateKey::Header(name),
                Err(_) => {
                    self.error(&format!("{by_key}.header"), "expected the name of a header");
                    RateKey::Route
                }
            },
        };
        if per.saturating_mul(burst as u32) / (requests as u32).max(1) > FULL_IN {
            self.error(&format!("{key}.burst"), "expected so many that all of them come back within a year");
        }
        // Every number here fits.
        RateLimit { requests: requests as u32, per, burst: burst as u32, by }
    }
}
