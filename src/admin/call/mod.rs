//! The table of calls of the admin API: handler, request and response of each.

mod programs;

use std::{future::Future, pin::Pin};

use http::Method;
use serde_json::Value;

use super::{
    AdminApi, Asked, CallResult,
    export::Export,
    shape::{
        AuditTrail, Invitation, Key, Keys, Limit, LogSettings, Message, NewInvitation, NewResetLink, NewUser,
        Reloaded, ResetLink, Revocation, Revoked, Sessions, Upstreams, User, UserUpdate, Users,
    },
};
use crate::{
    error::{Kind, Statuses},
    openapi::{Bearer, Call, SchemaOf, describe, schema},
};

const JSON: &str = "application/json";

/// The description of the API.
pub(super) fn description() -> Value {
    const ABOUT: &str = "For a bearer with the role `admin`, which is looked up in the store at each call. \
        Every change is noted in the audit trail.";
    describe("authgate admin API", ABOUT, "", &calls(), &Statuses::default(), None)
}

/// The response to come.
type ResponseFuture<'a> = Pin<Box<dyn Future<Output = CallResult> + Send + 'a>>;

/// Handles a request.
type Function = for<'a> fn(&'a AdminApi, Asked<'a>) -> ResponseFuture<'a>;

/// The handler of a call.
#[derive(Debug)]
pub struct Handler(Function);

impl Handler {
    pub(super) fn call<'a>(&self, api: &'a AdminApi, asked: Asked<'a>) -> ResponseFuture<'a> {
        (self.0)(api, asked)
    }
}

