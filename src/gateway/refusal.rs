//! Refusals of the data plane as responses.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::{
    head::{Asked, Delimiter, format},
    headers::REQUEST_ID,
};
use crate::{
    access::Denied,
    error::{Kind, Problem, Statuses},
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
        Self { problem: Problem { allow: Some(allow), ..kind.into() }, ..kind.into() }
    }

    /// The rate of a route is exceeded for so long.
    pub(super) fn too_many(wait: Duration) -> Self {
        let kind = Kind::TooManyRequests;
        Self { problem: Problem { retry_after: Some(wait), ..kind.into() }, reason: "rate_limited" }
    }

    /// The kind.
    pub(super) fn kind(&self) -> Kind {
        self.problem.kind
    }

    /// Whether the request may be decided once the issuer of its token was asked, or is to be counted for its bad key.
    pub(super) fn is_unsettled(&self) -> bool {
        self.reason == Denied::UNSETTLED || self.reason == Denied::BAD_KEY
    }

    /// Whether two factors are asked for.
    pub(super) fn needs_factors(&self) -> bool {
        self.problem.unproved.is_some_and(|unproved| unproved.needs_factors)
    }

    /// The label of `authgate_denied_total`.
    pub(super) fn reason(&self) -> &'static str {
        self.reason
    }

    /// Adds the fields of the refusal that say when, by which method or by what credential to try again.
    pub(super) fn add_fields(&self, response: &mut Response<Bytes>) {
        let own = self.problem.response("", &Statuses::default());
        let by_what = (response.status() == StatusCode::UNAUTHORIZED).then_some(header::WWW_AUTHENTICATE);
        let headers = response.headers_mut();
        for name in [header::RETRY_AFTER, header::ALLOW].into_iter().chain(by_what) {
            if let Some(value) = own.headers().get(&name) {
                headers.insert(name, value.clone());
            }
        }
        if matches!(self.problem.kind, Kind::BadRequest) {
            headers.insert(header::CONNECTION, CLOSE);
        }
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

/// Formats the response to what never became a request. It is the last one of its connection. A response to HEAD has no body.
pub(super) fn raw(out: &mut Vec<u8>, kind: Kind, request_id: &HeaderValue, to_head: bool) {
    let mut response = Refusal::from(kind).response(request_id, &Statuses::default());
    response.headers_mut().insert(&REQUEST_ID, request_id.clone());
    let length = Delimiter::Length(response.body().len() as u64);
    format(
        out,
        Asked { is_old: false, to_head },
        response.status(),
        &response.headers().into(),
        b"",
        length,
        true,
    );
    if !to_head {
        out.extend_from_slice(response.body());
    }
}
