//! Every call below the mount that is the gateway's: what answers it, what it is called with and what it answers.
//!
//! From this one table calls are answered, the routes are reserved, and the description and the Postman collection are
//! made.

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use http::{Method, Request};
use serde_json::Value;

use super::{
    AuthApi, Caller,
    handler::CallResult,
    input,
    output::{Account, Changed, JwkSet, Message, Session, Sessions},
};
use crate::{
    error::{Kind, Statuses},
    openapi::{Bearer, Call, describe, schema},
};

const JSON: &str = "application/json";

/// The description of the API at `mount`.
pub(super) fn description(mount: &str, statuses: &Statuses) -> Value {
    const ABOUT: &str =
        "Accounts and sessions. Failures are problem details (RFC 9457) with a stable `code`.";
    describe("authgate", ABOUT, mount, &calls(), statuses)
}

/// The response to come.
type ResponseFuture<'a> = Pin<Box<dyn Future<Output = CallResult> + Send + 'a>>;

/// Handles a request; the last are the parameters in its path.
type Function =
    for<'a> fn(&'a AuthApi, &'a Request<Bytes>, &'a Caller<'a>, &'a [&'a str]) -> ResponseFuture<'a>;

/// What answers a call.
#[derive(Debug)]
pub struct Handler(Function);

impl Handler {
    pub(super) fn call<'a>(
        &self,
        api: &'a AuthApi,
        request: &'a Request<Bytes>,
        caller: &'a Caller<'a>,
        parameters: &'a [&'a str],
    ) -> ResponseFuture<'a> {
        (self.0)(api, request, caller, parameters)
    }
}

