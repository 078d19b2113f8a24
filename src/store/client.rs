//! Client programs, as they are stored.

use async_trait::async_trait;

use super::{Event, LogEntry, Result};
use crate::{
    clock::UnixMillis,
    types::{ClientId, Roles},
};

/// The columns of [`Client`].
pub(super) const CLIENT: &str = "id, name, roles, secret_hash, jwks, generation, created_at, last_used_at";

/// A client program.
#[derive(Clone, PartialEq, Eq)]
pub struct Client {
    /// Its id.
    pub id: ClientId,
    /// What operators call it, which is unique.
    pub name: String,
    /// Its roles.
    pub roles: Roles,
    /// SHA-256 of its secret, if it has one.
    pub secret_hash: Option<[u8; 32]>,
    /// Its public keys (RFC 7517), if it shows who it is by a key.
    pub jwks: Option<String>,
    /// Its generation. Tokens of older generations are revoked.
    pub generation: i64,
    /// When it was made.
    pub created_at: UnixMillis,
    /// When a token was last issued to it.
    pub last_used_at: Option<UnixMillis>,
}

/// A client to be stored.
#[derive(Clone)]
pub struct NewClient {
    /// Its id.
    pub id: ClientId,
    /// Its name.
    pub name: String,
    /// Its roles.
    pub roles: Roles,
    /// SHA-256 of its secret.
    pub secret_hash: Option<[u8; 32]>,
    /// Its public keys.
    pub jwks: Option<String>,
}

/// A change of a client. Its tokens end with each.
#[derive(Clone)]
pub enum ClientChange {
    /// Other roles.
    Roles(Roles),
    /// Another secret, by its SHA-256, also in place of keys.
    Secret([u8; 32]),
    /// Its end.
    Remove,
}

impl ClientChange {
    /// Returns the generation below which its tokens are dead; `raised` is its new one.
    pub fn below(&self, raised: i64) -> i64 {
        match self {
            Self::Remove => LogEntry::ALL,
            Self::Roles(_) | Self::Secret(_) => raised,
        }
    }
}

/// Client programs.
#[async_trait]
pub trait Clients: Send + Sync {
    /// Stores a client. Returns false if its name is taken.
    async fn add_client(&self, client: &NewClient, event: &Event) -> Result<bool>;

    /// Finds a client by its id.
    async fn client(&self, id: ClientId) -> Result<Option<Client>>;

    /// Finds a client by its name.
    async fn client_by_name(&self, name: &str) -> Result<Option<Client>>;

    /// Lists up to `limit` clients in the order of their names, behind `after`.
    async fn clients(&self, limit: u32, after: Option<&str>) -> Result<Vec<Client>>;

    /// Changes a client, and ends its tokens. Returns `None` if there is none.
    async fn change_client(
        &self,
        id: ClientId,
        change: &ClientChange,
        event: &Event,
    ) -> Result<Option<LogEntry>>;

    /// Allows a token that lives for `ttl` milliseconds to a client that has this generation still. Returns when, by the store's clock.
    async fn allow_client_token(&self, id: ClientId, generation: i64, ttl: i64)
    -> Result<Option<UnixMillis>>;
}
