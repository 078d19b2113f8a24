//! What a request names: its method, its host and its path.

use std::borrow::Cow;

use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header, uri::PathAndQuery};

use crate::{
    error::Kind,
    route::{Match, Table},
    types::path,
};

/// Refuses a method that a route or a backend could take for another: methods are case-sensitive (RFC 9110,
/// section 9.1), and `delete` is one that no route names, but that some backends take for `DELETE`.
pub(super) fn check_method(method: &Method, routes: &Table) -> Result<(), Kind> {
    const STANDARD: &[&str] =
        &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    let name = method.as_str();
    // Most are in capitals: those that routes name are.
    if name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        return Ok(());
    }
    let mut known = STANDARD.iter().copied().chain(routes.named_methods());
    if known.any(|known| name.eq_ignore_ascii_case(known)) { Err(Kind::BadRequest) } else { Ok(()) }
}

/// Whether the request is about the gateway itself: `OPTIONS *` (RFC 9112, section 3.2.4).
pub(super) fn is_server_wide<T>(request: &Request<T>) -> Result<bool, Kind> {
    if request.method() != Method::OPTIONS || request.uri().path() != "*" {
        return Ok(false);
    }
    single_host(request.headers(), request.version()).map(|_| true)
}

/// Whether a request may go no further than here: `OPTIONS` with `Max-Forwards: 0` (RFC 9110, section 7.6.2).
///
/// # Errors
/// For `TRACE`, which would have to show the request here.
pub(super) fn ends_here<T>(request: &Request<T>) -> Result<bool, Kind> {
    let last = request.headers().get(header::MAX_FORWARDS).is_some_and(|hops| hops.as_bytes() == b"0");
    match *request.method() {
        Method::OPTIONS => Ok(last),
        Method::TRACE if last => Err(Kind::BadRequest),
        _ => Ok(false),
    }
}

/// Takes `Max-Forwards` out; one less of it, if it counts anything.
pub(super) fn count_down(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let hops = headers.remove(header::MAX_FORWARDS)?;
    let hops: u32 = hops.to_str().ok()?.parse().ok()?;
    Some(hops.saturating_sub(1).into())
}

/// A query as it is forwarded: what is no ASCII is percent-encoded (RFC 3986, section 2.5).
fn query(query: &str) -> Cow<'_, str> {
    if query.is_ascii() {
        return Cow::Borrowed(query);
    }
    let mut encoded = String::with_capacity(query.len() * 2);
    for byte in query.bytes() {
        if byte.is_ascii() {
            encoded.push(byte as char);
        } else {
            let digit = |nibble: u8| b"0123456789ABCDEF"[usize::from(nibble & 15)] as char;
            encoded.extend(['%', digit(byte >> 4), digit(byte)]);
        }
    }
    Cow::Owned(encoded)
}

/// Checks what names the target (one host, however it is said, and a canonical path) and finds
/// what takes it; with the target as it is forwarded, when that is not how it came.
pub(super) fn find<'a, T>(
    routes: &'a Table,
    request: &Request<T>,
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
    let as_it_came = uri.authority().is_none()
        && path.wire == uri.path()
        && uri.query().is_none_or(|query| query.is_ascii());
    let rewritten = if as_it_came {
        None
    } else {
        let target = match uri.query() {
            Some(text) => format!("{}?{}", path.wire, query(text)),
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
