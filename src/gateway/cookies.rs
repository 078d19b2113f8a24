//! The cookies of callers: decided on, signed anew, taken away.

use std::time::Instant;

use http::{HeaderValue, header};

use super::{request_head::RequestHead, snapshot::Snapshot};
use crate::{
    access::{Access, Denied, Permit, Place},
    config,
    route::Route,
    token::{CookieChange, SessionCookies},
    types::fields::Fields,
};

const PRIVATE: HeaderValue = HeaderValue::from_static("private");

/// Adds a cookie to the response to a request that begun then, unless others may get the response, too, or it comes late.
pub(super) fn set(cookie: HeaderValue, begun: Instant, fields: &mut Fields) {
    let directives = fields.get_all(&header::CACHE_CONTROL).filter_map(|value| value.to_str().ok());
    let names = directives
        .flat_map(|value| value.split(','))
        .map(|directive| directive.split('=').next().unwrap_or_default().trim().to_ascii_lowercase());
    let (mut is_shared, mut is_private) = (false, false);
    for name in names {
        is_shared |= matches!(name.as_str(), "public" | "s-maxage");
        is_private |= matches!(name.as_str(), "private" | "no-store");
    }
    if is_shared || begun.elapsed() > SessionCookies::LATEST {
        return;
    }
    if !is_private {
        // A cache would take it for everybody's otherwise (RFC 9111, section 3).
        fields.append(header::CACHE_CONTROL, PRIVATE);
    }
    fields.append(header::SET_COOKIE, cookie);
}

/// Decides on a request for a route, and tells `set` what becomes of its browser's cookie.
pub(super) fn permit(
    snapshot: &Snapshot,
    route: &Route,
    head: &RequestHead,
    place: Place<'_>,
    set: impl FnOnce(CookieChange),
) -> Result<Permit, Denied> {
    let credential = snapshot.credential(&head.method, &head.fields);
    let (access, on_stale) = (&route.config.access, route.config.on_stale);
    let decided = snapshot.access.decide(access, on_stale, credential, place);
    if credential.is_cookie()
        && let Some(cookie) = cookie_after(&snapshot.access, access, &decided)
    {
        set(cookie);
    }
    decided
}

/// Returns the cookie that takes the place of the caller's: its successor when it is time, or nothing once it is dead.
fn cookie_after(
    access: &Access,
    required: &config::Access,
    decided: &Result<Permit, Denied>,
) -> Option<CookieChange> {
    let is_dead = match decided {
        Ok(permit) => match permit.principal() {
            Some(principal) => return access.renewed_cookie(principal),
            None => !matches!(required, config::Access::Open),
        },
        Err(denied) => denied.is_dead(),
    };
    access.cookies().filter(|_| is_dead)?.removal().map(CookieChange::Set)
}
