//! Follows the servers of a cluster: where their names lead, and whether their probes succeed. Once a process, outside the
//! workers, which are told by an atomic of each server.
//!
//! pingora's `Backends` keep who is probed and count successes and failures in a row; what is asked, and how, is ours.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    net::SocketAddr,
    os::unix::net::SocketAddr as UnixAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use http::Extensions;
use pingora_core::{Error, ErrorType, protocols::l4::socket::SocketAddr as PingoraAddr};
use pingora_load_balancing::{Backend, Backends, discovery::ServiceDiscovery, health_check::HealthCheck};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::{
    Cluster,
    endpoint::{Address, Endpoint},
    probe::probe,
    resolve::look_up,
};
use crate::{
    clock::coarse_millis,
    config::{Health, Server, WeightedServer},
};

/// How soon names are looked up again of which one has no address yet.
const RETRY: Duration = Duration::from_secs(1);

/// How long the start waits for names.
const AT_START: Duration = Duration::from_secs(2);

/// Where the servers of a cluster are.
struct Places<B> {
    cluster: Weak<Cluster<B>>,
    /// How many of them have names.
    names: usize,
    /// What is known of each name, by its place in the config.
    known: Mutex<HashMap<usize, Known>>,
}

/// What is known of a name.
#[derive(Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    /// Whether it was found once.
    is_found: bool,
    /// What was said of it last, so that it is said once.
    said: Option<String>,
}

/// What is probed: the servers as they are.
struct Servers<B>(Weak<Cluster<B>>);

/// Asks servers.
struct Probes<B> {
    cluster: Weak<Cluster<B>>,
    health: Health,
}

/// Follows the servers of a cluster.
pub struct Monitor<B> {
    places: Places<B>,
    resolve: Duration,
    health: Option<Health>,
}

impl<B> Monitor<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin + Send + Sync + 'static,
{
    /// Creates the monitor of a cluster, and looks its names up, for which it waits for a moment only.
    pub async fn start(cluster: &Arc<Cluster<B>>) -> Self {
        let config = &cluster.config;
        let monitor = Self {
            places: Places {
                cluster: Arc::downgrade(cluster),
                names: config.servers.iter().filter(|server| Address::of(&server.server).is_none()).count(),
                known: Mutex::default(),
            },
            resolve: config.resolve,
            health: config.health.clone(),
        };
        if monitor.places.names > 0 && timeout(AT_START, monitor.places.look_up(cluster)).await.is_err() {
            tracing::warn!(upstream.name = config.name, "its names are not found yet");
        }
        monitor
    }

    /// Follows the servers for as long as the cluster is there. A name server that hangs holds up no probe.
    pub async fn follow(self) {
        let Self { places, resolve, health } = self;
        let cluster = places.cluster.clone();
        let names = async {
            if places.names == 0 {
                return;
            }
            loop {
                let wait = if places.is_complete() { resolve } else { RETRY };
                sleep(wait).await;
                let Some(cluster) = places.cluster.upgrade() else { return };
                places.look_up(&cluster).await;
            }
        };
        let probes = async {
            if let Some(health) = health {
                probe_all(cluster, health).await;
            }
        };
        tokio::join!(names, probes);
    }
}

impl<B> Places<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Returns whether each name was found.
    fn is_complete(&self) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.len() == self.names && known.values().all(|known| known.is_found)
    }

    /// Looks all names up. Each is of use as soon as it is found.
    async fn look_up(&self, cluster: &Cluster<B>) {
        let servers = cluster.config.servers.iter().enumerate();
        let names = servers.filter(|(_, server)| Address::of(&server.server).is_none());
        let look_ups = names.map(|(place, server)| async move {
            self.learn(cluster, place, &server.server).await;
            cluster.set_servers(self.known(cluster));
        });
        join_all(look_ups).await;
    }

    /// Returns where the servers are, as far as that is known.
    fn known(&self, cluster: &Cluster<B>) -> Vec<(usize, Address)> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let addresses = |(place, server): (usize, &WeightedServer)| match Address::of(&server.server) {
            Some(address) => vec![(place, address)],
            None => {
                let addresses = known.get(&place).map_or(&[][..], |known| &known.addresses);
                addresses.iter().map(|address| (place, Address::Tcp(*address))).collect()
            }
        };
        cluster.config.servers.iter().enumerate().flat_map(addresses).collect()
    }

    /// Looks a name up. One that is not found keeps the addresses that it had.
    async fn learn(&self, cluster: &Cluster<B>, place: usize, server: &Server) {
        const CIRCLES: &str = "it leads to a listener of authgate itself: requests would go round in circles";
        let (name, upstream) = (server.as_str(), &cluster.config.name);
        let found = look_up(name).await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(place).or_default();
        let problem = match found {
            Ok(mut found) => {
                let before = found.len();
                found.retain(|address| !cluster.is_own(*address));
                let is_own = found.len() < before;
                known.is_found = true;
                known.addresses = found;
                is_own.then(|| CIRCLES.to_owned())
            }
            Err(error) => Some(error.to_string()),
        };
        if let Some(problem) = problem.as_ref().filter(|problem| known.said.as_ref() != Some(problem)) {
            tracing::error!(upstream.name = upstream, name, problem, "a name is of no use");
        }
        known.said = problem;
    }
}

