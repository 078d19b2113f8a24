//! The use cases of accounts, without HTTP.
//!
//! The order within each: what costs nothing is checked first, attempts are reserved before
//! anything costly, the store decides under its locks, and what revokes is in force in the mirror
//! of this gateway before the caller hears of it.

mod api_keys;
mod attempts;
mod breached_service;
mod browser;
mod challenge;
mod change;
mod claims;
mod clients;
mod error;
mod external;
mod factors;
mod import;
mod invite;
mod keys;
mod login;
mod mail;
mod operator;
mod proof;
mod provider;
mod register;
mod reset_link;
mod respond;
mod revoke;
mod session;
mod verify_factor;
mod webhooks;

use std::{net::IpAddr, sync::Arc, time::Duration};

pub use api_keys::{ApiKeyRequest, ListedKeys, MOST_KEYS, NewKey, list_keys};
pub use attempts::{AttemptCounts, Attempts};
pub use breached_service::BreachedService;
pub use browser::{BrowserSession, Changed};
pub use challenge::{Method, PendingChallenge};
pub use change::ChangeRequest;
pub use claims::SessionReader;
pub use clients::{ClientError, ClientMade, ClientProof, ClientToken};
pub use error::AccountError;
pub use external::{Ended, ExternalTarget};
pub use factors::{Enroller, FactorConfirmed, FactorMeans, FactorProof, FactorSetup, PendingFactor};
pub use import::{Candidate, Importer, Outcome, Rejection, Taken};
pub use invite::{InvitationRequest, Invited};
pub use keys::{Keys, KeysError};
pub use mail::{MailQueue, MailWorker};
pub use operator::{Actor, NewAccount, Operator, Update};
pub use register::Registration;
pub use reset_link::{RESET_LINK_HOLDS_FOR, ResetLink};
pub use respond::{ChallengeResponse, Issued, Responder};
pub use revoke::Revoker;
pub use session::{ListedSessions, list_sessions};
pub use webhooks::WebhookWorker;

use crate::{
    clock::{Clock, TimeKeeper, UnixMillis},
    config,
    error::Kind,
    password::{Hasher, Origin, PasswordError, Rules},
    revocation::Mirror,
    store::{Event, Grant, NewSession, Place, SessionKind, Store, Ttls, User},
    token::{
        self, AccessToken, DeviceTokens, Issuer, KeyError, RefreshToken, RefreshTokens, SessionCookies,
        SigningKey,
    },
    types::{ClaimValues, KeyId, Proofs, Random, Secret, SessionId, Subject, UserId, Username},
};

/// The result of a use case.
pub type Result<T> = std::result::Result<T, AccountError>;

/// Characters that are kept of a `User-Agent`.
const MAX_USER_AGENT_CHARS: usize = 256;

/// How long a login waits for the key that signs next, in milliseconds.
const LONGEST_WAIT_FOR_KEY: i64 = 30_000;

/// How long for keys that are being read anew or made, and how often it looks.
const LONGEST_READ_OF_KEYS: i64 = 3_000;
const LOOK_FOR_KEY: i64 = 50;

/// The tokens of a session, and whose they are.
#[derive(Debug)]
pub struct Tokens {
    /// The account, from the locked read.
    pub user: User,
    /// The access token.
    pub access: AccessToken,
    /// The refresh token.
    pub refresh: Secret,
    /// The token by which the device is known again, after a login.
    pub device: Option<String>,
    /// The token by which it is not asked for a factor for a while.
    pub remembered: Option<String>,
}

/// What holds a session.
#[derive(Debug, Clone, Copy)]
enum Holder {
    /// Access and refresh tokens.
    Tokens,
    /// A browser's cookie.
    Browser {
        /// Whether the person asked to be remembered.
        keep: bool,
    },
}

/// Where a call of a person without a token comes from.
#[derive(Debug, Clone, Copy)]
pub struct Client<'a> {
    /// The address.
    pub address: IpAddr,
    /// Its `User-Agent`.
    pub user_agent: Option<&'a str>,
    /// The token of a device that it says it is.
    pub device: Option<&'a str>,
    /// The token of a device where a factor was shown.
    pub remembered: Option<&'a str>,
}

impl Client<'_> {
    /// As the list of a person's sessions has it.
    fn place(&self) -> Place {
        let user_agent = self.user_agent.map(|name| {
            name.chars().filter(|c| !c.is_control()).take(MAX_USER_AGENT_CHARS).collect::<String>()
        });
        Place {
            address: Some(self.address.to_string()),
            user_agent: user_agent.filter(|name| !name.is_empty()),
        }
    }
}

/// The use cases of people with an account, or who want one.
pub struct Accounts {
    /// The settings.
    pub config: config::Auth,
    /// The store.
    pub store: Arc<dyn Store>,
    /// The password workers.
    pub hasher: Arc<Hasher>,
    /// The service that is asked about passwords that people choose.
    pub breached_service: Option<BreachedService>,
    /// Counts attempts.
    pub attempts: Attempts,
    /// Queues mails, if any can be sent.
    pub mail: Option<MailQueue>,
    /// Makes access tokens.
    pub issuer: Issuer,
    /// Makes tokens by which devices are known again.
    pub device_tokens: DeviceTokens,
    /// What second factors are made with.
    pub factors: FactorMeans,
    /// Makes refresh tokens.
    pub refresh_tokens: RefreshTokens,
    /// Makes the cookies of people with browsers, if there are pages for them.
    pub cookies: Option<Arc<SessionCookies>>,
    /// The mirror of this gateway.
    pub mirror: Arc<Mirror>,
    /// Revokes.
    pub revoker: Revoker,
    /// Time.
    pub time: Arc<TimeKeeper>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

impl Accounts {
    fn rules(&self) -> Rules {
        Rules { min_length: self.config.password.min_length }
    }

