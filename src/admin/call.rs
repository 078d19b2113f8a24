//! Every call of the admin API: what answers it, what it is called with and what it answers.

use std::{future::Future, pin::Pin};

use http::Method;
use serde_json::Value;

use super::{
    AdminApi, Asked, CallResult,
    shape::{AuditTrail, Key, Keys, Limit, Message, NewUser, Sessions, User, UserUpdate, Users},
};
use crate::{
    error::{Kind, Statuses},
    openapi::{Bearer, Call, describe, schema},
};

const JSON: &str = "application/json";

/// The description of the API.
pub(super) fn description() -> Value {
    const ABOUT: &str = "For a bearer with the role `admin`, which is looked up in the store at each call. \
        Every change is noted in the audit trail.";
    describe("authgate admin API", ABOUT, "", &calls(), &Statuses::default())
}

/// The response to come.
type ResponseFuture<'a> = Pin<Box<dyn Future<Output = CallResult> + Send + 'a>>;

/// Handles a request.
type Function = for<'a> fn(&'a AdminApi, Asked<'a>) -> ResponseFuture<'a>;

/// What answers a call.
#[derive(Debug)]
pub struct Handler(Function);

impl Handler {
    pub(super) fn call<'a>(&self, api: &'a AdminApi, asked: Asked<'a>) -> ResponseFuture<'a> {
        (self.0)(api, asked)
    }
}

/// The calls.
pub fn calls() -> Vec<Call<Handler>> {
    use Kind as K;
    const ANY: &[Kind] = &[K::InsufficientRole];
    const ONE: &[Kind] = &[K::InsufficientRole, K::NotFound];
    const PAGED: &[Kind] = &[K::InsufficientRole, K::NotFound, K::MissingParameters];
    const QUERY: &[Kind] = &[K::InsufficientRole, K::MissingParameters];
    const CONDITIONAL: &[Kind] = &[K::InsufficientRole, K::NotFound, K::PreconditionFailed];
    const WRITE: &[Kind] = &[
        K::PreconditionFailed,
        K::InsufficientRole,
        K::NotFound,
        K::MissingParameters,
        K::UsernameNotAccepted,
        K::PasswordNotAccepted,
        K::EmailNotAccepted,
        K::RoleNotAccepted,
        K::UsernameExists,
    ];
    let call = |method, path, id, summary, response, failures, handler: Function| Call {
        method,
        path,
        id,
        summary,
        bearer: Bearer::Required,
        body: None,
        query: &[],
        response,
        failures,
        handler: Handler(handler),
    };
    let user = (200, JSON, schema::<User> as _);
    let message = (200, JSON, schema::<Message> as _);
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    vec![
        Call {
            query: &[
                ("search", "Part of a name or address", schema::<String>),
                ("after", "Only names after this one", schema::<String>),
                ("limit", "At most so many; 100 without", schema::<Limit>),
            ],
            ..call(
                get.clone(),
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
                post.clone(),
                "/api/users",
                "addUser",
                "Make an account",
                (201, JSON, schema::<User>),
                WRITE,
                |api, asked| Box::pin(api.add_user(asked)),
            )
        },
        call(get.clone(), "/api/users/{id}", "showUser", "Show an account", user, ONE, |api, asked| {
            Box::pin(api.show_user(asked))
        }),
        Call {
            body: Some((schema::<UserUpdate>, true)),
            ..call(
                Method::PATCH,
                "/api/users/{id}",
                "updateUser",
                "Set roles, password or address, disable or enable; the account's sessions end",
                user,
                WRITE,
                |api, asked| Box::pin(api.update(asked)),
            )
        },
        call(
            delete.clone(),
            "/api/users/{id}",
            "deleteUser",
            "Delete an account for good",
            message,
            CONDITIONAL,
            |api, asked| Box::pin(api.delete_user(asked)),
        ),
        call(
            delete.clone(),
            "/api/names/{name}",
            "releaseName",
            "Let the name of a former account be given out again",
            message,
            &[K::InsufficientRole, K::NotFound, K::UsernameNotAccepted],
            |api, asked| Box::pin(api.release_name(asked)),
        ),
        Call {
            query: &[
                ("after", "The `next` of the page before", schema::<String>),
                ("limit", "At most so many; 100 without", schema::<Limit>),
            ],
            ..call(
                get.clone(),
                "/api/users/{id}/sessions",
                "listSessions",
                "List the live sessions of an account",
                (200, JSON, schema::<Sessions>),
                PAGED,
                |api, asked| Box::pin(api.sessions(asked)),
            )
        },
        call(
            delete.clone(),
            "/api/users/{id}/sessions",
            "endSessions",
            "End every session of an account",
            message,
            ONE,
            |api, asked| Box::pin(api.end_sessions(asked)),
        ),
        call(
            delete.clone(),
            "/api/users/{id}/sessions/{session}",
            "endSession",
            "End a session of an account",
            message,
            ONE,
            |api, asked| Box::pin(api.end_session(asked)),
        ),
        call(
            get.clone(),
            "/api/keys",
            "listKeys",
            "List the keys that verify tokens",
            (200, JSON, schema::<Keys>),
            &[K::InsufficientRole],
            |api, asked| Box::pin(api.list_keys(asked)),
        ),
        call(
            post,
            "/api/keys/rotate",
            "rotateKey",
            "Make a new key; the old ones verify until their tokens have expired",
            (201, JSON, schema::<Key>),
            &[K::InsufficientRole, K::KeysFromConfig],
            |api, asked| Box::pin(api.rotate_key(asked)),
        ),
        call(
            delete,
            "/api/keys/{kid}",
            "revokeKey",
            "End every token that a key has signed",
            message,
            &[K::InsufficientRole, K::KeysFromConfig, K::NotFound],
            |api, asked| Box::pin(api.revoke_key(asked)),
        ),
        Call {
            query: &[
                ("user", "Only lines about the account with this id", schema::<uuid::Uuid>),
                ("before", "Only lines with a lower number", schema::<i64>),
                ("limit", "At most so many; 100 without", schema::<Limit>),
            ],
            ..call(
                get.clone(),
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
                get,
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
