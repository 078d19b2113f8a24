//! Sends a request to a cluster with servers that speak HTTP/2, and perhaps others that do not.
//!
//! What is kept for another try is the request itself, not its bytes on a connection: the next server may speak another
//! protocol. Of a body that a server of HTTP/2 got the begin is kept.

use std::{future::poll_fn, io};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::{
    Allowed, Body, Broken, Client, ConnectError, Head, Progress, Request, RequestHead, Rewind, SendError,
    Sent,
    cluster::Chosen,
    exchange::Exchange,
    send::{FAILURES, MAX_TRIES, Tries, asks_for_upgrade, is_idempotent, is_idle_timeout},
};
use crate::clock::coarse_millis;

/// How often a server may say of a request that it was not processed, as it does when it says goodbye, before that is a failure.
const MAX_REFUSALS: u8 = 5;

/// What became of a try.
enum Tried<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// With whether a part of the response went to the client before.
    Answered(Sent<B>, bool),
    /// The body was not asked for.
    NoConnection(SendError, B),
    /// With the body, if all of it can be sent again.
    Broken(Broken, Option<B>),
}

/// A request as each try sends it.
struct Asked<'a> {
    head: RequestHead<'a>,
    added: &'a [(&'a HeaderName, &'a HeaderValue)],
    has_body: bool,
    repeatable: bool,
    is_upgrade: bool,
}

impl<B> Client<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin + Default + Rewind + Send + 'static,
{
    /// Sends a request, and tries again where that is safe.
    ///
    /// # Errors
    /// [`SendError`].
    pub(super) async fn send_mixed(
        &self,
        allowed: &impl Allowed,
        request: Request<'_, B>,
        progress: &impl Progress,
    ) -> Result<Sent<B>, SendError> {
        let rules = &self.cluster().config.retries;
        let is_upgrade = asks_for_upgrade(request.added);
        let repeatable = request.body.is_end_stream() && is_idempotent(request.head.method) && !is_upgrade;
        let mut tries = Tries::new(request.key, rules.attempts);
        let has_body = !request.body.is_end_stream();
        let Request { head, added, mut body, .. } = request;
        let asked = Asked { head, added, has_body, repeatable, is_upgrade };
        let mut refusals = MAX_REFUSALS;
        loop {
            let now = coarse_millis();
            let chosen = self.choose(tries.key, &tries.tried, now).ok_or(SendError::NoServer)?;
            let pool = chosen.pool.clone();
            // A WebSocket needs HTTP/1.1 (RFC 6455), so that is what ALPN offers for it.
            let is_http2 = if is_upgrade && pool.is_tls() {
                Ok(false)
            } else {
                pool.is_http2(allowed, chosen.since).await
            };
            let tried = match is_http2 {
                Ok(true) => self.try_http2(allowed, &chosen, &asked, body, progress).await,
                Ok(false) => self.try_http1(allowed, &chosen, &asked, body, &mut tries, progress).await,
                Err(error) => Tried::NoConnection(error.into(), body),
            };
            match tried {
                Tried::Answered(sent, hinted) => {
                    let status = sent.status();
                    if repeatable && !hinted && self.tries_status_again(status, &chosen, &mut tries) {
                        self.tried(chosen, Some(status));
                        body = B::default();
                        continue;
                    }
                    self.ends(chosen, FAILURES.contains(&status), &tries);
                    asked.head.fields.reuse();
                    return Ok(sent);
                }
                // A server of HTTP/2 alone refuses the protocol of a WebSocket, which is no failure of the server.
                Tried::NoConnection(error, _) if is_upgrade && pool.has_agreed_to_http2() => {
                    return Err(error);
                }
                Tried::NoConnection(error, kept) => {
                    tries.tried.push(pool.endpoint().id);
                    if matches!(error, SendError::NoConnection(ConnectError::Busy)) {
                        return Err(error);
                    }
                    if !self.has_sibling(pool.endpoint(), &tries.tried, coarse_millis()) {
                        if !rules.on_connect || tries.left == 0 {
                            self.ends(chosen, true, &tries);
                            return Err(error);
                        }
                        tries.left -= 1;
                        tries.again = true;
                    }
                    chosen.failed();
                    body = kept;
                }
                Tried::Broken(broken, Some(kept)) if broken.refused && refusals > 0 => {
                    // It is well, and may take the request on another connection. One that goes on refusing is left to others.
                    refusals -= 1;
                    if refusals + 1 < MAX_REFUSALS {
                        tries.tried.push(pool.endpoint().id);
                    }
                    body = kept;
                }
                // All that is wrong with it is that the body is gone.
                Tried::Broken(broken, None) if broken.refused => return Err(broken.into()),
                Tried::Broken(broken, kept) => {
                    tries.tried.push(pool.endpoint().id);
                    let unprocessed = broken.unsent && !is_upgrade;
                    let may = (unprocessed && rules.on_connect)
                        || (broken.headless && repeatable && rules.on_reset);
                    let kept = kept.filter(|_| broken.is_of_the_server() && may);
                    let counts_repeat = !broken.unsent && !self.has_another(&tries.tried, coarse_millis());
                    match kept.filter(|_| self.takes_retry(&mut tries, counts_repeat)) {
                        Some(kept) => body = kept,
                        None => {
                            self.breaks(chosen, &broken, &tries);
                            return Err(broken.into());
                        }
                    }
                    chosen.failed();
                }
            }
        }
    }

