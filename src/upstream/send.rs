//! Sends a request to a cluster. What fails is tried again where that is safe.

use std::{future::poll_fn, io};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use thiserror::Error;

use super::{
    Allowed, Body, Broken, Client, ConnectError, Connection, Head, RequestHead, ResponseHead, Rewind,
    cluster::Chosen,
};
use crate::{clock::coarse_millis, types::hop_by_hop::names_option};

/// The number of idle connections that a request may find closed before it fails.
pub(super) const MAX_TRIES: u8 = 3;

/// The statuses that count as failures of a server.
pub(super) const FAILURES: [StatusCode; 3] =
    [StatusCode::BAD_GATEWAY, StatusCode::SERVICE_UNAVAILABLE, StatusCode::GATEWAY_TIMEOUT];

/// A request to be sent.
pub struct Request<'a, B> {
    /// Its head.
    pub head: RequestHead<'a>,
    /// Headers to send after those of the head. Their names must not occur in the head. `Upgrade` asks for another
    /// protocol.
    pub added: &'a [(&'a HeaderName, &'a HeaderValue)],
    /// Its body.
    pub body: B,
    /// What it has in common with requests for the same server, as [`super::hash`] has it; any number if it does not matter.
    pub key: u64,
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
    /// No server takes requests.
    #[error("no server is up")]
    NoServer,
    /// No connection was available.
    #[error(transparent)]
    NoConnection(#[from] ConnectError),
    /// The connection broke, or the response was invalid.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// Receives what happens while a request is sent.
pub trait Progress {
    /// A connection to a server, by its id, is being opened for the request.
    fn connects(&self, server: u64);

    /// The request was put on a connection to a server, by its id, the first time or again. `made` tells whether the
    /// connection was opened for it.
    fn placed(&self, made: bool, server: u64);

    /// The upstream sent `103 Early Hints`. The response is still to come.
    fn hinted(&self, hints: ResponseHead);
}

/// A connection for a request, and to which server.
struct Way<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    chosen: Chosen<B>,
    connection: Box<Connection<B>>,
    /// Whether the connection was opened for the request.
    made: bool,
}

/// The tries of one request.
pub(super) struct Tries {
    pub(super) key: u64,
    /// The servers at which it failed.
    pub(super) tried: Vec<u64>,
    /// Tries that are left.
    pub(super) left: u32,
    /// Whether it was tried again.
    pub(super) again: bool,
    /// Whether it was repeated on another connection because the first one had rested.
    pub(super) repeated: bool,
    /// Whether that is still to be counted as a try.
    pub(super) owes: bool,
}

impl<B> Sent<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Returns the status of the response.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Response(head, _) | Self::Switched(head, _) => head.status,
        }
    }
}

