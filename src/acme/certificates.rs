//! What was issued, and which proofs are pending, as this gateway knows them from the store.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::{
    store::{self, Store, StoredCertificate},
    tls::{Challenges, Issued, Proof, ServerTls, TlsError},
    token::{MasterKeys, Wrapped},
};

/// What was issued, and which proofs are pending.
pub struct IssuedCertificates {
    store: Arc<dyn Store>,
    masters: Arc<MasterKeys>,
    challenges: Arc<Challenges>,
    /// By name, with the version of each.
    known: Mutex<BTreeMap<String, (i64, Issued)>>,
    /// Held from the reading of challenges until they are taken over.
    reading: tokio::sync::Mutex<()>,
}

impl IssuedCertificates {
    /// Creates an empty set, which is read by [`Self::read`].
    pub fn new(store: Arc<dyn Store>, masters: Arc<MasterKeys>, challenges: Arc<Challenges>) -> Self {
        Self { store, masters, challenges, known: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, (i64, Issued)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what is there for `names`. Returns those of them for which something was issued since.
    ///
    /// # Errors
    /// When the store fails; what was known before goes on.
    pub async fn read(&self, names: &[String]) -> store::Result<Vec<String>> {
        self.read_challenges().await?;
        let mut fresh = Vec::new();
        for (name, version) in self.store.certificate_versions().await? {
            let is_known = self.lock().get(&name).is_some_and(|(known, _)| *known == version);
            if is_known || !names.contains(&name) {
                continue;
            }
            let Some(stored) = self.store.certificate(&name).await? else { continue };
            match self.open(&stored) {
                Ok(issued) => {
                    self.lock().insert(name.clone(), (stored.version, issued));
                    fresh.push(name);
                }
                // It is told each time: without it, clients are refused.
                Err(error) => tracing::error!(name, error, "a certificate in the store cannot be used"),
            }
        }
        Ok(fresh)
    }

    /// Reads which proofs are pending.
    ///
    /// # Errors
    /// When the store fails.
    pub(super) async fn read_challenges(&self) -> store::Result<()> {
        let _reading = self.reading.lock().await;
        let pending = self.store.challenges().await?;
        let proof = |challenge: store::Challenge| {
            let store::Challenge { name, token, key_authorization } = challenge;
            Proof { name, token, key_authorization }
        };
        if let Err(error) = self.challenges.set(pending.into_iter().map(proof).collect()) {
            tracing::error!(%error, "a proof cannot be shown by TLS");
        }
        Ok(())
    }

    /// Gives no proof any more.
    pub(super) async fn forget_challenges(&self) {
        let _reading = self.reading.lock().await;
        // There is none that could not be shown.
        let _ = self.challenges.set(Vec::new());
    }

    /// Lets a listener show what was issued for `names`, if it wants that.
    ///
    /// # Errors
    /// When something of it cannot be shown.
    pub fn apply(&self, tls: &ServerTls, names: &[String]) -> Result<(), TlsError> {
        let known = self.lock();
        let wanted = known.iter().filter(|(name, _)| names.contains(name));
        let issued: Vec<Issued> = wanted.map(|(_, (_, issued))| issued.clone()).collect();
        drop(known);
        tls.set_issued(&issued, &self.challenges)
    }

    /// Unwraps a stored certificate.
    ///
    /// # Errors
    /// What is wrong with it, for the log.
    pub(super) fn open(&self, stored: &StoredCertificate) -> Result<Issued, String> {
        let what = Wrapped::certificate_key(&stored.name);
        let key = self.masters.unwrap(what, &stored.wrapped_key).map_err(|error| error.to_string())?;
        Issued::parse(&stored.chain, &key).map_err(|error| error.to_string())
    }
}
