//! The API keys that live, all of them in memory: a decision about one asks nobody.
//!
//! What is required:
//! - The set is read with the log, and read again where the log says that a key is new, or its owner another. A key that has ended is gone
//!   with its entry, as a session is.
//! - From the moment that an owner is known to have changed until they are read again, their keys are good for nothing: their roles may
//!   have been taken away.
//! - It takes no lock to look a key up, and as long for one that does not exist.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicI64, AtomicU8, AtomicU32,
            Ordering::{Acquire, Relaxed, Release},
        },
    },
};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use foldhash::fast::RandomState;
use papaya::ResizeMode;
use seize::Collector;

use crate::{
    clock::{Now, UnixMillis},
    config::Pattern,
    store::{self, ApiKeyLimits, ApiKeySelection, ApiKeys, LiveApiKey},
    token::{KeyCaller, KeyOwner, KeyScope},
    types::{ApiKeyId, UserId, hash::sha256, read_api_key},
};

/// Uses of a key are noted once in so many seconds.
const USES_APART: i64 = 20;

/// The uses that are remembered until they are noted in the store.
const MOST_USES: usize = 100_000;

/// The log keeps what it says of new keys and changed owners for ten minutes. Who has not read it for half as long reads all keys, in
/// milliseconds.
const ALL_AFTER: i64 = 300_000;

/// The states of an owner as they were read.
const CURRENT: u8 = 0;
/// They have changed since.
const OUTDATED: u8 = 1;
/// They were read again; keys that are still theirs have ended.
const REPLACED: u8 = 2;

/// An owner as they were read.
#[derive(Debug)]
struct Owner {
    known: Arc<KeyOwner>,
    state: AtomicU8,
}

/// A key as it was read.
struct Key {
    hash: [u8; 32],
    owner: Arc<Owner>,
    scope: Option<Arc<KeyScope>>,
    /// In Unix seconds.
    expires_at: i64,
    /// The span of time in which it was last used.
    used: AtomicU32,
}

type Keys = papaya::HashMap<ApiKeyId, Key, RandomState>;
type Owners = HashMap<UserId, Arc<Owner>, RandomState>;

/// Why a key is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyRefused {
    /// There is no such key, or it has ended.
    Unknown,
    /// Its owner has changed, and was not read again yet.
    Outdated,
}

/// A key that was accepted.
#[derive(Debug, Clone)]
pub struct AcceptedKey {
    /// The caller.
    pub caller: KeyCaller,
    /// When it expires, in Unix seconds.
    pub expires_at: i64,
}

/// The API keys that live.
pub struct LiveApiKeys {
    keys: Keys,
    owners: Mutex<Owners>,
    /// What the log says is to be read again.
    pending: Mutex<ApiKeySelection>,
    wants_all: AtomicBool,
    /// When the log was last read with the keys, by the boot clock.
    read_at: AtomicI64,
    used: Mutex<Vec<(ApiKeyId, UnixMillis)>>,
    /// Held while keys are read: what was read first is in force first.
    reading: tokio::sync::Mutex<()>,
}

