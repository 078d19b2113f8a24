//! People who come by a provider: signed in, linked, or new.

use std::net::IpAddr;

use uuid::{Builder, Uuid};

use super::{
    AccountError, Accounts, BrowserSession, Client, Holder, Result, challenge::NewChallenge,
    register::check_email,
};
use crate::{
    config::{Provider, ProviderRegistration},
    error::Kind,
    oidc::Identity,
    store::{AccountChange, Change, Event, Link, Linked, NewLink, NewUser, Purpose, Unlinked, User},
    token::SignedIn,
    types::{Proof, Proofs, Role, Roles, SessionId, UserId, Username, hash::sha256},
};

/// How often another name is tried: a number behind what somebody is called, then a long one.
const MOST_NAMES: u32 = 30;
const MOST_NUMBERS: u32 = 9;

/// What somebody is called whose name tells nothing.
const NAMELESS: &str = "user";

/// How often an account's roles are changed anew when somebody else changes it meanwhile.
const MOST_TRIES: u32 = 3;

/// The longest that a provider may call somebody, in characters.
const LONGEST_LABEL: usize = 100;

/// How long a state that came back is remembered, in milliseconds: longer than its ticket holds.
const STATE_KEPT_FOR: i64 = 3_600_000;

/// The proof that a provider's word is.
const BY_PROVIDER: Proofs = Proofs::NONE.with(Proof::Provider);

impl Accounts {
    /// Counts somebody who sets out to a provider.
    ///
    /// # Errors
    /// [`AccountError::Throttled`].
    pub async fn count_provider_request(&self, address: IpAddr) -> Result<()> {
        self.attempts.challenge(address).await.map(drop)
    }

    /// Takes a state that came back from a provider, once.
    ///
    /// # Errors
    /// `Bad request` for one that came before; or [`AccountError`].
    pub async fn spend_state(&self, state: &str, address: IpAddr) -> Result<()> {
        let _counted = self.attempts.challenge(address).await?;
        match self.store.spend_state(&sha256(state.as_bytes()), STATE_KEPT_FOR).await? {
            true => Ok(()),
            false => Err(AccountError::Refused(Kind::BadRequest)),
        }
    }

    /// Signs somebody in by the word of a provider: the account that is linked, one that has verified the same address where the config
    /// says so, or a new one where it says that.
    ///
    /// # Errors
    /// [`AccountError::FactorNeeded`] where the account asks for a factor; `Registration is closed` for somebody without an account.
    pub async fn sign_in_by_provider(
        &self,
        provider: &Provider,
        identity: &Identity,
        client: Client<'_>,
    ) -> Result<BrowserSession> {
        let link = self.link(provider, identity);
        if let Some(user) = self.store.linked_user(&identity.issuer, &identity.subject).await? {
            if user.disabled {
                return Err(AccountError::Refused(Kind::InsufficientRole));
            }
            let user = self.with_roles(provider, identity, user, client.address).await?;
            return self.open_by_provider(&user, None, client).await;
        }
        let verified = match &identity.email {
            Some((email, true)) => check_email(email).ok(),
            _ => None,
        };
        if let Some(email) = verified.as_ref().filter(|_| provider.links_by_email)
            && let Some(user) = self.store.user_by_verified_email(email).await?
            // Another provider's word for it is none of ours.
            && !user.email_is_weak
        {
            if user.disabled {
                return Err(AccountError::Refused(Kind::InsufficientRole));
            }
            // Who must show a factor first has not shown yet that the account is theirs. The next sign-in gives it the roles.
            let user = match user.has_factors {
                true => user,
                false => self.with_roles(provider, identity, user, client.address).await?,
            };
            return self.open_by_provider(&user, Some(link), client).await;
        }
        self.register_by_provider(provider, identity, verified, link, client).await
    }

    fn link(&self, provider: &Provider, identity: &Identity) -> NewLink {
        let called = identity.name.clone().or_else(|| identity.email.clone().map(|(email, _)| email));
        let label = called.unwrap_or_else(|| identity.subject.clone());
        NewLink {
            id: Builder::from_random_bytes(self.random.bytes()).into_uuid(),
            issuer: identity.issuer.clone(),
            subject: identity.subject.clone(),
            provider: provider.name.clone(),
            label: label.chars().filter(|c| !c.is_control()).take(LONGEST_LABEL).collect(),
        }
    }

