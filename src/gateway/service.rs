//! The life of a request.

use std::{
    future::{Future, poll_fn},
    mem,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::Poll,
    time::Instant,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::Body;

use super::{
    acme_challenge,
    activity::Opening,
    call::announced,
    client, cookies, cors,
    forward::{self, Forwarding, Outcome, SentAfter},
    grpc,
    headers::{METHOD_OVERRIDES, REQUEST_ID, clean_response},
    message::{ClientRequest, ClientResponse},
    method,
    navigation::{Navigation, is_program},
    rate_limits::{Asker, RATE_LIMIT, RATE_LIMIT_POLICY, Told},
    record::Record,
    refusal::Refusal,
    request_body::RequestBody,
    request_head::RequestHead,
    request_target,
    respond::respond,
    response_body::ResponseBody,
    security_headers,
    snapshot::{BUILTIN, NO_ROUTE, Snapshot},
    state::ConnectionState,
    target::Target,
    tunnel::{UPGRADE, WEBSOCKET},
    verify,
    view::View,
};
use crate::{
    access::{Access, Lease, Permit},
    config::Action,
    error::Kind,
    route::{Match, Route},
    telemetry::{MethodLabel, RequestLabels},
    token::CookieChange,
    upstream::{Connection, ResponseHead},
};

/// Of a request that was sent to no upstream.
const NO_UPSTREAM: u32 = u32::MAX;

/// Of a request that another proxy may forward. No browser gets the response.
const OTHER_PROXY: u32 = u32::MAX - 1;

/// The data of a request for metrics and the access log.
struct Trace<'a> {
    request_id: HeaderValue,
    route: u32,
    /// The index of its upstream, or [`NO_UPSTREAM`], or [`OTHER_PROXY`].
    upstream: u32,
    sent: SentAfter,
    /// Its entry for the access log.
    record: Option<Box<Record>>,
    /// The CORS headers for its response.
    sharing: Option<cors::Sharing<'a>>,
    /// What the client is told of the route's rate limits.
    limited: Option<Told<'a>>,
    /// What most requests have nothing of.
    rare: Option<Box<Rare>>,
}

/// What few requests have. It lies beside their future, which is to stay small for all of them.
#[derive(Default)]
struct Rare {
    /// The navigation that the request is.
    navigation: Option<Navigation>,
    /// What becomes of the caller's cookie.
    cookie: Option<CookieChange>,
}

impl Trace<'_> {
    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// Notes why the request is denied.
    fn denied(&mut self, snapshot: &Snapshot, reason: &'static str) {
        snapshot.services.metrics.denied(reason);
        tracing::debug!(request.id = ?self.request_id, reason, "denied");
        if let Some(record) = &mut self.record {
            record.is_denied(reason);
        }
    }

    fn set_route(&mut self, index: u32) {
        self.route = index;
        if let Some(record) = &mut self.record {
            record.route = index;
        }
    }
}

