//! Deciding for another proxy: nginx's `auth_request`, Caddy's `forward_auth`, Traefik's ForwardAuth and the like ask
//! before they forward a request, and say in headers which one it is.

use std::{borrow::Cow, net::IpAddr, time::Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, Uri, Version, header, uri::PathAndQuery};

use super::{
    client,
    client::FORWARDED_HOST,
    headers::{METHOD_OVERRIDES, is_method_override},
    method,
    navigation::{is_navigation, is_program, way_back},
    rate_limits::{Asker, Told},
    refusal::Refusal,
    request_head::RequestHead,
    request_target,
    snapshot::Snapshot,
    target::{Scheme, Target},
};
use crate::{
    access::Permit,
    config::{self, ForwardedBy},
    error::Kind,
    route::{Match, Route},
    token::{CookieChange, Principal},
    types::{fields::Fields, host::name_of},
};

static FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
static ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
static ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");

/// A decision is for one request, and for whoever asked.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// What is said of a caller that there is not, so that whoever copies it overwrites what a client said.
const NOBODY: HeaderValue = HeaderValue::from_static("");

/// A request that another proxy asks about.
pub(super) struct Asked<'a> {
    /// Its request line and its host.
    pub(super) head: &'a RequestHead,
    pub(super) scheme: Scheme,
    /// Its headers.
    pub(super) fields: &'a Fields,
    /// The address of its client.
    pub(super) client: IpAddr,
}

/// Decides on the request that a trusted proxy tells of in `head`, which came from `origin`, and notes what is left of the route's
/// rate limits. Returns the headers of the response for an allowed one, and what becomes of the caller's cookie.
///
/// # Errors
/// When the other proxy is to refuse it.
pub(super) fn verify<'a>(
    snapshot: &'a Snapshot,
    head: &RequestHead,
    is_trusted: bool,
    origin: &client::Forwarded,
    begun: Instant,
    limits: &mut dyn FnMut(Told<'a>),
) -> Result<(Fields, Option<CookieChange>), Refusal> {
    let told = is_trusted.then(|| told(&head.fields, snapshot.forward_auth.headers)).flatten();
    let (told, scheme) = told.ok_or(Kind::InsufficientRole)?;
    let asked = Asked { head: &told, scheme, fields: &head.fields, client: origin.client };
    let decided = decide(snapshot, &asked, begun, limits);
    told.fields.reuse();
    let (permit, route) = decided?;
    let fields = allowed(snapshot, permit.principal().map(AsRef::as_ref));
    // For the one who asks to pass on to the browser.
    let change = match permit.principal() {
        Some(principal) => snapshot.access.renewed_cookie(principal),
        None => {
            let is_dead = !matches!(route.access, config::Access::Open)
                && snapshot.credential(&Method::GET, &head.fields).is_cookie();
            let cookies = snapshot.access.cookies().filter(|_| is_dead);
            cookies.and_then(|cookies| cookies.removal()).map(CookieChange::Set)
        }
    };
    Ok((fields, change))
}

/// Returns the response that leads a person on, as [`led_on`] does, if the request that a trusted proxy tells of in `head` was refused.
pub(super) fn login(
    snapshot: &Snapshot,
    head: &RequestHead,
    is_trusted: bool,
    refusal: &Refusal,
) -> Option<Response<Bytes>> {
    if !snapshot.forward_auth.login_redirect || !is_trusted {
        return None;
    }
    let (told, _) = told(&head.fields, snapshot.forward_auth.headers)?;
    led_on(snapshot, &told, &head.fields, refusal)
}

/// Returns the response that leads a person to the sign-in page, or to the one for a new proof, if the request of another proxy with this
/// head and these headers is a navigation that was refused for that, and the config says so. It names the public address: the browser is at
/// the other proxy's.
pub(super) fn led_on(
    snapshot: &Snapshot,
    told: &RequestHead,
    fields: &Fields,
    refusal: &Refusal,
) -> Option<Response<Bytes>> {
    let (pages, cookies) = (snapshot.services.refusal_pages.as_ref()?, snapshot.access.cookies()?);
    let is_led_on = matches!(refusal.kind(), Kind::Unauthenticated | Kind::InsufficientUserAuthentication);
    if !snapshot.forward_auth.login_redirect || !is_led_on {
        return None;
    }
    if !is_navigation(&told.method, fields) || is_program(snapshot, &told.method, fields) {
        return None;
    }
    // Another host's pages are nowhere to go back to.
    let host = told.fields.get(&header::HOST)?.to_str().ok()?;
    let target = told.uri.path_and_query().filter(|_| name_of(host) == cookies.host());
    let target = target.map_or_else(Cow::default, |target| way_back(target.as_str()));
    let mut response = match refusal.kind() {
        Kind::Unauthenticated => pages.login(&target),
        _ => pages.prove(&target, refusal.needs_factors()),
    };
    let location = response.headers().get(header::LOCATION)?.to_str().ok()?;
    let location = HeaderValue::try_from(format!("{}{location}", cookies.origin())).ok()?;
    response.headers_mut().insert(header::LOCATION, location);
    Some(response)
}

