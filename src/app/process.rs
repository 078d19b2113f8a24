//! The state of the process that exists before the gateway is ready, and what the admin listener shows of it.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, OnceLock, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use tokio::{sync::watch, task::AbortHandle};

use super::{inheritance::Inherited, load::level_of};
use crate::{
    admin::{self, AdminApi},
    clock::{SystemClock, TimeKeeper},
    config::{self, Config, LogLevel},
    gateway::{Drain, Listening, Placement, Snapshot},
    limit::{AddressCounts, CallGate, Rates},
    revocation::{Cut, Mirror, Staleness},
    telemetry::{Logs, Metrics},
    tls::Challenges,
    upstream::{ServerReport, ServerState},
};

/// Calls below `auth.path` that run at once. Each waits for the store or a password worker most of its time.
const MAX_CALLS: usize = 512;

/// What needs neither the store nor the keys.
pub(super) struct Process {
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: Drain,
    pub(super) time: Arc<TimeKeeper>,
    pub(super) mirror: Arc<Mirror>,
    pub(super) address_counts: Arc<AddressCounts>,
    pub(super) rates: Arc<Rates>,
    /// What proves names to certificate authorities.
    pub(super) challenges: Arc<Challenges>,
    pub(super) gate: Arc<CallGate>,
    pub(super) logs: Logs,
    pub(super) placement: Arc<Placement>,
    /// The sockets that systemd has passed.
    pub(super) systemd: Inherited,
    /// What accepts operators' connections.
    pub(super) admin: Mutex<Vec<AbortHandle>>,
    /// The sockets that are accepted on.
    pub(super) listening: watch::Sender<Vec<Listening>>,
    /// Tells what exports traces that the process ends; followed until all is exported.
    pub(super) exports: watch::Sender<bool>,
    settings: Mutex<Settings>,
    /// Whether it has come to serve.
    pub(super) serves: AtomicBool,
    /// Whether the end has begun; held while a config is exchanged.
    has_ended: Mutex<bool>,
    /// Once all is loaded that nothing may be served without.
    pub(super) running: OnceLock<Running>,
}

/// The running gateway.
pub(super) struct Running {
    pub(super) snapshots: watch::Sender<Arc<Snapshot>>,
    pub(super) reloader: Arc<dyn Reloads>,
}

/// Takes up other configs.
pub(super) trait Reloads: Send + Sync {
    /// Returns the admin API as the present config wants it.
    fn admin_api(&self) -> Arc<AdminApi>;

    /// Reads the config again, and takes it up if all of it can be.
    fn reload(&self) -> admin::Reload<'_>;

    /// Takes nothing up until what is returned is dropped.
    fn pause(&self) -> Pin<Box<dyn Future<Output = Box<dyn Send>> + Send + '_>>;
}

/// What the process itself goes by of the present config.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) drain: config::Drain,
    /// How long lines of the audit trail are kept.
    pub(super) keep_audit: Duration,
}

impl Settings {
    fn of(config: &Config) -> Self {
        Self { drain: config.drain, keep_audit: config.keep_audit }
    }
}

impl Process {
    pub(super) fn new(
        config: &Config,
        metrics: Arc<Metrics>,
        logs: Logs,
        placement: Arc<Placement>,
        systemd: Inherited,
    ) -> Self {
        Self {
            systemd,
            admin: Mutex::default(),
            metrics,
            drain: Drain::default(),
            time: Arc::new(TimeKeeper::new(Arc::new(SystemClock))),
            mirror: Arc::new(Mirror::new(config.revocation.max_staleness)),
            address_counts: AddressCounts::new(),
            rates: Arc::default(),
            challenges: Arc::default(),
            gate: CallGate::new(MAX_CALLS),
            logs,
            placement,
            listening: watch::Sender::default(),
            exports: watch::Sender::new(false),
            settings: Mutex::new(Settings::of(config)),
            serves: AtomicBool::new(false),
            has_ended: Mutex::new(false),
            running: OnceLock::new(),
        }
    }

    /// The end begins: new clients are refused at once, and not left waiting in the backlog.
    pub(super) fn ends(&self) {
        let mut has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        *has_ended = true;
        self.listening.send_replace(Vec::new());
        self.drain.begin();
    }

    /// Waits until clients come to another process, or to none any more.
    pub(super) async fn has_handed_over(&self) {
        let mut listening = self.listening.subscribe();
        // Its sender lives as long as the process.
        let _ = listening.wait_for(Vec::is_empty).await;
    }

