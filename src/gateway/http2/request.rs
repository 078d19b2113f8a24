//! Requests of HTTP/2 streams (RFC 9113, section 8.3), as the rest of the gateway reads them.

use base64::{Engine, engine::general_purpose::STANDARD};
use h2::{RecvStream, ext::Protocol};
use http::{HeaderValue, Method, Request, Uri, Version, header, request::Parts, uri::PathAndQuery};

use crate::{
    config,
    error::Kind,
    gateway::{
        http2_body::Http2Body,
        message::ClientRequest,
        request_body::Incoming,
        request_head::RequestHead,
        tunnel::{UPGRADE, WEBSOCKET},
    },
    types::{OsRandom, Random, fields::Fields},
};

/// The protocol of WebSockets (RFC 8441, section 5).
const WEBSOCKET_PROTOCOL: &str = "websocket";

/// What a header line costs beyond its name and value: a colon, a blank and the end of the line.
const LINE_COST: usize = 4;

/// A request, and its stream if it asks for a tunnel.
pub(super) struct Received {
    pub(super) request: ClientRequest,
    pub(super) tunnel: Option<RecvStream>,
}

/// Converts the request of a stream.
pub(super) fn receive(request: Request<RecvStream>, limits: &config::Limits) -> Received {
    let (parts, stream) = request.into_parts();
    let Parts { mut method, uri, headers, mut extensions, .. } = parts;
    let mut refused = None;
    let length: usize =
        headers.iter().map(|(name, value)| name.as_str().len() + value.len() + LINE_COST).sum();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    if headers.len() > limits.header_count || length + target > limits.header_bytes {
        refused = Some(Kind::HeadersTooLarge);
    }
    // Even equal ones, as on HTTP/1.1.
    if headers.get_all(header::CONTENT_LENGTH).iter().nth(1).is_some() {
        refused = Some(Kind::BadRequest);
    }
    let mut fields = Fields::from(headers);
    join_cookies(&mut fields);
    if let Some(authority) = uri.authority() {
        let is_same =
            |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes());
        // Another one makes two of them, which are refused later.
        if !fields.get_only(&header::HOST).is_some_and(is_same)
            && let Ok(host) = HeaderValue::from_str(authority.as_str())
        {
            fields.append(header::HOST, host);
        }
    }
    let mut tunnel = None;
    let mut body = None;
    match extensions.remove::<Protocol>() {
        Some(protocol) if method == Method::CONNECT && protocol.as_str() == WEBSOCKET_PROTOCOL => {
            if fields.contains(&header::CONTENT_LENGTH) {
                refused = Some(Kind::BadRequest);
            }
            method = Method::GET;
            as_handshake(&mut fields);
            tunnel = Some(stream);
        }
        Some(_) => refused = Some(Kind::BadRequest),
        None if method == Method::CONNECT => refused = Some(Kind::BadRequest),
        None if stream.is_end_stream() => {}
        None => {
            let length = fields.get_only(&header::CONTENT_LENGTH);
            let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
            let expects = fields
                .get(&header::EXPECT)
                .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
            body = Some(Incoming::Http2(Http2Body::new(stream, left, expects)));
        }
    }
    let target = uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    let head = RequestHead { method, uri: Uri::from(target), version: Version::HTTP_2, fields };
    Received { request: ClientRequest { head, refused, body }, tunnel }
}

/// Makes one line of those of `Cookie` (RFC 9113, section 8.2.3).
fn join_cookies(fields: &mut Fields) {
    if fields.get_all(&header::COOKIE).nth(1).is_none() {
        return;
    }
    let joined =
        fields.get_all(&header::COOKIE).map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b"; "[..]);
    if let Ok(value) = HeaderValue::from_bytes(&joined) {
        fields.insert(header::COOKIE, value);
    }
}

/// Says in HTTP/1.1 what an extended CONNECT says (RFC 8441, section 5). The key is for the upstream alone.
fn as_handshake(fields: &mut Fields) {
    let key = STANDARD.encode((&OsRandom as &dyn Random).bytes::<16>());
    fields.insert(header::CONNECTION, UPGRADE.clone());
    fields.insert(header::UPGRADE, WEBSOCKET.clone());
    if let Ok(key) = HeaderValue::try_from(key) {
        fields.insert(header::SEC_WEBSOCKET_KEY, key);
    }
}
