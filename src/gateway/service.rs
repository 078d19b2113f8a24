//! The life of a request.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Instant};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, uri::PathAndQuery,
};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};

use super::{
    body::{AnswerBody, BodyBounds, RequestBody},
    client::{self, Peer},
    cors::{self, Shared},
    exchange::Exchange,
    forward::{self, Forwarded},
    headers::{Headers, Injected, REQUEST_ID, clean_answer},
    own::{OwnCall, OwnCalls},
    refusal::{Refusal, request_id},
    respond::respond,
    tunnel::{self, Opening, UPGRADE, WEBSOCKET},
};
use crate::{
    access::{Access, Credential, Permit},
    config::{self, Action, Config, Cors},
    error::{Kind, Statuses},
    route::{Match, Route, Table},
    telemetry::{ACCESS_TARGET, MethodLabel, Metrics, RequestLabels},
    types::path,
    upstream::{Connection, Pool, Upstream},
};

/// Everything that requests are served by and that workers share. It never changes while it is in
/// use: a change of the config makes another one.
pub struct Gateway {
    pub(super) limits: config::Limits,
    pub(super) trusted_proxies: Vec<ipnet::IpNet>,
    routes: Table,
    headers: Headers,
    access: Arc<Access>,
    own_calls: Arc<dyn OwnCalls>,
    upstreams: Vec<Arc<Upstream>>,
    metrics: Arc<Metrics>,
    access_log: bool,
    statuses: Statuses,
    /// For the calls below `auth.path`.
    cors: Option<Cors>,
}

impl Gateway {
    /// Puts together what requests are served by.
    pub fn new(
        config: &Config,
        routes: Table,
        access: Access,
        own_calls: Arc<dyn OwnCalls>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let upstreams = config.upstreams.iter().zip(0..);
        Self {
            limits: config.limits,
            trusted_proxies: config.trusted_proxies.clone(),
            routes,
            headers: Headers::new(config.identity_headers.clone()),
            access: Arc::new(access),
            own_calls,
            upstreams: upstreams
                .map(|(config, index)| Arc::new(Upstream { config: config.clone(), index }))
                .collect(),
            metrics,
            access_log: config.log.access,
            statuses: config.auth.compat.statuses,
            cors: config.auth.cors.clone(),
        }
    }

    /// The rules for other origins of what a request meets, and its label.
    fn cors_of<'a>(&'a self, found: Match<'a>) -> Option<((u32, &'a str), &'a Cors)> {
        match found {
            Match::Owned => self.cors.as_ref().map(|cors| (OWN, cors)),
            Match::Route(route) => {
                route.config.cors.as_ref().map(|cors| ((route.index, route.label.as_str()), cors))
            }
            Match::WrongMethod(_) | Match::None => None,
        }
    }

    /// What decides.
    pub(super) fn access(&self) -> &Arc<Access> {
        &self.access
    }

    /// Empty pools for one of `workers` workers, in the order of the upstreams.
    pub(super) fn pools(&self, workers: usize) -> Vec<Arc<Pool<RequestBody>>> {
        self.upstreams.iter().map(|upstream| Arc::new(Pool::new(upstream.clone(), workers))).collect()
    }
}

/// What a request meets on one connection of one worker.
pub(super) struct Context<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) pools: &'a [Arc<Pool<RequestBody>>],
    pub(super) peer: &'a Peer,
    pub(super) exchange: &'a Arc<Exchange>,
}

/// The label of requests that met no route.
const NO_ROUTE: (u32, &str) = (u32::MAX, "none");
/// The label of calls below `auth.path`.
const OWN: (u32, &str) = (u32::MAX - 1, "auth");

