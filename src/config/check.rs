//! From what is written to what is meant. Every fault is collected before any is reported.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use http::{HeaderName, Method, StatusCode};
use ipnet::IpNet;

use super::{
    Access, Action, Auth, Config, Fault, Faults, IdentityHeaders, Limits, Loaded, Log,
    MasterKeySource, OnStale, Password, Pattern, Rate, Revocation, RoleRule, Route, RouteAuth,
    Signing, Store, StoreLocation, Test, Throttle, Upstream,
    load::Document,
    raw,
    units::{Number, Size, Span},
};
use crate::types::{Role, Roles, Secret, path};

/// Checks everything that one place of the config can say.
pub(super) fn check(raw: raw::Gateway, document: &Document<'_>) -> Result<Loaded, Faults> {
    let mut check = Check { document, faults: Vec::new(), warnings: Vec::new() };
    let config = check.gateway(raw);
    if check.faults.is_empty() {
        Ok(Loaded { config, warnings: check.warnings })
    } else {
        check.faults.sort_by_key(|fault| fault.line);
        Err(Faults(check.faults))
    }
}

struct Check<'a> {
    document: &'a Document<'a>,
    faults: Vec<Fault>,
    warnings: Vec<String>,
}

impl Check<'_> {
    fn fault(&mut self, key: &str, problem: impl Into<String>) {
        self.faults.push(self.document.fault(key, problem));
    }

    /// `value`, or the default, if `legal` holds; otherwise a fault and the default.
    fn bounded<T: Copy + PartialOrd + std::fmt::Display>(
        &mut self,
        key: &str,
        value: Option<T>,
        default: T,
        (least, most): (T, T),
    ) -> T {
        match value {
            Some(value) if value < least || value > most => {
                self.fault(key, format!("expected {least} to {most}"));
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
                self.fault(key, "must be longer than nothing");
                default
            }
            Some(Span(span)) => span,
            None => default,
        }
    }

    fn size(&mut self, key: &str, value: Option<Size>, default: u64, range: (u64, u64)) -> u64 {
        match value {
            Some(Size(size)) if size < range.0 || size > range.1 => {
                self.fault(key, format!("expected {}B to {}B", range.0, range.1));
                default
            }
            Some(Size(size)) => size,
            None => default,
        }
    }

    fn address(&mut self, key: &str, text: &str) -> SocketAddr {
        text.parse().unwrap_or_else(|_| {
            self.fault(key, "expected an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080");
            SocketAddr::from(([127, 0, 0, 1], 0))
        })
    }

    fn gateway(&mut self, raw: raw::Gateway) -> Config {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        if raw.listeners.is_empty() {
            self.fault("listeners", "expected at least one `- address: IP:PORT`");
        }
        let mut listeners: Vec<SocketAddr> = Vec::new();
        for (index, listener) in raw.listeners.iter().enumerate() {
            let key = format!("listeners[{index}].address");
            let address = self.address(&key, &listener.address);
            if address.port() != 0 && listeners.contains(&address) {
                self.fault(&key, "another listener has this address already");
            }
            listeners.push(address);
        }
        let admin = match &raw.admin.address {
            Some(text) => self.address("admin.address", text),
            None => SocketAddr::from(([127, 0, 0, 1], 9901)),
        };
        if !admin.ip().is_loopback() {
            self.fault("admin.address", "expected an address on loopback, such as 127.0.0.1:9901");
        }
        if admin.port() != 0 && listeners.contains(&admin) {
            self.fault("admin.address", "a public listener has this address");
        }
        let workers = self.number("workers", raw.workers, cores as u64, (1, 1_024));
        let trusted_proxies = self.networks(&raw.trusted_proxies);
        let store = self.store(raw.store);
        let auth = self.auth(raw.auth, &store, cores);
        let revocation = Revocation {
            max_staleness: self.span(
                "revocation.max_staleness",
                raw.revocation.max_staleness,
                Duration::from_secs(5),
            ),
            on_stale: raw.revocation.on_stale,
        };
        if revocation.max_staleness < Duration::from_secs(2) {
            self.fault(
                "revocation.max_staleness",
                "expected 2s or more: the store is asked each second",
            );
        }
        let identity_headers = self.identity_headers(raw.identity_headers);
        let limits = self.limits(&raw.limits);
        let upstreams = self.upstreams(raw.upstreams, &listeners, admin);
        let routes = self.routes(raw.routes, &upstreams, &limits, revocation.on_stale);
        let tests = self.tests(raw.tests);
        let log = Log {
            level: raw.log.level,
            format: raw.log.format,
            access: raw.log.access.is_none_or(|access| access.0),
        };
        Config {
            listeners,
            admin,
            workers,
            trusted_proxies,
            store,
            auth,
            revocation,
            identity_headers,
            limits,
            upstreams,
            routes,
            tests,
            log,
        }
    }

    fn networks(&mut self, texts: &[String]) -> Vec<IpNet> {
        let mut networks = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            let network =
                text.parse::<IpNet>().or_else(|_| text.parse().map(|address: std::net::IpAddr| address.into()));
            match network {
                Ok(network) => networks.push(network),
                Err(_) => self.fault(
                    &format!("trusted_proxies[{index}]"),
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
            Some(("postgres" | "postgresql", _)) => StoreLocation::Postgres(url),
            _ => {
                self.fault("store.url", "expected sqlite:PATH or postgres://USER:PASSWORD@HOST/DATABASE");
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

    fn roles(&mut self, key: &str, texts: &[String]) -> Roles {
        let mut roles = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            match text.parse::<Role>() {
                Ok(role) => roles.push(role),
                Err(error) => self.fault(&format!("{key}[{index}]"), error.to_string()),
            }
        }
        let roles: Roles = roles.into_iter().collect();
        if roles.len() > Roles::MAX {
            self.fault(key, format!("expected at most {} roles", Roles::MAX));
        }
        roles
    }

    fn auth(&mut self, raw: raw::Auth, store: &Store, cores: usize) -> Auth {
        let path = raw.path.unwrap_or_else(|| "/auth".to_owned());
        let legal = path.is_empty()
            || (path.len() > 1
                && !path.ends_with('/')
                && path::canonical(&path).is_ok_and(|canonical| canonical.decoded == path));
        if !legal {
            self.fault("auth.path", "expected a path such as /auth, without a final slash, or \"\" for the root");
        }
        for (key, text) in [("auth.issuer", &raw.issuer), ("auth.audience", &raw.audience)] {
            if text.is_empty() || text.len() > 512 || text.chars().any(char::is_control) {
                self.fault(key, "expected 1 to 512 characters");
            }
        }
        let default_roles = match &raw.default_roles {
            Some(roles) => self.roles("auth.default_roles", roles),
            None => Roles::parse_joined("user").unwrap_or_default(),
        };
        let self_assignable_roles =
            self.roles("auth.self_assignable_roles", &raw.self_assignable_roles);
        for (key, roles) in
            [("auth.default_roles", &default_roles), ("auth.self_assignable_roles", &self_assignable_roles)]
        {
            if roles.contains(Role::ADMIN) {
                self.fault(key, "`admin` may not be given to whoever registers; use `authgate user set-roles`");
            }
        }
        let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
        let days = |days: u64| Duration::from_secs(days * 86_400);
        let access_token_ttl = self.span("auth.access_token_ttl", raw.access_token_ttl, minutes(15));
        if access_token_ttl < Duration::from_secs(1) || access_token_ttl > days(1) {
            self.fault("auth.access_token_ttl", "expected 1s to 1d");
        }
        let refresh_token_ttl = self.span("auth.refresh_token_ttl", raw.refresh_token_ttl, days(30));
        let session_max_ttl = self.span("auth.session_max_ttl", raw.session_max_ttl, days(30));
        let master_key = match raw.master_key {
            Some(key) => {
                self.secret_key("auth.master_key", &key);
                MasterKeySource::Given(key)
            }
            None => MasterKeySource::File(match &store.location {
                StoreLocation::Sqlite(path) => path.with_file_name("master.key"),
                StoreLocation::Postgres(_) => self.document.folder.join("master.key"),
            }),
        };
        Auth {
            path,
            issuer: raw.issuer,
            audience: raw.audience,
            registration: raw.registration,
            default_roles,
            self_assignable_roles,
            access_token_ttl,
            refresh_token_ttl,
            refresh_grace: raw.refresh_grace.map_or(Duration::from_secs(30), |grace| grace.0),
            session_max_ttl,
            master_key,
            reauth_window: raw.reauth_window.map_or(minutes(5), |window| window.0),
            signing: self.signing(raw.signing),
            password: self.password(&raw.password, cores),
            throttle: Throttle {
                account: self.rate(
                    "auth.throttle.account",
                    raw.throttle.account.map(|rate| (rate.failures, rate.per)),
                    "failures",
                    Rate { count: 10, per: minutes(5) },
                ),
                address: self.rate(
                    "auth.throttle.address",
                    raw.throttle.address.map(|rate| (rate.failures, rate.per)),
                    "failures",
                    Rate { count: 100, per: minutes(5) },
                ),
                registrations: self.rate(
                    "auth.throttle.registrations",
                    raw.throttle.registrations.map(|rate| (rate.requests, rate.per)),
                    "requests",
                    Rate { count: 20, per: minutes(1) },
                ),
            },
        }
    }

    fn rate(&mut self, key: &str, raw: Option<(Number, Span)>, counted: &str, default: Rate) -> Rate {
        let Some((count, per)) = raw else { return default };
        let count = self.number(&format!("{key}.{counted}"), Some(count), 1, (1, 1_000_000));
        let per = self.span(&format!("{key}.per"), Some(per), default.per);
        Rate { count: count as u32, per }
    }

    fn signing(&mut self, raw: raw::Signing) -> Signing {
        if raw.algorithm == raw::Algorithm::HS256 {
            let Some(secret) = raw.secret else {
                self.fault("auth.signing", "HS256 needs `secret`, 32 bytes or more");
                return Signing::KeyPair(raw::Algorithm::EdDSA);
            };
            self.secret_key("auth.signing.secret", &secret);
            if let Some(previous) = &raw.previous_secret {
                self.secret_key("auth.signing.previous_secret", previous);
                if previous.expose() == secret.expose() {
                    self.fault("auth.signing.previous_secret", "is the same as `secret`");
                }
            }
            self.warnings.push(
                "auth.signing: with HS256 every holder of the secret can make an admin's token; EdDSA keeps the key here"
                    .to_owned(),
            );
            return Signing::Shared { secret, previous: raw.previous_secret };
        }
        for (key, secret) in
            [("auth.signing.secret", &raw.secret), ("auth.signing.previous_secret", &raw.previous_secret)]
        {
            if secret.is_some() {
                self.fault(key, "is for HS256 only; the keys of EdDSA and ES256 are made and kept in the store");
            }
        }
        Signing::KeyPair(raw.algorithm)
    }

    fn secret_key(&mut self, key: &str, secret: &Secret) {
        if secret.expose().len() < 32 {
            self.fault(key, "expected 32 bytes or more, for example from `openssl rand -base64 32`");
        } else if is_published(secret.expose()) {
            self.fault(key, "is a default or placeholder that anyone can look up; make your own, for example with `openssl rand -base64 32`");
        }
    }

    fn password(&mut self, raw: &raw::Password, cores: usize) -> Password {
        let key = "auth.password";
        let parallelism =
            self.number(&format!("{key}.argon2.parallelism"), raw.argon2.parallelism, 1, (1, 16)) as u64;
        let memory = self.size(
            &format!("{key}.argon2.memory"),
            raw.argon2.memory,
            19 << 20,
            (8 * parallelism << 10, 1 << 30),
        );
        Password {
            min_length: self.number(&format!("{key}.min_length"), raw.min_length, 15, (1, 128)),
            reject_common: raw.reject_common.is_none_or(|reject| reject.0),
            // At most 1 GiB, so the number of KiB fits.
            memory_kib: (memory >> 10) as u32,
            iterations: self.number(&format!("{key}.argon2.iterations"), raw.argon2.iterations, 2, (1, 100)) as u32,
            parallelism: parallelism as u32,
            workers: self.number(&format!("{key}.workers"), raw.workers, cores as u64, (1, 256)),
            queue: self.number(&format!("{key}.queue"), raw.queue, 64, (1, 100_000)),
            queue_timeout: self.span(&format!("{key}.queue_timeout"), raw.queue_timeout, Duration::from_secs(2)),
        }
    }

    fn identity_headers(&mut self, raw: raw::IdentityHeaders) -> IdentityHeaders {
        let default = IdentityHeaders {
            id: HeaderName::from_static("x-user-id"),
            name: HeaderName::from_static("x-user-name"),
            roles: HeaderName::from_static("x-user-roles"),
        };
        let names = match raw {
            raw::IdentityHeaders::Preset(preset) => {
                return IdentityHeaders::preset(&preset).unwrap_or_else(|| {
                    self.fault("identity_headers", "expected oauth2-proxy, authelia, grafana, or a map of id, name and roles");
                    default
                });
            }
            raw::IdentityHeaders::Names(names) => names,
        };
        let headers = IdentityHeaders {
            id: self.identity_header("id", names.id, default.id),
            name: self.identity_header("name", names.name, default.name),
            roles: self.identity_header("roles", names.roles, default.roles),
        };
        if headers.id == headers.name || headers.id == headers.roles || headers.name == headers.roles {
            self.fault("identity_headers", "expected three different names");
        }
        headers
    }

    fn identity_header(&mut self, key: &str, name: Option<String>, default: HeaderName) -> HeaderName {
        let Some(text) = name else { return default };
        let key = format!("identity_headers.{key}");
        // Only names that every backend reads alike: `_` and `.` fold to `-` in some.
        let plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        let Some(name) = HeaderName::try_from(text.as_str()).ok().filter(|_| plain) else {
            self.fault(&key, "expected a header name of letters, digits and `-`");
            return default;
        };
        const TAKEN: &[&str] = &[
            "authorization", "cookie", "set-cookie", "host", "connection", "content-length", "content-type",
            "transfer-encoding", "te", "trailer", "upgrade", "keep-alive", "proxy-authorization",
            "proxy-authenticate", "proxy-connection", "expect", "forwarded", "x-real-ip", "x-request-id", "via",
            "date", "accept", "accept-encoding", "content-encoding", "origin", "referer", "user-agent", "range",
        ];
        if TAKEN.contains(&name.as_str()) || name.as_str().starts_with("x-forwarded-") {
            self.fault(&key, "this header has a meaning of its own; choose another name, such as X-User-Id");
            return default;
        }
        name
    }

    fn limits(&mut self, raw: &raw::Limits) -> Limits {
        let seconds = Duration::from_secs;
        Limits {
            header_bytes: self.size("limits.header_bytes", raw.header_bytes, 64 << 10, (8 << 10, 1 << 20)) as usize,
            header_count: self.number("limits.header_count", raw.header_count, 100, (1, 1_000)),
            body: self.size("limits.body", raw.body, 10 << 20, (0, 1 << 40)),
            header_timeout: self.span("limits.header_timeout", raw.header_timeout, seconds(10)),
            idle_timeout: self.span("limits.idle_timeout", raw.idle_timeout, seconds(75)),
            request_timeout: self.span("limits.request_timeout", raw.request_timeout, seconds(60)),
            body_min_rate: self.size("limits.body_min_rate", raw.body_min_rate, 1 << 10, (1, 1 << 30)),
            body_idle_timeout: self.span("limits.body_idle_timeout", raw.body_idle_timeout, seconds(30)),
        }
    }

    fn upstreams(
        &mut self,
        raw: std::collections::BTreeMap<String, raw::Upstream>,
        listeners: &[SocketAddr],
        admin: SocketAddr,
    ) -> Vec<Upstream> {
        let mut upstreams = Vec::new();
        for (name, upstream) in raw {
            let key = format!("upstreams.{name}");
            if upstream.servers.len() != 1 {
                self.fault(&format!("{key}.servers"), "expected one server");
            }
            let url_key = format!("{key}.servers[0].url");
            let authority = match upstream.servers.first().map(|server| server_authority(&server.url)) {
                Some(Ok(authority)) => authority,
                Some(Err(problem)) => {
                    self.fault(&url_key, problem);
                    String::new()
                }
                None => String::new(),
            };
            if authority.parse().is_ok_and(|server| is_own(server, listeners, admin)) {
                self.fault(&url_key, "this is a listener of authgate itself: requests would go round in circles");
            }
            let seconds = Duration::from_secs;
            upstreams.push(Upstream {
                authority,
                connect_timeout: self.span(&format!("{key}.connect_timeout"), upstream.connect_timeout, seconds(1)),
                response_timeout: self.span(&format!("{key}.response_timeout"), upstream.response_timeout, seconds(30)),
                idle_connections: self.number(&format!("{key}.idle_connections"), upstream.idle_connections, 512, (0, 100_000)),
                source: self.document.source(&key),
                name,
            });
        }
        upstreams
    }

    fn method(&mut self, key: &str, text: &str) -> Option<Method> {
        let upper = !text.is_empty() && text.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
        match Method::from_bytes(text.as_bytes()) {
            Ok(Method::CONNECT) => self.fault(key, "CONNECT is never accepted"),
            Ok(method) if upper => return Some(method),
            _ => self.fault(key, "expected a method in capitals, such as GET"),
        }
        None
    }

    fn host(&mut self, key: &str, text: &str) -> Option<String> {
        let host = text.to_ascii_lowercase();
        let legal = !host.is_empty()
            && !host.ends_with('.')
            && host.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._".contains(&b));
        let ipv6 = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if !legal && !ipv6.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok()) {
            self.fault(key, "expected a host name without a port, such as api.example.com");
        }
        Some(host)
    }

    fn routes(
        &mut self,
        raw: Vec<raw::Route>,
        upstreams: &[Upstream],
        limits: &Limits,
        on_stale: OnStale,
    ) -> Vec<Route> {
        let mut routes = Vec::new();
        for (index, route) in raw.into_iter().enumerate() {
            let key = format!("routes[{index}]");
            let pattern = Pattern::parse(&route.path)
                .map_err(|problem| self.fault(&format!("{key}.path"), problem))
                .ok();
            let methods = route.methods.map(|texts| {
                if texts.is_empty() {
                    self.fault(&format!("{key}.methods"), "expected at least one method; leave the key out for all");
                }
                let methods = texts.iter().enumerate();
                methods.filter_map(|(at, text)| self.method(&format!("{key}.methods[{at}]"), text)).collect()
            });
            let host = route.host.as_deref().and_then(|host| self.host(&format!("{key}.host"), host));
            let access = self.access(&key, route.auth, route.roles);
            let forward_token = route.forward_token.is_some_and(|forward| forward.0);
            let action = match (route.upstream, route.respond) {
                (Some(name), None) => {
                    let found = upstreams.iter().position(|upstream| upstream.name == name);
                    if found.is_none() {
                        let names: Vec<_> = upstreams.iter().map(|upstream| upstream.name.as_str()).collect();
                        let legal = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
                        self.fault(&format!("{key}.upstream"), format!("no such upstream; expected one of: {legal}"));
                    }
                    found.map(Action::Forward)
                }
                (None, Some(respond)) => {
                    if forward_token {
                        self.fault(&format!("{key}.forward_token"), "needs `upstream`");
                    }
                    self.respond(&key, respond, &access)
                }
                _ => {
                    self.fault(&key, "expected either `upstream` or `respond`");
                    None
                }
            };
            let timeout = self.span(&format!("{key}.timeout"), route.timeout, limits.request_timeout);
            let body = self.size(&format!("{key}.body"), route.body, limits.body, (0, 1 << 40));
            if let (Some(pattern), Some(action)) = (pattern, action) {
                routes.push(Route {
                    source: self.document.source(&format!("{key}.path")),
                    pattern,
                    host,
                    methods,
                    access,
                    action,
                    forward_token,
                    timeout,
                    body,
                    on_stale: route.on_stale.unwrap_or(on_stale),
                });
            }
        }
        routes
    }

    fn access(&mut self, key: &str, auth: Option<RouteAuth>, roles: Option<raw::RoleRule>) -> Access {
        let Some(rule) = roles else {
            return match auth {
                Some(RouteAuth::None) => Access::Open,
                Some(RouteAuth::Optional) => Access::Optional,
                Some(RouteAuth::Required) | None => Access::SignedIn(None),
            };
        };
        if !matches!(auth, None | Some(RouteAuth::Required)) {
            self.fault(&format!("{key}.auth"), "`roles` needs a signed-in caller: expected required");
        }
        let (name, texts) = match (&rule.any, &rule.all) {
            (Some(any), None) => ("any", any),
            (None, Some(all)) => ("all", all),
            _ => {
                self.fault(&format!("{key}.roles"), "expected either `any` or `all`");
                return Access::SignedIn(None);
            }
        };
        let roles_key = format!("{key}.roles.{name}");
        if texts.is_empty() {
            self.fault(&roles_key, "expected at least one role");
        }
        let roles = self.roles(&roles_key, texts).iter().cloned().collect();
        Access::SignedIn(Some(if name == "any" { RoleRule::Any(roles) } else { RoleRule::All(roles) }))
    }

    fn respond(&mut self, key: &str, raw: raw::Respond, access: &Access) -> Option<Action> {
        let status = raw.status.map_or(200, |status| status.0);
        let status = u16::try_from(status).ok().and_then(|status| StatusCode::from_u16(status).ok());
        // Below 200 is not a final answer; 204, 205 and 304 have no body.
        let status = status.filter(|s| (200..600).contains(&s.as_u16()) && ![204, 205, 304].contains(&s.as_u16()));
        if status.is_none() {
            self.fault(&format!("{key}.respond.status"), "expected 200 to 599, and a status that has a body");
        }
        let mut unknown = Vec::new();
        placeholders(&raw.json, &mut |name| {
            if !["user.id", "user.name", "user.roles"].contains(&name) {
                unknown.push(format!("`{{{name}}}` is unknown; expected {{user.id}}, {{user.name}} or {{user.roles}}"));
            } else if *access == Access::Open {
                unknown.push(format!("`{{{name}}}` has no value on a route with `auth: none`"));
            }
        });
        for problem in unknown {
            self.fault(&format!("{key}.respond.json"), problem);
        }
        Some(Action::Respond { status: status?, json: raw.json })
    }

    fn tests(&mut self, raw: Vec<raw::Test>) -> Vec<Test> {
        let mut tests = Vec::new();
        for (index, test) in raw.into_iter().enumerate() {
            let key = format!("tests[{index}]");
            let anonymous = test.anonymous.is_some_and(|anonymous| anonymous.0);
            if anonymous && test.roles.is_some() {
                self.fault(&key, "expected either `roles` or `anonymous: true`");
            }
            let roles = self.roles(&format!("{key}.roles"), test.roles.as_deref().unwrap_or_default());
            let host = test.host.as_deref().and_then(|host| self.host(&format!("{key}.host"), host));
            if let Some(method) = self.method(&format!("{key}.method"), &test.method) {
                tests.push(Test {
                    source: self.document.source(&key),
                    method,
                    path: test.path,
                    host,
                    roles: (!anonymous).then_some(roles),
                    expect: test.expect,
                });
            }
        }
        tests
    }
}

/// Calls `found` with what stands between braces in the strings of `json`.
fn placeholders(json: &serde_json::Value, found: &mut dyn FnMut(&str)) {
    match json {
        serde_json::Value::String(text) => {
            let mut rest = text.as_str();
            while let Some(start) = rest.find("{user.") {
                rest = &rest[start + 1..];
                match rest.find('}') {
                    Some(end) => found(&rest[..end]),
                    None => found(rest),
                }
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| placeholders(item, found)),
        serde_json::Value::Object(members) => {
            members.values().for_each(|member| placeholders(member, found));
        }
        _ => {}
    }
}

fn server_authority(url: &str) -> Result<String, &'static str> {
    const LEGAL: &str = "expected http://HOST:PORT without a path";
    let rest = url.strip_prefix("http://").ok_or(LEGAL)?;
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let authority: http::uri::Authority = rest.parse().map_err(|_| LEGAL)?;
    let bare = !rest.contains(['@', '/', '?', '#']) && !authority.host().is_empty();
    match authority.port() {
        Some(port) if bare && port.as_u16() > 0 => Ok(authority.to_string()),
        // `host:` and a port that is no number parse as an authority without one.
        None if bare && !rest.ends_with(':') && authority.as_str() == authority.host() => {
            Ok(format!("{authority}:80"))
        }
        _ => Err(LEGAL),
    }
}

fn is_own(server: SocketAddr, listeners: &[SocketAddr], admin: SocketAddr) -> bool {
    listeners.iter().chain([&admin]).any(|listener| {
        listener.port() != 0
            && listener.port() == server.port()
            && (listener.ip() == server.ip()
                || (listener.ip().is_unspecified() && server.ip().is_loopback()))
    })
}

/// Whether a key is one that projects ship as their default, or a placeholder meant to be replaced.
fn is_published(key: &str) -> bool {
    const MARKS: &[&str] = &[
        "changeme", "changethis", "replaceme", "replacethis", "yoursecret", "yourjwt", "yourmasterkey",
        "yourprivatekey", "your256bit", "yoursupersecret", "yourverysecret", "defaultsecret", "secretkeyhere",
    ];
    let plain: String =
        key.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect();
    MARKS.iter().any(|mark| plain.contains(mark))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_a_host_and_a_port() {
        assert_eq!(server_authority("http://10.0.0.5:9000"), Ok("10.0.0.5:9000".into()));
        assert_eq!(server_authority("http://orders/"), Ok("orders:80".into()));
        assert_eq!(server_authority("http://[::1]:9000"), Ok("[::1]:9000".into()));
        for url in ["", "orders:80", "https://a", "http://", "http://a:b", "http://a:", "http://a/b", "http://u@a", "http://a:0"] {
            assert!(server_authority(url).is_err(), "{url:?}");
        }
    }

    #[test]
    fn keys_that_anyone_can_look_up_are_known() {
        for key in ["your-secret-key-change-me-in-production", "CHANGE_ME_CHANGE_ME_CHANGE_ME_CHANGE_ME"] {
            assert!(is_published(key), "{key}");
        }
        assert!(!is_published("kX9vQ2mZ7rT4wB8nL1pC6dF3hJ5gS0aE"));
    }
}
