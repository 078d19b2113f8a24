//! Sending an allowed request to its upstream.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{HeaderValue, StatusCode, Version, header, uri::PathAndQuery};
use pin_project_lite::pin_project;

use super::{
    client,
    exchange::Exchange,
    grpc,
    headers::{Injected, clean_response, via},
    interim::Interim,
    message::{ClientRequest, ClientResponse},
    method,
    request_body::{BodyBounds, RequestBody, Streaming},
    request_head::RequestHead,
    response_body::ResponseBody,
    snapshot::Snapshot,
    state::ConnectionState,
    thread_bound::ThreadBound,
    traces::Tries,
    tunnel,
};
use crate::{
    access::{Lease, Permit, shows_api_key},
    clock::coarse_millis,
    config,
    error::Kind,
    types::fields::Fields,
    upstream::{self, ConnectError, Connection, ResponseHead, SendError},
};

/// The result of forwarding a request.
pub(super) enum Outcome {
    /// The upstream responded. The body may still be arriving.
    Response(ClientResponse),
    /// The upstream switched to the protocol that the client asked for.
    Switched(ResponseHead, Box<Connection<RequestBody>>, Lease),
}

/// The cost of opening a connection in a turn, in bytes: several system calls here, and as many at the upstream.
const CONNECT_COST: usize = 16 << 10;

/// The context of forwarding one request.
pub(super) struct Forwarding<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) route: &'a config::Route,
    /// The client of its upstream.
    pub(super) client: &'a upstream::Client<RequestBody>,
    pub(super) state: &'a ConnectionState,
    /// Where the request came from.
    pub(super) origin: &'a client::Forwarded,
    pub(super) request_id: &'a HeaderValue,
    pub(super) sent: &'a SentAfter,
}

/// The time between the begin of a request and its placement on an upstream connection, and to which server.
pub(super) struct SentAfter {
    /// When the request began.
    pub(super) begun: Instant,
    after: AtomicU64,
    server: AtomicU64,
    /// All tries of a request that is sampled.
    tries: Option<Arc<Tries>>,
}

impl SentAfter {
    /// Nothing is sent yet. With `tries`, each is noted.
    pub(super) fn new(begun: Instant, tries: Option<Arc<Tries>>) -> Self {
        Self { begun, after: AtomicU64::new(0), server: AtomicU64::new(0), tries }
    }

    fn set(&self, after: Duration) {
        self.after.store(after.as_nanos() as u64 + 1, Relaxed);
    }

    /// Returns the time, or none if the request was not placed.
    pub(super) fn get(&self) -> Option<Duration> {
        self.after.load(Relaxed).checked_sub(1).map(Duration::from_nanos)
    }

    /// Returns the id of the server.
    pub(super) fn server(&self) -> u64 {
        self.server.load(Relaxed)
    }
}

/// How long after a call's deadline its stream is reset, so that its client sees the deadline and no reset.
const GRACE: Duration = Duration::from_millis(100);

