//! Follows the servers of a cluster: where their names lead, and whether their probes succeed. Once a process, outside the
//! workers, which are told by an atomic of each server.
//!
//! pingora's `Backends` keep who is there and count successes and failures in a row; what is asked, and how, is ours.

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
use http::Extensions;
use pingora_core::{Error, ErrorType, protocols::l4::socket::SocketAddr as PingoraAddr};
use pingora_load_balancing::{Backend, Backends, discovery::ServiceDiscovery, health_check::HealthCheck};
use tokio::time::{Instant, sleep_until, timeout};

use super::{Cluster, endpoint::Address, probe::probe, resolve::look_up};
use crate::{
    clock::coarse_millis,
    config::{Health, Server},
};

/// How soon a name is looked up again that has no address yet.
const RETRY: Duration = Duration::from_secs(1);

/// How long the start waits for names.
const AT_START: Duration = Duration::from_secs(2);

/// How often it is looked whether the cluster is still there.
const LIFE: Duration = Duration::from_secs(60);

/// The place of a server in the config.
#[derive(Clone, Copy)]
struct Place(usize);

/// Looks up names.
struct Names<B> {
    cluster: Weak<Cluster<B>>,
    /// What each name led to last.
    known: Mutex<HashMap<usize, Vec<SocketAddr>>>,
}

/// Asks servers.
struct Probes<B> {
    cluster: Weak<Cluster<B>>,
    health: Health,
}

/// Follows the servers of a cluster.
pub struct Monitor<B> {
    cluster: Weak<Cluster<B>>,
    backends: Backends,
    health: Option<Health>,
    resolve: Duration,
    has_names: bool,
}

impl<B> Monitor<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin + Send + Sync + 'static,
{
    /// Creates the monitor of a cluster, and looks its names up, for which it waits for a moment only.
    pub async fn start(cluster: &Arc<Cluster<B>>) -> Self {
        let weak = Arc::downgrade(cluster);
        let config = &cluster.config;
        let names = Names { cluster: weak.clone(), known: Mutex::default() };
        let mut backends = Backends::new(Box::new(names));
        if let Some(health) = config.health.clone() {
            backends.set_health_check(Box::new(Probes { cluster: weak.clone(), health }));
        }
        let has_names = config.servers.iter().any(|server| Address::of(&server.server).is_none());
        let (health, resolve) = (config.health.clone(), config.resolve);
        let monitor = Self { cluster: weak, backends, health, resolve, has_names };
        if timeout(AT_START, monitor.look_up(cluster)).await.is_err() {
            tracing::warn!(upstream.name = config.name, "its names are not found yet");
        }
        monitor
    }

    /// Follows the servers for as long as the cluster is there.
    pub async fn follow(self) {
        let mut look_up_at = Instant::now();
        let mut probe_at = Instant::now();
        loop {
            let Some(cluster) = self.cluster.upgrade() else { return };
            let now = Instant::now();
            if self.has_names && now >= look_up_at {
                self.look_up(&cluster).await;
                let is_complete = self.is_complete(&cluster);
                look_up_at = Instant::now() + if is_complete { self.resolve } else { RETRY };
            }
            if let Some(health) = self.health.as_ref().filter(|_| now >= probe_at) {
                probe_at = now + health.interval;
                self.probe(&cluster).await;
            }
            drop(cluster);
            let mut next = Instant::now() + LIFE;
            if self.has_names {
                next = next.min(look_up_at);
            }
            if self.health.is_some() {
                next = next.min(probe_at);
            }
            sleep_until(next).await;
        }
    }

    /// Returns whether each server has an address.
    fn is_complete(&self, cluster: &Cluster<B>) -> bool {
        let endpoints = cluster.endpoints();
        (0..cluster.config.servers.len())
            .all(|server| endpoints.iter().any(|endpoint| endpoint.server == server))
    }

    async fn look_up(&self, cluster: &Cluster<B>) {
        // The discovery has no errors of its own.
        if self.backends.update(|_| {}).await.is_ok() {
            let backends = self.backends.get_backend();
            let mut servers: Vec<_> = backends.iter().filter_map(place_of).collect();
            // In the order of the config.
            servers.sort_by_key(|(place, _)| *place);
            cluster.set_servers(servers);
        }
    }

