//! Responses to challenges. A right one opens a session, or steps one up.

use std::net::IpAddr;

use super::{
    AccountError, Accounts, BrowserSession, Client, Holder, Method, Result, Tokens,
    attempts::Counted,
    challenge::{MOST_TRIES, wrong},
};
use crate::{
    factor::Assertion,
    store::{AuthChallenge, ChallengeCompletion, Event, Factor, Grant, Outcome, SessionKind, StepUp, User},
    token::{AccessToken, OpaqueToken, RefreshToken, SignedIn},
    types::{Proofs, Secret, SessionId},
};

/// The response to a challenge.
#[derive(Debug)]
pub struct ChallengeResponse {
    /// The method.
    pub method: Method,
    /// The code, or the password.
    pub code: Option<Secret>,
    /// The passkey.
    pub credential: Option<Assertion>,
    /// Whether later logins from this device need no factor for a while.
    pub remember_device: bool,
}

/// The sender of a response.
#[derive(Debug, Clone, Copy)]
pub struct Responder<'a> {
    /// Whether it is a browser, by a page.
    pub is_page: bool,
    /// Who is signed in. It matters for challenges that belong to a session.
    pub person: Option<&'a SignedIn>,
}

/// The credentials that are issued for a right response.
pub enum Issued {
    /// Tokens.
    Tokens(Box<Tokens>),
    /// An access token. The session keeps its refresh token.
    Access(Box<AccessToken>),
    /// A session cookie.
    Browser(Box<BrowserSession>),
}

impl Responder<'_> {
    /// Returns whether a challenge may be completed by this sender.
    fn may_complete(self, challenge: &AuthChallenge) -> bool {
        match challenge.session {
            Some(session) => {
                self.person.is_some_and(|person| person.session == session && person.kind() == challenge.kind)
            }
            None => self.is_page == (challenge.kind == SessionKind::Browser),
        }
    }
}

/// Returns whether another password is to be chosen once a challenge that followed the present one is completed.
fn must_change(challenge: &AuthChallenge, user: &User) -> bool {
    user.must_change_password && challenge.session.is_none() && challenge.proofs == Proofs::PASSWORD
}

impl Accounts {
    /// Returns the account of a challenge, if the sender may complete it.
    pub(super) async fn challenge_owner(
        &self,
        challenge: &AuthChallenge,
        responder: Responder<'_>,
    ) -> Result<User> {
        if !responder.may_complete(challenge) {
            return Err(wrong());
        }
        let (id, generation) = challenge.user.ok_or_else(wrong)?;
        let user = self.store.user(id).await?;
        user.filter(|user| !user.disabled && user.generation == generation).ok_or_else(wrong)
    }

    /// Verifies the response to a challenge, and issues credentials for it.
    ///
    /// # Errors
    /// `Invalid credentials` for a wrong response or an expired challenge; or [`AccountError`].
    pub async fn respond(
        &self,
        token: &Secret,
        response: ChallengeResponse,
        responder: Responder<'_>,
        client: Client<'_>,
    ) -> Result<Issued> {
        let hash = OpaqueToken::hash_of(token.expose());
        // An unknown or expired challenge counts against no account.
        let Some(challenge) = self.store.auth_challenge(&hash, MOST_TRIES).await? else {
            let _counted = self.attempts.challenge(client.address).await?;
            return Err(wrong());
        };
        let (user, passkey) = match challenge.user {
            Some(_) => match self.challenge_owner(&challenge, responder).await {
                Ok(user) => (user, None),
                Err(error) => {
                    let _counted = self.attempts.challenge(client.address).await?;
                    return Err(error);
                }
            },
            None => self.passkey_owner(&challenge, &response, responder, client.address).await?,
        };
        let now = self.time.now().time;
        let device =
            client.device.and_then(|token| self.device_tokens.read(token, user.id, user.generation, now));
        let known = device.map(|device| device.id);
        let attempt = self.attempts.login(&Counted::of(&user.name), true, client.address, known).await?;
        let (grant, refresh) = match self.complete(&challenge, &user, passkey, &response, client).await {
            Ok(Some(completed)) => completed,
            Ok(None) => return Err(wrong()),
            Err(error) => {
                self.attempts.forgotten(attempt).await;
                return Err(error);
            }
        };
        self.attempts.succeeded(attempt).await;
        if must_change(&challenge, &user) {
            // What made room for this session, and the session, whose tokens nobody has.
            self.revoker.in_force(&grant.ended).await;
            let entry = self.store.end_session(user.id, grant.session, None).await?;
            self.revoker.in_force(entry.as_slice()).await;
            let token = self.password_change_token(&user, client.address).await?;
            return Err(AccountError::PasswordChangeNeeded(token));
        }
        let device = device.unwrap_or_else(|| self.device_tokens.new_device(user.id));
        let is_login = challenge.session.is_none();
        let remembers = is_login && self.remembers_devices() && response.remember_device;
        let remembered = if remembers {
            let state = self.state_of_factors(&user).await?;
            Some(self.factors.remembered.token(device, state, self.time.now().time))
        } else {
            None
        };
        let device = is_login.then(|| self.device_token(device, user.generation));
        Ok(match challenge.kind {
            SessionKind::Browser => {
                let session = self.issue_cookie(grant, challenge.keep).await?;
                Issued::Browser(Box::new(BrowserSession { device, remembered, ..session }))
            }
            _ => {
                let tokens = self.issue(grant, refresh).await?;
                Issued::Tokens(Box::new(Tokens { device, remembered, ..tokens }))
            }
        })
    }

