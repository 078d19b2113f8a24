//! Users who come from another program.

use async_trait::async_trait;

use super::{Event, Result, User};
use crate::types::{Role, Roles, UserId, Username};

/// A user as another program knew it, checked.
#[derive(Clone)]
pub struct ImportedUser {
    /// The id that the account is given.
    pub id: UserId,
    /// The id that it had.
    pub external_id: String,
    /// Its canonical name.
    pub name: Username,
    /// Its e-mail address.
    pub email: Option<String>,
    /// Whether the other program had made sure of the address.
    pub email_verified: bool,
    /// The other program's hash.
    pub password_hash: String,
    /// Scheme and cost of that hash; none if it is one of ours.
    pub foreign_scheme: Option<String>,
    /// Its roles.
    pub roles: Roles,
    /// Whether it may not log in.
    pub disabled: bool,
    /// Whether the name may look like another's.
    pub similar: bool,
}

impl ImportedUser {
    /// What the audit trail says of it.
    pub(super) fn note_detail(&self) -> String {
        format!("{EXTERNAL_ID}{}; roles: {}", self.external_id, self.roles)
    }
}

/// What the detail of a line begins with that tells of the id that an account had elsewhere.
pub(super) const EXTERNAL_ID: &str = "external id: ";

/// What became of an imported user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ImportOutcome {
    /// The account was created.
    Imported,
    /// The account was created, but its address is not verified, because another account has verified it.
    Unverified,
    /// It was imported before.
    AlreadyThere,
    /// Another account has the name.
    NameTaken,
    /// The name looks like that of this account.
    LooksLike(String),
    /// The name was given up by another account.
    NameRetired,
    /// The old id belongs to an account with this other name.
    IdTaken(String),
}

/// Which accounts are asked for, in the order of their names.
#[derive(Debug, Clone, Default)]
pub struct UserFilter {
    /// Only names after this one.
    pub after: Option<String>,
    /// Only those with this text in their name or address.
    pub search: Option<String>,
    /// Only the one with this address.
    pub email: Option<String>,
    /// Only the one that had this id in the program that it was imported from.
    pub external_id: Option<String>,
    /// Only those with this role.
    pub role: Option<Role>,
    /// Only those that are disabled, or are not.
    pub disabled: Option<bool>,
    /// At most so many.
    pub limit: u32,
}

impl UserFilter {
    /// The address in lower case, as keys are.
    pub(super) fn email_key(&self) -> Option<String> {
        self.email.as_ref().map(|email| email.to_lowercase())
    }

    /// A pattern for `LIKE … ESCAPE '\'`, in lower case as names and keys are.
    pub(super) fn pattern(&self) -> String {
        let search = self.search.as_deref().unwrap_or_default().to_lowercase();
        let escaped = search.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
        format!("%{escaped}%")
    }
}

/// Why a user that was not taken was not, once it is known who stands in the way.
pub(super) fn explain(user: &ImportedUser, same_id: Option<&User>, holder: Option<&User>) -> ImportOutcome {
    match (same_id, holder) {
        // Renamed meanwhile, perhaps: the old id is what says that it is the same user.
        (Some(found), _) if found.name == user.name => ImportOutcome::AlreadyThere,
        (Some(found), _) => ImportOutcome::IdTaken(found.name.to_string()),
        (None, Some(holder)) if holder.name == user.name => ImportOutcome::NameTaken,
        (None, Some(holder)) => ImportOutcome::LooksLike(holder.name.to_string()),
        (None, None) => ImportOutcome::NameRetired,
    }
}

/// Users who come from another program, and the hashes that they bring.
#[async_trait]
pub trait Imports: Send + Sync {
    /// Takes users in from another program; what became of each, in their order. With `keep: false`
    /// everything is undone at the end. An address that is shown to be another account's, or an earlier user's, is taken
    /// in as one that was not verified.
    async fn import_users(
        &self,
        users: Vec<ImportedUser>,
        event: &Event,
        keep: bool,
    ) -> Result<Vec<ImportOutcome>>;

    /// Remembers the scheme and cost of our own hashes: some will be there after the config has changed.
    async fn note_own_scheme(&self, scheme: &str) -> Result<()>;

    /// Scheme and cost of every kind of hash that another program made and nobody has renewed, and of
    /// our own since the store was begun.
    async fn foreign_schemes(&self) -> Result<Vec<String>>;
}
