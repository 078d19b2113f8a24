//! The calls about client programs.

use http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AdminApi, Asked, CallResult,
    handler::{done, limit, parse_roles, read, read_query},
    shape::Page,
};
use crate::{
    access::Failure,
    clock::rfc3339,
    error::{Kind, private_json},
    store,
    types::{self, ClientId},
};

/// A client to be made.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewClient {
    /// What operators call it.
    name: String,
    /// Its roles.
    #[serde(default)]
    roles: Vec<String>,
    /// Its public keys (RFC 7517), in place of a secret.
    jwks: Option<serde_json::Map<String, serde_json::Value>>,
}

/// Roles to be set.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ClientRoles")]
pub(super) struct Roles {
    roles: Vec<String>,
}

/// A client, and its secret, which is shown once.
#[derive(Serialize, JsonSchema)]
pub(super) struct ClientSecret {
    client_id: String,
    /// Null if it shows who it is by a key.
    client_secret: Option<String>,
}

/// A page of a list of clients.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Clients")]
pub(super) struct ClientList {
    clients: Vec<Client>,
    /// For `after`, to get the next page; null at the end.
    next: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct Client {
    client_id: String,
    name: String,
    #[schemars(with = "Vec<String>")]
    roles: types::Roles,
    /// client_secret_basic or private_key_jwt.
    method: &'static str,
    created_at: String,
    /// When a token was last issued to it; null before.
    last_used_at: Option<String>,
}

impl From<store::Client> for Client {
    fn from(client: store::Client) -> Self {
        Self {
            client_id: client.id.to_string(),
            name: client.name,
            roles: client.roles,
            method: if client.jwks.is_some() { "private_key_jwt" } else { "client_secret_basic" },
            created_at: rfc3339(client.created_at),
            last_used_at: client.last_used_at.map(rfc3339),
        }
    }
}

impl AdminApi {
    async fn client(&self, id: &str) -> Result<store::Client, Failure> {
        let id = ClientId::parse(id).ok_or(Kind::NotFound)?;
        Ok(self.operator.store.client(id).await?.ok_or(Kind::NotFound)?)
    }

    pub(super) async fn clients(&self, asked: Asked<'_>) -> CallResult {
        let page: Page = read_query(asked.query)?;
        let limit = limit(page.limit)?;
        let mut clients = self.operator.store.clients(limit + 1, page.after.as_deref()).await?;
        let has_more = clients.len() > limit as usize;
        clients.truncate(limit as usize);
        let next = clients.last().filter(|_| has_more).map(|client| client.name.clone());
        let clients = clients.into_iter().map(Client::from).collect();
        Ok(private_json(StatusCode::OK, &ClientList { clients, next }))
    }

    pub(super) async fn add_client(&self, asked: Asked<'_>) -> CallResult {
        let by = asked.by()?.clone();
        let wanted: NewClient = read(asked.headers, asked.body).await?;
        let jwks = wanted.jwks.map(|jwks| serde_json::Value::Object(jwks).to_string());
        let made = self.operator.add_client(&by, &wanted.name, parse_roles(&wanted.roles)?, jwks).await?;
        let client_secret = made.secret.map(|secret| secret.expose().to_owned());
        let body = ClientSecret { client_id: made.id.to_string(), client_secret };
        Ok(private_json(StatusCode::CREATED, &body))
    }

    pub(super) async fn set_client_roles(&self, asked: Asked<'_>) -> CallResult {
        let by = asked.by()?.clone();
        let client = self.client(asked.parameter(0)).await?;
        let wanted: Roles = read(asked.headers, asked.body).await?;
        self.operator.set_client_roles(&by, &client, parse_roles(&wanted.roles)?).await?;
        Ok(done("Set"))
    }

    pub(super) async fn renew_client_secret(&self, asked: Asked<'_>) -> CallResult {
        let client = self.client(asked.parameter(0)).await?;
        let secret = self.operator.renew_client_secret(asked.by()?, &client).await?;
        let client_secret = Some(secret.expose().to_owned());
        Ok(private_json(
            StatusCode::CREATED,
            &ClientSecret { client_id: client.id.to_string(), client_secret },
        ))
    }

    pub(super) async fn remove_client(&self, asked: Asked<'_>) -> CallResult {
        let client = self.client(asked.parameter(0)).await?;
        self.operator.remove_client(asked.by()?, &client).await?;
        Ok(done("Removed"))
    }
}
