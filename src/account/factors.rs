//! Enrolment, listing and removal of second factors.

use std::net::IpAddr;

use serde_json::Value;

use super::{AccountError, Accounts, BrowserSession, Client, Holder, Issued, Result, Tokens};
use crate::{
    error::Kind,
    factor::{Attestation, Registered, RelyingParty, Totp, recovery_code},
    store::{
        Confirmation, Event, Factor, FactorKind, FactorOwner, FactorRemoval, FactorUse, NewFactor, Outcome,
        Purpose, SessionKind, User,
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

/// The keys and names that factors are created with.
pub struct FactorMeans {
    /// Derives their secrets.
    pub keys: FactorKeys,
    /// The relying party of passkeys; `None` without a public address.
    pub relying_party: Option<RelyingParty>,
    /// Issues the tokens of remembered devices.
    pub remembered: DeviceTokens,
    /// The name of this service in authenticator apps.
    pub service: String,
}

/// The person who enrols a factor.
#[derive(Debug, Clone, Copy)]
pub enum Enroller<'a> {
    /// A person who is signed in.
    Person(&'a SignedIn),
    /// A person who must have a factor to sign in, by the token of the challenge.
    Challenge(&'a Secret),
}

/// A factor to be confirmed.
#[derive(Debug)]
pub struct PendingFactor {
    /// Its id.
    pub id: FactorId,
    /// The data for its confirmation.
    pub with: FactorSetup,
}

/// The data that a person needs to confirm a factor.
#[derive(Debug)]
pub enum FactorSetup {
    /// The secret for an authenticator app, and its `otpauth` address.
    Totp(Secret, String),
    /// The options to create a passkey.
    Passkey(Value),
}

/// The proof that a person has a factor.
#[derive(Debug)]
pub enum FactorProof {
    /// A code of the app.
    Code(Secret),
    /// The passkey.
    Passkey(Box<Attestation>),
}

/// The result of a confirmation.
pub struct FactorConfirmed {
    /// The recovery codes, with the account's first factor.
    pub recovery_codes: Option<Vec<String>>,
    /// The new access token or cookie; after an enrolment at login, all credentials of a login.
    pub session: Issued,
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
    /// Returns the holder of the session.
    pub(super) fn holder(&self) -> Holder {
        if self.by_cookie { Holder::Browser { keep: self.is_kept } } else { Holder::Tokens }
    }

    /// Returns the kind of the session.
    pub(super) fn kind(&self) -> SessionKind {
        if self.by_cookie { SessionKind::Browser } else { SessionKind::Token }
    }
}

fn last_factor() -> AccountError {
    not_accepted("the account must have a factor: add another one first")
}

impl Accounts {
    pub(super) fn totp(&self, user: &User, id: FactorId) -> Option<Totp> {
        Totp::new(&self.factors.keys.totp_secret(id), &self.factors.service, user.name.as_str())
    }

    /// Returns the account whose factors may be changed.
    async fn enroller(&self, enroller: Enroller<'_>, address: IpAddr) -> Result<User> {
        match enroller {
            Enroller::Person(caller) => {
                let me = self.me(caller).await?;
                self.need_proof(caller, &me).await?;
                Ok(me)
            }
            Enroller::Challenge(token) => Ok(self.enrolling_user(token, address).await?.0),
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

    /// Returns whether passkeys can be created.
    pub fn takes_passkeys(&self) -> bool {
        self.factors.relying_party.is_some()
    }

    /// Returns whether devices can be remembered.
    pub fn remembers_devices(&self) -> bool {
        !self.factors.remembered.ttl().is_zero()
    }

    /// Returns how long a device is remembered.
    pub fn remembers_devices_for(&self) -> std::time::Duration {
        self.factors.remembered.ttl()
    }

    /// Begins the enrolment of a factor.
    ///
    /// # Errors
    /// [`AccountError::Unproved`] without a recent proof; or others.
    pub async fn begin_factor(
        &self,
        enroller: Enroller<'_>,
        kind: FactorKind,
        name: Option<&str>,
        address: IpAddr,
    ) -> Result<PendingFactor> {
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

    async fn begun(&self, me: &User, id: FactorId, kind: FactorKind) -> Result<PendingFactor> {
        let with = match (kind, &self.factors.relying_party) {
            (FactorKind::Totp, _) => {
                let totp = self.totp(me, id).ok_or(AccountError::Refused(Kind::Internal))?;
                FactorSetup::Totp(Secret::new(totp.secret()), totp.uri())
            }
            (FactorKind::Passkey, Some(party)) => {
                let factors = self.store.factors(me.id).await?;
                let known: Vec<Vec<u8>> =
                    factors.into_iter().filter_map(|factor| factor.credential).collect();
                let challenge = self.factors.keys.creation_challenge(id);
                let user = me.id.uuid();
                FactorSetup::Passkey(party.creation_options(
                    &challenge,
                    user.as_bytes(),
                    me.name.as_str(),
                    &known,
                ))
            }
            (FactorKind::Passkey, None) => return Err(not_found()),
        };
        Ok(PendingFactor { id, with })
    }

    /// Returns a factor that is not confirmed yet.
    ///
    /// # Errors
    /// `Not found` for any other.
    pub async fn pending_factor(
        &self,
        enroller: Enroller<'_>,
        id: &str,
        address: IpAddr,
    ) -> Result<PendingFactor> {
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

    /// Confirms a factor. The session gets its proof.
    ///
    /// # Errors
    /// `Invalid credentials` for a wrong code; or [`AccountError`].
    pub async fn confirm_factor(
        &self,
        enroller: Enroller<'_>,
        id: &str,
        proof: FactorProof,
        client: Client<'_>,
    ) -> Result<FactorConfirmed> {
        let address = client.address;
        let me = self.enroller(enroller, address).await?;
        let factor = self.waiting(&me, id).await?;
        let _counted = self.attempts.change(&me.name, address).await?;
        let (by, registered) = self.verify_new_factor(&me, &factor, &proof)?;
        self.await_key().await?;
        let (codes, recovery) = self.new_recovery_codes(&me);
        // Of a session that goes on nothing but its access token or cookie is new.
        let (holder, session, meets, link) = match enroller {
            Enroller::Person(caller) => (caller.holder(), None, None, None),
            Enroller::Challenge(token) => {
                let (_, challenge) = self.enrolling_user(token, address).await?;
                let holder = match challenge.kind {
                    SessionKind::Browser => Holder::Browser { keep: challenge.keep },
                    _ => Holder::Tokens,
                };
                (holder, Some(challenge.proofs), Some(challenge.token_hash), challenge.link)
            }
        };
        let new_id = SessionId::generate(&*self.random);
        let added = Event::own(me.id, address, "user.add-factor", factor.kind.name().to_owned());
        // An enrolment at a login completes the login, and makes the link that the login was to make.
        let login = meets.map(|_| Event::own(me.id, address, "user.login", format!("session: {new_id}")));
        let linked = link.as_ref().map(|link| Self::link_event(&me, link, address));
        let (mut opened, refresh) = self.new_session(new_id, client.place(), holder);
        let outcome = match (enroller, session) {
            (Enroller::Person(caller), _) => Outcome::StepUp(Box::new(self.step_up(caller, by.proof()))),
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
            events: [added].into_iter().chain(linked).chain(login).collect(),
            mail: self.notice(&me, Purpose::FactorsChanged).await?,
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
                Issued::Browser(Box::new(BrowserSession { device, ..session }))
            }
            Holder::Tokens if meets.is_some() => {
                let tokens = self.issue(confirmed.grant, refresh).await?;
                Issued::Tokens(Box::new(Tokens { device, ..tokens }))
            }
            Holder::Tokens => Issued::Access(Box::new(self.issue(confirmed.grant, refresh).await?.access)),
        };
        Ok(FactorConfirmed { recovery_codes: confirmed.is_first.then_some(codes), session })
    }

    fn verify_new_factor(
        &self,
        me: &User,
        factor: &Factor,
        proof: &FactorProof,
    ) -> Result<(FactorUse, Option<Registered>)> {
        let wrong = || AccountError::Refused(Kind::InvalidCredentials);
        match (factor.kind, proof) {
            (FactorKind::Totp, FactorProof::Code(code)) => {
                let totp = self.totp(me, factor.id).ok_or_else(wrong)?;
                let step = totp.step(code.expose(), self.time.database_time()).ok_or_else(wrong)?;
                Ok((FactorUse::Totp(factor.id, step), None))
            }
            (FactorKind::Passkey, FactorProof::Passkey(made)) => {
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

    /// Replaces the recovery codes.
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
        let keeps_one = self.requires_factor(&me);
        let others = factors.iter().filter(|other| other.is_confirmed && other.id != id).count();
        if factor.is_confirmed && others == 0 && keeps_one {
            return Err(last_factor());
        }
        // Of what was never confirmed there is nothing to tell.
        let mail = if factor.is_confirmed { self.notice(&me, Purpose::FactorsChanged).await? } else { None };
        let event = Event::own(me.id, address, "user.remove-factor", factor.kind.name().to_owned());
        match self.store.remove_factor(&owner(&me, caller), id, keeps_one, &event, mail.as_ref()).await? {
            FactorRemoval::Done => {}
            // Another call has removed the other one meanwhile.
            FactorRemoval::Last => return Err(last_factor()),
            FactorRemoval::Gone => return Err(not_found()),
        }
        self.mails_are_queued();
        Ok(())
    }
}
