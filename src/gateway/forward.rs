//! Sending an allowed request to its upstream.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};

use super::{
    body::{AnswerBody, RequestBody},
    exchange::Exchange,
};
use crate::{
    access::Permit,
    error::Kind,
    upstream::{Body, Connection, Pool},
};

/// What comes of a request that was sent on.
pub(super) enum Forwarded {
    /// An answer, its body still arriving.
    Answer(Response<AnswerBody>),
    /// The upstream speaks another protocol from here on, as it was asked to.
    Switched(Response<()>, Box<Connection<RequestBody>>),
}

/// Sends `request` on, with the headers `added` by the gateway, and returns the answer's head, its
/// body still arriving. Nothing gets here without a [`Permit`].
///
/// A request without a body that can be repeated (RFC 9110, section 9.2.2) is sent again, once, when
/// the connection that it went out on had rested and was closed without a byte of an answer.
pub(super) async fn forward(
    _permit: &Permit,
    pool: &Arc<Pool<RequestBody>>,
    request: Request<RequestBody>,
    added: &[(&HeaderName, &HeaderValue)],
    exchange: &Arc<Exchange>,
) -> Result<Forwarded, Kind> {
    let name = &pool.upstream().config.name;
    let (head, body) = request.into_parts();
    let repeatable = matches!(body, RequestBody::Empty) && is_idempotent(&head.method);
    let mut body = Some(body);
    let mut pooled = pool.take();
    loop {
        let rested = pooled.is_some();
        let mut connection = match pooled.take() {
            Some(connection) => connection,
            None => connect(pool, exchange).await?,
        };
        connection.begin(&head, added, body.take().unwrap_or(RequestBody::Empty));
        match in_time(exchange, poll_fn(|cx| connection.poll_answer(cx))).await {
            None => return Err(failure(exchange, Kind::UpstreamTimeout, "no answer in time", name)),
            Some(Ok(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                return Ok(Forwarded::Switched(response, connection));
            }
            Some(Ok(response)) => {
                let (mut answer, ()) = response.into_parts();
                // What the upstream speaks is not what the client is spoken to in.
                answer.version = Version::HTTP_11;
                let body = AnswerBody::upstream(Body::new(connection, pool.clone()), exchange);
                return Ok(Forwarded::Answer(Response::from_parts(answer, body)));
            }
            Some(Err(broken)) if broken.unanswered && rested && repeatable => {}
            Some(Err(broken)) => {
                return Err(failure(exchange, Kind::UpstreamFailed, &broken.to_string(), name));
            }
        }
    }
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}

async fn connect(
    pool: &Pool<RequestBody>,
    exchange: &Exchange,
) -> Result<Box<Connection<RequestBody>>, Kind> {
    let name = &pool.upstream().config.name;
    match in_time(exchange, pool.connect()).await {
        Some(Ok(connection)) => Ok(connection),
        Some(Err(error)) => {
            let late = error.kind() == std::io::ErrorKind::TimedOut;
            let kind = if late { Kind::UpstreamTimeout } else { Kind::UpstreamFailed };
            Err(failure(exchange, kind, &error.to_string(), name))
        }
        None => Err(failure(exchange, Kind::UpstreamTimeout, "no connection in time", name)),
    }
}

/// The client's own fault comes first: an upstream connection that was given up because the body
/// was too large, late or broken is no failure of the upstream.
fn failure(exchange: &Exchange, kind: Kind, reason: &str, upstream: &str) -> Kind {
    if let Some(kind) = exchange.body_failure() {
        return kind;
    }
    tracing::warn!(upstream.name = upstream, reason, "{}", kind.message());
    kind
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
