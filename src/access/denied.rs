//! Why a request is denied.

use std::time::Duration;

use thiserror::Error;

use crate::{
    error::{Kind, Unproved},
    token::TokenError,
};

/// Why a request is refused. The text is for the log.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
pub enum Denied {
    /// No credential.
    #[error("no bearer token")]
    NoToken,
    /// Several credentials, another scheme, or not a token.
    #[error("the Authorization header is not one bearer token")]
    UnusableCredential,
    /// The token does not hold.
    #[error("token: {0}")]
    BadToken(#[from] TokenError),
    /// What is to be an API key is none, or the key has ended.
    #[error("no API key that lives")]
    BadKey,
    /// Too many tries with bad API keys have come from the client's address.
    #[error("too many bad API keys")]
    Throttled(Duration),
    /// The API key is not good on this route, or from this address.
    #[error("the API key is not good on this route, or from this address")]
    KeyElsewhere,
    /// The token was revoked.
    #[error("token: revoked")]
    Revoked,
    /// It is not known whether the token was revoked.
    #[error("the revocation mirror is stale")]
    Stale,
    /// A page of another site may have made the browser send its cookie.
    #[error("the cookie came with a request that may be another site's")]
    CrossSite,
    /// It is too long ago that the caller showed who they are, or they have by a password alone.
    #[error("the proof of who they are is too old, or not by two factors: {0:?}")]
    Unproved(Unproved),
    /// The roles are not enough.
    #[error("roles not sufficient")]
    Role,
}

impl Denied {
    /// The reason for which a request may be decided once the issuer of its token was asked.
    pub const UNSETTLED: &'static str = "unsettled_token";

    /// The reason for which a request is to be counted before it is denied.
    pub const BAD_KEY: &'static str = "bad_key";

    /// The same where no other issuer is asked: what would need that is no good.
    #[must_use]
    pub fn without_asking(self) -> Self {
        match self {
            Self::BadToken(TokenError::Unsettled | TokenError::NoKeys) => TokenError::UnknownKey.into(),
            denied => denied,
        }
    }

    /// Whether it was denied for want of what the issuer of its token can say, or for a key that is to be counted; see [`Access::settle`].
    pub fn is_unsettled(self) -> bool {
        matches!(self, Self::BadToken(TokenError::Unsettled) | Self::BadKey)
    }

    /// What the client hears.
    pub fn kind(self) -> Kind {
        match self {
            Self::BadToken(TokenError::Unsettled | TokenError::NoKeys) => Kind::Unavailable,
            Self::BadToken(TokenError::Throttled) | Self::Throttled(_) => Kind::TooManyRequests,
            Self::NoToken | Self::UnusableCredential | Self::BadToken(_) | Self::BadKey | Self::Revoked => {
                Kind::Unauthenticated
            }
            Self::Stale => Kind::Unavailable,
            Self::Role | Self::KeyElsewhere => Kind::InsufficientRole,
            Self::CrossSite => Kind::CrossSiteRequest,
            Self::Unproved(_) => Kind::InsufficientUserAuthentication,
        }
    }

    /// The label of `authgate_denied_total`.
    pub fn reason(self) -> &'static str {
        match self {
            Self::NoToken => "no_token",
            Self::UnusableCredential => "unusable_credential",
            Self::BadToken(TokenError::Expired) => "expired_token",
            Self::BadToken(TokenError::Unsettled) => Self::UNSETTLED,
            Self::BadToken(TokenError::NoKeys) => "issuer_away",
            Self::BadToken(_) => "bad_token",
            Self::BadKey => Self::BAD_KEY,
            Self::Throttled(_) => "throttled",
            Self::KeyElsewhere => "key_elsewhere",
            Self::Revoked => "revoked",
            Self::Stale => "stale",
            Self::Role => "insufficient_role",
            Self::CrossSite => "cross_site",
            Self::Unproved(Unproved { needs_factors: true, .. }) => "no_second_factor",
            Self::Unproved(_) => "not_fresh",
        }
    }

    /// Whether the credential is known to be worth nothing any more.
    pub fn is_dead(self) -> bool {
        matches!(self, Self::Revoked | Self::BadToken(_)) && self.kind() == Kind::Unauthenticated
    }

    /// Whether a token was there and was bad, which `WWW-Authenticate` tells (RFC 6750, section 3).
    pub fn had_token(self) -> bool {
        self.kind() == Kind::Unauthenticated
            && matches!(self, Self::UnusableCredential | Self::BadToken(_) | Self::BadKey | Self::Revoked)
    }
}
