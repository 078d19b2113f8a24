//! What an operator does with accounts, from the command line. No throttle, no proof: whoever
//! may read the config may do this.

use std::sync::Arc;

use super::{AccountError, Result};
use crate::{
    clock::Clock,
    error::Kind,
    password::{Hasher, Rules},
    store::{AccountChange, Change, NewUser, Store, User},
    types::{Random, Roles, Secret, UserId, Username},
};

/// The operator's use cases.
pub struct Operator {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The password workers.
    pub hasher: Hasher,
    /// The rules for passwords.
    pub rules: Rules,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

impl Operator {
    /// Makes an account.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn add(&self, name: &str, password: &Secret, roles: Roles) -> Result<User> {
        let name = Username::new(name)?;
        let password_hash = self.hash(password, &name).await?;
        let id = UserId::generate(self.clock.wall(), &*self.random);
        let user = NewUser { id, name, email: None, password_hash, roles };
        let opened = self.store.create_user(&user, None).await?;
        opened.map(|opened| opened.user).ok_or(AccountError::Refused(Kind::UsernameExists))
    }

    /// Finds an account by its name.
    ///
    /// # Errors
    /// `Not found`, or the store's.
    pub async fn find(&self, name: &str) -> Result<User> {
        let found = self.store.user_by_name(&Username::new(name)?).await?;
        found.ok_or(AccountError::Refused(Kind::NotFound))
    }

    /// Sets a password; the account's sessions end.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn set_password(&self, user: &User, password: &Secret) -> Result<()> {
        let password_hash = Some(self.hash(password, &user.name).await?);
        self.change(user, AccountChange { password_hash, ..AccountChange::default() }).await
    }

    /// Sets the roles; the account's sessions end.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn set_roles(&self, user: &User, roles: Roles) -> Result<()> {
        self.change(user, AccountChange { roles: Some(roles), ..AccountChange::default() }).await
    }

    /// Disables or enables an account; its sessions end.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn set_disabled(&self, user: &User, disabled: bool) -> Result<()> {
        self.change(user, AccountChange { disabled: Some(disabled), ..AccountChange::default() }).await
    }

    /// Deletes an account; its name is not given out again.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn delete(&self, user: &User) -> Result<()> {
        self.change(user, AccountChange { delete: true, ..AccountChange::default() }).await
    }

    async fn hash(&self, password: &Secret, name: &Username) -> Result<String> {
        let password = Rules::prepare(password)?;
        self.rules.check(&password, name.as_str())?;
        Ok(self.hasher.hash(password).await?)
    }

    async fn change(&self, user: &User, change: AccountChange) -> Result<()> {
        match self.store.change_user(user.id, &change).await? {
            Change::Done(..) => Ok(()),
            _ => Err(AccountError::Refused(Kind::NotFound)),
        }
    }
}
