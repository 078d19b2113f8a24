//! What the access log says of a request, gathered on its way and written when its response ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Request, Uri, Version, header};

use super::{connection::Shared, service::Gateway};
use crate::{
    clock::log_micros,
    error::Kind,
    telemetry::{AccessEntry, MethodLabel, RequestLabels, UpstreamEntry},
    token::Identity,
};

/// The label of requests that matched no route.
pub(super) const NO_ROUTE: u32 = u32::MAX;
/// The label of calls below `auth.path`.
pub(super) const BUILTIN: u32 = u32::MAX - 1;

/// The status that stands in the log where the client left before there was one, as in nginx's.
const CLIENT_LEFT: u16 = 499;

/// A request's line. It is written when the record is dropped.
pub(super) struct Record {
    gateway: Arc<Gateway>,
    begun: Instant,
    method: Method,
    uri: Uri,
    version: Version,
    host: Option<HeaderValue>,
    user_agent: Option<HeaderValue>,
    request_id: HeaderValue,
    peer: HeaderValue,
    pub(super) client: HeaderValue,
    pub(super) route: u32,
    pub(super) status: u16,
    pub(super) identity: Option<Arc<Identity>>,
    /// The number of the upstream that the request was sent to, and how long it took to respond.
    pub(super) upstream: Option<(u32, Option<Duration>)>,
    pub(super) aborted: bool,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
}

impl Record {
    /// The record of a request that begins; none where there is no access log.
    pub(super) fn of<T>(
        shared: &Shared,
        request: &Request<T>,
        request_id: &HeaderValue,
        begun: Instant,
    ) -> Option<Box<Self>> {
        shared.gateway.access_log()?;
        Some(Box::new(Self {
            gateway: shared.gateway.clone(),
            begun,
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            host: request.headers().get(header::HOST).cloned(),
            user_agent: request.headers().get(header::USER_AGENT).cloned(),
            request_id: request_id.clone(),
            peer: shared.peer.value().clone(),
            client: shared.peer.value().clone(),
            route: NO_ROUTE,
            status: CLIENT_LEFT,
            identity: None,
            upstream: None,
            aborted: false,
            request_bytes: 0,
            response_bytes: 0,
        }))
    }
}

impl Record {
    pub(super) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let gateway = &*self.gateway;
        let Some(log) = gateway.access_log() else { return };
        let user = self.identity.as_ref().and_then(|identity| identity.id_value.to_str().ok());
        let upstream = self.upstream.and_then(|(index, duration)| {
            let config = &gateway.upstream(index)?.config;
            let (name, address) = (config.name.as_str(), config.authority.as_str());
            Some(UpstreamEntry { name, address, duration, aborted: self.aborted })
        });
        log.write(&AccessEntry {
            at: log_micros(),
            client: self.client.to_str().unwrap_or_default(),
            peer: self.peer.to_str().unwrap_or_default(),
            host: self.host.as_ref().map(HeaderValue::as_bytes),
            method: self.method.as_str(),
            path: self.uri.path(),
            route: gateway.route_label(self.route),
            status: self.status,
            protocol: if self.version == Version::HTTP_10 { "HTTP/1.0" } else { "HTTP/1.1" },
            duration: self.begun.elapsed(),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            user_agent: self.user_agent.as_ref().map(HeaderValue::as_bytes),
            upstream,
            user,
            request_id: self.request_id.to_str().unwrap_or_default(),
        });
    }
}

/// Counts and logs a refusal of what never became a request.
pub(super) fn refused(shared: &Shared, kind: Kind, request_id: &HeaderValue) {
    let gateway = &*shared.gateway;
    let status = kind.status().as_u16();
    let label = gateway.route_label(NO_ROUTE);
    let method = MethodLabel::OTHER;
    gateway.metrics().denied(kind.code());
    let labels = RequestLabels { route_index: NO_ROUTE, route: label, method, status };
    gateway.metrics().request(labels, Duration::ZERO);
    if let Some(log) = gateway.access_log() {
        let peer = shared.peer.value().to_str().unwrap_or_default();
        log.write(&AccessEntry {
            at: log_micros(),
            client: peer,
            peer,
            host: None,
            method: "",
            path: "",
            route: label,
            status,
            protocol: "",
            duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            user_agent: None,
            upstream: None,
            user: None,
            request_id: request_id.to_str().unwrap_or_default(),
        });
    }
}
