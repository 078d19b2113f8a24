//! Failed calls of our own APIs, and how they are answered.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::Denied;
use crate::{
    account::AccountError,
    error::{Kind, Problem, Statuses},
    store::StoreError,
};

/// Why a call failed.
pub struct Failure {
    /// What the client hears.
    pub kind: Kind,
    /// What the person may be told beside it.
    pub detail: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// Whether a token was there and was bad.
    pub had_token: bool,
    /// What an operator should hear.
    pub log: Option<String>,
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
    #[must_use]
    pub fn while_registering(mut self) -> Self {
        if self.kind == Kind::Internal {
            self.kind = Kind::RegistrationFailed;
        }
        self
    }

    /// Says what is the operator's concern, once.
    pub fn log(&self, request_id: &str) {
        match &self.log {
            Some(reason) => tracing::warn!(request.id = request_id, reason, "{}", self.kind.message()),
            None => tracing::debug!(request.id = request_id, "{}", self.kind.message()),
        }
    }

    /// The answer.
    pub fn answer(&self, request_id: &str, statuses: &Statuses) -> Response<Bytes> {
        let status = statuses.of(self.kind);
        let body = Problem::with_status(self.kind, status, self.detail.as_deref(), request_id).to_json();
        let mut response = answer(status, Problem::CONTENT_TYPE, body);
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

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        AccountError::from(error).into()
    }
}

/// An answer that nobody may keep.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
