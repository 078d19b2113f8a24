//! Logging in.

use std::{net::IpAddr, time::Instant};

use super::{
    AccountError, Accounts, Result, Tokens,
    attempts::{Counted, Reserved},
};
use crate::{
    error::Kind,
    password::{HashError, Origin, Rules, Verdict},
    store::User,
    types::{Secret, SessionId, Username},
};

/// Why a password was not looked at, or what it was.
pub(super) enum Judged {
    Right,
    Wrong,
}

fn counted_as(name: Option<&Username>, typed: &str) -> Counted {
    name.map_or_else(|| Counted::of_text(typed), Counted::of)
}

impl Accounts {
    /// Opens a session for whoever knows the password. A wrong password, an unknown name and a
    /// disabled account are one answer at one cost.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn login(&self, username: &str, typed: &Secret, address: IpAddr) -> Result<Tokens> {
        let mut failure_moment = Instant::now();
        let result = self.try_login(username, typed, address, &mut failure_moment).await;
        if matches!(result, Err(AccountError::Refused(Kind::InvalidCredentials))) {
            // By the timer, so that it does not tell what the account's hash costs, or that there is none.
            tokio::time::sleep_until(failure_moment.into()).await;
        }
        result
    }

    async fn try_login(
        &self,
        username: &str,
        typed: &Secret,
        address: IpAddr,
        failure_moment: &mut Instant,
    ) -> Result<Tokens> {
        let invalid = || AccountError::Refused(Kind::InvalidCredentials);
        // Too long is refused for every name alike, before it costs anything.
        let password = Rules::prepare(typed).map_err(|_| invalid())?;
        let name = Username::new(username).ok();
        // Look-alikes are counted as one, so whether there is such an account is asked of the look, too:
        // or a look-alike that is counted apart would tell that there is.
        let alike = match &name {
            Some(name) => self.store.user_by_look(name).await?,
            None => None,
        };
        let attempt = self.attempt(name.as_ref(), username, alike.is_some(), address).await?;
        *failure_moment = self.hasher.failure_moment();
        let user = alike.filter(|user| Some(&user.name) == name.as_ref());
        let origin = Origin::new(Some(counted_as(name.as_ref(), username).look()), address);
        let Some(mut user) = user else {
            let verdict = self.hasher.verify_unknown(password, origin).await;
            let _counted = self.hash_outcome(attempt, verdict).await?;
            return Err(invalid());
        };
        let (attempt, verdict, grant, refresh) = {
            let mut attempt = attempt;
            let mut again = true;
            loop {
                let stored = &user.password_hash;
                let judged = self.hasher.verify(password.clone(), typed, stored, origin.clone()).await;
                let verdict;
                (attempt, verdict) = self.hash_outcome(attempt, judged).await?;
                if !verdict.matches || user.disabled {
                    return Err(invalid());
                }
                if let Err(error) = self.await_key().await {
                    self.attempts.forgotten(attempt).await;
                    return Err(error);
                }
                let (session, refresh) = self.new_session(SessionId::generate(&*self.random));
                let opened = self.store.open_session(user.id, &user.password_hash, &session).await;
                match opened {
                    Ok(Some(grant)) => break (attempt, verdict, grant, refresh),
                    Ok(None) if again => again = false,
                    Ok(None) => return Err(invalid()),
                    Err(error) => {
                        self.attempts.forgotten(attempt).await;
                        return Err(error.into());
                    }
                }
                // The hash is another one by now: another login of this user may have renewed it.
                user = match self.store.user(user.id).await {
                    Ok(user) => user.ok_or_else(invalid)?,
                    Err(error) => {
                        self.attempts.forgotten(attempt).await;
                        return Err(error.into());
                    }
                };
            }
        };
        self.attempts.succeeded(attempt).await;
        let tokens = self.issue(grant, refresh).await?;
        if verdict.outdated {
            self.rehash(&user, password, origin).await;
        }
        Ok(tokens)
    }

    async fn attempt(
        &self,
        name: Option<&Username>,
        typed: &str,
        known: bool,
        address: IpAddr,
    ) -> Result<Reserved> {
        self.attempts.login(&counted_as(name, typed), known, address).await
    }

    /// Gives an attempt back when its password was never looked at.
    async fn hash_outcome(
        &self,
        attempt: Reserved,
        verdict: std::result::Result<Verdict, HashError>,
    ) -> Result<(Reserved, Verdict)> {
        match verdict {
            Ok(verdict) => Ok((attempt, verdict)),
            Err(error) => {
                self.attempts.forgotten(attempt).await;
                Err(error.into())
            }
        }
    }

    /// Replaces a hash made with older parameters. The login does not depend on it.
    async fn rehash(&self, user: &User, password: Secret, origin: Origin) {
        let done = match self.hasher.hash(password, false, origin).await {
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
        let Ok(prepared) = Rules::prepare(password) else { return Ok(Judged::Wrong) };
        let attempt = self.attempt(Some(&user.name), "", true, address).await?;
        let origin = Origin::new(Some(&user.name.skeleton()), address);
        let verdict = self.hasher.verify(prepared, password, &user.password_hash, origin).await;
        let (attempt, verdict) = self.hash_outcome(attempt, verdict).await?;
        if verdict.matches {
            self.attempts.succeeded(attempt).await;
            return Ok(Judged::Right);
        }
        Ok(Judged::Wrong)
    }
}
