//! What the password workers are asked for, and what they reply.

use std::time::{Duration, Instant};

use argon2::password_hash::phc::PasswordHash;
use thiserror::Error;
use tokio::sync::oneshot;

use super::{
    BreachedError, ForeignHash, PasswordError,
    share::{Origin, Place},
};
use crate::types::Secret;

/// Turned away: the queue is full, or the wait was too long.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the password workers are busy")]
pub struct Busy {
    /// When to try again.
    pub retry_after: Duration,
}

/// Why there is no hash.
#[derive(Debug, Error)]
pub enum HashError {
    /// Turned away.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The account or the address has as many waiting as it may.
    #[error("too many passwords of one account or address are waiting")]
    Crowded,
    /// The password breaks a rule.
    #[error(transparent)]
    Rejected(#[from] PasswordError),
    /// The list of stolen passwords cannot be read.
    #[error("the list of stolen passwords: {0}")]
    List(#[from] BreachedError),
    /// The stored hash cannot be used, or the library refused.
    #[error("password hash: {0}")]
    Failed(String),
}

/// What a stored hash says to a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// It is the password.
    pub matches: bool,
    /// It was hashed with other parameters than are configured now.
    pub outdated: bool,
}

/// What a password is compared with.
pub(super) enum Stored {
    /// Nothing: the same is spent, and the response is no.
    Unknown,
    /// A hash with the parameters that are configured.
    Current(Box<PasswordHash>),
    /// Any other, with the password as it was typed.
    Foreign(Box<ForeignHash>, Secret),
}

pub(super) enum Work {
    Hash {
        /// Whether somebody chooses the password now: it must not be a common or a stolen one.
        is_new: bool,
        reply: oneshot::Sender<Result<String, HashError>>,
    },
    Verify(Stored, oneshot::Sender<Result<Verdict, HashError>>),
}

pub(super) struct Job {
    pub(super) origin: Origin,
    /// Its place in the shares of its origin; none for what nobody waits for. Held for as long as the job lives.
    pub(super) place: Option<Place>,
    /// Whether a person waits for it: only those are measured.
    pub(super) counted: bool,
    pub(super) password: Secret,
    pub(super) work: Work,
    pub(super) deadline: Instant,
}

impl Job {
    /// A job that nobody does, and what keeps it waited for.
    #[cfg(test)]
    pub(super) fn for_test(origin: Origin) -> (Self, oneshot::Receiver<Result<String, HashError>>) {
        let (reply, waited_for) = oneshot::channel();
        let work = Work::Hash { is_new: false, reply };
        (
            Self {
                origin,
                place: None,
                counted: true,
                password: Secret::new(""),
                work,
                deadline: Instant::now(),
            },
            waited_for,
        )
    }

    pub(super) fn is_abandoned(&self) -> bool {
        match &self.work {
            Work::Hash { reply, .. } => reply.is_closed(),
            Work::Verify(_, reply) => reply.is_closed(),
        }
    }
}
