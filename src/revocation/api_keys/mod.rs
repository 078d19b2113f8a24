//! The API keys that live, all of them in memory: a decision about one asks nobody.
//!
//! What is required:
//! - The set is read with the log, and read again where the log says that a key is new, or its owner another. A key that has ended is gone
//!   with its entry, as a session is.
//! - From the moment that an owner is known to have changed until they are read again, their keys are refused: their roles may
//!   have been taken away.
//! - A look-up takes no lock, and as long for a key that does not exist.

mod record;

use std::{
    collections::HashSet,
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicI64,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
};

use foldhash::fast::RandomState;
use papaya::ResizeMode;
use seize::Collector;

use self::record::{Digest, Key, Owners, Reading};
use crate::{
    clock::{Now, UnixMillis},
    store::{self, ApiKeySelection, ApiKeys},
    token::{KeyCaller, KeyOwner, Standing},
    types::{ApiKeyId, UserId, hash::sha256, read_api_key},
};

/// Uses of a key are noted once in so many seconds.
const USES_APART: i64 = 20;

/// The uses that are remembered until they are noted in the store.
const MOST_USES: usize = 100_000;

/// After a pause of this length, in milliseconds, all keys are read: the log keeps entries about new keys and changed owners for ten
/// minutes.
const ALL_AFTER: i64 = 300_000;

/// The most readings in a row.
const MOST_READINGS: usize = 3;

/// The most keys that are taken over without giving way to other tasks.
const PIECE: usize = 10_000;

/// Keys and owners that are to be read again; owners with the generation that they are of since.
#[derive(Default)]
struct Pending {
    ids: Vec<ApiKeyId>,
    owners: Vec<(UserId, i64)>,
}

