//! What is told of a request that is traced, on its way to what exports it.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::Metrics;
use crate::types::trace_context::TraceContext;

/// Requests that wait to be exported. Further ones are lost, and counted.
const MAX_WAITING: usize = 2_048;

/// A traced request: the spans of the request itself, of its decision, and of each try at an upstream.
#[derive(Debug, Clone)]
pub struct RequestTrace {
    /// The trace, and the span of the request in it.
    pub context: TraceContext,
    /// The span that the client has told.
    pub parent: Option<[u8; 8]>,
    /// `tracestate`.
    pub state: Option<String>,
    /// When the response ended, in microseconds since the Unix epoch.
    pub ended_at: i64,
    /// From the request's head to the end of its response.
    pub duration: Duration,
    /// From the request's head to the decision, if there was one.
    pub decided_after: Option<Duration>,
    /// Why it was denied, if it was: the label of `authgate_denied_total`.
    pub denied: Option<&'static str>,
    /// The method, or `_OTHER` for one that is not known (OpenTelemetry's semantic conventions for HTTP).
    pub method: &'static str,
    /// http or https.
    pub scheme: &'static str,
    /// `Host`.
    pub host: Option<String>,
    /// The path as it came, without its query.
    pub path: String,
    /// The label of the route.
    pub route: String,
    /// The status; 499 where the client left before there was one.
    pub status: u16,
    /// The version of HTTP, such as `1.1`.
    pub version: &'static str,
    /// The address of the client, behind trusted proxies.
    pub client: String,
    /// `User-Agent`.
    pub user_agent: Option<String>,
    /// The caller.
    pub user: Option<String>,
    /// The request's id.
    pub request_id: String,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// The upstream that it was sent to.
    pub upstream: Option<String>,
    /// Its tries there.
    pub tries: Vec<TraceTry>,
    /// Whether the response broke off.
    pub aborted: bool,
}

/// One try of a request at an upstream. Its moments are counted from the request's head.
#[derive(Debug, Clone)]
pub struct TraceTry {
    /// The address of the server, if it is still known.
    pub server: Option<String>,
    /// When a connection was taken or began to be opened.
    pub begun: Duration,
    /// When the head of the response was there, or the next try began.
    pub ended: Duration,
    /// Whether the request was put on a connection.
    pub placed: bool,
}

/// Where traced requests wait to be exported. Clones share it.
#[derive(Clone)]
pub struct TraceQueue {
    sender: Sender<RequestTrace>,
    metrics: Arc<Metrics>,
}

impl TraceQueue {
    /// Creates a queue, and what takes from it.
    pub fn new(metrics: Arc<Metrics>) -> (Self, Receiver<RequestTrace>) {
        let (sender, receiver) = channel(MAX_WAITING);
        (Self { sender, metrics }, receiver)
    }

    /// Adds a request, if there is room.
    pub fn add(&self, trace: RequestTrace) {
        if self.sender.try_send(trace).is_err() {
            self.metrics.traces(false, 1);
        }
    }
}
