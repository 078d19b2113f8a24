//! Challenges: requests for a second factor, or for a recent proof.
//!
//! A client knows a challenge by a token, of which the store has the hash. A challenge belongs to an account in one generation, to the kind
//! of session that it opens, and, for a step-up, to the session of the person who is signed in. It expires after five minutes or five tries.
//! The factor that completes it is spent with it, in one transaction.

use std::{net::IpAddr, time::Duration};

use serde_json::{Map, Value};

use super::{AccountError, Accounts, Client, Holder, Responder, Result};
use crate::{
    clock::millis,
    error::Kind,
    store::{
        AuthChallenge, ChallengePurpose, Factor, FactorKind, NewLink, NewMail, Purpose, SessionKind, User,
    },
    token::{OpaqueToken, SignedIn},
    types::{Proofs, Secret, SessionId, UserId, hash::sha256},
};

/// The lifetime of a challenge.
pub(super) const HOLDS_FOR: Duration = Duration::from_secs(300);

/// The greatest number of responses to a challenge.
pub(super) const MOST_TRIES: u32 = 5;

/// A method to complete a challenge.
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

    /// Returns the name that clients use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Passkey => "passkey",
            Self::Recovery => "recovery",
            Self::Email => "email",
            Self::Password => "password",
        }
    }

    /// Returns the method with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.name() == name)
    }
}

/// A challenge, as its client receives it.
#[derive(Debug, Clone)]
pub struct PendingChallenge {
    /// The token.
    pub token: Secret,
    /// Its purpose.
    pub purpose: ChallengePurpose,
    /// The methods that complete it.
    pub methods: Vec<Method>,
    /// The options for a passkey, if that is among the methods.
    pub public_key: Option<Value>,
}

/// A challenge to be created.
pub(super) struct NewChallenge {
    pub(super) purpose: ChallengePurpose,
    /// The session to be stepped up.
    pub(super) session: Option<SessionId>,
    /// The proofs so far.
    pub(super) proofs: Proofs,
    /// The kind of session to be opened.
    pub(super) holder: Holder,
    /// The link to be created with the session.
    pub(super) link: Option<NewLink>,
}

pub(super) fn wrong() -> AccountError {
    AccountError::Refused(Kind::InvalidCredentials)
}

impl PendingChallenge {
    /// Returns its members in JSON.
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

impl Accounts {
    /// Returns the methods that an account has for a challenge.
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
            // The owner of the mailbox may own the account at a provider.
            && !before.has_provider()
            // A password reset by mail and a code by mail prove the same.
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

    /// Creates a challenge for an account.
    pub(super) async fn create_challenge(&self, user: &User, new: NewChallenge) -> Result<PendingChallenge> {
        let NewChallenge { purpose, session, proofs, holder, link } = new;
        let (kind, keep) = match holder {
            Holder::Tokens => (SessionKind::Token, false),
            Holder::Browser { keep } => (SessionKind::Browser, keep),
        };
        let token = OpaqueToken::generate(&*self.random);
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
        self.describe_challenge(user, &challenge, token.text).await
    }

    async fn describe_challenge(
        &self,
        user: &User,
        challenge: &AuthChallenge,
        token: Secret,
    ) -> Result<PendingChallenge> {
        let factors = self.store.factors(user.id).await?;
        let methods = match challenge.purpose {
            ChallengePurpose::Enrolment => Vec::new(),
            _ => self.methods(user, &factors, challenge.proofs).await?,
        };
        let known: Vec<Vec<u8>> = factors.into_iter().filter_map(|factor| factor.credential).collect();
        let party = self.factors.relying_party.as_ref().filter(|_| methods.contains(&Method::Passkey));
        let question = self.factors.keys.assertion_challenge(&challenge.token_hash);
        let public_key = party.map(|party| party.request_options(&question, Some(&known)));
        Ok(PendingChallenge { token, purpose: challenge.purpose, methods, public_key })
    }

    /// Returns the methods by which a person who is signed in can prove their identity again.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn proof_methods(&self, caller: &SignedIn) -> Result<Vec<Method>> {
        let me = self.me(caller).await?;
        let factors = self.store.factors(me.id).await?;
        self.methods(&me, &factors, Proofs::NONE).await
    }

