//! Calls from pages of other origins (Fetch standard, section 3.2).
//!
//! A browser's question beforehand is answered here, without a token, which it never brings; the
//! call itself is decided like any other, and only whether the page may read the response is said in
//! addition. So that is no protection of the backend: the token is.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header};

use super::request_head::RequestHead;
use crate::{config::Cors, types::fields::Fields};

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
pub(super) fn asked_method(request: &RequestHead) -> Option<Method> {
    if request.method != Method::OPTIONS || !request.fields.contains(&header::ORIGIN) {
        return None;
    }
    let asked = request.fields.get(&header::ACCESS_CONTROL_REQUEST_METHOD)?;
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
    pub(super) fn of(cors: &'a Cors, asked: &Fields) -> Self {
        let origin = asked.get_only(&header::ORIGIN);
        let origin = match &cors.origins {
            None => origin.map(|_| HeaderValue::from_static("*")),
            Some(listed) => origin.filter(|origin| listed.contains(origin)).cloned(),
        };
        Self { cors, origin }
    }

    /// Says so in a response.
    pub(super) fn apply(&self, fields: &mut Fields) {
        fields.remove_all(OURS);
        self.allow(fields);
        if self.origin.is_some() && !fields.contains(&header::ACCESS_CONTROL_EXPOSE_HEADERS) {
            fields.append(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED.clone());
        }
    }

    fn allow(&self, fields: &mut Fields) {
        if self.cors.origins.is_some() {
            // A cache must not give one origin the response to another.
            fields.append(header::VARY, HeaderValue::from_static("Origin"));
        }
        let Some(origin) = &self.origin else { return };
        fields.append(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        if self.cors.credentials {
            fields.append(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        }
    }
}

/// The response to a browser that asks beforehand whether it may use `method`, which is there.
pub(super) fn preflight_response(cors: &Cors, asked: &Fields, method: &Method) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    *response.headers_mut() = preflight_fields(cors, asked, method).into();
    response
}

fn preflight_fields(cors: &Cors, asked: &Fields, method: &Method) -> Fields {
    let mut fields = Fields::default();
    let shared = Sharing::of(cors, asked);
    shared.allow(&mut fields);
    fields.append(
        header::VARY,
        HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers"),
    );
    if shared.origin.is_none() {
        return fields;
    }
    if let Ok(method) = HeaderValue::from_str(method.as_str()) {
        fields.append(header::ACCESS_CONTROL_ALLOW_METHODS, method);
    }
    // Which headers a page of a listed origin sends is its own affair.
    if let Some(names) = asked.get(&header::ACCESS_CONTROL_REQUEST_HEADERS) {
        fields.append(header::ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    fields.append(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
    fields
}
