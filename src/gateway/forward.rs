//! Sending an allowed request to its upstream.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response};
use hyper::body::Incoming;

use super::{
    body::{AnswerBody, RequestBody},
    exchange::Exchange,
};
use crate::{
    access::Permit,
    error::Kind,
    upstream::{Body, Connection, Pool, SendError},
};

/// How often a request that was not sent is tried again on another pooled connection, beyond
/// which a fresh one is made: a server that restarted has closed them all.
const MAX_STALE: u32 = 2;

/// Sends `request` on and returns the answer's head, its body still arriving. Nothing gets here
/// without a [`Permit`].
pub(super) async fn forward(
    _permit: &Permit,
    pool: &Arc<Pool<RequestBody>>,
    mut request: Request<RequestBody>,
    exchange: &Arc<Exchange>,
) -> Result<Response<AnswerBody>, Kind> {
    let upstream = pool.upstream();
    let mut stale = 0;
    loop {
        let pooled = if stale < MAX_STALE { pool.take() } else { None };
        let mut connection = match pooled {
            Some(connection) => connection,
            None => connect(pool, exchange).await?,
        };
        match in_time(exchange, connection.send(request)).await {
            None => {
                return Err(failure(
                    exchange,
                    Kind::UpstreamTimeout,
                    "no answer in time",
                    &upstream.config.name,
                ));
            }
            Some(Ok(response)) => {
                return Ok(answer(response, connection, pool, exchange));
            }
            Some(Err(SendError::Unsent(unsent))) if stale < MAX_STALE => {
                request = *unsent;
                stale += 1;
            }
            Some(Err(error)) => {
                return Err(failure(
                    exchange,
                    Kind::UpstreamFailed,
                    &error.to_string(),
                    &upstream.config.name,
                ));
            }
        }
    }
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

fn answer(
    response: Response<Incoming>,
    connection: Box<Connection<RequestBody>>,
    pool: &Arc<Pool<RequestBody>>,
    exchange: &Arc<Exchange>,
) -> Response<AnswerBody> {
    let (head, incoming) = response.into_parts();
    let body = Body::new(incoming, connection, pool.clone());
    Response::from_parts(head, AnswerBody::upstream(body, exchange))
}

/// The longest that an upstream may take once it has the whole request.
pub(super) fn response_timeout(pool: &Pool<RequestBody>) -> Duration {
    pool.upstream().config.response_timeout
}
