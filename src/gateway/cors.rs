//! Calls from pages of other origins (Fetch standard, section 3.2).
//!
//! A browser's question beforehand is answered here, without a token, which it never brings; the
//! call itself is decided like any other, and only whether the page may read the response is said in
//! addition. So that is no protection of the backend: the token is.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};

use crate::config::Cors;

/// The response headers that a page may read beside those that it always may.
static EXPOSED: HeaderValue =
    HeaderValue::from_static("Authorization, Retry-After, WWW-Authenticate, X-Authgate-Device, X-Request-Id");

/// What this gateway says itself where a route has rules, and an upstream does not.
const OURS: &[HeaderName] = &[
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];

/// The method that a browser asks about beforehand.
pub(super) fn asked_method<T>(request: &Request<T>) -> Option<Method> {
    if request.method() != Method::OPTIONS || !request.headers().contains_key(header::ORIGIN) {
        return None;
    }
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

/// How a response is shared.
pub(super) struct Sharing<'a> {
    cors: &'a Cors,
    /// The origin, if it is on the list.
    origin: Option<HeaderValue>,
}

impl<'a> Sharing<'a> {
    /// How the response to a request with these headers is shared.
    pub(super) fn of(cors: &'a Cors, headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(header::ORIGIN).iter();
        let origin = values.next().filter(|_| values.next().is_none());
        let origin = match &cors.origins {
            None => origin.map(|_| HeaderValue::from_static("*")),
            Some(listed) => origin.filter(|origin| listed.contains(origin)).cloned(),
        };
        Self { cors, origin }
    }

    /// Says so in a response.
    pub(super) fn apply(&self, headers: &mut HeaderMap) {
        for name in OURS {
            headers.remove(name);
        }
        self.allow(headers);
        if self.origin.is_some() && !headers.contains_key(header::ACCESS_CONTROL_EXPOSE_HEADERS) {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED.clone());
        }
    }

    fn allow(&self, headers: &mut HeaderMap) {
        if self.cors.origins.is_some() {
            // A cache must not give one origin the response to another.
            headers.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = &self.origin else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.cors.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

/// The response to a browser that asks beforehand whether it may use `method`, which is there.
pub(super) fn preflight_response(cors: &Cors, asked: &HeaderMap, method: &Method) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let shared = Sharing::of(cors, asked);
    shared.allow(headers);
    headers.append(
        header::VARY,
        HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"),
    );
    if shared.origin.is_none() {
        return response;
    }
    if let Ok(method) = HeaderValue::from_str(method.as_str()) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, method);
    }
    // Which headers a page of a listed origin sends is its own affair.
    if let Some(names) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
    response
}