/// The calls.
pub fn calls() -> Vec<Call<Handler>> {
    use Kind as K;
    let post = || Method::POST;
    let call = |method, path, id, summary, bearer, response, handler: Function| Call {
        method,
        path,
        id,
        summary,
        bearer,
        body: None,
        query: &[],
        response,
        failures: &[],
        handler: Handler(handler),
    };
    let tokens = (200, JSON, schema::<Session<'static>> as _);
    let message = (200, JSON, schema::<Message> as _);
    let changed = (200, JSON, schema::<Changed> as _);
    let account = (200, JSON, schema::<Account<'static>> as _);
    const CREDENTIALS: &[Kind] = &[
        K::MissingParameters,
        K::PasswordsDoNotMatch,
        K::UsernameNotAccepted,
        K::PasswordNotAccepted,
        K::EmailNotAccepted,
        K::InvalidCredentials,
        K::InsufficientRole,
        K::NotFound,
        K::UsernameExists,
        K::TooManyRequests,
    ];
    const MAIL: &[Kind] = &[
        K::MissingParameters,
        K::PasswordNotAccepted,
        K::EmailNotAccepted,
        K::InvalidMailToken,
        K::EmailNotConfigured,
        K::TooManyRequests,
    ];
    let change = |method, path, id| Call {
        body: Some((schema::<input::Change>, true)),
        failures: CREDENTIALS,
        ..call(
            method,
            path,
            id,
            "Change a name, a password or an address",
            Bearer::Required,
            changed,
            |api, request, caller, _| Box::pin(api.change(request, caller)),
        )
    };
    let delete = |path, id| Call {
        body: Some((schema::<input::Delete>, false)),
        failures: &[
            K::MissingParameters,
            K::InvalidCredentials,
            K::InsufficientRole,
            K::NotFound,
            K::TooManyRequests,
        ],
        ..call(
            Method::DELETE,
            path,
            id,
            "Delete an account",
            Bearer::Required,
            message,
            |api, request, caller, _| Box::pin(api.delete(request, caller)),
        )
    };
    vec![
        Call {
            body: Some((schema::<input::Register>, true)),
            failures: &[
                K::MissingParameters,
                K::PasswordsDoNotMatch,
                K::UsernameNotAccepted,
                K::PasswordNotAccepted,
                K::EmailNotAccepted,
                K::InsufficientRole,
                K::RegistrationClosed,
                K::UsernameExists,
                K::TooManyRequests,
                K::RegistrationFailed,
            ],
            ..call(
                post(),
                "/register",
                "register",
                "Make an account and open a session",
                Bearer::None,
                (201, JSON, schema::<Session<'static>>),
                |api, request, caller, _| Box::pin(api.register(request, caller)),
            )
        },
        Call {
            body: Some((schema::<input::Login>, true)),
            failures: &[K::MissingParameters, K::InvalidCredentials, K::TooManyRequests],
            ..call(
                post(),
                "/login",
                "login",
                "Open a session",
                Bearer::None,
                tokens,
                |api, request, caller, _| Box::pin(api.login(request, caller)),
            )
        },
        Call {
            body: Some((schema::<input::Refresh>, true)),
            failures: &[K::MissingParameters, K::Unauthenticated],
            ..call(
                post(),
                "/refresh",
                "refresh",
                "Exchange a refresh token",
                Bearer::None,
                tokens,
                |api, request, caller, _| Box::pin(api.refresh(request, caller)),
            )
        },
        Call {
            body: Some((schema::<input::Refresh>, false)),
            failures: &[K::MissingParameters],
            ..call(
                post(),
                "/logout",
                "logout",
                "End the session",
                Bearer::Optional,
                message,
                |api, request, caller, _| Box::pin(api.logout(request, caller)),
            )
        },
        call(
            post(),
            "/logout-all",
            "logoutAll",
            "End every session of the account",
            Bearer::Required,
            message,
            |api, _, caller, _| Box::pin(api.logout_all(caller)),
        ),
        call(
            Method::GET,
            "/me",
            "me",
            "The caller's account",
            Bearer::Required,
            account,
            |api, _, caller, _| Box::pin(api.me(caller)),
        ),
        change(Method::PATCH, "/me", "changeMe"),
        delete("/me", "deleteMe"),
        change(post(), "/change", "change"),
        delete("/delete", "delete"),
        Call {
            query: &[
                ("limit", "At most so many; 50 without", schema::<input::Limit>),
                ("after", "The `next` of the page before", schema::<String>),
            ],
            failures: &[K::MissingParameters],
            ..call(
                Method::GET,
                "/sessions",
                "sessions",
                "The caller's sessions",
                Bearer::Required,
                (200, JSON, schema::<Sessions>),
                |api, request, caller, _| Box::pin(api.sessions(request, caller)),
            )
        },
        Call {
            failures: &[K::NotFound],
            ..call(
                Method::DELETE,
                "/sessions/{id}",
                "endSession",
                "End one of the caller's sessions",
                Bearer::Required,
                message,
                |api, _, caller, parameters| {
                    Box::pin(api.end_session(parameters.first().copied().unwrap_or_default(), caller))
                },
            )
        },
        Call {
            body: Some((schema::<input::Email>, true)),
            failures: MAIL,
            ..call(
                post(),
                "/password/forgot",
                "forgotPassword",
                "Ask for a mail to reset a password",
                Bearer::None,
                message,
                |api, request, caller, _| Box::pin(api.forgot_password(request, caller)),
            )
        },
        Call {
            body: Some((schema::<input::Reset>, true)),
            failures: MAIL,
            ..call(
                post(),
                "/password/reset",
                "resetPassword",
                "Set a new password with the token of a mail",
                Bearer::None,
                message,
                |api, request, caller, _| Box::pin(api.reset_password(request, caller)),
            )
        },
        Call {
            body: Some((schema::<input::Verify>, false)),
            failures: MAIL,
            ..call(
                post(),
                "/email/verify",
                "verifyEmail",
                "Show an address to be the account's, or ask for the mail again",
                Bearer::Optional,
                message,
                |api, request, caller, _| Box::pin(api.verify_email(request, caller)),
            )
        },
        call(
            Method::GET,
            "/jwks.json",
            "jwks",
            "The public keys (RFC 7517)",
            Bearer::None,
            (200, "application/jwk-set+json", schema::<JwkSet>),
            |api, _, _, _| Box::pin(async { Ok(api.jwks()) }),
        ),
        call(
            Method::GET,
            "/openapi.json",
            "openapi",
            "This description",
            Bearer::None,
            (200, JSON, schema::<serde_json::Map<String, Value>>),
            |api, _, _, _| Box::pin(async { Ok(api.description()) }),
        ),
    ]
}