impl<B> Client<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin + Default + Rewind + Send + 'static,
{
    /// Sends a request and returns the response's head with the body to be read.
    ///
    /// A request that failed on an idle connection is sent again on another one: any request of which no byte was sent,
    /// and an idempotent request without a body if the connection was closed before the response (RFC 9110,
    /// section 9.2.2). Other failures of the same requests are tried again as the config says.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(
        &self,
        allowed: &impl Allowed,
        request: Request<'_, B>,
        progress: &impl Progress,
    ) -> Result<Sent<B>, SendError> {
        if self.cluster().may_have_http2 {
            self.requests.count(coarse_millis());
            // Boxed, since it is large and most clusters have none.
            return Box::pin(self.send_mixed(allowed, request, progress)).await;
        }
        let Request { head, added, body, key } = request;
        let rules = &self.cluster().config.retries;
        let now = coarse_millis();
        self.requests.count(now);
        let is_upgrade = asks_for_upgrade(added);
        let repeatable = body.is_end_stream() && is_idempotent(head.method) && !is_upgrade;
        let mut tries = Tries::new(key, rules.attempts);
        let chosen = self.choose(key, &[], now).ok_or(SendError::NoServer)?;
        // One that rested may turn out closed, and an upgrade is never sent twice.
        let resting = if is_upgrade { None } else { chosen.pool.take(allowed) };
        let mut way = match resting {
            Some(connection) => Way { chosen, connection, made: false },
            // Boxed, here as below: connections are opened seldom, and this future is large.
            None => Box::pin(self.connect(chosen, allowed, &mut tries, progress)).await?,
        };
        let mut rested = way.connection.is_used();
        way.connection.begin(head, added, body);
        way.placed(progress);
        let mut stale = MAX_TRIES;
        loop {
            let mut may_again = true;
            let mut refused = None;
            let mut broken = match poll_fn(|cx| way.connection.poll_response(cx)).await {
                Ok(Head::Hints(hints)) => {
                    progress.hinted(hints);
                    // The client has a part of the response.
                    tries.left = 0;
                    stale = 0;
                    continue;
                }
                Ok(Head::Final(response))
                    if rested
                        && stale > 0
                        && is_idle_timeout(&response)
                        && tries.repeats_unseen(repeatable) =>
                {
                    stale -= 1;
                    way = Box::pin(self.fresh(way, allowed, &mut tries, progress)).await?;
                    rested = way.connection.is_used();
                    continue;
                }
                Ok(Head::Final(response)) => {
                    let has_failed = FAILURES.contains(&response.status);
                    if !(repeatable && self.tries_status_again(response.status, &way.chosen, &mut tries)) {
                        return Ok(self.finish(way, response, has_failed, &tries));
                    }
                    refused = Some(response.status);
                    None
                }
                Err(broken) if rested && stale > 0 && broken.may_be_stale(repeatable, &mut tries) => {
                    stale -= 1;
                    way = Box::pin(self.fresh(way, allowed, &mut tries, progress)).await?;
                    // A connection that another request gave back was idle, too.
                    rested = way.connection.is_used();
                    continue;
                }
                Err(broken) => Some(broken),
            };
            if let Some(broken) = &broken {
                let may = !is_upgrade
                    && ((broken.unsent && rules.on_connect)
                        || (broken.headless && repeatable && rules.on_reset));
                tries.tried.push(way.chosen.pool.endpoint().id);
                let counts_repeat = !broken.unsent && !self.has_another(&tries.tried, coarse_millis());
                may_again = broken.is_of_the_server() && may && self.takes_retry(&mut tries, counts_repeat);
            }
            if let Some(broken) = broken.take_if(|_| !may_again) {
                self.breaks(way.chosen, &broken, &tries);
                return Err(broken.into());
            }
            way = Box::pin(self.again(way, broken, refused, allowed, &mut tries, progress)).await?;
            rested = way.connection.is_used();
        }
    }

    /// Sends a request on another connection, since the server has closed the first one while it rested.
    async fn fresh(
        &self,
        way: Way<B>,
        allowed: &impl Allowed,
        tries: &mut Tries,
        progress: &impl Progress,
    ) -> Result<Way<B>, SendError> {
        let request = way.connection.into_request();
        let mut way = self.connect(way.chosen, allowed, tries, progress).await?;
        way.connection.resume(request);
        way.placed(progress);
        Ok(way)
    }

    /// Sends a request that has failed to another server. It was `broken` off, or answered with the status `refused`.
    async fn again(
        &self,
        way: Way<B>,
        broken: Option<Broken>,
        refused: Option<StatusCode>,
        allowed: &impl Allowed,
        tries: &mut Tries,
        progress: &impl Progress,
    ) -> Result<Way<B>, SendError> {
        let request = way.connection.into_request();
        self.tried(way.chosen, refused);
        let mut way = match (self.another(allowed, tries, progress).await, broken) {
            // What went wrong before is the reason.
            (Err(SendError::NoServer), Some(broken)) => return Err(broken.into()),
            (another, _) => another?,
        };
        way.connection.resume(request);
        way.placed(progress);
        Ok(way)
    }

    /// Finishes a request that was answered.
    fn finish(&self, way: Way<B>, response: ResponseHead, has_failed: bool, tries: &Tries) -> Sent<B> {
        let Way { chosen, connection, .. } = way;
        let pool = chosen.pool.clone();
        self.ends(chosen, has_failed, tries);
        if response.status == StatusCode::SWITCHING_PROTOCOLS {
            Sent::Switched(response, connection)
        } else {
            Sent::Response(response, Body::new(connection, pool))
        }
    }

    /// Notes that a request has failed at a server and is sent to another one. `status` is that of the response, if there was
    /// one: not each that is tried again says that the server is ill.
    pub(super) fn tried(&self, chosen: Chosen<B>, status: Option<StatusCode>) {
        match status {
            Some(status) if !FAILURES.contains(&status) => chosen.succeeded(),
            _ => chosen.failed(),
        }
    }

    /// Notes that the last try of a request has broken off. Nothing is known of the server if that was the client's fault.
    pub(super) fn breaks(&self, chosen: Chosen<B>, broken: &Broken, tries: &Tries) {
        if broken.is_of_the_server() {
            self.ends(chosen, true, tries);
        } else {
            drop(chosen);
        }
    }

    /// Notes how the last try of a request has ended.
    pub(super) fn ends(&self, chosen: Chosen<B>, has_failed: bool, tries: &Tries) {
        if tries.again {
            let counters = &self.cluster().counters;
            if has_failed { counters.retries_failed.inc() } else { counters.retries_succeeded.inc() }
        }
        if has_failed { chosen.failed() } else { chosen.succeeded() }
    }

    /// Returns whether a request with this response is sent to another server.
    pub(super) fn tries_status_again(
        &self,
        status: StatusCode,
        chosen: &Chosen<B>,
        tries: &mut Tries,
    ) -> bool {
        if status.as_u16() < 500 || !chosen.has_others {
            return false;
        }
        if !self.cluster().config.retries.on_status.contains(&status.as_u16()) {
            return false;
        }
        tries.tried.push(chosen.pool.endpoint().id);
        self.has_another(&tries.tried, coarse_millis()) && self.takes_retry(tries, false)
    }

    /// Takes a retry, if there is one. With `counts_repeat` the repetition on another connection was one: the server may have read the
    /// request both times, and no other server could get it next.
    pub(super) fn takes_retry(&self, tries: &mut Tries, counts_repeat: bool) -> bool {
        if counts_repeat && std::mem::take(&mut tries.owes) {
            tries.left = tries.left.saturating_sub(1);
        }
        if tries.left == 0 {
            return false;
        }
        let cluster = self.cluster();
        if !cluster.budget.take(cluster.config.retries.budget, coarse_millis()) {
            cluster.counters.retries_over_budget.inc();
            return false;
        }
        tries.left -= 1;
        tries.again = true;
        true
    }

    /// Chooses another server for a request that failed, and finds a connection.
    async fn another(
        &self,
        allowed: &impl Allowed,
        tries: &mut Tries,
        progress: &impl Progress,
    ) -> Result<Way<B>, SendError> {
        let chosen = self.choose(tries.key, &tries.tried, coarse_millis()).ok_or(SendError::NoServer)?;
        match chosen.pool.take(allowed) {
            Some(connection) => Ok(Way { chosen, connection, made: false }),
            None => self.connect(chosen, allowed, tries, progress).await,
        }
    }

    /// Opens a connection to the chosen server; if that fails, to another one, where that is allowed.
    async fn connect(
        &self,
        mut chosen: Chosen<B>,
        allowed: &impl Allowed,
        tries: &mut Tries,
        progress: &impl Progress,
    ) -> Result<Way<B>, SendError> {
        loop {
            progress.connects(chosen.pool.endpoint().id);
            let error = match chosen.pool.connect(allowed, coarse_millis() as u32).await {
                Ok(connection) => return Ok(Way { chosen, connection, made: true }),
                // The server is well, and others would only be busy next.
                Err(ConnectError::Busy) => return Err(ConnectError::Busy.into()),
                Err(error) => error,
            };
            tries.tried.push(chosen.pool.endpoint().id);
            // A name's other addresses are no other try: one of them may never have been meant, as that of IPv6 of a
            // server that speaks IPv4.
            if !self.has_sibling(chosen.pool.endpoint(), &tries.tried, coarse_millis()) {
                // The only server would let the client wait for as long again. And what has reached no server is no load,
                // so the budget does not bind it.
                let is_vain = !chosen.has_others && matches!(error, ConnectError::Timeout);
                if is_vain || !self.cluster().config.retries.on_connect || tries.left == 0 {
                    self.ends(chosen, true, tries);
                    return Err(error.into());
                }
                tries.left -= 1;
                tries.again = true;
            }
            chosen.failed();
            let Some(next) = self.choose(tries.key, &tries.tried, coarse_millis()) else {
                return Err(error.into());
            };
            chosen = next;
            if let Some(connection) = chosen.pool.take(allowed) {
                return Ok(Way { chosen, connection, made: false });
            }
        }
    }
}

