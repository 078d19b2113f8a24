//! Keys and their owners, as they are read from the store.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, atomic::AtomicU32},
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use foldhash::fast::RandomState;

use crate::{
    clock::UnixMillis,
    config::Pattern,
    store::{ApiKeyLimits, LiveApiKey},
    token::{AboutOwner, KeyOwner, KeyScope},
    types::{ApiKeyId, Attributes, UserId},
};

/// A key as it was read.
pub(super) struct Key {
    pub(super) hash: Digest,
    pub(super) owner: Arc<KeyOwner>,
    pub(super) scope: Option<Arc<KeyScope>>,
    pub(super) expires: Expiry,
    /// The span of time in which it was last used.
    pub(super) used: AtomicU32,
}

/// The first half of the hash of a whole key. Another text of which it is the same would take 2^128 tries, of which each is a request.
#[derive(PartialEq, Eq)]
pub(super) struct Digest([u8; 16]);

impl Digest {
    /// Of no key.
    pub(super) const NONE: Self = Self([0; 16]);

    pub(super) fn of(hash: &[u8; 32]) -> Self {
        let mut half = [0; 16];
        half.copy_from_slice(&hash[..16]);
        Self(half)
    }

    /// Compares; it takes as long whatever they are.
    pub(super) fn is(&self, other: &Self) -> bool {
        verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
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

/// The lists of owners: with a million of them, each of a thousand.
const LISTS: usize = 1_024;

/// Owners by their ids. Lists in the order of ids, and no table, half of whose places may be empty.
#[derive(Clone, Default)]
pub(super) struct Owners(Vec<Vec<Arc<KeyOwner>>>);

impl Owners {
    /// Returns the list in which an owner is, or would be: their ids begin with a time and end with random bytes.
    fn list(&self, id: &UserId) -> Option<&Vec<Arc<KeyOwner>>> {
        self.0.get(Self::list_of(id))
    }

    fn list_of(id: &UserId) -> usize {
        let [.., high, low] = id.uuid().into_bytes();
        usize::from(u16::from_be_bytes([high, low])) % LISTS
    }

    pub(super) fn get(&self, id: &UserId) -> Option<&Arc<KeyOwner>> {
        let list = self.list(id)?;
        list.get(list.binary_search_by_key(id, |owner| owner.id).ok()?)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    pub(super) fn contains(&self, id: &UserId) -> bool {
        self.get(id).is_some()
    }

    /// Takes an owner in. Returns the one that was there.
    pub(super) fn replace(&mut self, owner: Arc<KeyOwner>) -> Option<Arc<KeyOwner>> {
        if self.0.is_empty() {
            self.0.resize_with(LISTS, Vec::new);
        }
        let list = &mut self.0[Self::list_of(&owner.id)];
        match list.binary_search_by_key(&owner.id, |owner| owner.id) {
            Ok(place) => Some(mem::replace(&mut list[place], owner)),
            Err(place) => {
                if list.len() == list.capacity() {
                    list.reserve_exact(list.len() / 16 + 1);
                }
                list.insert(place, owner);
                None
            }
        }
    }

    pub(super) fn remove(&mut self, id: &UserId) -> Option<Arc<KeyOwner>> {
        let list = self.0.get_mut(Self::list_of(id))?;
        let place = list.binary_search_by_key(id, |owner| owner.id).ok()?;
        Some(list.remove(place))
    }

    pub(super) fn retain(&mut self, mut stays: impl FnMut(&Arc<KeyOwner>) -> bool) {
        for list in &mut self.0 {
            list.retain(&mut stays);
            if list.len() < list.capacity() / 2 {
                list.shrink_to_fit();
            }
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<KeyOwner>> {
        self.0.iter().flatten()
    }
}

/// Keys as they come from the store.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) owners: Owners,
    pub(super) keys: Vec<(ApiKeyId, Key)>,
    /// Keys of the same limits share them.
    scopes: HashMap<String, Arc<KeyScope>, RandomState>,
    /// What is known of owners, shared by those with equal roles and no further data.
    abouts: HashMap<String, Arc<AboutOwner>, RandomState>,
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
                let mut about = AboutOwner { roles, external_id, ..AboutOwner::default() };
                if self.keeps_further {
                    let (email, email_verified) = (key.email, key.email_verified);
                    about = AboutOwner { email, email_verified, attributes: key.attributes, ..about };
                }
                let owner = Arc::new(KeyOwner::new(owner, name.into(), self.shared(about), generation));
                self.owners.replace(owner.clone());
                owner
            }
        };
        let (hash, expires) = (Digest::of(&hash), Expiry::of(expires_at));
        self.keys.push((id, Key { hash, owner, scope, expires, used: AtomicU32::new(0) }));
    }

    /// Returns what is known of an owner, as others have it.
    fn shared(&mut self, about: AboutOwner) -> Arc<AboutOwner> {
        let AboutOwner { roles, external_id, email, email_verified, attributes } = &about;
        let has_more = external_id.is_some()
            || email.is_some()
            || *email_verified
            || *attributes != Attributes::default();
        if has_more {
            return Arc::new(about);
        }
        let text = roles.to_string();
        self.abouts.entry(text).or_insert_with(|| Arc::new(about)).clone()
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
    use crate::types::OsRandom;

    #[test]
    fn owners_are_found_replaced_and_removed_by_their_ids() {
        let owner = |id, generation| Arc::new(KeyOwner::new(id, "ann".into(), Arc::default(), generation));
        let ids: Vec<_> = (0..5_000).map(|_| UserId::generate(1, &OsRandom)).collect();
        let mut owners = Owners::default();
        assert!(owners.get(&ids[0]).is_none() && owners.remove(&ids[0]).is_none());
        for id in &ids {
            assert!(owners.replace(owner(*id, 1)).is_none());
        }
        assert_eq!(owners.replace(owner(ids[7], 2)).map(|before| before.generation()), Some(1));
        assert_eq!(owners.get(&ids[7]).map(|owner| owner.generation()), Some(2));
        assert!(owners.remove(&ids[8]).is_some() && !owners.contains(&ids[8]));
        assert_eq!(owners.iter().count(), 4_999);
        owners.retain(|owner| owner.generation() == 2);
        assert!(owners.iter().map(|owner| owner.id).eq([ids[7]]));
    }

    #[test]
    fn a_key_takes_as_much_as_is_counted_on() {
        assert_eq!(size_of::<(ApiKeyId, Key)>(), 48);
    }

    #[test]
    fn an_expiry_is_kept_to_the_second_and_what_is_too_far_away_never_comes() {
        let seconds = |at| Expiry::of(at).seconds();
        assert_eq!((seconds(Some(5_999)), seconds(Some(6_000)), seconds(Some(-1))), (5, 6, 0));
        let last = i64::from(u32::MAX);
        assert_eq!((seconds(Some((last - 1) * 1_000)), seconds(Some(last * 1_000))), (last - 1, i64::MAX));
        assert_eq!((seconds(Some(i64::MAX)), seconds(None)), (i64::MAX, i64::MAX));
    }
}
