//! Bodies of calls, read into types.

use bytes::Bytes;
use http::Request;
use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    access::Failure,
    error::Kind,
    factor::{Assertion, Attestation},
    types::{AttributeChanges, Secret},
    web::media_type::{FORM, essence},
};

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
    // A list would be taken for the members in their order.
    if body.trim_ascii_start().first() != Some(&b'{') {
        let json = serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok();
        return Err(if json { Kind::MissingParameters } else { Kind::BadRequest }.into());
    }
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Kind::MissingParameters.into(),
        _ => Kind::BadRequest.into(),
    })
}

/// The body of a call that takes no members.
#[derive(Deserialize)]
pub(super) struct Nothing {}

/// Reads a form.
///
/// # Errors
/// 415 for a body that does not say it is one, `Missing parameters` for one that lacks a field or has one twice.
pub(super) fn read_form<T: DeserializeOwned>(request: &Request<Bytes>) -> Result<T, Failure> {
    if !essence(request.headers()).eq_ignore_ascii_case(FORM) {
        return Err(Kind::UnsupportedMediaType.into());
    }
    serde_urlencoded::from_bytes(request.body()).map_err(|_| Kind::MissingParameters.into())
}

/// The form by which another issuer tells of a logout.
#[derive(Deserialize)]
pub(super) struct BackchannelLogout {
    pub(super) logout_token: String,
}

fn is_json(request: &Request<Bytes>) -> bool {
    let essence = essence(request.headers());
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 5 && essence[essence.len() - 5..].eq_ignore_ascii_case("+json"))
}

/// Which page of a list.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) limit: Option<u32>,
    pub(super) after: Option<String>,
}

/// How many of a list are wanted.
#[derive(JsonSchema)]
#[schemars(transparent)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Limit(#[schemars(range(min = 1, max = 200))] u32);

/// Reads which page of a list is wanted.
///
/// # Errors
/// `Missing parameters` for a limit out of bounds.
pub(super) fn page<T>(request: &Request<T>) -> Result<(u32, Option<String>), Failure> {
    let page: Page = serde_urlencoded::from_str(request.uri().query().unwrap_or_default())
        .map_err(|_| Kind::MissingParameters)?;
    let limit = page.limit.unwrap_or(50);
    if (1..=200).contains(&limit) { Ok((limit, page.after)) } else { Err(Kind::MissingParameters.into()) }
}

/// A member that must be there and not be empty.
pub(super) fn required(text: Option<String>) -> Result<String, Failure> {
    text.filter(|text| !text.is_empty()).ok_or_else(|| Kind::MissingParameters.into())
}

/// Returns a required secret.
pub(super) fn required_secret(secret: Option<Secret>) -> Result<Secret, Failure> {
    secret.filter(|secret| !secret.expose().is_empty()).ok_or_else(|| Kind::MissingParameters.into())
}

/// An id of an account: ours, or the number or text that an older service gave.
#[derive(Deserialize, JsonSchema)]
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

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "EmailRequest")]
pub(super) struct Email {
    /// The address.
    #[schemars(required, with = "String", length(min = 1))]
    pub(super) email: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ResetRequest")]
pub(super) struct Reset {
    /// The token from the mail.
    #[schemars(required, with = "String", length(min = 1))]
    pub(super) token: Option<Secret>,
    /// The new password.
    #[schemars(required, with = "String", length(min = 1))]
    pub(super) new_password: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "VerifyRequest")]
pub(super) struct Verify {
    /// The token from the mail. With a bearer token and without this one, the mail is sent again.
    pub(super) token: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "RegisterRequest")]
pub(super) struct Register {
    /// The name. Its canonical form (RFC 8265, UsernameCaseMapped) is the account's.
    #[schemars(required, with = "String", length(min = 1))]
    pub(super) username: Option<String>,
    /// The password.
    #[schemars(required, with = "String", length(min = 1))]
    pub(super) password: Option<Secret>,
    /// The new password again.
    pub(super) password_confirm: Option<Secret>,
    /// An e-mail address.
    pub(super) email: Option<String>,
    /// A role, in place of the default ones.
    pub(super) role: Option<String>,
    /// Roles, in place of the default ones.
    pub(super) roles: Option<Vec<String>>,
    /// The token of an invitation, which holds where registration is closed, too; its roles come beside.
    pub(super) invitation: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "LoginRequest")]
