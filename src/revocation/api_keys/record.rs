//! Keys and their owners, as they are read from the store.

use std::{
    borrow::Borrow,
    collections::{HashMap, HashSet},
    hash::{Hash, Hasher},
    sync::{Arc, atomic::AtomicU32},
};

use foldhash::fast::RandomState;

use crate::{
    clock::UnixMillis,
    config::Pattern,
    store::{ApiKeyLimits, LiveApiKey},
    token::{KeyOwner, KeyScope, OwnerFurther, OwnerStanding},
    types::{ApiKeyId, Roles, UserId},
};

/// A key as it was read.
pub(super) struct Key {
    pub(super) hash: [u8; 32],
    pub(super) owner: Arc<KeyOwner>,
    pub(super) scope: Option<Arc<KeyScope>>,
    pub(super) expires: Expiry,
    /// The span of time in which it was last used.
    pub(super) used: AtomicU32,
}

/// When a key expires, in Unix seconds; the highest number stands for never, and for all beyond the year 2105.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Expiry(u32);

impl Expiry {
    fn of(at: Option<UnixMillis>) -> Self {
        let seconds = at.map_or(i64::MAX, |at| at.div_euclid(1_000)).max(0);
        Self(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// Returns the Unix second from which on the key is not accepted.
    pub(super) fn seconds(self) -> i64 {
        if self.0 == u32::MAX { i64::MAX } else { self.0.into() }
    }
}

/// Owners by their ids.
#[derive(Default)]
pub(super) struct Owners(HashSet<ById, RandomState>);

/// An owner, who is found by the id that they have themselves.
struct ById(Arc<KeyOwner>);

impl Hash for ById {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.hash(state);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ById {}

impl Borrow<UserId> for ById {
    fn borrow(&self) -> &UserId {
        &self.0.id
    }
}

impl Owners {
    pub(super) fn get(&self, id: &UserId) -> Option<&Arc<KeyOwner>> {
        self.0.get(id).map(|owner| &owner.0)
    }

    pub(super) fn contains(&self, id: &UserId) -> bool {
        self.0.contains(id)
    }

    /// Takes an owner in. Returns the one that was there.
    pub(super) fn replace(&mut self, owner: Arc<KeyOwner>) -> Option<Arc<KeyOwner>> {
        self.0.replace(ById(owner)).map(|before| before.0)
    }

    pub(super) fn remove(&mut self, id: &UserId) -> Option<Arc<KeyOwner>> {
        self.0.take(id).map(|owner| owner.0)
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(&Arc<KeyOwner>) -> bool) {
        self.0.retain(|owner| stays(&owner.0));
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<KeyOwner>> {
        self.0.iter().map(|owner| &owner.0)
    }
}

/// Keys as they come from the store.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) owners: Owners,
    pub(super) keys: Vec<(ApiKeyId, Key)>,
    /// Keys of the same limits share them.
    scopes: HashMap<String, Arc<KeyScope>, RandomState>,
    /// Owners of the same roles share them.
    roles: HashMap<String, Arc<Roles>, RandomState>,
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
        // One whose limits cannot be read opens nothing.
        let Some(scope) = self.scope(limits) else {
            return tracing::error!(
                api_key.prefix = id.prefix(),
                "an API key has limits that cannot be read"
            );
        };
        let owner = match self.owners.get(&owner) {
            Some(known) => known.clone(),
            None => {
                let further = if self.keeps_further {
                    let (email, email_verified) = (key.email, key.email_verified);
                    Some(OwnerFurther { external_id, email, email_verified, attributes: key.attributes })
                } else {
                    external_id.map(|id| OwnerFurther { external_id: Some(id), ..OwnerFurther::default() })
                };
                let owner = Arc::new(KeyOwner {
                    id: owner,
                    name: name.into(),
                    roles: self.shared(roles),
                    generation,
                    further: further.map(Box::new),
                    standing: OwnerStanding::default(),
                });
                self.owners.replace(owner.clone());
                owner
            }
        };
        let expires = Expiry::of(expires_at);
        self.keys.push((id, Key { hash, owner, scope, expires, used: AtomicU32::new(0) }));
    }

    /// Returns roles as others have them.
    fn shared(&mut self, roles: Roles) -> Arc<Roles> {
        let text = roles.to_string();
        self.roles.entry(text).or_insert_with(|| Arc::new(roles)).clone()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_is_kept_to_the_second_and_what_is_too_far_away_never_comes() {
        let seconds = |at| Expiry::of(at).seconds();
        assert_eq!((seconds(Some(5_999)), seconds(Some(6_000)), seconds(Some(-1))), (5, 6, 0));
        let last = i64::from(u32::MAX);
        assert_eq!((seconds(Some((last - 1) * 1_000)), seconds(Some(last * 1_000))), (last - 1, i64::MAX));
        assert_eq!((seconds(Some(i64::MAX)), seconds(None)), (i64::MAX, i64::MAX));
    }
}
