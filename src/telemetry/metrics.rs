//! The metrics, by the names that dashboards rely on.
//!
//! The request path touches counters that were looked up before: a worker keeps the handles that it has used, as
//! [`Meters`], so that counting is one atomic addition.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use foldhash::fast::FixedState;
use http::Method;
use prometheus::{
    Encoder, Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec,
    Opts, Registry, TextEncoder, core::Collector,
};

/// A method as a label: one of the known ones, so that clients cannot grow the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MethodLabel(u8);

const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "OTHER"];

impl MethodLabel {
    /// Any other, or one that is not known.
    pub const OTHER: Self = Self(9);

    /// The label of a method.
    pub fn of(method: &Method) -> Self {
        let known = match *method {
            Method::GET => 0,
            Method::HEAD => 1,
            Method::POST => 2,
            Method::PUT => 3,
            Method::DELETE => 4,
            Method::PATCH => 5,
            Method::OPTIONS => 6,
            Method::TRACE => 7,
            Method::CONNECT => 8,
            _ => 9,
        };
        Self(known)
    }

    /// The method; none for one that is not known.
    pub fn known(self) -> Option<&'static str> {
        METHODS.get(usize::from(self.0)).copied().filter(|_| self != Self::OTHER)
    }
}

/// The labels of a request.
#[derive(Clone, Copy, Debug)]
pub struct RequestLabels<'a> {
    /// A number that stands for `route`, under one config.
    pub route_index: u32,
    /// The route's label.
    pub route: &'a str,
    /// The method.
    pub method: MethodLabel,
    /// The status.
    pub status: u16,
}

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    request_seconds: HistogramVec,
    upstream_seconds: HistogramVec,
    denied: IntCounterVec,
    /// Token checks answered from the verified-token cache.
    pub token_cache_hits: IntCounter,
    /// Token checks that had to verify a signature.
    pub token_cache_misses: IntCounter,
    /// Metrics of revocations.
    pub revocations: RevocationMetrics,
    /// Metrics of connections.
    pub connections: ConnectionMetrics,
    tls: TlsMetrics,
    config_reloads: IntCounterVec,
    rate_limited: IntCounterVec,
    bytes: IntCounterVec,
    issuer_fetches: IntCounterVec,
    log_lines_lost: IntCounter,
    traces: IntCounterVec,
    acme_orders: IntCounterVec,
    webhook_deliveries: IntCounterVec,
    /// Hashes that wait.
    pub password_queue_depth: IntGauge,
    /// How long a hash took, without its wait.
    pub password_seconds: Histogram,
}

/// Metrics of revocations.
pub struct RevocationMetrics {
    /// Live entries of the mirror.
    pub entries: IntGauge,
    /// Since the store last confirmed the mirror, in seconds.
    pub lag_seconds: Gauge,
    /// Requests that were served although the mirror was stale.
    pub served_stale: IntCounter,
    /// Hints of other gateways, or of this one, that the log has grown.
    pub hints: IntCounter,
    /// Whether hints can be heard.
    pub listening: IntGauge,
    /// How often the store had lost a part of its past.
    pub store_regressions: IntCounter,
    /// Streams that go on after their decision.
    pub live_streams: IntGauge,
    streams_cut: IntCounterVec,
}

/// Metrics of connections.
pub struct ConnectionMetrics {
    /// Open client connections.
    pub open: IntGauge,
    /// Those of them that rest between two requests.
    pub resting: IntGauge,
    /// Calls below `auth.path` that run or wait.
    pub builtin_calls: IntGauge,
    refused: IntCounterVec,
    http2_floods: IntCounterVec,
    upstream: IntGaugeVec,
    upstream_aborted: IntCounterVec,
    upstream_retries: IntCounterVec,
    upstream_server_up: IntGaugeVec,
}

/// Counts what goes wrong with the servers of an upstream.
pub struct UpstreamCounters {
    /// Responses that a server broke off.
    pub aborted: IntCounter,
    /// Requests that were tried again, and succeeded.
    pub retries_succeeded: IntCounter,
    /// Requests that were tried again, and failed.
    pub retries_failed: IntCounter,
    /// Requests that were not tried again, because too many were.
    pub retries_over_budget: IntCounter,
}

/// Metrics of TLS.
struct TlsMetrics {
    handshakes: IntCounterVec,
    expiry: IntGaugeVec,
    reloads: IntCounterVec,
}

/// Makes metrics and registers them, each below the name of the program.
struct Registering<'a>(&'a Registry);

