//! What follows from a request's method, wherever it is for.

use http::{HeaderValue, Method, header};

use super::request_head::RequestHead;
use crate::{error::Kind, route::Table, types::fields::Fields};

/// Refuses a method that a route or a backend could take for another: methods are case-sensitive (RFC 9110,
/// section 9.1), and `delete` is one that no route names, but that some backends take for `DELETE`.
pub(super) fn check(method: &Method, routes: &Table) -> Result<(), Kind> {
    if matches!(*method, Method::GET | Method::POST | Method::PUT | Method::DELETE | Method::HEAD) {
        return Ok(());
    }
    let name = method.as_str();
    // Most are in capitals: those that routes name are.
    if name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
        return Ok(());
    }
    if routes.is_misspelt(name) { Err(Kind::BadRequest) } else { Ok(()) }
}

/// Whether a request may go no further than here: `OPTIONS` with `Max-Forwards: 0` (RFC 9110, section 7.6.2).
///
/// # Errors
/// For `TRACE`, which would have to show the request here.
pub(super) fn ends_here(request: &RequestHead) -> Result<bool, Kind> {
    let is_last = || request.fields.get(&header::MAX_FORWARDS).is_some_and(|hops| hops.as_bytes() == b"0");
    match request.method {
        Method::OPTIONS => Ok(is_last()),
        Method::TRACE if is_last() => Err(Kind::BadRequest),
        _ => Ok(false),
    }
}

/// Takes `Max-Forwards` out; one less of it, if it counts anything.
pub(super) fn count_down(fields: &mut Fields) -> Option<HeaderValue> {
    let hops = fields.remove(&header::MAX_FORWARDS)?;
    let hops: u32 = hops.to_str().ok()?.parse().ok()?;
    Some(hops.saturating_sub(1).into())
}
