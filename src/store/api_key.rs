//! API keys, as they are stored.

use async_trait::async_trait;
use ipnet::IpNet;

use super::{Event, LogEntry, NewMail, Result, Revoked, millis};
use crate::{
    clock::UnixMillis,
    types::{ApiKeyId, Attributes, Roles, UserId},
};

/// How long the log remembers that a key has ended: a database that is given back an older state is told of it again.
const ENDED_FOR: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// The limits of an API key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiKeyLimits {
    /// Of the owner's roles those that it has; all without.
    pub roles: Option<Roles>,
    /// The patterns of the paths that it opens; all without.
    pub routes: Vec<String>,
    /// The networks that it is accepted from; all without.
    pub networks: Vec<IpNet>,
}

/// An API key to be stored.
#[derive(Clone)]
pub struct NewApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// SHA-256 of it.
    pub hash: [u8; 32],
    /// What its owner calls it.
    pub name: String,
    /// Its limits.
    pub limits: ApiKeyLimits,
    /// How long it lives, in milliseconds; for ever without.
    pub lives_for: Option<i64>,
    /// The most keys that an account may have, this one included.
    pub most: u32,
    /// The mail that tells the owner.
    pub mail: Option<NewMail>,
}

impl NewApiKey {
    /// Returns the key as it is when it was made at `now`.
    pub(super) fn stored_at(&self, now: UnixMillis) -> ApiKey {
        ApiKey {
            id: self.id,
            name: self.name.clone(),
            limits: self.limits.clone(),
            created_at: now,
            // Whole seconds are what is compared, and none of them is to be missing.
            expires_at: self
                .lives_for
                .map(|span| (now.saturating_add(span).saturating_add(999) / 1_000) * 1_000),
            last_used_at: None,
        }
    }
}

/// An API key that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// What its owner calls it.
    pub name: String,
    /// Its limits.
    pub limits: ApiKeyLimits,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When it expires.
    pub expires_at: Option<UnixMillis>,
    /// When it was last used, to a minute.
    pub last_used_at: Option<UnixMillis>,
}

/// An API key that lives, as requests are decided by it.
#[derive(Clone)]
pub struct LiveApiKey {
    /// Its id.
    pub id: ApiKeyId,
    /// SHA-256 of it.
    pub hash: [u8; 32],
    /// Its limits.
    pub limits: ApiKeyLimits,
    /// When it expires.
    pub expires_at: Option<UnixMillis>,
    /// Its owner.
    pub owner: UserId,
    /// Its owner's name.
    pub name: String,
    /// Its owner's roles.
    pub roles: Roles,
    /// Its owner's id in the program that they were imported from.
    pub external_id: Option<String>,
    /// Its owner's generation.
    pub generation: i64,
    /// Its owner's e-mail address.
    pub email: Option<String>,
    /// Whether that is verified.
    pub email_verified: bool,
    /// Its owner's attributes.
    pub attributes: Attributes,
}

/// The result of storing a key.
#[derive(Debug, Clone)]
pub enum ApiKeyAdded {
    /// It is stored, and the log says so.
    Done(ApiKey, LogEntry),
    /// The account has too many.
    TooMany,
    /// The account is gone, disabled, or of another generation.
    Gone,
}

/// Which of an account's keys to list, newest first.
#[derive(Debug, Clone, Copy)]
pub struct ApiKeyPage {
    /// The greatest number of keys.
    pub limit: u32,
    /// The last key of the page before: when it was made, and its id.
    pub after: Option<(UnixMillis, ApiKeyId)>,
}

impl ApiKeyPage {
    /// Parses a cursor that [`Self::cursor`] returned.
    pub fn parse(cursor: &str) -> Option<(UnixMillis, ApiKeyId)> {
        let (created_at, id) = cursor.split_once('.')?;
        Some((created_at.parse().ok()?, ApiKeyId::parse(id)?))
    }

    /// Returns the cursor of the page after a key.
    pub fn cursor(key: &ApiKey) -> String {
        format!("{}.{}", key.created_at, key.id)
    }
}

/// Which live keys to read.
#[derive(Debug, Clone, Default)]
pub struct ApiKeySelection {
    /// These.
    pub ids: Vec<ApiKeyId>,
    /// And those of these owners.
    pub owners: Vec<UserId>,
}

/// Takes in live keys, in no order that matters.
pub type ApiKeySink<'a> = &'a mut (dyn FnMut(LiveApiKey) + Send);

/// API keys. A change of an account that removes it or disables it ends them; one of its name or roles has them read again.
#[async_trait]
pub trait ApiKeys: Send + Sync {
    /// Stores a key, if the account has this generation still.
    async fn add_api_key(
        &self,
        owner: UserId,
        generation: i64,
        key: &NewApiKey,
        event: &Event,
    ) -> Result<ApiKeyAdded>;

    /// Lists the live keys of an account, newest first.
    async fn api_keys(&self, owner: UserId, page: ApiKeyPage) -> Result<Vec<ApiKey>>;

    /// Ends a key. Returns `None` if the account has no such key.
    async fn end_api_key(&self, owner: UserId, id: ApiKeyId, event: &Event) -> Result<Option<LogEntry>>;

    /// Gives `sink` live keys; all without a selection. What was given is true even if the call fails then.
    async fn read_api_keys(&self, which: Option<&ApiKeySelection>, sink: ApiKeySink<'_>) -> Result<()>;

    /// Notes when keys were last used.
    async fn note_api_keys_used(&self, used: &[(ApiKeyId, UnixMillis)]) -> Result<()>;
}

impl LogEntry {
    /// Returns the entry that says that there is a new key.
    pub(super) fn of_new_api_key(id: ApiKeyId, now: UnixMillis) -> Self {
        Self::new(Revoked::ApiKey(id), 0, 0, now)
    }

    /// Returns the entry that ends a key.
    pub fn of_ended_api_key(id: ApiKeyId, now: UnixMillis) -> Self {
        Self::new(Revoked::ApiKey(id), Self::ALL, now + millis(ENDED_FOR), now)
    }

    /// Returns the entry that has the keys of an owner read again. With the generation 0 they are good meanwhile, too: nothing was taken
    /// away.
    pub fn of_key_owner(owner: UserId, generation: i64, now: UnixMillis) -> Self {
        Self::new(Revoked::KeyOwner(owner), generation, 0, now)
    }
}

impl ApiKeyLimits {
    /// Returns the routes and the networks as the store keeps them, one a line.
    pub(super) fn joined(&self) -> (Option<String>, String, String) {
        let networks: Vec<String> = self.networks.iter().map(ToString::to_string).collect();
        (self.roles.as_ref().map(ToString::to_string), self.routes.join("\n"), networks.join("\n"))
    }

    /// Reads what [`Self::joined`] returned. Returns `None` for what that could not have been.
    pub(super) fn read(roles: Option<&str>, routes: &str, networks: &str) -> Option<Self> {
        Some(Self {
            roles: roles.map(Roles::parse_joined).transpose().ok()?,
            routes: routes.lines().map(str::to_owned).collect(),
            networks: networks.lines().map(|line| line.parse().ok()).collect::<Option<_>>()?,
        })
    }
}
