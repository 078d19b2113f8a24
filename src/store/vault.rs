//! What lies in the store and is of use only with the master key.

use std::sync::Arc;

use async_trait::async_trait;

use super::Event;

/// How the store's secrets were begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVault {
    /// What the master key is known by.
    pub fingerprint: Vec<u8>,
    /// The secret that others are derived from, wrapped; empty where it was not begun.
    pub wrapped_root: Vec<u8>,
}

/// Wraps a value anew: its purpose, its id, and how it is wrapped so far. None where that cannot be opened.
pub type Rewrap = Arc<dyn Fn(&str, &str, &[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// What became of wrapping everything anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rewrapped {
    /// So many values are wrapped anew.
    Done(usize),
    /// One could not be opened, and nothing has changed.
    Unreadable(String),
}

/// Whether a value is wrapped with another master key than the one of this fingerprint, as far as that can be seen: a
/// value says behind its first byte how that begins.
pub(super) fn is_of_another_master(wrapped: &[u8], fingerprint: &[u8]) -> bool {
    let said = wrapped.get(1..9).filter(|_| fingerprint.len() == 32);
    said.is_some_and(|said| !fingerprint.starts_with(said))
}

/// Values before they are wrapped anew: purpose, id, how they are wrapped.
pub(super) type WrappedValue = (&'static str, String, Vec<u8>);

/// Wraps all anew, or tells the one that does not open.
pub(super) fn rewrap_all(values: Vec<WrappedValue>, rewrap: &Rewrap) -> Result<Vec<WrappedValue>, String> {
    let anew = |(purpose, id, wrapped): WrappedValue| match rewrap(purpose, &id, &wrapped) {
        Some(wrapped) => Ok((purpose, id, wrapped)),
        None => Err(format!("{purpose} {id}").trim_end().to_owned()),
    };
    values.into_iter().map(anew).collect()
}

/// The purposes of wrapped values, as the vault calls them.
pub(super) const ROOT: &str = "root";
pub(super) const SIGNING_KEY: &str = "signing key";
pub(super) const ACME_ACCOUNT: &str = "acme account";
pub(super) const CERTIFICATE_KEY: &str = "certificate key";
pub(super) const ORDER_KEY: &str = "order key";

/// Where wrapped values lie beside the root: their purpose, their table, the column of their id and their own.
pub(super) const WRAPPED: [(&str, &str, &str, &str); 4] = [
    (SIGNING_KEY, "signing_keys", "kid", "wrapped_pair"),
    (ACME_ACCOUNT, "acme_accounts", "directory", "wrapped"),
    (CERTIFICATE_KEY, "certificates", "name", "wrapped_key"),
    (ORDER_KEY, "certificates", "name", "wrapped_order_key"),
];

/// The store's secrets.
#[async_trait]
pub trait Vault: Send + Sync {
    /// What the store's secrets were begun with; none for a fresh one.
    async fn vault(&self) -> super::Result<Option<StoredVault>>;

    /// Begins the store's secrets, unless they were begun; what holds in the end.
    async fn begin_vault(&self, fresh: &StoredVault) -> super::Result<StoredVault>;

    /// Wraps every secret anew, for the master key of `fingerprint`.
    async fn rewrap(&self, fingerprint: &[u8], rewrap: &Rewrap, event: &Event) -> super::Result<Rewrapped>;
}
