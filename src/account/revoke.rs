//! Brings revocations into force: on this gateway before the caller gets a response, and on the others by a hint.

use std::{sync::Arc, time::Duration};

use super::{AccountError, Result, api_keys::follow_owner};
use crate::{
    clock::{Clock, millis},
    error::Kind,
    revocation::Mirror,
    store::{
        AccountChange, ApiKey, ApiKeyAdded, Change, Event, LOG_MARGIN, LogEntry, NewApiKey, Revoked, Store,
        StoreError,
    },
    token::SignedIn,
    types::{ApiKeyId, SessionId, UserId},
};

/// Revokes in the store and on this gateway.
pub struct Revoker {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The clock that expiries go by.
    pub clock: Arc<dyn Clock>,
    /// The mirror of this gateway, and the lifetime of its access tokens. None for the command line.
    pub gateway: Option<(Arc<Mirror>, Duration)>,
}

/// Tells the other gateways that the log has grown. A hint that is lost costs time only.
pub(super) async fn hint(store: &dyn Store) {
    if let Err(error) = store.hint().await {
        tracing::debug!(%error, "the other gateways could not be told");
    }
}

impl Revoker {
    /// Applies entries that the store has, and tells the other gateways.
    pub(super) async fn in_force(&self, entries: &[LogEntry]) {
        if let Some((mirror, _)) = &self.gateway {
            entries.iter().for_each(|entry| mirror.apply(entry));
        }
        hint(&*self.store).await;
    }

    /// Denies what the store should have known of, on this gateway and in the store: another gateway's entry that has not
    /// arrived here yet, or one that the store has lost. The denial outlives every token that it may concern, and `token`.
    ///
    /// # Errors
    /// The store's. Then the denial holds here until it is settled.
    pub(super) async fn deny(
        &self,
        revoked: Revoked,
        generation: i64,
        token: Option<&SignedIn>,
    ) -> Result<()> {
        let Some((mirror, access_ttl)) = &self.gateway else { return Ok(()) };
        let entry = self.denial(revoked, generation, token, *access_ttl);
        mirror.apply(&entry);
        if let Err(error) = self.store.settle(&entry).await {
            mirror.deny_in_doubt(&entry);
            return Err(error.into());
        }
        hint(&*self.store).await;
        Ok(())
    }

    /// Writes an entry that nothing else in the store goes with.
    ///
    /// # Errors
    /// The store's. If it leaves open whether the store holds it, the denial holds here until that is settled.
    pub(super) async fn settle(&self, entry: LogEntry) -> Result<()> {
        if let Err(error) = self.store.settle(&entry).await {
            if let Some((mirror, _)) = &self.gateway
                && matches!(error, StoreError::OutcomeUnknown(_))
            {
                mirror.deny_in_doubt(&entry);
            }
            return Err(error.into());
        }
        self.in_force(&[entry]).await;
        Ok(())
    }

    /// Denies here what may have been revoked, if `error` leaves that open.
    pub(super) fn deny_in_doubt(
        &self,
        error: &StoreError,
        revoked: Revoked,
        generation: i64,
        token: Option<&SignedIn>,
    ) {
        if let (Some((mirror, access_ttl)), StoreError::OutcomeUnknown(_)) = (&self.gateway, error) {
            mirror.deny_in_doubt(&self.denial(revoked, generation, token, *access_ttl));
        }
    }

    fn denial(
        &self,
        revoked: Revoked,
        generation: i64,
        token: Option<&SignedIn>,
        access_ttl: Duration,
    ) -> LogEntry {
        let issued_now = self.clock.wall() + millis(access_ttl);
        let known = token.map_or(0, |caller| caller.expires_at.saturating_mul(1_000));
        LogEntry { revoked, generation, expires_at: issued_now.max(known) + millis(LOG_MARGIN) }
    }

    /// Changes an account. `generation` is the latest known one.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn change(
        &self,
        user: UserId,
        generation: i64,
        change: &AccountChange,
    ) -> Result<Change> {
        let done = match self.store.change_user(user, change).await {
            Ok(done) => done,
            Err(error) => {
                self.deny_in_doubt(&error, Revoked::User(user), generation + 1, None);
                self.keys_follow(user, change, generation + 1).await;
                return Err(error.into());
            }
        };
        if let Change::Done(Some(entry), _) = &done {
            self.in_force(std::slice::from_ref(entry)).await;
            if entry.generation <= generation {
                // The store has lost the changes that led to this generation.
                self.deny(Revoked::User(user), generation + 1, None).await?;
            }
        }
        if let Change::Done(entry, _) = &done {
            let generation = entry.as_ref().map_or(generation, |entry| entry.generation);
            self.keys_follow(user, change, generation).await;
        }
        Ok(done)
    }

    /// Has the API keys of an account follow a change of it, on this gateway.
    pub(super) async fn keys_follow(&self, owner: UserId, change: &AccountChange, generation: i64) {
        if let (Some((mirror, _)), Some(generation)) =
            (&self.gateway, change.key_owner_generation(generation))
        {
            follow_owner(mirror, &*self.store, owner, generation).await;
        }
    }

    /// Stores an API key, which is known on this gateway then. Returns `None` if the account is gone, disabled, or of another generation.
    ///
    /// # Errors
    /// 403 if the account has too many; the store's.
    pub(super) async fn add_api_key(
        &self,
        owner: UserId,
        generation: i64,
        new: &NewApiKey,
        event: &Event,
    ) -> Result<Option<ApiKey>> {
        match self.store.add_api_key(owner, generation, new, event).await? {
            ApiKeyAdded::Done(key, entry) => {
                self.in_force(&[entry]).await;
                if let Some((mirror, _)) = &self.gateway
                    && let Err(error) = mirror.refresh_api_keys(&*self.store, true).await
                {
                    // Done with the next look at the log.
                    tracing::debug!(%error, "a new API key could not be read");
                }
                Ok(Some(key))
            }
            ApiKeyAdded::TooMany => {
                Err(AccountError::Explained(Kind::InsufficientRole, "an account has at most 100 keys"))
            }
            ApiKeyAdded::Gone => Ok(None),
        }
    }

    /// Ends an API key. Returns false if the account has no such key.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn end_api_key(&self, owner: UserId, id: ApiKeyId, event: &Event) -> Result<bool> {
        match self.store.end_api_key(owner, id, event).await {
            Ok(Some(entry)) => {
                self.in_force(&[entry]).await;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => {
                if let (Some((mirror, _)), StoreError::OutcomeUnknown(_)) = (&self.gateway, &error) {
                    mirror.deny_in_doubt(&LogEntry::of_ended_api_key(id, self.clock.wall()));
                }
                Err(error.into())
            }
        }
    }

    /// Ends a session. Returns false if the user has no such session.
    ///
    /// # Errors
    /// The store's.
    pub(super) async fn end_session(
        &self,
        user: UserId,
        session: SessionId,
        event: &Event,
        token: Option<&SignedIn>,
    ) -> Result<bool> {
        match self.store.end_session(user, session, Some(event)).await {
            Ok(Some(entry)) => {
                self.in_force(&[entry]).await;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => {
                self.deny_in_doubt(&error, Revoked::Session(session), LogEntry::ALL, token);
                Err(error.into())
            }
        }
    }
}
