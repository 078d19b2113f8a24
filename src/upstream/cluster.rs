//! A cluster: the servers of one upstream in the config. And a worker's client of it.

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{Connections, endpoint::Endpoint, pool::Pool};
use crate::{
    config,
    telemetry::{Counter, WarningLimit},
};

/// The servers of one upstream, shared by all workers.
pub struct Cluster<B> {
    /// The settings.
    pub config: config::Upstream,
    /// Counts responses that a server broke off.
    pub aborted: Counter,
    /// Limits the warnings about failures.
    pub warnings: WarningLimit,
    pub(super) endpoints: Vec<Endpoint<B>>,
}

/// The client of one worker for a cluster.
pub struct Client<B> {
    cluster: Arc<Cluster<B>>,
    /// One pool for each server, in their order.
    pools: Vec<Arc<Pool<B>>>,
}

impl<B> Cluster<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Creates a cluster for `workers` workers. `aborted` counts responses that a server broke off.
    pub fn new(config: config::Upstream, workers: usize, aborted: Counter) -> Self {
        let endpoints = vec![Endpoint::new(&config.server, config.max_connections, workers)];
        Self { aborted, warnings: WarningLimit::default(), endpoints, config }
    }

    /// Returns the number of connections to all servers, by state.
    pub fn connections(&self) -> Connections {
        let none = Connections { active: 0, idle: 0, waiting: 0 };
        self.endpoints.iter().map(Endpoint::connections).fold(none, |all, one| Connections {
            active: all.active + one.active,
            idle: all.idle + one.idle,
            waiting: all.waiting + one.waiting,
        })
    }
}

impl<B> Client<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Creates the client of a worker, by the worker's number.
    pub fn new(cluster: Arc<Cluster<B>>, worker: usize) -> Self {
        let pool = |endpoint| Arc::new(Pool::new(cluster.clone(), endpoint, worker));
        let pools = (0..cluster.endpoints.len()).map(pool).collect();
        Self { cluster, pools }
    }

    /// Returns the cluster.
    pub fn cluster(&self) -> &Cluster<B> {
        &self.cluster
    }

    /// Chooses the server for a request and returns its pool.
    pub(super) fn choose(&self) -> &Arc<Pool<B>> {
        // The config allows one server.
        &self.pools[0]
    }

    /// Closes idle connections that are too old or that the server has closed.
    pub fn sweep(&self) {
        self.pools.iter().for_each(|pool| pool.sweep());
    }
}
