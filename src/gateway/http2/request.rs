//! Requests of HTTP/2 streams (RFC 9113, section 8.3), as the rest of the gateway reads them.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, Uri, Version, header, uri::PathAndQuery};

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
    http2::{Head, Stream},
    types::{OsRandom, Random, fields::Fields},
};

/// The protocol of WebSockets (RFC 8441, section 5).
const WEBSOCKET_PROTOCOL: &str = "websocket";

/// What a header line costs beyond its name and value: a colon, a blank and the end of the line.
const LINE_COST: usize = 4;

/// A request, its stream, and whether it asks for a tunnel.
pub(super) struct Received {
    pub(super) request: ClientRequest,
    pub(super) stream: Arc<Stream>,
    pub(super) is_tunnel: bool,
}

/// Converts the request of a stream.
pub(super) fn receive(mut head: Head, stream: Stream, limits: &config::Limits) -> Received {
    let stream = Arc::new(stream);
    let method = head.method().and_then(|method| Method::from_bytes(method.as_bytes()).ok());
    let mut method = method.unwrap_or_default();
    let (authority, path, protocol) = (head.authority(), head.path(), head.protocol());
    let (mut fields, is_over) = (head.fields, head.is_over);
    let mut refused = None;
    let length: usize =
        fields.iter().map(|(name, value)| name.as_str().len() + value.len() + LINE_COST).sum();
    let target = path.as_ref().map_or(0, HeaderValue::len);
    let is_large = fields.iter().len() > limits.header_count || length + target > limits.header_bytes;
    // Even equal ones, as on HTTP/1.1.
    if fields.get_all(&header::CONTENT_LENGTH).nth(1).is_some() {
        refused = Some(Kind::BadRequest);
    }
    let target = path.as_ref().map_or(&b"/"[..], HeaderValue::as_bytes);
    // What is behind a `#` would be cut off, and belongs to no target (RFC 9110, section 7.1).
    let parsed = if target.contains(&b'#') { None } else { PathAndQuery::try_from(target).ok() };
    let target = parsed.unwrap_or_else(|| {
        refused = Some(Kind::BadRequest);
        PathAndQuery::from_static("/")
    });
    if is_large || is_over {
        refused = Some(Kind::HeadersTooLarge);
    }
    join_cookies(&mut fields);
    if let Some(authority) = authority {
        let is_same = |host: &HeaderValue| host.as_bytes().eq_ignore_ascii_case(authority.as_bytes());
        // Another one makes two of them, which are refused later.
        if !fields.get_only(&header::HOST).is_some_and(is_same) {
            fields.append(header::HOST, authority);
        }
    }
    let mut is_tunnel = false;
    let mut body = None;
    match protocol {
        Some(protocol) if method == Method::CONNECT && protocol == WEBSOCKET_PROTOCOL => {
            if fields.contains(&header::CONTENT_LENGTH) {
                refused = Some(Kind::BadRequest);
            }
            method = Method::GET;
            as_handshake(&mut fields);
            is_tunnel = true;
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
            body = Some(Incoming::Http2(Http2Body::new(stream.clone(), left, expects)));
        }
    }
    let head = RequestHead { method, uri: Uri::from(target), version: Version::HTTP_2, fields };
    Received { request: ClientRequest { head, refused, body }, stream, is_tunnel }
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
