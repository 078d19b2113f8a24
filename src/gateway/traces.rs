//! The traces of requests (W3C Trace Context): one is made or carried on, and what is sampled is handed over to be exported.
//!
//! A trace that a client has begun is carried on: its `traceparent` passes, unless the request is recorded here; then what follows is a
//! child of the span here. Whether a client wants its request recorded is believed of trusted proxies only; where requests are exported,
//! the flag is that of the decision here.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{HeaderName, HeaderValue};

use super::ids::{self, Ids, Sampling};
use crate::{
    config,
    telemetry::TraceQueue,
    types::{fields::Fields, trace_context::TraceContext},
};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The longest `tracestate` that is exported, in bytes (section 3.3.1.5).
const MAX_STATE: usize = 512;

/// The most tries of a request that are noted.
const MAX_TRIES: usize = 16;

/// How the requests of a snapshot are traced.
pub(super) struct Tracing {
    writes_traceparent: bool,
    sampling: Sampling,
    queue: Option<TraceQueue>,
}

/// A request that is sampled.
pub(super) struct Sampled {
    /// The trace, and the span of the request in it.
    pub(super) context: TraceContext,
    /// The span that the client has named as its parent.
    pub(super) parent: Option<[u8; 8]>,
    /// `tracestate`.
    pub(super) state: Option<HeaderValue>,
    /// From the request's head to the decision, once there was one.
    pub(super) decided_after: Option<Duration>,
    /// Why it was denied.
    pub(super) denied: Option<&'static str>,
    pub(super) tries: Arc<Tries>,
    pub(super) queue: TraceQueue,
}

impl Tracing {
    /// The queue is that of what is exported, if anything is.
    pub(super) fn new(config: &config::Telemetry, queue: Option<TraceQueue>) -> Self {
        let sampling = config.otlp.as_ref().map_or(Sampling::Undecided, |otlp| Sampling::share(otlp.sample));
        Self { writes_traceparent: config.traceparent, sampling, queue }
    }

    /// Returns the id of a request, and the request itself if it is sampled. Its fields tell of its trace from then on.
    pub(super) fn begin(&self, fields: &mut Fields, is_trusted: bool) -> (HeaderValue, Option<Box<Sampled>>) {
        let Ids { request_id, traceparent, is_sampled } = ids::next(self.sampling);
        if !self.writes_traceparent {
            return (request_id, None);
        }
        if fields.iter().any(|(name, _)| *name == TRACEPARENT || *name == TRACESTATE) {
            return (request_id, self.carry_on(fields, traceparent, is_sampled, is_trusted));
        }
        let sampled = if is_sampled { self.sample(&traceparent, None, None) } else { None };
        fields.append(TRACEPARENT.clone(), traceparent);
        (request_id, sampled)
    }

    fn carry_on(
        &self,
        fields: &mut Fields,
        own: HeaderValue,
        is_drawn: bool,
        is_trusted: bool,
    ) -> Option<Box<Sampled>> {
        let parent = fields.get_only(&TRACEPARENT).and_then(|value| TraceContext::parse(value.as_bytes()));
        let Some(parent) = parent else {
            // Without its parent, its state means nothing (section 4.3).
            fields.remove(&TRACESTATE);
            let sampled = if is_drawn { self.sample(&own, None, None) } else { None };
            fields.insert(TRACEPARENT.clone(), own);
            return sampled;
        };
        if !(if is_trusted { parent.is_sampled } else { is_drawn }) {
            // Who comes after goes by the same decision: a client cannot have itself recorded there, either.
            if !is_trusted && parent.is_sampled && self.queue.is_some() {
                let unsampled = TraceContext { is_sampled: false, ..parent };
                if let Ok(text) = HeaderValue::from_bytes(&unsampled.text()) {
                    fields.insert(TRACEPARENT.clone(), text);
                }
            }
            return None;
        }
        let state = fields.get_only(&TRACESTATE).filter(|state| state.len() <= MAX_STATE).cloned();
        let sampled = self.sample(&own, Some(parent), state)?;
        if let Ok(text) = HeaderValue::from_bytes(&sampled.context.text()) {
            fields.insert(TRACEPARENT.clone(), text);
        }
        Some(sampled)
    }

    fn sample(
        &self,
        own: &HeaderValue,
        parent: Option<TraceContext>,
        state: Option<HeaderValue>,
    ) -> Option<Box<Sampled>> {
        let queue = self.queue.clone()?;
        let own = TraceContext::parse(own.as_bytes())?;
        let trace_id = parent.map_or(own.trace_id, |parent| parent.trace_id);
        Some(Box::new(Sampled {
            context: TraceContext { trace_id, is_sampled: true, ..own },
            parent: parent.map(|parent| parent.parent_id),
            state,
            decided_after: None,
            denied: None,
            tries: Arc::default(),
            queue,
        }))
    }
}

/// The tries of a sampled request at its upstream.
#[derive(Default)]
pub(super) struct Tries(Mutex<Vec<Try>>);

/// One of them.
#[derive(Clone, Copy)]
pub(super) struct Try {
    /// The id of the server.
    pub(super) server: u64,
    /// From the request's head.
    pub(super) begun: Duration,
    /// Whether the request was put on a connection.
    pub(super) placed: bool,
}

impl Tries {
    /// A connection to a server is opened, `after` the request's head.
    pub(super) fn connects(&self, server: u64, after: Duration) {
        self.add(Try { server, begun: after, placed: false });
    }

    /// The request was put on a connection to a server.
    pub(super) fn placed(&self, server: u64, after: Duration) {
        {
            let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(last) = tries.last_mut().filter(|last| last.server == server && !last.placed) {
                last.placed = true;
                return;
            }
        }
        self.add(Try { server, begun: after, placed: true });
    }

    fn add(&self, new: Try) {
        let mut tries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.len() < MAX_TRIES {
            tries.push(new);
        }
    }

    /// Returns the tries so far.
    pub(super) fn list(&self) -> Vec<Try> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
