//! Failed calls of our own APIs.

use super::Denied;
use crate::{
    account::AccountError,
    error::{Kind, Problem},
    store::StoreError,
};

/// Why a call failed.
pub struct Failure {
    /// What the client hears.
    pub problem: Problem,
    /// What an operator should hear.
    pub log: Option<String>,
}

impl From<Kind> for Failure {
    fn from(kind: Kind) -> Self {
        Self { problem: kind.into(), log: None }
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self { problem, log: None }
    }
}

impl From<Denied> for Failure {
    fn from(denied: Denied) -> Self {
        Self { problem: denied.into(), log: None }
    }
}

impl From<Denied> for Problem {
    fn from(denied: Denied) -> Self {
        let unproved = match denied {
            Denied::Unproved(unproved) => Some(unproved),
            _ => None,
        };
        let retry_after = match denied {
            Denied::Throttled(after) => Some(after),
            _ => None,
        };
        Self { had_token: denied.had_token(), unproved, retry_after, ..denied.kind().into() }
    }
}

impl From<AccountError> for Failure {
    fn from(error: AccountError) -> Self {
        let kind = error.kind();
        let problem = Problem {
            detail: error.detail(),
            retry_after: error.retry_after(),
            // A token that got this far was good, unless it is now said not to be.
            had_token: kind == Kind::Unauthenticated,
            unproved: match &error {
                AccountError::Unproved(unproved) => Some(*unproved),
                _ => None,
            },
            further: match &error {
                AccountError::FactorNeeded(asked) => Some(Box::new(asked.members())),
                AccountError::PasswordChangeNeeded(token) => {
                    let member = ("reset_token".to_owned(), token.expose().into());
                    Some(Box::new([member].into_iter().collect()))
                }
                _ => None,
            },
            ..kind.into()
        };
        Self { problem, log: error.is_ours().then(|| error.to_string()) }
    }
}

impl Failure {
    /// A failure of ours while registering has its own words.
    #[must_use]
    pub fn while_registering(mut self) -> Self {
        if self.problem.kind == Kind::Internal {
            self.problem.kind = Kind::RegistrationFailed;
        }
        self
    }

    /// Logs failures that concern the operator.
    pub fn log(&self, request_id: &str) {
        let message = self.problem.kind.message();
        match &self.log {
            Some(reason) => tracing::warn!(request.id = request_id, reason, "{message}"),
            None => tracing::debug!(request.id = request_id, "{message}"),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        AccountError::from(error).into()
    }
}
