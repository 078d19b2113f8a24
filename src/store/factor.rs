//! Second factors of accounts, and challenges.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Event, Grant, NewLink, NewMail, NewSession, Result, Session, SessionKind, Ttls, User};
use crate::{
    clock::{UnixMillis, millis},
    types::{FactorId, Proof, Proofs, SessionId, UserId},
};

/// The longest time to confirm a factor.
pub const CONFIRMED_WITHIN: std::time::Duration = std::time::Duration::from_secs(600);

/// The kind of a factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FactorKind {
    /// Codes of an authenticator app (RFC 6238).
    Totp,
    /// A passkey (Web Authentication).
    Passkey,
}

impl FactorKind {
    /// Returns the name that clients use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Totp => "totp",
            Self::Passkey => "passkey",
        }
    }

    pub(super) const fn number(self) -> i16 {
        match self {
            Self::Totp => 1,
            Self::Passkey => 2,
        }
    }

    pub(super) const fn read(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::Totp),
            2 => Some(Self::Passkey),
            _ => None,
        }
    }
}

/// The columns of [`Factor`].
pub(super) const FACTOR: &str =
    "id, user_id, kind, name, created_at, confirmed_at, last_used_at, credential, public_key, counter";

/// A second factor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Factor {
    /// Its id.
    pub id: FactorId,
    /// Its account.
    pub user: UserId,
    /// Its kind.
    pub kind: FactorKind,
    /// The name that its owner chose.
    pub name: String,
    /// When it was begun.
    pub created_at: UnixMillis,
    /// Whether it is confirmed. An unconfirmed factor is not used.
    pub is_confirmed: bool,
    /// When it was last used.
    pub last_used_at: Option<UnixMillis>,
    /// The id of a passkey's credential.
    pub credential: Option<Vec<u8>>,
    /// The public key of a passkey, as COSE has it (RFC 9052).
    pub public_key: Option<Vec<u8>>,
    /// The time step of the last accepted code, or the signature counter of the passkey.
    pub counter: i64,
}

/// A factor to be confirmed.
#[derive(Debug, Clone)]
pub struct NewFactor {
    /// Its id.
    pub id: FactorId,
    /// Its account.
    pub user: UserId,
    /// Its kind.
    pub kind: FactorKind,
    /// The name that its owner chose.
    pub name: String,
    /// The greatest number of factors of the account, this one included.
    pub most: u32,
}

/// The purpose of a challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengePurpose {
    /// The second step of a login.
    Login,
    /// A login by a passkey alone. The account is not known yet.
    Passkey,
    /// The enrolment of a first factor, which the account must have to log in.
    Enrolment,
    /// A new proof of identity in a live session (RFC 9470).
    StepUp,
}

impl ChallengePurpose {
    pub(super) const fn number(self) -> i16 {
        match self {
            Self::Login => 1,
            Self::Passkey => 2,
            Self::Enrolment => 3,
            Self::StepUp => 4,
        }
    }

    pub(super) const fn read(number: i16) -> Option<Self> {
        match number {
            1 => Some(Self::Login),
            2 => Some(Self::Passkey),
            3 => Some(Self::Enrolment),
            4 => Some(Self::StepUp),
            _ => None,
        }
    }
}

/// The columns of [`AuthChallenge`].
pub(super) const CHALLENGE: &str =
    "token_hash, purpose, user_id, generation, session_id, methods, kind, keep, tries, link, code_mail";

/// A challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthChallenge {
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// Its purpose.
    pub purpose: ChallengePurpose,
    /// Its account and generation; `None` for a login by a passkey alone.
    pub user: Option<(UserId, i64)>,
    /// The session to be stepped up.
    pub session: Option<SessionId>,
    /// The proofs so far.
    pub proofs: Proofs,
    /// The kind of session to be opened.
    pub kind: SessionKind,
    /// Whether a browser keeps its cookie when it is closed.
    pub keep: bool,
    /// The number of responses so far.
    pub tries: u32,
    /// The link to a provider to be created with the session.
    pub link: Option<NewLink>,
    /// The mail with the code.
    pub code_mail: Option<Uuid>,
}

/// The use of a factor, for a challenge or a confirmation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactorUse {
    /// A code of an app, at this time step, which has to be later than the last accepted one.
    Totp(FactorId, i64),
    /// A passkey.
    Passkey {
        /// Its id.
        id: FactorId,
        /// Its signature counter.
        counter: i64,
        /// Whether its device verified the user.
        verified: bool,
    },
    /// A recovery code, by its hash. It is used up.
    Recovery([u8; 32]),
    /// The code of this mail.
    Mail(Uuid),
    /// The password, where the account has no factor.
    Password,
}

impl FactorUse {
    /// Returns its proof.
    pub const fn proof(&self) -> Proof {
        match self {
            Self::Totp(..) | Self::Recovery(_) | Self::Mail(_) => Proof::Code,
            Self::Passkey { verified, .. } => Proof::Passkey { verified: *verified },
            Self::Password => Proof::Password,
        }
    }
}

/// The outcome of a completed challenge.
#[derive(Clone)]
pub enum Outcome {
    /// A session is opened.
    Open(Box<NewSession>),
    /// A session is stepped up.
    StepUp(Box<StepUp>),
}

/// A step-up of a session.
#[derive(Debug, Clone)]
pub struct StepUp {
    /// The session.
    pub session: SessionId,
    /// The new proof.
    pub proof: Proof,
    /// The lifetimes of its new tokens.
    pub ttls: Ttls,
    /// SHA-256 of a new refresh token, or `None` to keep the present one.
    pub refresh: Option<[u8; 32]>,
}