    /// Opens a session of an account, unless it asks for a factor first. With it the account is linked, if it is not yet.
    async fn open_by_provider(
        &self,
        user: &User,
        link: Option<NewLink>,
        client: Client<'_>,
    ) -> Result<BrowserSession> {
        let holder = Holder::Browser { keep: false };
        if user.disabled {
            return Err(AccountError::Refused(Kind::InsufficientRole));
        }
        // A link is for good: it takes the factor itself.
        let is_remembered = link.is_none() && self.is_remembered(user, client).await?;
        if let Some(purpose) = self.required_challenge(user).filter(|_| !is_remembered) {
            let new = NewChallenge { purpose, session: None, proofs: BY_PROVIDER, holder, link };
            return Err(AccountError::FactorNeeded(Box::new(self.create_challenge(user, new).await?)));
        }
        self.await_key().await?;
        let id = SessionId::generate(&*self.random);
        let (mut session, _) = self.new_session(id, client.place(), holder);
        (session.proofs, session.is_remembered) = (BY_PROVIDER, is_remembered);
        let event = Event::own(user.id, client.address, "user.login", format!("session: {id}; provider"));
        let opened = self.store.open_session(user.id, user.generation, &session, &event).await?;
        // The account was changed meanwhile.
        let grant = opened.ok_or(AccountError::Refused(Kind::Conflict))?;
        if let Some(link) = link {
            let event = Self::link_event(user, &link, client.address);
            match self.store.add_link(user.id, user.generation, &link, &event).await? {
                Linked::Done => self.tell_of_link(user).await?,
                Linked::Taken | Linked::Gone => return Err(AccountError::Refused(Kind::Conflict)),
            }
        }
        self.issue_cookie(grant, false).await
    }

    /// Gives an account the roles that the provider tells, of those that the config maps.
    async fn with_roles(
        &self,
        provider: &Provider,
        identity: &Identity,
        mut user: User,
        address: IpAddr,
    ) -> Result<User> {
        let Some(told) = mapped(provider, identity) else { return Ok(user) };
        let is_mapped = |role: &Role| provider.roles.values().any(|mapped| mapped == role);
        // Whoever signs in twice at once is told the same twice, and one of them comes to an account that has changed.
        for _ in 0..MOST_TRIES {
            let wanted: Roles =
                user.roles.iter().filter(|role| !is_mapped(role)).chain(&told).cloned().collect();
            if wanted == user.roles {
                return Ok(user);
            }
            let detail = format!("roles: {wanted}; by {}", provider.name);
            let change = AccountChange {
                roles: Some(wanted),
                expected_generation: Some(user.generation),
                event: Some(Event::own(user.id, address, "user.set-roles", detail)),
                ..AccountChange::default()
            };
            let changed = self.revoker.change(user.id, user.generation, &change).await?;
            let found = self.store.user(user.id).await?;
            user = found.ok_or(AccountError::Refused(Kind::Conflict))?;
            if matches!(changed, Change::Done(..)) {
                return Ok(user);
            }
        }
        Err(AccountError::Refused(Kind::Conflict))
    }

    async fn register_by_provider(
        &self,
        provider: &Provider,
        identity: &Identity,
        verified: Option<String>,
        link: NewLink,
        client: Client<'_>,
    ) -> Result<BrowserSession> {
        let may = match &provider.register {
            ProviderRegistration::Nobody => false,
            ProviderRegistration::Anyone => true,
            ProviderRegistration::Domains(domains) => verified.as_ref().is_some_and(|email| {
                let domain = email.rsplit_once('@').map(|(_, domain)| domain.to_lowercase());
                domain.is_some_and(|domain| domains.contains(&domain))
            }),
        };
        if !may {
            return Err(AccountError::Refused(Kind::RegistrationClosed));
        }
        let _counted = self.attempts.registration(client.address).await?;
        self.await_key().await?;
        let given = identity.email.as_ref().and_then(|(email, _)| check_email(email).ok());
        // One that is verified there, and that somebody else has verified here, is theirs.
        let is_taken = match &verified {
            Some(email) => self.store.user_by_verified_email(email).await?.is_some(),
            None => false,
        };
        let email = given.filter(|_| !is_taken);
        let is_verified = email.is_some() && verified == email;
        let is_trusted =
            provider.links_by_email || matches!(provider.register, ProviderRegistration::Domains(_));
        let id = UserId::generate(self.time.now().time, &*self.random);
        let mail = match (&email, is_verified) {
            (Some(_), false) => self.mail(id, Purpose::VerifyEmail, None).await?,
            _ => None,
        };
        let roles: Roles = self
            .config
            .default_roles
            .iter()
            .cloned()
            .chain(mapped(provider, identity).unwrap_or_default())
            .collect();
        let holder = Holder::Browser { keep: false };
        for attempt in 1..=MOST_NAMES {
            let Some(name) = self.free_name(identity, attempt) else { continue };
            if self.store.user_by_skeleton(&name).await?.is_some() {
                continue;
            }
            let new = NewUser {
                email: email.clone(),
                email_verified: is_verified.then_some(is_trusted),
                link: Some(link.clone()),
                mail: mail.clone(),
                event: Some(Event::own(id, client.address, "user.register", provider.name.clone())),
                ..NewUser::new(id, name, roles.clone())
            };
            let (mut session, _) =
                self.new_session(SessionId::generate(&*self.random), client.place(), holder);
            session.proofs = BY_PROVIDER;
            let must = self.role_requires_factor(&roles);
            match self.store.create_user(&new, Some(&session).filter(|_| !must)).await? {
                Some(opened) => {
                    self.mails_are_queued();
                    return match opened.grant {
                        Some(grant) => self.issue_cookie(grant, false).await,
                        None => self.open_by_provider(&opened.user, None, client).await,
                    };
                }
                // The name is taken, or somebody came by the same way at the same time.
                None => {
                    let linked = self.store.linked_user(&link.issuer, &link.subject).await?;
                    if let Some(user) = linked {
                        return self.open_by_provider(&user, None, client).await;
                    }
                }
            }
        }
        Err(AccountError::Refused(Kind::UsernameExists))
    }

