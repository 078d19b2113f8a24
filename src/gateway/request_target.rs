//! The request target of HTTP/1.1 (RFC 9112, sections 3.2 and 3.3).

use http::{Method, Version, header};

use super::{
    request_head::RequestHead,
    target::{Scheme, Target},
};
use crate::{
    error::Kind,
    types::{
        fields::Fields,
        host::is_host,
        path::{self, Canonical},
    },
};

/// Whether the request is about the gateway itself: `OPTIONS *` (RFC 9112, section 3.2.4).
///
/// # Errors
/// When it does not name one host.
pub(super) fn is_server_wide(request: &RequestHead) -> Result<bool, Kind> {
    if request.method != Method::OPTIONS || request.uri.path() != "*" {
        return Ok(false);
    }
    single_host(&request.fields, request.version).map(|_| true)
}

/// Parses the target of a request that arrived by `scheme`. `keeps_encoded` tells whether any route takes paths with several
/// readings.
///
/// # Errors
/// When it does not name one host, however often it says it, or when its path has two readings.
pub(super) fn read(request: &RequestHead, scheme: Scheme, keeps_encoded: bool) -> Result<Target<'_>, Kind> {
    if request.method == Method::CONNECT {
        return Err(Kind::BadRequest);
    }
    let host = single_host(&request.fields, request.version)?;
    let uri = &request.uri;
    if let Some(authority) = uri.authority() {
        // Absolute form (RFC 9112, section 3.2.2): two names for one host must be the same.
        let same = host.is_some_and(|host| host.eq_ignore_ascii_case(authority.as_str()));
        if !same || uri.scheme_str() != Some(scheme.as_str()) {
            return Err(Kind::BadRequest);
        }
    }
    let (path, readings) = match path::canonical(uri.path()) {
        Ok(path) => (path, Vec::new()),
        Err(_) if keeps_encoded => {
            let kept = path::kept(uri.path()).map_err(|_| Kind::BadRequest)?;
            let as_it_came = Canonical { wire: kept.wire.into(), decoded: kept.wire.into() };
            (as_it_came, kept.readings)
        }
        Err(_) => return Err(Kind::BadRequest),
    };
    Ok(Target { host, path, query: uri.query(), readings })
}

/// The value of the one `Host` (RFC 9112, section 3.2); HTTP/1.0 may come without.
fn single_host(fields: &Fields, version: Version) -> Result<Option<&str>, Kind> {
    let mut values = fields.get_all(&header::HOST);
    let Some(value) = values.next() else {
        return if version == Version::HTTP_10 { Ok(None) } else { Err(Kind::BadRequest) };
    };
    if values.next().is_some() {
        return Err(Kind::BadRequest);
    }
    let host = value.to_str().map_err(|_| Kind::BadRequest)?;
    if is_host(host) { Ok(Some(host)) } else { Err(Kind::BadRequest) }
}
