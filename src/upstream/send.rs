//! Sending a request to a cluster: on which connection, and what is tried again.

use std::{future::poll_fn, io};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, request::Parts};
use thiserror::Error;

use super::{Allowed, Body, Broken, Client, ConnectError, Connection, Head, pool::Pool};

/// How many connections a request may find closed before it fails: each had rested.
const MAX_TRIES: u8 = 3;

/// A request to be sent.
pub struct Request<'a, B> {
    /// Its head.
    pub head: &'a Parts,
    /// Headers that stand behind its own, none of which may have a name of those. One of `Upgrade` asks for another
    /// protocol.
    pub added: &'a [(&'a HeaderName, &'a HeaderValue)],
    /// Its body.
    pub body: B,
}

/// What comes of a request that was sent.
pub enum Sent<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// A response, its body still arriving.
    Response(Response<Body<B>>),
    /// The upstream speaks another protocol from here on, as it was asked to.
    Switched(Response<()>, Box<Connection<B>>),
}

/// Why there is no response. The text is for the log.
#[derive(Debug, Error)]
pub enum SendError {
    /// There was no connection.
    #[error(transparent)]
    NoConnection(#[from] ConnectError),
    /// The connection broke, or what came on it was no response.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// What whoever sends a request is told on the way.
pub trait Progress {
    /// A connection is made for it.
    fn connects(&self);

    /// It is put on its first connection; `made` says whether that was made for it.
    fn placed(&self, made: bool);

    /// `103 Early Hints`: the response is still to come.
    fn hinted(&self, hints: Response<()>);
}

impl<B> Client<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin + Default,
{
    /// Sends a request, and returns the response's head, its body still arriving.
    ///
    /// On a connection that had rested it is tried once more, on a new one: whatever it is when none of it had left;
    /// and when it was closed without a byte of a response, if the request has no body and can be repeated
    /// (RFC 9110, section 9.2.2).
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
        let repeatable = body.is_end_stream() && is_idempotent(&head.method);
        let resting = pool.take(allowed);
        let made = resting.is_none();
        let mut connection = match resting {
            Some(connection) => connection,
            None => connect(pool, allowed, progress).await?,
        };
        let mut rested = connection.is_used();
        connection.begin(head, added, body);
        progress.placed(made);
        let mut tries = MAX_TRIES;
        loop {
            match poll_fn(|cx| connection.poll_response(cx)).await {
                Ok(Head::Hints(hints)) => progress.hinted(hints),
                Ok(Head::Final(response)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Ok(Sent::Switched(response, connection));
                }
                Ok(Head::Final(response)) => {
                    return Ok(Sent::Response(response.map(|()| Body::new(connection, pool.clone()))));
                }
                Err(broken) if broken.unsent && rested && tries > 0 => {
                    let request = connection.into_request();
                    connection = connect(pool, allowed, progress).await?;
                    // One that another request gave back has rested, too.
                    rested = connection.is_used();
                    connection.resume(request);
                    tries -= 1;
                }
                Err(broken) if broken.unanswered && rested && repeatable && tries > 0 => {
                    drop(connection);
                    connection = connect(pool, allowed, progress).await?;
                    rested = connection.is_used();
                    connection.begin(head, added, B::default());
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