    async fn try_http2(
        &self,
        allowed: &impl Allowed,
        chosen: &Chosen<B>,
        asked: &Asked<'_>,
        body: B,
        progress: &impl Progress,
    ) -> Tried<B> {
        let pool = chosen.pool.clone();
        let id = pool.endpoint().id;
        progress.connects(id);
        let (connection, made) = match pool.connect_shared(allowed, chosen.since).await {
            Ok(connected) => connected,
            Err(error) => return Tried::NoConnection(error.into(), body),
        };
        progress.placed(made, id);
        let in_flight = pool.enters();
        let begun = Exchange::begin(&connection, pool.is_tls(), &asked.head, asked.added, body);
        let mut exchange = match begun {
            Ok(exchange) => exchange,
            Err((broken, body)) => return Tried::Broken(broken, Some(body)),
        };
        let mut hinted = false;
        loop {
            match exchange.head().await {
                Ok(Head::Hints(hints)) => {
                    progress.hinted(hints);
                    hinted = true;
                }
                Ok(Head::Final(response)) => {
                    let body = Body::of_exchange(exchange, in_flight, pool);
                    return Tried::Answered(Sent::Response(response, body), hinted);
                }
                // The client has a part of the response.
                Err(broken) if hinted => return Tried::Broken(broken.answered(), None),
                Err(broken) => return Tried::Broken(broken, exchange.into_body()),
            }
        }
    }

    async fn try_http1(
        &self,
        allowed: &impl Allowed,
        chosen: &Chosen<B>,
        asked: &Asked<'_>,
        body: B,
        tries: &mut Tries,
        progress: &impl Progress,
    ) -> Tried<B> {
        let pool = chosen.pool.clone();
        let id = pool.endpoint().id;
        let Asked { head, has_body, repeatable, is_upgrade, .. } = asked;
        // One that rested may turn out closed, and an upgrade is never sent twice.
        let resting = if *is_upgrade { None } else { pool.take(allowed) };
        let made = resting.is_none();
        let mut connection = match resting {
            Some(connection) => connection,
            None => {
                progress.connects(id);
                match pool.connect(allowed, chosen.since).await {
                    Ok(connection) => connection,
                    Err(error) => return Tried::NoConnection(error.into(), body),
                }
            }
        };
        let mut rested = connection.is_used();
        let (mut stale, mut hinted) = (MAX_TRIES, false);
        let fields = head.fields.clone();
        let whole = RequestHead { method: head.method, uri: head.uri, fields };
        connection.begin(whole, asked.added, body);
        connection.counts(Some(pool.enters()));
        progress.placed(made, id);
        loop {
            let outcome = poll_fn(|cx| connection.poll_response(cx)).await;
            // The server has closed the connection while it rested.
            let is_stale = rested
                && stale > 0
                && !hinted
                && match &outcome {
                    Ok(Head::Final(response)) => {
                        is_idle_timeout(response) && tries.repeats_unseen(*repeatable)
                    }
                    Ok(Head::Hints(_)) => false,
                    Err(broken) => broken.may_be_stale(*repeatable, tries),
                };
            if is_stale {
                stale -= 1;
                let request = connection.into_request();
                progress.connects(id);
                connection = match (pool.connect(allowed, coarse_millis() as u32).await, outcome) {
                    (Ok(connection), _) => connection,
                    // Another server may take it, unless its body is gone.
                    (Err(_), Err(broken)) => {
                        tries.owes = false;
                        return Tried::Broken(broken, (!*has_body).then(B::default));
                    }
                    (Err(error), Ok(_)) => return Tried::NoConnection(error.into(), B::default()),
                };
                rested = connection.is_used();
                connection.resume(request);
                connection.counts(Some(pool.enters()));
                continue;
            }
            match outcome {
                Ok(Head::Hints(hints)) => {
                    progress.hinted(hints);
                    hinted = true;
                }
                Ok(Head::Final(response)) if response.status == StatusCode::SWITCHING_PROTOCOLS => {
                    return Tried::Answered(Sent::Switched(response, connection), hinted);
                }
                Ok(Head::Final(response)) => {
                    return Tried::Answered(Sent::Response(response, Body::new(connection, pool)), hinted);
                }
                Err(broken) => {
                    // One without a body can be asked for again.
                    let kept = (!*has_body).then(B::default);
                    return Tried::Broken(broken, kept);
                }
            }
        }
    }
}
