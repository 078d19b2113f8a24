//! The vault: the master key, from the config or from a file that is made at the first start, and the secrets that it wraps.

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
    config::{Auth, MasterKeySource},
    store::{Store, StoreError, StoredVault},
    token::{MasterError, MasterKey, MasterKeys, RootSecret, Wrapped},
    types::{Random, Secret},
};

/// Why the vault does not open.
#[derive(Debug, Error)]
pub enum VaultError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file cannot be read or made.
    #[error("{0}: {1}")]
    File(String, std::io::Error),
    /// A file that must be there is not.
    #[error(
        "{0} is missing, and the store was begun with a master key: restore it from a backup, or give auth.master_key"
    )]
    Missing(String),
    /// The file does not hold a secret.
    #[error("{0} holds less than 32 bytes")]
    Short(String),
    /// The store was begun with another one.
    #[error(
        "the master key is not the one that this store's secrets are wrapped with; while it is replaced by this one, \
         auth.previous_master_key is the old one"
    )]
    Other,
    /// A stored value cannot be decrypted.
    #[error(transparent)]
    Master(#[from] MasterError),
}

/// What the master keys open.
pub struct Vault {
    /// The master keys.
    pub masters: MasterKeys,
    /// The secret that others are derived from.
    pub root: RootSecret,
    /// Whether the store's secrets are wrapped with the wanted master key, not the one before.
    pub is_moved: bool,
}

/// Finds the master keys, makes one for a fresh store, makes sure that one of them is the store's, and opens what the
/// store keeps under it.
///
/// # Errors
/// [`VaultError`].
pub async fn open_vault(
    auth: &Auth,
    store: &dyn Store,
    random: Arc<dyn Random>,
) -> Result<Vault, VaultError> {
    let kept = store.vault().await?;
    let wanted = match &auth.master_key {
        MasterKeySource::Given(secret) => secret.clone(),
        MasterKeySource::File(path) => match read(path)? {
            Some(secret) => secret,
            None if kept.is_some() => return Err(VaultError::Missing(path.display().to_string())),
            None => create(path, &*random)?,
        },
    };
    let previous = match &auth.previous_master_key {
        None => None,
        Some(MasterKeySource::Given(secret)) => Some(secret.clone()),
        Some(MasterKeySource::File(path)) => {
            Some(read(path)?.ok_or_else(|| VaultError::Missing(path.display().to_string()))?)
        }
    };
    let key = |secret: &Secret| MasterKey::new(secret, random.clone());
    let masters = MasterKeys::new(key(&wanted), previous.as_ref().map(key));
    let master = match &kept {
        Some(kept) => masters.with_fingerprint(&kept.fingerprint).ok_or(VaultError::Other)?,
        None => masters.wanted(),
    };
    let kept = match kept {
        Some(kept) if !kept.wrapped_root.is_empty() => kept,
        _ => {
            let wrapped_root = master.wrap(Wrapped::ROOT, &*RootSecret::generate(&*random))?;
            let fresh = StoredVault { fingerprint: master.fingerprint().to_vec(), wrapped_root };
            // Another process may have been faster.
            store.begin_vault(&fresh).await?
        }
    };
    if masters.with_fingerprint(&kept.fingerprint).is_none() {
        return Err(VaultError::Other);
    }
    let root = RootSecret::new(&masters.unwrap(Wrapped::ROOT, &kept.wrapped_root)?, random);
    store.unlock(root.pseudonyms());
    let is_moved = kept.fingerprint == masters.wanted().fingerprint();
    Ok(Vault { masters, root, is_moved })
}

fn read(path: &Path) -> Result<Option<Secret>, VaultError> {
    let failed = |error| VaultError::File(path.display().to_string(), error);
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mode = fs::metadata(path).map_err(failed)?.permissions().mode();
    if mode & 0o077 != 0 {
        tracing::warn!(file = %path.display(), "the master key may be read by others; `chmod 600` keeps it");
    }
    let secret = Secret::new(text.trim_end());
    if secret.expose().len() < 32 {
        return Err(VaultError::Short(path.display().to_string()));
    }
    Ok(Some(secret))
}

fn create(path: &Path, random: &dyn Random) -> Result<Secret, VaultError> {
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
            read(path)?.ok_or_else(|| VaultError::Missing(path.display().to_string()))
        }
        Err(error) => Err(VaultError::File(path.display().to_string(), error)),
    }
}
