//! Refusals of the data plane as responses.

use std::{
    cell::RefCell,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use httpdate::HttpDate;

use super::headers::REQUEST_ID;
use crate::{
    access::Denied,
    clock::log_micros,
    error::{Kind, Problem, Statuses},
    types::{OsRandom, Random},
};

const CLOSE: HeaderValue = HeaderValue::from_static("close");

/// A refusal with the details for the client.
#[derive(Debug)]
pub(super) struct Refusal {
    problem: Problem,
    reason: &'static str,
}

impl From<Kind> for Refusal {
    fn from(kind: Kind) -> Self {
        Self { problem: kind.into(), reason: kind.code() }
    }
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self { problem: denied.into(), reason: denied.reason() }
    }
}

impl Refusal {
    /// The path exists with other methods.
    pub(super) fn wrong_method(allow: String) -> Self {
        let kind = Kind::MethodNotAllowed;
        Self { problem: Problem { allow: Some(allow), ..kind.into() }, reason: kind.code() }
    }

    /// The label of `authgate_denied_total`.
    pub(super) fn reason(&self) -> &'static str {
        self.reason
    }

    /// The response.
    pub(super) fn response(&self, request_id: &HeaderValue, statuses: &Statuses) -> Response<Bytes> {
        let mut response = self.problem.response(request_id.to_str().unwrap_or_default(), statuses);
        // What the client still sends is not waited for.
        if matches!(self.problem.kind, Kind::RequestTimeout | Kind::BodyTooLarge | Kind::BadRequest) {
            response.headers_mut().insert(header::CONNECTION, CLOSE);
        }
        response
    }
}

/// The response as bytes on the wire, for what never became a request; without its body as the response to HEAD. It is the
/// last one of its connection.
pub(super) fn raw(kind: Kind, request_id: &HeaderValue, to_head: bool) -> Bytes {
    let mut response = Refusal::from(kind).response(request_id, &Statuses::default());
    let date = HttpDate::from(UNIX_EPOCH + Duration::from_micros(log_micros().unsigned_abs())).to_string();
    let length = response.body().len();
    let headers = response.headers_mut();
    headers.insert(&REQUEST_ID, request_id.clone());
    headers.insert(header::CONNECTION, CLOSE);
    headers.insert(header::CONTENT_LENGTH, length.into());
    headers.insert(header::DATE, HeaderValue::try_from(date).unwrap_or(HeaderValue::from_static("")));
    let mut bytes = head(response.status(), response.headers());
    if !to_head {
        bytes.extend_from_slice(response.body());
    }
    bytes.into()
}

/// The head of a response as HTTP/1.1 has it (RFC 9112, section 4).
pub(super) fn head(status: StatusCode, headers: &HeaderMap) -> Vec<u8> {
    let mut head = Vec::with_capacity(512);
    head.extend_from_slice(b"HTTP/1.1 ");
    head.extend_from_slice(status.as_str().as_bytes());
    head.push(b' ');
    head.extend_from_slice(status.canonical_reason().unwrap_or("Error").as_bytes());
    for (name, value) in headers {
        head.extend_from_slice(b"\r\n");
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
    }
    head.extend_from_slice(b"\r\n\r\n");
    head
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
