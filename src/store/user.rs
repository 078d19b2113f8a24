//! Accounts, as they are stored.

use async_trait::async_trait;

use super::{AccountChange, Change, Event, Grant, NewLink, NewMail, NewSession, Result, UserFilter};
use crate::{
    clock::UnixMillis,
    types::{Attributes, Profile, Roles, UserId, Username},
};

/// The columns of [`User`] in the view `accounts`.
pub(super) const USER: &str = "id, name, email, password_hash, roles, disabled, generation, created_at, email_verified, \
     external_id, pending_email, password_by_mail, has_factors, email_is_weak, attributes, \
     must_change_password";

/// An account.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its canonical name.
    pub name: Username,
    /// Its e-mail address, as entered.
    pub email: Option<String>,
    /// The hash of its password in PHC form, if it has a password.
    pub password_hash: Option<String>,
    /// Its roles.
    pub roles: Roles,
    /// Whether it is disabled. A disabled account cannot log in.
    pub disabled: bool,
    /// Its generation. Tokens of older generations are revoked.
    pub generation: i64,
    /// When it was created.
    pub created_at: UnixMillis,
    /// Whether its address is verified.
    pub email_verified: bool,
    /// Its id in the program that it was imported from.
    pub external_id: Option<String>,
    /// An address that replaces `email` once it is verified.
    pub pending_email: Option<String>,
    /// Whether its password was chosen by whoever read a mail.
    pub password_by_mail: bool,
    /// Whether its owner is to choose another password before anything else.
    pub must_change_password: bool,
    /// Whether it has a second factor.
    pub has_factors: bool,
    /// Whether its address was given, and not verified, before it had one.
    pub email_is_weak: bool,
    /// Its attributes, declared or not.
    pub attributes: Attributes,
}

impl User {
    /// Returns the fields that claims come from.
    pub fn profile(&self) -> Profile<'_> {
        Profile {
            id: self.id,
            name: self.name.as_str(),
            email: self.email.as_deref(),
            email_verified: self.email_verified && !self.email_is_weak,
            external_id: self.external_id.as_deref(),
            attributes: &self.attributes,
        }
    }

    /// Returns the address that a verification mail goes to: the newest unverified one.
    pub fn unverified_email(&self) -> Option<&str> {
        let unverified = self.email.as_deref().filter(|_| !self.email_verified);
        self.pending_email.as_deref().or(unverified)
    }
}

/// An account to be created.
#[derive(Clone)]
pub struct NewUser {
    /// Its id.
    pub id: UserId,
    /// Its name.
    pub name: Username,
    /// Its e-mail address.
    pub email: Option<String>,
    /// Whether a provider says that its address is verified, and whether its word is taken for ours. It counts unless another account has
    /// verified it.
    pub email_verified: Option<bool>,
    /// The password's hash; none for an account whose owner signs in by a provider.
    pub password_hash: Option<String>,
    /// Whether the owner is to choose another one at the first login.
    pub must_change_password: bool,
    /// The link to that.
    pub link: Option<NewLink>,
    /// Its roles.
    pub roles: Roles,
    /// Its attributes.
    pub attributes: Attributes,
    /// Whether the name may be a retired one.
    pub release: bool,
    /// Whether the name may have the skeleton of another account's name.
    pub similar: bool,
    /// The hash of the token of an invitation that is used.
    pub invitation: Option<[u8; 32]>,
    /// The mail to be sent to its address.
    pub mail: Option<NewMail>,
    /// The event to be recorded.
    pub event: Option<Event>,
}

impl NewUser {
    /// Returns an account with a name and roles, and nothing else.
    pub fn new(id: UserId, name: Username, roles: Roles) -> Self {
        Self {
            id,
            name,
            email: None,
            email_verified: None,
            password_hash: None,
            must_change_password: false,
            link: None,
            roles,
            attributes: Attributes::default(),
            release: false,
            similar: false,
            invitation: None,
            mail: None,
            event: None,
        }
    }
}

/// An account that was created, and its session.
#[derive(Debug, Clone)]
pub struct Opened {
    /// The account.
    pub user: User,
    /// The right to issue tokens, if a session was asked for.
    pub grant: Option<Grant>,
}

/// Accounts, their names, passwords and addresses.
#[async_trait]
pub trait Users: Send + Sync {
    /// Creates an account, and its first session if one is given. Returns `None` if the name or its skeleton is taken or
    /// retired, if its invitation does not hold any more, or if its link or verified address was taken at the same time;
    /// nothing of that is used up then.
    async fn create_user(&self, user: &NewUser, session: Option<&NewSession>) -> Result<Option<Opened>>;

    /// Releases a retired name. Returns false if the name is not retired.
    async fn release_name(&self, name: &Username, event: &Event) -> Result<bool>;

    /// Finds an account by its canonical name.
    async fn user_by_name(&self, name: &Username) -> Result<Option<User>>;

    /// Finds the account that has this name, or else one whose name has the same skeleton.
    async fn user_by_skeleton(&self, name: &Username) -> Result<Option<User>>;

    /// Finds an account by its id.
    async fn user(&self, id: UserId) -> Result<Option<User>>;

    /// Finds an account by its id in the program that it was imported from.
    async fn user_by_external_id(&self, id: &str) -> Result<Option<User>>;

    /// Finds the account that has verified this address, unless it is disabled.
    async fn user_by_verified_email(&self, email: &str) -> Result<Option<User>>;

    /// Lists accounts in the order of their names.
    async fn users(&self, filter: &UserFilter) -> Result<Vec<User>>;

    /// Replaces a password hash by a better one of the same password, if it is still `old`.
    async fn rehash(&self, user: UserId, old: &str, new: &str) -> Result<()>;

    /// Changes or deletes an account. [`AccountChange::ends`] tells which sessions end. The time does not depend on their
    /// number: [`Store::prune`](super::Store::prune) removes the rows that are left.
    async fn change_user(&self, user: UserId, change: &AccountChange) -> Result<Change>;
}
