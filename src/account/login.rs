//! Logging in.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use super::{
    AccountError, Accounts, Client, Holder, Result, Tokens,
    attempts::{Counted, Reserved},
    challenge::NewChallenge,
    register::check_email,
};
use crate::{
    clock::millis,
    error::Kind,
    password::{HashError, Origin, Rules, Verdict},
    store::{ChallengePurpose, Event, Grant, NewResetLink, NewSession, User},
    token::{Device, OpaqueToken, RefreshToken},
    types::{Proofs, Roles, Secret, SessionId, Username},
};

/// How long somebody has to choose another password who must.
const MUST_CHANGE_WITHIN: Duration = Duration::from_secs(900);

/// A session that was opened for a password.
pub(super) struct Authenticated {
    pub(super) grant: Grant,
    pub(super) refresh: RefreshToken,
    pub(super) device: Device,
    /// A hash that was made with older parameters.
    pub(super) rehash: Option<Rehash>,
}

/// A password whose hash is to be made anew.
pub(super) struct Rehash {
    user: User,
    password: Secret,
    origin: Origin,
}

/// The verdict on a password.
pub(super) enum Judged {
    Right,
    Wrong,
}

fn counted_as(name: Option<&Username>, typed: &str) -> Counted {
    name.map_or_else(|| Counted::of_text(typed), Counted::of)
}

fn failed(address: IpAddr, why: &str) -> Event {
    Event::of_stranger(address, "user.login-failed", why.to_owned())
}

