//! Checks the parsed config. All errors are collected before they are reported.

mod acme;
mod auth;
mod browser;
mod claims;
mod cors;
mod email;
mod issuer;
mod keys;
mod listeners;
mod provider;
mod rate;
mod rewrite;
mod route;
mod telemetry;
mod upstream;
mod webhook;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use http::HeaderName;
use ipnet::IpNet;

use super::{
    Auth, Config, ConfigError, ConfigErrors, Drain, ForwardAuth, ForwardedBy, Http2Limits, IdentityHeaders,
    Limits, Loaded, Log, PostgresUrl, PublicUrl, Rate, Revocation, Store, StoreLocation, StripRule,
    load::{Document, Further},
    raw,
    units::{Number, Size, Span},
};
use crate::types::Secret;

/// Checks everything that one place of the config can say, and with `further` what only all of it can.
pub(in crate::config) fn check(
    raw: raw::Gateway,
    document: &Document<'_>,
    further: Further<'_>,
) -> Result<Loaded, ConfigErrors> {
    let mut check = Check { document, errors: Vec::new(), warnings: Vec::new() };
    let config = check.gateway(raw);
    check.errors.extend(further(&config));
    if check.errors.is_empty() {
        Ok(Loaded { config, warnings: check.warnings, digest: 0 })
    } else {
        check.errors.sort_by_key(|error| error.line);
        Err(ConfigErrors(check.errors))
    }
}

/// What links in mails lead to, unless the config says otherwise.
#[derive(Clone, Copy)]
struct Links<'a> {
    public_url: Option<&'a PublicUrl>,
    has_pages: bool,
}

struct Check<'a> {
    document: &'a Document<'a>,
    errors: Vec<ConfigError>,
    warnings: Vec<String>,
}