/// Decides on a request that another proxy asks about, and notes what is left of its route's rate limits. Returns the permit, which
/// nothing is forwarded by here, and the route.
///
/// # Errors
/// When the other proxy is to refuse it.
pub(super) fn decide<'a>(
    snapshot: &'a Snapshot,
    asked: &Asked<'_>,
    begun: Instant,
    limits: &mut dyn FnMut(Told<'a>),
) -> Result<(Permit, &'a config::Route), Refusal> {
    let Asked { head, scheme, fields, client } = *asked;
    // Whatever is wrong with it, the one who asks is to refuse it.
    let refused = |_| Kind::InsufficientRole;
    method::check(&head.method, &snapshot.routes).map_err(refused)?;
    let target = request_target::read(head, scheme, snapshot.keeps_encoded).map_err(refused)?;
    let route = found(snapshot, &target, &head.method)?;
    let (access, on_stale) = (&route.config.access, route.config.on_stale);
    let permit = snapshot.access.decide(
        access,
        on_stale,
        snapshot.credential(&head.method, fields),
        target.place(Some(client)),
    )?;
    // The proxy passes them on, and the backend may believe them.
    for (name, value) in fields {
        if !is_method_override(name) {
            continue;
        }
        if !METHOD_OVERRIDES.contains(&name.as_str()) {
            // With another spelling it would escape the decision about the method.
            return Err(Kind::InsufficientRole.into());
        }
        let upper = value.as_bytes().to_ascii_uppercase();
        let method = Method::from_bytes(&upper).map_err(|_| Kind::InsufficientRole)?;
        let route = found(snapshot, &target, &method)?;
        let credential = snapshot.credential(&method, fields);
        let (access, on_stale) = (&route.config.access, route.config.on_stale);
        snapshot.access.decide(access, on_stale, credential, target.place(Some(client)))?;
    }
    let principal = permit.principal().map(AsRef::as_ref);
    let asker = Asker { principal, client, fields };
    snapshot.take_from_limits(route.index, &asker, begun, limits)?;
    Ok((permit, &route.config))
}

/// Returns the route that takes a request.
fn found<'a>(snapshot: &'a Snapshot, target: &Target<'_>, method: &Method) -> Result<&'a Route, Kind> {
    match target.find(&snapshot.routes, method) {
        Ok(Match::Route(route)) => Ok(route),
        Ok(Match::Builtin | Match::WrongMethod(_) | Match::None) | Err(_) => Err(Kind::InsufficientRole),
    }
}

/// Returns the request that headers tell of, and its scheme; none unless they do so once and well.
fn told(fields: &Fields, by: ForwardedBy) -> Option<(RequestHead, Scheme)> {
    let (method, scheme, host, target) = match by {
        ForwardedBy::XForwarded => {
            let names = [&FORWARDED_METHOD, &FORWARDED_PROTO, &FORWARDED_HOST, &FORWARDED_URI];
            let [method, scheme, host, target] = fields.get_only_each(names)?;
            host.to_str().ok()?;
            (method.to_str().ok()?, scheme.to_str().ok()?, host.clone(), target.to_str().ok()?)
        }
        ForwardedBy::XOriginal => {
            let [method, url] = fields.get_only_each([&ORIGINAL_METHOD, &ORIGINAL_URL])?;
            let (scheme, rest) = url.to_str().ok()?.split_once("://")?;
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (host, target) = rest.split_at(end);
            let host = HeaderValue::from_str(host).ok()?;
            (method.to_str().ok()?, scheme, host, if target.is_empty() { "/" } else { target })
        }
    };
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        _ => return None,
    };
    Some((head_of(method, host, target)?, scheme))
}

/// Returns the request line and the host that another proxy asks about; none if they are not ones that a request to an origin has.
pub(super) fn head_of(method: &str, host: HeaderValue, target: &str) -> Option<RequestHead> {
    // Not an absolute target, and no fragment: what is cut off here another may read.
    if !target.starts_with('/') || target.contains('#') || method == Method::CONNECT {
        return None;
    }
    let uri: Uri = PathAndQuery::try_from(target).ok()?.into();
    let mut fields = Fields::with_capacity(1);
    fields.append(header::HOST, host);
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    Some(RequestHead { method, uri, version: Version::HTTP_11, fields })
}

/// Returns the headers of the response for an allowed request: who it is, for the one who asks to pass on.
fn allowed(snapshot: &Snapshot, principal: Option<&Principal>) -> Fields {
    // As many as there are of identities, with a few that are added.
    let mut fields = Fields::with_capacity(4);
    fields.append(header::CACHE_CONTROL, NO_STORE);
    for (name, value) in snapshot.headers.identity(principal) {
        fields.append(name.clone(), value.cloned().unwrap_or(NOBODY));
    }
    fields
}

#[cfg(test)]
#[path = "../../fuzz/verify.rs"]
mod fuzz;
