//! Responses of calls.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use crate::{account::Tokens, types::Roles};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Message")]
pub(super) struct Message {
    pub(super) message: &'static str,
}

/// The tokens that register, login, refresh and change return.
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

/// The response to a change: new tokens for the caller's own account, a message alone for another's.
#[derive(JsonSchema)]
#[schemars(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) enum Changed {
    Own(Session<'static>),
    Other(Message),
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Account")]
pub(super) struct Account<'a> {
    pub(super) user_id: String,
    pub(super) username: &'a str,
    pub(super) email: Option<&'a str>,
    pub(super) email_verified: bool,
    /// An address that takes the place of `email` once it is verified.
    pub(super) pending_email: Option<&'a str>,
    #[schemars(with = "Vec<String>")]
    pub(super) roles: &'a Roles,
    /// What the config declares beside that, as far as it is set.
    pub(super) attributes: BTreeMap<&'a str, &'a str>,
    pub(super) created_at: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Sessions")]
pub(super) struct Sessions {
    pub(super) sessions: Vec<SessionEntry>,
    /// For `after`, to get the next page; null at the end.
    pub(super) next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Session")]
pub(super) struct SessionEntry {
    pub(super) id: String,
    pub(super) created_at: String,
    pub(super) last_used_at: String,
    /// Whether it is the caller's.
    pub(super) current: bool,
    /// The address that it was opened from; null if it is not known.
    pub(super) address: Option<String>,
    /// The program that it was opened by, as that has named itself; null if it is not known.
    pub(super) user_agent: Option<String>,
}

/// A new API key, which is shown once.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "NewApiKey")]
pub(super) struct NewApiKey<'a> {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) key: &'a str,
    pub(super) prefix: String,
    /// Null if it lives for ever.
    pub(super) expires_at: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Factors")]
pub(super) struct Factors {
    pub(super) factors: Vec<Factor>,
    /// How many recovery codes are left.
    pub(super) recovery_codes: u32,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Factor")]
pub(super) struct Factor {
    pub(super) id: String,
    /// totp or passkey.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) name: String,
    pub(super) created_at: String,
    /// Null before it was used.
    pub(super) last_used_at: Option<String>,
}

/// A factor that is not confirmed yet.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PendingFactor")]
pub(super) struct PendingFactor {
    pub(super) id: String,
    /// totp or passkey.
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    /// Of TOTP: the secret, in base32.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) secret: Option<String>,
    /// Of TOTP: the address that an app reads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uri: Option<String>,
    /// Of a passkey: the options to create it.
    #[serde(rename = "publicKey", skip_serializing_if = "Option::is_none")]
    pub(super) public_key: Option<serde_json::Value>,
}

/// Codes for when a factor is lost.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "RecoveryCodes")]
pub(super) struct RecoveryCodes {
    pub(super) recovery_codes: Vec<String>,
}

/// A confirmed factor. The new access token has its proof; after an enrolment at login, the response is that of a login.
#[derive(Default, Serialize, JsonSchema)]
#[schemars(rename = "ConfirmedFactor")]
pub(super) struct Confirmed<'a> {
    pub(super) message: &'static str,
    /// With the account's first factor.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) recovery_codes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) access_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_in: Option<i64>,
    #[serde(flatten)]
    #[schemars(skip)]
    pub(super) session: Option<Session<'a>>,
}

/// A challenge: its token, the methods that complete it, and the options for a passkey.
#[derive(Serialize)]
#[serde(transparent)]
pub(super) struct PendingChallenge(pub(super) serde_json::Map<String, serde_json::Value>);

/// The shape of a challenge.
#[derive(JsonSchema)]
#[schemars(rename = "Challenge")]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Challenge {
    challenge: String,
    methods: Vec<String>,
    #[schemars(rename = "publicKey")]
    public_key: Option<serde_json::Value>,
}

/// The shape of the key set, which the keyring writes.
#[derive(JsonSchema)]
#[schemars(rename = "JwkSet")]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct JwkSet {
    keys: Vec<serde_json::Map<String, serde_json::Value>>,
}
