//! What the admin API reads and writes.

use std::{collections::BTreeMap, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{
    account::ListedSessions,
    clock::rfc3339,
    config::{LogLevel, Span},
    store,
    types::{AttributeChanges, Secret},
    upstream::ServerReport,
};

/// An account to be made.
#[derive(Deserialize, JsonSchema)]
pub(super) struct NewUser {
    /// The name.
    pub(super) username: String,
    /// The password.
    #[schemars(with = "String")]
    pub(super) password: Secret,
    /// Whether the owner is to choose another one at the first login.
    #[serde(default)]
    pub(super) must_change_password: bool,
    /// An e-mail address.
    pub(super) email: Option<String>,
    /// Whether the name of a former account may be given out again.
    #[serde(default)]
    pub(super) release: bool,
    /// Whether the name may look like that of another account.
    #[serde(default)]
    pub(super) allow_similar: bool,
    /// The roles; the default ones without.
    pub(super) roles: Option<Vec<String>>,
    /// Attributes that the config declares.
    #[serde(default)]
    pub(super) attributes: AttributeChanges,
}

/// An invitation to be made.
#[derive(Default, Deserialize, JsonSchema)]
pub(super) struct NewInvitation {
    /// A role beside the default ones.
    pub(super) role: Option<String>,
    /// Roles beside the default ones.
    pub(super) roles: Option<Vec<String>>,
    /// How many accounts may be made by it. Default: 1.
    #[schemars(range(min = 1, max = 100_000))]
    pub(super) uses: Option<u32>,
    /// How long it holds: seconds, or a text such as 7d, which is the default.
    pub(super) expires: Option<Lifetime>,
}

/// A span of time: seconds, or a text such as 7d.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Lifetime {
    Seconds(#[schemars(range(min = 1))] u32),
    Text(String),
}

impl Lifetime {
    /// Returns the span, if it is one.
    pub(super) fn span(&self) -> Option<Duration> {
        match self {
            Self::Seconds(seconds) => Some(Duration::from_secs((*seconds).into())),
            Self::Text(text) => text.parse::<Span>().ok().map(|Span(span)| span),
        }
    }
}

/// An invitation that was made. The link is not stored.
#[derive(Serialize, JsonSchema)]
pub(super) struct Invitation {
    pub(super) id: String,
    pub(super) link: String,
    pub(super) expires_at: String,
}

/// A link to set a new password, to be made.
#[derive(Default, Deserialize, JsonSchema)]
pub(super) struct NewResetLink {
    /// How long it holds: seconds, or a text such as 1d, which is the default.
    pub(super) expires: Option<Lifetime>,
}

/// A link to set a new password. It is not stored.
#[derive(Serialize, JsonSchema)]
pub(super) struct ResetLink {
    pub(super) link: String,
    pub(super) expires_at: String,
}

/// A change of an account. Its sessions end.
#[derive(Deserialize, JsonSchema)]
pub(super) struct UserUpdate {
    /// The roles.
    pub(super) roles: Option<Vec<String>>,
    /// Whether it may not log in.
    pub(super) disabled: Option<bool>,
    /// The password.
    #[schemars(with = "Option<String>")]
    pub(super) password: Option<Secret>,
    /// Whether the owner is to choose another password at the next login.
    pub(super) must_change_password: Option<bool>,
    /// The e-mail address, not verified yet; null takes it away.
    #[serde(default, deserialize_with = "present")]
    #[schemars(with = "Option<String>")]
    pub(super) email: Option<Option<String>>,
    /// New values of attributes that the config declares; null takes one away.
    #[serde(default)]
    pub(super) attributes: AttributeChanges,
}

/// Tells a member that is null from one that is not there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// An account.
#[derive(Serialize, JsonSchema)]
pub(super) struct User {
    user_id: String,
    username: String,
    email: Option<String>,
    email_verified: bool,
    /// An address that takes the place of `email` once it is verified.
    pending_email: Option<String>,
    /// The id that an imported account had before.
    external_id: Option<String>,
    roles: Vec<String>,
    disabled: bool,
    /// Whether the owner is to choose another password at the next login.
    must_change_password: bool,
    /// What is known beside that; also what the config does not declare any more.
    attributes: BTreeMap<String, String>,
    created_at: String,
    /// Raised by every change; `If-Match` names it in quotes.
    version: i64,
}

impl From<store::User> for User {
    fn from(user: store::User) -> Self {
        Self {
            user_id: user.id.to_string(),
            username: user.name.to_string(),
            email: user.email,
            email_verified: user.email_verified,
            pending_email: user.pending_email,
            external_id: user.external_id,
            roles: user.roles.iter().map(ToString::to_string).collect(),
            disabled: user.disabled,
            must_change_password: user.must_change_password,
            attributes: user
                .attributes
                .iter()
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            created_at: rfc3339(user.created_at),
            version: user.generation,
        }
    }
}

/// Accounts, in the order of their names.
#[derive(Serialize, JsonSchema)]
pub(super) struct Users {
    pub(super) users: Vec<User>,
    /// What `after` is for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// A session.
#[derive(Serialize, JsonSchema)]
pub(super) struct Session {
    id: String,
    created_at: String,
    last_used_at: String,
    /// The address that it was opened from; null if it is not known.
    address: Option<String>,
    /// The program that it was opened by, as that has named itself; null if it is not known.
    user_agent: Option<String>,
}

/// The live sessions of an account, newest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct Sessions {
    sessions: Vec<Session>,
    /// For `after`, to get the next page; null at the end.
    next: Option<String>,
}

/// Which page of a list.
#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) after: Option<String>,
    pub(super) limit: Option<u32>,
}

