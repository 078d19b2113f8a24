//! The second factors of an account: begun, confirmed, listed, removed.

use std::net::IpAddr;

use serde_json::Value;

use super::{AccountError, Accounts, Answered, BrowserSession, Client, Holder, Result, Tokens};
use crate::{
    clock::millis,
    error::{Kind, Unproved},
    factor::{Attestation, Registered, RelyingParty, Totp, recovery_code},
    store::{
        Confirmation, Event, Factor, FactorKind, FactorOwner, FactorUse, NewFactor, Outcome, SessionKind,
        User,
    },
    token::{DeviceTokens, FactorKeys, SignedIn},
    types::{FactorId, Secret, SessionId},
};

/// The greatest number of factors of an account.
const MOST: u32 = 20;

/// Recovery codes of an account.
const RECOVERY_CODES: usize = 10;

/// The longest name of a factor, in characters.
const LONGEST_NAME: usize = 64;

/// What factors are made with.
pub struct FactorMeans {
    /// Makes their secrets.
    pub keys: FactorKeys,
    /// Whom passkeys are for; none without a public address.
    pub relying_party: Option<RelyingParty>,
    /// Makes tokens by which devices are known where a factor was shown.
    pub remembered: DeviceTokens,
    /// What an authenticator app calls this service.
    pub service: String,
}

