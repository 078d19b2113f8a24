//! The snapshot: everything that requests need of one config.

use std::{sync::Arc, time::Instant};

use http::Method;

use super::{
    builtin::{BuiltinCalls, Destinations},
    client::TrustedProxies,
    headers::Headers,
    rate_limits::{Asker, RouteLimits, Told},
    refusal::Refusal,
    refusal_pages::RefusalPages,
    request_body::RequestBody,
    traces::Tracing,
};
use crate::{
    access::{Access, Credential},
    config::{self, Config, Cors, ForwardAuth},
    error::Statuses,
    limit::{AddressCounts, Rates},
    route::{Match, Table},
    telemetry::{AccessLog, Metrics, TraceQueue},
    tls::{Challenges, ClientTls},
    types::{fields::Fields, path},
    upstream::Cluster,
};

/// Where other proxies ask, below `auth.path`.
pub const VERIFY: &str = "/verify";

/// The label of requests that matched no route.
pub(super) const NO_ROUTE: u32 = u32::MAX;
/// The label of calls below `auth.path`.
pub(super) const BUILTIN: u32 = u32::MAX - 1;

/// What requests are served with. A reload keeps all of it but the last two, which go by the config.
#[derive(Clone)]
pub struct Services {
    /// Counts requests.
    pub metrics: Arc<Metrics>,
    /// Where a line of each request goes, if anywhere.
    pub access_log: Option<AccessLog>,
    /// Counts the connections of each client address.
    pub address_counts: Arc<AddressCounts>,
    /// Counts the requests that routes limit.
    pub rates: Arc<Rates>,
    /// What proves names to certificate authorities.
    pub challenges: Arc<Challenges>,
    /// Where requests wait that are to be exported, if any are.
    pub traces: Option<TraceQueue>,
    /// What people get in place of refusals, if there are pages for them.
    pub refusal_pages: Option<Arc<dyn RefusalPages>>,
}

/// Everything that requests need of one config. It is immutable: another config makes another one, and a request is served by one of
/// them from its beginning to its end.
pub struct Snapshot {
    pub(super) services: Services,
    pub(super) limits: config::Limits,
    pub(super) trusted_proxies: TrustedProxies,
    pub(super) tracing: Tracing,
    pub(super) routes: Arc<Table>,
    /// The limits of each, by its number.
    rate_limits: Vec<Option<RouteLimits>>,
    /// Whether any of them takes paths with several readings.
    pub(super) keeps_encoded: bool,
    pub(super) headers: Arc<Headers>,
    pub(super) access: Arc<Access>,
    pub(super) builtin_calls: Arc<dyn BuiltinCalls>,
    pub(super) statuses: Statuses,
    /// Whether own responses have headers that tell browsers to be careful.
    pub(super) security_headers: bool,
    /// Of the calls below `auth.path`.
    pub(super) cors: Option<Cors>,
    /// How proxies tell of the requests that they ask about, and where they ask.
    pub(super) forward_auth: ForwardAuth,
    verify: String,
    upstreams: Vec<Arc<Cluster<RequestBody>>>,
}

impl Snapshot {
    /// What `config` gives rise to; `tls` is that of its upstreams, in their order. Upstreams that are as they were `before` go on, with their connections.
    pub fn new(
        config: &Config,
        routes: Arc<Table>,
        access: Arc<Access>,
        builtin_calls: Arc<dyn BuiltinCalls>,
        services: Services,
        tls: &[Option<Arc<ClientTls>>],
        before: Option<&Self>,
    ) -> Self {
        let number = before.map_or(0, |before| before.trusted_proxies.number + 1);
        let known = before.map_or(&[][..], |before| &before.upstreams);
        let upstream = |(index, wanted): (usize, &config::Upstream)| {
            let tls = tls.get(index).cloned().flatten();
            let as_before = known.iter().find(|upstream| upstream.is_for(wanted, tls.as_deref())).cloned();
            as_before.unwrap_or_else(|| {
                let counters = services.metrics.upstream_counters(&wanted.name);
                let before = known.iter().find(|upstream| upstream.config.name == wanted.name);
                Arc::new(Cluster::new(
                    wanted.clone(),
                    config.workers,
                    config.own_addresses(),
                    tls,
                    counters,
                    before.map(|before| &**before),
                ))
            })
        };
        Self {
            limits: config.limits,
            trusted_proxies: TrustedProxies { number, networks: config.trusted_proxies.clone() },
            tracing: Tracing::new(&config.telemetry, services.traces.clone()),
            keeps_encoded: routes.keeps_encoded(),
            rate_limits: routes
                .routes()
                .iter()
                .map(|route| RouteLimits::of(&route.config, &services.rates))
                .collect(),
            routes,
            headers: Arc::new(Headers::new(config.identity_headers.clone(), config.auth.keys.header)),
            access,
            builtin_calls,
            statuses: config.auth.compat.statuses,
            security_headers: config.security_headers,
            cors: config.auth.cors.clone(),
            forward_auth: config.forward_auth,
            verify: format!("{}{VERIFY}", config.auth.path),
            upstreams: config.upstreams.iter().enumerate().map(upstream).collect(),
            services,
        }
    }