/// What the log says of a request beside its answer.
struct Trace<'a> {
    route: (u32, &'a str),
    permit: Option<Permit>,
    /// When it began, if it goes on to an upstream, and to which.
    sent: Option<(Instant, &'a Upstream)>,
    /// What a page of another origin may do with the answer.
    shared: Option<Shared<'a>>,
}

impl Context<'_> {
    /// Answers a request.
    pub(super) async fn serve(&self, request: Request<Incoming>) -> Response<AnswerBody> {
        let begun = Instant::now();
        let gateway = self.gateway;
        // Until a route says otherwise; set first, so that nothing is ever without a deadline.
        self.exchange.request_begins(gateway.limits.request_timeout);
        let method = request.method().clone();
        let request_id = request_id();
        let logged_path = gateway.access_log.then(|| request.uri().path().to_owned());
        let mut trace = Trace { route: NO_ROUTE, permit: None, sent: None, shared: None };
        let mut response = match self.decide(begun, request, &request_id, &mut trace).await {
            Ok(response) => response,
            Err(refusal) => {
                gateway.metrics.denied(refusal.reason());
                tracing::debug!(request.id = ?request_id, reason = refusal.reason(), "denied");
                refusal
                    .answer(&request_id, &gateway.statuses)
                    .map(|body| AnswerBody::whole(body, self.exchange))
            }
        };
        if let Some(shared) = &trace.shared {
            shared.apply(response.headers_mut());
        }
        response.headers_mut().insert(&REQUEST_ID, request_id.clone());
        if self.exchange.body_is_open() {
            // An answer before the end of the request: the rest of it may never be read.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.exchange.answer_begins();
        let answered = Instant::now();
        let took = answered - begun;
        if let Some((sent, upstream)) = trace.sent {
            gateway.metrics.upstream(upstream.index, &upstream.config.name, answered - sent);
        }
        let status = response.status();
        gateway.metrics.request(
            RequestLabels {
                route_index: trace.route.0,
                route: trace.route.1,
                method: MethodLabel::of(&method),
                status: status.as_u16(),
            },
            took,
        );
        if let Some(path) = logged_path {
            self.log(&method, &path, status, took, &request_id, &trace);
        }
        if let Some(permit) = trace.permit {
            response.body_mut().lives_by(permit);
        }
        response
    }

    fn log(
        &self,
        method: &Method,
        path: &str,
        status: StatusCode,
        took: std::time::Duration,
        request_id: &HeaderValue,
        trace: &Trace<'_>,
    ) {
        let identity = trace.permit.as_ref().and_then(Permit::identity);
        tracing::info!(
            target: ACCESS_TARGET,
            {
            client.address = %self.peer.address(),
            http.method = method.as_str(),
            http.path = path,
            http.status = status.as_u16(),
            http.route = trace.route.1,
            duration_us = took.as_micros() as u64,
            user.id = identity.map(|identity| identity.user.to_string()),
            request.id = request_id.to_str().unwrap_or_default(),
            },
            "request"
        );
    }

    async fn decide<'a>(
        &'a self,
        begun: Instant,
        mut request: Request<Incoming>,
        request_id: &HeaderValue,
        trace: &mut Trace<'a>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let gateway = self.gateway;
        if let Some(asked) = cors::asked_method(&request)
            && let Some((route, cors)) = gateway.cors_of(find(&gateway.routes, &request, &asked)?.0)
        {
            trace.route = route;
            let answer = cors::answer_preflight(cors, request.headers(), &asked);
            return Ok(answer.map(|body| AnswerBody::whole(body, self.exchange)));
        }
        let (found, rewritten) = find(&gateway.routes, &request, request.method())?;
        if let Some(rewritten) = rewritten {
            *request.uri_mut() = rewritten;
        }
        match found {
            Match::Owned => {
                trace.route = OWN;
                trace.shared = gateway.cors.as_ref().map(|cors| Shared::of(cors, request.headers()));
                self.call_own(request, request_id).await
            }
            Match::None => Err(Kind::NotFound.into()),
            Match::WrongMethod(allow) => Err(Refusal::wrong_method(allow)),
            Match::Route(route) => {
                trace.route = (route.index, &route.label);
                if let Some(cors) = &route.config.cors {
                    trace.shared = Some(Shared::of(cors, request.headers()));
                }
                let credential = Credential::of(request.headers());
                let permit =
                    gateway.access.decide(&route.config.access, route.config.on_stale, credential)?;
                let permit = trace.permit.insert(permit);
                if let Action::Forward(index) = route.config.action {
                    // What lies between is a microsecond; reading the clock again would only add to it.
                    trace.sent = Some((begun, self.pools[index].upstream()));
                }
                self.perform(route, permit, request, request_id).await
            }
        }
    }

    /// Does what a route says with a request that is allowed.
    async fn perform(
        &self,
        route: &Route,
        permit: &Permit,
        mut request: Request<Incoming>,
        request_id: &HeaderValue,
    ) -> Result<Response<AnswerBody>, Refusal> {
        if request.body().size_hint().lower() > route.config.body {
            return Err(Kind::BodyTooLarge.into());
        }
        let identity = permit.identity().map(AsRef::as_ref);
        let pool = match &route.config.action {
            Action::Respond { status, json } => {
                let response = respond(*status, json, identity);
                return Ok(response.map(|body| AnswerBody::whole(body, self.exchange)));
            }
            Action::Forward(index) => &self.pools[*index],
        };
        let forwarded = client::Forwarded::of(self.peer, request.headers(), &self.gateway.trusted_proxies);
        let upgrade = tunnel::is_asked(&request);
        let headers = &self.gateway.headers;
        headers.strip(request.headers_mut(), route.config.forward_token, self.peer.is_trusted());
        if !request.headers().contains_key(header::HOST)
            && let Ok(host) = HeaderValue::try_from(pool.upstream().config.authority.as_str())
        {
            // HTTP/1.0 may come without.
            request.headers_mut().insert(header::HOST, host);
        }
        let bounds = BodyBounds {
            limit: route.config.body,
            due: self.exchange.moment(route.config.timeout),
            min_rate: self.gateway.limits.body_min_rate,
            response_timeout: forward::response_timeout(pool),
        };
        let request = request.map(|body| RequestBody::new(body, self.exchange, bounds, Some(permit)));
        let to_head = request.method() == Method::HEAD;
        let host = request.headers().get(header::HOST).cloned();
        let injected = Injected { identity, forwarded: &forwarded, request_id, host: host.as_ref(), upgrade };
        let added = headers.added(&injected);
        match forward::forward(permit, pool, request, added.lines(), self.exchange).await? {
            Forwarded::Answer(mut response) => {
                clean_answer(response.headers_mut(), to_head);
                Ok(response)
            }
            Forwarded::Switched(head, connection) => self.switch(permit, head, *connection).await,
        }
    }

    /// Makes a tunnel of the connection, if the permit still holds.
    async fn switch(
        &self,
        permit: &Permit,
        head: Response<()>,
        connection: Connection<RequestBody>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let registration = self.gateway.access.watch(permit, &task)?;
        let (upstream, early) = connection.into_socket();
        self.exchange.becomes(Opening { upstream, early, registration });
        let mut response = head.map(|()| AnswerBody::whole(Bytes::new(), self.exchange));
        let headers = response.headers_mut();
        clean_answer(headers, false);
        headers.remove(header::CONTENT_LENGTH);
        headers.insert(header::CONNECTION, UPGRADE.clone());
        headers.insert(header::UPGRADE, WEBSOCKET.clone());
        Ok(response)
    }

    /// Reads a call's whole body and hands it over.
    async fn call_own(
        &self,
        mut request: Request<Incoming>,
        request_id: &HeaderValue,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let own_calls = &self.gateway.own_calls;
        if request.body().size_hint().lower() > own_calls.max_body() {
            return Err(Kind::BodyTooLarge.into());
        }
        let client =
            client::Forwarded::of(self.peer, request.headers(), &self.gateway.trusted_proxies).client;
        let timeout = self.gateway.limits.request_timeout;
        let bounds = BodyBounds {
            limit: own_calls.max_body(),
            due: self.exchange.moment(timeout),
            min_rate: self.gateway.limits.body_min_rate,
            response_timeout: timeout,
        };
        let decoded = path::canonical(request.uri().path()).map_err(|_| Kind::BadRequest)?.decoded;
        let path = PathAndQuery::try_from(decoded.as_ref()).map_err(|_| Kind::NotFound)?;
        *request.uri_mut() = path.into();
        let (head, incoming) = request.into_parts();
        let body = collect(RequestBody::new(incoming, self.exchange, bounds, None), self.exchange).await?;
        let call =
            OwnCall { request: Request::from_parts(head, body), client, request_id: request_id.clone() };
        let answered = forward::in_time(self.exchange, own_calls.call(call)).await;
        let response = answered.ok_or(Kind::Unavailable)?;
        Ok(response.map(|body| AnswerBody::whole(body, self.exchange)))
    }
}

