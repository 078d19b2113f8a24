//! Accounts: what is kept of them.

use async_trait::async_trait;

use super::{AccountChange, Change, Event, Grant, NewMail, NewSession, Result, UserFilter};
use crate::{
    clock::UnixMillis,
    types::{Roles, UserId, Username},
};

/// The columns of [`User`] in the view `accounts`.
pub(super) const USER: &str = "id, name, email, password_hash, roles, disabled, generation, created_at, email_verified, \
     external_id, pending_email";

/// An account.
#[derive(Clone, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: UserId,
    /// Its canonical name.
    pub name: Username,
    /// Its e-mail address, as given.
    pub email: Option<String>,
    /// The password's hash in PHC form; none where it has no password.
    pub password_hash: Option<String>,
    /// Its roles.
    pub roles: Roles,
    /// Whether it may not log in.
    pub disabled: bool,
    /// Tokens of older generations are dead.
    pub generation: i64,
    /// When it was made.
    pub created_at: UnixMillis,
    /// Whether the address was shown to be the account's.
    pub email_verified: bool,
    /// The id that it had in the program that it came from.
    pub external_id: Option<String>,
    /// An address that was not shown to be the account's yet, while `email` goes on.
    pub pending_email: Option<String>,
}

impl User {
    /// The address that a mail to verify one goes to: the newest.
    pub fn unverified_email(&self) -> Option<&str> {
        let unverified = self.email.as_deref().filter(|_| !self.email_verified);
        self.pending_email.as_deref().or(unverified)
    }
}

/// An account to be made.
#[derive(Clone)]
pub struct NewUser {
    /// Its id.
    pub id: UserId,
    /// Its name.
    pub name: Username,
    /// Its e-mail address.
    pub email: Option<String>,
    /// The password's hash.
    pub password_hash: String,
    /// Its roles.
    pub roles: Roles,
    /// Whether the name of a former account may be given out again.
    pub release: bool,
    /// Whether the name may look like another's.
    pub similar: bool,
    /// The mail that goes to its address.
    pub mail: Option<NewMail>,
    /// What the audit trail says of it.
    pub event: Option<Event>,
}

/// An account that was made, and its session.
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
    /// Makes an account, and its first session if one is asked for. `None` when the name, or one
    /// that looks like it, is or was taken.
    async fn create_user(&self, user: &NewUser, session: Option<&NewSession>) -> Result<Option<Opened>>;

    /// Lets the name of a former account be given out again. False when it is none's.
    async fn release_name(&self, name: &Username, event: &Event) -> Result<bool>;

    /// Finds an account by its canonical name.
    async fn user_by_name(&self, name: &Username) -> Result<Option<User>>;

    /// Finds the account whose name looks like this one, which may be the same.
    async fn user_by_skeleton(&self, name: &Username) -> Result<Option<User>>;

    /// Finds an account.
    async fn user(&self, id: UserId) -> Result<Option<User>>;

    /// Finds an account by the id that it had in the program that it came from.
    async fn user_by_external_id(&self, id: &str) -> Result<Option<User>>;

    /// The account, if it is not disabled, whose address this was shown to be.
    async fn user_by_verified_email(&self, email: &str) -> Result<Option<User>>;

    /// Accounts in the order of their names.
    async fn users(&self, filter: &UserFilter) -> Result<Vec<User>>;

    /// Replaces a password hash by a better one of the same password, if it is still `old`.
    async fn rehash(&self, user: UserId, old: &str, new: &str) -> Result<()>;

    /// Changes or deletes an account. What ends with it, [`AccountChange::ends`] says; however many sessions that are, it
    /// takes the same time: what rows are left [`Store::prune`](super::Store::prune) removes.
    async fn change_user(&self, user: UserId, change: &AccountChange) -> Result<Change>;
}
