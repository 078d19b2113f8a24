//! What the access log says of a request, gathered on its way and written when its response ends.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Version, header};

use super::{
    request_head::RequestHead, snapshot::NO_ROUTE, state::ConnectionState, target::Scheme, traces::Sampled,
    view::View,
};
use crate::{
    clock::log_micros,
    error::Kind,
    telemetry::{AccessEntry, AccessLog, MethodLabel, RequestLabels, RequestTrace, TraceTry, UpstreamEntry},
    token::Principal,
};

/// The status that stands in the log where the client left before there was one, as in nginx's.
const CLIENT_LEFT: u16 = 499;

/// The parts of a request that are copied, one after the other, while they are in the processor's cache. To hold on to where they lie costs
/// more: a count at each part, and memory that is cold when the response ends.
#[derive(Clone, Copy)]
enum Part {
    Client,
    Peer,
    Path,
    RequestId,
    Host,
    UserAgent,
    User,
    ClientSubject,
    Server,
}

const PARTS: usize = 9;

/// Room for the parts of a usual request, in bytes.
const USUAL_PARTS: usize = 256;

/// The longest text of a client's that is exported in a trace, in bytes.
const MAX_EXPORTED: usize = 1 << 10;

/// A request's line. It is written when the record is dropped.
pub(super) struct Record {
    view: Arc<View>,
    begun: Instant,
    method: Method,
    version: Version,
    text: Vec<u8>,
    /// Where each part lies in the text; nothing for one that is not there.
    parts: [(u32, u32); PARTS],
    pub(super) route: u32,
    pub(super) status: u16,
    /// The number of the upstream that the request was sent to.
    pub(super) upstream: Option<usize>,
    /// How long it took to respond.
    pub(super) waited: Option<Duration>,
    pub(super) aborted: bool,
    pub(super) request_bytes: u64,
    pub(super) response_bytes: u64,
    sampled: Option<Box<Sampled>>,
    is_https: bool,
}

impl Record {
    /// The record of a request that begins, whose client is at `client`; none if there is no access log and the request is not
    /// sampled.
    pub(super) fn of(
        view: &Arc<View>,
        connection: &ConnectionState,
        client: IpAddr,
        request: &RequestHead,
        request_id: &HeaderValue,
        sampled: Option<Box<Sampled>>,
        begun: Instant,
    ) -> Option<Box<Self>> {
        if view.snapshot.services.access_log.is_none() && sampled.is_none() {
            return None;
        }
        let mut record = Box::new(Self {
            view: view.clone(),
            begun,
            method: request.method.clone(),
            version: request.version,
            text: Vec::with_capacity(USUAL_PARTS),
            parts: [(0, 0); PARTS],
            route: NO_ROUTE,
            status: CLIENT_LEFT,
            upstream: None,
            waited: None,
            aborted: false,
            request_bytes: 0,
            response_bytes: 0,
            sampled,
            is_https: connection.scheme() == Scheme::Https,
        });
        let peer = connection.peer.value().as_bytes();
        if client == connection.peer.address() {
            record.keep(Part::Client, peer);
        } else {
            record.keep(Part::Client, client.to_string().as_bytes());
        }
        record.keep(Part::Peer, peer);
        record.keep(Part::Path, request.uri.path().as_bytes());
        record.keep(Part::RequestId, request_id.as_bytes());
        for (part, name) in [(Part::Host, header::HOST), (Part::UserAgent, header::USER_AGENT)] {
            if let Some(value) = request.fields.get(&name) {
                record.keep(part, value.as_bytes());
            }
        }
        let secured = connection.secured.as_ref();
        if let Some(subject) = secured.and_then(|secured| secured.subject.as_ref()) {
            record.keep(Part::ClientSubject, subject.as_bytes());
        }
        Some(record)
    }

    /// Who the request came from.
    pub(super) fn set_caller(&mut self, principal: &Principal) {
        self.keep(Part::User, principal.id_value.as_bytes());
    }

    /// The request was allowed.
    pub(super) fn is_decided(&mut self) {
        if let Some(sampled) = &mut self.sampled {
            sampled.decided_after = Some(self.begun.elapsed());
        }
    }

    /// The request was denied, or could not be forwarded: the label of `authgate_denied_total`.
    pub(super) fn is_denied(&mut self, reason: &'static str) {
        if let Some(sampled) = &mut self.sampled {
            sampled.denied = Some(reason);
        }
    }

    /// The server that the request was sent to.
    pub(super) fn set_server(&mut self, server: &str) {
        self.keep(Part::Server, server.as_bytes());
    }

    /// The request's id.
    pub(super) fn request_id(&self) -> &str {
        let id = self.bytes(Part::RequestId).and_then(|id| std::str::from_utf8(id).ok());
        id.unwrap_or_default()
    }

    fn keep(&mut self, part: Part, bytes: &[u8]) {
        // Heads are bounded far below.
        let begin = self.text.len() as u32;
        self.text.extend_from_slice(bytes);
        self.parts[part as usize] = (begin, self.text.len() as u32);
    }