    /// Verifies a response and completes its challenge, which counts one try. Returns `None` for a wrong response.
    async fn complete(
        &self,
        challenge: &AuthChallenge,
        user: &User,
        passkey: Option<Factor>,
        response: &ChallengeResponse,
        client: Client<'_>,
    ) -> Result<Option<(Grant, RefreshToken)>> {
        let (address, method) = (client.address, response.method.name());
        let failed = |detail: &str| Event::own(user.id, address, "user.factor-failed", detail.to_owned());
        let verified = match self.store.try_auth_challenge(&challenge.token_hash, MOST_TRIES).await? {
            Some(_) => self.verify_response(challenge, user, passkey, response, address).await?,
            None => None,
        };
        let Some(by) = verified else {
            self.record(Some(user.id), failed(method)).await;
            return Ok(None);
        };
        self.await_key().await?;
        let holder = match challenge.kind {
            SessionKind::Browser => Holder::Browser { keep: challenge.keep },
            _ => Holder::Tokens,
        };
        let session = challenge.session.unwrap_or_else(|| SessionId::generate(&*self.random));
        let (mut opened, refresh) = self.new_session(session, client.place(), holder);
        let (action, outcome) = match challenge.session {
            Some(session) => {
                let refresh = (challenge.kind == SessionKind::Token).then_some(opened.refresh_hash);
                let step_up = StepUp { session, proof: by.proof(), ttls: opened.ttls, refresh };
                ("user.proof", Outcome::StepUp(Box::new(step_up)))
            }
            None => {
                opened.proofs = challenge.proofs.with(by.proof());
                ("user.login", Outcome::Open(Box::new(opened)))
            }
        };
        let event = Event::own(user.id, address, action, format!("session: {session}; {method}"));
        let linked = challenge.link.as_ref().map(|link| Self::link_event(user, link, address));
        let completion = ChallengeCompletion {
            token_hash: challenge.token_hash,
            user: user.id,
            generation: user.generation,
            by,
            outcome,
            link: challenge.link.clone(),
            // Whoever must choose another password is not signed in yet.
            events: Some(event).filter(|_| !must_change(challenge, user)).into_iter().chain(linked).collect(),
        };
        let grant = self.store.complete_auth_challenge(&completion).await?;
        if grant.is_none() {
            // The code was used before, or the account has changed meanwhile.
            self.record(Some(user.id), failed("used before")).await;
        } else if challenge.link.is_some()
            && let Err(error) = self.tell_of_link(user).await
        {
            // The login is done, and must not fail for it.
            tracing::warn!(user.id = %user.id, %error, "a link is not told of by mail");
        }
        Ok(grant.map(|grant| (grant, refresh)))
    }

    /// Returns the account of a passkey that is used in place of a login.
    async fn passkey_owner(
        &self,
        challenge: &AuthChallenge,
        response: &ChallengeResponse,
        responder: Responder<'_>,
        address: IpAddr,
    ) -> Result<(User, Option<Factor>)> {
        let credential = response.credential.as_ref().and_then(|shown| shown.credential().ok());
        let found = match credential.filter(|_| responder.may_complete(challenge)) {
            Some(credential) => self.store.passkey(&credential).await?,
            None => None,
        };
        let user = match &found {
            Some(factor) => self.store.user(factor.user).await?.filter(|user| !user.disabled),
            None => None,
        };
        match user {
            Some(user) => Ok((user, found)),
            None => {
                let _counted = self.attempts.challenge(address).await?;
                self.store.try_auth_challenge(&challenge.token_hash, MOST_TRIES).await?;
                Err(wrong())
            }
        }
    }
}
