//! The servers that a name in the config stands for, and one worker's way to them.

use std::{io, sync::Arc};

use bytes::Bytes;

use super::{Connections, endpoint::Endpoint, pool::Pool};
use crate::{
    config,
    telemetry::{Counter, WarningLimit},
};

/// An upstream as all workers see it.
pub struct Cluster<B> {
    /// What the config says.
    pub config: config::Upstream,
    /// Counts responses that it broke off.
    pub aborted: Counter,
    /// Warnings of its failures.
    pub warnings: WarningLimit,
    pub(super) endpoints: Vec<Endpoint<B>>,
}

/// One worker's way to the servers of a cluster.
pub struct Client<B> {
    cluster: Arc<Cluster<B>>,
    /// To each server, in their order.
    pools: Vec<Arc<Pool<B>>>,
}

impl<B> Cluster<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// A cluster that `workers` workers use; `aborted` counts its responses that broke off.
    pub fn new(config: config::Upstream, workers: usize, aborted: Counter) -> Self {
        let endpoints = vec![Endpoint::new(&config.authority, config.max_connections, workers)];
        Self { aborted, warnings: WarningLimit::default(), endpoints, config }
    }

    /// How many connections there are.
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
    /// The way of one worker, by its number.
    pub fn new(cluster: Arc<Cluster<B>>, worker: usize) -> Self {
        let pool = |endpoint| Arc::new(Pool::new(cluster.clone(), endpoint, worker));
        let pools = (0..cluster.endpoints.len()).map(pool).collect();
        Self { cluster, pools }
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster<B> {
        &self.cluster
    }

    /// The pool of the server that a request goes to.
    pub(super) fn choose(&self) -> &Arc<Pool<B>> {
        // A cluster has one server, as long as the config names no more.
        &self.pools[0]
    }

    /// Closes connections that rested too long or that the other side has closed.
    pub fn sweep(&self) {
        self.pools.iter().for_each(|pool| pool.sweep());
    }
}
