//! The calls about programs: API keys of accounts, and clients.

use http::Method;

use super::{Handler, JSON, MESSAGE, ONE, PAGED, call};
use crate::{
    admin::{
        clients::{ClientList, ClientSecret, NewClient, Roles},
        shape::Limit,
    },
    error::Kind,
    openapi::{Call, QueryParameter, schema},
    web::api_key::ApiKeys,
};

const PAGE: &[QueryParameter] = &[
    ("after", "The `next` of the page before", schema::<String>),
    ("limit", "At most so many; 100 without", schema::<Limit>),
];

pub(super) fn api_key_calls() -> Vec<Call<Handler>> {
    vec![
        Call {
            query: PAGE,
            ..call(
                Method::GET,
                "/api/users/{id}/keys",
                "listApiKeys",
                "List the API keys of an account",
                (200, JSON, schema::<ApiKeys>),
                PAGED,
                |api, asked| Box::pin(api.api_keys(asked)),
            )
        },
        call(
            Method::DELETE,
            "/api/users/{id}/keys/{key_id}",
            "endApiKey",
            "End an API key of an account",
            MESSAGE,
            ONE,
            |api, asked| Box::pin(api.end_api_key(asked)),
        ),
    ]
}

pub(super) fn client_calls() -> Vec<Call<Handler>> {
    const WRITE: &[Kind] = &[
        Kind::InsufficientRole,
        Kind::MissingParameters,
        Kind::RoleNotAccepted,
        Kind::NotFound,
        Kind::Conflict,
    ];
    vec![
        Call {
            query: PAGE,
            ..call(
                Method::GET,
                "/api/clients",
                "listClients",
                "List client programs",
                (200, JSON, schema::<ClientList>),
                PAGED,
                |api, asked| Box::pin(api.clients(asked)),
            )
        },
        Call {
            body: Some((schema::<NewClient>, true)),
            ..call(
                Method::POST,
                "/api/clients",
                "addClient",
                "Make a client; its secret is shown once",
                (201, JSON, schema::<ClientSecret>),
                WRITE,
                |api, asked| Box::pin(api.add_client(asked)),
            )
        },
        Call {
            body: Some((schema::<Roles>, true)),
            ..call(
                Method::PUT,
                "/api/clients/{id}/roles",
                "setClientRoles",
                "Set the roles of a client; its tokens end",
                MESSAGE,
                WRITE,
                |api, asked| Box::pin(api.set_client_roles(asked)),
            )
        },
        call(
            Method::POST,
            "/api/clients/{id}/secret",
            "renewClientSecret",
            "Give a client another secret; the one before and its tokens end",
            (201, JSON, schema::<ClientSecret>),
            ONE,
            |api, asked| Box::pin(api.renew_client_secret(asked)),
        ),
        call(
            Method::DELETE,
            "/api/clients/{id}",
            "removeClient",
            "Remove a client; its tokens end",
            MESSAGE,
            ONE,
            |api, asked| Box::pin(api.remove_client(asked)),
        ),
    ]
}
