//! The second step: what asks for a factor, and what answers.
//!
//! A challenge is known by a token of which the store keeps a hash. It is bound to the account in its generation, to what will hold the
//! session, and, for who is signed in, to their session; it ends after a few minutes or tries. Whatever answers it is spent with it, in one
//! transaction.

use std::{net::IpAddr, time::Duration};

use super::{
    AccountError, Accounts, BrowserSession, Client, Holder, Result, Tokens,
    attempts::{Counted, Reserved},
};
use crate::{
    clock::millis,
    error::Kind,
    factor::Assertion,
    store::{
        AuthChallenge, ChallengePurpose, Event, Factor, FactorKind, Grant, Meeting, NewLink, NewMail,
        Outcome, Purpose, Raise, SessionKind, User,
    },
    token::{AccessToken, ChallengeToken, Device, RefreshToken, SignedIn},
    types::{Proof, Proofs, Secret, SessionId, UserId},
};
use serde_json::{Map, Value};

/// How long a challenge may be met.
pub(super) const HOLDS_FOR: Duration = Duration::from_secs(300);

/// How often it may be tried to meet it.
pub(super) const MOST_TRIES: u32 = 5;

/// How a challenge is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// A code of an authenticator app.
    Totp,
    /// A passkey.
    Passkey,
    /// A recovery code.
    Recovery,
    /// A code by mail.
    Email,
    /// The password, where there is no factor.
    Password,
}

impl Method {
    const ALL: [Self; 5] = [Self::Totp, Self::Passkey, Self::Recovery, Self::Email, Self::Password];

    /// The name that clients know it by.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Passkey => "passkey",
            Self::Recovery => "recovery",
            Self::Email => "email",
            Self::Password => "password",
        }
    }

    /// Returns the method of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// A challenge, as its holder gets it.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The token.
    pub token: Secret,
    /// What it is for.
    pub purpose: ChallengePurpose,
    /// How it may be answered.
    pub methods: Vec<Method>,
    /// What a browser is asked to show a passkey with.
    pub public_key: Option<Value>,
}

/// What a factor is asked for.
pub(super) struct Asking {
    pub(super) purpose: ChallengePurpose,
    /// The session whose holder shows anew who they are.
    pub(super) session: Option<SessionId>,
    /// What was shown before.
    pub(super) proofs: Proofs,
    /// What will hold the session.
    pub(super) holder: Holder,
    /// A link that is made with it.
    pub(super) link: Option<NewLink>,
}

/// An answer to a challenge.
#[derive(Debug)]
pub struct Answer {
    /// How.
    pub method: Method,
    /// The code, or the password.
    pub code: Option<Secret>,
    /// The passkey.
    pub credential: Option<Assertion>,
    /// Whether this device is not to be asked again for a while.
    pub remember_device: bool,
}

/// Who answers.
#[derive(Debug, Clone, Copy)]
pub struct Answerer<'a> {
    /// Whether it is a browser, by a page.
    pub is_page: bool,
    /// Who is signed in, by whatever came along. It counts where the challenge is of a session.
    pub person: Option<&'a SignedIn>,
}

/// What comes of a right answer.
pub enum Answered {
    /// Tokens.
    Tokens(Box<Tokens>),
    /// An access token, of a session that keeps its refresh token.
    Access(Box<AccessToken>),
    /// A browser's session.
    Browser(Box<BrowserSession>),
}

/// A right answer, before its session gets what holds it.
struct Right {
    grant: Grant,
    refresh: RefreshToken,
    device: Option<Device>,
    remembered: Option<Device>,
}

fn wrong() -> AccountError {
    AccountError::Refused(Kind::InvalidCredentials)
}

impl Asked {
    /// Returns the members that a client gets of it.
    pub fn members(&self) -> Map<String, Value> {
        let mut members = Map::new();
        members.insert("challenge".to_owned(), self.token.expose().into());
        if self.purpose != ChallengePurpose::Enrolment {
            let methods = self.methods.iter().map(|method| method.name());
            members.insert("methods".to_owned(), methods.collect());
        }
        if let Some(options) = &self.public_key {
            members.insert("publicKey".to_owned(), options.clone());
        }
        members
    }
}