    /// Returns the challenge of a browser's token. One that belongs to a session is returned only to that session.
    ///
    /// # Errors
    /// `Invalid credentials` for an expired challenge; or the store's.
    pub async fn pending_challenge(
        &self,
        token: &Secret,
        session: Option<SessionId>,
        address: IpAddr,
    ) -> Result<PendingChallenge> {
        let hash = OpaqueToken::hash_of(token.expose());
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
                self.describe_challenge(&user, &challenge, token.clone()).await
            }
            None => Ok(self.describe_passkey_challenge(&challenge, token.clone())),
        }
    }

    /// Creates a challenge for a login by a passkey alone. The account is not known yet.
    ///
    /// # Errors
    /// `Not found` where there is no `public_url`; or [`AccountError`].
    pub async fn begin_passkey_login(
        &self,
        is_browser: bool,
        keep: bool,
        address: IpAddr,
    ) -> Result<PendingChallenge> {
        if self.factors.relying_party.is_none() {
            return Err(AccountError::Refused(Kind::NotFound));
        }
        let _counted = self.attempts.challenge(address).await?;
        let token = OpaqueToken::generate(&*self.random);
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
        Ok(self.describe_passkey_challenge(&challenge, token.text))
    }

    fn describe_passkey_challenge(&self, challenge: &AuthChallenge, token: Secret) -> PendingChallenge {
        let question = self.factors.keys.assertion_challenge(&challenge.token_hash);
        let party = self.factors.relying_party.as_ref();
        let public_key = party.map(|party| party.request_options(&question, None));
        PendingChallenge { token, purpose: challenge.purpose, methods: vec![Method::Passkey], public_key }
    }

    /// Creates a challenge for a person who is signed in, to prove their identity again.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn begin_step_up(&self, caller: &SignedIn, address: IpAddr) -> Result<PendingChallenge> {
        let me = self.me(caller).await?;
        let _counted = self.attempts.change(&me.name, address).await?;
        let new = NewChallenge {
            purpose: ChallengePurpose::StepUp,
            session: Some(caller.session),
            proofs: Proofs::NONE,
            holder: caller.holder(),
            link: None,
        };
        self.create_challenge(&me, new).await
    }

    /// Sends a code by mail, once per challenge.
    ///
    /// # Errors
    /// `Invalid credentials` for an expired challenge, or one that no code completes; or [`AccountError`].
    pub async fn mail_code(&self, token: &Secret, responder: Responder<'_>, address: IpAddr) -> Result<()> {
        let _counted = self.attempts.mail(address).await?;
        let hash = OpaqueToken::hash_of(token.expose());
        let challenge = self.store.auth_challenge(&hash, MOST_TRIES).await?.ok_or_else(wrong)?;
        let user = self.challenge_owner(&challenge, responder).await?;
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

    /// Returns the mail that tells of a change to the verified address.
    pub(super) async fn notice(&self, user: &User, purpose: Purpose) -> Result<Option<NewMail>> {
        match user.email.as_ref().filter(|_| user.email_verified) {
            Some(address) => self.mail(user.id, purpose, Some(address.clone())).await,
            None => Ok(None),
        }
    }

    /// Returns whether the client's device is remembered for this account with the factors that it has.
    pub(super) async fn is_remembered(&self, user: &User, client: Client<'_>) -> Result<bool> {
        let Some(token) = client.remembered.filter(|_| user.has_factors) else { return Ok(false) };
        let (state, now) = (self.state_of_factors(user).await?, self.time.now().time);
        Ok(self.factors.remembered.read(token, user.id, state, now).is_some())
    }

    /// Returns a number that stands for the account's generation and its factors: another factor may be there because a device was lost.
    pub(super) async fn state_of_factors(&self, user: &User) -> Result<i64> {
        let factors = self.store.factors(user.id).await?.into_iter().filter(|factor| factor.is_confirmed);
        let mut ids: Vec<_> = factors.map(|factor| factor.id).collect();
        ids.sort_unstable();
        let mut text = user.generation.to_string();
        ids.iter().for_each(|id| text.push_str(&format!(" {id}")));
        let [a, b, c, d, e, f, g, h, ..] = sha256(text.as_bytes());
        Ok(i64::from_be_bytes([a, b, c, d, e, f, g, h]))
    }

    /// Returns the account of an enrolment challenge, and the challenge.
    pub(super) async fn enrolling_user(
        &self,
        token: &Secret,
        address: IpAddr,
    ) -> Result<(User, AuthChallenge)> {
        let hash = OpaqueToken::hash_of(token.expose());
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