/// Probes the servers of a cluster for as long as it is there.
async fn probe_all<B>(cluster: Weak<Cluster<B>>, health: Health)
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin + Send + Sync + 'static,
{
    let mut ticks = interval(health.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut backends = Backends::new(Box::new(Servers(cluster.clone())));
    backends.set_health_check(Box::new(Probes { cluster: cluster.clone(), health }));
    loop {
        ticks.tick().await;
        let Some(cluster) = cluster.upgrade() else { return };
        // The discovery has no errors of its own.
        if backends.update(|_| {}).await.is_err() {
            continue;
        }
        backends.run_health_check(true).await;
        let endpoints = cluster.endpoints();
        for backend in &*backends.get_backend() {
            let ready = backends.ready(backend);
            if let Some(endpoint) = endpoint_of(&endpoints, backend)
                && endpoint.standing.set_healthy(ready, coarse_millis())
            {
                let (name, address) = (&cluster.config.name, &endpoint.name);
                if ready {
                    tracing::info!(upstream.name = name, upstream.address = address, "server is healthy");
                } else {
                    tracing::warn!(upstream.name = name, upstream.address = address, "server is unhealthy");
                }
            }
        }
    }
}

/// Returns what is probed for a server. Two that share an address are told apart by the weight, which
/// only pingora's own balancing would read.
fn backend_of<B>(endpoint: &Endpoint<B>) -> Option<Backend> {
    let addr = match &endpoint.address {
        Address::Tcp(address) => PingoraAddr::Inet(*address),
        Address::Unix(path) => PingoraAddr::Unix(UnixAddr::from_pathname(path).ok()?),
    };
    Some(Backend { addr, weight: endpoint.server + 1, ext: Extensions::new() })
}

fn endpoint_of<'a, B>(endpoints: &'a [Arc<Endpoint<B>>], backend: &Backend) -> Option<&'a Arc<Endpoint<B>>> {
    endpoints.iter().find(|endpoint| backend_of(endpoint).as_ref() == Some(backend))
}

#[async_trait]
impl<B> ServiceDiscovery for Servers<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin + Send + Sync,
{
    async fn discover(&self) -> pingora_core::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let Some(cluster) = self.0.upgrade() else { return Ok((BTreeSet::new(), HashMap::new())) };
        let backends = cluster.endpoints().iter().filter_map(|endpoint| backend_of(endpoint)).collect();
        Ok((backends, HashMap::new()))
    }
}

#[async_trait]
impl<B> HealthCheck for Probes<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin + Send + Sync,
{
    async fn check(&self, target: &Backend) -> pingora_core::Result<()> {
        let Some(cluster) = self.cluster.upgrade() else { return Ok(()) };
        let endpoints = cluster.endpoints();
        let Some(endpoint) = endpoint_of(&endpoints, target) else { return Ok(()) };
        let server = &cluster.config.servers[endpoint.server].server;
        let (host, is_http2) = (server.host(), matches!(server, Server::H2c(_)));
        let tls = cluster.tls_of(endpoint.server);
        let probed =
            timeout(self.health.timeout, probe(&endpoint.address, tls, is_http2, host, &self.health.probe))
                .await;
        let reason = match probed {
            Ok(Ok(())) => {
                endpoint.standing.probed(true, self.health.healthy_after);
                return Ok(());
            }
            Ok(Err(reason)) => reason,
            Err(_) => "no response in time".to_owned(),
        };
        endpoint.standing.probed(false, self.health.healthy_after);
        let (name, address) = (&cluster.config.name, &endpoint.name);
        tracing::debug!(upstream.name = name, upstream.address = address, reason, "probe failed");
        Err(Error::explain(ErrorType::ConnectError, reason))
    }

    fn health_threshold(&self, success: bool) -> usize {
        if success { self.health.healthy_after } else { self.health.unhealthy_after }
    }
}