impl Answerer<'_> {
    /// Whether a challenge is theirs to answer.
    fn may_answer(self, challenge: &AuthChallenge) -> bool {
        match challenge.session {
            Some(session) => {
                self.person.is_some_and(|person| person.session == session && person.kind() == challenge.kind)
            }
            None => self.is_page == (challenge.kind == SessionKind::Browser),
        }
    }
}

impl Accounts {
    /// How an account may answer a challenge, by what it has.
    pub(super) async fn methods(
        &self,
        user: &User,
        factors: &[Factor],
        before: Proofs,
    ) -> Result<Vec<Method>> {
        let has = |kind| factors.iter().any(|factor| factor.is_confirmed && factor.kind == kind);
        if !user.has_factors {
            return Ok(vec![Method::Password]);
        }
        let may_passkey = has(FactorKind::Passkey) && self.factors.relying_party.is_some();
        let may_mail = self.mail.is_some()
            && self.config.mfa.mail_codes
            && user.email_verified
            && !user.email_is_weak
            // Whoever has the mailbox may have the account at a provider.
            && !before.has_provider()
            // Whoever reads the account's mails may have chosen it: they would prove nothing more.
            && !user.password_by_mail;
        let may_recover = self.store.recovery_codes(user.id).await? > 0;
        let all = [
            (Method::Totp, has(FactorKind::Totp)),
            (Method::Passkey, may_passkey),
            (Method::Recovery, may_recover),
            (Method::Email, may_mail),
        ];
        Ok(all.into_iter().filter(|(_, may)| *may).map(|(method, _)| method).collect())
    }

    /// Asks for a factor of an account.
    pub(super) async fn ask(&self, user: &User, asking: Asking) -> Result<Asked> {
        let Asking { purpose, session, proofs, holder, link } = asking;
        let (kind, keep) = match holder {
            Holder::Tokens => (SessionKind::Token, false),
            Holder::Browser { keep } => (SessionKind::Browser, keep),
        };
        let token = ChallengeToken::generate(&*self.random);
        let challenge = AuthChallenge {
            token_hash: token.hash,
            purpose,
            user: Some((user.id, user.generation)),
            session,
            proofs,
            kind,
            keep,
            tries: 0,
            link,
            code_mail: None,
        };
        self.store.add_auth_challenge(&challenge, millis(HOLDS_FOR)).await?;
        self.asked(user, &challenge, token.text).await
    }

    async fn asked(&self, user: &User, challenge: &AuthChallenge, token: Secret) -> Result<Asked> {
        let factors = self.store.factors(user.id).await?;
        let methods = match challenge.purpose {
            ChallengePurpose::Enrolment => Vec::new(),
            _ => self.methods(user, &factors, challenge.proofs).await?,
        };
        let known: Vec<Vec<u8>> = factors.into_iter().filter_map(|factor| factor.credential).collect();
        let party = self.factors.relying_party.as_ref().filter(|_| methods.contains(&Method::Passkey));
        let question = self.factors.keys.assertion_challenge(&challenge.token_hash);
        let public_key = party.map(|party| party.request_options(&question, Some(&known)));
        Ok(Asked { token, purpose: challenge.purpose, methods, public_key })
    }

