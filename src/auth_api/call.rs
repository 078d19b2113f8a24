//! Every call below the mount that is the gateway's: what it is called with and what it answers.
//!
//! From this one table the routes are reserved and the description is made.

use http::Method;
use serde_json::Value;

use super::{
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

/// The calls.
pub fn calls() -> Vec<Call> {
    use Kind as K;
    let post = || Method::POST;
    let call = |method, path, id, summary, bearer, answer| Call {
        method,
        path,
        id,
        summary,
        bearer,
        body: None,
        query: &[],
        answer,
        failures: &[],
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
        ..call(method, path, id, "Change a name, a password or an address", Bearer::Required, changed)
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
        ..call(Method::DELETE, path, id, "Delete an account", Bearer::Required, message)
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
            )
        },
        Call {
            body: Some((schema::<input::Login>, true)),
            failures: &[K::MissingParameters, K::InvalidCredentials, K::TooManyRequests],
            ..call(post(), "/login", "login", "Open a session", Bearer::None, tokens)
        },
        Call {
            body: Some((schema::<input::Refresh>, true)),
            failures: &[K::MissingParameters, K::Unauthenticated],
            ..call(post(), "/refresh", "refresh", "Exchange a refresh token", Bearer::None, tokens)
        },
        Call {
            body: Some((schema::<input::Refresh>, false)),
            failures: &[K::MissingParameters],
            ..call(post(), "/logout", "logout", "End the session", Bearer::Optional, message)
        },
        call(
            post(),
            "/logout-all",
            "logoutAll",
            "End every session of the account",
            Bearer::Required,
            message,
        ),
        call(Method::GET, "/me", "me", "The caller's account", Bearer::Required, account),
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
            )
        },
        call(
            Method::GET,
            "/jwks.json",
            "jwks",
            "The public keys (RFC 7517)",
            Bearer::None,
            (200, "application/jwk-set+json", schema::<JwkSet>),
        ),
        call(
            Method::GET,
            "/openapi.json",
            "openapi",
            "This description",
            Bearer::None,
            (200, JSON, schema::<serde_json::Map<String, Value>>),
        ),
    ]
}
