//! A cluster: the servers of one upstream in the config. And a worker's client of it.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::{
    Connections, ServerState,
    balance::{Balancer, Candidate, hash},
    endpoint::{Address, Endpoint},
    pool::Pool,
    retry::{Budget, Window},
    standing::{Admission, Standing},
};
use crate::{
    clock::coarse_millis,
    config::{self, Server, WeightedServer},
    telemetry::{UpstreamCounters, WarningLimit},
    tls::ClientTls,
};

/// The servers of one upstream, shared by all workers.
pub struct Cluster<B> {
    /// The settings.
    pub config: config::Upstream,
    /// Counts what goes wrong with its servers.
    pub counters: UpstreamCounters,
    /// Limits the warnings about failures.
    pub warnings: WarningLimit,
    /// Whether any of its servers may speak HTTP/2.
    pub(super) may_have_http2: bool,
    /// TLS to its servers, if any of them wants it.
    tls: Option<Arc<ClientTls>>,
    /// The listeners of this gateway, to which no name may lead.
    listeners: ArcSwap<Vec<SocketAddr>>,
    workers: usize,
    endpoints: ArcSwap<Vec<Arc<Endpoint<B>>>>,
    /// How often the servers have changed.
    generation: AtomicU64,
    pub(super) budget: Budget,
    ejecting: Mutex<()>,
    /// What was known of servers when another config held.
    before: Mutex<Vec<Before>>,
}

/// What was known of a server when another config held.
struct Before {
    server: Server,
    address: Address,
    standing: Standing,
}

/// After so long without an answer a trial has failed, whatever ended it.
const NO_ANSWER_MILLIS: u32 = 1_000;

/// A server as operators see it.
#[derive(Debug, Clone)]
pub struct ServerReport {
    /// The URL in the config.
    pub url: String,
    /// The address.
    pub address: String,
    /// Its share of the requests.
    pub weight: u32,
    /// Whether it gets requests.
    pub state: ServerState,
    /// Its connections.
    pub connections: Connections,
}

