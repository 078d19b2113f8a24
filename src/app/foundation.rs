//! What lives as long as the process, whatever its config comes to say.

use std::{future::Future, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, sync::Mutex};
use uuid::Uuid;

use super::{
    error::StartError,
    process::Process,
    vault::{Vault, open_vault},
};
use crate::{
    account::{AttemptCounts, Keys},
    acme::{self, IssuedCertificates},
    config::Config,
    password::Hasher,
    revocation::Follower,
    store::{self, Hints, Store, StoreError},
    token::{CurrentKeyring, RootSecret},
    types::{OsRandom, Random},
};

/// How long to wait for a store that is away at the start.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// What every snapshot is assembled on.
pub(super) struct Foundation {
    pub(super) process: Arc<Process>,
    pub(super) store: Arc<dyn Store>,
    pub(super) hasher: ArcSwap<Hasher>,
    pub(super) attempts: Arc<AttemptCounts>,
    pub(super) keys: ArcSwap<Keys>,
    pub(super) keyring: Arc<CurrentKeyring>,
    pub(super) root: RootSecret,
    pub(super) random: Arc<dyn Random>,
    /// What tells this process from other gateways.
    pub(super) instance: Uuid,
    /// Obtains certificates.
    pub(super) acme: Arc<acme::Worker>,
    /// Whose turn it is to say who is told of events.
    pub(super) webhook_turn: Arc<Mutex<()>>,
    /// Where calls below `auth.path` run.
    pub(super) calls: Handle,
}

/// What follows the log, and what tells it that the log has grown.
pub(super) struct Followed {
    pub(super) follower: Follower,
    pub(super) hints: Option<Hints>,
}

/// Loads what nothing may be served without, waiting for a store that is away.
///
/// What keeps the mirror true uses connections of `vital`, where no client's work runs; calls of clients will run on the
/// runtime that this is called on.
///
/// # Errors
/// What waiting does not mend.
pub(super) async fn load(
    config: &Config,
    process: Arc<Process>,
    hasher: Arc<Hasher>,
    vital: &Handle,
) -> Result<(Foundation, Followed), StartError> {
    let store = store::open(&config.store, process.time.clone())?;
    let random: Arc<dyn Random> = Arc::new(OsRandom);
    let instance = uuid::Builder::from_random_bytes(random.bytes()).into_uuid();
    let follower = Follower::new(store.clone(), process.mirror.clone(), process.time.clone(), instance);
    let follower = Arc::new(Mutex::new(follower));
    let mut waiting = false;
    let (keys, keyring, root, hints) = loop {
        match try_to_load(config, &store, random.clone(), &hasher, &follower, vital, &process).await {
            Ok(loaded) => break loaded,
            Err(error) if error.is_passing() => {
                if !waiting {
                    tracing::warn!(%error, "waiting for the store");
                    waiting = true;
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Err(error) => return Err(error),
        }
    };
    let masters = keys.masters().clone();
    let certificates = IssuedCertificates::new(store.clone(), masters.clone(), process.challenges.clone());
    let acme = acme::Worker::new(
        store.clone(),
        masters,
        Arc::new(certificates),
        process.time.clone(),
        random.clone(),
        process.metrics.clone(),
    );
    let foundation = Foundation {
        acme: Arc::new(acme),
        attempts: AttemptCounts::new(store.clone(), process.time.clone()),
        webhook_turn: Arc::default(),
        calls: Handle::current(),
        keys: ArcSwap::from_pointee(keys),
        keyring,
        root,
        process,
        store,
        hasher: ArcSwap::new(hasher),
        random,
        instance,
    };
    // The one task that shared it has ended.
    let follower =
        Arc::into_inner(follower).ok_or_else(|| StoreError::Failed("the log is still read".to_owned()))?;
    Ok((foundation, Followed { follower: follower.into_inner(), hints }))
}

async fn try_to_load(
    config: &Config,
    store: &Arc<dyn Store>,
    random: Arc<dyn Random>,
    hasher: &Hasher,
    follower: &Arc<Mutex<Follower>>,
    vital: &Handle,
    process: &Process,
) -> Result<(Keys, Arc<CurrentKeyring>, RootSecret, Option<Hints>), StartError> {
    // Heard from before the log is read: what commits in between is hinted at. And before anything that a pooler
    // without sessions would make fail for no plain reason.
    let hearing = store.clone();
    let hints = on(vital, async move { hearing.hints().await }).await?;
    prepare_schema(config, &**store).await?;
    let Vault { masters, root, is_moved } = open_vault(&config.auth, &**store, random).await?;
    if !is_moved {
        tracing::warn!(
            "the store's secrets are wrapped with auth.previous_master_key: run `authgate key rewrap`"
        );
    }
    let keys = Keys::new(store.clone(), masters, config);
    let keyring = CurrentKeyring::new(keys.load_or_create().await?);
    learn_schemes(&**store, hasher).await?;
    let follower = follower.clone();
    on(vital, async move { follower.lock_owned().await.poll(true).await }).await?;
    let (mirror, reading) = (process.mirror.clone(), store.clone());
    on(vital, async move { mirror.refresh_api_keys(&*reading, true).await }).await?;
    Ok((keys, keyring, root, hints))
}

/// Runs work of the store on another runtime, where the connections that it makes stay.
async fn on<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = store::Result<T>> + Send + 'static,
) -> store::Result<T> {
    runtime.spawn(work).await.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
}

/// Brings the schema up to date, or makes sure that it is.
///
/// # Errors
/// What the store says.
pub(super) async fn prepare_schema(config: &Config, store: &dyn Store) -> store::Result<()> {
    if config.store.migrate { store.migrate().await } else { store.check_schema().await }
}

/// Learns what the hashes that are stored cost.
///
/// # Errors
/// [`StartError`].
pub(super) async fn learn_schemes(store: &dyn Store, hasher: &Hasher) -> Result<(), StartError> {
    store.note_own_scheme(&hasher.own_scheme()).await?;
    Ok(hasher.calibrate(&store.foreign_schemes().await?).await?)
}
