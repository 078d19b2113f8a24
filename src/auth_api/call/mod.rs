//! The table of calls below the mount: handler, request and response of each.
//!
//! From this one table calls are answered, the routes are reserved, and the description and the Postman collection are
//! made.

mod programs;

use std::{future::Future, pin::Pin};

use bytes::Bytes;
use http::{Method, Request};
use serde_json::Value;

use super::{
    AuthApi, Caller,
    handler::CallResult,
    input,
    output::{
        Account, Challenge, Changed, Confirmed, Factors, JwkSet, Message, PendingFactor, Session, Sessions,
    },
};
use crate::{
    error::{Kind, Statuses},
    openapi::{Bearer, Call, QueryParameter, SchemaOf, describe, schema},
};

const JSON: &str = "application/json";

/// The description of the API at `mount`, with the name of the cookie of a session, if there is one.
pub(super) fn description(mount: &str, statuses: &Statuses, cookie: Option<&str>) -> Value {
    const ABOUT: &str =
        "Accounts and sessions. Failures are problem details (RFC 9457) with a stable `code`.";
    describe("authgate", ABOUT, mount, &calls(), statuses, cookie)
}

/// The response to come.
type ResponseFuture<'a> = Pin<Box<dyn Future<Output = CallResult> + Send + 'a>>;

