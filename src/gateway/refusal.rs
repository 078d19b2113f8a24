//! Every refusal becomes an answer here, and only here.

use std::{cell::Cell, fmt::Write};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use crate::{
    access::Denied,
    error::{Kind, Problem},
    types::{OsRandom, Random},
};

/// A refusal with what a client may be told of it.
#[derive(Debug)]
pub(super) struct Refusal {
    kind: Kind,
    reason: &'static str,
    allow: Option<String>,
    had_token: bool,
}

impl From<Kind> for Refusal {
    fn from(kind: Kind) -> Self {
        Self { kind, reason: kind.code(), allow: None, had_token: false }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self { kind: denied.kind(), reason: denied.reason(), allow: None, had_token: denied.had_token() }
    }
}

impl Refusal {
    /// The path exists with other methods.
    pub(super) fn wrong_method(allow: String) -> Self {
        Self { allow: Some(allow), ..Kind::MethodNotAllowed.into() }
    }

    /// The label of `authgate_denied_total`.
    pub(super) fn reason(&self) -> &'static str {
        self.reason
    }

    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        self.kind.status()
    }

    /// The answer.
    pub(super) fn answer(self, request_id: &HeaderValue) -> Response<Bytes> {
        let id = request_id.to_str().unwrap_or_default();
        let body = Problem::new(self.kind, None, id).to_json();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.kind.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Problem::CONTENT_TYPE));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        match self.kind {
            Kind::Unauthenticated => {
                let challenge = if self.had_token { r#"Bearer error="invalid_token""# } else { "Bearer" };
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            Kind::Unavailable | Kind::NoHealthyUpstream => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            // What the client still sends is not waited for.
            Kind::RequestTimeout | Kind::BodyTooLarge | Kind::BadRequest => {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            _ => {}
        }
        response
    }
}

/// The same as bytes on the wire, for what never became a request.
pub(super) fn raw(kind: Kind) -> Bytes {
    let id = request_id();
    let id = id.to_str().unwrap_or_default();
    let body = Problem::new(kind, None, id).to_json();
    let status = kind.status();
    let mut answer = String::with_capacity(512);
    // Writing to a string does not fail.
    let _ = write!(
        answer,
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\nx-request-id: {id}\r\nx-content-type-options: nosniff\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error"),
        Problem::CONTENT_TYPE,
        body.len(),
    );
    answer.into()
}

/// A fresh request id: a prefix that the worker drew at its start, and a count.
pub(super) fn request_id() -> HeaderValue {
    thread_local! {
        static NEXT: Cell<(u64, u64)> =
            Cell::new((u64::from_ne_bytes((&OsRandom as &dyn Random).bytes()), 0));
    }
    let (prefix, count) = NEXT.get();
    NEXT.set((prefix, count + 1));
    let mut text = [0; 32];
    for (index, digit) in text.iter_mut().enumerate() {
        let word = if index < 16 { prefix } else { count };
        *digit = b"0123456789abcdef"[(word >> (60 - 4 * (index % 16))) as usize & 15];
    }
    HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
}
