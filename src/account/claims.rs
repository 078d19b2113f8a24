//! What tokens and upstreams are told of accounts beside names and roles.

use std::sync::{Arc, Weak};

use tokio::sync::mpsc;

use super::{AccountError, Result};
use crate::{
    clock::TimeKeeper,
    config::{AttributeRules, Claims, SetBy},
    error::Kind,
    store::{self, Store},
    token::{FreshSession, FreshSessions},
    types::{AttributeChanges, Roles, SessionId},
};

/// Reads the sessions whose cookies are about to be signed anew.
pub struct SessionReader {
    /// Takes what is known of them; it ends with the config that it is of.
    pub fresh: Weak<FreshSessions>,
    /// Tells which are wanted.
    pub wanted: mpsc::Receiver<SessionId>,
    /// What claims say.
    pub claims: Arc<Claims>,
    /// The roles whose holders must have a factor.
    pub required_for: Roles,
    /// The sessions and accounts.
    pub store: Arc<dyn Store>,
    /// Time.
    pub time: Arc<TimeKeeper>,
}

impl SessionReader {
    /// Reads what is wanted, for as long as anybody may want something.
    pub async fn run(mut self) {
        while let Some(id) = self.wanted.recv().await {
            let Some(fresh) = self.fresh.upgrade() else { return };
            // Without it the cookie is signed anew by what it says, when it has to be.
            match self.read(id).await {
                Ok(Some(read)) => fresh.learn(id, read),
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "a session could not be read"),
            }
        }
    }

    async fn read(&self, id: SessionId) -> store::Result<Option<FreshSession>> {
        let read_at = self.time.now().seconds();
        let Some(session) = self.store.session(id).await? else { return Ok(None) };
        let Some(user) = self.store.user(session.user).await? else { return Ok(None) };
        let must = user.roles.iter().any(|role| self.required_for.contains(role.as_str()));
        Ok(Some(FreshSession {
            claims: self.claims.of(&user.profile()),
            proofs: session.proofs,
            lacks_factor: must && !user.has_factors,
            generation: user.generation,
            read_at,
        }))
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
