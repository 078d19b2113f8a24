//! Sessions: refreshing, ending, listing.

use std::{collections::BTreeMap, net::IpAddr};

use super::{AccountError, Accounts, Result, Tokens};
use crate::{
    config::SetBy,
    error::Kind,
    store::{
        AccountChange, ChallengePurpose, Change, Event, LogEntry, Revoked, Rotation, RotationRequest,
        Session, SessionPage, Store, StoreError, User,
    },
    token::{Presented, SignedIn},
    types::{SessionId, UserId},
};

fn unauthenticated() -> AccountError {
    AccountError::Refused(Kind::Unauthenticated)
}

fn logout(user: UserId, session: SessionId, address: IpAddr) -> Event {
    Event::own(user, address, "user.logout", format!("session: {session}"))
}

impl Accounts {
    /// Exchanges a refresh token for its successor and a new access token.
    ///
    /// # Errors
    /// [`AccountError`]; a token that was used before ends its session.
    pub async fn refresh(&self, token: &str, address: IpAddr) -> Result<Tokens> {
        let Some(presented) = self.refresh_tokens.read(token) else {
            let _counted = self.attempts.bad_refresh(address).await?;
            return Err(unauthenticated());
        };
        let used = self.attempts.refresh(presented.session).await?;
        let result = self.exchange(presented, address).await;
        if matches!(&result, Err(error) if error.is_ours()) {
            self.attempts.unused(used).await;
        }
        result
    }

    async fn exchange(&self, presented: Presented, address: IpAddr) -> Result<Tokens> {
        let nonce = self.refresh_tokens.nonce();
        let successor = self.refresh_tokens.successor(&presented, &nonce);
        let request = RotationRequest {
            session: presented.session,
            presented: presented.hash,
            successor: successor.hash,
            nonce,
            grace: self.config.refresh_grace,
            ttls: self.ttls(),
            replayed: Event::of_stranger(
                address,
                "session.replay",
                format!("session: {}", presented.session),
            ),
        };
        self.await_key().await?;
        match self.store.rotate_session(&request).await? {
            Rotation::Rotated(grant) | Rotation::Replayed(grant, _)
                if self.required_challenge(&grant.user) == Some(ChallengePurpose::Enrolment) =>
            {
                // A login leads to the factor that the account must have by now.
                Err(unauthenticated())
            }
            Rotation::Rotated(grant) => self.issue(grant, successor).await,
            Rotation::Replayed(grant, nonce) => {
                let same = self.refresh_tokens.successor(&presented, &nonce);
                self.issue(grant, same).await
            }
            Rotation::Ended(entry) => {
                self.revoker.in_force(&[entry]).await;
                tracing::warn!(session.id = %presented.session, "a used refresh token came again; its session was ended");
                Err(unauthenticated())
            }
            Rotation::InDoubt(entry) => {
                self.mirror.deny_in_doubt(&entry);
                Err(StoreError::OutcomeUnknown("the end of a session whose token came again".to_owned())
                    .into())
            }
            Rotation::Refused => Err(unauthenticated()),
        }
    }

