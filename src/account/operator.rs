//! What an operator does with accounts, from the command line or the admin API. No throttle and no
//! proof: the caller has shown who it is before. Every change is noted in the audit trail.

use std::sync::Arc;

use super::{
    AccountError, Keys, KeysError, Result, Revoker, claims::check_attributes, register::check_email,
};
use crate::{
    clock::Clock,
    config::{AttributeRules, SetBy, UsernameRules},
    error::Kind,
    password::{Hasher, Origin, Rules},
    store::{
        AccountChange, Change, Event, KeysRevoked, LogEntry, NewMail, NewUser, Purpose, Revoked, Store, User,
    },
    types::{
        AttributeChanges, Attributes, KeyId, Random, Roles, Secret, SessionId, UserId, Username,
        UsernameError,
    },
};

/// Who does something.
#[derive(Debug, Clone)]
pub struct Actor {
    /// The account; none for the command line.
    pub id: Option<UserId>,
    /// Its name, or the system user of the command line.
    pub name: String,
    /// The network address that it comes from.
    pub address: Option<String>,
}

impl Actor {
    /// What the audit trail says.
    pub fn event(&self, action: &'static str, detail: String) -> Event {
        Event { actor_id: self.id, actor: self.name.clone(), address: self.address.clone(), action, detail }
    }
}

/// An account to be made.
#[derive(Debug)]
pub struct NewAccount<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its e-mail address.
    pub email: Option<&'a str>,
    /// Its password.
    pub password: &'a Secret,
    /// Whether the owner is to choose another one at the first login.
    pub must_change_password: bool,
    /// Its roles.
    pub roles: Roles,
    /// Its attributes.
    pub attributes: AttributeChanges,
    /// Whether the name of a former account may be given out again.
    pub release: bool,
    /// Whether the name may look like another's.
    pub allow_similar: bool,
}

/// A change of an account.
#[derive(Debug, Default)]
pub struct Update {
    /// Its roles.
    pub roles: Option<Roles>,
    /// Whether it may not log in.
    pub disabled: Option<bool>,
    /// Its password.
    pub password: Option<Secret>,
    /// Whether the owner is to choose another one at the next login.
    pub must_change_password: Option<bool>,
    /// Its address.
    pub email: Option<Option<String>>,
    /// New values of its attributes.
    pub attributes: AttributeChanges,
    /// The generation that the account must be of.
    pub expected: Option<i64>,
}

/// The operator's use cases.
pub struct Operator {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The password workers.
    pub hasher: Arc<Hasher>,
    /// The rules for passwords.
    pub rules: Rules,
    /// The rules for names that people choose: an operator is warned beyond them.
    pub usernames: UsernameRules,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// Revokes.
    pub revoker: Revoker,
    /// Whether mails are sent.
    pub has_mail: bool,
    /// The attributes that accounts may have.
    pub attributes: AttributeRules,
}

