//! The access rules of routes.

use std::time::Duration;

use crate::types::Role;

/// The callers that may use a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// Everyone. Tokens are removed and not verified.
    Open,
    /// Everyone without a token, and callers with a valid one.
    Optional,
    /// Callers with a valid token that meet the requirements.
    SignedIn(Requirements),
}

/// The requirements beside a valid token. All of them must be met.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Requirements {
    /// The rule about roles, if there is one.
    pub roles: Option<RoleRule>,
    /// How long ago at most the caller must have shown who they are.
    pub fresh: Option<Duration>,
    /// Whether the caller must have shown who they are by two kinds of proof.
    pub mfa: bool,
}

/// A rule about roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleRule {
    /// The caller must have one of them.
    Any(Vec<Role>),
    /// The caller must have all of them.
    All(Vec<Role>),
}