    /// Ends the caller's session. Durable, and in force here, when it returns.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn logout(&self, caller: &SignedIn, address: IpAddr) -> Result<()> {
        let event = logout(caller.user, caller.session, address);
        self.end(caller.user, caller.session, Some(caller), &event).await.map(drop)
    }

    /// Ends the session of a refresh token, for a client whose access token has expired.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn logout_by_refresh_token(&self, token: &str, address: IpAddr) -> Result<()> {
        let presented = self.refresh_tokens.read(token).ok_or_else(unauthenticated)?;
        let session = self.store.session(presented.session).await?.ok_or_else(unauthenticated)?;
        let event = logout(session.user, session.id, address);
        self.end(session.user, session.id, None, &event).await.map(drop)
    }

    /// Ends one of the caller's sessions.
    ///
    /// # Errors
    /// `Not found` for one that is not the caller's.
    pub async fn end_session(&self, caller: &SignedIn, session: &str, address: IpAddr) -> Result<()> {
        let not_found = || AccountError::Refused(Kind::NotFound);
        let session = SessionId::parse(session).ok_or_else(not_found)?;
        // Only a session that is the caller's may be denied here when the outcome is unknown.
        let theirs = self.store.session(session).await?.is_some_and(|found| found.user == caller.user);
        if !theirs {
            return Err(not_found());
        }
        let event = Event::own(caller.user, address, "user.end-session", format!("session: {session}"));
        if self.end(caller.user, session, Some(caller), &event).await? { Ok(()) } else { Err(not_found()) }
    }

    /// Whether there was a session to end. `by` is a token of the user's.
    async fn end(
        &self,
        user: UserId,
        session: SessionId,
        by: Option<&SignedIn>,
        event: &Event,
    ) -> Result<bool> {
        let ended = self.revoker.end_session(user, session, event, by).await?;
        if !ended {
            self.revoker.deny(Revoked::Session(session), LogEntry::ALL, by).await?;
        }
        Ok(ended)
    }

    /// Ends every session of the caller.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn logout_all(&self, caller: &SignedIn, address: IpAddr) -> Result<()> {
        let (user, generation) = (caller.user, caller.generation);
        let event = Some(Event::own(user, address, "user.logout-all", String::new()));
        let change = AccountChange { event, ..AccountChange::default() };
        if matches!(self.revoker.change(user, generation, &change).await?, Change::Gone) {
            self.revoker.deny(Revoked::User(user), generation + 1, Some(caller)).await?;
        }
        Ok(())
    }

    /// The caller's account as it is. Where the store is asked anyway, its generation counts, not
    /// only the mirror's.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn me(&self, caller: &SignedIn) -> Result<User> {
        let user = self.store.user(caller.user).await?;
        let live = |user: &User| !user.disabled && user.generation == caller.generation;
        user.filter(live).ok_or_else(unauthenticated)
    }

    /// Returns the attributes of an account that the config declares.
    pub fn declared_attributes<'a>(&self, user: &'a User) -> BTreeMap<&'a str, &'a str> {
        user.attributes.iter().filter(|(name, _)| self.config.attributes.contains_key(*name)).collect()
    }

    /// Returns the attributes that the owner of an account sets, and their values.
    pub fn own_attributes<'a>(&'a self, user: &'a User) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let own = self.config.attributes.iter().filter(|(_, rule)| rule.by == SetBy::Person);
        own.map(|(name, _)| (name.as_str(), user.attributes.get(name)))
    }

    /// A page of the caller's live sessions.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn sessions(
        &self,
        caller: &SignedIn,
        limit: u32,
        after: Option<&str>,
    ) -> Result<ListedSessions> {
        list_sessions(&*self.store, caller.user, limit, after).await
    }
}

/// A page of a list of sessions.
pub struct ListedSessions {
    /// The sessions, newest first.
    pub sessions: Vec<Session>,
    /// Where the next page begins; none at the end.
    pub next: Option<String>,
}

/// Lists up to `limit` live sessions of a user, behind those of the page that said `after`.
///
/// # Errors
/// `Missing parameters` for an `after` that no page has said.
pub async fn list_sessions(
    store: &dyn Store,
    user: UserId,
    limit: u32,
    after: Option<&str>,
) -> Result<ListedSessions> {
    let illegal = || AccountError::Refused(Kind::MissingParameters);
    let after = after.map(|after| SessionPage::parse(after).ok_or_else(illegal)).transpose()?;
    let mut sessions = store.sessions(user, SessionPage { limit: limit + 1, after }).await?;
    let more = sessions.len() > limit as usize;
    sessions.truncate(limit as usize);
    let next = sessions.last().filter(|_| more).map(SessionPage::cursor);
    Ok(ListedSessions { sessions, next })
}
