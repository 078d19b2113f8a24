//! Second factors of accounts, and the challenges that ask for them.

use async_trait::async_trait;
use uuid::Uuid;

use super::{Event, Grant, NewLink, NewMail, NewSession, Result, Session, SessionKind, Ttls, User};
use crate::{
    clock::{UnixMillis, millis},
    types::{FactorId, Proof, Proofs, SessionId, UserId},
};

/// How long a factor that was begun waits for its confirmation.
pub const CONFIRMED_WITHIN: std::time::Duration = std::time::Duration::from_secs(600);

/// What a factor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FactorKind {
    /// Codes of an authenticator app (RFC 6238).
    Totp,
    /// A passkey (Web Authentication).
    Passkey,
}

impl FactorKind {
    /// Its name, as clients know it.
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
    /// Whose it is.
    pub user: UserId,
    /// What it is.
    pub kind: FactorKind,
    /// What the person calls it.
    pub name: String,
    /// When it was begun.
    pub created_at: UnixMillis,
    /// Whether the person has shown to have it. Before, it counts for nothing.
    pub is_confirmed: bool,
    /// When it was last used.
    pub last_used_at: Option<UnixMillis>,
    /// The id of a passkey's credential.
    pub credential: Option<Vec<u8>>,
    /// The public key of a passkey, as COSE has it (RFC 9052).
    pub public_key: Option<Vec<u8>>,
    /// The step of the last code that was taken, or what the passkey counted at last.
    pub counter: i64,
}

/// A factor that is begun.
#[derive(Debug, Clone)]
pub struct NewFactor {
    /// Its id.
    pub id: FactorId,
    /// Whose it is.
    pub user: UserId,
    /// What it is.
    pub kind: FactorKind,
    /// What the person calls it.
    pub name: String,
    /// The greatest number of factors of the account, this one included.
    pub most: u32,
}

/// What a challenge is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChallengePurpose {
    /// The second step of a login.
    Login,
    /// A passkey in place of a login. Whose it will be is not known yet.
    Passkey,
    /// An account that must have a factor, and has none, gets one.
    Enrolment,
    /// Who is signed in shows anew who they are.
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

/// A question for a second factor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthChallenge {
    /// SHA-256 of its token.
    pub token_hash: [u8; 32],
    /// What it is for.
    pub purpose: ChallengePurpose,
    /// Whose factor, in which generation of the account; none for a passkey in place of a login.
    pub user: Option<(UserId, i64)>,
    /// The session whose holder shows anew who they are.
    pub session: Option<SessionId>,
    /// What was shown before.
    pub proofs: Proofs,
    /// What will hold the session.
    pub kind: SessionKind,
    /// Whether a browser keeps its cookie when it is closed.
    pub keep: bool,
    /// How often it was tried to meet it.
    pub tries: u32,
    /// A link to a provider that is made with the session.
    pub link: Option<NewLink>,
    /// The mail by which a code was sent.
    pub code_mail: Option<Uuid>,
}

/// What was shown to meet a challenge, or to confirm a factor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FactorUse {
    /// A code of an app, at this step. A step that was taken before, or an earlier one, is not taken.
    Totp(FactorId, i64),
    /// A passkey that has counted so far.
    Passkey {
        /// Which.
        id: FactorId,
        /// What it counted.
        counter: i64,
        /// Whether its device knows whose hand it is in.
        verified: bool,
    },
    /// A recovery code, by its hash: it is used up.
    Recovery([u8; 32]),
    /// The code of this mail.
    Mail(Uuid),
    /// The password, where the account has no factor.
    Password,
}

impl FactorUse {
    /// What it proves.
    pub const fn proof(&self) -> Proof {
        match self {
            Self::Totp(..) | Self::Recovery(_) | Self::Mail(_) => Proof::Code,
            Self::Passkey { verified, .. } => Proof::Passkey { verified: *verified },
            Self::Password => Proof::Password,
        }
    }
}

/// What comes of a factor that was shown.
#[derive(Clone)]
pub enum Outcome {
    /// A session is opened.
    Open(Box<NewSession>),
    /// A session goes on, whose holder has shown anew who they are.
    Raise(Box<Raise>),
}

/// A session whose holder shows anew who they are.
#[derive(Debug, Clone)]
pub struct Raise {
    /// The session.
    pub session: SessionId,
    /// How.
    pub proof: Proof,
    /// The lifetimes of its new tokens.
    pub ttls: Ttls,
    /// SHA-256 of a new refresh token; none where it keeps its own.
    pub refresh: Option<[u8; 32]>,
}

