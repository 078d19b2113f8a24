//! What a route asks of its callers.

use crate::types::Role;

/// Whom a route is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Everybody; tokens are removed unread.
    Open,
    /// Everybody; a token may be absent, not bad.
    Optional,
    /// Callers with a good token who meet the requirements.
    SignedIn(Requirements),
}

/// What is required of a caller beside a good token. All of it must be met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// The roles that they must have, if it is a matter of roles.
    pub roles: Option<RoleRule>,
}

/// Which roles a caller must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleRule {
    /// One of them is enough.
    Any(Vec<Role>),
    /// All are needed.
    All(Vec<Role>),
}