impl<B> Cluster<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Creates a cluster for `workers` workers. Servers with names are there once those were looked up, and are none of
    /// `listeners`. What was known of the same servers `before` still holds.
    pub fn new(
        config: config::Upstream,
        workers: usize,
        listeners: Vec<SocketAddr>,
        tls: Option<Arc<ClientTls>>,
        counters: UpstreamCounters,
        before: Option<&Self>,
    ) -> Self {
        let cluster = Self {
            counters,
            warnings: WarningLimit::default(),
            may_have_http2: config
                .servers
                .iter()
                .any(|server| matches!(server.server, Server::H2c(_) | Server::Tls(_))),
            tls,
            listeners: ArcSwap::from_pointee(listeners),
            workers,
            endpoints: ArcSwap::default(),
            generation: AtomicU64::new(0),
            budget: Budget::default(),
            ejecting: Mutex::default(),
            before: Mutex::new(before.map(Self::known).unwrap_or_default()),
            config,
        };
        let servers = cluster.config.servers.iter().enumerate();
        let known = servers.filter_map(|(index, server)| Some((index, Address::of(&server.server)?)));
        cluster.set_servers(known.collect());
        cluster
    }

    /// Returns whether it does what a config asks for, with `tls` to its servers.
    pub fn is_for(&self, config: &config::Upstream, tls: Option<&ClientTls>) -> bool {
        let same_tls = match (self.tls.as_deref(), tls) {
            (Some(one), Some(other)) => one.is_like(other),
            (None, None) => true,
            _ => false,
        };
        same_tls && self.config.is_like(config)
    }

    /// Takes over the listeners of this gateway.
    pub fn set_listeners(&self, listeners: Vec<SocketAddr>) {
        self.listeners.store(Arc::new(listeners));
    }

    /// Returns whether an address leads to one of the gateway's listeners.
    pub(super) fn is_own(&self, address: SocketAddr) -> bool {
        config::is_own(address, &self.listeners.load())
    }

    /// Takes over where the servers are: an address for each place in the config. Those that stay go on as they are; those
    /// that are gone finish what they have.
    pub(super) fn set_servers(&self, addresses: Vec<(usize, Address)>) {
        let before = self.endpoints.load();
        let mut endpoints: Vec<Arc<Endpoint<B>>> = Vec::with_capacity(addresses.len());
        for (server, address) in addresses.iter().cloned() {
            let mut there = endpoints.iter().filter(|endpoint| endpoint.address == address);
            if there.any(|endpoint| self.are_one(endpoint.server, server)) {
                continue;
            }
            let is_same =
                |endpoint: &&Arc<Endpoint<B>>| endpoint.server == server && endpoint.address == address;
            let endpoint = before.iter().find(is_same).cloned().unwrap_or_else(|| {
                let is_other =
                    |(place, other): &(usize, Address)| *other == address && !self.are_one(*place, server);
                let is_shared = addresses.iter().any(is_other);
                Arc::new(self.endpoint(server, address, is_shared))
            });
            endpoints.push(endpoint);
        }
        let is_unchanged = before.len() == endpoints.len()
            && before.iter().zip(&endpoints).all(|(before, now)| Arc::ptr_eq(before, now));
        if !is_unchanged {
            self.endpoints.store(Arc::new(endpoints));
            self.generation.fetch_add(1, Ordering::Release);
        }
    }

    /// Returns whether two places in the config are one server if they have one address: what is asked for by TLS tells them
    /// apart, and the protocol.
    fn are_one(&self, one: usize, other: usize) -> bool {
        one == other || is_same_server(&self.config.servers[one].server, &self.config.servers[other].server)
    }

    /// Creates the endpoint of a place in the config, whose address others may share.
    fn endpoint(&self, place: usize, address: Address, is_shared: bool) -> Endpoint<B> {
        let WeightedServer { server, weight, .. } = &self.config.servers[place];
        let name = if is_shared { format!("{address} ({})", server.url()) } else { address.to_string() };
        let id = hash(format!("{address} {}", server.url()).as_bytes());
        let standing = self.carried_on(server, &address).unwrap_or_else(Standing::new);
        let most = self.config.max_connections;
        Endpoint::new(address, name, id, place, *weight, most, self.workers).standing(standing)
    }

    /// Returns the standing of a server under another config, if it was there. That holds for the time of the change only.
    fn carried_on(&self, server: &Server, address: &Address) -> Option<Standing> {
        let mut before = self.before.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |known: &Before| known.address == *address && is_same_server(&known.server, server);
        let known = before.iter().position(is_it).map(|at| before.swap_remove(at))?;
        let used = self.config.servers.iter().filter(|server| server.weight > 0).count();
        let may_be_ejected = used * self.config.ejection.at_most as usize >= 100;
        let healthy_after = self.config.health.as_ref().map(|health| health.healthy_after);
        Some(known.standing.carried_on(healthy_after, may_be_ejected))
    }

    /// Returns what is known of the servers, for another config.
    fn known(&self) -> Vec<Before> {
        let known = |endpoint: &Arc<Endpoint<B>>| Before {
            server: self.config.servers[endpoint.server].server.clone(),
            address: endpoint.address.clone(),
            standing: endpoint.standing.carried_on(Some(1), true),
        };
        self.endpoints.load().iter().map(known).collect()
    }

    /// Returns TLS to the server at a place in the config, and its name, if it wants that.
    pub(super) fn tls_of(&self, server: usize) -> Option<(&ClientTls, &str)> {
        match &self.config.servers[server].server {
            server @ Server::Tls(_) => self.tls.as_ref().map(|tls| (&**tls, server.host_name())),
            _ => None,
        }
    }

    /// Returns the servers.
    pub(super) fn endpoints(&self) -> Arc<Vec<Arc<Endpoint<B>>>> {
        self.endpoints.load_full()
    }

    /// Returns the servers as operators see them.
    pub fn servers(&self) -> Vec<ServerReport> {
        let report = |endpoint: &Arc<Endpoint<B>>| ServerReport {
            url: self.config.servers[endpoint.server].server.url(),
            address: endpoint.name.clone(),
            weight: endpoint.weight,
            state: match endpoint.standing.state() {
                ServerState::Up if endpoint.weight == 0 => ServerState::Drained,
                state => state,
            },
            connections: endpoint.connections(),
        };
        self.endpoints.load().iter().map(report).collect()
    }

    /// Calls `with` with the address of a server, by its id, if it is still there.
    pub fn with_server(&self, id: u64, with: impl FnOnce(&str)) {
        let endpoints = self.endpoints.load();
        if let Some(endpoint) = endpoints.iter().find(|endpoint| endpoint.id == id) {
            with(&endpoint.name);
        }
    }

    /// Returns the number of connections to all servers, by state.
    pub fn connections(&self) -> Connections {
        let none = Connections { active: 0, idle: 0, waiting: 0 };
        self.endpoints.load().iter().map(|endpoint| endpoint.connections()).fold(none, |all, one| {
            Connections {
                active: all.active + one.active,
                idle: all.idle + one.idle,
                waiting: all.waiting + one.waiting,
            }
        })
    }

    /// Notes that a request has failed at a server. Ejects it after so many in a row, unless too many are ejected already.
    pub(super) fn failed(&self, endpoint: &Endpoint<B>, is_trial: bool) {
        let rule = &self.config.ejection;
        let failures = endpoint.standing.fails();
        if is_trial || (failures >= rule.failures && !endpoint.standing.is_ejected()) {
            self.eject(endpoint, failures, is_trial);
        }
    }

    /// Notes that a response of a server broke off in its body, which counts as a failure of its own kind.
    pub(super) fn cut_off(&self, endpoint: &Endpoint<B>) {
        let cuts = endpoint.standing.cuts_off();
        if cuts >= self.config.ejection.failures && !endpoint.standing.is_ejected() {
            self.eject(endpoint, cuts, false);
        }
    }

    fn eject(&self, endpoint: &Endpoint<B>, failures: u32, is_trial: bool) {
        let rule = &self.config.ejection;
        // Two at once would both find room for one more.
        let _ejecting = self.ejecting.lock().unwrap_or_else(PoisonError::into_inner);
        let endpoints = self.endpoints.load();
        let used = || endpoints.iter().filter(|endpoint| endpoint.weight > 0);
        let ejected = used().filter(|endpoint| endpoint.standing.is_ejected()).count();
        let most = used().count() * rule.at_most as usize / 100;
        let goes_on = is_trial && endpoint.standing.is_ejected();
        if !goes_on && ejected >= most {
            return;
        }
        let span = u64::try_from(rule.span.as_millis()).unwrap_or(u64::MAX);
        endpoint.standing.eject(coarse_millis().saturating_add(span));
        tracing::warn!(
            upstream.name = self.config.name,
            upstream.address = endpoint.name,
            failures,
            for_ms = span,
            "server ejected"
        );
    }

    /// Notes that a request has succeeded at a server.
    pub(super) fn succeeded(&self, endpoint: &Endpoint<B>, is_trial: bool) {
        if endpoint.standing.succeeds(is_trial, coarse_millis()) {
            tracing::info!(
                upstream.name = self.config.name,
                upstream.address = endpoint.name,
                "server is back"
            );
        }
    }
}

