//! Mails that wait to be sent, and the single-use tokens that they carry.

use uuid::Uuid;

use super::User;
use crate::types::{UserId, hash::sha256};

/// What a mail is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To show that an address is the account's.
    VerifyEmail,
    /// To set a new password.
    ResetPassword,
}

impl Purpose {
    pub(super) fn number(self) -> i16 {
        match self {
            Self::VerifyEmail => 1,
            Self::ResetPassword => 2,
        }
    }

    pub(super) fn read(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::VerifyEmail),
            2 => Some(Self::ResetPassword),
            _ => None,
        }
    }

    /// What must still be the same when the token comes back: the address that was written to, and
    /// the password that was forgotten.
    pub(super) fn bound_to(self, user: &User) -> [u8; 32] {
        let email = user.email.as_deref().unwrap_or_default().to_lowercase();
        match self {
            Self::VerifyEmail => sha256(email.as_bytes()),
            Self::ResetPassword => sha256(format!("{}\0{email}", user.password_hash).as_bytes()),
        }
    }
}

/// A mail to be queued.
#[derive(Debug, Clone)]
pub struct NewMail {
    /// Its id, which its token is derived from.
    pub id: Uuid,
    /// Whom it goes to.
    pub user: UserId,
    /// What it is for.
    pub purpose: Purpose,
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// Not queued if the account has so many of the kind whose tokens still hold.
    pub most_live: u32,
    /// Not queued if the address has so many, whatever the account.
    pub most_live_to_address: u32,
}

/// A mail that this gateway may send now, and no other does for a while.
#[derive(Debug, Clone)]
pub struct ClaimedMail {
    /// Its id.
    pub id: Uuid,
    /// What it is for.
    pub purpose: Purpose,
    /// Whom it goes to, as the account is now.
    pub user: User,
    /// How often it was tried, this time included.
    pub attempts: u32,
    /// How long it has waited, in milliseconds.
    pub age: i64,
    /// Whether its token is worth anything: the address and the password are still the same.
    pub holds: bool,
}

/// How a mail is claimed.
#[derive(Debug, Clone, Copy)]
pub struct MailLease {
    /// Nobody else tries it for this long, in milliseconds.
    pub hold: i64,
    /// How long the token of each purpose lives from now on, in milliseconds: verify, reset.
    pub ttls: (i64, i64),
}

/// What became of an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The server took it.
    Done,
    /// To be tried again after so many milliseconds.
    Again(i64),
    /// It is too old to be of use.
    GivenUp,
}