impl Check<'_> {
    fn error(&mut self, key: &str, problem: impl Into<String>) {
        self.errors.push(self.document.error(key, problem));
    }

    /// `value`, or the default, if `legal` holds; otherwise an error and the default.
    fn bounded<T: Copy + PartialOrd + std::fmt::Display>(
        &mut self,
        key: &str,
        value: Option<T>,
        default: T,
        (least, most): (T, T),
    ) -> T {
        match value {
            Some(value) if value < least || value > most => {
                self.error(key, format!("expected {least} to {most}"));
                default
            }
            Some(value) => value,
            None => default,
        }
    }

    fn number(&mut self, key: &str, value: Option<Number>, default: u64, range: (u64, u64)) -> usize {
        // Every range used here fits a usize.
        self.bounded(key, value.map(|number| number.0), default, range) as usize
    }

    fn span(&mut self, key: &str, value: Option<Span>, default: Duration) -> Duration {
        match value {
            Some(Span(span)) if span.is_zero() => {
                self.error(key, "must be longer than nothing");
                default
            }
            Some(Span(span)) => span,
            None => default,
        }
    }

    fn size(&mut self, key: &str, value: Option<Size>, default: u64, range: (u64, u64)) -> u64 {
        match value {
            Some(Size(size)) if size < range.0 || size > range.1 => {
                self.error(key, format!("expected {}B to {}B", range.0, range.1));
                default
            }
            Some(Size(size)) => size,
            None => default,
        }
    }

    fn address(&mut self, key: &str, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.error(key, "expected an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080");
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    fn gateway(&mut self, raw: raw::Gateway) -> Config {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        let listeners = self.listeners(&raw.listeners);
        let addresses: Vec<SocketAddr> =
            listeners.iter().filter_map(|listener| listener.address.ip()).collect();
        let admin = self.admin(&raw.admin, &addresses);
        let workers = self.number("workers", raw.workers, cores as u64, (1, 1_024));
        let trusted_proxies = self.networks("trusted_proxies", &raw.trusted_proxies);
        let store = self.store(raw.store);
        let public_url = self.public_url(raw.public_url.as_deref());
        let links = Links { public_url: public_url.as_ref(), has_pages: raw.pages.is_some() };
        let identity_headers = self.identity_headers(raw.identity_headers);
        let attributes = self.attributes(raw.attributes);
        let claims = self.claims(raw.claims, &attributes, &identity_headers);
        let identity_headers =
            IdentityHeaders { claims: claims.headers().cloned().collect(), ..identity_headers };
        let auth = self.auth(raw.auth, &store, cores, links);
        let auth = Auth { attributes, claims: Arc::new(claims), ..auth };
        let has_public_url = raw.public_url.is_some();
        let browser = self.browser(public_url.clone(), has_public_url, raw.pages, raw.cookies);
        let issuers = self.issuers(raw.issuers, &auth.issuer);
        let providers = self.providers(raw.providers, browser.is_some());
        let forward_auth = self.forward_auth(&raw.forward_auth, browser.is_some());
        let revocation = self.revocation(&raw.revocation);
        let limits = self.limits(&raw.limits);
        let own: Vec<SocketAddr> = addresses.iter().copied().chain(admin.address.ip()).collect();
        let upstreams = self.upstreams(raw.upstreams, &own);
        let routes = self.routes(raw.routes, &upstreams, &limits, revocation.on_stale, &identity_headers);
        let tests = self.tests(raw.tests);
        let log = Log {
            level: raw.log.level,
            format: raw.log.format,
            access: raw.log.access.is_none_or(|access| access.0),
        };
        let acme = self.acme(raw.acme, listeners.iter().chain([&admin]), &routes);
        let telemetry = self.telemetry(raw.telemetry);
        let year_and_more = Duration::from_secs(400 * 86_400);
        let keep_audit = self.span("audit.keep", raw.audit.keep, year_and_more);
        let webhooks = self.webhooks(raw.webhooks, keep_audit);
        let drain = Drain {
            delay: raw.drain.delay.map_or(Duration::ZERO, |Span(delay)| delay),
            limit: self.span("drain.limit", raw.drain.limit, Duration::from_secs(30)),
        };
        Config {
            listeners,
            drain,
            keep_audit,
            webhooks,
            admin,
            admin_hosts: raw.admin.hosts,
            workers,
            trusted_proxies,
            store,
            auth,
            browser,
            public_url,
            providers,
            issuers,
            forward_auth,
            revocation,
            identity_headers,
            limits,
            upstreams,
            routes,
            tests,
            log,
            security_headers: raw.security_headers.is_none_or(|headers| headers.0),
            telemetry,
            acme,
        }
    }

    fn forward_auth(&mut self, raw: &raw::ForwardAuth, has_pages: bool) -> ForwardAuth {
        let headers = match raw.headers.as_deref() {
            None | Some("x-forwarded") => ForwardedBy::XForwarded,
            Some("x-original") => ForwardedBy::XOriginal,
            Some(_) => {
                self.error("forward_auth.headers", "expected x-forwarded or x-original");
                ForwardedBy::XForwarded
            }
        };
        let login_redirect = raw.login_redirect.is_some_and(|leads| leads.0);
        if login_redirect && !has_pages {
            self.error("forward_auth.login_redirect", "needs `pages`, to which people are led");
        }
        ForwardAuth { headers, login_redirect }
    }

    fn revocation(&mut self, raw: &raw::Revocation) -> Revocation {
        let revocation = Revocation {
            max_staleness: self.span("revocation.max_staleness", raw.max_staleness, Duration::from_secs(5)),
            on_stale: raw.on_stale,
        };
        if revocation.max_staleness < Duration::from_millis(500) {
            self.error(
                "revocation.max_staleness",
                "expected 500ms or more: the store must have time to answer within it",
            );
        }
        revocation
    }

    fn networks(&mut self, key: &str, texts: &[String]) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let network = text
                .parse::<IpNet>()
                .or_else(|_| text.parse().map(|address: std::net::IpAddr| address.into()));
            match network {
                Ok(network) => networks.push(network),
                Err(_) => self.error(
                    &format!("{key}[{index}]"),
                    "expected an address or a network, such as 10.0.0.0/8",
                ),
            }
        }
        networks
    }

    fn store(&mut self, raw: raw::Store) -> Store {
        let url = raw.url.unwrap_or_else(|| Secret::new("sqlite:authgate.db"));
        let location = match url.expose().split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => {
                StoreLocation::Sqlite(self.document.folder.join(path))
            }
            Some(("postgres" | "postgresql", _)) => match PostgresUrl::parse(&url, self.document.folder) {
                Ok(location) => StoreLocation::Postgres(location),
                Err(problem) => {
                    self.error("store.url", problem);
                    StoreLocation::Sqlite(PathBuf::new())
                }
            },
            _ => {
                self.error("store.url", "expected sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE");
                StoreLocation::Sqlite(PathBuf::new())
            }
        };
        Store {
            location,
            pool_size: self.number("store.pool_size", raw.pool_size, 16, (2, 1_000)),
            timeout: self.span("store.timeout", raw.timeout, Duration::from_secs(2)),
            migrate: raw.migrate.is_none_or(|migrate| migrate.0),
        }
    }

    fn identity_headers(&mut self, raw: raw::IdentityHeaders) -> IdentityHeaders {
        let default = IdentityHeaders {
            id: HeaderName::from_static("x-user-id"),
            name: HeaderName::from_static("x-user-name"),
            roles: HeaderName::from_static("x-user-roles"),
            external_id: None,
            claims: Vec::new(),
            strip: Vec::new(),
        };
        let names = match raw {
            raw::IdentityHeaders::Preset(preset) => {
                return IdentityHeaders::preset(&preset).unwrap_or_else(|| {
                    self.error(
                        "identity_headers",
                        "expected oauth2-proxy, authelia, grafana, or a map of id, name and roles",
                    );
                    default
                });
            }
            raw::IdentityHeaders::Names(names) => names,
        };
        let headers = IdentityHeaders {
            id: self.identity_header("id", names.id, default.id),
            name: self.identity_header("name", names.name, default.name),
            roles: self.identity_header("roles", names.roles, default.roles.clone()),
            // The fallback is never used: a name that is not legal is an error.
            external_id: names
                .external_id
                .map(|name| self.identity_header("external_id", Some(name), default.roles)),
            claims: Vec::new(),
            strip: self.strip_rules(&names.strip),
        };
        let all =
            [Some(&headers.id), Some(&headers.name), Some(&headers.roles), headers.external_id.as_ref()];
        let different: std::collections::HashSet<_> = all.iter().flatten().collect();
        if different.len() < all.iter().flatten().count() {
            self.error("identity_headers", "expected a different name for each");
        }
        headers
    }

    fn strip_rules(&mut self, texts: &[String]) -> Vec<StripRule> {
        let mut rules = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let (name, prefix) = match text.strip_suffix('*') {
                Some(name) => (name, true),
                None => (text.as_str(), false),
            };
            let key = format!("identity_headers.strip[{index}]");
            match HeaderName::try_from(name) {
                Ok(_) if name.len() > 64 => self.error(&key, "expected at most 64 characters"),
                // Without these no request would be one.
                Ok(_)
                    if ["host", "content-length", "content-type"].iter().any(|kept| {
                        let folded = IdentityHeaders::fold(name);
                        if prefix { kept.starts_with(&folded) } else { *kept == folded }
                    }) =>
                {
                    self.error(&key, "this would take away Host, Content-Length or Content-Type")
                }
                Ok(_) if prefix => rules.push(StripRule::Prefix(IdentityHeaders::fold(name))),
                Ok(_) => rules.push(StripRule::Name(IdentityHeaders::fold(name))),
                Err(_) => self.error(&key, "expected a header name, or the beginning of one and `*`"),
            }
        }
        rules
    }

    fn identity_header(&mut self, key: &str, name: Option<String>, default: HeaderName) -> HeaderName {
        self.own_header(&format!("identity_headers.{key}"), name, default)
    }

    /// Returns the name of a header that the gateway gives upstreams.
    fn own_header(&mut self, key: &str, name: Option<String>, default: HeaderName) -> HeaderName {
        let Some(text) = name else { return default };
        // Only names that every backend reads alike: `_` and `.` fold to `-` in some.
        let plain = text.len() <= 64 && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let Some(name) = HeaderName::try_from(text.as_str()).ok().filter(|_| plain) else {
            self.error(key, "expected a header name of at most 64 letters, digits and `-`");
            return default;
        };
        const TAKEN: &[&str] = &[
            "authorization",
            "cookie",
            "set-cookie",
            "host",
            "connection",
            "content-length",
            "content-type",
            "transfer-encoding",
            "te",
            "trailer",
            "upgrade",
            "keep-alive",
            "proxy-authorization",
            "proxy-authenticate",
            "proxy-connection",
            "expect",
            "forwarded",
            "x-real-ip",
            "x-request-id",
            "via",
            "date",
            "accept",
            "accept-charset",
            "accept-encoding",
            "accept-language",
            "baggage",
            "cache-control",
            "content-encoding",
            "early-data",
            "origin",
            "referer",
            "user-agent",
            "range",
            "max-forwards",
            "pragma",
            "priority",
            "traceparent",
            "tracestate",
            "x-api-key",
            "x-client-cert-subject",
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
            "x-original-url",
            "x-rewrite-url",
        ];
        const TAKEN_BEGINNINGS: &[&str] = &[
            "access-control-",
            "grpc-",
            "if-",
            "sec-",
            "x-accel-",
            "x-envoy-",
            "x-forwarded-",
            "x-original-",
        ];
        let is_taken = |beginning: &&str| name.as_str().starts_with(*beginning);
        if TAKEN.contains(&name.as_str()) || TAKEN_BEGINNINGS.iter().any(is_taken) {
            self.error(key, "this header has a meaning of its own; choose another name, such as X-User-Id");
            return default;
        }
        name
    }

    fn limits(&mut self, raw: &raw::Limits) -> Limits {
        let seconds = Duration::from_secs;
        Limits {
            header_bytes: self.size("limits.header_bytes", raw.header_bytes, 64 << 10, (8 << 10, 1 << 20))
                as usize,
            header_count: self.number("limits.header_count", raw.header_count, 100, (1, 1_000)),
            body: self.size("limits.body", raw.body, 10 << 20, (0, 1 << 40)),
            header_timeout: self.span("limits.header_timeout", raw.header_timeout, seconds(10)),
            idle_timeout: self.span("limits.idle_timeout", raw.idle_timeout, seconds(75)),
            request_timeout: self.span("limits.request_timeout", raw.request_timeout, seconds(60)),
            body_min_rate: self.size("limits.body_min_rate", raw.body_min_rate, 1 << 10, (1, 1 << 30)),
            body_idle_timeout: self.span("limits.body_idle_timeout", raw.body_idle_timeout, seconds(30)),
            response_drain_timeout: self.span(
                "limits.response_drain_timeout",
                raw.response_drain_timeout,
                seconds(600),
            ),
            http2: self.http2_limits(&raw.http2),
            bounds_loopback: raw.connections_per_address.is_some(),
            connections_per_address: self.number(
                "limits.connections_per_address",
                raw.connections_per_address,
                1_000,
                (1, 10_000_000),
            ),
        }
    }

    fn http2_limits(&mut self, raw: &raw::Http2Limits) -> Http2Limits {
        let usual = Rate { count: 100, per: Duration::from_secs(10) };
        let resets = raw.resets.as_ref().map(|text| {
            let parsed = text.split_once(" per ").and_then(|(count, per)| {
                let count = count.trim().parse().ok().filter(|count| (1..=1_000_000).contains(count))?;
                let Span(per) = per.trim().parse().ok()?;
                (!per.is_zero()).then_some(Rate { count, per })
            });
            parsed.unwrap_or_else(|| {
                self.error("limits.http2.resets", "expected a number and a time, such as 100 per 10s");
                usual
            })
        });
        Http2Limits {
            streams: self.number("limits.http2.streams", raw.streams, 100, (1, 10_000)) as u32,
            header_list: self.size("limits.http2.header_list", raw.header_list, 64 << 10, (4 << 10, 1 << 20))
                as u32,
            resets: resets.unwrap_or(usual),
        }
    }
}
