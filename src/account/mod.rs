//! What can be done with an account: the use cases, without HTTP.
//!
//! The order within each: what costs nothing is checked first, attempts are reserved before
//! anything costly, the store decides under its locks, and what revokes is in force in the mirror
//! of this gateway before the caller hears of it.

mod attempts;
mod change;
mod error;
mod import;
mod keys;
mod login;
mod mail;
mod operator;
mod register;
mod session;

use std::{sync::Arc, time::Duration};

pub use attempts::Attempts;
pub use change::ChangeRequest;
pub use error::AccountError;
pub use import::{Candidate, Importer, Outcome, Refusal, Taken};
pub use keys::{Keys, KeysError};
pub use mail::{MailDesk, Postman};
pub use operator::{By, Operator, Update};
pub use register::Registration;

use crate::{
    clock::TimeKeeper,
    config,
    password::{Hasher, Rules},
    revocation::Mirror,
    store::{Grant, LOG_MARGIN, LogEntry, NewSession, Store, Subject, Ttls, User},
    token::{self, AccessToken, Issuer, KeyError, RefreshToken, RefreshTokens},
    types::{Random, Secret, SessionId, UserId},
};

/// The result of a use case.
pub type Result<T> = std::result::Result<T, AccountError>;

/// How long a login waits for the key that signs next, in milliseconds.
const LONGEST_WAIT_FOR_KEY: i64 = 30_000;

/// The tokens of a session, and whose they are.
#[derive(Debug)]
pub struct Tokens {
    /// The account, from the locked read.
    pub user: User,
    /// The access token.
    pub access: AccessToken,
    /// The refresh token.
    pub refresh: Secret,
}

/// The use cases of people with an account, or who want one.
pub struct Accounts {
    /// The settings.
    pub config: config::Auth,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The password workers.
    pub hasher: Arc<Hasher>,
    /// Counts attempts.
    pub attempts: Attempts,
    /// Queues mails, if any can be sent.
    pub mail: Option<MailDesk>,
    /// Makes access tokens.
    pub issuer: Issuer,
    /// Makes refresh tokens.
    pub refresh_tokens: RefreshTokens,
    /// The mirror of this gateway.
    pub mirror: Arc<Mirror>,
    /// Time.
    pub time: Arc<TimeKeeper>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

/// Tells the other gateways that the log has grown. They find out anyway, a little later.
async fn hint(store: &dyn Store) {
    if let Err(error) = store.hint().await {
        tracing::debug!(%error, "the other gateways could not be told");
    }
}

impl Accounts {
    fn rules(&self) -> Rules {
        Rules {
            min_length: self.config.password.min_length,
            reject_common: self.config.password.reject_common,
        }
    }

    fn ttls(&self) -> Ttls {
        Ttls {
            access: self.config.access_token_ttl,
            refresh: self.config.refresh_token_ttl,
            session: self.config.session_max_ttl,
        }
    }

    /// A session to be opened, and its first refresh token.
    fn new_session(&self, id: SessionId) -> (NewSession, RefreshToken) {
        let token = self.refresh_tokens.first(id);
        let nonce = self.refresh_tokens.nonce();
        (NewSession { id, refresh_hash: token.hash, nonce, ttls: self.ttls() }, token)
    }

    async fn issue(&self, grant: Grant, refresh: RefreshToken) -> Result<Tokens> {
        let subject = token::Subject {
            user: grant.user.id,
            session: grant.session,
            generation: grant.user.generation,
            name: &grant.user.name,
            roles: &grant.user.roles,
            external_id: grant.user.external_id.as_deref(),
        };
        let access = match self.issuer.issue(&subject, grant.issued_at, grant.issued_at) {
            // The key that signed was revoked, and the next one signs in a moment.
            Err(KeyError::NotYet(signs_at)) if signs_at - grant.issued_at <= LONGEST_WAIT_FOR_KEY => {
                let wait = u64::try_from(signs_at - grant.issued_at).unwrap_or(0);
                tokio::time::sleep(Duration::from_millis(wait)).await;
                self.issuer.issue(&subject, grant.issued_at, signs_at)?
            }
            issued => issued?,
        };
        Ok(Tokens { user: grant.user, access, refresh: refresh.text })
    }

    /// Brings what was revoked into force here, and tells the other gateways, before the caller hears
    /// of it.
    async fn in_force(&self, entry: &LogEntry) {
        self.mirror.apply(entry);
        hint(&*self.store).await;
    }

    /// Denies on this gateway what may or may not have been revoked in the store.
    fn deny_locally(&self, subject: Subject, generation: i64) -> LogEntry {
        let longest = self.config.access_token_ttl + LOG_MARGIN;
        let expires_at = self.time.now().time + longest.as_millis() as i64;
        let entry = LogEntry { subject, generation, expires_at };
        self.mirror.apply(&entry);
        entry
    }

    fn deny_session_locally(&self, session: SessionId) {
        self.deny_locally(Subject::Session(session), LogEntry::ALL);
    }

    fn deny_user_locally(&self, user: UserId, generation: i64) {
        self.deny_locally(Subject::User(user), generation);
    }
}
