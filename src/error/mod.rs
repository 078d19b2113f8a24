//! The errors for clients: one table from kinds to statuses and texts.
//!
//! The precise reason of a failure is logged once, where it is handled. A client gets a [`Kind`]
//! and, where the contract allows it, a `detail` written for the person at the keyboard: a [`Problem`].

mod problem;

use http::StatusCode;

pub use problem::{Problem, ProblemBody, Unproved, private_json, private_response};

/// Every way in which authgate itself answers with a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is not well-formed HTTP, or its path is not canonical.
    BadRequest,
    /// A call below `auth.path` lacks a member, or one has the wrong type.
    MissingParameters,
    /// `password_confirm` differs.
    PasswordsDoNotMatch,
    /// The name breaks a rule; `detail` says which.
    UsernameNotAccepted,
    /// The password breaks a rule; `detail` says which.
    PasswordNotAccepted,
    /// A role that does not exist as such.
    RoleNotAccepted,
    /// `email` is not an address.
    EmailNotAccepted,
    /// The token of a mail does not hold, or not any more.
    InvalidMailToken,
    /// No mail server is configured.
    EmailNotConfigured,
    /// Wrong password, unknown user, disabled account: all alike.
    InvalidCredentials,
    /// The password was right, and a second factor is asked for.
    SecondFactorRequired,
    /// The password was right, and the account must get a second factor.
    FactorEnrolmentRequired,
    /// The password was right, and another one is to be chosen first.
    PasswordChangeRequired,
    /// A factor breaks a rule; `detail` says which.
    FactorNotAccepted,
    /// No bearer token, or one that does not hold.
    Unauthenticated,
    /// Signed in, but too long ago.
    InsufficientUserAuthentication,
    /// Signed in, but not allowed.
    InsufficientRole,
    /// A cookie came with a request that may be another site's.
    CrossSiteRequest,
    /// Registration is switched off.
    RegistrationClosed,
    /// The signing keys are the config's.
    KeysFromConfig,
    /// Nothing is there.
    NotFound,
    /// The path exists, not with this method.
    MethodNotAllowed,
    /// A head or body was begun and is late.
    RequestTimeout,
    /// The account was changed meanwhile.
    Conflict,
    /// The account is of another version than `If-Match` names.
    PreconditionFailed,
    /// The name, or one that looks like it, is taken.
    UsernameExists,
    /// A config that cannot be taken up; `detail` has its errors.
    ConfigNotAccepted,
    /// The body is over its limit.
    BodyTooLarge,
    /// A body that is not JSON.
    UnsupportedMediaType,
    /// Throttled.
    TooManyRequests,
    /// The connection is not for the host of the request.
    MisdirectedRequest,
    /// The head is over its limit.
    HeadersTooLarge,
    /// A version of HTTP that does not exist yet.
    VersionNotSupported,
    /// A failure of ours while registering.
    RegistrationFailed,
    /// A failure of ours.
    Internal,
    /// The upstream broke off or answered nonsense.
    UpstreamFailed,
    /// No server takes connections.
    NoHealthyUpstream,
    /// The store or the password workers cannot take this now, or the mirror is stale.
    Unavailable,
    /// The upstream did not answer in time.
    UpstreamTimeout,
}