impl From<store::Session> for Session {
    fn from(session: store::Session) -> Self {
        Self {
            id: session.id.to_string(),
            created_at: rfc3339(session.created_at),
            last_used_at: rfc3339(session.last_used_at),
            address: session.place.address,
            user_agent: session.place.user_agent,
        }
    }
}

impl From<ListedSessions> for Sessions {
    fn from(listed: ListedSessions) -> Self {
        Self { sessions: listed.sessions.into_iter().map(Session::from).collect(), next: listed.next }
    }
}

/// A signing key.
#[derive(Serialize, JsonSchema)]
pub(super) struct Key {
    kid: String,
    algorithm: String,
    created_at: String,
    /// When it begins to sign.
    signs_at: String,
    /// When it stops verifying; null while it may sign.
    expires_at: Option<String>,
}

impl From<store::StoredKey> for Key {
    fn from(key: store::StoredKey) -> Self {
        Self {
            kid: key.kid,
            algorithm: key.algorithm,
            created_at: rfc3339(key.created_at),
            signs_at: rfc3339(key.signs_at),
            expires_at: key.expires_at.map(rfc3339),
        }
    }
}

/// The signing keys.
#[derive(Serialize, JsonSchema)]
pub(super) struct Keys {
    pub(super) keys: Vec<Key>,
}

/// A config was taken up.
#[derive(Serialize, JsonSchema)]
pub(super) struct Reloaded {
    pub(super) message: &'static str,
    /// About legal but unwise settings.
    pub(super) warnings: Vec<String>,
}

/// The level of the log.
#[derive(Deserialize, JsonSchema)]
pub(super) struct LogSettings {
    /// The least severe level that is logged.
    pub(super) level: LogLevel,
}

/// Tokens of another issuer that are to be ended: by exactly one of `sub`, `sid` and `jti`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Revocation {
    /// The issuer, by its name in the config.
    pub(super) issuer: String,
    /// The subject whose tokens are ended: those issued so far, or with `until` all of them until then.
    pub(super) sub: Option<String>,
    /// The session whose tokens are ended.
    pub(super) sid: Option<String>,
    /// The token that is ended.
    pub(super) jti: Option<String>,
    /// Until when, as RFC 3339 has it. Default: as long as such a token may live.
    pub(super) until: Option<String>,
}

/// Tokens that were ended.
#[derive(Serialize, JsonSchema)]
pub(super) struct Revoked {
    pub(super) message: &'static str,
    /// Until when they are ended.
    pub(super) until: String,
}

/// The upstreams.
#[derive(Serialize, JsonSchema)]
pub(super) struct Upstreams {
    pub(super) upstreams: Vec<Upstream>,
}

/// The servers of an upstream.
#[derive(Serialize, JsonSchema)]
pub(super) struct Upstream {
    pub(super) name: String,
    pub(super) servers: Vec<Server>,
}

/// A server of an upstream.
#[derive(Serialize, JsonSchema)]
pub(super) struct Server {
    /// As in the config.
    url: String,
    /// Where that leads.
    address: String,
    weight: u32,
    /// up, unhealthy, ejected or drained.
    state: &'static str,
    /// Connections that serve a request or are being opened.
    active: usize,
    /// Idle connections.
    idle: usize,
    /// Requests that wait for a connection.
    waiting: usize,
}

impl From<ServerReport> for Server {
    fn from(report: ServerReport) -> Self {
        Self {
            url: report.url,
            address: report.address,
            weight: report.weight,
            state: report.state.as_str(),
            active: report.connections.active,
            idle: report.connections.idle,
            waiting: report.connections.waiting,
        }
    }
}

/// A line of the audit trail.
#[derive(Serialize, JsonSchema)]
pub(super) struct AuditLine {
    seq: i64,
    at: String,
    /// The account that did it; null for the command line.
    actor_id: Option<String>,
    actor: String,
    /// From where.
    address: Option<String>,
    action: String,
    subject_id: Option<String>,
    subject: String,
    detail: String,
}

impl From<store::AuditEntry> for AuditLine {
    fn from(entry: store::AuditEntry) -> Self {
        Self {
            seq: entry.seq,
            at: rfc3339(entry.at),
            actor_id: entry.actor_id,
            actor: entry.actor,
            address: entry.address,
            action: entry.action,
            subject_id: entry.subject_id,
            subject: entry.subject,
            detail: entry.detail,
        }
    }
}

/// The audit trail, newest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct AuditTrail {
    pub(super) entries: Vec<AuditLine>,
    /// What `before` is for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<i64>,
}

/// A confirmation.
#[derive(Serialize, JsonSchema)]
pub(super) struct Message {
    pub(super) message: &'static str,
}

/// The query of a list of accounts.
#[derive(Deserialize)]
pub(super) struct UserQuery {
    pub(super) search: Option<String>,
    pub(super) email: Option<String>,
    pub(super) external_id: Option<String>,
    pub(super) role: Option<String>,
    pub(super) disabled: Option<bool>,
    pub(super) after: Option<String>,
    pub(super) limit: Option<u32>,
}

/// The query of the audit trail.
#[derive(Deserialize)]
pub(super) struct AuditQuery {
    pub(super) user: Option<String>,
    pub(super) before: Option<i64>,
    pub(super) limit: Option<u32>,
}

/// How many of a list are wanted.
#[derive(JsonSchema)]
#[schemars(transparent)]
#[expect(dead_code, reason = "only its schema is used")]
pub(super) struct Limit(#[schemars(range(min = 1, max = 500))] u32);
