//! Sending an allowed request to its upstream.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header, request::Parts};
use hyper::body::Incoming;

use super::{
    client,
    exchange::Exchange,
    headers::{Injected, clean_response, via},
    method, refusal,
    request_body::{BodyBounds, RequestBody},
    response_body::ResponseBody,
    snapshot::Snapshot,
    thread_bound::ThreadBound,
    tunnel,
};
use crate::{
    access::{Lease, Permit},
    clock::coarse_millis,
    config,
    error::Kind,
    upstream::{Body, ConnectError, Connection, Head, Pool},
};

/// What comes of a request that was sent on.
pub(super) enum Outcome {
    /// A response, its body still arriving.
    Response(Response<ResponseBody>),
    /// The upstream speaks another protocol from here on, as it was asked to.
    Switched(Response<()>, Box<Connection<RequestBody>>, Lease),
}

/// How many connections a request may find closed before it fails: each had rested.
const MAX_TRIES: u8 = 3;

/// What making a connection costs of a turn, in bytes: several system calls here, and as many at the upstream.
const CONNECT_COST: usize = 16 << 10;

/// What one request is forwarded with.
pub(super) struct Forwarding<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) route: &'a config::Route,
    pub(super) pool: &'a Arc<Pool<RequestBody>>,
    pub(super) exchange: &'a Arc<ThreadBound<Exchange>>,
    /// Where the request came from.
    pub(super) origin: &'a client::Forwarded,
    pub(super) request_id: &'a HeaderValue,
    /// When the request began.
    pub(super) begun: Instant,
    pub(super) sent: &'a Sent,
}

/// How long after its beginning a request was put on a connection.
#[derive(Default)]
pub(super) struct Sent(AtomicU64);

impl Sent {
    fn set(&self, after: Duration) {
        self.0.store(after.as_nanos() as u64 + 1, Relaxed);
    }

    /// None where it was not.
    pub(super) fn get(&self) -> Option<Duration> {
        self.0.load(Relaxed).checked_sub(1).map(Duration::from_nanos)
    }
}