impl Kind {
    /// The table: status, words for a person, and the stable code.
    pub const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        use StatusCode as S;
        match self {
            Self::BadRequest => (S::BAD_REQUEST, "Bad request", "bad_request"),
            Self::MissingParameters => (S::BAD_REQUEST, "Missing parameters", "missing_parameters"),
            Self::PasswordsDoNotMatch => (S::BAD_REQUEST, "Passwords do not match", "passwords_do_not_match"),
            Self::UsernameNotAccepted => (S::BAD_REQUEST, "Username not accepted", "username_not_accepted"),
            Self::PasswordNotAccepted => (S::BAD_REQUEST, "Password not accepted", "password_not_accepted"),
            Self::RoleNotAccepted => (S::BAD_REQUEST, "Role not accepted", "role_not_accepted"),
            Self::EmailNotAccepted => (S::BAD_REQUEST, "Email not accepted", "email_not_accepted"),
            Self::InvalidMailToken => {
                (S::BAD_REQUEST, "Invalid or expired token", "invalid_or_expired_token")
            }
            Self::EmailNotConfigured => (S::NOT_FOUND, "Email is not configured", "email_is_not_configured"),
            Self::InvalidCredentials => (S::UNAUTHORIZED, "Invalid credentials", "invalid_credentials"),
            Self::SecondFactorRequired => {
                (S::UNAUTHORIZED, "Second factor required", "second_factor_required")
            }
            Self::FactorEnrolmentRequired => {
                (S::UNAUTHORIZED, "Factor enrolment required", "factor_enrolment_required")
            }
            Self::PasswordChangeRequired => {
                (S::UNAUTHORIZED, "Password change required", "password_change_required")
            }
            Self::FactorNotAccepted => (S::BAD_REQUEST, "Factor not accepted", "factor_not_accepted"),
            Self::Unauthenticated => {
                (S::UNAUTHORIZED, "Missing or invalid token", "missing_or_invalid_token")
            }
            Self::InsufficientUserAuthentication => {
                (S::UNAUTHORIZED, "Insufficient user authentication", "insufficient_user_authentication")
            }
            Self::InsufficientRole => (S::FORBIDDEN, "Insufficient role", "insufficient_role"),
            Self::CrossSiteRequest => (S::FORBIDDEN, "Cross-site request", "cross_site_request"),
            Self::RegistrationClosed => (S::FORBIDDEN, "Registration is closed", "registration_is_closed"),
            Self::KeysFromConfig => (S::CONFLICT, "Keys come from the config", "keys_come_from_the_config"),
            Self::NotFound => (S::NOT_FOUND, "Not found", "not_found"),
            Self::MethodNotAllowed => (S::METHOD_NOT_ALLOWED, "Method not allowed", "method_not_allowed"),
            Self::RequestTimeout => (S::REQUEST_TIMEOUT, "Request timeout", "request_timeout"),
            Self::Conflict => (S::CONFLICT, "Changed meanwhile", "changed_meanwhile"),
            Self::PreconditionFailed => {
                (S::PRECONDITION_FAILED, "Precondition failed", "precondition_failed")
            }
            Self::UsernameExists => (S::CONFLICT, "Username already exists", "username_already_exists"),
            Self::ConfigNotAccepted => {
                (S::UNPROCESSABLE_ENTITY, "Config not accepted", "config_not_accepted")
            }
            Self::BodyTooLarge => (S::PAYLOAD_TOO_LARGE, "Body too large", "body_too_large"),
            Self::UnsupportedMediaType => {
                (S::UNSUPPORTED_MEDIA_TYPE, "Unsupported media type", "unsupported_media_type")
            }
            Self::TooManyRequests => (S::TOO_MANY_REQUESTS, "Too many requests", "too_many_requests"),
            Self::MisdirectedRequest => {
                (S::MISDIRECTED_REQUEST, "Misdirected request", "misdirected_request")
            }
            Self::HeadersTooLarge => {
                (S::REQUEST_HEADER_FIELDS_TOO_LARGE, "Headers too large", "headers_too_large")
            }
            Self::VersionNotSupported => {
                (S::HTTP_VERSION_NOT_SUPPORTED, "HTTP version not supported", "http_version_not_supported")
            }
            Self::RegistrationFailed => {
                (S::INTERNAL_SERVER_ERROR, "Registration failed", "registration_failed")
            }
            Self::Internal => (S::INTERNAL_SERVER_ERROR, "Internal error", "internal_error"),
            Self::UpstreamFailed => (S::BAD_GATEWAY, "Upstream failed", "upstream_failed"),
            Self::NoHealthyUpstream => (S::SERVICE_UNAVAILABLE, "No healthy upstream", "no_healthy_upstream"),
            Self::Unavailable => (S::SERVICE_UNAVAILABLE, "Service unavailable", "service_unavailable"),
            Self::UpstreamTimeout => (S::GATEWAY_TIMEOUT, "Upstream timeout", "upstream_timeout"),
        }
    }

    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        self.parts().0
    }

    /// The words that a person reads.
    pub const fn message(self) -> &'static str {
        self.parts().1
    }

    /// The stable name, as clients and metrics use it.
    pub const fn code(self) -> &'static str {
        self.parts().2
    }
}

/// The statuses of a deployment: those of the table, but for the two that older clients expect
/// otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Statuses {
    /// For a missing, bad or expired token.
    pub unauthenticated: StatusCode,
    /// When a name is taken.
    pub username_exists: StatusCode,
}

impl Default for Statuses {
    fn default() -> Self {
        Self {
            unauthenticated: Kind::Unauthenticated.status(),
            username_exists: Kind::UsernameExists.status(),
        }
    }
}

impl Statuses {
    /// The status for a kind.
    pub const fn of(&self, kind: Kind) -> StatusCode {
        match kind {
            Kind::Unauthenticated => self.unauthenticated,
            Kind::UsernameExists => self.username_exists,
            other => other.status(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_its_message_in_snake_case() {
        for kind in [Kind::BadRequest, Kind::Unauthenticated, Kind::NoHealthyUpstream] {
            assert_eq!(kind.message().to_lowercase().replace(' ', "_"), kind.code());
        }
    }
}
