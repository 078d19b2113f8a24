//! The signing keys: made once, kept wrapped in the store, followed while running.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use thiserror::Error;

use super::Actor;
use crate::{
    config,
    store::{KeyRevocation, KeysRevoked, Rewrap, Rewrapped, Store, StoreError, StoredKey},
    token::{
        CurrentKeyring, KeyError, Keyring, MasterError, MasterKeys, NewKey, PublicKey, SigningKey, Wrapped,
    },
};

/// Why the keys cannot be used.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A key was wrapped with another master key.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// The store's secrets are wrapped with a master key that is not there.
    #[error(
        "the store's secrets are wrapped with another master key by now: auth.master_key, or previous_master_key, has to \
         be that"
    )]
    MasterMoved,
    /// A secret could not be wrapped anew.
    #[error("{0} cannot be unwrapped with any of the master keys; nothing was changed")]
    Unreadable(String),
    /// Shared secrets are the config's.
    #[error(
        "with HS256 the secret comes from the config: set auth.signing.secret, and previous_secret to the old one"
    )]
    SharedSecret,
}

/// The keys of this deployment.
pub struct Keys {
    store: Arc<dyn Store>,
    masters: Arc<MasterKeys>,
    signing: config::Signing,
    /// How long what a key has signed may live.
    signed_ttl: Duration,
    max_staleness: Duration,
    /// Whether it was told that the store's secrets have moved to a master key that is not there.
    told: AtomicBool,
}

impl Keys {
    /// The keys in `store`, wrapped by one of `masters`.
    pub fn new(store: Arc<dyn Store>, masters: MasterKeys, config: &config::Config) -> Self {
        Self {
            store,
            masters: Arc::new(masters),
            signing: config.auth.signing.clone(),
            signed_ttl: config.longest_signed(),
            max_staleness: config.revocation.max_staleness,
            told: AtomicBool::new(false),
        }
    }

    /// Returns the master keys.
    pub fn masters(&self) -> &Arc<MasterKeys> {
        &self.masters
    }

    /// Returns the same keys for another config, which has the same algorithm.
    #[must_use]
    pub fn for_config(&self, config: &config::Config) -> Self {
        Self {
            store: self.store.clone(),
            masters: self.masters.clone(),
            signing: config.auth.signing.clone(),
            signed_ttl: config.longest_signed(),
            max_staleness: config.revocation.max_staleness,
            told: AtomicBool::new(self.told.load(Relaxed)),
        }
    }

    /// Takes what the config says of shared secrets into use, and what has changed in the store.
    ///
    /// # Errors
    /// [`KeysError`]; the keys in use stay.
    pub async fn take_up(&self, current: &CurrentKeyring) -> Result<(), KeysError> {
        if let config::Signing::Shared { .. } = self.signing {
            let (keyring, _) = self.load(Some(&current.get())).await?;
            current.replace(keyring);
        }
        self.follow(current).await
    }