/// The completion of a challenge.
#[derive(Clone)]
pub struct ChallengeCompletion {
    /// The challenge.
    pub token_hash: [u8; 32],
    /// The account.
    pub user: UserId,
    /// The generation.
    pub generation: i64,
    /// The factor used.
    pub by: FactorUse,
    /// The outcome.
    pub outcome: Outcome,
    /// The link to a provider to be created with it.
    pub link: Option<NewLink>,
    /// The events to be recorded.
    pub events: Vec<Event>,
}

/// The confirmation of a factor.
#[derive(Clone)]
pub struct Confirmation {
    /// The factor.
    pub id: FactorId,
    /// Its account.
    pub user: UserId,
    /// The generation of the account.
    pub generation: i64,
    /// Whether it had factors when its owner showed who they are.
    pub has_factors: bool,
    /// The credential and the public key of a passkey.
    pub passkey: Option<(Vec<u8>, Vec<u8>)>,
    /// The factor used.
    pub by: FactorUse,
    /// SHA-256 of recovery codes, for an account that had no factor.
    pub recovery: Vec<[u8; 32]>,
    /// The challenge that this meets, where the account had to get a factor.
    pub meets: Option<[u8; 32]>,
    /// The link to a provider to be created with it.
    pub link: Option<NewLink>,
    /// The outcome.
    pub outcome: Outcome,
    /// The events to be recorded.
    pub events: Vec<Event>,
    /// The mail about it.
    pub mail: Option<NewMail>,
}

/// The account and session of a change of factors, as they were when it was authorized.
#[derive(Debug, Clone, Copy)]
pub struct FactorOwner {
    /// The account.
    pub user: UserId,
    /// Its generation.
    pub generation: i64,
    /// The session.
    pub session: SessionId,
    /// Whether the account had factors.
    pub has_factors: bool,
}

impl FactorOwner {
    /// Returns whether account and session are unchanged.
    pub(super) fn is_unchanged(&self, user: &User, session: Option<&Session>) -> bool {
        let lives =
            session.is_some_and(|session| session.user == user.id && session.generation == user.generation);
        lives && !user.disabled && user.generation == self.generation && user.has_factors == self.has_factors
    }
}

/// The result of a confirmation.
pub struct Confirmed {
    /// The right to issue tokens.
    pub grant: Grant,
    /// Whether it is the account's first factor, which comes with recovery codes.
    pub is_first: bool,
}

/// Returns the time since which unconfirmed factors are still valid.
pub(super) fn confirmed_since(now: UnixMillis) -> UnixMillis {
    now - millis(CONFIRMED_WITHIN)
}

/// What became of a factor that was to be removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactorRemoval {
    /// It is removed.
    Done,
    /// It is the last one, and was to stay.
    Last,
    /// The user has no such factor, or is not as they were.
    Gone,
}

/// Second factors.
#[async_trait]
pub trait Factors: Send + Sync {
    /// Lists the factors of an account, the oldest first. Unconfirmed ones are included until they expire.
    async fn factors(&self, user: UserId) -> Result<Vec<Factor>>;

    /// Finds a confirmed passkey by its credential.
    async fn passkey(&self, credential: &[u8]) -> Result<Option<Factor>>;

    /// Creates an unconfirmed factor. Returns false at the greatest number of factors.
    async fn begin_factor(&self, factor: &NewFactor) -> Result<bool>;

    /// Confirms a factor. Returns `None` if there is no such factor, the account is disabled or of another generation, the challenge is
    /// completed or expired, or another account has the passkey.
    async fn confirm_factor(&self, confirmation: &Confirmation) -> Result<Option<Confirmed>>;

    /// Removes a factor, and with the last one the recovery codes and the proofs by it of sessions. With `keeps_one` the last one stays.
    async fn remove_factor(
        &self,
        owner: &FactorOwner,
        id: FactorId,
        keeps_one: bool,
        event: &Event,
        mail: Option<&NewMail>,
    ) -> Result<FactorRemoval>;

    /// Replaces the recovery codes. Returns false for an account without a factor, or not as it was.
    async fn set_recovery_codes(
        &self,
        owner: &FactorOwner,
        hashes: &[[u8; 32]],
        event: &Event,
    ) -> Result<bool>;

    /// Counts the recovery codes that an account has left.
    async fn recovery_codes(&self, user: UserId) -> Result<u32>;

    /// Adds a challenge that expires after `holds_for` milliseconds.
    async fn add_auth_challenge(&self, challenge: &AuthChallenge, holds_for: i64) -> Result<()>;

    /// Returns a live challenge with fewer than `most` tries.
    async fn auth_challenge(&self, token_hash: &[u8; 32], most: u32) -> Result<Option<AuthChallenge>>;

    /// Counts a try. Returns the challenge before it, or `None` if it has expired or has had `most` tries.
    async fn try_auth_challenge(&self, token_hash: &[u8; 32], most: u32) -> Result<Option<AuthChallenge>>;

    /// Queues the mail with the code of a challenge, once per challenge. Returns false if the account's mails are exhausted.
    async fn mail_code(&self, token_hash: &[u8; 32], mail: &NewMail) -> Result<bool>;

    /// Completes a challenge. Returns `None` if it is completed or expired, the code was used before, or the account is disabled or of
    /// another generation.
    async fn complete_auth_challenge(&self, completion: &ChallengeCompletion) -> Result<Option<Grant>>;
}
