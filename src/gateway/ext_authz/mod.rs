//! Deciding for Envoy by gRPC: `envoy.service.auth.v3.Authorization/Check`, on a listener of its own.
//!
//! Whoever may connect to that listener is Envoy, or passes for it: peers in `trusted_proxies`, and on this machine. Envoy tells of the
//! request as it came; the routes decide, as at `/auth/verify`. An allowed request gets the identity headers, and loses what its client
//! said in their place, and its token.

mod message;

use std::{net::IpAddr, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body_util::BodyExt;
use prost::Message;

use self::message::{
    CheckRequest, CheckResponse, DeniedHttpResponse, HeaderValueOption, HttpRequest, HttpResponse,
    HttpStatus, OkHttpResponse, RpcStatus,
};
use super::{
    client, forward, grpc,
    message::{ClientRequest, ClientResponse},
    own_cookies,
    rate_limits::{LimitLines, Told},
    record::Record,
    refusal::Refusal,
    request_body::{BodyBounds, RequestBody},
    request_head::RequestHead,
    response_body::ResponseBody,
    snapshot::Snapshot,
    state::ConnectionState,
    target::Scheme,
    verify::{self, Asked},
};
use crate::{
    access::shows_api_key,
    config,
    error::Kind,
    token::CookieChange,
    types::{fields::Fields, grpc_message, hop_by_hop::is_hop_by_hop},
};

/// The method of the service.
const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// The largest call, in bytes. It has the head of a request twice at the most, and of its body what Envoy is told to send, which is
/// not looked at.
const MAX_CALL: u64 = 4 << 20;

/// Headers that Envoy writes by itself, or needs: they are not removed.
const OF_ENVOY: &[&str] = &[
    "content-length",
    "expect",
    "via",
    "x-forwarded-client-cert",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-request-id",
];
const OF_ENVOY_PREFIX: &str = "x-envoy-";

static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// `google.rpc.Code`: OK, and permission denied. A client is told by the status of HTTP beside it.
const OK: i32 = 0;
const PERMISSION_DENIED: i32 = 7;

/// A decision for Envoy.
struct Decision {
    response: CheckResponse,
    /// Why the request is denied, if it is.
    reason: Option<&'static str>,
    /// What becomes of the caller's cookie.
    cookie: Option<CookieChange>,
}

impl ConnectionState {
    /// Handles a call on a listener for Envoy.
    ///
    /// # Errors
    /// When it is no call of `Check`, or its peer may not make one.
    pub(super) async fn check(
        &self,
        snapshot: &Snapshot,
        request: &mut ClientRequest,
        begun: Instant,
        request_id: &HeaderValue,
        record: Option<&mut Record>,
    ) -> Result<ClientResponse, Refusal> {
        if !grpc::is_call(&request.head) || request.head.method != Method::POST {
            return Err(Kind::NotFound.into());
        }
        if request.head.uri.path() != CHECK {
            return Err(Kind::NotFound.into());
        }
        if !(self.peer.is_trusted(&snapshot.trusted_proxies) || self.peer.address().is_loopback()) {
            return Err(Kind::InsufficientRole.into());
        }
        let checked = self.read_call(snapshot, request).await?;
        let mut decision = self.decide_for_envoy(snapshot, &checked, begun, request_id);
        if decision.as_ref().is_err_and(Refusal::is_unsettled) {
            let credential = snapshot.credential(&Method::GET, &checked.fields);
            let settled = snapshot.access.settle(credential, checked.client);
            decision = match forward::in_time(&self.exchange, settled).await {
                Some(Ok(())) => self.decide_for_envoy(snapshot, &checked, begun, request_id),
                Some(Err(denied)) => Err(denied.into()),
                None => Err(Kind::Unavailable.into()),
            };
        }
        let Decision { mut response, reason, cookie } =
            decision.unwrap_or_else(|refusal| denied(snapshot, &refusal, None, None, request_id));
        if let (Some(change), Some(HttpResponse::Ok(allowed))) = (cookie, &mut response.http_response)
            && let Some(cookie) = snapshot.access.set_cookie(change).await
        {
            let set = HeaderValueOption::append(&header::SET_COOKIE, &cookie);
            allowed.response_headers_to_add.push(set);
        }
        if let Some(reason) = reason {
            snapshot.services.metrics.denied(reason);
            tracing::debug!(request.id = ?request_id, reason, "denied for Envoy");
        }
        match (record, reason) {
            (Some(record), Some(reason)) => record.is_denied(reason),
            (Some(record), None) => record.is_decided(),
            (None, _) => {}
        }
        Ok(self.grpc_response(&response))
    }

    /// Reads which request is to be checked.
    async fn read_call(&self, snapshot: &Snapshot, request: &mut ClientRequest) -> Result<Checked, Kind> {
        let timeout = snapshot.limits.request_timeout;
        let bounds = BodyBounds {
            limit: MAX_CALL,
            due: self.exchange.moment(timeout),
            min_rate: snapshot.limits.body_min_rate,
            response_timeout: timeout,
        };
        let body = RequestBody::new(request.body.take(), &self.exchange, bounds, None, &snapshot.headers);
        let body = body.collect().await;
        let body = body.map_err(|_| self.exchange.body_failure().unwrap_or(Kind::BadRequest))?.to_bytes();
        let message = grpc_message::only_message(body).ok_or(Kind::BadRequest)?;
        let call = CheckRequest::decode(message).map_err(|_| Kind::BadRequest)?;
        // What cannot be understood is denied, not an error: Envoy may be told to let pass what ends in one.
        Ok(Checked::of(call, self.peer.address()).unwrap_or_else(|| Checked::unclear(self.peer.address())))
    }

    fn decide_for_envoy(
        &self,
        snapshot: &Snapshot,
        checked: &Checked,
        begun: Instant,
        request_id: &HeaderValue,
    ) -> Result<Decision, Refusal> {
        let mut limited = None;
        let head = checked.head.as_ref().ok_or(Kind::InsufficientRole)?;
        let asked = Asked { head, scheme: checked.scheme, fields: &checked.fields, client: checked.client };
        match verify::decide(snapshot, &asked, begun, &mut |told| limited = Some(told)) {
            Ok((permit, route)) => {
                let cookie = permit.principal().and_then(|caller| snapshot.access.renewed_cookie(caller));
                let principal = permit.principal().map(AsRef::as_ref);
                let mut response = OkHttpResponse {
                    headers_to_remove: removed(snapshot, &checked.fields, route),
                    response_headers_to_add: limits(limited.as_ref()),
                    ..OkHttpResponse::default()
                };
                for (name, value) in snapshot.headers.identity(principal) {
                    match value {
                        Some(value) => response.headers.push(HeaderValueOption::overwrite(name, value)),
                        None => response.headers_to_remove.push(name.as_str().to_owned()),
                    }
                }
                match own_cookies::without(&checked.fields) {
                    Some(cookies) if cookies.is_empty() => {
                        response.headers_to_remove.push(header::COOKIE.as_str().to_owned());
                    }
                    Some(cookies) => {
                        response.headers.push(HeaderValueOption::overwrite(&header::COOKIE, &cookies));
                    }
                    None => {}
                }
                // Removed after others are set, so it must not name one of these.
                let is_set = |name: &String| {
                    response.headers.iter().any(|set| set.header.as_ref().is_some_and(|set| set.key == *name))
                };
                response.headers_to_remove =
                    response.headers_to_remove.iter().filter(|name| !is_set(name)).cloned().collect();
                response.headers_to_remove.sort_unstable();
                response.headers_to_remove.dedup();
                let http_response = Some(HttpResponse::Ok(response));
                let response = CheckResponse { status: Some(RpcStatus { code: OK }), http_response };
                Ok(Decision { response, reason: None, cookie })
            }
            Err(refusal) if refusal.is_unsettled() => Err(refusal),
            Err(refusal) => {
                let led_on = verify::led_on(snapshot, head, &checked.fields, &refusal);
                Ok(denied(snapshot, &refusal, led_on, limited.as_ref(), request_id))
            }
        }
    }

    /// Returns the response to a call whose result is `response`.
    fn grpc_response(&self, response: &CheckResponse) -> ClientResponse {
        let mut fields = Fields::default();
        fields.append(header::CONTENT_TYPE, grpc::MEDIA_TYPE);
        let mut trailers = HeaderMap::new();
        trailers.insert(&GRPC_STATUS, HeaderValue::from_static("0"));
        let body = grpc_message::body_of(&response.encode_to_vec());
        let body = ResponseBody::with_trailers(body, trailers, &self.exchange);
        ClientResponse { status: StatusCode::OK, fields, body }
    }
}

/// The request that Envoy has checked.
struct Checked {
    /// Its request line and its host; none if they are not clear.
    head: Option<RequestHead>,
    scheme: Scheme,
    /// Its headers.
    fields: Fields,
    client: IpAddr,
}

impl Checked {
    /// A request of which nothing is clear.
    fn unclear(peer: IpAddr) -> Self {
        Self { head: None, scheme: Scheme::Http, fields: Fields::default(), client: peer }
    }

    /// Returns none if the call is about no request of HTTP.
    fn of(call: CheckRequest, peer: IpAddr) -> Option<Self> {
        let attributes = call.attributes?;
        let http = attributes.request?.http?;
        let source = attributes.source.and_then(|source| source.address?.socket);
        let client = source.and_then(|socket| socket.address.parse().ok()).unwrap_or(peer);
        let fields = fields(&http)?;
        let proto = || fields.get_only(&client::FORWARDED_PROTO).and_then(|proto| proto.to_str().ok());
        let scheme = match http.scheme.as_str() {
            "" => proto().unwrap_or("http"),
            scheme => scheme,
        };
        let scheme = if scheme.eq_ignore_ascii_case("https") { Scheme::Https } else { Scheme::Http };
        let head = HeaderValue::from_str(&http.host)
            .ok()
            .and_then(|host| verify::head_of(&http.method, host, &http.path));
        Some(Self { head, scheme, fields, client: client.to_canonical() })
    }
}

/// Returns the headers of a request; the pseudo-headers of HTTP/2 are in fields of their own.
fn fields(http: &HttpRequest) -> Option<Fields> {
    let mut fields = Fields::default();
    let mut add = |name: &str, value: &[u8]| {
        if !name.starts_with(':') {
            fields
                .append(HeaderName::from_bytes(name.as_bytes()).ok()?, HeaderValue::from_bytes(value).ok()?);
        }
        Some(())
    };
    for (name, value) in &http.headers {
        add(name, value.as_bytes())?;
    }
    for header in http.header_map.iter().flat_map(|map| &map.headers) {
        let value = if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value };
        add(&header.key, value)?;
    }
    Some(fields)
}

