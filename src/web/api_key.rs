//! API keys as their owners and administrators read them.

use schemars::JsonSchema;
use serde::Serialize;

use crate::{account::ListedKeys, clock::rfc3339, store, types::Roles};

/// A page of a list of keys.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ApiKeys")]
pub struct ApiKeys {
    keys: Vec<ApiKey>,
    /// For `after`, to get the next page; null at the end.
    next: Option<String>,
}

/// A key, without its secret.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ApiKey")]
pub struct ApiKey {
    id: String,
    name: String,
    prefix: String,
    /// The paths that it opens; null for all.
    routes: Option<Vec<String>>,
    /// The roles that it was given; null for all of the owner's.
    #[schemars(with = "Option<Vec<String>>")]
    roles: Option<Roles>,
    /// The networks that it is accepted from; null for all.
    address_ranges: Option<Vec<String>>,
    created_at: String,
    /// Null if it lives for ever.
    expires_at: Option<String>,
    /// To a minute; null before it was used.
    last_used_at: Option<String>,
}

/// Returns a list if it has anything.
fn limits(list: Vec<String>) -> Option<Vec<String>> {
    Some(list).filter(|list| !list.is_empty())
}

impl From<store::ApiKey> for ApiKey {
    fn from(key: store::ApiKey) -> Self {
        Self {
            id: key.id.to_string(),
            name: key.name,
            prefix: key.id.prefix(),
            routes: limits(key.limits.routes),
            roles: key.limits.roles,
            address_ranges: limits(key.limits.networks.iter().map(ToString::to_string).collect()),
            created_at: rfc3339(key.created_at),
            expires_at: key.expires_at.map(rfc3339),
            last_used_at: key.last_used_at.map(rfc3339),
        }
    }
}

impl From<ListedKeys> for ApiKeys {
    fn from(listed: ListedKeys) -> Self {
        Self { keys: listed.keys.into_iter().map(ApiKey::from).collect(), next: listed.next }
    }
}