impl ConnectionState {
    /// Handles a request.
    ///
    /// The request stays where it is in memory and is passed on by reference: the future lies in the connection, and every
    /// byte of it is touched at each request.
    #[expect(
        clippy::manual_async_fn,
        reason = "an argument that such a function takes by value is stored twice"
    )]
    pub(super) fn serve(
        self: Arc<Self>,
        mut request: ClientRequest,
    ) -> impl Future<Output = ClientResponse> + Send {
        async move {
            let response = self.respond(&mut request).await;
            // Unless they went to an upstream.
            mem::take(&mut request.head.fields).reuse();
            response
        }
    }

    async fn respond(&self, request: &mut ClientRequest) -> ClientResponse {
        let begun = Instant::now();
        // Taken once: whatever the config becomes meanwhile, one snapshot judges and serves the request.
        let view = &self.views.get();
        let snapshot = &*view.snapshot;
        // Until a route says otherwise; set first, so that nothing is ever without a deadline.
        self.exchange.begins(snapshot.limits.request_timeout, request.body.is_some());
        self.judged.forget();
        let method = request.head.method.clone();
        let old = request.head.version == Version::HTTP_10;
        let is_trusted = self.peer.is_trusted(&snapshot.trusted_proxies);
        let (request_id, sampled) = snapshot.tracing.begin(&mut request.head.fields, is_trusted);
        let origin =
            client::Forwarded::of(&self.peer, &request.head.fields, self.scheme(), &snapshot.trusted_proxies);
        let client = origin.as_ref().map_or(self.peer.address(), |origin| origin.client);
        let sent = SentAfter::new(begun, sampled.as_ref().map(|sampled| sampled.tries.clone()));
        let mut trace = Trace {
            record: Record::of(view, self, client, &request.head, &request_id, sampled, begun),
            request_id,
            route: NO_ROUTE,
            upstream: NO_UPSTREAM,
            sent,
            sharing: None,
            limited: None,
            rare: None,
        };
        if let Some(navigation) = Navigation::of(snapshot, &request.head) {
            trace.rare().navigation = Some(navigation);
        }
        // What another proxy is told is told by the status, whatever it asks for.
        let is_grpc = grpc::is_call(&request.head) && !snapshot.may_be_verify(request.head.uri.path());
        let decided = match (request.refused, &origin) {
            (Some(kind), _) => Err(kind.into()),
            (None, Ok(origin)) => self.decide(view, request, origin, &mut trace).await,
            // Whatever is wrong with what another proxy asks about, it is to refuse.
            (None, Err(_)) if snapshot.may_be_verify(request.head.uri.path()) => {
                Err(Kind::InsufficientRole.into())
            }
            (None, Err(kind)) => Err((*kind).into()),
        };
        let is_own = decided.is_err() || trace.upstream == NO_UPSTREAM;
        let mut response = match decided {
            Ok(response) => response,
            Err(refusal) => {
                trace.denied(snapshot, refusal.reason());
                let navigation = trace.rare.as_ref().and_then(|rare| rare.navigation.as_ref());
                let target = request.head.uri.path_and_query().map(|target| target.as_str());
                let page = navigation.and_then(|page| {
                    let is_program = is_program(snapshot, &request.head.method, &request.head.fields);
                    page.refused(&refusal, target, is_program, &trace.request_id, &snapshot.statuses)
                });
                let response = match page {
                    Some(page) => page,
                    None if is_grpc => grpc::refusal(refusal.kind()),
                    None => refusal.response(&trace.request_id, &snapshot.statuses),
                };
                ClientResponse::whole(&response, &self.exchange)
            }
        };
        if is_own && snapshot.security_headers && !is_grpc {
            security_headers::add(&mut response.fields, self.secured.is_some());
        }
        if let Some(sharing) = &trace.sharing {
            sharing.apply(&mut response.fields);
        }
        if let Some(change) = trace.rare.take().and_then(|rare| rare.cookie)
            && let Some(cookie) = Box::pin(snapshot.access.set_cookie(change)).await
        {
            cookies::set(cookie, trace.sent.begun, &mut response.fields);
        }
        if let Some(limited) = trace.limited.take() {
            // All names in one pass over the lines.
            response
                .fields
                .retain(|name| *name != RATE_LIMIT_POLICY && *name != RATE_LIMIT && *name != REQUEST_ID);
            limited.write(&mut self.exchange.limit_lines());
        } else {
            response.fields.remove(&REQUEST_ID);
        }
        response.fields.append(REQUEST_ID.clone(), trace.request_id.clone());
        if self.exchange.body_is_open() || (old && response.body.size_hint().exact().is_none()) {
            // HTTP/1.0 knows the end of a body without a length by the end of the connection; and what is left
            // of a request may never be read.
            response.fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        self.exchange.response_begins();
        account_for(view, trace, &method, &mut response);
        response
    }

    /// Asks the issuer of a request's token for what is missing for a decision, and decides once more. Boxed, since few tokens need
    /// it, and the future of a request is to stay small.
    fn settle<'s, 'a: 's>(
        &'s self,
        view: &'a View,
        request: &'s mut ClientRequest,
        origin: &'s client::Forwarded,
        trace: &'s mut Trace<'a>,
    ) -> Pin<Box<dyn Future<Output = Result<ClientResponse, Refusal>> + Send + 's>> {
        Box::pin(async move {
            let credential = view.snapshot.credential(&request.head.method, &request.head.fields);
            let settled = view.snapshot.access.settle(credential, origin.client);
            forward::in_time(&self.exchange, settled).await.ok_or(Kind::Unavailable)??;
            self.decide(view, request, origin, trace).await
        })
    }

    async fn decide<'a>(
        &self,
        view: &'a View,
        request: &mut ClientRequest,
        origin: &client::Forwarded,
        trace: &mut Trace<'a>,
    ) -> Result<ClientResponse, Refusal> {
        let snapshot = &*view.snapshot;
        let (ext_authz, redirect) = {
            // Read once, and no part of the future, which is to stay small.
            let config = &self.listener.current().config;
            (config.ext_authz, config.redirect)
        };
        if ext_authz {
            trace.set_route(BUILTIN);
            // Whoever asks is another proxy, which may call this one as it likes; but it must be one that may connect today.
            if self.listener.is_outdated()
                || self.secured.as_ref().is_some_and(|secured| !secured.is_accepted())
            {
                return Err(Kind::MisdirectedRequest.into());
            }
            let Trace { sent, request_id, record, .. } = trace;
            // Boxed: it is another way, and this future is to stay small.
            return Box::pin(self.check(snapshot, request, sent.begun, request_id, record.as_deref_mut()))
                .await;
        }
        let ClientRequest { head, .. } = request;
        if snapshot.services.challenges.is_pending()
            && let Some(proof) = acme_challenge::response(&snapshot.services.challenges, head)
        {
            return Ok(ClientResponse::whole(&proof, &self.exchange));
        }
        method::check(&head.method, &snapshot.routes)?;
        if ends_here(snapshot, head)? {
            return Ok(ClientResponse::whole(&options(), &self.exchange));
        }
        let target = request_target::read(head, self.scheme(), snapshot.keeps_encoded)?;
        if self.listener.is_outdated() {
            return Err(Kind::MisdirectedRequest.into());
        }
        if let Some(secured) = &self.secured
            && (!secured.is_accepted() || target.host.is_some_and(|host| !secured.covers(host)))
        {
            return Err(Kind::MisdirectedRequest.into());
        }
        if let Some(port) = redirect {
            let location = target.by_https(port)?;
            return Ok(self.redirect(StatusCode::PERMANENT_REDIRECT, location));
        }
        if let Some(asked) = asked_before(snapshot, head)
            && let Some((route, cors)) = snapshot.cors_of(target.find(&snapshot.routes, &asked)?)
        {
            trace.set_route(route);
            let response = cors::preflight_response(cors, &head.fields, &asked);
            return Ok(ClientResponse::whole(&response, &self.exchange));
        }
        match target.find(&snapshot.routes, &head.method)? {
            // Some ask by the method of the request that they ask about.
            Match::Builtin | Match::WrongMethod(_) if self.asks(snapshot, &target, head) => {
                trace.set_route(BUILTIN);
                let is_trusted = self.peer.is_trusted(&snapshot.trusted_proxies);
                let begun = trace.sent.begun;
                let limits = &mut |told| trace.limited = Some(told);
                match verify::verify(snapshot, head, is_trusted, origin, begun, limits) {
                    Ok((fields, cookie)) => {
                        if cookie.is_some() {
                            trace.rare().cookie = cookie;
                        }
                        trace.upstream = OTHER_PROXY;
                        let body = ResponseBody::whole(Bytes::new(), &self.exchange);
                        Ok(ClientResponse { status: StatusCode::OK, fields, body })
                    }
                    Err(refusal) => {
                        drop(target);
                        if let Some(login) = verify::login(snapshot, head, is_trusted, &refusal) {
                            trace.denied(snapshot, refusal.reason());
                            return Ok(ClientResponse::whole(&login, &self.exchange));
                        }
                        if !refusal.is_unsettled() || !self.exchange.settles() {
                            return Err(refusal);
                        }
                        drop(refusal);
                        self.settle(view, request, origin, trace).await
                    }
                }
            }
            Match::Builtin => {
                trace.set_route(BUILTIN);
                trace.sharing = snapshot.cors.as_ref().map(|cors| cors::Sharing::of(cors, &head.fields));
                let as_read = target.decoded()?;
                head.uri = as_read;
                // Boxed: these calls are rare, and this future is large.
                Box::pin(self.call_builtin(view, request, origin.client, &trace.request_id)).await
            }
            Match::None => Err(Kind::NotFound.into()),
            Match::WrongMethod(allow) => Err(Refusal::wrong_method(allow)),
            Match::Route(route) => {
                trace.set_route(route.index);
                if let Some(cors) = &route.config.cors {
                    trace.sharing = Some(cors::Sharing::of(cors, &head.fields));
                }
                let place = target.place(Some(origin.client));
                let set = |change| trace.rare().cookie = Some(change);
                let permit = match cookies::permit(snapshot, route, head, place, set) {
                    Ok(permit) => permit,
                    Err(denied) => {
                        drop(target);
                        if denied.is_unsettled() && self.exchange.settles() {
                            return self.settle(view, request, origin, trace).await;
                        }
                        return Err(denied.into());
                    }
                };
                if route.config.method_override
                    && let Err(refusal) = decide_overrides(snapshot, &target, head, origin.client)
                {
                    drop((target, permit));
                    if !refusal.is_unsettled() || !self.exchange.settles() {
                        return Err(refusal);
                    }
                    drop(refusal);
                    return self.settle(view, request, origin, trace).await;
                }
                let rewritten = target.forwarded(&head.uri)?;
                // Its readings may be large, and the response may take long.
                drop(target);
                if let (Some(record), Some(principal)) = (&mut trace.record, permit.principal()) {
                    record.set_caller(principal);
                }
                if let Some(record) = &mut trace.record {
                    record.is_decided();
                }
                {
                    // No part of the future, which is to stay small.
                    if let Some(principal) = permit.principal() {
                        self.judged.has_caller(principal);
                    }
                    let principal = permit.principal().map(AsRef::as_ref);
                    let asker = Asker { principal, client: origin.client, fields: &head.fields };
                    let begun = trace.sent.begun;
                    let limits = &mut |told| trace.limited = Some(told);
                    snapshot.take_from_limits(route.index, &asker, begun, limits)?;
                }
                if let Some(rewritten) = rewritten {
                    head.uri = rewritten;
                }
                let mut response = self.perform(view, route, permit, origin, trace, request).await?;
                route.config.response_headers.apply(&mut response.fields);
                Ok(response)
            }
        }
    }

    /// Returns whether another proxy asks here about a request.
    fn asks(&self, snapshot: &Snapshot, target: &Target<'_>, head: &RequestHead) -> bool {
        let is_usual = head.method == Method::GET || head.method == Method::HEAD;
        snapshot.is_verify(&target.path.decoded)
            && (is_usual || self.peer.is_trusted(&snapshot.trusted_proxies))
    }

    /// Performs the action of a route for an allowed request.
    async fn perform(
        &self,
        view: &View,
        route: &Route,
        permit: Permit,
        origin: &client::Forwarded,
        trace: &mut Trace<'_>,
        request: &mut ClientRequest,
    ) -> Result<ClientResponse, Refusal> {
        if announced(request) > route.config.body {
            return Err(Kind::BodyTooLarge.into());
        }
        let index = match &route.config.action {
            Action::Respond { status, json } => {
                let response = respond(*status, json, permit.principal().map(AsRef::as_ref));
                return Ok(ClientResponse::whole(&response, &self.exchange));
            }
            Action::Redirect(redirect) => {
                let uri = &request.head.uri;
                return Ok(self.redirect(redirect.status, redirect.location(uri.path(), uri.query())));
            }
            Action::Forward(index) => *index,
        };
        let has_body = request.body.is_some();
        self.judged.allowed(&view.snapshot, &route.config, &mut request.head, has_body);
        if let Some(idle) = route.config.idle_timeout {
            self.exchange.may_pause_for(idle);
        }
        trace.upstream = u32::try_from(index).unwrap_or(NO_UPSTREAM);
        if let Some(record) = &mut trace.record {
            record.upstream = Some(index);
        }
        let forwarding = Forwarding {
            snapshot: &view.snapshot,
            route: &route.config,
            client: &view.clients[index],
            state: self,
            origin,
            request_id: &trace.request_id,
            sent: &trace.sent,
        };
        match forwarding.forward(permit, request).await? {
            Outcome::Response(response) => Ok(response),
            Outcome::Switched(head, connection, lease) => {
                let switched =
                    Box::pin(self.switch(&view.snapshot.access, &lease, head, *connection)).await?;
                if let Some(idle) = route.config.idle_timeout {
                    self.activity.may_idle_for(idle);
                }
                Ok(switched)
            }
        }
    }

    /// Returns the response that sends a client to `location`, which is visible ASCII as hosts, canonical paths and forwarded
    /// queries are.
    fn redirect(&self, status: StatusCode, location: String) -> ClientResponse {
        let mut response = Response::new(Bytes::new());
        *response.status_mut() = status;
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        ClientResponse::whole(&response, &self.exchange)
    }

    /// Turns the connection into a tunnel if the lease is still valid.
    async fn switch(
        &self,
        access: &Access,
        lease: &Lease,
        head: ResponseHead,
        connection: Connection<RequestBody>,
    ) -> Result<ClientResponse, Refusal> {
        let task = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let registration = access.watch(lease, &task)?;
        self.exchange.becomes_tunnel();
        let (upstream, early, counted) = connection.into_socket();
        self.activity.becomes(Opening { upstream, early, registration, counted });
        let ResponseHead { status, mut fields, .. } = head;
        clean_response(&mut fields);
        fields.remove(&header::CONTENT_LENGTH);
        fields.append(header::CONNECTION, UPGRADE.clone());
        fields.append(header::UPGRADE, WEBSOCKET.clone());
        Ok(ClientResponse { status, fields, body: ResponseBody::whole(Bytes::new(), &self.exchange) })
    }
}