/// Handles a request; the last are the parameters in its path.
type Function =
    for<'a> fn(&'a AuthApi, &'a Request<Bytes>, &'a Caller<'a>, &'a [&'a str]) -> ResponseFuture<'a>;

/// The handler of a call.
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

/// The success response of a call: status, media type, schema.
type Success = (u16, &'static str, SchemaOf);

const TOKENS: Success = (200, JSON, schema::<Session<'static>>);
const MESSAGE: Success = (200, JSON, schema::<Message>);
const CHANGED: Success = (200, JSON, schema::<Changed>);
const ACCOUNT: Success = (200, JSON, schema::<Account<'static>>);

const PAGE: &[QueryParameter] = &[
    ("limit", "At most so many; 50 without", schema::<input::Limit>),
    ("after", "The `next` of the page before", schema::<String>),
];

const CREDENTIALS: &[Kind] = &[
    Kind::MissingParameters,
    Kind::PasswordsDoNotMatch,
    Kind::UsernameNotAccepted,
    Kind::PasswordNotAccepted,
    Kind::EmailNotAccepted,
    Kind::InvalidCredentials,
    Kind::InsufficientRole,
    Kind::NotFound,
    Kind::UsernameExists,
    Kind::Conflict,
    Kind::TooManyRequests,
];

const MAIL: &[Kind] = &[
    Kind::MissingParameters,
    Kind::PasswordNotAccepted,
    Kind::EmailNotAccepted,
    Kind::InvalidMailToken,
    Kind::EmailNotConfigured,
    Kind::TooManyRequests,
];

/// A call without a body that does not fail in any way of its own.
fn call(
    method: Method,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    bearer: Bearer,
    response: Success,
    handler: Function,
) -> Call<Handler> {
    Call {
        method,
        path,
        id,
        summary,
        bearer,
        body: None,
        is_oauth: false,
        query: &[],
        response,
        failures: &[],
        handler: Handler(handler),
    }
}

fn change(method: Method, path: &'static str, id: &'static str) -> Call<Handler> {
    Call {
        body: Some((schema::<input::Change>, true)),
        failures: CREDENTIALS,
        ..call(
            method,
            path,
            id,
            "Change a name, a password or an address",
            Bearer::Required,
            CHANGED,
            |api, request, caller, _| Box::pin(api.change(request, caller)),
        )
    }
}

fn delete(path: &'static str, id: &'static str) -> Call<Handler> {
    Call {
        body: Some((schema::<input::Delete>, false)),
        failures: &[
            Kind::MissingParameters,
            Kind::InvalidCredentials,
            Kind::InsufficientRole,
            Kind::NotFound,
            Kind::TooManyRequests,
        ],
        ..call(
            Method::DELETE,
            path,
            id,
            "Delete an account",
            Bearer::Required,
            MESSAGE,
            |api, request, caller, _| Box::pin(api.delete(request, caller)),
        )
    }
}

/// The calls.
pub fn calls() -> Vec<Call<Handler>> {
    [
        account_calls(),
        login_calls(),
        factor_calls(),
        session_calls(),
        programs::key_calls(),
        programs::client_calls(),
        mail_calls(),
        issuer_calls(),
        description_calls(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn account_calls() -> Vec<Call<Handler>> {
    vec![
        Call {
            body: Some((schema::<input::Register>, true)),
            failures: &[
                Kind::MissingParameters,
                Kind::PasswordsDoNotMatch,
                Kind::UsernameNotAccepted,
                Kind::PasswordNotAccepted,
                Kind::EmailNotAccepted,
                Kind::InsufficientRole,
                Kind::RegistrationClosed,
                Kind::UsernameExists,
                Kind::TooManyRequests,
                Kind::RegistrationFailed,
            ],
            ..call(
                Method::POST,
                "/register",
                "register",
                "Make an account and open a session",
                Bearer::None,
                (201, JSON, schema::<Session<'static>>),
                |api, request, caller, _| Box::pin(api.register(request, caller)),
            )
        },
        call(
            Method::GET,
            "/me",
            "me",
            "The caller's account",
            Bearer::Required,
            ACCOUNT,
            |api, _, caller, _| Box::pin(api.me(caller)),
        ),
        change(Method::PATCH, "/me", "changeMe"),
        delete("/me", "deleteMe"),
        change(Method::POST, "/change", "change"),
        delete("/delete", "delete"),
    ]
}

fn login_calls() -> Vec<Call<Handler>> {
    vec![
        Call {
            body: Some((schema::<input::Login>, true)),
            failures: &[
                Kind::MissingParameters,
                Kind::InvalidCredentials,
                Kind::SecondFactorRequired,
                Kind::FactorEnrolmentRequired,
                Kind::PasswordChangeRequired,
                Kind::TooManyRequests,
            ],
            ..call(
                Method::POST,
                "/login",
                "login",
                "Open a session",
                Bearer::None,
                TOKENS,
                |api, request, caller, _| Box::pin(api.login(request, caller)),
            )
        },
        Call {
            body: Some((schema::<input::Refresh>, true)),
            failures: &[Kind::MissingParameters, Kind::Unauthenticated],
            ..call(
                Method::POST,
                "/refresh",
                "refresh",
                "Exchange a refresh token",
                Bearer::None,
                TOKENS,
                |api, request, caller, _| Box::pin(api.refresh(request, caller)),
            )
        },
        Call {
            body: Some((schema::<input::Refresh>, false)),
            failures: &[Kind::MissingParameters],
            ..call(
                Method::POST,
                "/logout",
                "logout",
                "End the session",
                Bearer::Optional,
                MESSAGE,
                |api, request, caller, _| Box::pin(api.logout(request, caller)),
            )
        },
        call(
            Method::POST,
            "/logout-all",
            "logoutAll",
            "End every session of the account",
            Bearer::Required,
            MESSAGE,
            |api, request, caller, _| Box::pin(api.logout_all(request, caller)),
        ),
    ]
}

const FACTOR: &[Kind] = &[
    Kind::MissingParameters,
    Kind::FactorNotAccepted,
    Kind::InvalidCredentials,
    Kind::InsufficientUserAuthentication,
    Kind::NotFound,
    Kind::TooManyRequests,
];

fn factor_calls() -> Vec<Call<Handler>> {
    vec![
        Call {
            body: Some((schema::<input::ChallengeResponse>, true)),
            failures: &[
                Kind::MissingParameters,
                Kind::InvalidCredentials,
                Kind::PasswordChangeRequired,
                Kind::TooManyRequests,
            ],
            ..call(
                Method::POST,
                "/login/factor",
                "loginFactor",
                "Respond to a challenge: open a session, or step up one's own",
                Bearer::Optional,
                TOKENS,
                |api, request, caller, _| Box::pin(api.login_factor(request, caller)),
            )
        },
        Call {
            failures: &[Kind::NotFound, Kind::TooManyRequests],
            ..call(
                Method::POST,
                "/login/passkey",
                "loginPasskey",
                "Begin a login by a passkey alone",
                Bearer::None,
                (200, JSON, schema::<Challenge>),
                |api, request, caller, _| Box::pin(api.login_passkey(request, caller)),
            )
        },
        call(
            Method::GET,
            "/factors",
            "factors",
            "The caller's second factors",
            Bearer::Required,
            (200, JSON, schema::<Factors>),
            |api, _, caller, _| Box::pin(api.factors(caller)),
        ),
        Call {
            body: Some((schema::<input::BeginFactor>, true)),
            failures: FACTOR,
            ..call(
                Method::POST,
                "/factors",
                "beginFactor",
                "Begin a second factor, or get new recovery codes",
                Bearer::Required,
                (201, JSON, schema::<PendingFactor>),
                |api, request, caller, _| Box::pin(api.begin_factor(request, caller)),
            )
        },
        Call {
            failures: &[Kind::TooManyRequests],
            ..call(
                Method::POST,
                "/factors/challenge",
                "challenge",
                "Begin a step-up of one's own session",
                Bearer::Required,
                (200, JSON, schema::<Challenge>),
                |api, request, caller, _| Box::pin(api.challenge(request, caller)),
            )
        },
        Call {
            body: Some((schema::<input::ConfirmFactor>, true)),
            failures: FACTOR,
            ..call(
                Method::POST,
                "/factors/{id}/confirm",
                "confirmFactor",
                "Confirm a factor that was begun",
                Bearer::Required,
                (200, JSON, schema::<Confirmed<'static>>),
                |api, request, caller, parameters| {
                    let id = parameters.first().copied().unwrap_or_default();
                    Box::pin(api.confirm_factor(id, request, caller))
                },
            )
        },
        Call {
            failures: &[Kind::InsufficientUserAuthentication, Kind::NotFound],
            ..call(
                Method::DELETE,
                "/factors/{id}",
                "removeFactor",
                "Remove a second factor",
                Bearer::Required,
                MESSAGE,
                |api, _, caller, parameters| {
                    Box::pin(api.remove_factor(parameters.first().copied().unwrap_or_default(), caller))
                },
            )
        },
    ]
}

fn session_calls() -> Vec<Call<Handler>> {
    vec![
        Call {
            query: PAGE,
            failures: &[Kind::MissingParameters],
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
            failures: &[Kind::NotFound],
            ..call(
                Method::DELETE,
                "/sessions/{id}",
                "endSession",
                "End one of the caller's sessions",
                Bearer::Required,
                MESSAGE,
                |api, _, caller, parameters| {
                    Box::pin(api.end_session(parameters.first().copied().unwrap_or_default(), caller))
                },
            )
        },
    ]
}

fn mail_calls() -> Vec<Call<Handler>> {
    vec![
        Call {
            body: Some((schema::<input::Email>, true)),
            failures: MAIL,
            ..call(
                Method::POST,
                "/password/forgot",
                "forgotPassword",
                "Ask for a mail to reset a password",
                Bearer::None,
                MESSAGE,
                |api, request, caller, _| Box::pin(api.forgot_password(request, caller)),
            )
        },
        Call {
            body: Some((schema::<input::Reset>, true)),
            failures: MAIL,
            ..call(
                Method::POST,
                "/password/reset",
                "resetPassword",
                "Set a new password with the token of a mail",
                Bearer::None,
                MESSAGE,
                |api, request, caller, _| Box::pin(api.reset_password(request, caller)),
            )
        },
        Call {
            body: Some((schema::<input::Verify>, false)),
            failures: MAIL,
            ..call(
                Method::POST,
                "/email/verify",
                "verifyEmail",
                "Show an address to be the account's, or ask for the mail again",
                Bearer::Optional,
                MESSAGE,
                |api, request, caller, _| Box::pin(api.verify_email(request, caller)),
            )
        },
    ]
}

fn issuer_calls() -> Vec<Call<Handler>> {
    vec![Call {
        failures: &[Kind::UnsupportedMediaType],
        ..call(
            Method::POST,
            "/backchannel-logout",
            "backchannelLogout",
            "Another issuer ends a session or all of a subject's, by a form with `logout_token` (OpenID Connect Back-Channel Logout)",
            Bearer::None,
            MESSAGE,
            |api, request, caller, _| Box::pin(api.backchannel_logout(request, caller)),
        )
    }]
}

fn description_calls() -> Vec<Call<Handler>> {
    vec![
        Call {
            failures: &[Kind::InsufficientRole, Kind::TooManyRequests],
            ..call(
                Method::GET,
                "/verify",
                "verify",
                "Whether a request that a trusted proxy tells of is allowed, and whose it is",
                Bearer::Optional,
                (200, "application/octet-stream", schema::<String>),
                // Decided by the workers, where requests are.
                |_, _, _, _| Box::pin(async { Err(Kind::InsufficientRole.into()) }),
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