type Keys = papaya::HashMap<ApiKeyId, Key, RandomState>;

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
    pending: Mutex<Pending>,
    wants_all: AtomicBool,
    is_behind: AtomicBool,
    /// Whether what claims say of owners is kept.
    keeps_further: AtomicBool,
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
            is_behind: AtomicBool::new(false),
            keeps_further: AtomicBool::new(false),
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
        let hash = Digest::of(&sha256(text));
        let keys = self.keys.pin();
        let found = keys.get(&id);
        // An unknown key costs a comparison, too.
        let stored = found.map_or(&Digest::NONE, |key| &key.hash);
        let is_it = stored.is(&hash);
        let key =
            found.filter(|key| is_it && now.seconds() < key.expires.seconds()).ok_or(KeyRefused::Unknown)?;
        match key.owner.standing() {
            Standing::Current => {}
            Standing::Outdated => return Err(KeyRefused::Outdated),
            Standing::Replaced => return Err(KeyRefused::Unknown),
        }
        let span = u32::try_from(now.seconds() / USES_APART).unwrap_or_default();
        if key.used.load(Relaxed) != span && key.used.swap(span, Relaxed) != span {
            let mut used = lock(&self.used);
            if used.len() < MOST_USES {
                used.push((id, now.time));
            }
        }
        let caller = KeyCaller { id, owner: key.owner.clone(), scope: key.scope.clone() };
        Ok(AcceptedKey { caller, expires_at: key.expires.seconds() })
    }

    /// Returns whether a caller's key still is what it was.
    pub fn holds(&self, caller: &KeyCaller, now: Now) -> bool {
        let keys = self.keys.pin();
        keys.get(&caller.id).is_some_and(|key| {
            key.owner.has_rights_of(&caller.owner)
                && key.owner.standing() == Standing::Current
                && now.seconds() < key.expires.seconds()
        })
    }

    /// Removes a key that has ended.
    pub(super) fn remove(&self, id: ApiKeyId) {
        self.keys.pin().remove(&id);
    }

    /// Has a new key read.
    pub(super) fn add(&self, id: ApiKeyId) {
        if !self.keys.pin().contains_key(&id) {
            lock(&self.pending).ids.push(id);
        }
    }

    /// Refuses the keys of an owner, who has changed and has this generation since, until they are read again. With the generation 0 they
    /// are read again and not refused: nothing was taken away.
    pub(super) fn outdate(&self, owner: UserId, generation: i64) {
        if generation == 0 {
            return lock(&self.pending).owners.push((owner, generation));
        }
        let owners = lock(&self.owners);
        if let Some(known) = owners.get(&owner) {
            if known.generation() >= generation {
                // It is known; entries are told more than once.
                return;
            }
            known.set_standing(Standing::Outdated);
        }
        // Also for an unknown owner, who may be being read at this moment.
        lock(&self.pending).owners.push((owner, generation));
    }

    /// Sets whether what claims say of owners is kept. If it was not, all keys are read again.
    pub fn keep_further(&self, keep: bool) {
        if !self.keeps_further.swap(keep, AcqRel) && keep {
            self.read_all_again();
        }
    }

    /// Has all keys read: an entry of the log may have been missed.
    pub fn read_all_again(&self) {
        self.wants_all.store(true, Release);
    }

    /// Notes that the log is about to be read at `now`. After a long pause all keys are to be read before any is accepted.
    pub fn begin_log(&self, now: Now) {
        let before = self.read_at.load(Relaxed);
        if before != i64::MIN && now.boot - before > ALL_AFTER {
            self.is_behind.store(true, Release);
            self.read_all_again();
        }
    }

    /// Notes that the log was read as it was at `now`.
    pub fn end_log(&self, now: Now) {
        self.read_at.store(now.boot, Relaxed);
    }

    /// Returns whether changes may have been missed, until all keys are read.
    pub fn is_behind(&self) -> bool {
        self.is_behind.load(Acquire)
    }

    /// Returns whether any keys are to be read.
    pub fn is_due(&self) -> bool {
        let pending = lock(&self.pending);
        self.wants_all.load(Acquire) || !pending.ids.is_empty() || !pending.owners.is_empty()
    }

    /// Reads what is to be read again; with `waits`, after whoever reads now. `has_ended` tells of a key that the log says has ended: the
    /// store may have lost that.
    ///
    /// # Errors
    /// When the store fails. What was to be read stays to be read.
    pub(super) async fn refresh(
        &self,
        store: &(impl ApiKeys + ?Sized),
        waits: bool,
        has_ended: impl Fn(ApiKeyId) -> bool + Send + Sync,
    ) -> store::Result<()> {
        let _reading = match self.reading.try_lock() {
            Ok(reading) => reading,
            Err(_) if waits => self.reading.lock().await,
            Err(_) => return Ok(()),
        };
        // What changes meanwhile is read at once, but not without end: the next poll goes on.
        for _ in 0..MOST_READINGS {
            if !self.is_due() {
                break;
            }
            self.read_once(store, &has_ended).await?;
        }
        Ok(())
    }

    async fn read_once(
        &self,
        store: &(impl ApiKeys + ?Sized),
        has_ended: &(impl Fn(ApiKeyId) -> bool + Send + Sync),
    ) -> store::Result<()> {
        let all = self.wants_all.swap(false, Acquire);
        let pending = mem::take(&mut *lock(&self.pending));
        let owners: Vec<UserId> = pending.owners.iter().map(|(owner, _)| *owner).collect();
        let which = ApiKeySelection { ids: pending.ids.clone(), owners };
        let mut read = Reading::new(self.keeps_further.load(Acquire));
        let selection = Some(&which).filter(|_| !all);
        if let Err(error) = store.read_api_keys(selection, &mut |key| read.take(key)).await {
            let mut again = lock(&self.pending);
            again.ids.extend(pending.ids);
            again.owners.extend(pending.owners);
            self.wants_all.fetch_or(all, Release);
            return Err(error);
        }
        let Reading { owners: fresh, keys: mut found, .. } = read;
        let replaced = self.take_owners(&fresh, all, &which);
        let seen: HashSet<ApiKeyId, RandomState> =
            if all { found.iter().map(|(id, _)| *id).collect() } else { HashSet::default() };
        while !found.is_empty() {
            self.take_keys(found.split_off(found.len().saturating_sub(PIECE)), has_ended);
            tokio::task::yield_now().await;
        }
        for owner in replaced {
            owner.set_standing(Standing::Replaced);
        }
        if all {
            self.keys.pin().retain(|id, _| seen.contains(id));
            lock(&self.owners).retain(|owner| fresh.contains(&owner.id));
            self.is_behind.store(false, Release);
        }
        Ok(())
    }

    /// Takes over the owners that were read. Returns those that they replace.
    fn take_owners(&self, fresh: &Owners, all: bool, which: &ApiKeySelection) -> Vec<Arc<KeyOwner>> {
        let mut owners = lock(&self.owners);
        let mut pending = lock(&self.pending);
        for (changed, generation) in &pending.owners {
            // The change may be later than what was read.
            if let Some(owner) = fresh.get(changed).filter(|owner| owner.generation() < *generation) {
                owner.set_standing(Standing::Outdated);
            }
        }
        if owners.is_empty() {
            // As the rest does, and none of its lists has room for more.
            *owners = fresh.clone();
            return Vec::new();
        }
        let mut replaced = Vec::new();
        for owner in fresh.iter() {
            let known = owners.get(&owner.id);
            let is_as_before = known.is_some_and(|known| {
                known.is_like(owner)
                    && known.standing() == Standing::Current
                    && owner.standing() == Standing::Current
            });
            if is_as_before {
                continue;
            }
            if let Some(known) = known.filter(|_| !all && !which.owners.contains(&owner.id)) {
                // Only some of their keys were read.
                if !known.has_rights_of(owner) {
                    known.set_standing(Standing::Outdated);
                }
                pending.owners.push((owner.id, owner.generation()));
                continue;
            }
            if let Some(before) = owners.replace(owner.clone()) {
                if !before.has_rights_of(owner) {
                    before.set_standing(Standing::Outdated);
                }
                replaced.push(before);
            }
        }
        let is_gone = |owner: &&UserId| !fresh.contains(owner);
        replaced.extend(which.owners.iter().filter(is_gone).filter_map(|owner| owners.remove(owner)));
        replaced
    }

    fn take_keys(&self, found: Vec<(ApiKeyId, Key)>, has_ended: &impl Fn(ApiKeyId) -> bool) {
        let keys = self.keys.pin();
        for (id, mut key) in found {
            let mut owners = lock(&self.owners);
            match owners.get(&key.owner.id) {
                Some(known) => key.owner = known.clone(),
                None => drop(owners.replace(key.owner.clone())),
            }
            drop(owners);
            let is_same = |known: &Key| {
                Arc::ptr_eq(&known.owner, &key.owner)
                    && known.hash == key.hash
                    && known.scope == key.scope
                    && known.expires == key.expires
            };
            if keys.get(&id).is_some_and(is_same) {
                continue;
            }
            keys.insert(id, key);
            // After the insertion: an entry of the log that comes now finds the key.
            if has_ended(id) {
                keys.remove(&id);
            }
        }
    }

    /// Forgets keys that have expired, and owners of none.
    pub(super) fn prune(&self, now: Now) {
        self.keys.pin().retain(|_, key| now.seconds() < key.expires.seconds());
        // The set of owners has one reference itself.
        lock(&self.owners).retain(|owner| Arc::strong_count(owner) > 1);
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

#[cfg(test)]
mod tests {
    use async_trait::async_trait;

    use super::*;
    use crate::{
        store::{
            ApiKey, ApiKeyAdded, ApiKeyLimits, ApiKeyPage, ApiKeySink, Event, LiveApiKey, LogEntry,
            NewApiKey, Result,
        },
        types::{Attributes, NewApiKeyText, OsRandom, Roles},
    };

    /// The keys of a store, and what happens while they are read.
    struct Stored<'a> {
        keys: Vec<LiveApiKey>,
        meanwhile: &'a (dyn Fn() + Sync),
    }

    #[async_trait]
    impl ApiKeys for Stored<'_> {
        async fn read_api_keys(&self, which: Option<&ApiKeySelection>, sink: ApiKeySink<'_>) -> Result<()> {
            let is_wanted = |key: &&LiveApiKey| {
                which.is_none_or(|which| which.ids.contains(&key.id) || which.owners.contains(&key.owner))
            };
            self.keys.iter().filter(is_wanted).cloned().for_each(sink);
            (self.meanwhile)();
            Ok(())
        }

        async fn add_api_key(&self, _: UserId, _: i64, _: &NewApiKey, _: &Event) -> Result<ApiKeyAdded> {
            Ok(ApiKeyAdded::Gone)
        }

        async fn api_keys(&self, _: UserId, _: ApiKeyPage) -> Result<Vec<ApiKey>> {
            Ok(Vec::new())
        }

        async fn end_api_key(&self, _: UserId, _: ApiKeyId, _: &Event) -> Result<Option<LogEntry>> {
            Ok(None)
        }

        async fn note_api_keys_used(&self, _: &[(ApiKeyId, UnixMillis)]) -> Result<()> {
            Ok(())
        }
    }

    fn at(seconds: i64) -> Now {
        Now { time: seconds * 1_000, wall: seconds * 1_000, boot: seconds * 1_000 }
    }

    fn key(owner: UserId, roles: &str, generation: i64) -> (NewApiKeyText, LiveApiKey) {
        let new = NewApiKeyText::generate(&OsRandom);
        let live = LiveApiKey {
            id: new.id,
            hash: new.hash,
            limits: ApiKeyLimits::default(),
            expires_at: None,
            owner,
            name: "ann".to_owned(),
            roles: Roles::parse_joined(roles).unwrap(),
            external_id: None,
            generation,
            email: None,
            email_verified: false,
            attributes: Attributes::default(),
        };
        (new, live)
    }

    async fn read(live: &LiveApiKeys, keys: Vec<LiveApiKey>, meanwhile: &(dyn Fn() + Sync)) {
        live.refresh(&Stored { keys, meanwhile }, true, |_| false).await.unwrap();
    }

    fn roles(live: &LiveApiKeys, key: &NewApiKeyText) -> std::result::Result<String, KeyRefused> {
        let accepted = live.accept(key.text.expose().as_bytes(), at(1))?;
        Ok(accepted.caller.owner.about.roles.to_string())
    }

    #[tokio::test]
    async fn keys_of_an_owner_who_has_changed_are_refused_until_they_are_read_again() {
        let (live, owner) = (LiveApiKeys::default(), UserId::generate(1, &OsRandom));
        let (text, stored) = key(owner, "admin", 1);
        read(&live, vec![stored.clone()], &|| {}).await;
        assert_eq!(roles(&live, &text).as_deref(), Ok("admin"));
        live.outdate(owner, 2);
        assert_eq!(roles(&live, &text), Err(KeyRefused::Outdated));
        let lowered = LiveApiKey { roles: Roles::parse_joined("user").unwrap(), generation: 2, ..stored };
        read(&live, vec![lowered.clone()], &|| {}).await;
        assert_eq!(roles(&live, &text).as_deref(), Ok("user"));
        // The same entry is told again.
        live.outdate(owner, 2);
        assert_eq!(roles(&live, &text).as_deref(), Ok("user"));
        live.outdate(owner, 3);
        read(&live, Vec::new(), &|| {}).await;
        assert_eq!(roles(&live, &text), Err(KeyRefused::Unknown));
    }

    #[tokio::test]
    async fn a_change_while_an_owner_is_read_is_not_lost() {
        let (live, owner) = (LiveApiKeys::default(), UserId::generate(1, &OsRandom));
        let (text, stored) = key(owner, "admin", 1);
        let told = AtomicBool::new(false);
        let meanwhile = || {
            if !told.swap(true, Relaxed) {
                live.outdate(owner, 2);
            }
        };
        // What the store says is older than the change, each time.
        read(&live, vec![stored.clone()], &meanwhile).await;
        assert!(told.load(Relaxed));
        let lowered = LiveApiKey { roles: Roles::parse_joined("user").unwrap(), generation: 2, ..stored };
        live.outdate(owner, 2);
        read(&live, vec![lowered], &|| {}).await;
        assert_eq!(roles(&live, &text).as_deref(), Ok("user"));
    }

    #[tokio::test]
    async fn one_key_that_is_read_shows_that_its_owner_has_changed() {
        let (live, owner) = (LiveApiKeys::default(), UserId::generate(1, &OsRandom));
        let (first, stored) = key(owner, "admin", 1);
        read(&live, vec![stored.clone()], &|| {}).await;
        let lowered = |key: LiveApiKey| LiveApiKey {
            roles: Roles::parse_joined("user").unwrap(),
            generation: 2,
            ..key
        };
        let (second, new) = key(owner, "user", 2);
        live.add(second.id);
        read(&live, vec![lowered(stored), new], &|| {}).await;
        assert_eq!(roles(&live, &first).as_deref(), Ok("user"));
        assert_eq!(roles(&live, &second).as_deref(), Ok("user"));
    }

    #[tokio::test]
    async fn what_has_expired_is_forgotten_with_its_owner() {
        let (live, owner) = (LiveApiKeys::default(), UserId::generate(1, &OsRandom));
        let (text, stored) = key(owner, "user", 1);
        read(&live, vec![LiveApiKey { expires_at: Some(5_000), ..stored }], &|| {}).await;
        assert!(roles(&live, &text).is_ok());
        assert_eq!(live.accept(text.text.expose().as_bytes(), at(5)).err(), Some(KeyRefused::Unknown));
        assert_eq!((live.len(), lock(&live.owners).iter().count()), (1, 1));
        live.prune(at(5));
        assert!(live.is_empty() && lock(&live.owners).iter().next().is_none());
    }

    #[tokio::test]
    async fn a_key_that_the_log_says_has_ended_stays_ended_whatever_the_store_has() {
        let (live, owner) = (LiveApiKeys::default(), UserId::generate(1, &OsRandom));
        let (text, stored) = key(owner, "user", 1);
        let store = Stored { keys: vec![stored], meanwhile: &|| {} };
        live.refresh(&store, true, |id| id == text.id).await.unwrap();
        assert_eq!(roles(&live, &text), Err(KeyRefused::Unknown));
    }
}
