//! The master secret: given in the config, or a file that is made at first start.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use thiserror::Error;

use crate::{
    config::MasterKeySource,
    store::{Store, StoreError},
    token::MasterKey,
    types::{Random, Secret},
};

/// Why there is no master secret.
#[derive(Debug, Error)]
pub enum MasterFault {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be read or made.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    /// The store was begun with a secret that is not there.
    #[error(
        "{0} is missing, and the store was begun with it: restore it from a backup, or give auth.master_key"
    )]
    Missing(String),
    /// The file does not hold a secret.
    #[error("{0} holds less than 32 bytes")]
    Short(String),
    /// The store was begun with another one.
    #[error(
        "the master key is not the one that this store was begun with: private keys and refresh tokens would be lost"
    )]
    Other,
}

/// Finds the master secret, makes one for a fresh store, and makes sure that it is the store's.
///
/// # Errors
/// [`MasterFault`].
pub async fn load_master_key(
    source: &MasterKeySource,
    store: &dyn Store,
    random: Arc<dyn Random>,
) -> Result<MasterKey, MasterFault> {
    let secret = match source {
        MasterKeySource::Given(secret) => secret.clone(),
        MasterKeySource::File(path) => match read(path)? {
            Some(secret) => secret,
            None if store.has_master().await? => {
                return Err(MasterFault::Missing(path.display().to_string()));
            }
            None => create(path, &*random)?,
        },
    };
    let master = MasterKey::new(&secret, random);
    if store.claim_master(master.fingerprint()).await? { Ok(master) } else { Err(MasterFault::Other) }
}

fn read(path: &Path) -> Result<Option<Secret>, MasterFault> {
    let fault = |error| MasterFault::File(path.display().to_string(), error);
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fault(error)),
    };
    let mode = fs::metadata(path).map_err(fault)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "the master key may be read by others; `chmod 600` keeps it");
    }
    let secret = Secret::new(text.trim_end());
    if secret.expose().len() < 32 {
        return Err(MasterFault::Short(path.display().to_string()));
    }
    Ok(Some(secret))
}

fn create(path: &Path, random: &dyn Random) -> Result<Secret, MasterFault> {
    let secret = Secret::new(STANDARD_NO_PAD.encode(random.bytes::<32>()));
    let written =
        OpenOptions::new().create_new(true).write(true).mode(0o600).open(path).and_then(|mut file| {
            writeln!(file, "{}", secret.expose())?;
            file.sync_all()
        });
    match written {
        Ok(()) => Ok(secret),
        // Another process was faster: its secret is the one.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            read(path)?.ok_or_else(|| MasterFault::Missing(path.display().to_string()))
        }
        Err(error) => Err(MasterFault::File(path.display().to_string(), error)),
    }
}