pub(super) struct Login {
    /// The name.
    #[schemars(required, with = "String", length(min = 1))]
    pub(super) username: Option<String>,
    /// The password.
    #[schemars(required, with = "String", length(min = 1))]
    pub(super) password: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "BeginFactorRequest")]
pub(super) struct BeginFactor {
    /// totp, passkey, or recovery for new recovery codes.
    #[serde(rename = "type")]
    #[schemars(required, with = "String", length(min = 1))]
    pub(super) kind: Option<String>,
    /// What the person calls it.
    pub(super) name: Option<String>,
    /// The challenge of `factor_enrolment_required`, in place of a bearer token.
    pub(super) challenge: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ConfirmFactorRequest")]
pub(super) struct ConfirmFactor {
    /// A code of the app.
    pub(super) code: Option<Secret>,
    /// The passkey, as the browser gives it.
    pub(super) credential: Option<Attestation>,
    /// The challenge of `factor_enrolment_required`, in place of a bearer token.
    pub(super) challenge: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "NewApiKeyRequest")]
pub(super) struct NewApiKey {
    /// What its owner calls it.
    #[schemars(required, with = "String", length(min = 1, max = 64))]
    pub(super) name: Option<String>,
    /// The paths that it opens, as patterns of routes; all without.
    pub(super) routes: Option<Vec<String>>,
    /// Of the owner's roles those that it has; all without.
    pub(super) roles: Option<Vec<String>>,
    /// How long it lives, in seconds; for ever without.
    pub(super) expires_in: Option<i64>,
    /// The addresses and networks that it is accepted from; all without.
    pub(super) address_ranges: Option<Vec<String>>,
}

/// The form by which a client asks for a token.
#[derive(JsonSchema)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct TokenRequest {
    /// client_credentials.
    grant_type: String,
    /// Roles, with spaces between; all of the client's without.
    scope: Option<String>,
    /// urn:ietf:params:oauth:client-assertion-type:jwt-bearer, with an assertion.
    client_assertion_type: Option<String>,
    /// What the client's key has signed (RFC 7523), in place of `Authorization: Basic`.
    client_assertion: Option<String>,
}

/// The form by which a client asks about a token, or ends it.
#[derive(JsonSchema)]
#[schemars(rename = "ClientTokenRequest")]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct TokenOfClient {
    /// The token.
    token: String,
    /// access_token.
    token_type_hint: Option<String>,
    /// urn:ietf:params:oauth:client-assertion-type:jwt-bearer, with an assertion.
    client_assertion_type: Option<String>,
    /// What the client's key has signed (RFC 7523), in place of `Authorization: Basic`.
    client_assertion: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ChallengeResponse")]
pub(super) struct ChallengeResponse {
    /// The challenge.
    #[schemars(required, with = "String", length(min = 1))]
    pub(super) challenge: Option<Secret>,
    /// totp, passkey, recovery, email, or password where the account has no factor. With email and no code, a code is sent.
    pub(super) method: Option<String>,
    /// The code.
    pub(super) code: Option<Secret>,
    /// The password.
    pub(super) password: Option<Secret>,
    /// The passkey, as the browser gives it.
    pub(super) credential: Option<Assertion>,
    /// Whether the browser gets a cookie by which it is not asked again for a while.
    pub(super) remember_device: Option<bool>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "RefreshRequest")]
pub(super) struct Refresh {
    /// The refresh token.
    pub(super) refresh_token: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "ChangeRequest")]
pub(super) struct Change {
    /// Whose account; the caller's own without.
    pub(super) user_id: Option<AccountId>,
    /// A new name.
    pub(super) new_username: Option<String>,
    /// A new e-mail address.
    pub(super) new_email: Option<String>,
    /// A new password.
    pub(super) new_password: Option<Secret>,
    /// The new password again.
    pub(super) new_password_confirm: Option<Secret>,
    /// New values of attributes that people set themselves; null takes one away.
    #[serde(default)]
    pub(super) attributes: AttributeChanges,
    /// The caller's own password, where the login is not recent.
    pub(super) current_password: Option<Secret>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "DeleteRequest")]
pub(super) struct Delete {
    /// Whose account; the caller's own without.
    pub(super) user_id: Option<AccountId>,
    /// The caller's own password, where the login is not recent.
    pub(super) current_password: Option<Secret>,
}