    /// Another process serves from now on, and has the sockets: nothing more is accepted here. What is open goes on as it does when its
    /// listener is gone.
    pub(super) fn hands_over(&self) {
        let mut has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        *has_ended = true;
        self.drain.announce();
        self.drain.hand_over();
        self.listening.send_replace(Vec::new());
        for accepting in &*self.admin.lock().unwrap_or_else(PoisonError::into_inner) {
            accepting.abort();
        }
    }

    /// Lets all workers serve by another snapshot, and accept on other sockets, unless the end has begun. Returns whether it has not.
    pub(super) fn exchange(&self, snapshot: Arc<Snapshot>, listening: Vec<Listening>) -> bool {
        let has_ended = self.has_ended.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(running) = self.running.get().filter(|_| !*has_ended) else { return false };
        for before in &*self.listening.borrow() {
            let is_next = |next: &&Listening| Arc::ptr_eq(&next.socket, &before.socket);
            if let Some(next) = listening.iter().find(is_next)
                && !Arc::ptr_eq(&next.listener, &before.listener)
            {
                before.listener.is_followed_by(&next.listener);
            }
        }
        running.snapshots.send_replace(snapshot);
        self.listening.send_replace(listening);
        true
    }

    /// Returns what it goes by.
    pub(super) fn settings(&self) -> Settings {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes by another config.
    pub(super) fn take_up(&self, config: &Config) {
        *self.settings.lock().unwrap_or_else(PoisonError::into_inner) = Settings::of(config);
        self.mirror.set_max_staleness(config.revocation.max_staleness);
        self.logs.level.set(level_of(config.log.level));
    }
}

impl admin::Status for Process {
    fn ready(&self) -> Result<(), &'static str> {
        if self.drain.is_announced() {
            return Err("draining");
        }
        if self.running.get().is_none() {
            return Err("keys and revocations are not loaded");
        }
        match self.mirror.staleness(self.time.now()) {
            Staleness::NeverLoaded => Err("keys and revocations are not loaded"),
            Staleness::Stale => Err("the revocation mirror is stale"),
            Staleness::Fresh if self.time.skew() > TimeKeeper::MAX_SKEW_MILLIS => {
                Err("the clock is apart from the store's")
            }
            Staleness::Fresh => Ok(()),
        }
    }

    fn metrics(&self) -> Vec<u8> {
        self.metrics.revocations.entries.set(self.mirror.len() as i64);
        let lag = self.mirror.lag(self.time.now());
        self.metrics.revocations.lag_seconds.set(lag.map_or(f64::INFINITY, |lag| lag as f64 / 1_000.0));
        self.metrics.connections.open.set(self.drain.live() as i64);
        self.metrics.connections.resting.set(self.drain.resting() as i64);
        self.metrics.connections.builtin_calls.set(self.gate.running() as i64);
        self.metrics.log_lines_lost(self.logs.lost());
        self.metrics.moved(self.placement.moved());
        self.metrics.connections_refused("address", self.address_counts.refused());
        if let Some(running) = self.running.get() {
            self.metrics.forget_upstreams();
            for cluster in running.snapshots.borrow().upstreams() {
                let (name, connections) = (&cluster.config.name, cluster.connections());
                self.metrics.upstream_connections(name, "active", connections.active);
                self.metrics.upstream_connections(name, "idle", connections.idle);
                self.metrics.upstream_connections(name, "waiting", connections.waiting);
                for server in cluster.servers() {
                    self.metrics.upstream_server(name, &server.address, server.state == ServerState::Up);
                }
            }
        }
        self.metrics.revocations.live_streams.set(self.mirror.live().len() as i64);
        for cut in Cut::ALL {
            self.metrics.streams_cut(cut.reason(), self.mirror.live().cuts(cut));
        }
        self.metrics.render()
    }

    fn upstreams(&self) -> Vec<(String, Vec<ServerReport>)> {
        let Some(running) = self.running.get() else { return Vec::new() };
        let snapshot = running.snapshots.borrow().clone();
        snapshot.upstreams().iter().map(|cluster| (cluster.config.name.clone(), cluster.servers())).collect()
    }

    fn routes(&self) -> serde_json::Value {
        let Some(running) = self.running.get() else { return serde_json::Value::Null };
        let snapshot = running.snapshots.borrow().clone();
        super::describe::running(snapshot.routes(), |index| {
            snapshot.upstreams().get(index).map(|cluster| &cluster.config)
        })
    }

    fn reload(&self) -> admin::Reload<'_> {
        match self.running.get() {
            Some(running) => running.reloader.reload(),
            None => Box::pin(async { Err(vec!["the gateway has not started yet".to_owned()]) }),
        }
    }

    fn set_log_level(&self, level: LogLevel) {
        self.logs.level.set(level_of(level));
    }

    fn api(&self) -> Option<Arc<AdminApi>> {
        self.running.get().map(|running| running.reloader.admin_api())
    }
}