    /// Reads the keys, and makes the first one where there is none.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn load_or_create(&self) -> Result<Keyring, KeysError> {
        self.create_if_none(Duration::ZERO).await?;
        Ok(self.load(None).await?.0)
    }

    async fn create_if_none(&self, delay: Duration) -> Result<(), KeysError> {
        if let config::Signing::KeyPair(algorithm) = self.signing {
            let there = self.store.signing_keys().await?;
            let name = name(algorithm);
            if !there.iter().any(|key| key.algorithm == name && key.expires_at.is_none()) {
                self.store.create_key_if_none(&self.generate(algorithm).await?, delay).await?;
            }
        }
        Ok(())
    }

    /// Takes what has changed in the store into use. Where no key is left that may sign, one is made: what took
    /// a key away (a revocation that was in doubt, or that the store had lost) may not have come to make its
    /// successor.
    ///
    /// # Errors
    /// [`KeysError`]; the keys in use stay.
    pub async fn follow(&self, current: &CurrentKeyring) -> Result<(), KeysError> {
        if let config::Signing::KeyPair(_) = self.signing {
            let (keyring, lasts) = self.load(Some(&current.get())).await?;
            current.replace(keyring);
            if !lasts {
                self.create_if_none(self.delay()).await?;
                let (keyring, _) = self.load(Some(&current.get())).await?;
                current.replace(keyring);
            }
        }
        Ok(())
    }

    /// The keys, and whether one of them signs until somebody says otherwise.
    async fn load(&self, previous: Option<&Keyring>) -> Result<(Keyring, bool), KeysError> {
        let algorithm = match &self.signing {
            config::Signing::Shared { secret, previous: previous_secret } => {
                return Ok((Keyring::of_secrets(secret, previous_secret.as_ref(), previous)?, true));
            }
            config::Signing::KeyPair(algorithm) => name(*algorithm),
        };
        let stored = self.store.signing_keys().await?;
        let public: Vec<PublicKey> = stored
            .iter()
            .map(|key| PublicKey {
                kid: key.kid.clone(),
                algorithm: key.algorithm.clone(),
                public: key.public_key.clone(),
                expires_at: key.expires_at,
            })
            .collect();
        let lasts = stored.iter().any(|key| key.algorithm == algorithm && key.expires_at.is_none());
        self.tell_of_move(&stored);
        let (mut signing, mut locked) = (Vec::new(), Vec::new());
        for key in stored.iter().filter(|key| key.algorithm == algorithm) {
            // One that is open already needs no master key, whichever wraps it by now.
            signing.push(match previous.and_then(|keyring| keyring.pair(&key.kid)) {
                Some(pair) => pair,
                None if previous.is_some() && !self.masters.can_unwrap(&key.wrapped_key) => {
                    // Others sign with it, and what they sign is verified here.
                    locked.push((key.kid.clone(), key.signs_at));
                    continue;
                }
                None => {
                    let private = self.masters.unwrap(Wrapped::signing_key(&key.kid), &key.wrapped_key)?;
                    Arc::new(SigningKey::pair(&key.kid, &key.algorithm, &private, key.signs_at)?)
                }
            });
        }
        Ok((Keyring::of_pairs(&public, signing, locked, previous)?, lasts))
    }

    /// Says so, once, when the store's secrets have moved to a master key that this gateway does not have: it goes on
    /// with what it holds, but neither starts again nor opens another key.
    fn tell_of_move(&self, stored: &[StoredKey]) {
        let is_without = stored.iter().any(|key| !self.masters.can_unwrap(&key.wrapped_key));
        if is_without && !self.told.swap(true, Relaxed) {
            tracing::error!(
                "{}; until this gateway has it, it cannot use the next signing key",
                KeysError::MasterMoved
            );
        } else if !is_without {
            self.told.store(false, Relaxed);
        }
    }

    /// Wraps every secret of the store anew with the wanted master key; how many.
    ///
    /// # Errors
    /// [`KeysError`]; nothing has changed then.
    pub async fn rewrap(&self, by: &Actor) -> Result<usize, KeysError> {
        let masters = self.masters.clone();
        let rewrap: Rewrap =
            Arc::new(move |purpose, id, wrapped| masters.rewrap(Wrapped { purpose, id }, wrapped).ok());
        let event = by.event("key.rewrap", String::new());
        let wrapped = self.store.rewrap(self.masters.wanted().fingerprint(), &rewrap, &event).await?;
        // The others look at the keys at once, and say so where they lack the master key.
        super::revoke::hint(&*self.store).await;
        match wrapped {
            Rewrapped::Done(count) => Ok(count),
            Rewrapped::Unreadable(what) => Err(KeysError::Unreadable(what)),
        }
    }

    /// Every key that may still verify; shared secrets are no keys of the store's.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn list(&self) -> Result<Vec<StoredKey>, KeysError> {
        match self.signing {
            config::Signing::Shared { .. } => Ok(Vec::new()),
            config::Signing::KeyPair(_) => Ok(self.store.signing_keys().await?),
        }
    }

    /// Makes a new key, which signs as soon as every gateway must have read it: after
    /// `max_staleness` each either has, or denies.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn rotate(&self, by: &Actor) -> Result<StoredKey, KeysError> {
        let config::Signing::KeyPair(algorithm) = self.signing else {
            return Err(KeysError::SharedSecret);
        };
        let event = by.event("key.rotate", String::new());
        let key = self.generate(algorithm).await?;
        Ok(self.store.rotate_key(&key, self.delay(), self.signed_ttl, Some(&event)).await?)
    }

    /// Revokes a key, or all of them and every session with them. Where none is left that signs, a new one
    /// is made, which begins as one that was rotated in. `None` when there is no such key.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn revoke(&self, by: &Actor, kid: Option<&str>) -> Result<Option<KeysRevoked>, KeysError> {
        let config::Signing::KeyPair(algorithm) = self.signing else {
            return Err(KeysError::SharedSecret);
        };
        // A revocation does not wait for a successor that this gateway cannot make.
        let successor = match self.generate(algorithm).await {
            Ok(key) => Some(key),
            Err(KeysError::MasterMoved) => None,
            Err(error) => return Err(error),
        };
        let detail = if kid.is_none() { "all keys, and every session" } else { "" };
        let revocation = KeyRevocation {
            kid: kid.map(str::to_owned),
            successor,
            delay: self.delay(),
            access_ttl: self.signed_ttl,
            event: Some(by.event("key.revoke", detail.to_owned())),
        };
        Ok(self.store.revoke_keys(&revocation).await?)
    }

    /// After this time every gateway knows a new key, or denies.
    fn delay(&self) -> Duration {
        self.max_staleness + Duration::from_secs(1)
    }

    /// A new key, wrapped with the master key that the store's secrets are wrapped with now: one that was not moved
    /// to yet may be unknown to other gateways.
    async fn generate(&self, algorithm: config::Algorithm) -> Result<StoredKey, KeysError> {
        let vault = self.store.vault().await?.ok_or(KeysError::MasterMoved)?;
        let master = self.masters.with_fingerprint(&vault.fingerprint).ok_or(KeysError::MasterMoved)?;
        let key = NewKey::generate(algorithm)?;
        let wrapped_key = master.wrap(Wrapped::signing_key(&key.kid), &key.pkcs8)?;
        Ok(StoredKey {
            kid: key.kid,
            algorithm: name(algorithm).to_owned(),
            public_key: key.public,
            wrapped_key,
            created_at: 0,
            signs_at: 0,
            expires_at: None,
        })
    }
}

fn name(algorithm: config::Algorithm) -> &'static str {
    match algorithm {
        config::Algorithm::EdDSA => "EdDSA",
        config::Algorithm::ES256 => "ES256",
        config::Algorithm::HS256 => "HS256",
    }
}