impl<B> Way<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Notes that the request is on the connection.
    fn placed(&mut self, progress: &impl Progress) {
        let pool = &self.chosen.pool;
        // Among several servers the one with fewer requests is looked for.
        self.connection.counts(self.chosen.has_others.then(|| pool.enters()));
        progress.placed(self.made, pool.endpoint().id);
    }
}

/// Returns whether headers ask for another protocol.
pub(super) fn asks_for_upgrade(added: &[(&HeaderName, &HeaderValue)]) -> bool {
    added.iter().any(|(name, _)| **name == header::UPGRADE)
}

impl Broken {
    /// Returns whether a request that failed on a connection that had rested is sent again on another: the server has closed
    /// it meanwhile. One that may have been read is sent again once, and only where retries are wanted at all.
    pub(super) fn may_be_stale(&self, repeatable: bool, tries: &mut Tries) -> bool {
        self.unsent || (self.unanswered && tries.repeats(repeatable))
    }
}

impl Tries {
    /// Creates the tries of a request that may be tried again so often.
    pub(super) fn new(key: u64, attempts: u32) -> Self {
        Self { key, tried: Vec::new(), left: attempts, again: false, repeated: false, owes: false }
    }

    /// Returns whether a request is sent again on another connection because the first one had rested: once, and only where
    /// retries are wanted at all.
    pub(super) fn repeats(&mut self, repeatable: bool) -> bool {
        let repeats = repeatable && self.left > 0 && !std::mem::replace(&mut self.repeated, true);
        self.owes |= repeats;
        repeats
    }

    /// The same of one that the server says it has not seen.
    pub(super) fn repeats_unseen(&mut self, repeatable: bool) -> bool {
        let (owes, repeats) = (self.owes, self.repeats(repeatable));
        self.owes = owes;
        repeats
    }
}

/// Returns whether a response on a connection that had rested says that no request came in time: the server sent it when it
/// closed the connection, and has not seen the request (RFC 9110, section 15.5.9).
pub(super) fn is_idle_timeout(response: &ResponseHead) -> bool {
    response.status == StatusCode::REQUEST_TIMEOUT && names_option(&response.fields, "close")
}

pub(super) fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE].contains(method)
}
