//! What the access log says of a request, gathered on its way and written when its response ends.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::{HeaderValue, Method, Version, header};

use super::{
    client::Peer, request_head::RequestHead, snapshot::NO_ROUTE, state::ConnectionState, view::View,
};
use crate::{
    clock::log_micros,
    error::Kind,
    telemetry::{AccessEntry, MethodLabel, RequestLabels, UpstreamEntry},
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
}

impl Record {
    /// The record of a request that begins; none where there is no access log. `client` is its address as text.
    pub(super) fn of(
        view: &Arc<View>,
        peer: &Peer,
        client: &HeaderValue,
        request: &RequestHead,
        request_id: &HeaderValue,
        client_subject: Option<&HeaderValue>,
        begun: Instant,
    ) -> Option<Box<Self>> {
        view.snapshot.services.access_log.as_ref()?;
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
        });
        record.keep(Part::Client, client.as_bytes());
        record.keep(Part::Peer, peer.value().as_bytes());
        record.keep(Part::Path, request.uri.path().as_bytes());
        record.keep(Part::RequestId, request_id.as_bytes());
        for (part, name) in [(Part::Host, header::HOST), (Part::UserAgent, header::USER_AGENT)] {
            if let Some(value) = request.fields.get(&name) {
                record.keep(part, value.as_bytes());
            }
        }
        if let Some(subject) = client_subject {
            record.keep(Part::ClientSubject, subject.as_bytes());
        }
        Some(record)
    }

    /// Who the request came from.
    pub(super) fn set_caller(&mut self, principal: &Principal) {
        self.keep(Part::User, principal.id_value.as_bytes());
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

impl Drop for Record {
    fn drop(&mut self) {
        let snapshot = &*self.view.snapshot;
        let Some(log) = &snapshot.services.access_log else { return };
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