/// Who gets a factor.
#[derive(Debug, Clone, Copy)]
pub enum Enroller<'a> {
    /// Somebody who is signed in.
    Person(&'a SignedIn),
    /// Somebody who must have a factor to sign in, by the token of the challenge.
    Challenge(&'a Secret),
}

/// A factor that was begun.
#[derive(Debug)]
pub struct Begun {
    /// Its id.
    pub id: FactorId,
    /// What it is confirmed with.
    pub with: BegunWith,
}

/// What a factor is confirmed with.
#[derive(Debug)]
pub enum BegunWith {
    /// A code of an app that has read this: the secret, and the address that has it.
    Totp(Secret, String),
    /// A passkey that a browser makes by these options.
    Passkey(Value),
}

/// What confirms a factor.
#[derive(Debug)]
pub enum Evidence {
    /// A code of the app.
    Code(Secret),
    /// The passkey.
    Passkey(Box<Attestation>),
}

/// What came of a confirmation.
pub struct FactorConfirmed {
    /// The recovery codes, with the account's first factor.
    pub recovery_codes: Option<Vec<String>>,
    /// What holds the session from now on: its access token, or its cookie; for who had to get a factor, all of a login.
    pub session: Answered,
}

fn owner(me: &User, caller: &SignedIn) -> FactorOwner {
    FactorOwner {
        user: me.id,
        generation: me.generation,
        session: caller.session,
        has_factors: me.has_factors,
    }
}

fn not_found() -> AccountError {
    AccountError::Refused(Kind::NotFound)
}

fn not_accepted(why: &'static str) -> AccountError {
    AccountError::Explained(Kind::FactorNotAccepted, why)
}

impl SignedIn {
    /// What holds the session.
    pub(super) fn holder(&self) -> Holder {
        if self.by_cookie { Holder::Browser { keep: self.is_kept } } else { Holder::Tokens }
    }

    /// The kind of that.
    pub(super) fn kind(&self) -> SessionKind {
        if self.by_cookie { SessionKind::Browser } else { SessionKind::Token }
    }
}

impl Accounts {
    pub(super) fn totp(&self, user: &User, id: FactorId) -> Option<Totp> {
        Totp::new(&self.factors.keys.totp_secret(id), &self.factors.service, user.name.as_str())
    }

    /// Makes sure that who is signed in has shown a moment ago who they are: by a factor if the account has one.
    ///
    /// # Errors
    /// [`AccountError::Unproved`].
    pub async fn need_proof(&self, caller: &SignedIn, me: &User) -> Result<()> {
        if self.has_proof(caller, me).await? {
            return Ok(());
        }
        let max_age = u32::try_from(self.config.reauth_window.as_secs()).ok();
        Err(AccountError::Unproved(Unproved { needs_factors: me.has_factors, max_age }))
    }

    /// Whether who is signed in has shown a moment ago who they are: by a factor if the account has one.
    pub(super) async fn has_proof(&self, caller: &SignedIn, me: &User) -> Result<bool> {
        let session = self.store.session(caller.session).await?;
        let session = session.ok_or(AccountError::Refused(Kind::Unauthenticated))?;
        // A login that is yet to come is no recent one: the clock was set back.
        let since = self.time.now().time - session.authenticated_at;
        let is_recent = (0..=millis(self.config.reauth_window)).contains(&since);
        Ok(is_recent && (!me.has_factors || session.proofs.has_factor()))
    }

    /// Returns whose factors they are. To change them, one must have shown a moment ago who one is.
    async fn enroller(&self, enroller: Enroller<'_>, address: IpAddr) -> Result<User> {
        match enroller {
            Enroller::Person(caller) => {
                let me = self.me(caller).await?;
                self.need_proof(caller, &me).await?;
                Ok(me)
            }
            Enroller::Challenge(token) => Ok(self.enrolling(token, address).await?.0),
        }
    }

    /// Lists the caller's factors as [`Self::list_factors`] does, for a program.
    ///
    /// # Errors
    /// [`AccountError::Unproved`] without a recent proof; or [`AccountError`].
    pub async fn list_factors_of_proved(&self, caller: &SignedIn) -> Result<(Vec<Factor>, u32)> {
        self.may_change(caller).await?;
        self.list_factors(caller).await
    }

    /// Makes sure that who is signed in may change what lets them in.
    ///
    /// # Errors
    /// [`AccountError::Unproved`] without a recent proof.
    pub async fn may_change(&self, caller: &SignedIn) -> Result<()> {
        let me = self.me(caller).await?;
        self.need_proof(caller, &me).await
    }

    /// Lists the caller's factors, and counts the recovery codes that are left.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn list_factors(&self, caller: &SignedIn) -> Result<(Vec<Factor>, u32)> {
        let me = self.me(caller).await?;
        let mut factors = self.store.factors(me.id).await?;
        factors.retain(|factor| factor.is_confirmed);
        let codes = self.store.recovery_codes(me.id).await?;
        Ok((factors, codes))
    }

    /// Whether passkeys can be made here.
    pub fn takes_passkeys(&self) -> bool {
        self.factors.relying_party.is_some()
    }

    /// Whether a device may be remembered where a factor was shown.
    pub fn remembers_devices(&self) -> bool {
        !self.factors.remembered.ttl().is_zero()
    }

    /// For how long it is.
    pub fn remembers_devices_for(&self) -> std::time::Duration {
        self.factors.remembered.ttl()
    }

    /// Begins a factor, which counts once it is confirmed.
    ///
    /// # Errors
    /// [`AccountError::Unproved`] without a recent proof; or others.
    pub async fn begin_factor(
        &self,
        enroller: Enroller<'_>,
        kind: FactorKind,
        name: Option<&str>,
        address: IpAddr,
    ) -> Result<Begun> {
        let me = self.enroller(enroller, address).await?;
        let name = name.map(str::trim).filter(|name| !name.is_empty()).unwrap_or(kind.name());
        if name.chars().count() > LONGEST_NAME || name.chars().any(char::is_control) {
            return Err(not_accepted("the name is too long, or has characters that cannot be shown"));
        }
        if kind == FactorKind::Passkey && self.factors.relying_party.is_none() {
            return Err(not_accepted("there are no passkeys here: public_url is not configured"));
        }
        let _counted = self.attempts.change(&me.name, address).await?;
        let id = FactorId::generate(&*self.random);
        let new = NewFactor { id, user: me.id, kind, name: name.to_owned(), most: MOST };
        if !self.store.begin_factor(&new).await? {
            return Err(not_accepted("the account has as many factors as it may"));
        }
        self.begun(&me, id, kind).await
    }

    async fn begun(&self, me: &User, id: FactorId, kind: FactorKind) -> Result<Begun> {
        let with = match (kind, &self.factors.relying_party) {
            (FactorKind::Totp, _) => {
                let totp = self.totp(me, id).ok_or(AccountError::Refused(Kind::Internal))?;
                BegunWith::Totp(Secret::new(totp.secret()), totp.uri())
            }
            (FactorKind::Passkey, Some(party)) => {
                let factors = self.store.factors(me.id).await?;
                let known: Vec<Vec<u8>> =
                    factors.into_iter().filter_map(|factor| factor.credential).collect();
                let challenge = self.factors.keys.creation_challenge(id);
                let user = me.id.uuid();
                BegunWith::Passkey(party.creation_options(
                    &challenge,
                    user.as_bytes(),
                    me.name.as_str(),
                    &known,
                ))
            }
            (FactorKind::Passkey, None) => return Err(not_found()),
        };
        Ok(Begun { id, with })
    }

    /// Returns a factor that was begun and waits, to be shown again.
    ///
    /// # Errors
    /// `Not found` for one that does not wait.
    pub async fn begun_before(&self, enroller: Enroller<'_>, id: &str, address: IpAddr) -> Result<Begun> {
        let me = self.enroller(enroller, address).await?;
        let factor = self.waiting(&me, id).await?;
        self.begun(&me, factor.id, factor.kind).await
    }

    async fn waiting(&self, me: &User, id: &str) -> Result<Factor> {
        let id = FactorId::parse(id).ok_or_else(not_found)?;
        let factors = self.store.factors(me.id).await?;
        let waits = |factor: &Factor| factor.id == id && !factor.is_confirmed;
        factors.into_iter().find(waits).ok_or_else(not_found)
    }

    /// Confirms a factor that was begun: its owner shows to have it. That is a proof of it for the session, too.
    ///
    /// # Errors
    /// `Invalid credentials` for a wrong code; or [`AccountError`].
    pub async fn confirm_factor(
        &self,
        enroller: Enroller<'_>,
        id: &str,
        evidence: Evidence,
        client: Client<'_>,
    ) -> Result<FactorConfirmed> {
        let address = client.address;
        let me = self.enroller(enroller, address).await?;
        let factor = self.waiting(&me, id).await?;
        let _counted = self.attempts.change(&me.name, address).await?;
        let (by, registered) = self.evident(&me, &factor, &evidence)?;
        self.await_key().await?;
        let (codes, recovery) = self.new_recovery_codes(&me);
        // Of a session that goes on nothing but its access token or cookie is new.
        let (holder, session, meets, link) = match enroller {
            Enroller::Person(caller) => (caller.holder(), None, None, None),
            Enroller::Challenge(token) => {
                let (_, challenge) = self.enrolling(token, address).await?;
                let holder = match challenge.kind {
                    SessionKind::Browser => Holder::Browser { keep: challenge.keep },
                    _ => Holder::Tokens,
                };
                (holder, Some(challenge.proofs), Some(challenge.token_hash), challenge.link)
            }
        };
        let new_id = SessionId::generate(&*self.random);
        let (mut opened, refresh) = self.new_session(new_id, client.place(), holder);
        let outcome = match (enroller, session) {
            (Enroller::Person(caller), _) => Outcome::Raise(Box::new(self.raise(caller, by.proof()))),
            (_, proofs) => {
                opened.proofs = proofs.unwrap_or_default().with(by.proof());
                Outcome::Open(Box::new(opened))
            }
        };
        let confirmation = Confirmation {
            id: factor.id,
            user: me.id,
            generation: me.generation,
            has_factors: me.has_factors,
            link,
            passkey: registered.map(|made| (made.credential, made.public_key)),
            by,
            recovery,
            meets,
            outcome,
            event: Event::own(me.id, address, "user.add-factor", factor.kind.name().to_owned()),
            mail: self.mail_of_factors(&me).await?,
        };
        let confirmed = self.store.confirm_factor(&confirmation).await?;
        let Some(confirmed) = confirmed else {
            return Err(AccountError::Explained(
                Kind::FactorNotAccepted,
                "the factor is known already, or the account was changed meanwhile",
            ));
        };
        self.mails_are_queued();
        let (user, generation) = (me.id, me.generation);
        let device = meets.map(|_| self.device_token(self.device_tokens.new_device(user), generation));
        let session = match holder {
            Holder::Browser { keep } => {
                let session = self.issue_cookie(confirmed.grant, keep).await?;
                Answered::Browser(Box::new(BrowserSession { device, ..session }))
            }
            Holder::Tokens if meets.is_some() => {
                let tokens = self.issue(confirmed.grant, refresh).await?;
                Answered::Tokens(Box::new(Tokens { device, ..tokens }))
            }
            Holder::Tokens => Answered::Access(Box::new(self.issue(confirmed.grant, refresh).await?.access)),
        };
        Ok(FactorConfirmed { recovery_codes: confirmed.is_first.then_some(codes), session })
    }

    fn evident(
        &self,
        me: &User,
        factor: &Factor,
        evidence: &Evidence,
    ) -> Result<(FactorUse, Option<Registered>)> {
        let wrong = || AccountError::Refused(Kind::InvalidCredentials);
        match (factor.kind, evidence) {
            (FactorKind::Totp, Evidence::Code(code)) => {
                let totp = self.totp(me, factor.id).ok_or_else(wrong)?;
                let step = totp.step(code.expose(), self.time.database_time()).ok_or_else(wrong)?;
                Ok((FactorUse::Totp(factor.id, step), None))
            }
            (FactorKind::Passkey, Evidence::Passkey(made)) => {
                let party = self.factors.relying_party.as_ref().ok_or_else(not_found)?;
                let challenge = self.factors.keys.creation_challenge(factor.id);
                let registered = party.register(&challenge, made).map_err(|error| {
                    tracing::debug!(user.id = %me.id, %error, "a passkey is not accepted");
                    wrong()
                })?;
                let (counter, verified) = (i64::from(registered.counter), registered.is_verified);
                let by = FactorUse::Passkey { id: factor.id, counter, verified };
                Ok((by, Some(registered)))
            }
            _ => Err(AccountError::Refused(Kind::MissingParameters)),
        }
    }

    fn new_recovery_codes(&self, me: &User) -> (Vec<String>, Vec<[u8; 32]>) {
        let codes: Vec<String> = (0..RECOVERY_CODES).map(|_| recovery_code(&*self.random)).collect();
        let hash = |code: &String| self.factors.keys.recovery_hash(me.id, &code.replace('-', ""));
        let hashes = codes.iter().map(hash).collect();
        (codes, hashes)
    }

    /// Puts recovery codes in the place of those that there were.
    ///
    /// # Errors
    /// [`AccountError::Unproved`] without a recent proof; or others.
    pub async fn renew_recovery_codes(&self, caller: &SignedIn, address: IpAddr) -> Result<Vec<String>> {
        let me = self.enroller(Enroller::Person(caller), address).await?;
        let _counted = self.attempts.change(&me.name, address).await?;
        let (codes, hashes) = self.new_recovery_codes(&me);
        let event = Event::own(me.id, address, "user.renew-recovery-codes", String::new());
        match self.store.set_recovery_codes(&owner(&me, caller), &hashes, &event).await? {
            true => Ok(codes),
            false => Err(not_accepted("recovery codes are for an account with another factor")),
        }
    }

    /// Removes a factor.
    ///
    /// # Errors
    /// [`AccountError::Unproved`] without a recent proof; `Not found` for another's.
    pub async fn remove_factor(&self, caller: &SignedIn, id: &str, address: IpAddr) -> Result<()> {
        let me = self.enroller(Enroller::Person(caller), address).await?;
        let id = FactorId::parse(id).ok_or_else(not_found)?;
        let _counted = self.attempts.change(&me.name, address).await?;
        let factors = self.store.factors(me.id).await?;
        let factor = factors.iter().find(|factor| factor.id == id).ok_or_else(not_found)?;
        let others = factors.iter().filter(|other| other.is_confirmed && other.id != id).count();
        if factor.is_confirmed && others == 0 && self.must_have_factor(&me) {
            return Err(not_accepted("the account must have a factor: add another one first"));
        }
        // Of what was never confirmed there is nothing to tell.
        let mail = if factor.is_confirmed { self.mail_of_factors(&me).await? } else { None };
        let event = Event::own(me.id, address, "user.remove-factor", factor.kind.name().to_owned());
        if !self.store.remove_factor(&owner(&me, caller), id, &event, mail.as_ref()).await? {
            return Err(not_found());
        }
        self.mails_are_queued();
        Ok(())
    }
}