/// Records the metrics of a request whose response's head is ready. The body writes the access log entry at its end.
fn account_for(view: &View, mut trace: Trace<'_>, method: &Method, response: &mut ClientResponse) {
    let took = trace.sent.begun.elapsed();
    let waited = trace.sent.get().map(|sent| took.saturating_sub(sent));
    let upstream = Some(trace.upstream as usize).filter(|_| trace.upstream < OTHER_PROXY);
    if let (Some(upstream), Some(waited)) = (upstream, waited) {
        view.meters.upstream(upstream, waited);
    }
    let status = response.status.as_u16();
    let labels = RequestLabels {
        route_index: trace.route,
        route: view.snapshot.route_label(trace.route),
        method: MethodLabel::of(method),
        status,
    };
    view.meters.request(labels, took);
    if let Some(record) = &mut trace.record {
        record.status = status;
        record.waited = waited;
        if let Some(cluster) = upstream.and_then(|index| view.snapshot.upstreams().get(index)) {
            cluster.with_server(trace.sent.server(), |server| record.set_server(server));
        }
    }
    response.body.leaves(trace.record);
}

/// Checks that a request is also allowed with the method that its override headers name.
fn decide_overrides(
    snapshot: &Snapshot,
    target: &Target<'_>,
    request: &RequestHead,
    client: IpAddr,
) -> Result<(), Refusal> {
    let overrides = request.fields.iter().filter(|(name, _)| METHOD_OVERRIDES.contains(&name.as_str()));
    for (_, value) in overrides {
        let upper = value.as_bytes().to_ascii_uppercase();
        let method = Method::from_bytes(&upper).map_err(|_| Kind::BadRequest)?;
        match target.find(&snapshot.routes, &method)? {
            Match::Route(route) => {
                // By this method a cookie may need more to be taken.
                let credential = snapshot.credential(&method, &request.fields);
                let (access, on_stale) = (&route.config.access, route.config.on_stale);
                snapshot.access.decide(access, on_stale, credential, target.place(Some(client)))?;
            }
            Match::WrongMethod(allow) => return Err(Refusal::wrong_method(allow)),
            Match::Builtin | Match::None => return Err(Kind::NotFound.into()),
        }
    }
    Ok(())
}

/// Returns whether a request is answered without a decision, as one about the gateway itself is. A success that nobody has decided
/// would let a request of another proxy pass.
fn ends_here(snapshot: &Snapshot, head: &RequestHead) -> Result<bool, Kind> {
    let is_own = request_target::is_server_wide(head)?;
    Ok(is_own || (method::ends_here(head)? && !snapshot.may_be_verify(head.uri.path())))
}

/// Returns the method that a page of another origin asks about, before it sends a request.
fn asked_before(snapshot: &Snapshot, head: &RequestHead) -> Option<Method> {
    cors::asked_method(head).filter(|_| !snapshot.may_be_verify(head.uri.path()))
}

/// Returns the response to `OPTIONS *` and to a request whose `Max-Forwards` is 0 (RFC 9110, sections 9.3.7 and 7.6.2).
fn options() -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<A, B, F>(_: fn(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_future_of_a_request_stays_small() {
        // It lies in the connection, and each request writes and reads it. An argument that an async function takes by value
        // is stored twice.
        let size = size_of_future(ConnectionState::serve);
        assert!(size <= 2_300, "{size} bytes");
    }
}