    /// Hashes a new password on behalf of `account`, unless it is a common or a stolen one.
    async fn hash_new(&self, password: Secret, account: &Username, address: IpAddr) -> Result<String> {
        if let Some(service) = &self.breached_service
            && service.knows(&password, address).await
        {
            return Err(PasswordError::Breached.into());
        }
        let origin = Origin::new(Some(&account.skeleton()), address);
        Ok(self.hasher.hash_new(password, origin).await?)
    }

    fn ttls(&self) -> Ttls {
        Ttls {
            access: self.config.access_token_ttl,
            refresh: self.config.refresh_token_ttl,
            session: self.config.session_max_ttl,
        }
    }

    /// Creates a session to be opened after a password was verified, and its first refresh token, which a browser does not get.
    fn new_session(&self, id: SessionId, place: Place, holder: Holder) -> (NewSession, RefreshToken) {
        let token = self.refresh_tokens.first(id);
        let nonce = self.refresh_tokens.nonce();
        let most = self.config.max_sessions;
        let (kind, ttls) = match holder {
            Holder::Tokens => (SessionKind::Token, self.ttls()),
            Holder::Browser { keep } => (SessionKind::Browser, self.browser_ttls(keep)),
        };
        let session = NewSession {
            id,
            kind,
            proofs: Proofs::PASSWORD,
            is_remembered: false,
            place,
            refresh_hash: token.hash,
            nonce,
            ttls,
            most,
        };
        (session, token)
    }

    /// Waits for a key that signs, before anything is used up for tokens that could not be made: after a
    /// revocation there may be none for a while.
    async fn await_key(&self) -> Result<()> {
        self.key(self.time.database_time()).await.map(drop)
    }

    /// The key that signs from `now` on, by the store's clock.
    async fn key(&self, now: UnixMillis) -> Result<Arc<SigningKey>> {
        let begun = self.time.boot();
        loop {
            let waited = self.time.boot() - begun;
            let wait = match self.issuer.key(now + waited) {
                Ok(key) if !self.mirror.is_key_revoked(KeyId::of(&key.kid)) => return Ok(key),
                // It was revoked a moment ago, and the keys are being read; or its successor is being made.
                Ok(_) | Err(KeyError::NoneSigns) if waited < LONGEST_READ_OF_KEYS => LOOK_FOR_KEY,
                Ok(key) => return Err(KeyError::Revoked(key.kid.clone()).into()),
                Err(KeyError::NotYet(signs_at)) if signs_at - now <= LONGEST_WAIT_FOR_KEY => {
                    (signs_at - now - waited).max(1)
                }
                Err(error) => return Err(error.into()),
            };
            tokio::time::sleep(Duration::from_millis(wait.unsigned_abs())).await;
        }
    }

    async fn issue(&self, grant: Grant, refresh: RefreshToken) -> Result<Tokens> {
        let key = self.key_for(&grant).await?;
        let said = self.config.claims.of(&grant.user.profile());
        let access = self.issuer.issue(&claims(&grant, &said), &key)?;
        Ok(Tokens { user: grant.user, access, refresh: refresh.text, device: None, remembered: None })
    }

    /// Returns the key to sign with for a session that still lives. What ended for it is in force before.
    async fn key_for(&self, grant: &Grant) -> Result<Arc<SigningKey>> {
        if !grant.ended.is_empty() {
            self.revoker.in_force(&grant.ended).await;
        }
        // A store that has lost a part of its past may know the session as a live one.
        if self.mirror.is_session_revoked(grant.session) {
            return Err(AccountError::Refused(Kind::Unauthenticated));
        }
        if self.mirror.is_revoked(Some(grant.session), Subject::User(grant.user.id), grant.user.generation) {
            // It was ended meanwhile; or the store has lost what had ended it, and is about to be told.
            return Err(AccountError::Refused(Kind::Unavailable));
        }
        self.key(grant.issued_at).await
    }

    /// Notes what failed. It failed whether or not that can be noted.
    async fn record(&self, subject: Option<UserId>, event: Event) {
        if let Err(error) = self.store.record(subject, &event).await {
            tracing::warn!(%error, action = event.action, "the audit trail lacks a line");
        }
    }
}

/// Returns what a token says that a grant allows.
fn claims<'a>(grant: &'a Grant, said: &'a ClaimValues) -> token::AccessClaims<'a> {
    token::AccessClaims {
        user: grant.user.id,
        session: grant.session,
        generation: grant.user.generation,
        name: grant.user.name.as_str(),
        roles: &grant.user.roles,
        external_id: grant.user.external_id.as_deref(),
        issued_at: grant.issued_at,
        session_ends_at: grant.session_ends_at,
        authenticated_at: grant.authenticated_at,
        proofs: grant.proofs,
        claims: said,
    }
}
