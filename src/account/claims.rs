//! What tokens and upstreams are told of accounts beside names and roles.

use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use super::{AccountError, Result};
use crate::{
    clock::TimeKeeper,
    config::{AttributeRules, Claims, SetBy},
    error::Kind,
    store::Store,
    token::FreshClaims,
    types::{AttributeChanges, UserId},
};

/// Reads the claims of accounts whose cookies are about to be signed anew.
pub struct ClaimReader {
    /// Takes them; it ends with the config that it is of.
    pub fresh: Weak<FreshClaims>,
    /// Tells whose are wanted.
    pub wanted: mpsc::Receiver<UserId>,
    /// What they say.
    pub claims: Arc<Claims>,
    /// The accounts.
    pub store: Arc<dyn Store>,
    /// Time.
    pub time: Arc<TimeKeeper>,
}

impl ClaimReader {
    /// Reads what is wanted, for as long as anybody may want something.
    pub async fn run(mut self) {
        while let Some(id) = self.wanted.recv().await {
            let Some(fresh) = self.fresh.upgrade() else { return };
            // Without it the cookie is signed anew by what it says, when it has to be.
            match self.store.user(id).await {
                Ok(Some(user)) => {
                    let values = self.claims.of(&user.profile());
                    fresh.learn(id, user.generation, values, self.time.now().seconds());
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "the claims of an account could not be read"),
            }
        }
    }
}

/// Checks a change of attributes by `by`, an operator or the account's owner.
///
/// # Errors
/// 400 for one that is not declared or a value that it does not take, 403 for one that only operators set.
pub(super) fn check_attributes(rules: &AttributeRules, changes: &AttributeChanges, by: SetBy) -> Result<()> {
    for (name, value) in changes {
        let Some(rule) = rules.get(name) else {
            return Err(AccountError::Explained(Kind::MissingParameters, "there is no such attribute"));
        };
        if by == SetBy::Person && rule.by == SetBy::Operator {
            return Err(AccountError::Explained(
                Kind::InsufficientRole,
                "operators alone set this attribute",
            ));
        }
        if value.as_ref().is_some_and(|value| !rule.takes(value)) {
            return Err(AccountError::Explained(
                Kind::MissingParameters,
                "an attribute is one line of text, no longer than the config allows; null takes it away",
            ));
        }
    }
    Ok(())
}