    /// How who is signed in may show anew who they are.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn proofs_of(&self, caller: &SignedIn) -> Result<Vec<Method>> {
        let me = self.me(caller).await?;
        let factors = self.store.factors(me.id).await?;
        self.methods(&me, &factors, Proofs::NONE).await
    }

    /// Returns a challenge that a browser has a token of, to be shown again; one of a session to who is signed in by it.
    ///
    /// # Errors
    /// `Invalid credentials` once it has ended; or the store's.
    pub async fn asked_before(
        &self,
        token: &Secret,
        session: Option<SessionId>,
        address: IpAddr,
    ) -> Result<Asked> {
        let hash = ChallengeToken::hash_of(token.expose());
        let challenge = self.store.auth_challenge(&hash, MOST_TRIES).await?;
        let is_theirs = |challenge: &AuthChallenge| {
            challenge.kind == SessionKind::Browser && challenge.session == session
        };
        let Some(challenge) = challenge.filter(is_theirs) else {
            let _counted = self.attempts.challenge(address).await?;
            return Err(wrong());
        };
        match challenge.user {
            Some((id, _)) => {
                let user = self.store.user(id).await?.ok_or_else(wrong)?;
                self.asked(&user, &challenge, token.clone()).await
            }
            None => Ok(self.asked_of_anyone(&challenge, token.clone())),
        }
    }

    /// Asks for a passkey in place of a login. Whose it will be is not known.
    ///
    /// # Errors
    /// `Not found` where there is no `public_url`; or [`AccountError`].
    pub async fn ask_for_passkey(&self, is_browser: bool, keep: bool, address: IpAddr) -> Result<Asked> {
        if self.factors.relying_party.is_none() {
            return Err(AccountError::Refused(Kind::NotFound));
        }
        let _counted = self.attempts.challenge(address).await?;
        let token = ChallengeToken::generate(&*self.random);
        let challenge = AuthChallenge {
            token_hash: token.hash,
            purpose: ChallengePurpose::Passkey,
            user: None,
            session: None,
            proofs: Proofs::NONE,
            kind: if is_browser { SessionKind::Browser } else { SessionKind::Token },
            keep,
            tries: 0,
            link: None,
            code_mail: None,
        };
        self.store.add_auth_challenge(&challenge, millis(HOLDS_FOR)).await?;
        Ok(self.asked_of_anyone(&challenge, token.text))
    }

    fn asked_of_anyone(&self, challenge: &AuthChallenge, token: Secret) -> Asked {
        let question = self.factors.keys.assertion_challenge(&challenge.token_hash);
        let party = self.factors.relying_party.as_ref();
        let public_key = party.map(|party| party.request_options(&question, None));
        Asked { token, purpose: challenge.purpose, methods: vec![Method::Passkey], public_key }
    }

    /// Asks who is signed in to show anew who they are.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn ask_anew(&self, caller: &SignedIn, address: IpAddr) -> Result<Asked> {
        let me = self.me(caller).await?;
        let _counted = self.attempts.change(&me.name, address).await?;
        let asking = Asking {
            purpose: ChallengePurpose::StepUp,
            session: Some(caller.session),
            proofs: Proofs::NONE,
            holder: caller.holder(),
            link: None,
        };
        self.ask(&me, asking).await
    }

    /// Sends a code by mail, once for a challenge.
    ///
    /// # Errors
    /// `Invalid credentials` if the challenge has ended, or takes none; or [`AccountError`].
    pub async fn mail_code(&self, token: &Secret, answerer: Answerer<'_>, address: IpAddr) -> Result<()> {
        let _counted = self.attempts.mail(address).await?;
        let hash = ChallengeToken::hash_of(token.expose());
        let challenge = self.store.auth_challenge(&hash, MOST_TRIES).await?.ok_or_else(wrong)?;
        let user = self.challenged(&challenge, answerer).await?;
        let factors = self.store.factors(user.id).await?;
        if !self.methods(&user, &factors, challenge.proofs).await?.contains(&Method::Email) {
            return Err(wrong());
        }
        if challenge.code_mail.is_some() {
            // One is enough.
            return Ok(());
        }
        let too_many = || AccountError::Refused(Kind::TooManyRequests);
        let mail = self.mail(user.id, Purpose::LoginCode, None).await?.ok_or_else(too_many)?;
        if !self.store.mail_code(&hash, &mail).await? {
            return Err(too_many());
        }
        self.mails_are_queued();
        Ok(())
    }

    /// Returns whose challenge it is, if that one may answer it.
    async fn challenged(&self, challenge: &AuthChallenge, answerer: Answerer<'_>) -> Result<User> {
        if !answerer.may_answer(challenge) {
            return Err(wrong());
        }
        let (id, generation) = challenge.user.ok_or_else(wrong)?;
        let user = self.store.user(id).await?;
        user.filter(|user| !user.disabled && user.generation == generation).ok_or_else(wrong)
    }

    /// Takes an answer to a challenge: opens the session, or notes that its holder has shown anew who they are.
    ///
    /// # Errors
    /// `Invalid credentials` for a wrong answer, and for a challenge that has ended; or [`AccountError`].
    pub async fn answer(
        &self,
        token: &Secret,
        answer: Answer,
        answerer: Answerer<'_>,
        client: Client<'_>,
    ) -> Result<Answered> {
        let hash = ChallengeToken::hash_of(token.expose());
        // What was never made, or has ended, is no try of anyone's.
        let Some(challenge) = self.store.auth_challenge(&hash, MOST_TRIES).await? else {
            let _counted = self.attempts.challenge(client.address).await?;
            return Err(wrong());
        };
        let (user, found) = match challenge.user {
            Some(_) => match self.challenged(&challenge, answerer).await {
                Ok(user) => (user, None),
                Err(error) => {
                    let _counted = self.attempts.challenge(client.address).await?;
                    return Err(error);
                }
            },
            None => self.bearer_of_passkey(&challenge, &answer, answerer, client.address).await?,
        };
        let now = self.time.now().time;
        let device =
            client.device.and_then(|token| self.device_tokens.read(token, user.id, user.generation, now));
        let known = device.map(|device| device.id);
        let attempt = self.attempts.login(&Counted::of(&user.name), true, client.address, known).await?;
        let answered = self.try_answer(&challenge, &user, found, &answer, client, device, attempt).await;
        let keep = challenge.keep;
        let right = answered?;
        let remembered = right
            .remembered
            .map(|device| self.factors.remembered.token(device, user.generation, self.time.now().time));
        let device = right.device.map(|device| self.device_token(device, user.generation));
        Ok(match challenge.kind {
            SessionKind::Browser => {
                let session = self.issue_cookie(right.grant, keep).await?;
                Answered::Browser(Box::new(BrowserSession { device, remembered, ..session }))
            }
            _ => {
                let tokens = self.issue(right.grant, right.refresh).await?;
                Answered::Tokens(Box::new(Tokens { device, remembered, ..tokens }))
            }
        })
    }

    #[allow(clippy::too_many_arguments, reason = "one step of `answer`, split from it for its length")]
    async fn try_answer(
        &self,
        challenge: &AuthChallenge,
        user: &User,
        found: Option<Factor>,
        answer: &Answer,
        client: Client<'_>,
        device: Option<Device>,
        attempt: Reserved,
    ) -> Result<Right> {
        let address = client.address;
        let counted = self.store.try_auth_challenge(&challenge.token_hash, MOST_TRIES).await;
        let judged = match counted {
            Ok(Some(_)) => self.judge(challenge, user, found, answer, address).await,
            Ok(None) => Ok(None),
            Err(error) => Err(error.into()),
        };
        let by = match judged {
            Ok(Some(by)) => by,
            Ok(None) => {
                let event =
                    Event::own(user.id, address, "user.factor-failed", answer.method.name().to_owned());
                self.record(Some(user.id), event).await;
                return Err(wrong());
            }
            Err(error) => {
                self.attempts.forgotten(attempt).await;
                return Err(error);
            }
        };
        if let Err(error) = self.await_key().await {
            self.attempts.forgotten(attempt).await;
            return Err(error);
        }
        let holder = match challenge.kind {
            SessionKind::Browser => Holder::Browser { keep: challenge.keep },
            _ => Holder::Tokens,
        };
        let session = challenge.session.unwrap_or_else(|| SessionId::generate(&*self.random));
        let (mut opened, refresh) = self.new_session(session, client.place(), holder);
        let (action, outcome) = match challenge.session {
            Some(session) => {
                let refresh = (challenge.kind == SessionKind::Token).then_some(opened.refresh_hash);
                let raise = Raise { session, proof: by.proof(), ttls: opened.ttls, refresh };
                ("user.proof", Outcome::Raise(Box::new(raise)))
            }
            None => {
                opened.proofs = challenge.proofs.with(by.proof());
                ("user.login", Outcome::Open(Box::new(opened)))
            }
        };
        let detail = format!("session: {session}; {}", answer.method.name());
        let meeting = Meeting {
            token_hash: challenge.token_hash,
            user: user.id,
            generation: user.generation,
            by,
            outcome,
            link: challenge.link.clone(),
            event: Event::own(user.id, address, action, detail),
        };
        let met = match self.store.meet_auth_challenge(&meeting).await {
            Ok(met) => met,
            Err(error) => {
                self.attempts.forgotten(attempt).await;
                return Err(error.into());
            }
        };
        let Some(grant) = met else {
            // The code was used before, or the account has changed meanwhile.
            let event = Event::own(user.id, address, "user.factor-failed", "used before".to_owned());
            self.record(Some(user.id), event).await;
            return Err(wrong());
        };
        self.attempts.succeeded(attempt).await;
        let device = device.unwrap_or_else(|| self.device_tokens.new_device(user.id));
        let is_login = challenge.session.is_none();
        let may_remember = !self.factors.remembered.ttl().is_zero() && answer.remember_device;
        Ok(Right {
            grant,
            refresh,
            device: is_login.then_some(device),
            remembered: (is_login && may_remember).then_some(device),
        })
    }

    /// Returns whose passkey is shown in place of a login.
    async fn bearer_of_passkey(
        &self,
        challenge: &AuthChallenge,
        answer: &Answer,
        answerer: Answerer<'_>,
        address: IpAddr,
    ) -> Result<(User, Option<Factor>)> {
        let credential = answer.credential.as_ref().and_then(|shown| shown.credential().ok());
        let found = match credential.filter(|_| answerer.may_answer(challenge)) {
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

    /// The mail that tells of a change of factors, to the verified address.
    pub(super) async fn mail_of_factors(&self, user: &User) -> Result<Option<NewMail>> {
        match user.email.as_ref().filter(|_| user.email_verified) {
            Some(address) => self.mail(user.id, Purpose::FactorsChanged, Some(address.clone())).await,
            None => Ok(None),
        }
    }

    /// Whether a device is one where a factor of the account was shown, not long ago.
    pub(super) fn is_remembered(&self, user: &User, client: Client<'_>) -> bool {
        let now = self.time.now().time;
        let read = |token| self.factors.remembered.read(token, user.id, user.generation, now);
        client.remembered.and_then(read).is_some()
    }

    /// What holds the session of the proof that a factor was shown.
    pub(super) fn raise(&self, caller: &SignedIn, proof: Proof) -> Raise {
        let ttls = match caller.holder() {
            Holder::Tokens => self.ttls(),
            Holder::Browser { keep } => self.browser_ttls(keep),
        };
        Raise { session: caller.session, proof, ttls, refresh: None }
    }

    /// Returns whose account a challenge to get a factor is for.
    pub(super) async fn enrolling(&self, token: &Secret, address: IpAddr) -> Result<(User, AuthChallenge)> {
        let hash = ChallengeToken::hash_of(token.expose());
        let challenge = self.store.auth_challenge(&hash, MOST_TRIES).await?;
        let challenge = challenge.filter(|challenge| challenge.purpose == ChallengePurpose::Enrolment);
        let ended = || AccountError::Refused(Kind::Unauthenticated);
        let Some(challenge) = challenge else {
            let _counted = self.attempts.challenge(address).await?;
            return Err(ended());
        };
        let (id, generation): (UserId, i64) = challenge.user.ok_or_else(ended)?;
        let is_as_it_was = |user: &User| !user.disabled && user.generation == generation && !user.has_factors;
        let user = self.store.user(id).await?.filter(is_as_it_was);
        Ok((user.ok_or_else(ended)?, challenge))
    }
}