    fn bytes(&self, part: Part) -> Option<&[u8]> {
        let (begin, end) = self.parts[part as usize];
        self.text.get(begin as usize..end as usize).filter(|_| end > 0)
    }
}

impl Record {
    fn version(&self) -> &'static str {
        match self.version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        }
    }

    fn write(&self, log: &AccessLog) {
        let snapshot = &*self.view.snapshot;
        let upstream = self.upstream.and_then(|index| {
            let name = snapshot.upstreams().get(index)?.config.name.as_str();
            let address = self.bytes(Part::Server).and_then(|server| std::str::from_utf8(server).ok());
            Some(UpstreamEntry { name, address, duration: self.waited, aborted: self.aborted })
        });
        log.write(&AccessEntry {
            at: log_micros(),
            client: self.bytes(Part::Client).unwrap_or_default(),
            peer: self.bytes(Part::Peer).unwrap_or_default(),
            host: self.bytes(Part::Host),
            method: self.method.as_str(),
            path: self.bytes(Part::Path).unwrap_or_default(),
            route: snapshot.route_label(self.route),
            status: self.status,
            protocol: match self.version {
                Version::HTTP_2 => "HTTP/2",
                Version::HTTP_10 => "HTTP/1.0",
                _ => "HTTP/1.1",
            },
            duration: self.begun.elapsed(),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            user_agent: self.bytes(Part::UserAgent),
            upstream,
            user: self.bytes(Part::User),
            client_subject: self.bytes(Part::ClientSubject),
            request_id: self.bytes(Part::RequestId).unwrap_or_default(),
        });
    }

    /// Hands the request over to be exported.
    #[cold]
    fn export(&self, sampled: &Sampled) {
        let snapshot = &*self.view.snapshot;
        let text = |part| {
            let bytes = self.bytes(part)?;
            Some(String::from_utf8_lossy(&bytes[..bytes.len().min(MAX_EXPORTED)]).into_owned())
        };
        let duration = self.begun.elapsed();
        let cluster = self.upstream.and_then(|index| snapshot.upstreams().get(index));
        let tries = sampled.tries.list();
        let responded = self.waited.map_or(duration, |waited| {
            tries.last().map_or(duration, |last| (last.begun + waited).min(duration))
        });
        let begins = tries.iter().skip(1).map(|next| next.begun).chain([responded]);
        let tries = tries.iter().zip(begins).map(|(one, ended)| {
            let mut server = None;
            if let Some(cluster) = cluster {
                cluster.with_server(one.server, |name| server = Some(name.to_owned()));
            }
            TraceTry { server, begun: one.begun, ended: ended.max(one.begun), placed: one.placed }
        });
        sampled.queue.add(RequestTrace {
            context: sampled.context,
            parent: sampled.parent,
            state: sampled.state.as_ref().and_then(|state| Some(state.to_str().ok()?.to_owned())),
            ended_at: log_micros(),
            duration,
            decided_after: sampled.decided_after,
            denied: sampled.denied,
            method: MethodLabel::of(&self.method).known().unwrap_or("_OTHER"),
            scheme: if self.is_https { "https" } else { "http" },
            host: text(Part::Host),
            path: text(Part::Path).unwrap_or_default(),
            route: snapshot.route_label(self.route).to_owned(),
            status: self.status,
            version: self.version(),
            client: text(Part::Client).unwrap_or_default(),
            user_agent: text(Part::UserAgent),
            user: text(Part::User),
            request_id: self.request_id().to_owned(),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            upstream: cluster.map(|cluster| cluster.config.name.clone()),
            tries: tries.collect(),
            aborted: self.aborted,
        });
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if let Some(log) = &self.view.snapshot.services.access_log {
            self.write(log);
        }
        if let Some(sampled) = &self.sampled {
            self.export(sampled);
        }
    }
}

/// Counts and logs a refusal of what never became a request.
pub(super) fn refused(connection: &ConnectionState, kind: Kind, request_id: &HeaderValue) {
    let view = connection.views.get();
    let services = &view.snapshot.services;
    let status = kind.status().as_u16();
    let label = view.snapshot.route_label(NO_ROUTE);
    let method = MethodLabel::OTHER;
    services.metrics.denied(kind.code());
    let labels = RequestLabels { route_index: NO_ROUTE, route: label, method, status };
    view.meters.request(labels, Duration::ZERO);
    if let Some(log) = &services.access_log {
        let peer = connection.peer.value().as_bytes();
        log.write(&AccessEntry {
            at: log_micros(),
            client: peer,
            peer,
            host: None,
            method: "",
            path: b"",
            route: label,
            status,
            protocol: "",
            duration: Duration::ZERO,
            request_bytes: 0,
            response_bytes: 0,
            user_agent: None,
            upstream: None,
            user: None,
            client_subject: connection
                .secured
                .as_ref()
                .and_then(|secured| Some(secured.subject.as_ref()?.as_bytes())),
            request_id: request_id.as_bytes(),
        });
    }
}
