//! What tokens and upstreams are told of accounts beside names and roles.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{sync::mpsc, time::timeout};

use super::{AccountError, Result};
use crate::{
    clock::TimeKeeper,
    config::{AttributeRules, Claims, Mfa, SetBy},
    error::Kind,
    store::{self, Store},
    token::{FreshSession, FreshSessions, WantedSession},
    types::{AttributeChanges, SessionId},
};

/// How long the store may take to tell of a session.
const READ_WITHIN: Duration = Duration::from_secs(1);

/// Reads the sessions whose cookies are about to be signed anew.
pub struct SessionReader {
    /// Takes what is known of them; it ends with the config that it is of.
    pub fresh: Weak<FreshSessions>,
    /// Tells which are wanted.
    pub wanted: mpsc::Receiver<WantedSession>,
    /// What claims say.
    pub claims: Arc<Claims>,
    /// Who must have a factor.
    pub mfa: Mfa,
    /// The sessions and accounts.
    pub store: Arc<dyn Store>,
    /// Time.
    pub time: Arc<TimeKeeper>,
}

impl SessionReader {
    /// Reads what is wanted, for as long as anybody may want something.
    pub async fn run(mut self) {
        while let Some(wanted) = self.wanted.recv().await {
            let Some(fresh) = self.fresh.upgrade() else { return };
            if fresh.has(&wanted, self.time.now().seconds()) {
                // Another request of it was earlier.
                continue;
            }
            match timeout(READ_WITHIN, self.read(wanted.id)).await {
                Ok(Ok(read)) => {
                    fresh.learn(wanted.id, read);
                    continue;
                }
                Ok(Err(error)) => tracing::debug!(%error, "a session could not be read"),
                Err(_) => tracing::debug!("a session could not be read in time"),
            }
            // Without it the cookie is signed anew by what it says, when it has to be.
            fresh.pause(self.time.now().seconds());
        }
    }

    async fn read(&self, id: SessionId) -> store::Result<FreshSession> {
        let read_at = self.time.now().seconds();
        let Some(session) = self.store.session(id).await? else { return Ok(FreshSession::ended(read_at)) };
        let user = self.store.user(session.user).await?;
        let Some(user) = user else { return Ok(FreshSession::ended(read_at)) };
        Ok(FreshSession {
            goes_on: user.has_factors || !self.mfa.binds(&user.roles),
            claims: self.claims.of(&user.profile()),
            proofs: session.proofs,
            generation: user.generation,
            read_at,
        })
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