impl Default for LiveApiKeys {
    fn default() -> Self {
        Self {
            // As the mirror's map, and for the same reasons.
            keys: papaya::HashMap::builder()
                .hasher(RandomState::default())
                .resize_mode(ResizeMode::Blocking)
                .collector(Collector::new().batch_size(1))
                .build(),
            owners: Mutex::default(),
            pending: Mutex::default(),
            wants_all: AtomicBool::new(true),
            read_at: AtomicI64::new(i64::MIN),
            used: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LiveApiKeys {
    /// Looks a key up by its whole text.
    ///
    /// # Errors
    /// Why it is not accepted.
    pub fn accept(&self, text: &[u8], now: Now) -> Result<AcceptedKey, KeyRefused> {
        let id = read_api_key(text).ok_or(KeyRefused::Unknown)?;
        let hash = sha256(text);
        let keys = self.keys.pin();
        let found = keys.get(&id);
        // Compared with something in any case.
        let stored = found.map_or(&[0; 32], |key| &key.hash);
        let is_it = verify_slices_are_equal(stored, &hash).is_ok();
        let key = found.filter(|key| is_it && now.seconds() < key.expires_at).ok_or(KeyRefused::Unknown)?;
        match key.owner.state.load(Acquire) {
            CURRENT => {}
            OUTDATED => return Err(KeyRefused::Outdated),
            _ => return Err(KeyRefused::Unknown),
        }
        let span = u32::try_from(now.seconds() / USES_APART).unwrap_or_default();
        if key.used.load(Relaxed) != span && key.used.swap(span, Relaxed) != span {
            let mut used = lock(&self.used);
            if used.len() < MOST_USES {
                used.push((id, now.time));
            }
        }
        let owner = key.owner.known.clone();
        Ok(AcceptedKey {
            caller: KeyCaller { id, owner, scope: key.scope.clone() },
            expires_at: key.expires_at,
        })
    }

    /// Returns whether a caller's key still is what it was.
    pub fn holds(&self, caller: &KeyCaller, now: Now) -> bool {
        let keys = self.keys.pin();
        keys.get(&caller.id).is_some_and(|key| {
            Arc::ptr_eq(&key.owner.known, &caller.owner)
                && key.owner.state.load(Acquire) == CURRENT
                && now.seconds() < key.expires_at
        })
    }

    /// A key has ended.
    pub(super) fn remove(&self, id: ApiKeyId) {
        self.keys.pin().remove(&id);
    }

    /// There is a new key, which is to be read.
    pub(super) fn is_new(&self, id: ApiKeyId) {
        if !self.keys.pin().contains_key(&id) {
            lock(&self.pending).ids.push(id);
        }
    }

    /// An owner has changed.
    pub(super) fn outdate(&self, owner: UserId) {
        let owners = lock(&self.owners);
        if let Some(known) = owners.get(&owner) {
            known.state.store(OUTDATED, Release);
        }
        // Also of one who is not known: they may be being read.
        lock(&self.pending).owners.push(owner);
    }

    /// All keys are to be read: something that the log said may have been missed.
    pub fn read_all_again(&self) {
        self.wants_all.store(true, Release);
    }

    /// The log is about to be read at `now`. If that was not done for long, all keys are to be read.
    pub fn log_is_read(&self, now: Now) {
        let before = self.read_at.load(Relaxed);
        if before != i64::MIN && now.boot - before > ALL_AFTER {
            self.read_all_again();
        }
    }

    /// The log was read as it was at `now`.
    pub fn log_was_read(&self, now: Now) {
        self.read_at.store(now.boot, Relaxed);
    }

    /// Reads what is to be read again. `has_ended` tells of a key that the log says has ended: the store may have lost that.
    ///
    /// # Errors
    /// When the store fails. What was to be read stays to be read.
    pub async fn refresh(
        &self,
        store: &(impl ApiKeys + ?Sized),
        has_ended: impl Fn(ApiKeyId) -> bool + Send,
    ) -> store::Result<()> {
        let is_due = || {
            let pending = lock(&self.pending);
            self.wants_all.load(Acquire) || !pending.ids.is_empty() || !pending.owners.is_empty()
        };
        if !is_due() {
            return Ok(());
        }
        let _reading = self.reading.lock().await;
        let all = self.wants_all.swap(false, Acquire);
        let which = mem::take(&mut *lock(&self.pending));
        let mut read = Reading::default();
        let selection = Some(&which).filter(|_| !all);
        if let Err(error) = store.read_api_keys(selection, &mut |key| read.take(key)).await {
            let mut pending = lock(&self.pending);
            pending.ids.extend(which.ids);
            pending.owners.extend(which.owners);
            self.wants_all.fetch_or(all, Release);
            return Err(error);
        }
        self.take_over(read, all, &which, has_ended);
        Ok(())
    }

    fn take_over(
        &self,
        read: Reading,
        all: bool,
        which: &ApiKeySelection,
        has_ended: impl Fn(ApiKeyId) -> bool,
    ) {
        let keys = self.keys.pin();
        let Reading { owners: fresh, keys: found, .. } = read;
        let mut owners = lock(&self.owners);
        for changed in &lock(&self.pending).owners {
            // After they were read, perhaps.
            if let Some(owner) = fresh.get(changed) {
                owner.state.store(OUTDATED, Release);
            }
        }
        for (id, owner) in &fresh {
            // Who is as they were, and was not said to have changed, goes on with the callers that are known.
            match owners.get(id) {
                Some(known)
                    if known.known == owner.known
                        && known.state.load(Acquire) == CURRENT
                        && owner.state.load(Acquire) == CURRENT => {}
                _ => {
                    if let Some(before) = owners.insert(*id, owner.clone()) {
                        before.state.store(REPLACED, Release);
                    }
                }
            }
        }
        for owner in &which.owners {
            if !fresh.contains_key(owner)
                && let Some(before) = owners.remove(owner)
            {
                before.state.store(REPLACED, Release);
            }
        }
        let seen = all
            .then(|| found.iter().map(|(id, _)| *id).collect::<std::collections::HashSet<_, RandomState>>());
        for (id, mut key) in found {
            if let Some(owner) = owners.get(&key.owner.known.id) {
                key.owner = owner.clone();
            }
            let is_same = |known: &Key| {
                Arc::ptr_eq(&known.owner, &key.owner)
                    && known.hash == key.hash
                    && known.scope == key.scope
                    && known.expires_at == key.expires_at
            };
            if keys.get(&id).is_some_and(is_same) {
                continue;
            }
            keys.insert(id, key);
            // Looked at after it is there: an entry that comes now finds it.
            if has_ended(id) {
                keys.remove(&id);
            }
        }
        if let Some(seen) = seen {
            keys.retain(|id, _| seen.contains(id));
            owners.retain(|id, _| fresh.contains_key(id));
        }
    }

    /// Takes the uses that are to be noted.
    pub fn take_used(&self) -> Vec<(ApiKeyId, UnixMillis)> {
        mem::take(&mut *lock(&self.used))
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }
}

/// Keys as they come from the store.
#[derive(Default)]
struct Reading {
    owners: Owners,
    keys: Vec<(ApiKeyId, Key)>,
    /// Keys of the same limits share them.
    scopes: HashMap<String, Arc<KeyScope>, RandomState>,
}

impl Reading {
    fn take(&mut self, key: LiveApiKey) {
        let LiveApiKey { id, hash, limits, expires_at, owner, name, roles, external_id } = key;
        // One whose limits cannot be read opens nothing.
        let Some(scope) = self.scope(limits) else {
            return tracing::error!(
                api_key.prefix = id.prefix(),
                "an API key has limits that cannot be read"
            );
        };
        let owner = self.owners.entry(owner).or_insert_with(|| {
            let known = Arc::new(KeyOwner { id: owner, name, roles, external_id });
            Arc::new(Owner { known, state: AtomicU8::new(CURRENT) })
        });
        let expires_at = expires_at.map_or(i64::MAX, |at| at.div_euclid(1_000));
        let key = Key { hash, owner: owner.clone(), scope, expires_at, used: AtomicU32::new(0) };
        self.keys.push((id, key));
    }

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
