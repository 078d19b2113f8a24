//! Keys and their owners, as they are read from the store.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32},
    },
};

use foldhash::fast::RandomState;

use crate::{
    config::Pattern,
    store::{ApiKeyLimits, LiveApiKey},
    token::{KeyOwner, KeyScope, OwnerFurther},
    types::{ApiKeyId, UserId},
};

/// The states of an owner as they were read.
pub(super) const CURRENT: u8 = 0;
/// They have changed since.
pub(super) const OUTDATED: u8 = 1;
/// They were read again; keys that are still theirs have ended.
pub(super) const REPLACED: u8 = 2;

/// An owner as they were read.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) known: Arc<KeyOwner>,
    pub(super) state: AtomicU8,
}

/// A key as it was read.
pub(super) struct Key {
    pub(super) hash: [u8; 32],
    pub(super) owner: Arc<Owner>,
    pub(super) scope: Option<Arc<KeyScope>>,
    /// In Unix seconds.
    pub(super) expires_at: i64,
    /// The span of time in which it was last used.
    pub(super) used: AtomicU32,
}

pub(super) type Owners = HashMap<UserId, Arc<Owner>, RandomState>;

/// Keys as they come from the store.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) owners: Owners,
    pub(super) keys: Vec<(ApiKeyId, Key)>,
    /// Keys of the same limits share them.
    scopes: HashMap<String, Arc<KeyScope>, RandomState>,
    /// Whether what claims say of owners is kept.
    keeps_further: bool,
}

impl Reading {
    /// Nothing is read yet. With `keeps_further`, what claims say of owners is kept.
    pub(super) fn new(keeps_further: bool) -> Self {
        Self { keeps_further, ..Self::default() }
    }

    /// Takes the next key.
    pub(super) fn take(&mut self, key: LiveApiKey) {
        let LiveApiKey { id, hash, limits, expires_at, owner, name, roles, external_id, generation, .. } =
            key;
        let further =
            OwnerFurther { email: key.email, email_verified: key.email_verified, attributes: key.attributes };
        let further = Some(further).filter(|_| self.keeps_further).map(Box::new);
        // One whose limits cannot be read opens nothing.
        let Some(scope) = self.scope(limits) else {
            return tracing::error!(
                api_key.prefix = id.prefix(),
                "an API key has limits that cannot be read"
            );
        };
        let owner = self.owners.entry(owner).or_insert_with(|| {
            let known = Arc::new(KeyOwner { id: owner, name, roles, external_id, generation, further });
            Arc::new(Owner { known, state: AtomicU8::new(CURRENT) })
        });
        let expires_at = expires_at.map_or(i64::MAX, |at| at.div_euclid(1_000));
        let key = Key { hash, owner: owner.clone(), scope, expires_at, used: AtomicU32::new(0) };
        self.keys.push((id, key));
    }

    /// Returns what a key of these limits opens; `Some(None)` is everything, and `None` that they cannot be read.
    fn scope(&mut self, limits: ApiKeyLimits) -> Option<Option<Arc<KeyScope>>> {
        if limits == ApiKeyLimits::default() {
            return Some(None);
        }
        let text = format!("{limits:?}");
        if let Some(known) = self.scopes.get(&text) {
            return Some(Some(known.clone()));
        }
        let ApiKeyLimits { roles, routes, networks } = limits;
        let routes = routes.iter().map(|route| Pattern::parse(route).ok()).collect::<Option<_>>()?;
        let scope = Arc::new(KeyScope { roles, routes, networks });
        self.scopes.insert(text, scope.clone());
        Some(Some(scope))
    }
}