impl Accounts {
    /// Opens a session after the password was verified. A wrong password, an unknown name and a
    /// disabled account are one response at one cost.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn login(&self, username: &str, typed: &Secret, client: Client<'_>) -> Result<Tokens> {
        let authenticated = self.authenticate(username, typed, Holder::Tokens, client).await?;
        let tokens = self.issue(authenticated.grant, authenticated.refresh).await?;
        let device = self.device_token(authenticated.device, tokens.user.generation);
        if let Some(rehash) = authenticated.rehash {
            self.rehash(rehash).await;
        }
        Ok(Tokens { device: Some(device), ..tokens })
    }

    pub(super) async fn authenticate(
        &self,
        username: &str,
        typed: &Secret,
        holder: Holder,
        client: Client<'_>,
    ) -> Result<Authenticated> {
        let mut failure_moment = Instant::now();
        let result = self.try_login(username, typed, holder, client, &mut failure_moment).await;
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
        holder: Holder,
        client: Client<'_>,
        failure_moment: &mut Instant,
    ) -> Result<Authenticated> {
        let address = client.address;
        let invalid = || AccountError::Refused(Kind::InvalidCredentials);
        // Too long is refused for every name alike, before it costs anything.
        let password = Rules::prepare(typed).map_err(|_| invalid())?;
        let name = Username::new(username).ok();
        // By what was typed, in whichever spelling, and not by the account's name: 429 for that would tell whose an
        // address is.
        let counted = counted_as(name.as_ref(), &username.to_lowercase());
        let (user, known) = self.find(username, name.as_ref()).await?;
        let now = self.time.now().time;
        let device = user
            .as_ref()
            .zip(client.device)
            .and_then(|(user, token)| self.device_tokens.read(token, user.id, user.generation, now));
        let attempt = self.attempts.login(&counted, known, address, device.map(|device| device.id)).await?;
        *failure_moment = self.hasher.failure_moment();
        let origin = Origin::new(Some(counted.look()), address);
        let Some(user) = user else {
            let verdict = self.hasher.verify_unknown(password, origin).await;
            let _counted = self.hash_outcome(attempt, verdict).await?;
            // The text is not recorded, because it is often a password.
            self.record(None, failed(address, "no such account")).await;
            return Err(invalid());
        };
        let verdict = self.verify(&user, password.clone(), typed, origin.clone()).await;
        let (attempt, verdict) = self.hash_outcome(attempt, verdict).await?;
        if !verdict.matches || user.disabled {
            let why = if verdict.matches { "the account is disabled" } else { "wrong password" };
            self.record(Some(user.id), failed(address, why)).await;
            return Err(invalid());
        }
        if let Err(error) = self.await_key().await {
            self.attempts.forgotten(attempt).await;
            return Err(error);
        }
        let is_remembered = match self.is_remembered(&user, client).await {
            Ok(is_remembered) => is_remembered,
            Err(error) => {
                self.attempts.forgotten(attempt).await;
                return Err(error);
            }
        };
        // The password alone is no reason to replace it where there are factors: they come first.
        if user.must_change_password && (is_remembered || !user.has_factors) {
            let made = self.password_change_token(&user, address).await;
            match &made {
                Ok(_) => self.attempts.passed(attempt).await,
                Err(_) => self.attempts.forgotten(attempt).await,
            }
            return Err(AccountError::PasswordChangeNeeded(made?));
        }
        if let Some(purpose) = self.required_challenge(&user).filter(|_| !is_remembered) {
            let proofs = Proofs::PASSWORD;
            let new = NewChallenge { purpose, session: None, proofs, holder, link: None };
            let challenge = self.create_challenge(&user, new).await;
            match &challenge {
                Ok(_) => self.attempts.passed(attempt).await,
                Err(_) => self.attempts.forgotten(attempt).await,
            }
            if verdict.outdated {
                self.rehash(Rehash { user, password, origin }).await;
            }
            return Err(AccountError::FactorNeeded(Box::new(challenge?)));
        }
        let (mut session, refresh) =
            self.new_session(SessionId::generate(&*self.random), client.place(), holder);
        session.is_remembered = is_remembered;
        let (attempt, grant) = self.open(&user, &session, address, attempt).await?;
        self.attempts.succeeded(attempt).await;
        let device = device.unwrap_or_else(|| self.device_tokens.new_device(user.id));
        let rehash = verdict.outdated.then_some(Rehash { user, password, origin });
        Ok(Authenticated { grant, refresh, device, rehash })
    }

    /// Makes a token by which the owner of an account, whose password was right, chooses another one.
    pub(super) async fn password_change_token(&self, user: &User, address: IpAddr) -> Result<Secret> {
        let token = OpaqueToken::generate(&*self.random);
        let new = NewResetLink {
            id: uuid::Builder::from_random_bytes(self.random.bytes()).into_uuid(),
            user: user.id,
            token_hash: token.hash,
            generation: Some(user.generation),
            holds_for: millis(MUST_CHANGE_WITHIN),
        };
        let event = Event::own(user.id, address, "user.must-change-password", String::new());
        let made = self.store.add_reset_link(&new, &event).await?;
        made.ok_or(AccountError::Refused(Kind::InvalidCredentials))?;
        Ok(token.text)
    }

    /// Returns whether one of these roles requires a factor.
    pub(super) fn role_requires_factor(&self, roles: &Roles) -> bool {
        self.config.mfa.binds(roles)
    }

    /// Returns whether an account must have a factor.
    pub(super) fn requires_factor(&self, user: &User) -> bool {
        self.role_requires_factor(&user.roles)
    }

    /// Returns the challenge that an account requires after its password.
    pub(super) fn required_challenge(&self, user: &User) -> Option<ChallengePurpose> {
        match (user.has_factors, self.requires_factor(user)) {
            (true, _) => Some(ChallengePurpose::Login),
            (false, true) => Some(ChallengePurpose::Enrolment),
            (false, false) => None,
        }
    }

    /// Opens the session, if the account has not changed since the password was verified.
    async fn open(
        &self,
        user: &User,
        session: &NewSession,
        address: IpAddr,
        attempt: Reserved,
    ) -> Result<(Reserved, Grant)> {
        let event = Event::own(user.id, address, "user.login", format!("session: {}", session.id));
        match self.store.open_session(user.id, user.generation, session, &event).await {
            Ok(Some(grant)) => Ok((attempt, grant)),
            // The account was changed while the password was verified, and perhaps the password, too.
            Ok(None) => {
                self.attempts.succeeded(attempt).await;
                self.record(Some(user.id), failed(address, "the account was changed meanwhile")).await;
                Err(AccountError::Refused(Kind::InvalidCredentials))
            }
            Err(error) => {
                self.attempts.forgotten(attempt).await;
                Err(error.into())
            }
        }
    }

    /// Finds the account, and tells whether any account has a similar name or the address.
    async fn find(&self, typed: &str, name: Option<&Username>) -> Result<(Option<User>, bool)> {
        let by = self.config.login_by;
        // Look-alikes are counted as one, so whether there is such an account is asked of the skeleton, too:
        // or a look-alike that is counted apart would tell that there is.
        let similar_user = match name {
            Some(name) if by.username => self.store.user_by_skeleton(name).await?,
            _ => None,
        };
        // An address has precedence: it is verified for one account, while anyone may have taken it as a name.
        let address_given = check_email(typed.trim()).ok().filter(|_| by.email);
        let by_address = match &address_given {
            Some(given) => self.store.user_by_verified_email(given).await?.filter(|user| !user.disabled),
            None => None,
        };
        let known = similar_user.is_some() || by_address.is_some();
        let by_name = similar_user.filter(|user| Some(&user.name) == name);
        Ok((by_address.or(by_name), known))
    }

    /// Compares a password with the account's. One that has none costs the same, and none is right.
    async fn verify(
        &self,
        user: &User,
        password: Secret,
        typed: &Secret,
        origin: Origin,
    ) -> std::result::Result<Verdict, HashError> {
        match &user.password_hash {
            Some(hash) => self.hasher.verify(password, typed, hash, origin).await,
            None => self.hasher.verify_unknown(password, origin).await,
        }
    }

    /// Returns the token of the device that the login came from.
    pub(super) fn device_token(&self, device: Device, generation: i64) -> String {
        self.device_tokens.token(device, generation, self.time.now().time)
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
    pub(super) async fn rehash(&self, Rehash { user, password, origin }: Rehash) {
        let done = match self.hasher.hash_again(password, origin).await {
            Ok(hash) => {
                let old = user.password_hash.as_deref().unwrap_or_default();
                self.store.rehash(user.id, old, &hash).await.map_err(AccountError::from)
            }
            Err(error) => Err(error.into()),
        };
        if let Err(error) = done {
            tracing::warn!(user.id = %user.id, %error, "the password hash was not renewed");
        }
    }

    /// Compares a password with the account's, and counts nothing.
    pub(super) async fn is_password(&self, user: &User, password: &Secret, address: IpAddr) -> Result<bool> {
        let Ok(prepared) = Rules::prepare(password) else { return Ok(false) };
        let origin = Origin::new(Some(&user.name.skeleton()), address);
        Ok(self.verify(user, prepared, password, origin).await?.matches)
    }

    /// Compares a password that proves who a signed-in caller is; counts like a login.
    pub(super) async fn judge_password(
        &self,
        user: &User,
        password: &Secret,
        address: IpAddr,
    ) -> Result<Judged> {
        if Rules::prepare(password).is_err() {
            return Ok(Judged::Wrong);
        }
        let attempt = self.attempts.login(&Counted::of(&user.name), true, address, None).await?;
        match self.is_password(user, password, address).await {
            Ok(true) => {
                self.attempts.succeeded(attempt).await;
                return Ok(Judged::Right);
            }
            Ok(false) => {}
            Err(error) => {
                self.attempts.forgotten(attempt).await;
                return Err(error);
            }
        }
        self.record(Some(user.id), Event::own(user.id, address, "user.proof-failed", String::new())).await;
        Ok(Judged::Wrong)
    }
}
