//! The calls about and of programs: API keys, and clients.

use http::Method;
use serde_json::Value;

use super::{Handler, JSON, MESSAGE, PAGE, call};
use crate::{
    auth_api::{input, output::NewApiKey},
    error::Kind,
    openapi::{Bearer, Call, SchemaOf, schema},
    web::api_key::ApiKeys,
};

pub(super) fn key_calls() -> Vec<Call<Handler>> {
    vec![
        Call {
            query: PAGE,
            failures: &[Kind::MissingParameters],
            ..call(
                Method::GET,
                "/keys",
                "apiKeys",
                "The caller's API keys",
                Bearer::Required,
                (200, JSON, schema::<ApiKeys>),
                |api, request, caller, _| Box::pin(api.api_keys(request, caller)),
            )
        },
        Call {
            body: Some((schema::<input::NewApiKey>, true)),
            failures: &[
                Kind::MissingParameters,
                Kind::InsufficientRole,
                Kind::InsufficientUserAuthentication,
            ],
            ..call(
                Method::POST,
                "/keys",
                "addApiKey",
                "Make an API key, which is shown once",
                Bearer::Required,
                (201, JSON, schema::<NewApiKey<'static>>),
                |api, request, caller, _| Box::pin(api.add_api_key(request, caller)),
            )
        },
        Call {
            failures: &[Kind::InsufficientUserAuthentication, Kind::NotFound],
            ..call(
                Method::DELETE,
                "/keys/{key_id}",
                "endApiKey",
                "End an API key",
                Bearer::Required,
                MESSAGE,
                |api, _, caller, parameters| {
                    Box::pin(api.end_api_key(parameters.first().copied().unwrap_or_default(), caller))
                },
            )
        },
    ]
}

/// Calls of client programs. Their bodies are forms, and their errors are those of RFC 6749.
pub(super) fn client_calls() -> Vec<Call<Handler>> {
    const ANY: SchemaOf = schema::<serde_json::Map<String, Value>>;
    const FAILURES: &[Kind] = &[Kind::MissingParameters, Kind::Unauthenticated, Kind::TooManyRequests];
    let of_client = |path, id, summary, body: SchemaOf, handler| Call {
        body: Some((body, true)),
        is_oauth: true,
        failures: FAILURES,
        ..call(Method::POST, path, id, summary, Bearer::None, (200, JSON, ANY), handler)
    };
    vec![
        of_client(
            "/token",
            "token",
            "A client gets an access token (RFC 6749, section 4.4)",
            schema::<input::TokenRequest>,
            |api, request, caller, _| Box::pin(api.token(request, caller)),
        ),
        of_client(
            "/introspect",
            "introspect",
            "A client asks about a token (RFC 7662)",
            schema::<input::TokenOfClient>,
            |api, request, caller, _| Box::pin(api.introspect(request, caller)),
        ),
        of_client(
            "/revoke",
            "revoke",
            "A client ends a token of its own (RFC 7009)",
            schema::<input::TokenOfClient>,
            |api, request, caller, _| Box::pin(api.revoke(request, caller)),
        ),
    ]
}