impl Forwarding<'_> {
    /// Sends `request` on, and returns the response's head, its body still arriving. The permit is spent by it.
    ///
    /// # Errors
    /// What the client is told.
    pub(super) async fn forward(
        &self,
        permit: Permit,
        mut request: Request<Incoming>,
    ) -> Result<Outcome, Kind> {
        let lease = permit.spend();
        let takes_hints = request.version() == Version::HTTP_11;
        let upgrade = tunnel::is_asked(&request);
        let via = via(request.headers(), request.version());
        let max_forwards = method::count_down(request.headers_mut());
        let headers = &self.snapshot.headers;
        headers.strip(request.headers_mut(), self.route.forward_token, self.route.method_override);
        let host = request.headers().get(header::HOST).cloned();
        if host.is_none()
            && let Ok(authority) = HeaderValue::try_from(self.pool.upstream().config.authority.as_str())
        {
            // HTTP/1.0 may come without; the upstream is spoken to in HTTP/1.1.
            request.headers_mut().insert(header::HOST, authority);
        }
        let to_head = request.method() == Method::HEAD;
        let (head, body) = request.into_parts();
        let body = RequestBody::new(body, self.exchange, self.body_bounds(), Some(&lease));
        let added = headers.added(&Injected {
            principal: lease.principal().map(AsRef::as_ref),
            forwarded: self.origin,
            request_id: self.request_id,
            host: host.as_ref(),
            upgrade,
            via: &via,
            max_forwards: max_forwards.as_ref(),
        });
        let (response, connection) = self.send(&lease, &head, added.lines(), body, takes_hints).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(Outcome::Switched(response, connection, lease));
        }
        let (mut response, ()) = response.into_parts();
        // What the upstream speaks is not what the client is spoken to in.
        response.version = Version::HTTP_11;
        clean_response(&mut response.headers, to_head);
        let body = ResponseBody::upstream(Body::new(connection, self.pool.clone()), self.exchange, lease);
        Ok(Outcome::Response(Response::from_parts(response, body)))
    }

    fn body_bounds(&self) -> BodyBounds {
        BodyBounds {
            limit: self.route.body,
            due: self.exchange.moment(self.route.timeout),
            min_rate: self.snapshot.limits.body_min_rate,
            response_timeout: self.pool.upstream().config.response_timeout,
        }
    }

    /// Puts a request on a connection, with the headers `added` by the gateway, and waits for the response's head.
    ///
    /// On a connection that had rested it is tried once more, on a new one: whatever it is when none of it had left;
    /// and when it was closed without a byte of a response, if the request has no body and can be repeated
    /// (RFC 9110, section 9.2.2).
    async fn send(
        &self,
        lease: &Lease,
        head: &Parts,
        added: &[(&HeaderName, &HeaderValue)],
        body: RequestBody,
        takes_hints: bool,
    ) -> Result<(Response<()>, Box<Connection<RequestBody>>), Kind> {
        let (pool, exchange) = (self.pool, self.exchange);
        let repeatable = matches!(body, RequestBody::Empty) && is_idempotent(&head.method);
        let (mut connection, begun) = match pool.take(lease) {
            // What lies between is a microsecond: to read the clock again would only add to it.
            Some(connection) => (connection, self.begun),
            None => (self.connect(lease).await?, Instant::now()),
        };
        let mut rested = connection.is_used();
        connection.begin(head, added, body);
        self.sent.set(begun.saturating_duration_since(self.begun));
        let mut tries = MAX_TRIES;
        loop {
            match in_time(exchange, poll_fn(|cx| connection.poll_response(cx))).await {
                None => return Err(self.failure(Kind::UpstreamTimeout, "no response in time")),
                Some(Ok(Head::Hints(hints))) => {
                    if takes_hints {
                        exchange.activity().hint(interim(hints));
                    }
                }
                Some(Ok(Head::Final(response))) => return Ok((response, connection)),
                Some(Err(broken)) if broken.unsent && rested && tries > 0 => {
                    let request = connection.into_request();
                    connection = self.connect(lease).await?;
                    // One that another request gave back has rested, too.
                    rested = connection.is_used();
                    connection.resume(request);
                    tries -= 1;
                }
                Some(Err(broken)) if broken.unanswered && rested && repeatable && tries > 0 => {
                    drop(connection);
                    connection = self.connect(lease).await?;
                    rested = connection.is_used();
                    connection.begin(head, added, RequestBody::Empty);
                    tries -= 1;
                }
                Some(Err(broken)) => return Err(self.failure(Kind::UpstreamFailed, &broken.to_string())),
            }
        }
    }

    async fn connect(&self, lease: &Lease) -> Result<Box<Connection<RequestBody>>, Kind> {
        self.exchange.budget().spends(CONNECT_COST);
        match in_time(self.exchange, self.pool.connect(lease)).await {
            Some(Ok(connection)) => Ok(connection),
            Some(Err(error)) => {
                let kind = match &error {
                    ConnectError::Busy => Kind::Unavailable,
                    ConnectError::Timeout => Kind::UpstreamTimeout,
                    ConnectError::Failed(_) => Kind::UpstreamFailed,
                };
                Err(self.failure(kind, &error.to_string()))
            }
            None => Err(self.failure(Kind::UpstreamTimeout, "no connection in time")),
        }
    }

    /// The client's own error comes first: an upstream connection that was given up because the body
    /// was too large, late or broken is no failure of the upstream.
    fn failure(&self, kind: Kind, reason: &str) -> Kind {
        if let Some(kind) = self.exchange.body_failure() {
            return kind;
        }
        let upstream = self.pool.upstream();
        if let Some(suppressed) = upstream.warnings.admit(coarse_millis()) {
            let request_id = self.request_id.to_str().unwrap_or_default();
            tracing::warn!(
                upstream.name = upstream.config.name,
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

/// An interim response as it goes to the client (RFC 8297).
fn interim(mut hints: Response<()>) -> Bytes {
    clean_response(hints.headers_mut(), false);
    refusal::head(StatusCode::EARLY_HINTS, hints.headers()).into()
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

/// The future's output, or nothing once the exchange has expired.
pub(super) async fn in_time<F: Future>(exchange: &ThreadBound<Exchange>, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if exchange.is_expired() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}
