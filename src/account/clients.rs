//! Client programs: made by operators, and given tokens for what they show.

use std::{net::IpAddr, time::Duration};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use thiserror::Error;

use super::{AccountError, Accounts, Actor, Operator, Result, Revoker};
use crate::{
    clock::{Now, millis},
    error::Kind,
    store::{Client, ClientChange, Event, LOG_MARGIN, LogEntry, NewClient, Revoked, StoreError},
    token::{AccessToken, AssertionError, ClientAssertion, ClientClaims, ClientKeys, OpaqueToken},
    types::{ClientId, ExternalId, Roles, Secret, Subject, hash::sha256},
};

/// Characters of a name.
const MOST_NAME_CHARS: usize = 64;

/// The longest key set, in bytes.
const MOST_JWKS: usize = 64 << 10;

/// What is hashed where there is no such client, so that it takes as long.
const NOBODY: [u8; 32] = [0; 32];

/// How a client shows who it is.
#[derive(Debug, Clone, Copy)]
pub enum ClientProof<'a> {
    /// By its id and its secret (`client_secret_basic`).
    Secret(&'a str, &'a Secret),
    /// By an assertion that its key has signed (`private_key_jwt`).
    Assertion(&'a str),
}

/// Why a client does not get what it asks for.
#[derive(Debug, Error)]
pub enum ClientError {
    /// There is no such client, or it has not shown to be that.
    #[error("client: unknown, or the secret is wrong")]
    Unknown,
    /// The assertion does not hold.
    #[error(transparent)]
    Assertion(#[from] AssertionError),
    /// The assertion was used before.
    #[error("assertion: used before")]
    Replayed,
    /// It asks for roles that it does not have.
    #[error("client: a scope that it does not have")]
    Scope,
    /// Too many tries from its address.
    #[error("throttled for {0:?}")]
    Throttled(Duration),
    /// Anything else.
    #[error(transparent)]
    Account(#[from] AccountError),
}

impl From<StoreError> for ClientError {
    fn from(error: StoreError) -> Self {
        Self::Account(error.into())
    }
}

/// A client that was made.
#[derive(Debug)]
pub struct ClientMade {
    /// Its id.
    pub id: ClientId,
    /// Its secret, which is shown once; none if it has keys.
    pub secret: Option<Secret>,
}

/// A token for a client.
#[derive(Debug)]
pub struct ClientToken {
    /// The token.
    pub access: AccessToken,
    /// Its roles.
    pub roles: Roles,
}

impl Accounts {
    /// Returns the client that has shown who it is, from `address`. An assertion must be for one of these audiences.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn authenticate_client(
        &self,
        proof: ClientProof<'_>,
        audiences: &[&str],
        address: IpAddr,
    ) -> std::result::Result<Client, ClientError> {
        match self.check_client(proof, audiences, self.time.now()).await {
            Err(error @ (ClientError::Unknown | ClientError::Assertion(_) | ClientError::Replayed)) => {
                tracing::debug!(%error, "a client was refused");
                match self.attempts.bad_key(address).await {
                    Err(AccountError::Throttled(after)) => Err(ClientError::Throttled(after)),
                    Ok(()) | Err(_) => Err(error),
                }
            }
            checked => checked,
        }
    }

    async fn check_client(
        &self,
        proof: ClientProof<'_>,
        audiences: &[&str],
        now: Now,
    ) -> std::result::Result<Client, ClientError> {
        match proof {
            ClientProof::Secret(id, secret) => {
                let id = ClientId::parse(id).ok_or(ClientError::Unknown)?;
                let client = self.store.client(id).await?;
                let known = client.as_ref().and_then(|client| client.secret_hash);
                let hash = sha256(secret.expose().as_bytes());
                let is_it = verify_slices_are_equal(&known.unwrap_or(NOBODY), &hash).is_ok();
                client.filter(|_| known.is_some() && is_it).ok_or(ClientError::Unknown)
            }
            ClientProof::Assertion(text) => {
                let id = ClientAssertion::client_of(text).ok_or(ClientError::Unknown)?;
                let client = self.store.client(id).await?.ok_or(ClientError::Unknown)?;
                let keys = client.jwks.as_deref().and_then(|jwks| ClientKeys::parse(jwks).ok());
                let keys = keys.ok_or(ClientError::Unknown)?;
                let assertion = ClientAssertion::verify(text, id, &keys, audiences, now)?;
                let used = sha256(format!("client assertion\0{id}\0{}", assertion.id).as_bytes());
                let keep_for = (assertion.expires_at - now.seconds()).max(0) * 1_000 + millis(LOG_MARGIN);
                match self.store.spend_state(&used, keep_for).await? {
                    true => Ok(client),
                    false => Err(ClientError::Replayed),
                }
            }
        }
    }

    /// Issues a token to a client, with all of its roles or with those of `scope`, a list with spaces.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn issue_to_client(
        &self,
        client: &Client,
        scope: Option<&str>,
    ) -> std::result::Result<ClientToken, ClientError> {
        let wanted = scope.map(str::trim).filter(|scope| !scope.is_empty());
        let roles = match wanted {
            None => client.roles.clone(),
            Some(scope) => {
                let named: Vec<String> = scope.split_ascii_whitespace().map(str::to_owned).collect();
                let named = Roles::parse_all(&named).map_err(|_| ClientError::Scope)?;
                let has = |role: &crate::types::Role| client.roles.contains(role.as_str());
                if !named.iter().all(has) {
                    return Err(ClientError::Scope);
                }
                named
            }
        };
        self.await_key().await?;
        let ttl = millis(self.issuer.ttl());
        let allowed = self.store.allow_client_token(client.id, client.generation, ttl).await?;
        let issued_at = allowed.ok_or(ClientError::Unknown)?;
        if self.mirror.is_revoked(None, Subject::Client(client.id), client.generation) {
            // The store has lost what had ended it, and is about to be told.
            return Err(AccountError::Refused(Kind::Unavailable).into());
        }
        let claims = ClientClaims {
            client: client.id,
            generation: client.generation,
            name: &client.name,
            roles: &roles,
            issued_at,
        };
        let key = self.key(issued_at).await?;
        let access = self.issuer.issue_to_client(&claims, &key).map_err(AccountError::from)?;
        Ok(ClientToken { access, roles })
    }