/// Returns whether servers in the config are one if they have one address.
fn is_same_server(one: &Server, other: &Server) -> bool {
    let has_name = matches!(one, Server::Tls(_));
    std::mem::discriminant(one) == std::mem::discriminant(other)
        && (!has_name || one.host_name() == other.host_name())
}

/// The client of one worker for a cluster.
pub struct Client<B> {
    cluster: Arc<Cluster<B>>,
    worker: usize,
    pub(super) requests: Arc<Window>,
    /// One thread alone takes the lock.
    known: Mutex<Known<B>>,
}

/// The servers as a worker knows them.
struct Known<B> {
    generation: u64,
    /// One pool for each server, in their order.
    pools: Vec<Arc<Pool<B>>>,
    balancer: Balancer,
    /// Used again for each choice.
    candidates: Vec<Candidate>,
}

/// The server of a request.
pub(super) struct Chosen<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    pub(super) pool: Arc<Pool<B>>,
    /// Whether there are others.
    pub(super) has_others: bool,
    is_trial: bool,
    /// When it was chosen, as the lower half of a coarse time.
    pub(super) since: u32,
}

impl<B> Chosen<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Notes that the request has failed at the server.
    pub(super) fn failed(mut self) {
        self.pool.cluster().failed(self.pool.endpoint(), std::mem::take(&mut self.is_trial));
    }

    /// Notes that the request has succeeded.
    pub(super) fn succeeded(mut self) {
        let is_trial = std::mem::take(&mut self.is_trial);
        self.pool.cluster().succeeded(self.pool.endpoint(), is_trial);
    }
}

impl<B> Drop for Chosen<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    fn drop(&mut self) {
        if !self.is_trial {
            return;
        }
        if (coarse_millis() as u32).wrapping_sub(self.since) >= NO_ANSWER_MILLIS {
            self.pool.cluster().failed(self.pool.endpoint(), true);
        } else {
            // The client left, or was to blame: nothing is known.
            self.pool.endpoint().standing.give_up_trial();
        }
    }
}

