//! Answers of calls.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use schemars::JsonSchema;
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    access::Denied,
    account::{AccountError, Tokens},
    clock::UnixMillis,
    error::{Kind, Problem, Statuses},
    types::Roles,
};

/// Why a call failed.
pub(super) struct Failure {
    kind: Kind,
    detail: Option<String>,
    retry_after: Option<Duration>,
    had_token: bool,
    log: Option<String>,
}

impl From<Kind> for Failure {
    fn from(kind: Kind) -> Self {
        Self { kind, detail: None, retry_after: None, had_token: false, log: None }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self { had_token: denied.had_token(), ..denied.kind().into() }
    }
}

impl From<AccountError> for Failure {
    fn from(error: AccountError) -> Self {
        Self {
            kind: error.kind(),
            detail: error.detail(),
            retry_after: error.retry_after(),
            // A token that got this far was good, unless it is now said not to be.
            had_token: error.kind() == Kind::Unauthenticated,
            log: error.is_ours().then(|| error.to_string()),
        }
    }
}

impl Failure {
    /// A failure of ours while registering has its own words.
    pub(super) fn while_registering(mut self) -> Self {
        if self.kind == Kind::Internal {
            self.kind = Kind::RegistrationFailed;
        }
        self
    }

    /// Says what is the operator's concern, once.
    pub(super) fn log(&self, request_id: &str) {
        match &self.log {
            Some(reason) => tracing::warn!(request.id = request_id, reason, "{}", self.kind.message()),
            None => tracing::debug!(request.id = request_id, "{}", self.kind.message()),
        }
    }

    pub(super) fn answer(&self, request_id: &str, statuses: &Statuses) -> Response<Bytes> {
        let status = statuses.of(self.kind);
        let body = Problem::with_status(self.kind, status, self.detail.as_deref(), request_id).to_json();
        let mut response = response(status, Problem::CONTENT_TYPE, body);
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            let challenge = if self.had_token { r#"Bearer error="invalid_token""# } else { "Bearer" };
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        let unavailable = (self.kind == Kind::Unavailable).then_some(Duration::from_secs(1));
        if let Some(after) = self.retry_after.or(unavailable) {
            // Whole seconds, rounded up (RFC 9110, section 10.2.3).
            let seconds = after.as_millis().div_ceil(1_000).max(1);
            if let Ok(value) = HeaderValue::try_from(seconds.to_string()) {
                headers.insert(header::RETRY_AFTER, value);
            }
        }
        response
    }
}

/// An answer that nobody may keep.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<Bytes> {
    // The bodies are structs of plain values, which always serialise.
    response(status, "application/json", serde_json::to_string(body).unwrap_or_default())
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Message")]
pub(super) struct Message {
    pub(super) message: &'static str,
}

/// What register, login, refresh and change answer.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tokens")]
pub(super) struct Session<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    user_id: String,
    username: &'a str,
    #[schemars(with = "Vec<String>")]
    roles: &'a Roles,
    access_token: &'a str,
    refresh_token: &'a str,
    token_type: &'static str,
    expires_in: i64,
    /// The access token once more, under the names that older clients know.
    #[serde(flatten)]
    #[schemars(skip)]
    further: BTreeMap<&'a str, &'a str>,
}

impl<'a> Session<'a> {
    pub(super) fn new(tokens: &'a Tokens, message: Option<&'static str>, further: &'a [String]) -> Self {
        Self {
            message,
            user_id: tokens.user.id.to_string(),
            username: tokens.user.name.as_str(),
            roles: &tokens.user.roles,
            access_token: &tokens.access.text,
            refresh_token: tokens.refresh.expose(),
            token_type: "Bearer",
            expires_in: tokens.access.expires_in,
            further: further.iter().map(|name| (name.as_str(), tokens.access.text.as_str())).collect(),
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Account")]
pub(super) struct Account<'a> {
    pub(super) user_id: String,
    pub(super) username: &'a str,
    pub(super) email: Option<&'a str>,
    #[schemars(with = "Vec<String>")]
    pub(super) roles: &'a Roles,
    pub(super) created_at: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Sessions")]
pub(super) struct Sessions {
    pub(super) sessions: Vec<SessionEntry>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Session")]
pub(super) struct SessionEntry {
    pub(super) id: String,
    pub(super) created_at: String,
    pub(super) last_used_at: String,
    pub(super) current: bool,
}

/// RFC 3339, in UTC.
pub(super) fn timestamp(at: UnixMillis) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}

/// The shape of the key set, which the keyring writes.
#[derive(JsonSchema)]
#[schemars(rename = "JwkSet")]
#[allow(dead_code, reason = "only its schema is used")]
pub(super) struct JwkSet {
    keys: Vec<serde_json::Map<String, serde_json::Value>>,
}
