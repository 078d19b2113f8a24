//! The calls about API keys.

use bytes::Bytes;
use http::{Request, StatusCode};

use super::{
    AuthApi, Caller,
    handler::{CallResult, done},
    input::{self, read, required},
    output::NewApiKey,
};
use crate::{
    access::may_reach,
    account::{ApiKeyRequest, NewKey},
    clock::rfc3339,
    error::private_json,
    web::api_key::ApiKeys,
};

impl AuthApi {
    pub(super) async fn api_keys(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let person = self.identify(caller)?;
        let (limit, after) = input::page(request)?;
        let listed = self.accounts.api_keys(&person, limit, after.as_deref()).await?;
        Ok(private_json(StatusCode::OK, &ApiKeys::from(listed)))
    }

    pub(super) async fn add_api_key(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let person = self.identify(caller)?;
        let input: input::NewApiKey = read(request)?;
        let wanted = ApiKeyRequest {
            name: required(input.name)?,
            roles: input.roles,
            routes: input.routes,
            networks: input.address_ranges,
            expires_in: input.expires_in,
        };
        let reaches = |pattern: &_, roles: &_| may_reach(&self.routes, pattern, roles);
        let made = self.accounts.add_api_key(&person, wanted, &reaches, caller.client.address).await?;
        let NewKey { key, text } = made;
        let body = NewApiKey {
            id: key.id.to_string(),
            prefix: key.id.prefix(),
            name: key.name,
            key: text.expose(),
            expires_at: key.expires_at.map(rfc3339),
        };
        Ok(private_json(StatusCode::CREATED, &body))
    }

    pub(super) async fn end_api_key(&self, id: &str, caller: &Caller<'_>) -> CallResult {
        let person = self.identify(caller)?;
        self.accounts.end_api_key(&person, id, caller.client.address).await?;
        Ok(done("API key ended successfully"))
    }
}