impl<B> Client<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Creates the client of a worker, by the worker's number. `seed` is random.
    pub fn new(cluster: Arc<Cluster<B>>, worker: usize, seed: u64) -> Self {
        let known =
            Known { generation: 0, pools: Vec::new(), balancer: Balancer::new(seed), candidates: Vec::new() };
        Self { worker, requests: cluster.budget.window(), known: Mutex::new(known), cluster }
    }

    /// Returns the cluster.
    pub fn cluster(&self) -> &Arc<Cluster<B>> {
        &self.cluster
    }

    /// Chooses the server for a request, none of those that were `tried` if there is another one. `key` is what requests
    /// with the same server have in common. Returns none if no server may get it.
    pub(super) fn choose(&self, key: u64, tried: &[u64], now: u64) -> Option<Chosen<B>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = &mut *known;
        let generation = self.cluster.generation.load(Ordering::Acquire);
        if known.generation != generation {
            self.learn(known, generation);
        }
        if let [only] = &known.pools[..] {
            return self.admit(only, now, false);
        }
        let Known { pools, balancer, candidates, .. } = known;
        let untried = |pool: &&Arc<Pool<B>>| !tried.contains(&pool.endpoint().id);
        // One that may come back is tried by the next request.
        let trial = pools.iter().filter(untried).find_map(|pool| {
            let is_due = pool.endpoint().standing.admission(now) == Admission::Trial;
            if is_due { self.admit(pool, now, true).filter(|chosen| chosen.is_trial) } else { None }
        });
        if trial.is_some() {
            return trial;
        }
        for ignores_tried in [false, true] {
            candidates.clear();
            candidates.extend(pools.iter().enumerate().filter_map(|(index, pool)| {
                let endpoint = pool.endpoint();
                let is_open = endpoint.standing.admission(now) == Admission::Open;
                let weight =
                    u64::from(endpoint.weight) * endpoint.standing.share(self.cluster.config.slow_start, now);
                let may = is_open && weight > 0 && (ignores_tried || untried(&pool));
                may.then(|| Candidate { index, weight, load: pool.in_flight(), id: endpoint.id })
            }));
            if let Some(index) = balancer.choose(&self.cluster.config.balance, candidates, key) {
                return Some(Chosen {
                    pool: pools[index].clone(),
                    has_others: true,
                    is_trial: false,
                    since: now as u32,
                });
            }
            if tried.is_empty() {
                break;
            }
        }
        None
    }

    fn admit(&self, pool: &Arc<Pool<B>>, now: u64, has_others: bool) -> Option<Chosen<B>> {
        let is_trial = match pool.endpoint().standing.admission(now) {
            Admission::Closed => return None,
            Admission::Open => false,
            // Another request may have taken it a moment ago.
            Admission::Trial if pool.endpoint().standing.begin_trial() => true,
            Admission::Trial => return None,
        };
        let chosen = Chosen { pool: pool.clone(), has_others, is_trial, since: now as u32 };
        (pool.endpoint().weight > 0).then_some(chosen)
    }

    /// Takes over the servers as they are now. Pools of those that stay go on.
    fn learn(&self, known: &mut Known<B>, generation: u64) {
        let endpoints = self.cluster.endpoints();
        let pool = |endpoint: &Arc<Endpoint<B>>| {
            let before = known.pools.iter().find(|pool| Arc::ptr_eq(pool.endpoint(), endpoint));
            before
                .cloned()
                .unwrap_or_else(|| Arc::new(Pool::new(self.cluster.clone(), endpoint.clone(), self.worker)))
        };
        known.pools = endpoints.iter().map(pool).collect();
        known.balancer.begin_anew();
        known.generation = generation;
    }

    /// Returns whether a server is left that was not `tried`, and takes requests.
    pub(super) fn has_another(&self, tried: &[u64], now: u64) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.pools.iter().any(|pool| {
            let endpoint = pool.endpoint();
            !tried.contains(&endpoint.id)
                && endpoint.weight > 0
                && endpoint.standing.admission(now) == Admission::Open
        })
    }

    /// Returns whether a server is left that was not `tried`, takes requests, and stands at the same place in the config as
    /// `endpoint`.
    pub(super) fn has_sibling(&self, endpoint: &Endpoint<B>, tried: &[u64], now: u64) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.pools.iter().any(|pool| {
            let other = pool.endpoint();
            other.server == endpoint.server
                && other.weight > 0
                && !tried.contains(&other.id)
                && other.standing.admission(now) == Admission::Open
        })
    }

    /// Closes idle connections that are too old or that the server has closed.
    pub fn sweep(&self) {
        let pools: Vec<_> = self.known.lock().unwrap_or_else(PoisonError::into_inner).pools.clone();
        pools.iter().for_each(|pool| pool.sweep());
    }
}