    async fn probe(&self, cluster: &Cluster<B>) {
        self.backends.run_health_check(true).await;
        let endpoints = cluster.endpoints();
        for backend in &*self.backends.get_backend() {
            let Some((_, address)) = place_of(backend) else { continue };
            let ready = self.backends.ready(backend);
            for endpoint in endpoints.iter().filter(|endpoint| endpoint.address == address) {
                if endpoint.standing.set_healthy(ready, coarse_millis()) {
                    let (name, address) = (&cluster.config.name, &endpoint.name);
                    if ready {
                        tracing::info!(upstream.name = name, upstream.address = address, "server is healthy");
                    } else {
                        tracing::warn!(
                            upstream.name = name,
                            upstream.address = address,
                            "server is unhealthy"
                        );
                    }
                }
            }
        }
    }
}

/// The place and the address of a server.
fn place_of(backend: &Backend) -> Option<(usize, Address)> {
    let Place(place) = *backend.ext.get::<Place>()?;
    let address = match &backend.addr {
        PingoraAddr::Inet(address) => Address::Tcp(*address),
        PingoraAddr::Unix(address) => Address::Unix(address.as_pathname()?.to_owned()),
    };
    Some((place, address))
}

#[async_trait]
impl<B> ServiceDiscovery for Names<B>
where
    B: Send + Sync,
{
    async fn discover(&self) -> pingora_core::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
        let mut backends = BTreeSet::new();
        let Some(cluster) = self.cluster.upgrade() else { return Ok((backends, HashMap::new())) };
        for (place, server) in cluster.config.servers.iter().enumerate() {
            let addresses = match Address::of(&server.server) {
                Some(Address::Tcp(address)) => vec![PingoraAddr::Inet(address)],
                Some(Address::Unix(path)) => {
                    UnixAddr::from_pathname(path).into_iter().map(PingoraAddr::Unix).collect()
                }
                None => {
                    let found = self.addresses(&cluster, place, &server.server).await;
                    found.into_iter().map(PingoraAddr::Inet).collect()
                }
            };
            for addr in addresses {
                let mut ext = Extensions::new();
                ext.insert(Place(place));
                backends.insert(Backend { addr, weight: server.weight as usize, ext });
            }
        }
        Ok((backends, HashMap::new()))
    }
}

impl<B> Names<B> {
    /// Returns the addresses of a name: those that it has now, or the last ones that it had.
    async fn addresses(&self, cluster: &Cluster<B>, place: usize, server: &Server) -> Vec<SocketAddr> {
        let name = server.as_str();
        let found = look_up(name).await;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(place).or_default();
        match found {
            Ok(mut found) => {
                found.retain(|address| {
                    let is_own = crate::config::is_own(*address, &cluster.listeners);
                    if is_own {
                        let (upstream, address) = (&cluster.config.name, address.to_string());
                        tracing::error!(
                            upstream.name = upstream,
                            upstream.address = address,
                            "a name leads to a listener of authgate itself: requests would go round in circles"
                        );
                    }
                    !is_own
                });
                *known = found;
            }
            Err(error) => {
                tracing::warn!(upstream.name = cluster.config.name, name, %error, "name not found");
            }
        }
        known.clone()
    }
}

#[async_trait]
impl<B> HealthCheck for Probes<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin + Send + Sync,
{
    async fn check(&self, target: &Backend) -> pingora_core::Result<()> {
        let (Some((place, address)), Some(cluster)) = (place_of(target), self.cluster.upgrade()) else {
            return Ok(());
        };
        let server = &cluster.config.servers[place].server;
        let (host, is_http2) = (server.host(), matches!(server, Server::H2c(_)));
        let probed = timeout(
            self.health.timeout,
            probe(&address, cluster.tls_of(place), is_http2, host, &self.health.probe),
        )
        .await;
        let reason = match probed {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reason,
            Err(_) => "no response in time".to_owned(),
        };
        let (name, address) = (&cluster.config.name, address.to_string());
        tracing::debug!(upstream.name = name, upstream.address = address, reason, "probe failed");
        Err(Error::explain(ErrorType::ConnectError, reason))
    }

    fn health_threshold(&self, success: bool) -> usize {
        if success { self.health.healthy_after } else { self.health.unhealthy_after }
    }
}