impl Operator {
    /// Makes an account.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn add(&self, by: &Actor, account: NewAccount<'_>) -> Result<User> {
        let NewAccount { roles, release, allow_similar: similar, .. } = account;
        let name = Username::new(account.name)?;
        if let Err(problem) = self.usernames.check(&name)
            // Those are the operator's to give.
            && problem != UsernameError::Reserved
        {
            // Older services used addresses as names; the operator knows.
            tracing::warn!(user.name = %name, %problem, "a name beyond auth.username");
        }
        let email = account.email.map(check_email).transpose()?;
        check_attributes(&self.attributes, &account.attributes, SetBy::Operator)?;
        let password_hash = self.hash(account.password, &name).await?;
        let id = UserId::generate(self.clock.wall(), &*self.random);
        let event = Some(by.event("user.add", format!("roles: {roles}")));
        let user = NewUser {
            email,
            password_hash: Some(password_hash),
            must_change_password: account.must_change_password,
            release,
            similar,
            event,
            attributes: Attributes::default().changed(&account.attributes),
            ..NewUser::new(id, name, roles)
        };
        let opened = self.store.create_user(&user, None).await?;
        opened.map(|opened| opened.user).ok_or(AccountError::Refused(Kind::UsernameExists))
    }

    /// Lets the name of a former account be given out again.
    ///
    /// # Errors
    /// `Not found` when it is none's.
    pub async fn release_name(&self, by: &Actor, name: &str) -> Result<()> {
        let event = by.event("name.release", String::new());
        match self.store.release_name(&Username::new(name)?, &event).await? {
            true => Ok(()),
            false => Err(AccountError::Refused(Kind::NotFound)),
        }
    }

    /// Finds an account by its name.
    ///
    /// # Errors
    /// `Not found`, or the store's.
    pub async fn find(&self, name: &str) -> Result<User> {
        let found = self.store.user_by_name(&Username::new(name)?).await?;
        found.ok_or(AccountError::Refused(Kind::NotFound))
    }

    /// Changes an account; its sessions end.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn update(&self, by: &Actor, user: &User, update: Update) -> Result<()> {
        let password_hash = match &update.password {
            Some(password) => Some(self.hash(password, &user.name).await?),
            None => None,
        };
        let email = match &update.email {
            Some(Some(email)) => Some(Some(check_email(email)?)),
            Some(None) => Some(None),
            None => None,
        };
        check_attributes(&self.attributes, &update.attributes, SetBy::Operator)?;
        if update.must_change_password == Some(true)
            && update.password.is_none()
            && user.password_hash.is_none()
        {
            return Err(AccountError::Explained(Kind::MissingParameters, "the account has no password"));
        }
        let (action, detail) = describe(&update);
        let change = AccountChange {
            roles: update.roles,
            disabled: update.disabled,
            password_hash,
            must_change_password: update.must_change_password,
            email,
            attributes: update.attributes,
            event: Some(by.event(action, detail)),
            expected_generation: update.expected,
            ..AccountChange::default()
        };
        self.change(by, user, change).await
    }

    /// Returns the mail that tells of a change to the verified address.
    pub(super) fn notice(&self, user: &User, purpose: Purpose) -> Option<NewMail> {
        let verified = user.email.clone().filter(|_| user.email_verified && self.has_mail);
        verified.map(|address| NewMail {
            id: uuid::Builder::from_random_bytes(self.random.bytes()).into_uuid(),
            user: user.id,
            purpose,
            recipient: Some(address),
            // It carries no token.
            token_hash: self.random.bytes(),
            most_live: 3,
            most_live_to_address: 10,
        })
    }

    /// Removes the second factors and recovery codes of an account whose owner has lost them; its sessions end, and they get a mail.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn reset_factors(&self, by: &Actor, user: &User) -> Result<()> {
        if by.id == Some(user.id) {
            return Err(AccountError::Explained(
                Kind::InsufficientRole,
                "administrators remove their own factors as everybody does",
            ));
        }
        let mail = self.notice(user, Purpose::FactorsChanged);
        let change = AccountChange {
            remove_factors: true,
            mails: mail.into_iter().collect(),
            event: Some(by.event("user.reset-factors", String::new())),
            ..AccountChange::default()
        };
        self.change(by, user, change).await
    }

    /// Ends every session of an account.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn end_sessions(&self, by: &Actor, user: &User) -> Result<()> {
        let event = Some(by.event("user.end-sessions", String::new()));
        self.change(by, user, AccountChange { event, ..AccountChange::default() }).await
    }

    /// Ends one session of an account.
    ///
    /// # Errors
    /// `Not found`, or the store's.
    pub async fn end_session(&self, by: &Actor, user: UserId, session: SessionId) -> Result<()> {
        let event = by.event("user.end-session", format!("session: {session}"));
        match self.revoker.end_session(user, session, &event, None).await? {
            true => Ok(()),
            false => Err(AccountError::Refused(Kind::NotFound)),
        }
    }

    /// Deletes an account; its name is not given out again.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn delete(&self, by: &Actor, user: &User, expected: Option<i64>) -> Result<()> {
        let event = Some(by.event("user.delete", String::new()));
        let change =
            AccountChange { delete: true, event, expected_generation: expected, ..AccountChange::default() };
        self.change(by, user, change).await
    }

    /// Revokes a key, or all of them; see [`Keys::revoke`].
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn revoke_keys(
        &self,
        keys: &Keys,
        by: &Actor,
        kid: Option<&str>,
    ) -> std::result::Result<Option<KeysRevoked>, KeysError> {
        match keys.revoke(by, kid).await {
            Ok(Some(revoked)) => {
                self.revoker.in_force(&revoked.entries).await;
                Ok(Some(revoked))
            }
            Ok(None) => Ok(None),
            Err(error) => {
                if let (KeysError::Store(error), Some(kid)) = (&error, kid) {
                    self.revoker.deny_in_doubt(error, Revoked::Key(KeyId::of(kid)), LogEntry::ALL, None);
                }
                Err(error)
            }
        }
    }

    async fn hash(&self, password: &Secret, name: &Username) -> Result<String> {
        let password = Rules::prepare(password)?;
        self.rules.check(&password, name.as_str())?;
        Ok(self.hasher.hash_new(password, Origin::default()).await?)
    }

    async fn change(&self, by: &Actor, user: &User, change: AccountChange) -> Result<()> {
        // An administrator cannot remove the last administrator. The command line can, since it can also add one.
        let change = AccountChange { keep_last_admin: by.id.is_some(), ..change };
        match self.revoker.change(user.id, user.generation, &change).await? {
            Change::Done(..) => Ok(()),
            Change::LastAdmin => Err(AccountError::Explained(
                Kind::InsufficientRole,
                "the last administrator cannot be removed",
            )),
            Change::Conflict => Err(AccountError::Refused(Kind::PreconditionFailed)),
            Change::Gone | Change::NameTaken | Change::AddressTaken => {
                Err(AccountError::Refused(Kind::NotFound))
            }
        }
    }
}

/// What the trail says of an update; never the password.
fn describe(update: &Update) -> (&'static str, String) {
    let mut parts = Vec::new();
    if let Some(roles) = &update.roles {
        parts.push(format!("roles: {roles}"));
    }
    if let Some(disabled) = update.disabled {
        parts.push(if disabled { "disabled".to_owned() } else { "enabled".to_owned() });
    }
    if update.password.is_some() {
        parts.push("password".to_owned());
    }
    if let Some(must_change) = update.must_change_password {
        parts.push(if must_change { "must change it" } else { "need not change it" }.to_owned());
    }
    if update.email.is_some() {
        parts.push("email".to_owned());
    }
    if !update.attributes.is_empty() {
        let names: Vec<&str> = update.attributes.keys().map(String::as_str).collect();
        parts.push(format!("attributes: {}", names.join(",")));
    }
    let action = match (&update.roles, update.disabled, &update.password) {
        (Some(_), None, None) => "user.set-roles",
        // Whatever else is changed with it.
        (_, Some(true), _) => "user.disable",
        (_, Some(false), _) => "user.enable",
        (None, None, Some(_)) => "user.set-password",
        _ => "user.update",
    };
    (action, parts.join("; "))
}
