//! Asks a service whether a password was stolen. It is told five of the forty digits of the password's hash, and says which stolen ones
//! begin with these: the password itself stays here (<https://haveibeenpwned.com/API/v3#SearchingPwnedPasswordsByRange>).
//!
//! Whoever chooses a password waits for it, and is not refused because it is away: the list in memory (`password/breached.rs`) is for those
//! who want to be sure.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use tokio::time::timeout;

use crate::{
    config,
    http_client::{HttpClient, HttpVersion, ResponseBounds},
    limit::{CallGate, Prefix},
    password::public_hash,
    types::Secret,
};

/// How many digits of a hash the service is told.
const TOLD: usize = 5;

/// The longest response, in bytes. A thousand hashes take 40,000.
const LONGEST_RESPONSE: usize = 1 << 20;

/// Questions at once, of which no client address has more than half: a service that is slow for one address does not hold up others.
const AT_ONCE: usize = 32;

/// A service that knows stolen passwords by their hashes.
pub struct BreachedService {
    config: config::BreachedService,
    client: HttpClient,
    gate: Arc<CallGate>,
}

impl BreachedService {
    /// Creates what asks the service, by a client for it.
    pub fn new(config: config::BreachedService, client: HttpClient) -> Self {
        Self { config, client, gate: CallGate::new(AT_ONCE) }
    }

    /// Returns whether the service knows the password as a stolen one, which somebody at `address` has chosen. What it does not say in time
    /// is taken for no.
    pub(super) async fn knows(&self, password: &Secret, address: IpAddr) -> bool {
        let Some(_admitted) = self.gate.admit(Prefix::of(address)) else {
            self.warn("too many are asked about at once");
            return false;
        };
        let hash = public_hash(password);
        let (told, rest) = hash.split_at(TOLD);
        match timeout(self.config.timeout, self.ask(told, rest)).await {
            Ok(Ok(knows)) => return knows,
            Ok(Err(reason)) => self.warn(&reason),
            Err(_) => self.warn("no response in time"),
        }
        false
    }

    fn warn(&self, reason: &str) {
        let server = &self.config.url.authority;
        tracing::warn!(server.address = server, reason, "a password was not looked up among stolen ones");
    }

    async fn ask(&self, told: &str, rest: &str) -> Result<bool, String> {
        let mut url = self.config.url.clone();
        url.target.push_str(told);
        let mut request = Request::new(Full::new(Bytes::new()));
        // The length of the response would tell which digits were asked for.
        request.headers_mut().insert("add-padding", HeaderValue::from_static("true"));
        let bounds = ResponseBounds { body: LONGEST_RESPONSE, timeout: self.config.timeout };
        let response = self.client.send(&url, HttpVersion::Http1, request, bounds).await;
        let response = response.map_err(|error| error.to_string())?;
        match response.status() {
            StatusCode::OK => Ok(lists(&response.into_body().to_bytes(), rest)),
            status => Err(format!("it responded with {status}")),
        }
    }
}

/// Returns whether a response lists the rest of a hash. Each of its lines is one with how often it was seen; 0 is padding.
fn lists(response: &[u8], rest: &str) -> bool {
    response.split(|byte| *byte == b'\n').any(|line| {
        let Some((hash, count)) = line.trim_ascii().split_at_checked(rest.len()) else { return false };
        let seen = count.strip_prefix(b":").is_some_and(|count| count.iter().any(|digit| *digit != b'0'));
        hash.eq_ignore_ascii_case(rest.as_bytes()) && seen
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_listed_by_a_line_of_its_own_that_is_no_padding() {
        let response = b"0018A45C4D1DEF81644B54AB7F969B88D65:1\r\n00D4F6E8FA6EECAD2A3AA415EEC418D38EC:0\r\n011053FD0102E94D6AE2F8B83D76FAF94F6:25";
        for (rest, is_listed) in [
            ("0018A45C4D1DEF81644B54AB7F969B88D65", true),
            ("011053fd0102e94d6ae2f8b83d76faf94f6", true),
            ("00D4F6E8FA6EECAD2A3AA415EEC418D38EC", false),
            ("1018A45C4D1DEF81644B54AB7F969B88D65", false),
        ] {
            assert_eq!(lists(response, rest), is_listed, "{rest}");
        }
        assert!(!lists(b"0018A45C4D1DEF81644B54AB7F969B88D65", "0018A45C4D1DEF81644B54AB7F969B88D65"));
        assert!(!lists(b"", "0018A45C4D1DEF81644B54AB7F969B88D65"));
    }
}