/// Returns the names of the headers that an upstream could take for the gateway's word, and of the token if it does not go on.
fn removed(snapshot: &Snapshot, fields: &Fields, route: &config::Route) -> Vec<String> {
    let is_of_envoy =
        |name: &str| is_hop_by_hop(name) || OF_ENVOY.contains(&name) || name.starts_with(OF_ENVOY_PREFIX);
    // A key goes to no upstream.
    let keeps_token = route.forward_token && !fields.get_all(&header::AUTHORIZATION).any(shows_api_key);
    let names = fields.iter().map(|(name, _)| name).filter(|name| {
        let is_token = **name == header::AUTHORIZATION && !keeps_token;
        is_token || (!is_of_envoy(name.as_str()) && snapshot.headers.is_stripped(name, route.method_override))
    });
    names.map(|name| name.as_str().to_owned()).collect()
}

fn limits(limited: Option<&Told<'_>>) -> Vec<HeaderValueOption> {
    let Some(limited) = limited else { return Vec::new() };
    let mut lines = LimitLines::default();
    limited.write(&mut lines);
    let pairs = lines.pairs().into_iter().flatten();
    pairs.map(|(name, value)| HeaderValueOption::overwrite(name, value)).collect()
}

fn denied(
    snapshot: &Snapshot,
    refusal: &Refusal,
    led_on: Option<Response<Bytes>>,
    limited: Option<&Told<'_>>,
    request_id: &HeaderValue,
) -> Decision {
    let response = led_on.unwrap_or_else(|| refusal.response(request_id, &snapshot.statuses));
    let mut headers = limits(limited);
    let own = response.headers().iter().filter(|(name, _)| **name != header::CONNECTION);
    headers.extend(own.map(|(name, value)| HeaderValueOption::overwrite(name, value)));
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: response.status().as_u16().into() }),
        headers,
        body: String::from_utf8_lossy(response.body()).into_owned(),
    };
    let http_response = Some(HttpResponse::Denied(denied));
    let response = CheckResponse { status: Some(RpcStatus { code: PERMISSION_DENIED }), http_response };
    Decision { response, reason: Some(refusal.reason()), cookie: None }
}

#[cfg(test)]
#[path = "../../../fuzz/ext_authz.rs"]
mod fuzz;