/// The success response of a call: status, media type, schema.
type Success = (u16, &'static str, SchemaOf);

const USER: Success = (200, JSON, schema::<User>);
const MESSAGE: Success = (200, JSON, schema::<Message>);

const ANY: &[Kind] = &[Kind::InsufficientRole];
const ONE: &[Kind] = &[Kind::InsufficientRole, Kind::NotFound];
const PAGED: &[Kind] = &[Kind::InsufficientRole, Kind::NotFound, Kind::MissingParameters];
const QUERY: &[Kind] = &[Kind::InsufficientRole, Kind::MissingParameters];
const CONDITIONAL: &[Kind] = &[Kind::InsufficientRole, Kind::NotFound, Kind::PreconditionFailed];
const WRITE: &[Kind] = &[
    Kind::PreconditionFailed,
    Kind::InsufficientRole,
    Kind::NotFound,
    Kind::MissingParameters,
    Kind::UsernameNotAccepted,
    Kind::PasswordNotAccepted,
    Kind::EmailNotAccepted,
    Kind::RoleNotAccepted,
    Kind::UsernameExists,
];

/// A call without a body.
fn call(
    method: Method,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    response: Success,
    failures: &'static [Kind],
    handler: Function,
) -> Call<Handler> {
    Call {
        method,
        path,
        id,
        summary,
        bearer: Bearer::Required,
        body: None,
        is_oauth: false,
        query: &[],
        response,
        failures,
        handler: Handler(handler),
    }
}

/// The calls.
pub fn calls() -> Vec<Call<Handler>> {
    let all = [
        user_calls(),
        name_calls(),
        invitation_calls(),
        session_calls(),
        programs::api_key_calls(),
        programs::client_calls(),
        key_calls(),
        external_calls(),
        config_calls(),
        trail_calls(),
    ];
    all.into_iter().flatten().collect()
}

fn invitation_calls() -> Vec<Call<Handler>> {
    vec![Call {
        body: Some((schema::<NewInvitation>, false)),
        ..call(
            Method::POST,
            "/api/invitations",
            "invite",
            "Make a link by which strangers may make accounts, also where registration is closed",
            (201, JSON, schema::<Invitation>),
            &[Kind::InsufficientRole, Kind::NotFound, Kind::MissingParameters, Kind::RoleNotAccepted],
            |api, asked| Box::pin(api.invite(asked)),
        )
    }]
}

fn user_calls() -> Vec<Call<Handler>> {
    vec![
        Call {
            query: &[
                ("search", "Part of a name or address", schema::<String>),
                ("email", "Only the account with this address", schema::<String>),
                ("external_id", "Only the account that had this id before its import", schema::<String>),
                ("role", "Only accounts with this role", schema::<String>),
                ("disabled", "Only accounts that are disabled, or are not", schema::<bool>),
                ("after", "Only names after this one", schema::<String>),
                ("limit", "At most so many; 100 without", schema::<Limit>),
            ],
            ..call(
                Method::GET,
                "/api/users",
                "listUsers",
                "List accounts",
                (200, JSON, schema::<Users>),
                QUERY,
                |api, asked| Box::pin(api.users(asked)),
            )
        },
        Call {
            body: Some((schema::<NewUser>, true)),
            ..call(
                Method::POST,
                "/api/users",
                "addUser",
                "Make an account",
                (201, JSON, schema::<User>),
                WRITE,
                |api, asked| Box::pin(api.add_user(asked)),
            )
        },
        call(
            Method::GET,
            "/api/users/{id}/export",
            "exportUser",
            "All that is kept about an account",
            (200, JSON, schema::<Export>),
            ONE,
            |api, asked| Box::pin(api.export_user(asked)),
        ),
        call(Method::GET, "/api/users/{id}", "showUser", "Show an account", USER, ONE, |api, asked| {
            Box::pin(api.show_user(asked))
        }),
        Call {
            body: Some((schema::<UserUpdate>, true)),
            ..call(
                Method::PATCH,
                "/api/users/{id}",
                "updateUser",
                "Set roles, password, address or attributes, disable or enable; the account's sessions end",
                USER,
                WRITE,
                |api, asked| Box::pin(api.update(asked)),
            )
        },
        call(
            Method::DELETE,
            "/api/users/{id}",
            "deleteUser",
            "Delete an account for good",
            MESSAGE,
            CONDITIONAL,
            |api, asked| Box::pin(api.delete_user(asked)),
        ),
    ]
}

fn name_calls() -> Vec<Call<Handler>> {
    vec![call(
        Method::DELETE,
        "/api/names/{name}",
        "releaseName",
        "Let the name of a former account be given out again",
        MESSAGE,
        &[Kind::InsufficientRole, Kind::NotFound, Kind::UsernameNotAccepted],
        |api, asked| Box::pin(api.release_name(asked)),
    )]
}

fn session_calls() -> Vec<Call<Handler>> {
    vec![
        Call {
            query: &[
                ("after", "The `next` of the page before", schema::<String>),
                ("limit", "At most so many; 100 without", schema::<Limit>),
            ],
            ..call(
                Method::GET,
                "/api/users/{id}/sessions",
                "listSessions",
                "List the live sessions of an account",
                (200, JSON, schema::<Sessions>),
                PAGED,
                |api, asked| Box::pin(api.sessions(asked)),
            )
        },
        call(
            Method::DELETE,
            "/api/users/{id}/sessions",
            "endSessions",
            "End every session of an account",
            MESSAGE,
            ONE,
            |api, asked| Box::pin(api.end_sessions(asked)),
        ),
        call(
            Method::DELETE,
            "/api/users/{id}/factors",
            "resetFactors",
            "Remove the second factors of somebody who has lost them; the account's sessions end",
            MESSAGE,
            ONE,
            |api, asked| Box::pin(api.reset_factors(asked)),
        ),
        Call {
            body: Some((schema::<NewResetLink>, false)),
            ..call(
                Method::POST,
                "/api/users/{id}/reset-link",
                "makeResetLink",
                "Make a link by which somebody sets a new password, in place of those made before",
                (201, JSON, schema::<ResetLink>),
                &[Kind::InsufficientRole, Kind::NotFound, Kind::MissingParameters],
                |api, asked| Box::pin(api.reset_link(asked)),
            )
        },
        call(
            Method::DELETE,
            "/api/users/{id}/sessions/{session}",
            "endSession",
            "End a session of an account",
            MESSAGE,
            ONE,
            |api, asked| Box::pin(api.end_session(asked)),
        ),
    ]
}

fn key_calls() -> Vec<Call<Handler>> {
    vec![
        call(
            Method::GET,
            "/api/keys",
            "listKeys",
            "List the keys that verify tokens",
            (200, JSON, schema::<Keys>),
            &[Kind::InsufficientRole],
            |api, asked| Box::pin(api.list_keys(asked)),
        ),
        call(
            Method::POST,
            "/api/keys/rotate",
            "rotateKey",
            "Make a new key; the old ones verify until their tokens have expired",
            (201, JSON, schema::<Key>),
            &[Kind::InsufficientRole, Kind::KeysFromConfig],
            |api, asked| Box::pin(api.rotate_key(asked)),
        ),
        call(
            Method::DELETE,
            "/api/keys/{kid}",
            "revokeKey",
            "End every token that a key has signed",
            MESSAGE,
            &[Kind::InsufficientRole, Kind::KeysFromConfig, Kind::NotFound],
            |api, asked| Box::pin(api.revoke_key(asked)),
        ),
    ]
}

fn external_calls() -> Vec<Call<Handler>> {
    vec![Call {
        body: Some((schema::<Revocation>, true)),
        ..call(
            Method::POST,
            "/api/revocations",
            "revokeExternal",
            "End tokens of another issuer, on every gateway",
            (201, JSON, schema::<Revoked>),
            PAGED,
            |api, asked| Box::pin(api.revoke_external(asked)),
        )
    }]
}

fn config_calls() -> Vec<Call<Handler>> {
    vec![
        call(
            Method::POST,
            "/api/config/reload",
            "reloadConfig",
            "Read the config again, and take it up if all of it can be",
            (200, JSON, schema::<Reloaded>),
            &[Kind::InsufficientRole, Kind::ConfigNotAccepted],
            |api, asked| Box::pin(api.reload(asked)),
        ),
        Call {
            bearer: Bearer::None,
            ..call(
                Method::GET,
                "/config/routes",
                "routes",
                "The routes as they are, for `authgate check --against`: on this machine for everybody, elsewhere for administrators",
                (200, JSON, schema::<serde_json::Map<String, Value>>),
                &[Kind::Unauthenticated, Kind::InsufficientRole],
                |api, asked| Box::pin(api.routes(asked)),
            )
        },
        Call {
            body: Some((schema::<LogSettings>, true)),
            ..call(
                Method::PUT,
                "/api/log",
                "setLog",
                "Set the level of the log until the config is read again",
                MESSAGE,
                QUERY,
                |api, asked| Box::pin(api.set_log(asked)),
            )
        },
    ]
}

fn trail_calls() -> Vec<Call<Handler>> {
    vec![
        call(
            Method::GET,
            "/api/upstreams",
            "upstreams",
            "The servers of each upstream, and whether they get requests",
            (200, JSON, schema::<Upstreams>),
            ANY,
            |api, asked| Box::pin(async move { Ok(api.upstreams(&asked)) }),
        ),
        Call {
            query: &[
                ("user", "Only lines about the account with this id", schema::<uuid::Uuid>),
                ("before", "Only lines with a lower number", schema::<i64>),
                ("limit", "At most so many; 100 without", schema::<Limit>),
            ],
            ..call(
                Method::GET,
                "/api/audit",
                "audit",
                "Who changed what, when, from where",
                (200, JSON, schema::<AuditTrail>),
                QUERY,
                |api, asked| Box::pin(api.audit(asked)),
            )
        },
        Call {
            bearer: Bearer::None,
            ..call(
                Method::GET,
                "/api/openapi.json",
                "openapi",
                "This description",
                (200, JSON, schema::<serde_json::Map<String, Value>>),
                ANY,
                |api, _| Box::pin(async { Ok(api.description()) }),
            )
        },
    ]
}