async fn collect(body: RequestBody, exchange: &Exchange) -> Result<Bytes, Kind> {
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(_) => Err(exchange.body_failure().unwrap_or(Kind::BadRequest)),
    }
}

/// Checks what names the target (one host, however it is said, and a canonical path) and finds
/// what takes it; with the target as it is forwarded, when that is not how it came.
fn find<'a>(
    routes: &'a Table,
    request: &Request<Incoming>,
    method: &Method,
) -> Result<(Match<'a>, Option<Uri>), Kind> {
    if request.method() == Method::CONNECT {
        return Err(Kind::BadRequest);
    }
    let host = single_host(request.headers(), request.version())?;
    let uri = request.uri();
    if let Some(authority) = uri.authority() {
        // Absolute form (RFC 9112, section 3.2.2): two names for one host must be the same.
        let same = host.is_some_and(|host| host.eq_ignore_ascii_case(authority.as_str()));
        if !same || uri.scheme_str() != Some("http") {
            return Err(Kind::BadRequest);
        }
    }
    let path = path::canonical(uri.path()).map_err(|_| Kind::BadRequest)?;
    let as_it_came = uri.authority().is_none() && path.wire == uri.path();
    let rewritten = if as_it_came {
        None
    } else {
        let target = match uri.query() {
            Some(query) => format!("{}?{query}", path.wire),
            None => path.wire.to_string(),
        };
        Some(PathAndQuery::try_from(target).map_err(|_| Kind::BadRequest)?.into())
    };
    let host = host.filter(|_| routes.knows_hosts()).map(host_name);
    Ok((routes.find(host.as_deref(), method, &path.decoded), rewritten))
}

