//! Every refusal becomes an answer here, and only here.

use std::{
    cell::RefCell,
    fmt::Write,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use httpdate::HttpDate;

use crate::{
    access::Denied,
    clock::log_micros,
    error::{Kind, Problem, Statuses},
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

    /// The answer.
    pub(super) fn answer(self, request_id: &HeaderValue, statuses: &Statuses) -> Response<Bytes> {
        let id = request_id.to_str().unwrap_or_default();
        let status = statuses.of(self.kind);
        let body = Problem::with_status(self.kind, status, None, id).to_json();
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Problem::CONTENT_TYPE));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(allow) = self.allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        match self.kind {
            Kind::Unauthenticated if status == StatusCode::UNAUTHORIZED => {
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

/// The same as bytes on the wire, for what never became a request; without a body as the response to HEAD.
pub(super) fn raw(kind: Kind, request_id: &HeaderValue, to_head: bool) -> Bytes {
    let id = request_id.to_str().unwrap_or_default();
    let body = Problem::new(kind, None, id).to_json();
    let status = kind.status();
    let now = Duration::from_micros(log_micros().unsigned_abs());
    let mut answer = String::with_capacity(512);
    // Writing to a string does not fail.
    let _ = write!(
        answer,
        "HTTP/1.1 {} {}\r\ncontent-type: {}\r\nx-request-id: {id}\r\nx-content-type-options: nosniff\r\n\
         cache-control: no-store\r\nconnection: close\r\ncontent-length: {}\r\ndate: {}\r\n\r\n{}",
        status.as_u16(),
        status.canonical_reason().unwrap_or("Error"),
        Problem::CONTENT_TYPE,
        body.len(),
        HttpDate::from(UNIX_EPOCH + now),
        if to_head { "" } else { &body },
    );
    answer.into()
}

/// Ids are written by the block, so that an id costs no allocation of its own.
const BLOCK: u64 = 64;
const ID_LENGTH: usize = 32;

struct Ids {
    /// What the worker drew at its start.
    prefix: u64,
    count: u64,
    block: Bytes,
}

/// A fresh request id: the worker's prefix and a count.
pub(super) fn request_id() -> HeaderValue {
    thread_local! {
        static IDS: RefCell<Ids> = RefCell::new(Ids {
            prefix: u64::from_ne_bytes((&OsRandom as &dyn Random).bytes()),
            count: 0,
            block: Bytes::new(),
        });
    }
    let id = IDS.with_borrow_mut(|ids| {
        if ids.block.is_empty() {
            let mut block = Vec::with_capacity(BLOCK as usize * ID_LENGTH);
            for count in ids.count..ids.count + BLOCK {
                // Formatting would cost more than the rest of a request's id.
                for word in [ids.prefix, count] {
                    let digit = |shift: u32| b"0123456789abcdef"[(word >> shift) as usize & 15];
                    block.extend((0..16).map(|index| digit(60 - 4 * index)));
                }
            }
            ids.count += BLOCK;
            ids.block = block.into();
        }
        ids.block.split_to(ID_LENGTH)
    });
    HeaderValue::from_maybe_shared(id).unwrap_or(HeaderValue::from_static("0"))
}
