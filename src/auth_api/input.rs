//! Bodies of calls, read into types.

use bytes::Bytes;
use http::{Request, header};
use serde::{Deserialize, de::DeserializeOwned};

use super::output::Failure;
use crate::{error::Kind, types::Secret};

/// Reads a JSON object. No body at all reads as an empty one.
///
/// # Errors
/// 415 for a body that does not say it is JSON, 400 for one that is not, `Missing parameters` for
/// a member of the wrong type.
pub(super) fn read<T: DeserializeOwned>(request: &Request<Bytes>) -> Result<T, Failure> {
    let body = request.body();
    if body.is_empty() {
        return serde_json::from_str("{}").map_err(|_| Kind::MissingParameters.into());
    }
    if !is_json(request) {
        return Err(Kind::UnsupportedMediaType.into());
    }
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Kind::MissingParameters.into(),
        _ => Kind::BadRequest.into(),
    })
}

fn is_json(request: &Request<Bytes>) -> bool {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 5 && essence[essence.len() - 5..].eq_ignore_ascii_case("+json"))
}

/// A member that must be there and not be empty.
pub(super) fn required(text: Option<String>) -> Result<String, Failure> {
    text.filter(|text| !text.is_empty()).ok_or_else(|| Kind::MissingParameters.into())
}

/// The same for one that must not be seen.
pub(super) fn required_secret(secret: Option<Secret>) -> Result<Secret, Failure> {
    secret.filter(|secret| !secret.expose().is_empty()).ok_or_else(|| Kind::MissingParameters.into())
}

/// An id of an account: ours, or the number or text that an older service gave.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum AccountId {
    Text(String),
    Number(i64),
}

impl From<AccountId> for String {
    fn from(id: AccountId) -> Self {
        match id {
            AccountId::Text(text) => text,
            AccountId::Number(number) => number.to_string(),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Email {
    pub(super) email: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Reset {
    pub(super) token: Option<Secret>,
    pub(super) new_password: Option<Secret>,
}

#[derive(Deserialize)]
pub(super) struct Verify {
    pub(super) token: Option<Secret>,
}

#[derive(Deserialize)]
pub(super) struct Register {
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
    pub(super) password_confirm: Option<Secret>,
    pub(super) email: Option<String>,
    pub(super) role: Option<String>,
    pub(super) roles: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(super) struct Login {
    pub(super) username: Option<String>,
    pub(super) password: Option<Secret>,
}

#[derive(Deserialize)]
pub(super) struct Refresh {
    pub(super) refresh_token: Option<Secret>,
}

#[derive(Deserialize)]
pub(super) struct Change {
    pub(super) user_id: Option<AccountId>,
    pub(super) new_username: Option<String>,
    pub(super) new_email: Option<String>,
    pub(super) new_password: Option<Secret>,
    pub(super) new_password_confirm: Option<Secret>,
    pub(super) current_password: Option<Secret>,
}

#[derive(Deserialize)]
pub(super) struct Delete {
    pub(super) user_id: Option<AccountId>,
    pub(super) current_password: Option<Secret>,
}