    /// Returns the name that somebody gets, by what they are called there: with a number behind it from the second attempt on.
    fn free_name(&self, identity: &Identity, attempt: u32) -> Option<Username> {
        let local = identity.email.as_ref().and_then(|(email, _)| email.split('@').next());
        let called = identity.name.as_deref().map(|name| name.split('@').next().unwrap_or(name));
        let base: String = called
            .or(local)
            .unwrap_or(NAMELESS)
            .chars()
            .flat_map(char::to_lowercase)
            .map(|c| if c.is_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
            .collect();
        let base = base.trim_matches(|c: char| !c.is_alphanumeric());
        // At last one that has nothing of what they are called there.
        let base = if base.is_empty() || attempt > MOST_NAMES / 2 { NAMELESS } else { base };
        let suffix = match attempt {
            1 => String::new(),
            2..=MOST_NUMBERS => format!("-{attempt}"),
            _ => format!("-{:08}", u32::from_be_bytes(self.random.bytes()) % 100_000_000),
        };
        let room = Username::MAX_CHARS.min(self.config.username.max_length()).saturating_sub(suffix.len());
        let base: String = base.chars().take(room).collect();
        let name = Username::new(&format!("{base}{suffix}")).ok()?;
        self.config.username.check(&name).ok().map(|()| name)
    }

    /// Links the account of who is signed in to somebody of a provider.
    ///
    /// # Errors
    /// [`AccountError::Unproved`] without a recent proof; `Changed meanwhile` if somebody else is linked to them.
    pub async fn link_provider(
        &self,
        caller: &SignedIn,
        provider: &Provider,
        identity: &Identity,
        address: IpAddr,
    ) -> Result<()> {
        let me = self.me(caller).await?;
        self.need_proof(caller, &me).await?;
        let link = self.link(provider, identity);
        let event = Self::link_event(&me, &link, address);
        match self.store.add_link(me.id, me.generation, &link, &event).await? {
            Linked::Done => self.tell_of_link(&me).await,
            Linked::Taken => Err(AccountError::Refused(Kind::Conflict)),
            Linked::Gone => Err(AccountError::Refused(Kind::Unauthenticated)),
        }
    }

    /// Returns the event of a link that is made.
    pub(super) fn link_event(user: &User, link: &NewLink, address: IpAddr) -> Event {
        Event::own(user.id, address, "user.link", link.provider.clone())
    }

    /// Steps up a browser's session by the word of a provider that its account is linked to.
    ///
    /// # Errors
    /// `Changed meanwhile` if the provider names somebody else; or [`AccountError`].
    pub async fn prove_by_provider(
        &self,
        caller: &SignedIn,
        identity: &Identity,
        address: IpAddr,
    ) -> Result<BrowserSession> {
        let me = self.me(caller).await?;
        let linked = self.store.linked_user(&identity.issuer, &identity.subject).await?;
        // An account with factors proves itself by a factor.
        if me.has_factors || linked.is_none_or(|user| user.id != me.id) {
            return Err(AccountError::Refused(Kind::Conflict));
        }
        self.step_up_browser(caller, &me, Proof::Provider, address).await
    }

    /// Queues the mail that tells of a link that was made or removed.
    pub(super) async fn tell_of_link(&self, user: &User) -> Result<()> {
        if let Some(mail) = self.notice(user, Purpose::FactorsChanged).await? {
            self.store.enqueue_mail(&mail).await?;
            self.mails_are_queued();
        }
        Ok(())
    }

    /// Lists the links of the caller's account.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn links(&self, caller: &SignedIn) -> Result<Vec<Link>> {
        let me = self.me(caller).await?;
        Ok(self.store.links(me.id).await?)
    }

    /// Removes a link.
    ///
    /// # Errors
    /// [`AccountError::Unproved`] without a recent proof; `Not found` for another's; `Insufficient role` for the only way in.
    pub async fn unlink_provider(&self, caller: &SignedIn, id: &str, address: IpAddr) -> Result<()> {
        let me = self.me(caller).await?;
        self.need_proof(caller, &me).await?;
        let not_found = || AccountError::Refused(Kind::NotFound);
        let id = Uuid::try_parse(id).map_err(|_| not_found())?;
        let event = Event::own(me.id, address, "user.unlink", String::new());
        match self.store.remove_link(me.id, id, &event).await? {
            Unlinked::Done => self.tell_of_link(&me).await,
            Unlinked::None => Err(not_found()),
            Unlinked::Last => Err(AccountError::Explained(
                Kind::Conflict,
                "the account has no password: without this link nobody could sign in to it",
            )),
        }
    }
}

/// Returns the roles here that a provider tells; none if it does not tell.
fn mapped(provider: &Provider, identity: &Identity) -> Option<Vec<Role>> {
    let told = identity.roles.as_ref()?;
    Some(told.iter().filter_map(|role| provider.roles.get(role)).cloned().collect())
}
