//! The signing keys: made once, kept wrapped in the store, followed while running.

use std::{sync::Arc, time::Duration};

use thiserror::Error;

use super::By;
use crate::{
    config,
    store::{KeyRevocation, KeysRevoked, Store, StoreError, StoredKey},
    token::{KeyError, Keyring, MasterError, MasterKey, NewKey, PublicKey, SigningKey, Verifier},
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
    /// A key was wrapped with another master secret.
    #[error(transparent)]
    Master(#[from] MasterError),
    /// Shared secrets are the config's.
    #[error(
        "with HS256 the secret comes from the config: set auth.signing.secret, and previous_secret to the old one"
    )]
    SharedSecret,
}

/// The keys of this deployment.
pub struct Keys {
    store: Arc<dyn Store>,
    master: MasterKey,
    signing: config::Signing,
    access_ttl: Duration,
    max_staleness: Duration,
}

impl Keys {
    /// The keys in `store`, wrapped by `master`.
    pub fn new(
        store: Arc<dyn Store>,
        master: MasterKey,
        auth: &config::Auth,
        revocation: &config::Revocation,
    ) -> Self {
        Self {
            store,
            master,
            signing: auth.signing.clone(),
            access_ttl: auth.access_token_ttl,
            max_staleness: revocation.max_staleness,
        }
    }

    /// The master secret's derivatives.
    pub fn master(&self) -> &MasterKey {
        &self.master
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
                self.store.create_key_if_none(&self.generate(algorithm)?, delay).await?;
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
    pub async fn follow(&self, verifier: &Verifier) -> Result<(), KeysError> {
        if let config::Signing::KeyPair(_) = self.signing {
            let (keyring, lasts) = self.load(Some(&verifier.keyring())).await?;
            verifier.replace_keyring(Arc::new(keyring));
            if !lasts {
                self.create_if_none(self.delay()).await?;
                let (keyring, _) = self.load(Some(&verifier.keyring())).await?;
                verifier.replace_keyring(Arc::new(keyring));
            }
        }
        Ok(())
    }

    /// The keys, and whether one of them signs until somebody says otherwise.
    async fn load(&self, previous: Option<&Keyring>) -> Result<(Keyring, bool), KeysError> {
        let algorithm = match &self.signing {
            config::Signing::Shared { secret, previous } => {
                return Ok((Keyring::of_secrets(secret, previous.as_ref())?, true));
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
        let mut signing = Vec::new();
        for key in stored.iter().filter(|key| key.algorithm == algorithm) {
            let private = self.master.unwrap(&key.kid, &key.wrapped_key)?;
            signing.push(SigningKey::pair(&key.kid, &key.algorithm, &private, key.signs_at)?);
        }
        Ok((Keyring::of_pairs(&public, signing, previous)?, lasts))
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
    pub async fn rotate(&self, by: &By) -> Result<StoredKey, KeysError> {
        let config::Signing::KeyPair(algorithm) = self.signing else {
            return Err(KeysError::SharedSecret);
        };
        let note = by.note("key.rotate", String::new());
        let key = self.generate(algorithm)?;
        Ok(self.store.rotate_key(&key, self.delay(), self.access_ttl, Some(&note)).await?)
    }

    /// Revokes a key, or all of them and every session with them. Where none is left that signs, a new one
    /// is made, which begins as one that was rotated in. `None` when there is no such key.
    ///
    /// # Errors
    /// [`KeysError`].
    pub async fn revoke(&self, by: &By, kid: Option<&str>) -> Result<Option<KeysRevoked>, KeysError> {
        let config::Signing::KeyPair(algorithm) = self.signing else {
            return Err(KeysError::SharedSecret);
        };
        let detail = if kid.is_none() { "all keys, and every session" } else { "" };
        let revocation = KeyRevocation {
            kid: kid.map(str::to_owned),
            successor: self.generate(algorithm)?,
            delay: self.delay(),
            access_ttl: self.access_ttl,
            note: Some(by.note("key.revoke", detail.to_owned())),
        };
        Ok(self.store.revoke_keys(&revocation).await?)
    }

    /// After this time every gateway knows a new key, or denies.
    fn delay(&self) -> Duration {
        self.max_staleness + Duration::from_secs(1)
    }

    fn generate(&self, algorithm: config::Algorithm) -> Result<StoredKey, KeysError> {
        let key = NewKey::generate(algorithm)?;
        let wrapped_key = self.master.wrap(&key.kid, &key.pkcs8)?;
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