impl Registering<'_> {
    fn registered<M: Collector + Clone + 'static>(&self, metric: M) -> Result<M, prometheus::Error> {
        self.0.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        self.registered(IntCounter::with_opts(opts(name, help))?)
    }

    fn counters(&self, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec, prometheus::Error> {
        self.registered(IntCounterVec::new(opts(name, help), labels)?)
    }

    fn gauge(&self, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
        self.registered(IntGauge::with_opts(opts(name, help))?)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        self.registered(Histogram::with_opts(
            HistogramOpts::from(opts(name, help)).buckets(SECONDS.to_vec()),
        )?)
    }

    fn histograms(&self, name: &str, help: &str, label: &str) -> Result<HistogramVec, prometheus::Error> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(SECONDS.to_vec());
        self.registered(HistogramVec::new(opts, &[label])?)
    }

    fn revocations(&self) -> Result<RevocationMetrics, prometheus::Error> {
        Ok(RevocationMetrics {
            entries: self.gauge("revocation_entries", "Live revocations held.")?,
            lag_seconds: self.registered(Gauge::with_opts(opts(
                "revocation_lag_seconds",
                "Since the store last confirmed the revocations.",
            ))?)?,
            served_stale: self.counter(
                "served_stale_total",
                "Requests served on a mirror older than revocation.max_staleness.",
            )?,
            hints: self.counter("revocation_hints_total", "Hints that the revocation log has grown.")?,
            listening: self.gauge(
                "revocation_listening",
                "1 while hints can be heard; 0 where polls are all there is.",
            )?,
            store_regressions: self.counter(
                "store_regressions_total",
                "How often the store had lost a part of its past: a failover, a restored backup.",
            )?,
            live_streams: self
                .gauge("live_streams", "Tunnels, event streams and long transfers on a token.")?,
            streams_cut: self.counters(
                "streams_cut_total",
                "Streams ended because their token died.",
                &["reason"],
            )?,
        })
    }

    fn connections(&self) -> Result<ConnectionMetrics, prometheus::Error> {
        Ok(ConnectionMetrics {
            open: self.gauge("open_connections", "Open client connections.")?,
            resting: self.gauge(
                "resting_connections",
                "Client connections on which nothing is under way, kept as a socket alone.",
            )?,
            builtin_calls: self.gauge("builtin_calls", "Requests below auth.path that run or wait.")?,
            refused: self.counters(
                "connections_refused_total",
                "Client connections that were closed unserved.",
                &["reason"],
            )?,
            http2_floods: self.counters(
                "http2_floods_total",
                "HTTP/2 connections that were ended for frames that cost their sender nothing.",
                &["kind"],
            )?,
            upstream: self.registered(IntGaugeVec::new(
                opts(
                    "upstream_connections",
                    "Connections to an upstream (active, idle), and requests that wait for one (waiting).",
                ),
                &["upstream", "state"],
            )?)?,
            upstream_aborted: self.counters(
                "upstream_aborted_total",
                "Responses that their upstream broke off.",
                &["upstream"],
            )?,
            upstream_retries: self.counters(
                "upstream_retries_total",
                "Requests that were tried again (ok, failed), or not because too many were (over_budget).",
                &["upstream", "result"],
            )?,
            upstream_server_up: self.registered(IntGaugeVec::new(
                opts("upstream_server_up", "1 while a server gets requests."),
                &["upstream", "server"],
            )?)?,
        })
    }
}

impl TlsMetrics {
    fn new(made: &Registering<'_>) -> Result<Self, prometheus::Error> {
        let handshakes =
            made.counters("tls_handshakes_total", "TLS handshakes with clients.", &["version", "result"])?;
        // There from the beginning, as what rates are computed from must be.
        for (version, result) in [("1.3", "ok"), ("1.2", "ok"), ("none", "failed")] {
            handshakes.with_label_values(&[version, result]);
        }
        Ok(Self {
            handshakes,
            expiry: made.registered(IntGaugeVec::new(
                opts("certificate_expiry_seconds", "When a certificate expires, as Unix time."),
                &["name"],
            )?)?,
            reloads: made.counters(
                "certificate_reloads_total",
                "Changed certificate files that were taken up, or refused.",
                &["result"],
            )?,
        })
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("authgate")
}

/// The metric handles of one worker under one config, by the indices of its routes and upstreams.
pub struct Meters {
    metrics: Arc<Metrics>,
    /// Made when they are first used. One thread alone takes the lock.
    requests: Mutex<HashMap<u64, (IntCounter, Histogram), FixedState>>,
    upstream_seconds: Vec<Histogram>,
}

impl Meters {
    /// Meters for upstreams of these names.
    pub fn new<'a>(metrics: Arc<Metrics>, upstreams: impl Iterator<Item = &'a str>) -> Self {
        let seconds = upstreams.map(|name| metrics.upstream_seconds.with_label_values(&[name]));
        Self { upstream_seconds: seconds.collect(), requests: Mutex::default(), metrics }
    }

