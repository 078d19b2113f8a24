//! Why the gateway cannot start.

use thiserror::Error;

use super::vault::VaultError;
use crate::{account::KeysError, mail::MailSetupError, password::HashError, store::StoreError};

/// Why the gateway cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The master key.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// The signing keys.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The password workers.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The mails.
    #[error("auth.email: {0}")]
    Mail(#[from] MailSetupError),
}

impl StartError {
    /// Whether waiting may help.
    pub(super) fn is_passing(&self) -> bool {
        let store = match self {
            Self::Store(error)
            | Self::Vault(VaultError::Store(error))
            | Self::Keys(KeysError::Store(error)) => error,
            _ => return false,
        };
        matches!(store, StoreError::Away(_) | StoreError::OutcomeUnknown(_))
    }
}