/// The value of the one `Host` (RFC 9112, section 3.2); HTTP/1.0 may come without.
fn single_host(headers: &HeaderMap, version: Version) -> Result<Option<&str>, Kind> {
    let mut values = headers.get_all(header::HOST).iter();
    let Some(value) = values.next() else {
        return if version == Version::HTTP_10 { Ok(None) } else { Err(Kind::BadRequest) };
    };
    if values.next().is_some() {
        return Err(Kind::BadRequest);
    }
    let host = value.to_str().map_err(|_| Kind::BadRequest)?;
    if is_host(host) { Ok(Some(host)) } else { Err(Kind::BadRequest) }
}

/// A name or address with an optional port: no userinfo, no list, no path.
fn is_host(host: &str) -> bool {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((address, port)) if address.parse::<std::net::Ipv6Addr>().is_ok() => ("v6", port),
            _ => return false,
        },
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    let port = port.strip_prefix(':').unwrap_or(port);
    !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte))
        && port.len() <= 5
        && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// The name that routes are compared with: in lower case, without port and final dot.
fn host_name(host: &str) -> String {
    let end = if host.starts_with('[') {
        host.find(']').map_or(host.len(), |end| end + 1)
    } else {
        host.find(':').unwrap_or(host.len())
    };
    let name = &host[..end];
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_and_a_port_and_nothing_else() {
        for (host, name) in [
            ("a.Example.com", "a.example.com"),
            ("a:8080", "a"),
            ("a.:80", "a"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:80", "[::1]"),
        ] {
            assert!(is_host(host), "{host}");
            assert_eq!(host_name(host), name);
        }
        for host in
            ["", ":80", "u@a", "a b", "a,b", "a/b", "a:b", "a:1:2", "[::1", "[x]", "a?b", "a\\b", "a:999999"]
        {
            assert!(!is_host(host), "{host}");
        }
    }
}
