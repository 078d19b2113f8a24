//! Sends a request to a cluster, with retries on connections that turn out closed.

use std::{future::poll_fn, io};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use thiserror::Error;

use super::{
    Allowed, Body, Broken, Client, ConnectError, Connection, Head, RequestHead, ResponseHead, pool::Pool,
};

/// The number of idle connections that a request may find closed before it fails.
const MAX_TRIES: u8 = 3;

/// A request to be sent.
pub struct Request<'a, B> {
    /// Its head.
    pub head: RequestHead<'a>,
    /// Headers to send after those of the head. Their names must not occur in the head. `Upgrade` asks for another
    /// protocol.
    pub added: &'a [(&'a HeaderName, &'a HeaderValue)],
    /// Its body.
    pub body: B,
}

/// The result of sending a request.
pub enum Sent<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// The upstream responded. The body may still be arriving.
    Response(ResponseHead, Body<B>),
    /// The upstream switched to the protocol that the request asked for.
    Switched(ResponseHead, Box<Connection<B>>),
}

/// The reason why there is no response. The text is for the log.
#[derive(Debug, Error)]
pub enum SendError {
    /// No connection was available.
    #[error(transparent)]
    NoConnection(#[from] ConnectError),
    /// The connection broke, or the response was invalid.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// Receives what happens while a request is sent.
pub trait Progress {
    /// A connection is being opened for the request.
    fn connects(&self);

    /// The request was put on its first connection. `made` tells whether that was opened for it.
    fn placed(&self, made: bool);

    /// The upstream sent `103 Early Hints`. The response is still to come.
    fn hinted(&self, hints: ResponseHead);
}

impl<B> Client<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Sends a request and returns the response's head with the body to be read.
    ///
    /// A request that failed on an idle connection is tried again on another one: any request of which no byte was sent,
    /// and an idempotent request without a body if the connection was closed before the response (RFC 9110,
    /// section 9.2.2).
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(
        &self,
        allowed: &impl Allowed,
        request: Request<'_, B>,
        progress: &impl Progress,
    ) -> Result<Sent<B>, SendError> {
        let Request { head, added, body } = request;
        let pool = self.choose();
        let repeatable = body.is_end_stream() && is_idempotent(head.method);
        let resting = pool.take(allowed);
        let made = resting.is_none();
        let mut connection = match resting {
            Some(connection) => connection,
            // Boxed, here as below: connections are opened seldom, and this future is large.
            None => Box::pin(connect(pool, allowed, progress)).await?,
        };
        let mut rested = connection.is_used();
        connection.begin(head, added, body);
        progress.placed(made);
        let mut tries = MAX_TRIES;
        loop {
            match poll_fn(|cx| connection.poll_response(cx)).await {
                Ok(Head::Hints(hints)) => progress.hinted(hints),
                Ok(Head::Final(response)) if response.status == StatusCode::SWITCHING_PROTOCOLS => {
                    return Ok(Sent::Switched(response, connection));
                }
                Ok(Head::Final(response)) => {
                    return Ok(Sent::Response(response, Body::new(connection, pool.clone())));
                }
                Err(broken)
                    if (broken.unsent || (broken.unanswered && repeatable)) && rested && tries > 0 =>
                {
                    let request = connection.into_request();
                    connection = Box::pin(connect(pool, allowed, progress)).await?;
                    // A connection that another request gave back was idle, too.
                    rested = connection.is_used();
                    connection.resume(request);
                    tries -= 1;
                }
                Err(broken) => return Err(broken.into()),
            }
        }
    }
}

async fn connect<B>(
    pool: &Pool<B>,
    allowed: &impl Allowed,
    progress: &impl Progress,
) -> Result<Box<Connection<B>>, ConnectError>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    progress.connects();
    pool.connect(allowed).await
}

fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}
