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
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};

use super::{
    body::{AnswerBody, RequestBody},
    exchange::Exchange,
    headers::clean_answer,
};
use crate::{
    access::Permit,
    clock::coarse_millis,
    error::Kind,
    upstream::{Body, ConnectError, Connection, Head, Pool},
};

/// What comes of a request that was sent on.
pub(super) enum Forwarded {
    /// A response, its body still arriving.
    Answer(Response<AnswerBody>),
    /// The upstream speaks another protocol from here on, as it was asked to.
    Switched(Response<()>, Box<Connection<RequestBody>>),
}

/// How many connections a request may find closed before it fails: each had rested.
const MAX_TRIES: u8 = 3;

/// What one request is forwarded with.
pub(super) struct Forwarding<'a> {
    pub(super) pool: &'a Arc<Pool<RequestBody>>,
    pub(super) exchange: &'a Arc<Exchange>,
    pub(super) request_id: &'a HeaderValue,
    /// Whether the client understands interim responses.
    pub(super) takes_hints: bool,
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
    /// Sends `request` on, with the headers `added` by the gateway, and returns the response's head, its
    /// body still arriving. Nothing gets here without a [`Permit`].
    ///
    /// On a connection that had rested it is tried once more, on a new one: whatever it is when none of it had left;
    /// and when it was closed without a byte of a response, if the request has no body and can be repeated
    /// (RFC 9110, section 9.2.2).
    pub(super) async fn forward(
        &self,
        _permit: &Permit,
        request: Request<RequestBody>,
        added: &[(&HeaderName, &HeaderValue)],
    ) -> Result<Forwarded, Kind> {
        let (pool, exchange) = (self.pool, self.exchange);
        let (head, body) = request.into_parts();
        let repeatable = matches!(body, RequestBody::Empty) && is_idempotent(&head.method);
        let (mut connection, begun) = match pool.take() {
            // What lies between is a microsecond: to read the clock again would only add to it.
            Some(connection) => (connection, self.begun),
            None => (self.connect().await?, Instant::now()),
        };
        let mut rested = connection.is_used();
        connection.begin(&head, added, body);
        self.sent.set(begun.saturating_duration_since(self.begun));
        let mut tries = MAX_TRIES;
        loop {
            match in_time(exchange, poll_fn(|cx| connection.poll_response(cx))).await {
                None => return Err(self.failure(Kind::UpstreamTimeout, "no response in time")),
                Some(Ok(Head::Hints(hints))) => {
                    if self.takes_hints {
                        exchange.hint(interim(hints));
                    }
                }
                Some(Ok(Head::Final(response))) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Ok(Forwarded::Switched(response, connection));
                }
                Some(Ok(Head::Final(response))) => {
                    let (mut answer, ()) = response.into_parts();
                    // What the upstream speaks is not what the client is spoken to in.
                    answer.version = Version::HTTP_11;
                    let body = AnswerBody::upstream(Body::new(connection, pool.clone()), exchange);
                    return Ok(Forwarded::Answer(Response::from_parts(answer, body)));
                }
                Some(Err(broken)) if broken.unsent && rested && tries > 0 => {
                    let request = connection.into_request();
                    connection = self.connect().await?;
                    // One that another request gave back has rested, too.
                    rested = connection.is_used();
                    connection.resume(request);
                    tries -= 1;
                }
                Some(Err(broken)) if broken.unanswered && rested && repeatable && tries > 0 => {
                    drop(connection);
                    connection = self.connect().await?;
                    rested = connection.is_used();
                    connection.begin(&head, added, RequestBody::Empty);
                    tries -= 1;
                }
                Some(Err(broken)) => return Err(self.failure(Kind::UpstreamFailed, &broken.to_string())),
            }
        }
    }

    async fn connect(&self) -> Result<Box<Connection<RequestBody>>, Kind> {
        match in_time(self.exchange, self.pool.connect()).await {
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

    /// The client's own fault comes first: an upstream connection that was given up because the body
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
    clean_answer(hints.headers_mut(), false);
    let mut head = b"HTTP/1.1 103 Early Hints\r\n".to_vec();
    for (name, value) in hints.headers() {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

/// The future's output, or nothing once the exchange has expired.
pub(super) async fn in_time<F: Future>(exchange: &Exchange, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if exchange.is_expired() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

/// The longest that an upstream may take once it has the whole request.
pub(super) fn response_timeout(pool: &Pool<RequestBody>) -> Duration {
    pool.upstream().config.response_timeout
}
