//! Why a use case failed: precise for the log, bland for the client.

use std::time::Duration;

use thiserror::Error;

use super::PendingChallenge;
use crate::{
    error::{Kind, Unproved},
    limit::Throttled,
    password::{HashError, PasswordError},
    store::{ChallengePurpose, StoreError},
    token::KeyError,
    types::{Secret, UsernameError},
};

/// A failed use case. `Display` is for the log.
#[derive(Debug, Error)]
pub enum AccountError {
    /// What needs no further words.
    #[error("{kind}", kind = .0.message())]
    Refused(Kind),
    /// Further details for people.
    #[error("{kind}: {detail}", kind = .0.message(), detail = .1)]
    Explained(Kind, &'static str),
    /// A second factor is asked for, or a first one is to be got.
    #[error("a factor is needed")]
    FactorNeeded(Box<PendingChallenge>),
    /// Another password is to be chosen first, by this token.
    #[error("another password is to be chosen")]
    PasswordChangeNeeded(Secret),
    /// It is too long ago that the caller has shown who they are, or it was not by a factor.
    #[error("the proof of who they are is too old, or not by a factor")]
    Unproved(Unproved),
    /// The name breaks a rule.
    #[error("username: {0}")]
    Username(#[from] UsernameError),
    /// The password breaks a rule.
    #[error("password: {0}")]
    Password(#[from] PasswordError),
    /// Too many attempts.
    #[error("throttled for {0:?}")]
    Throttled(Duration),
    /// Hashing failed or was shed.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing could be signed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl From<Throttled> for AccountError {
    fn from(throttled: Throttled) -> Self {
        Self::Throttled(throttled.retry_after)
    }
}

impl AccountError {
    /// What the client hears.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Refused(kind) | Self::Explained(kind, _) => *kind,
            Self::FactorNeeded(asked) => match asked.purpose {
                ChallengePurpose::Enrolment => Kind::FactorEnrolmentRequired,
                _ => Kind::SecondFactorRequired,
            },
            Self::PasswordChangeNeeded(_) => Kind::PasswordChangeRequired,
            Self::Unproved(_) => Kind::InsufficientUserAuthentication,
            Self::Username(_) => Kind::UsernameNotAccepted,
            Self::Password(_) => Kind::PasswordNotAccepted,
            Self::Throttled(_) => Kind::TooManyRequests,
            Self::Hash(HashError::Busy(_) | HashError::Crowded) => Kind::Unavailable,
            Self::Hash(HashError::Rejected(_)) => Kind::PasswordNotAccepted,
            Self::Key(
                KeyError::NotYet(_) | KeyError::Revoked(_) | KeyError::NoneSigns | KeyError::Locked(_),
            ) => Kind::Unavailable,
            Self::Store(StoreError::Failed(_))
            | Self::Hash(HashError::Failed(_) | HashError::List(_))
            | Self::Key(_) => Kind::Internal,
            Self::Store(_) => Kind::Unavailable,
        }
    }

    /// What the person may be told beside it.
    pub fn detail(&self) -> Option<String> {
        match self {
            Self::Username(error) => Some(error.to_string()),
            Self::Password(error) | Self::Hash(HashError::Rejected(error)) => Some(error.to_string()),
            Self::Explained(_, detail) => Some((*detail).to_owned()),
            _ => None,
        }
    }

    /// When to try again.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Throttled(after) => Some(*after),
            Self::Hash(HashError::Busy(busy)) => Some(busy.retry_after),
            Self::Hash(HashError::Crowded) => Some(Duration::from_secs(1)),
            Self::Store(StoreError::Failed(_)) => None,
            Self::Store(_)
            | Self::Key(
                KeyError::NotYet(_) | KeyError::Revoked(_) | KeyError::NoneSigns | KeyError::Locked(_),
            ) => Some(Duration::from_secs(1)),
            _ => None,
        }
    }

    /// Whether an operator should hear of it.
    pub fn is_ours(&self) -> bool {
        match self {
            Self::Hash(error) => matches!(error, HashError::Busy(_) | HashError::Failed(_)),
            Self::Store(_) | Self::Key(_) => true,
            _ => false,
        }
    }
}
