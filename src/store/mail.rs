//! Mails that wait to be sent, and the single-use tokens that they carry.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Event, Result, User};
use crate::{
    clock::UnixMillis,
    types::{UserId, hash::sha256},
};

/// What a mail is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To show that an address is the account's.
    VerifyEmail,
    /// To set a new password.
    ResetPassword,
    /// To tell that the password was changed.
    PasswordChanged,
    /// To tell that another address was given.
    AddressChanged,
    /// A code to log in with.
    LoginCode,
    /// To tell that a second factor was added or removed.
    FactorsChanged,
    /// To set a new password, by a link that an operator gives away: no mail is sent.
    ResetLink,
    /// To tell that an API key was made.
    KeyAdded,
}

impl Purpose {
    pub(super) fn number(self) -> i16 {
        match self {
            Self::VerifyEmail => 1,
            Self::ResetPassword => 2,
            Self::PasswordChanged => 3,
            Self::AddressChanged => 4,
            Self::LoginCode => 5,
            Self::FactorsChanged => 6,
            Self::ResetLink => 7,
            Self::KeyAdded => 8,
        }
    }

    pub(super) fn read(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::VerifyEmail),
            2 => Some(Self::ResetPassword),
            3 => Some(Self::PasswordChanged),
            4 => Some(Self::AddressChanged),
            5 => Some(Self::LoginCode),
            6 => Some(Self::FactorsChanged),
            7 => Some(Self::ResetLink),
            8 => Some(Self::KeyAdded),
            _ => None,
        }
    }

    /// Whether it only tells of a change.
    pub fn is_notice(self) -> bool {
        matches!(self, Self::PasswordChanged | Self::AddressChanged | Self::FactorsChanged | Self::KeyAdded)
    }

    /// What must still be the same when the token comes back: the address that was written to, and
    /// the password that was forgotten.
    pub(super) fn bound_to(self, user: &User) -> [u8; 32] {
        let email = user.email.as_deref().unwrap_or_default().to_lowercase();
        let newest = user.pending_email.as_deref().unwrap_or(&email).to_lowercase();
        match self {
            Self::VerifyEmail => sha256(newest.as_bytes()),
            // They carry no token.
            Self::PasswordChanged | Self::AddressChanged | Self::FactorsChanged | Self::KeyAdded => {
                sha256(user.id.to_string().as_bytes())
            }
            Self::LoginCode => sha256(email.as_bytes()),
            Self::ResetPassword | Self::ResetLink => {
                let hash = user.password_hash.as_deref().unwrap_or_default();
                sha256(format!("{hash}\0{email}").as_bytes())
            }
        }
    }
}

/// A mail to be queued.
#[derive(Clone)]
pub struct NewMail {
    /// Its id, which its token is derived from.
    pub id: Uuid,
    /// Whom it goes to.
    pub user: UserId,
    /// What it is for.
    pub purpose: Purpose,
    /// Its address, if that is not the account's own.
    pub recipient: Option<String>,
    /// SHA-256 of its token; of one that nobody gets where it carries none.
    pub token_hash: [u8; 32],
    /// Not queued if the account has so many of the kind whose tokens still hold.
    pub most_live: u32,
    /// Not queued if the address has so many, whatever the account.
    pub most_live_to_address: u32,
}

/// A link to set a new password, to be made.
#[derive(Clone)]
pub struct NewResetLink {
    /// Its id.
    pub id: Uuid,
    /// Whose password it sets.
    pub user: UserId,
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// The generation that the account must be of, if a password was shown for the link: that may have been replaced.
    pub generation: Option<i64>,
    /// How long it holds, in milliseconds.
    pub holds_for: i64,
}

impl NewResetLink {
    /// Returns whether an account may be given it.
    pub(super) fn is_for(&self, owner: &User) -> bool {
        !owner.disabled && self.generation.is_none_or(|generation| generation == owner.generation)
    }
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
    /// Its address, if that is not the account's own.
    pub recipient: Option<String>,
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
    /// How long the token of each purpose lives from now on, in milliseconds.
    pub ttls: MailTtls,
}

/// How long tokens of mails live, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct MailTtls {
    /// To verify an address.
    pub verify: i64,
    /// To reset a password.
    pub reset: i64,
    /// A code to log in with.
    pub code: i64,
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

/// The mails that wait to be sent.
#[async_trait]
pub trait Mails: Send + Sync {
    /// Queues a mail. False when the account had its share, or is gone.
    async fn enqueue_mail(&self, mail: &NewMail) -> Result<bool>;

    /// Takes a mail that is due, so that no other gateway sends it meanwhile. Its token lives from
    /// now on.
    async fn claim_mail(&self, lease: &MailLease) -> Result<Option<ClaimedMail>>;

    /// Records what became of a claimed mail.
    async fn mail_sent(&self, id: Uuid, sent: Sent) -> Result<()>;

    /// Makes a link to set a new password, in place of those that an account has, and returns when it expires; `None` if the
    /// account is disabled, gone, or of another generation.
    async fn add_reset_link(&self, link: &NewResetLink, event: &Event) -> Result<Option<UnixMillis>>;

    /// Whose live token this is. It is not used up.
    async fn mail_owner(&self, purpose: Purpose, token_hash: &[u8; 32]) -> Result<Option<User>>;
}
