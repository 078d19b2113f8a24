//! The backends: `upstreams`.

use std::{collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, time::Duration};

use http::{HeaderName, uri::PathAndQuery};
use rustls::pki_types::ServerName;

use super::Check;
use crate::{
    config::{
        Balance, Buffer, Ejection, HashKey, Health, Probe, Retries, Server, Upstream, UpstreamTls,
        WeightedServer, is_own, raw, units::Span,
    },
    types::host::is_host,
};

/// The statuses for which a request is tried again by default, and those that count as failures of a server.
const FAILURES: [u16; 3] = [502, 503, 504];

impl Check<'_> {
    pub(super) fn upstreams(
        &mut self,
        raw: BTreeMap<String, raw::Upstream>,
        listeners: &[SocketAddr],
    ) -> Vec<Upstream> {
        raw.into_iter().map(|(name, upstream)| self.upstream(name, upstream, listeners)).collect()
    }

    fn upstream(&mut self, name: String, raw: raw::Upstream, listeners: &[SocketAddr]) -> Upstream {
        let seconds = Duration::from_secs;
        let upstream = format!("upstreams.{name}");
        let servers = self.servers(&upstream, &raw.servers, listeners);
        let is_secured = servers.iter().any(|server| matches!(server.server, Server::Tls(_)));
        let key = |key: &str| format!("{upstream}.{key}");
        let connections = (1, 1_000_000);
        let heads = (1 << 10, 4 << 20);
        let buffers = (0, 64 << 20);
        Upstream {
            servers,
            resolve: self.span(&key("resolve"), raw.resolve, seconds(30)),
            balance: self.balance(&key("balance"), raw.balance.as_ref()),
            health: raw.health.as_ref().and_then(|health| self.health(&key("health"), health)),
            ejection: self.ejection(&key("ejection"), &raw.ejection),
            slow_start: raw.slow_start.map_or(Duration::ZERO, |Span(span)| span),
            retries: self.retries(&key("retries"), raw.retries.as_ref()),
            tls: self.upstream_tls(&key("tls"), raw.tls.as_ref(), is_secured),
            connect_timeout: self.span(&key("connect_timeout"), raw.connect_timeout, seconds(1)),
            response_timeout: self.span(&key("response_timeout"), raw.response_timeout, seconds(30)),
            idle_connections: self.number(&key("idle_connections"), raw.idle_connections, 512, (0, 100_000)),
            idle_timeout: self.span(&key("idle_timeout"), raw.idle_timeout, seconds(4)),
            max_age: self.span(&key("max_age"), raw.max_age, seconds(600)),
            max_connections: self.number(&key("max_connections"), raw.max_connections, 1_000, connections),
            max_waiting: self.number(&key("max_waiting"), raw.max_waiting, 1_000, (0, 1_000_000)),
            max_wait: self.span(&key("max_wait"), raw.max_wait, seconds(1)),
            buffer: Buffer {
                request: self.size(&key("buffer.request"), raw.buffer.request, 0, buffers) as usize,
                response: self.size(&key("buffer.response"), raw.buffer.response, 64 << 10, buffers) as usize,
            },
            header_bytes: self.size(&key("header_bytes"), raw.header_bytes, 256 << 10, heads) as usize,
            header_count: self.number(&key("header_count"), raw.header_count, 100, (1, 1_000)),
            source: self.document.source(&upstream),
            name,
        }
    }

    fn servers(
        &mut self,
        upstream: &str,
        raw: &[raw::Server],
        listeners: &[SocketAddr],
    ) -> Vec<WeightedServer> {
        let mut servers: Vec<WeightedServer> = Vec::new();
        for (index, raw) in raw.iter().enumerate() {
            let key = format!("{upstream}.servers[{index}].url");
            let relative =
                raw.url.strip_prefix("unix:").filter(|path| !path.is_empty() && !path.starts_with('/'));
            let url = match relative {
                Some(path) => {
                    let path = self.document.folder.join(path);
                    format!("unix:{}", std::path::absolute(&path).unwrap_or(path).display())
                }
                None => raw.url.clone(),
            };
            let server = match Server::parse(&url) {
                Ok(server) => server,
                Err(problem) => {
                    self.error(&key, problem);
                    continue;
                }
            };
            if let Server::Tcp(authority) | Server::Tls(authority) | Server::H2c(authority) = &server {
                let numeric = authority.replace("localhost", "127.0.0.1").parse();
                if numeric.is_ok_and(|server| is_own(server, listeners)) {
                    let problem = "this is a listener of authgate itself: requests would go round in circles";
                    self.error(&key, problem);
                }
            }
            if servers.iter().any(|other| other.server == server) {
                self.error(&key, "another server of this upstream has this address; give it a `weight`");
            }
            let weight = format!("{upstream}.servers[{index}].weight");
            let weight = self.number(&weight, raw.weight, 1, (0, 1_000)) as u32;
            servers.push(WeightedServer { server, weight });
        }
        let key = format!("{upstream}.servers");
        if raw.is_empty() {
            self.error(&key, "expected at least one `- url: http://HOST:PORT`");
        } else if servers.len() == raw.len() && servers.iter().all(|server| server.weight == 0) {
            self.error(&key, "expected a server with a weight above 0");
        }
        servers
    }

    fn upstream_tls(&mut self, key: &str, raw: Option<&raw::UpstreamTls>, is_secured: bool) -> UpstreamTls {
        let source = self.document.source(key);
        let none = raw::UpstreamTls::default();
        if raw.is_some() && !is_secured {
            self.error(key, "goes with servers whose url begins with https://");
        }
        let raw = raw.unwrap_or(&none);
        if raw.name.as_ref().is_some_and(|name| ServerName::try_from(name.as_str()).is_err()) {
            self.error(&format!("{key}.name"), "expected the name of a host, such as orders.internal");
        }
        let own = match (&raw.certificate, &raw.key) {
            (Some(certificate), Some(file)) => Some(self.files(key, certificate, file)),
            (None, None) => None,
            (Some(_), None) => {
                self.error(&format!("{key}.certificate"), "needs `key`, the key of its leaf");
                None
            }
            (None, Some(_)) => {
                self.error(&format!("{key}.key"), "needs `certificate`, which it belongs to");
                None
            }
        };
        let ca = raw.ca.as_ref().map(|ca| self.document.folder.join(ca));
        UpstreamTls { ca, beside_system: false, name: raw.name.clone(), own, source }
    }

    fn balance(&mut self, key: &str, raw: Option<&raw::Balance>) -> Balance {
        const LEGAL: &str =
            "expected least_requests, round_robin, hash, or {hash: user | address | {header: NAME}}";
        let hash = match raw {
            None => return Balance::LeastRequests,
            Some(raw::Balance::Name(name)) => match name.as_str() {
                "least_requests" => return Balance::LeastRequests,
                "round_robin" => return Balance::RoundRobin,
                "hash" => return Balance::Hash(HashKey::User),
                _ => None,
            },
            Some(raw::Balance::Key(map)) => map.get("hash").filter(|_| map.len() == 1),
        };
        let hash = match hash {
            Some(raw::HashKey::Name(name)) if name == "user" => HashKey::User,
            Some(raw::HashKey::Name(name)) if name == "address" => HashKey::Address,
            Some(raw::HashKey::Header(raw::HashHeader { header })) => match HeaderName::try_from(header) {
                Ok(name) => HashKey::Header(name),
                Err(_) => {
                    self.error(&format!("{key}.hash.header"), "expected the name of a header");
                    HashKey::User
                }
            },
            _ => {
                self.error(key, LEGAL);
                HashKey::User
            }
        };
        Balance::Hash(hash)
    }

    fn health(&mut self, key: &str, raw: &raw::Health) -> Option<Health> {
        let connects = raw.tcp.is_some_and(|tcp| tcp.0);
        let probe = match (&raw.path, connects) {
            (Some(_), true) | (None, false) => {
                self.error(key, "expected `path`, or `tcp: true` in place of it");
                return None;
            }
            (None, true) => {
                for (name, is_there) in [("expect", raw.expect.is_some()), ("host", raw.host.is_some())] {
                    if is_there {
                        self.error(&format!("{key}.{name}"), "goes with `path` only");
                    }
                }
                Probe::Connect
            }
            (Some(path), false) => {
                if !path.starts_with('/') || path.parse::<PathAndQuery>().is_err() || path.contains('#') {
                    self.error(&format!("{key}.path"), "expected a path that begins with `/`");
                }
                if raw.host.as_ref().is_some_and(|host| !is_host(host)) {
                    self.error(&format!("{key}.host"), "expected a host, such as orders.internal");
                }
                let expect = self.expected(&format!("{key}.expect"), raw.expect.as_ref());
                Probe::Get { target: path.clone(), host: raw.host.clone(), expect }
            }
        };
        let seconds = Duration::from_secs;
        let of = |name: &str| format!("{key}.{name}");
        Some(Health {
            probe,
            interval: self.span(&of("interval"), raw.interval, seconds(2)),
            timeout: self.span(&of("timeout"), raw.timeout, seconds(1)),
            healthy_after: self.number(&of("healthy_after"), raw.healthy_after, 2, (1, 100)),
            unhealthy_after: self.number(&of("unhealthy_after"), raw.unhealthy_after, 3, (1, 100)),
        })
    }

    fn expected(&mut self, key: &str, raw: Option<&raw::Expected>) -> Vec<RangeInclusive<u16>> {
        let ranges = match raw {
            None => return vec![200..=299],
            Some(raw::Expected::One(status)) => Some(vec![*status..=*status]),
            Some(raw::Expected::Ranges(text)) => text.split(',').map(range).collect(),
        };
        let legal = |ranges: &Vec<RangeInclusive<u16>>| {
            ranges
                .iter()
                .all(|range| range.start() <= range.end() && *range.start() >= 200 && *range.end() <= 599)
        };
        ranges.filter(legal).unwrap_or_else(|| {
            self.error(key, "expected statuses from 200 to 599, such as 200, 200-299 or 200-299,401");
            Vec::new()
        })
    }

    fn percent(&mut self, key: &str, raw: Option<&String>, default: u32) -> u32 {
        let Some(text) = raw else { return default };
        let parsed =
            text.strip_suffix('%').and_then(|number| number.parse().ok()).filter(|share| *share <= 100);
        parsed.unwrap_or_else(|| {
            self.error(key, "expected a share from 0% to 100%");
            default
        })
    }

    fn ejection(&mut self, key: &str, raw: &raw::Ejection) -> Ejection {
        Ejection {
            failures: self.number(&format!("{key}.failures"), raw.failures, 5, (1, 1_000_000)) as u32,
            span: self.span(&format!("{key}.for"), raw.r#for, Duration::from_secs(10)),
            at_most: self.percent(&format!("{key}.at_most"), raw.at_most.as_ref(), 50),
        }
    }

    fn retries(&mut self, key: &str, raw: Option<&raw::Retries>) -> Retries {
        let none = raw::RetryRules::default();
        let (attempts_key, attempts, rules) = match raw {
            None => (key.to_owned(), None, &none),
            Some(raw::Retries::Attempts(attempts)) => (key.to_owned(), Some(*attempts), &none),
            Some(raw::Retries::Rules(rules)) => (format!("{key}.attempts"), rules.attempts, rules),
        };
        let mut retries = Retries {
            attempts: self.number(&attempts_key, attempts, 1, (0, 10)) as u32,
            budget: self.percent(&format!("{key}.budget"), rules.budget.as_ref(), 20),
            on_connect: rules.on.is_none(),
            on_reset: rules.on.is_none(),
            on_status: if rules.on.is_none() { FAILURES.to_vec() } else { Vec::new() },
        };
        for (index, on) in rules.on.iter().flatten().enumerate() {
            match on {
                raw::RetryOn::Name(name) if name == "connect" => retries.on_connect = true,
                raw::RetryOn::Name(name) if name == "reset" => retries.on_reset = true,
                raw::RetryOn::Status(status) if (500..600).contains(status) => {
                    retries.on_status.push(*status)
                }
                _ => {
                    self.error(
                        &format!("{key}.on[{index}]"),
                        "expected connect, reset, or a status from 500 to 599",
                    );
                }
            }
        }
        retries
    }
}

/// Reads a status, or a range of them.
fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let text = text.trim();
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
}