impl Forwarding<'_> {
    /// Forwards a request, which spends the permit.
    ///
    /// # Errors
    /// The error for the client.
    pub(super) async fn forward(&self, permit: Permit, request: &mut ClientRequest) -> Result<Outcome, Kind> {
        let lease = permit.spend();
        let ClientRequest { head, body, .. } = request;
        let takes_hints = head.version != Version::HTTP_10;
        let body = body.take();
        let upgrade = tunnel::is_asked(head, body.is_some());
        let via = via(&head.fields, head.version);
        let max_forwards = method::count_down(&mut head.fields);
        let headers = &self.snapshot.headers;
        // A key goes to no upstream, also where nobody is asked who they are.
        let keeps_token =
            self.route.forward_token && !head.fields.get_all(&header::AUTHORIZATION).any(shows_api_key);
        headers.strip(&mut head.fields, keeps_token, self.route.method_override);
        self.authorize(&lease, &mut head.fields)?;
        self.route.request_headers.apply(&mut head.fields);
        let host = head.fields.get(&header::HOST).cloned();
        if host.is_none()
            && let Ok(authority) = HeaderValue::try_from(self.client.cluster().config.host())
        {
            // HTTP/1.0 may come without; the upstream is spoken to in HTTP/1.1.
            head.fields.append(header::HOST, authority);
        }
        if let Some(rewrite) = &self.route.rewrite {
            apply(rewrite, head)?;
        }
        let bounds = self.body_bounds(head);
        let body = match RequestBody::new(body, &self.state.exchange, bounds, Some(&lease), headers) {
            // Boxed, since few upstreams want it.
            RequestBody::Streaming(body) if self.client.cluster().config.buffer.request > 0 => {
                Box::pin(self.read_ahead(body)).await?
            }
            body => body,
        };
        let added = headers.added(&Injected {
            principal: lease.principal().map(AsRef::as_ref),
            forwarded: self.origin,
            client_subject: self.state.secured.as_ref().and_then(|secured| secured.forwarded_subject()),
            request_id: self.request_id,
            host: host.as_ref(),
            upgrade,
            via: &via,
            max_forwards: max_forwards.as_ref(),
        });
        let key = self.key(&lease, &head.fields);
        let fields = std::mem::take(&mut head.fields);
        let sent = upstream::RequestHead { method: &head.method, uri: &head.uri, fields };
        let sending = upstream::Request { head: sent, added: added.lines(), body, key };
        let (mut response, body) = match self.send(&lease, sending, takes_hints).await? {
            upstream::Sent::Switched(response, connection) => {
                self.state.judged.goes_on(head, host);
                return Ok(Outcome::Switched(response, connection, lease));
            }
            upstream::Sent::Response(response, body) => (response, body),
        };
        if !body.is_there() {
            self.state.judged.goes_on(head, host);
        }
        clean_response(&mut response.fields);
        let body = ResponseBody::upstream(body, &self.state.exchange, lease);
        Ok(Outcome::Response(ClientResponse { status: response.status, fields: response.fields, body }))
    }

    /// Adds the access token of a caller with a cookie, where an upstream is to get one: none gets the cookie.
    fn authorize(&self, lease: &Lease, fields: &mut Fields) -> Result<(), Kind> {
        if let Some(principal) = lease.principal().filter(|principal| principal.is_by_cookie())
            && self.route.forward_token
        {
            let token = self.snapshot.access.authorization(principal).ok_or(Kind::Unavailable)?;
            fields.insert(header::AUTHORIZATION, token);
        }
        Ok(())
    }

    /// Reads a body before a server is asked, within the deadline of its exchange.
    async fn read_ahead(&self, mut body: Box<Streaming>) -> Result<RequestBody, Kind> {
        let most = self.client.cluster().config.buffer.request;
        match in_time(&self.state.exchange, body.read_ahead(most)).await {
            Some(Ok(())) => Ok(RequestBody::Streaming(body)),
            Some(Err(_)) | None => Err(self.state.exchange.body_failure().unwrap_or(Kind::RequestTimeout)),
        }
    }

    /// Returns what the request has in common with those for the same server, where that matters.
    fn key(&self, lease: &Lease, fields: &Fields) -> u64 {
        let config::Balance::Hash(key) = &self.client.cluster().config.balance else { return 0 };
        let of = match key {
            config::HashKey::User => lease.principal().map(|principal| principal.id_value.as_bytes()),
            config::HashKey::Header(name) => fields.get(name).map(HeaderValue::as_bytes),
            config::HashKey::Address => None,
        };
        of.map_or_else(|| upstream::hash(self.origin.client.to_string().as_bytes()), upstream::hash)
    }

    fn body_bounds(&self, head: &RequestHead) -> BodyBounds {
        let named = if grpc::is_call(head) { grpc::timeout(&head.fields) } else { None };
        // The client's own deadline is that of the whole call, also when it streams.
        if let Some(named) = named {
            self.state.exchange.ends_by(self.state.exchange.moment(named + GRACE));
        }
        let timeout = named.map_or(self.route.timeout, |named| named.min(self.route.timeout));
        BodyBounds {
            limit: self.route.body,
            due: self.state.exchange.moment(timeout),
            min_rate: self.snapshot.limits.body_min_rate,
            response_timeout: self.client.cluster().config.response_timeout,
        }
    }

    /// Sends the request within the deadline of its exchange.
    async fn send(
        &self,
        lease: &Lease,
        request: upstream::Request<'_, RequestBody>,
        takes_hints: bool,
    ) -> Result<upstream::Sent<RequestBody>, Kind> {
        let progress = Watched { forwarding: self, takes_hints };
        let error = match in_time(&self.state.exchange, self.client.send(lease, request, &progress)).await {
            Some(Ok(sent)) => return Ok(sent),
            Some(Err(error)) => error,
            None => {
                let reason =
                    if self.sent.get().is_some() { "no response in time" } else { "no connection in time" };
                return Err(self.failure(Kind::UpstreamTimeout, reason));
            }
        };
        let kind = match &error {
            SendError::NoServer => Kind::NoHealthyUpstream,
            SendError::NoConnection(ConnectError::Busy) => Kind::Unavailable,
            SendError::NoConnection(ConnectError::Timeout) => Kind::UpstreamTimeout,
            SendError::NoConnection(ConnectError::Failed(_)) | SendError::Broken(_) => Kind::UpstreamFailed,
        };
        Err(self.failure(kind, &error.to_string()))
    }

    /// The client's own error comes first: an upstream connection that was given up because the body
    /// was too large, late or broken is no failure of the upstream.
    fn failure(&self, kind: Kind, reason: &str) -> Kind {
        if let Some(kind) = self.state.exchange.body_failure() {
            return kind;
        }
        let cluster = self.client.cluster();
        if let Some(suppressed) = cluster.warnings.admit(coarse_millis()) {
            let request_id = self.request_id.to_str().unwrap_or_default();
            tracing::warn!(
                upstream.name = cluster.config.name,
                request.id = request_id,
                reason,
                suppressed,
                "{}",
                kind.message()
            );
        }
        kind
    }
}