    /// Ends a token of a client, which expires at that Unix second.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_client_token(
        &self,
        client: &Client,
        token: ExternalId,
        expires_at: i64,
        address: IpAddr,
    ) -> Result<()> {
        self.revoker.end_token(token, expires_at).await?;
        let detail = format!("client: {}", client.id);
        let event = Event::of_stranger(address, "client.revoke-token", detail);
        Ok(self.store.record(None, &event).await?)
    }
}

impl Revoker {
    /// Ends one token, which expires at that Unix second.
    ///
    /// # Errors
    /// The store's. If it leaves open whether the store holds it, the token is denied here until that is settled.
    async fn end_token(&self, token: ExternalId, expires_at: i64) -> Result<()> {
        let until = expires_at.saturating_mul(1_000).saturating_add(millis(LOG_MARGIN));
        let entry =
            LogEntry { revoked: Revoked::External(token), generation: LogEntry::ALL, expires_at: until };
        self.settle(entry).await
    }

    /// Changes a client, which is of this generation as far as is known. Returns false if there is none.
    ///
    /// # Errors
    /// The store's. If it leaves open whether that has happened, the client's tokens are denied here until it is settled.
    async fn change_client(
        &self,
        id: ClientId,
        generation: i64,
        change: &ClientChange,
        event: &Event,
    ) -> Result<bool> {
        match self.store.change_client(id, change, event).await {
            Ok(Some(entry)) => {
                self.in_force(&[entry]).await;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => {
                self.deny_in_doubt(&error, Revoked::Client(id), change.below(generation + 1), None);
                Err(error.into())
            }
        }
    }
}

fn illegal(detail: &'static str) -> AccountError {
    AccountError::Explained(Kind::MissingParameters, detail)
}

impl Operator {
    /// Makes a client, which has a secret, or shows who it is by one of the keys of `jwks`.
    ///
    /// # Errors
    /// [`AccountError`].
    pub async fn add_client(
        &self,
        by: &Actor,
        name: &str,
        roles: Roles,
        jwks: Option<String>,
    ) -> Result<ClientMade> {
        let name = name.trim();
        let is_legal = (1..=MOST_NAME_CHARS).contains(&name.chars().count())
            && !name.chars().any(|character| character.is_control() || character == ':');
        if !is_legal {
            return Err(illegal("expected a name of 1 to 64 characters, without a colon"));
        }
        if let Some(jwks) = &jwks
            && (jwks.len() > MOST_JWKS || ClientKeys::parse(jwks).is_err())
        {
            return Err(illegal("expected a JSON Web Key Set with a public key that verifies signatures"));
        }
        let id = ClientId::generate(self.clock.wall(), &*self.random);
        let secret = jwks.is_none().then(|| OpaqueToken::generate(&*self.random));
        let new = NewClient {
            id,
            name: name.to_owned(),
            secret_hash: secret.as_ref().map(|secret| secret.hash),
            jwks,
            roles,
        };
        let event = by.event("client.add", format!("client: {id}, roles: {}", new.roles));
        if !self.store.add_client(&new, &event).await? {
            return Err(AccountError::Explained(Kind::Conflict, "another client has this name"));
        }
        Ok(ClientMade { id, secret: secret.map(|secret| secret.text) })
    }

    /// Finds a client by its id or its name.
    ///
    /// # Errors
    /// `Not found`, or the store's.
    pub async fn find_client(&self, text: &str) -> Result<Client> {
        let found = match ClientId::parse(text) {
            Some(id) => self.store.client(id).await?,
            None => self.store.client_by_name(text).await?,
        };
        found.ok_or(AccountError::Refused(Kind::NotFound))
    }

    /// Sets the roles of a client; its tokens end.
    ///
    /// # Errors
    /// `Not found`, or the store's.
    pub async fn set_client_roles(&self, by: &Actor, client: &Client, roles: Roles) -> Result<()> {
        let event = by.event("client.set-roles", format!("client: {}, roles: {roles}", client.id));
        self.change_client(client, &ClientChange::Roles(roles), &event).await
    }

    /// Gives a client another secret; the one before, or its keys, and its tokens end.
    ///
    /// # Errors
    /// `Not found`, or the store's.
    pub async fn renew_client_secret(&self, by: &Actor, client: &Client) -> Result<Secret> {
        let secret = OpaqueToken::generate(&*self.random);
        let event = by.event("client.renew-secret", format!("client: {}", client.id));
        self.change_client(client, &ClientChange::Secret(secret.hash), &event).await?;
        Ok(secret.text)
    }

    /// Removes a client; its tokens end.
    ///
    /// # Errors
    /// `Not found`, or the store's.
    pub async fn remove_client(&self, by: &Actor, client: &Client) -> Result<()> {
        let event = by.event("client.remove", format!("client: {}", client.id));
        self.change_client(client, &ClientChange::Remove, &event).await
    }

    async fn change_client(&self, client: &Client, change: &ClientChange, event: &Event) -> Result<()> {
        match self.revoker.change_client(client.id, client.generation, change, event).await? {
            true => Ok(()),
            false => Err(AccountError::Refused(Kind::NotFound)),
        }
    }
}
