//! A failure as the client hears of it (RFC 9457). Every failed response of this program is made here.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Kind, Statuses};

/// The `Retry-After` of a temporary failure.
const UNAVAILABLE_FOR: Duration = Duration::from_secs(1);

/// The problem response to a failure.
#[derive(Debug)]
pub struct Problem {
    /// What happened.
    pub kind: Kind,
    /// What the person may be told beside it; nothing internal.
    pub detail: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// Whether a token was there and was bad.
    pub had_token: bool,
    /// What the caller's proof of who they are lacks.
    pub unproved: Option<Unproved>,
    /// The methods that would be taken, as `Allow` lists them.
    pub allow: Option<String>,
    /// Further members of the body (RFC 9457, section 3.2).
    pub further: Option<Box<serde_json::Map<String, serde_json::Value>>>,
}

/// What a proof of who the caller is must be for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unproved {
    /// Whether by two kinds of proof.
    pub needs_factors: bool,
    /// How old at most, in seconds.
    pub max_age: Option<u32>,
}

impl Unproved {
    /// Returns the value of `WWW-Authenticate` (RFC 9470, section 3).
    fn challenge(self) -> HeaderValue {
        let mut text = "Bearer error=\"insufficient_user_authentication\"".to_owned();
        if self.needs_factors {
            text.push_str(", acr_values=\"mfa\"");
        }
        if let Some(age) = self.max_age {
            text.push_str(&format!(", max_age={age}"));
        }
        HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("Bearer"))
    }
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self {
            kind,
            detail: None,
            retry_after: None,
            had_token: false,
            unproved: None,
            allow: None,
            further: None,
        }
    }
}

/// The body of a failed response: `application/problem+json`.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub struct ProblemBody<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    /// The status in words.
    title: &'static str,
    /// The status.
    status: u16,
    /// The message in snake case; stable.
    code: &'static str,
    /// The text for people.
    message: &'static str,
    /// More for that person, where there is more to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    /// The request's id, as in the log.
    request_id: &'a str,
    #[serde(flatten)]
    #[schemars(skip)]
    further: Option<&'a serde_json::Map<String, serde_json::Value>>,
}

impl Problem {
    /// The media type of the body.
    pub const CONTENT_TYPE: &'static str = "application/problem+json";

    /// The response, under the statuses that older clients may expect.
    pub fn response(&self, request_id: &str, statuses: &Statuses) -> Response<Bytes> {
        let status = statuses.of(self.kind);
        let body = ProblemBody {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            code: self.kind.code(),
            message: self.kind.message(),
            detail: self.detail.as_deref(),
            request_id,
            further: self.further.as_deref(),
        };
        // A struct of strings and one number cannot fail to serialise.
        let body = serde_json::to_string(&body).unwrap_or_default();
        let mut response = private_response(status, Self::CONTENT_TYPE, body);
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            // RFC 6750, section 3.
            let challenge = match self.unproved {
                Some(unproved) => unproved.challenge(),
                None if self.had_token => HeaderValue::from_static(r#"Bearer error="invalid_token""#),
                None => HeaderValue::from_static("Bearer"),
            };
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(after) = self.retry_after.or(self.is_passing().then_some(UNAVAILABLE_FOR)) {
            // Whole seconds, rounded up (RFC 9110, section 10.2.3).
            let seconds = u64::try_from(after.as_millis().div_ceil(1_000).max(1)).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(allow) = self.allow.as_deref().and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(header::ALLOW, allow);
        }
        response
    }

    fn is_passing(&self) -> bool {
        matches!(self.kind, Kind::Unavailable | Kind::NoHealthyUpstream)
    }
}

/// A response of this program itself, which no cache may keep and no browser may take for something else.
pub fn private_response(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// The same with JSON.
pub fn private_json(status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    // The bodies are structs of plain values, which always serialise.
    private_response(status, "application/json", serde_json::to_string(body).unwrap_or_default())
}
