//! Changing and deleting accounts.

use std::net::IpAddr;

use super::{
    AccountError, Accounts, Actor, Changed, Holder, Result, claims::check_attributes, login::Judged,
    register::check_email,
};
use crate::{
    config::SetBy,
    error::Kind,
    password::Rules,
    store::{AccountChange, Change, Ends, NewMail, Place, Purpose, Rekey, User},
    token::SignedIn,
    types::{AttributeChanges, Role, Secret, UserId, Username},
};

/// Said to whoever must change the password that an operator has given them.
pub(super) const ANOTHER_PASSWORD: &str = "choose another password than the one that you were given";

/// A change that a caller asks for.
#[derive(Debug, Default)]
pub struct ChangeRequest {
    /// Whose account; the caller's own if absent.
    pub user_id: Option<String>,
    /// A new name.
    pub new_username: Option<String>,
    /// A new password.
    pub new_password: Option<Secret>,
    /// A new e-mail address.
    pub new_email: Option<String>,
    /// New values of attributes.
    pub attributes: AttributeChanges,
    /// The new password again.
    pub new_password_confirm: Option<Secret>,
    /// The caller's own password, as proof.
    pub current_password: Option<Secret>,
}

impl Accounts {
    /// Changes a name or password. The account's other sessions end; the caller's own moves along
    /// with the tokens, or the cookie, that are returned. `None` for another's account.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn change(
        &self,
        caller: &SignedIn,
        wanted: ChangeRequest,
        address: IpAddr,
    ) -> Result<Option<Changed>> {
        let is_of_attributes = !wanted.attributes.is_empty();
        let is_of_credentials =
            wanted.new_username.is_some() || wanted.new_password.is_some() || wanted.new_email.is_some();
        if !is_of_attributes && !is_of_credentials {
            return Err(AccountError::Refused(Kind::MissingParameters));
        }
        let confirmed = wanted.new_password_confirm.as_ref().map(Secret::expose);
        if confirmed.is_some() && confirmed != wanted.new_password.as_ref().map(Secret::expose) {
            return Err(AccountError::Refused(Kind::PasswordsDoNotMatch));
        }
        let me = self.me(caller).await?;
        // With the current password, the attempt at that is counted.
        let used = match wanted.current_password {
            Some(_) => None,
            None => Some(self.attempts.change(&me.name, address).await?),
        };
        let result = self.try_change(caller, &me, wanted, address).await;
        if let (Err(error), Some(used)) = (&result, used)
            && error.is_ours()
        {
            self.attempts.unused(used).await;
        }
        result
    }

    async fn try_change(
        &self,
        caller: &SignedIn,
        me: &User,
        wanted: ChangeRequest,
        address: IpAddr,
    ) -> Result<Option<Changed>> {
        let target = self.target(me, wanted.user_id.as_deref()).await?;
        let name = wanted.new_username.as_deref().map(Username::new).transpose()?;
        if let Some(name) = name.as_ref().filter(|name| **name != target.name) {
            self.config.username.check(name)?;
        }
        let password = wanted.new_password.as_ref().map(Rules::prepare).transpose()?;
        if let Some(password) = &password {
            self.rules().check(password, name.as_ref().unwrap_or(&target.name).as_str())?;
        }
        let email = wanted.new_email.as_deref().map(check_email).transpose()?;
        if email.is_some() && me.has_factors {
            // A mail to it may let somebody in.
            self.need_proof(caller, me).await?;
        }
        let is_own = target.id == me.id;
        let by = if is_own && !me.roles.contains(Role::ADMIN) { SetBy::Person } else { SetBy::Operator };
        check_attributes(&self.config.attributes, &wanted.attributes, by)?;
        let is_harmless = is_own && name.is_none() && password.is_none() && email.is_none();
        // Attributes that people set themselves give no access.
        let authenticated = match &wanted.current_password {
            None if is_harmless => false,
            current => self.prove(caller, me, current.as_ref(), address).await?,
        };
        if let Some(password) = password.as_ref().filter(|_| me.must_change_password && is_own)
            && self.is_password(me, password, address).await?
        {
            return Err(AccountError::Explained(Kind::PasswordNotAccepted, ANOTHER_PASSWORD));
        }
        let password_hash = match password {
            Some(password) => Some(self.hash_new(password, &me.name, address).await?),
            None => None,
        };
        let holder = if caller.by_cookie { Holder::Browser { keep: caller.is_kept } } else { Holder::Tokens };
        let (session, refresh) = self.new_session(caller.session, Place::default(), holder);
        let what = [
            ("name", name.is_some()),
            ("password", password_hash.is_some()),
            ("email", email.is_some()),
            ("attributes", !wanted.attributes.is_empty()),
        ];
        let what: Vec<&str> =
            what.into_iter().filter_map(|(what, changed)| changed.then_some(what)).collect();
        let by = Actor { id: Some(me.id), name: me.name.to_string(), address: Some(address.to_string()) };
        let mails = self.mails_about(&target, password_hash.is_some(), email.as_deref()).await?;
        let change = AccountChange {
            mails,
            email_pending: true,
            event: Some(by.event("user.change", what.join(", "))),
            email: email.map(Some),
            name,
            password_hash,
            attributes: wanted.attributes,
            expected_generation: Some(target.generation),
            ends: if is_own { Ends::Others(Box::new(Rekey { session, authenticated })) } else { Ends::All },
            ..AccountChange::default()
        };
        if is_own {
            self.await_key().await?;
        }
        let changed = self.revoker.change(target.id, target.generation, &change).await?;
        if matches!(changed, Change::Done(..)) {
            self.mails_are_queued();
        }
        match changed {
            Change::Done(_, Some(grant)) => Ok(Some(match holder {
                Holder::Tokens => Changed::Tokens(Box::new(self.issue(*grant, refresh).await?)),
                Holder::Browser { keep } => Changed::Cookie(Box::new(self.issue_cookie(*grant, keep).await?)),
            })),
            Change::Done(_, None) => Ok(None),
            Change::NameTaken => Err(AccountError::Refused(Kind::UsernameExists)),
            Change::Conflict | Change::Gone if !is_own => Err(AccountError::Refused(Kind::Conflict)),
            // The account changed under our hands, or the session ended meanwhile.
            Change::Conflict | Change::Gone | Change::LastAdmin | Change::AddressTaken => {
                Err(AccountError::Refused(Kind::Unauthenticated))
            }
        }
    }

    /// The mails that go with a change of an account.
    async fn mails_about(
        &self,
        target: &User,
        is_new_password: bool,
        email: Option<&str>,
    ) -> Result<Vec<NewMail>> {
        let mut mails = Vec::new();
        if email.is_some() {
            mails.extend(self.mail(target.id, Purpose::VerifyEmail, None).await?);
        }
        // The verified address is notified, also of changes by administrators.
        if let Some(verified) = target.email.as_ref().filter(|_| target.email_verified) {
            if is_new_password {
                mails.extend(self.mail(target.id, Purpose::PasswordChanged, Some(verified.clone())).await?);
            }
            if email.is_some_and(|email| email != verified) {
                mails.extend(self.mail(target.id, Purpose::AddressChanged, Some(verified.clone())).await?);
            }
        }
        Ok(mails)
    }

    /// Deletes an account.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn delete(
        &self,
        caller: &SignedIn,
        user_id: Option<&str>,
        current_password: Option<&Secret>,
        address: IpAddr,
    ) -> Result<()> {
        let me = self.me(caller).await?;
        if user_id.is_none() && me.roles.contains(Role::ADMIN) {
            return Err(AccountError::Explained(
                Kind::MissingParameters,
                "an administrator names the account by user_id",
            ));
        }
        let used = match current_password {
            Some(_) => None,
            None => Some(self.attempts.change(&me.name, address).await?),
        };
        let result = self.try_delete(caller, &me, user_id, current_password, address).await;
        if let (Err(error), Some(used)) = (&result, used)
            && error.is_ours()
        {
            self.attempts.unused(used).await;
        }
        result
    }

    async fn try_delete(
        &self,
        caller: &SignedIn,
        me: &User,
        user_id: Option<&str>,
        current_password: Option<&Secret>,
        address: IpAddr,
    ) -> Result<()> {
        let target = self.target(me, user_id).await?;
        self.prove(caller, me, current_password, address).await?;
        let by = Actor { id: Some(me.id), name: me.name.to_string(), address: Some(address.to_string()) };
        let change = AccountChange {
            delete: true,
            keep_last_admin: true,
            event: Some(by.event("user.delete", String::new())),
            ..AccountChange::default()
        };
        match self.revoker.change(target.id, target.generation, &change).await? {
            Change::Done(..) => Ok(()),
            Change::LastAdmin => Err(AccountError::Explained(
                Kind::InsufficientRole,
                "the last administrator cannot be removed",
            )),
            Change::Gone | Change::NameTaken | Change::AddressTaken | Change::Conflict => {
                Err(AccountError::Refused(Kind::NotFound))
            }
        }
    }

    /// The account that is meant: the caller's own, or any for an administrator.
    async fn target(&self, me: &User, user_id: Option<&str>) -> Result<User> {
        let Some(user_id) = user_id else { return Ok(me.clone()) };
        let id = UserId::parse(user_id);
        // Clients of an older service know the id that it gave.
        if id == Some(me.id) || me.external_id.as_deref() == Some(user_id) {
            return Ok(me.clone());
        }
        // The roles are the store's, not the token's; and a stranger learns nothing of who exists.
        if !me.roles.contains(Role::ADMIN) {
            return Err(AccountError::Refused(Kind::InsufficientRole));
        }
        let found = match id {
            Some(id) => self.store.user(id).await?,
            None => self.store.user_by_external_id(user_id).await?,
        };
        found.ok_or(AccountError::Refused(Kind::NotFound))
    }

    /// Makes sure that it is the person: by the current password, or by a recent login. Whether the
    /// password was given.
    async fn prove(
        &self,
        caller: &SignedIn,
        me: &User,
        password: Option<&Secret>,
        address: IpAddr,
    ) -> Result<bool> {
        if let Some(password) = password {
            return match self.judge_password(me, password, address).await? {
                Judged::Right => Ok(true),
                Judged::Wrong => Err(AccountError::Refused(Kind::InvalidCredentials)),
            };
        }
        if self.has_proof(caller, me).await? {
            Ok(false)
        } else {
            Err(AccountError::Explained(
                Kind::InvalidCredentials,
                "the login is not recent: current_password is needed",
            ))
        }
    }
}
