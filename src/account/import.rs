//! Taking users in from another program.

use std::{collections::HashSet, sync::Arc};

use thiserror::Error;

use super::{Actor, register::check_email};
use crate::{
    clock::Clock,
    config::UsernameRules,
    password::{ForeignHash, ForeignHashError},
    store::{Event, ImportOutcome, ImportedUser, Result as StoreResult, Store},
    types::{Random, Roles, RolesError, UserId, Username, UsernameError, hash::sha256},
};

/// The longest id of another program.
const MAX_ID: usize = 64;

/// A user as it was read, not yet checked.
#[derive(Default, Clone)]
pub struct Candidate {
    /// The id that it had.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its hash.
    pub hash: String,
    /// Its address.
    pub email: Option<String>,
    /// Its roles, if the other program kept any.
    pub roles: Option<Vec<String>>,
    /// What the other program kept of whether it may not log in, if anything.
    pub disabled: Option<String>,
}

/// Why a user is not taken.
#[derive(Debug, Error, Clone, PartialEq, Eq)]
pub enum Rejection {
    /// What is said of whether it is disabled is neither yes nor no.
    #[error("disabled is {0:?}: expected 1, true, yes, on, 0, false, no, off or nothing")]
    Disabled(String),
    /// The id cannot be kept.
    #[error("the id is empty, or longer than 64 characters, or not printable ASCII")]
    Id,
    /// The name is not accepted.
    #[error("username: {0}")]
    Name(#[from] UsernameError),
    /// The hash cannot be verified here.
    #[error("password: {0}")]
    Hash(#[from] ForeignHashError),
    /// A role is not legal.
    #[error("role `{0}`: 1 to 64 of a-z, 0-9, `_`, `.`, `:` and `-`")]
    Role(String),
    /// There are too many roles.
    #[error("more than {max} roles", max = Roles::MAX)]
    TooManyRoles,
    /// The name is taken.
    #[error("the name is taken by another account")]
    NameTaken,
    /// It looks like the name of another account.
    #[error("the name looks like `{0}`, which another account has")]
    LooksLike(String),
    /// The name was given up by another account.
    #[error("the name belonged to an account that was deleted or renamed")]
    NameRetired,
    /// The id is another account's.
    #[error("the id belongs to the account `{0}` already")]
    IdTaken(String),
}

/// Takes users in.
pub struct Importer {
    /// The store.
    pub store: Arc<dyn Store>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
    /// The roles of a user for whom the other program kept none.
    pub default_roles: Roles,
    /// Whether the other program had made sure of the addresses.
    pub email_verified: bool,
    /// Whether names may look like others'.
    pub allow_similar: bool,
    /// The rules for chosen names. Names beyond them are counted.
    pub usernames: UsernameRules,
    /// Who imports.
    pub by: Actor,
}

/// What became of a user.
pub type Outcome = Result<Taken, Rejection>;

/// How a user was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// The account was created.
    New,
    /// The account was created, but its address is not verified, because another account has verified it.
    Unverified,
    /// It was here before.
    Before,
}

/// Returns what a text says, if it says yes or no.
fn truth(text: &str) -> Option<bool> {
    let is_among = |words: &[&str]| words.iter().any(|word| text.trim().eq_ignore_ascii_case(word));
    match (is_among(&["1", "t", "true", "y", "yes", "on"]), is_among(&["0", "f", "false", "n", "no", "off"]))
    {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

impl Importer {
    /// Checks a user as far as that can be done without the store.
    ///
    /// # Errors
    /// Why it cannot be taken.
    pub fn check(&self, candidate: &Candidate) -> Result<ImportedUser, Rejection> {
        let id = candidate.id.trim();
        if id.is_empty() || id.len() > MAX_ID || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Rejection::Id);
        }
        let roles = match &candidate.roles {
            None => self.default_roles.clone(),
            Some(texts) => Roles::parse_all(texts).map_err(|error| match error {
                RolesError::Role(text) => Rejection::Role(text),
                RolesError::TooMany => Rejection::TooManyRoles,
            })?,
        };
        let disabled = candidate.disabled.as_deref();
        let disabled = disabled
            .map_or(Some(false), truth)
            .ok_or_else(|| Rejection::Disabled(disabled.unwrap_or_default().to_owned()))?;
        let hash = ForeignHash::parse(candidate.hash.trim())?;
        // An address that cannot be one is left out: the user is worth more than it.
        let email = candidate.email.as_deref().and_then(|email| check_email(email.trim()).ok());
        Ok(ImportedUser {
            id: UserId::generate(self.clock.wall(), &*self.random),
            external_id: id.to_owned(),
            name: Username::new(candidate.name.trim())?,
            email_verified: self.email_verified && email.is_some(),
            email,
            password_hash: candidate.hash.trim().to_owned(),
            foreign_scheme: Some(hash.scheme().to_owned()),
            roles,
            disabled,
            similar: self.allow_similar,
        })
    }

    /// Returns whether the name of a user is beyond the rules for chosen names.
    pub fn is_beyond(&self, user: &ImportedUser) -> bool {
        self.usernames.check(&user.name).is_err()
    }

    fn event(&self) -> Event {
        self.by.event("user.import", String::new())
    }

    /// Takes users in, in one transaction; what became of each.
    ///
    /// # Errors
    /// When the store fails; then none was taken.
    pub async fn take(&self, users: Vec<ImportedUser>) -> StoreResult<Vec<Outcome>> {
        let outcomes = self.store.import_users(users, &self.event(), true).await?;
        Ok(outcomes.into_iter().map(outcome).collect())
    }

    /// What would become of each, without taking any in; `seen` remembers the looks of names from
    /// one call to the next.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn try_out(
        &self,
        users: Vec<ImportedUser>,
        seen: &mut HashSet<[u8; 32]>,
    ) -> StoreResult<Vec<Outcome>> {
        let skeletons: Vec<_> = users.iter().map(|user| sha256(user.name.skeleton().as_bytes())).collect();
        let outcomes = self.store.import_users(users, &self.event(), false).await?;
        let judge = |(known, look): (ImportOutcome, [u8; 32])| match outcome(known) {
            Ok(Taken::New | Taken::Unverified) if !seen.insert(look) => Err(Rejection::NameTaken),
            other => other,
        };
        Ok(outcomes.into_iter().zip(skeletons).map(judge).collect())
    }
}

fn outcome(outcome: ImportOutcome) -> Outcome {
    Err(match outcome {
        ImportOutcome::Imported => return Ok(Taken::New),
        ImportOutcome::Unverified => return Ok(Taken::Unverified),
        ImportOutcome::AlreadyThere => return Ok(Taken::Before),
        ImportOutcome::NameTaken => Rejection::NameTaken,
        ImportOutcome::LooksLike(name) => Rejection::LooksLike(name),
        ImportOutcome::NameRetired => Rejection::NameRetired,
        ImportOutcome::IdTaken(name) => Rejection::IdTaken(name),
    })
}