/// Changes path and host as a route asks for it. The path is canonical.
fn apply(rewrite: &config::Rewrite, head: &mut RequestHead) -> Result<(), Kind> {
    if let Some(path) = rewrite.path.of(head.uri.path()) {
        let target = match head.uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path,
        };
        head.uri = PathAndQuery::try_from(target).map_err(|_| Kind::BadRequest)?.into();
    }
    if let Some(host) = &rewrite.host {
        head.fields.insert(header::HOST, host.clone());
    }
    Ok(())
}

/// Follows the progress of a request that is being sent.
struct Watched<'a> {
    forwarding: &'a Forwarding<'a>,
    /// Whether the client takes interim responses.
    takes_hints: bool,
}

impl upstream::Progress for Watched<'_> {
    fn connects(&self, server: u64) {
        let sent = self.forwarding.sent;
        sent.server.store(server, Relaxed);
        if let Some(tries) = &sent.tries {
            tries.connects(server, sent.begun.elapsed());
        }
        self.forwarding.state.exchange.budget().spends(CONNECT_COST);
    }

    fn placed(&self, made: bool, server: u64) {
        let sent = self.forwarding.sent;
        sent.server.store(server, Relaxed);
        if let Some(tries) = &sent.tries {
            tries.placed(server, sent.begun.elapsed());
        }
        // Without a connection that had to be made, what lies between is a microsecond: to read the clock again would
        // only add to it.
        sent.set(if made { sent.begun.elapsed() } else { Duration::ZERO });
    }

    fn hinted(&self, hints: ResponseHead) {
        if self.takes_hints {
            let rules = &self.forwarding.route.response_headers;
            self.forwarding.state.exchange.activity().hint(interim(hints, rules));
        }
    }
}

/// An interim response as it goes to the client (RFC 8297).
fn interim(mut hints: ResponseHead, rules: &config::HeaderRules) -> Interim {
    clean_response(&mut hints.fields);
    rules.take_out(&mut hints.fields);
    Interim { status: StatusCode::EARLY_HINTS, fields: hints.fields }
}

pin_project! {
    /// A future that ends with nothing once the exchange has expired.
    pub(super) struct InTime<'a, F> {
        exchange: &'a ThreadBound<Exchange>,
        #[pin]
        future: F,
    }
}

/// Returns the future's output, or nothing once the exchange has expired.
pub(super) fn in_time<F: Future>(exchange: &ThreadBound<Exchange>, future: F) -> InTime<'_, F> {
    InTime { exchange, future }
}

impl<F: Future> Future for InTime<'_, F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = self.project();
        match this.future.poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if this.exchange.is_expired() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