    /// Counts a request.
    pub fn request(&self, labels: RequestLabels<'_>, took: Duration) {
        let key =
            u64::from(labels.route_index) << 32 | u64::from(labels.method.0) << 16 | u64::from(labels.status);
        let mut known = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, seconds) = known.entry(key).or_insert_with(|| self.metrics.of_request(labels));
        count.inc();
        seconds.observe(took.as_secs_f64());
    }

    /// Records how long an upstream, by its number, took to respond.
    pub fn upstream(&self, index: usize, took: Duration) {
        if let Some(seconds) = self.upstream_seconds.get(index) {
            seconds.observe(took.as_secs_f64());
        }
    }
}

const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

impl Metrics {
    /// A fresh set.
    ///
    /// # Errors
    /// Never with the names below; the library checks them at run time.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let made = Registering(&registry);
        let cache =
            made.counters("token_cache_total", "Look-ups in the verified-token cache.", &["result"])?;
        let config_reloads = made.counters(
            "config_reloads_total",
            "Configs taken up after the start, or refused.",
            &["result"],
        )?;
        for result in ["ok", "failed"] {
            config_reloads.with_label_values(&[result]);
        }
        Ok(Self {
            requests: made.counters(
                "requests_total",
                "Requests by route, method and status.",
                &["route", "method", "status"],
            )?,
            request_seconds: made.histograms(
                "request_duration_seconds",
                "From a request's head to the head of its response.",
                "route",
            )?,
            upstream_seconds: made.histograms(
                "upstream_duration_seconds",
                "From the request sent upstream to the head of the response.",
                "upstream",
            )?,
            denied: made.counters("denied_total", "Requests refused by the gateway.", &["reason"])?,
            token_cache_hits: cache.with_label_values(&["hit"]),
            token_cache_misses: cache.with_label_values(&["miss"]),
            revocations: made.revocations()?,
            connections: made.connections()?,
            tls: TlsMetrics::new(&made)?,
            config_reloads,
            rate_limited: made.counters(
                "rate_limited_total",
                "Requests refused by the rate limits of their route.",
                &["route"],
            )?,
            bytes: made.counters(
                "bytes_total",
                "Bytes from clients (in) and to them (out), without those of TLS.",
                &["direction"],
            )?,
            issuer_fetches: made.counters(
                "issuer_fetches_total",
                "Fetches of another issuer's keys, and questions to it about tokens.",
                &["issuer", "result"],
            )?,
            log_lines_lost: made.counter(
                "log_lines_lost_total",
                "Lines of the log that were dropped because it was not read fast enough.",
            )?,
            traces: made.counters("traces_total", "Traced requests, by what became of them.", &["result"])?,
            acme_orders: made.counters(
                "acme_orders_total",
                "Orders of certificates by ACME, by their outcome.",
                &["result"],
            )?,
            webhook_deliveries: made.counters(
                "webhook_deliveries_total",
                "Attempts to tell a receiver of an event, by their outcome.",
                &["receiver", "result"],
            )?,
            password_queue_depth: made.gauge("password_queue_depth", "Password hashes waiting.")?,
            password_seconds: made.histogram("password_seconds", "Time to hash one password.")?,
            registry,
        })
    }

    fn of_request(&self, labels: RequestLabels<'_>) -> (IntCounter, Histogram) {
        let (method, status) = (METHODS[usize::from(labels.method.0)], labels.status.to_string());
        let count = self.requests.with_label_values(&[labels.route, method, status.as_str()]);
        (count, self.request_seconds.with_label_values(&[labels.route]))
    }

    /// Returns the counters of the upstream of this name.
    pub fn upstream_counters(&self, name: &str) -> UpstreamCounters {
        let retries = |result| self.connections.upstream_retries.with_label_values(&[name, result]);
        UpstreamCounters {
            aborted: self.connections.upstream_aborted.with_label_values(&[name]),
            retries_succeeded: retries("ok"),
            retries_failed: retries("failed"),
            retries_over_budget: retries("over_budget"),
        }
    }

    /// Forgets the servers of all upstreams, and how many connections there are: those that are gone have none.
    pub fn forget_upstreams(&self) {
        self.connections.upstream.reset();
        self.connections.upstream_server_up.reset();
    }

    /// Sets whether a server of an upstream gets requests.
    pub fn upstream_server(&self, name: &str, server: &str, is_up: bool) {
        self.connections.upstream_server_up.with_label_values(&[name, server]).set(is_up.into());
    }

    /// Sets how many connections an upstream has, by state.
    pub fn upstream_connections(&self, name: &str, state: &'static str, count: usize) {
        self.connections.upstream.with_label_values(&[name, state]).set(count as i64);
    }

    /// Counts a connection of HTTP/2 that was ended for a flood of frames, of a fixed set of kinds.
    pub fn http2_flood(&self, kind: &'static str) {
        self.connections.http2_floods.with_label_values(&[kind]).inc();
    }

    /// Counts a connection that was refused, for a reason of a fixed set.
    pub fn connection_refused(&self, reason: &'static str) {
        self.connections.refused.with_label_values(&[reason]).inc();
    }

    /// Takes over how many connections were refused so far, for a reason of a fixed set.
    pub fn connections_refused(&self, reason: &'static str, total: u64) {
        let counter = self.connections.refused.with_label_values(&[reason]);
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// Counts a TLS handshake with a client. Both labels are of fixed sets.
    pub fn tls_handshake(&self, version: &'static str, result: &'static str) {
        self.tls.handshakes.with_label_values(&[version, result]).inc();
    }

    /// Sets when each certificate expires, in seconds since the Unix epoch, by a name of it.
    pub fn certificates(&self, expiries: impl Iterator<Item = (String, u64)>) {
        self.tls.expiry.reset();
        for (name, expires) in expiries {
            let gauge = self.tls.expiry.with_label_values(&[&name]);
            let expires = i64::try_from(expires).unwrap_or(i64::MAX);
            // Of two certificates with one name, the first that expires is the one to see to.
            let known = gauge.get();
            gauge.set(if known == 0 { expires } else { known.min(expires) });
        }
    }

    /// Counts files of certificates that have changed, and whether they were taken up.
    pub fn certificate_reload(&self, taken_up: bool) {
        self.tls.reloads.with_label_values(&[if taken_up { "ok" } else { "failed" }]).inc();
    }

    /// Counts a request that the limits of its route refuse.
    pub fn rate_limited(&self, route: &str) {
        self.rate_limited.with_label_values(&[route]).inc();
    }

    /// Counts configs that were to be taken up while the gateway runs, and whether they were.
    pub fn config_reload(&self, taken_up: bool) {
        self.config_reloads.with_label_values(&[if taken_up { "ok" } else { "failed" }]).inc();
    }

    /// Takes over how many bytes came from clients and went to them so far.
    pub fn moved(&self, (received, sent): (u64, u64)) {
        for (direction, total) in [("in", received), ("out", sent)] {
            let counter = self.bytes.with_label_values(&[direction]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
    }

    /// Counts fetches from another issuer, and whether they succeeded.
    pub fn issuer_fetch(&self, issuer: &str, succeeded: bool) {
        self.issuer_fetches.with_label_values(&[issuer, if succeeded { "ok" } else { "failed" }]).inc();
    }

    /// Counts an order of a certificate, and whether it was obtained.
    pub fn acme_order(&self, obtained: bool) {
        self.acme_orders.with_label_values(&[if obtained { "obtained" } else { "failed" }]).inc();
    }

    /// Counts an attempt to tell a receiver, by its host and port, of an event; `result` is one of a fixed set.
    pub fn webhook_delivery(&self, receiver: &str, result: &'static str) {
        self.webhook_deliveries.with_label_values(&[receiver, result]).inc();
    }

    /// Counts traced requests that were exported, or lost.
    pub fn traces(&self, exported: bool, count: u64) {
        self.traces.with_label_values(&[if exported { "exported" } else { "lost" }]).inc_by(count);
    }

    /// Takes over how many lines of the log were lost so far.
    pub fn log_lines_lost(&self, total: u64) {
        self.log_lines_lost.inc_by(total.saturating_sub(self.log_lines_lost.get()));
    }

    /// Takes over how many streams were cut so far, for a reason of a fixed set.
    pub fn streams_cut(&self, reason: &'static str, total: u64) {
        let counter = self.revocations.streams_cut.with_label_values(&[reason]);
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// Counts a refusal; `reason` is one of a fixed set of codes.
    pub fn denied(&self, reason: &'static str) {
        self.denied.with_label_values(&[reason]).inc();
    }

    /// All of them in Prometheus's text format.
    pub fn render(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics could not be rendered");
        }
        text
    }
}
