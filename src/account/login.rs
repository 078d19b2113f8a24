//! Logging in.

use std::net::IpAddr;

use super::{AccountError, Accounts, Result, Tokens};
use crate::{
    error::Kind,
    limit::Attempt,
    password::{HashError, Rules, Verdict},
    store::User,
    types::{Secret, SessionId, Username},
};

/// Why a password was not looked at, or what it was.
pub(super) enum Judged {
    Right,
    Wrong,
}

impl Accounts {
    /// Opens a session for whoever knows the password. A wrong password, an unknown name and a
    /// disabled account are one answer at one cost.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn login(&self, username: &str, password: &Secret, address: IpAddr) -> Result<Tokens> {
        let invalid = || AccountError::Refused(Kind::InvalidCredentials);
        // Too long is refused for every name alike, before it costs anything.
        let password = Rules::prepare(password).map_err(|_| invalid())?;
        let name = Username::new(username).ok();
        let user = match &name {
            Some(name) => self.store.user_by_name(name).await?,
            None => None,
        };
        let attempt = self.attempt(name.as_ref(), username, user.is_some(), address)?;
        let Some(user) = user else {
            let _counted = self.hash_outcome(attempt, self.hasher.verify_unknown(password).await)?;
            return Err(invalid());
        };
        let verdict = self.hasher.verify(password.clone(), &user.password_hash).await;
        let (attempt, verdict) = self.hash_outcome(attempt, verdict)?;
        if !verdict.matches || user.disabled {
            return Err(invalid());
        }
        let (session, refresh) = self.new_session(SessionId::generate(&*self.random));
        let grant = match self.store.open_session(user.id, &user.password_hash, &session).await {
            Ok(grant) => grant,
            Err(error) => {
                attempt.forgotten();
                return Err(error.into());
            }
        };
        attempt.succeeded();
        let tokens = self.issue(grant.ok_or_else(invalid)?, refresh)?;
        if verdict.outdated {
            self.rehash(&user, password).await;
        }
        Ok(tokens)
    }

    fn attempt(&self, name: Option<&Username>, typed: &str, known: bool, address: IpAddr) -> Result<Attempt> {
        // Spellings and look-alikes of a name are counted as one.
        let account = match name {
            Some(name) => name.skeleton(),
            None => typed.chars().take(Username::MAX_CHARS).collect(),
        };
        Ok(self.throttle.login(&account, known, address, self.time.now().boot)?)
    }

    /// Gives an attempt back when its password was never looked at.
    fn hash_outcome(
        &self,
        attempt: Attempt,
        verdict: std::result::Result<Verdict, HashError>,
    ) -> Result<(Attempt, Verdict)> {
        match verdict {
            Ok(verdict) => Ok((attempt, verdict)),
            Err(error) => {
                attempt.forgotten();
                Err(error.into())
            }
        }
    }

    /// Replaces a hash made with older parameters. The login does not depend on it.
    async fn rehash(&self, user: &User, password: Secret) {
        let done = match self.hasher.hash(password).await {
            Ok(hash) => {
                self.store.rehash(user.id, &user.password_hash, &hash).await.map_err(AccountError::from)
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            tracing::warn!(user.id = %user.id, %error, "the password hash was not renewed");
        }
    }

    /// Compares a password that proves who a signed-in caller is; counts like a login.
    pub(super) async fn judge_password(
        &self,
        user: &User,
        password: &Secret,
        address: IpAddr,
    ) -> Result<Judged> {
        let Ok(password) = Rules::prepare(password) else { return Ok(Judged::Wrong) };
        let attempt = self.attempt(Some(&user.name), "", true, address)?;
        let verdict = self.hasher.verify(password, &user.password_hash).await;
        let (attempt, verdict) = self.hash_outcome(attempt, verdict)?;
        if verdict.matches {
            attempt.succeeded();
            return Ok(Judged::Right);
        }
        Ok(Judged::Wrong)
    }
}