/// A challenge that is met.
#[derive(Clone)]
pub struct Meeting {
    /// The challenge.
    pub token_hash: [u8; 32],
    /// Whose factor, in which generation of the account.
    pub user: UserId,
    /// The generation.
    pub generation: i64,
    /// What was shown.
    pub by: FactorUse,
    /// What comes of it.
    pub outcome: Outcome,
    /// The link to a provider that is made with it.
    pub link: Option<NewLink>,
    /// The event to be recorded.
    pub event: Event,
}

/// A factor that its owner has shown to have.
#[derive(Clone)]
pub struct Confirmation {
    /// The factor.
    pub id: FactorId,
    /// Whose it is.
    pub user: UserId,
    /// The generation of the account.
    pub generation: i64,
    /// Whether it had factors when its owner showed who they are.
    pub has_factors: bool,
    /// The credential and the public key of a passkey.
    pub passkey: Option<(Vec<u8>, Vec<u8>)>,
    /// What was shown.
    pub by: FactorUse,
    /// SHA-256 of recovery codes, for an account that had no factor.
    pub recovery: Vec<[u8; 32]>,
    /// The challenge that this meets, where the account had to get a factor.
    pub meets: Option<[u8; 32]>,
    /// The link to a provider that is made with it.
    pub link: Option<NewLink>,
    /// What comes of it.
    pub outcome: Outcome,
    /// The event to be recorded.
    pub event: Event,
    /// The mail that tells of it.
    pub mail: Option<NewMail>,
}

/// Whoever changes the factors of their account, as they were when they showed who they are.
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
    /// Whether the account is as it was.
    pub(super) fn is_still(&self, user: &User, session: Option<&Session>) -> bool {
        let lives =
            session.is_some_and(|session| session.user == user.id && session.generation == user.generation);
        lives && !user.disabled && user.generation == self.generation && user.has_factors == self.has_factors
    }
}

/// What came of a confirmation.
pub struct Confirmed {
    /// The right to issue tokens.
    pub grant: Grant,
    /// Whether it is the account's first factor: the recovery codes are its own.
    pub is_first: bool,
}

/// How long the confirmation of a factor may take, in milliseconds.
pub(super) fn confirmed_since(now: UnixMillis) -> UnixMillis {
    now - millis(CONFIRMED_WITHIN)
}

/// Second factors.
#[async_trait]
pub trait Factors: Send + Sync {
    /// Lists the factors of an account, the oldest first. One that waits for its confirmation is among them as long as it may.
    async fn factors(&self, user: UserId) -> Result<Vec<Factor>>;

    /// Finds a confirmed passkey by its credential.
    async fn passkey(&self, credential: &[u8]) -> Result<Option<Factor>>;

    /// Begins a factor. Returns false where the account has as many as it may.
    async fn begin_factor(&self, factor: &NewFactor) -> Result<bool>;

    /// Confirms a factor that was begun. Returns none if there is none such, the account is of another generation or disabled, the challenge
    /// was met before, or another account has the passkey.
    async fn confirm_factor(&self, confirmation: &Confirmation) -> Result<Option<Confirmed>>;

    /// Removes a factor, and with the last one the recovery codes and the proofs by it of sessions. Returns false if the user has no such
    /// factor, or is not as they were.
    async fn remove_factor(
        &self,
        owner: &FactorOwner,
        id: FactorId,
        event: &Event,
        mail: Option<&NewMail>,
    ) -> Result<bool>;

    /// Puts recovery codes in the place of those that there were. Returns false for an account without a factor, or not as it was.
    async fn set_recovery_codes(
        &self,
        owner: &FactorOwner,
        hashes: &[[u8; 32]],
        event: &Event,
    ) -> Result<bool>;

    /// Counts the recovery codes that an account has left.
    async fn recovery_codes(&self, user: UserId) -> Result<u32>;

    /// Adds a challenge that ends after so many milliseconds.
    async fn add_auth_challenge(&self, challenge: &AuthChallenge, holds_for: i64) -> Result<()>;

    /// Finds a challenge that has not ended, and was tried less often than `most`.
    async fn auth_challenge(&self, token_hash: &[u8; 32], most: u32) -> Result<Option<AuthChallenge>>;

    /// Counts a try, and returns the challenge as it was; none if it has ended, or was tried as often as it may.
    async fn try_auth_challenge(&self, token_hash: &[u8; 32], most: u32) -> Result<Option<AuthChallenge>>;

    /// Notes that a code is sent by mail for a challenge, and queues the mail. Returns false if the account has had its share; one mail
    /// is enough for a challenge.
    async fn mail_code(&self, token_hash: &[u8; 32], mail: &NewMail) -> Result<bool>;

    /// Meets a challenge. Returns none if it was met before, what was shown was used before, or the account is of another generation or
    /// disabled.
    async fn meet_auth_challenge(&self, meeting: &Meeting) -> Result<Option<Grant>>;
}