    /// Returns the credential of a request.
    pub(super) fn credential<'a>(&self, method: &Method, fields: &'a Fields) -> Credential<'a> {
        Credential::of_request(method, |name| fields.get_all(name), self.access.credential_kinds())
    }

    /// Returns the CORS rules for a match, and its label.
    pub(super) fn cors_of<'a>(&'a self, found: Match<'a>) -> Option<(u32, &'a Cors)> {
        match found {
            Match::Builtin => self.cors.as_ref().map(|cors| (BUILTIN, cors)),
            Match::Route(route) => route.config.cors.as_ref().map(|cors| (route.index, cors)),
            Match::WrongMethod(_) | Match::None => None,
        }
    }

    /// Returns whether a path is the one at which other proxies ask.
    pub(super) fn is_verify(&self, path: &str) -> bool {
        path == self.verify
    }

    /// Returns whether the path of a request is the one at which other proxies ask, in whichever spelling.
    pub(super) fn is_spelled_verify(&self, path: &str) -> bool {
        path::canonical(path).is_ok_and(|path| self.is_verify(&path.decoded))
    }

    /// Returns whether the path of a request, as it came, may lead there: one that has several readings may.
    pub(super) fn may_be_verify(&self, path: &str) -> bool {
        let is_plain = path
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'_' | b'-'));
        if is_plain && !path.contains("//") && !path.contains("/.") {
            return self.is_verify(path);
        }
        path::canonical(path).map_or(true, |path| self.is_verify(&path.decoded))
    }

    /// Takes a request from the rate limits of a route, by its number, and notes what is left of them.
    ///
    /// # Errors
    /// 429, when one of them has none left.
    pub(super) fn take_from_limits<'a>(
        &'a self,
        index: u32,
        asker: &Asker<'_>,
        at: Instant,
        note: &mut dyn FnMut(Told<'a>),
    ) -> Result<(), Refusal> {
        let Some(Some(limits)) = self.rate_limits.get(index as usize) else { return Ok(()) };
        let taken = limits.take(&self.services.rates, asker, at);
        note(taken.told);
        let Some(wait) = taken.wait else { return Ok(()) };
        self.services.metrics.rate_limited(self.route_label(index));
        Err(Refusal::too_many(wait))
    }

    /// The upstreams, in the order in which routes refer to them.
    pub fn upstreams(&self) -> &[Arc<Cluster<RequestBody>>] {
        &self.upstreams
    }

    /// The routes.
    pub fn routes(&self) -> &Table {
        &self.routes
    }

    /// Its number among those of the process.
    pub fn number(&self) -> u64 {
        self.trusted_proxies.number
    }

    /// What decides.
    pub fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// Returns the label of a route, by its number, in metrics and logs.
    pub(super) fn route_label(&self, index: u32) -> &str {
        match index {
            BUILTIN => "auth",
            NO_ROUTE => "none",
            index => self.routes.label(index).unwrap_or("none"),
        }
    }
}

impl Destinations for Snapshot {
    fn takes(&self, host: &str, target: &str) -> bool {
        let path = target.split('?').next().unwrap_or_default();
        // No other spelling of a path: what one reads as a path another may read as a host.
        let Ok(canonical) = path::canonical(path) else { return false };
        target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#' && byte != b'\\')
            && canonical.wire == path
            && matches!(self.routes.find(Some(host), &Method::GET, &canonical.decoded), Match::Route(_))
    }
}
