//! What runs beside the workers: the store, the keys, the mirror, and the calls below `auth.path`.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock, atomic::Ordering::Relaxed},
    time::Duration,
};

use bytes::Bytes;
use http::Response;
use thiserror::Error;
use tokio::runtime::Handle;

use super::{
    background::{follow, learn_schemes, sweep, tidy},
    load::LoadedGateway,
    vault::{Vault, VaultFault, open_vault},
};
use crate::{
    access::{Access, Failure},
    account::{Accounts, Attempts, Keys, KeysError, Operator, Postman},
    admin::{self, AdminApi},
    auth_api::{self, AuthApi},
    clock::{Clock, SystemClock, TimeKeeper},
    config::{self, Config},
    error::{Kind, Problem, Statuses},
    gateway::{Drain, Gateway, OwnCall, OwnCalls},
    limit::{CallGate, Prefix},
    mail::MailSetupError,
    password::{HashError, Hasher, Rules},
    revocation::{Cut, Follower, Mirror, Staleness},
    store::{self, Hints, Store, StoreError},
    telemetry::{Logs, Metrics},
    token::{Issuer, Keyring, RootSecret, Verifier},
    types::{OsRandom, Random},
};

/// How many mails are on their way at once: a slow server holds up no more.
const POSTMEN: usize = 4;

/// Calls below `auth.path` that run at once. Each waits for the store or a password worker most of its time.
const MAX_CALLS: usize = 512;

/// How long to wait for a store that is away at the start.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Why the gateway cannot start.
#[derive(Debug, Error)]
pub enum StartFault {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The master key.
    #[error(transparent)]
    Vault(#[from] VaultFault),
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

impl StartFault {
    /// Whether waiting may help.
    fn is_passing(&self) -> bool {
        let store = match self {
            Self::Store(error)
            | Self::Vault(VaultFault::Store(error))
            | Self::Keys(KeysError::Store(error)) => error,
            _ => return false,
        };
        matches!(store, StoreError::Away(_) | StoreError::OutcomeUnknown(_))
    }
}

/// What the admin listener reports on: there from the start, filled in once all is loaded.
pub(super) struct Shared {
    pub(super) metrics: Arc<Metrics>,
    pub(super) drain: Drain,
    pub(super) loaded: OnceLock<Arc<Gateway>>,
    pub(super) time: Arc<TimeKeeper>,
    pub(super) mirror: Arc<Mirror>,
    logs: Logs,
    gate: OnceLock<Arc<CallGate>>,
    admin_api: OnceLock<Arc<AdminApi>>,
}

impl Shared {
    pub(super) fn new(config: &Config, metrics: Arc<Metrics>, logs: Logs) -> Self {
        Self {
            metrics,
            logs,
            gate: OnceLock::new(),
            drain: Drain::default(),
            loaded: OnceLock::new(),
            admin_api: OnceLock::new(),
            time: Arc::new(TimeKeeper::new(Arc::new(SystemClock))),
            mirror: Arc::new(Mirror::new(config.revocation.max_staleness)),
        }
    }
}

impl admin::Status for Shared {
    fn ready(&self) -> Result<(), &'static str> {
        if self.drain.is_announced() {
            return Err("draining");
        }
        if self.loaded.get().is_none() {
            return Err("keys and revocations are not loaded");
        }
        match self.mirror.staleness(self.time.now()) {
            Staleness::NeverLoaded => Err("keys and revocations are not loaded"),
            Staleness::Stale => Err("the revocation mirror is stale"),
            Staleness::Fresh if self.time.skew() > TimeKeeper::MAX_SKEW_MILLIS => {
                Err("the clock is apart from the store's")
            }
            Staleness::Fresh => Ok(()),
        }
    }

    fn metrics(&self) -> Vec<u8> {
        self.metrics.revocation_entries.set(self.mirror.len() as i64);
        let lag = self.mirror.lag(self.time.now());
        self.metrics.revocation_lag_seconds.set(lag.map_or(f64::INFINITY, |lag| lag as f64 / 1_000.0));
        self.metrics.open_connections.set(self.drain.live() as i64);
        self.metrics.resting_connections.set(self.drain.resting() as i64);
        self.metrics.builtin_calls.set(self.gate.get().map_or(0, |gate| gate.running() as i64));
        self.metrics.log_lines_lost(self.logs.lost());
        if let Some(gateway) = self.loaded.get() {
            self.metrics.connections_refused("address", gateway.refused_connections());
            for upstream in gateway.upstreams() {
                let (name, connections) = (&upstream.config.name, upstream.connections());
                self.metrics.upstream_connections(name, "active", connections.active);
                self.metrics.upstream_connections(name, "idle", connections.idle);
                self.metrics.upstream_connections(name, "waiting", connections.waiting);
                self.metrics.upstream_aborted(name, upstream.aborted.load(Relaxed));
            }
        }
        self.metrics.live_streams.set(self.mirror.live().len() as i64);
        for cut in Cut::ALL {
            self.metrics.streams_cut(cut.reason(), self.mirror.live().cuts(cut));
        }
        self.metrics.render()
    }

    fn api(&self) -> Option<Arc<AdminApi>> {
        self.admin_api.get().cloned()
    }
}

/// For a hash that an operator asks for.
const OPERATOR_PATIENCE: Duration = Duration::from_secs(300);

/// Opens the store of a config, its schema up to date.
///
/// # Errors
/// [`StartFault`].
pub async fn open_store(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, StartFault> {
    let store = store::open(&config.store, clock)?;
    prepare_schema(config, &*store).await?;
    Ok(store)
}

/// What the command line does to accounts and keys, and what the master key opens for that.
///
/// # Errors
/// [`StartFault`].
pub async fn open_operator(config: &Config, clock: Arc<dyn Clock>) -> Result<(Operator, Vault), StartFault> {
    let store = open_store(config, clock.clone()).await?;
    let random: Arc<dyn Random> = Arc::new(OsRandom);
    let vault = open_vault(&config.auth, &*store, random.clone()).await?;
    let metrics = Metrics::new().map_err(|error| HashError::Failed(error.to_string()))?;
    let password = &config.auth.password;
    // Nobody waits behind it: one at a time, for as long as a busy machine needs.
    let own = config::Password { workers: 1, queue_timeout: OPERATOR_PATIENCE, ..password.clone() };
    let operator = Operator {
        store,
        hasher: Arc::new(Hasher::start(&own, random.clone(), Arc::new(metrics))?),
        rules: Rules { min_length: password.min_length, reject_common: password.reject_common },
        usernames: config.auth.username.clone(),
        clock,
        random,
        gateway: None,
    };
    Ok((operator, vault))
}

async fn prepare_schema(config: &Config, store: &dyn Store) -> store::Result<()> {
    if config.store.migrate { store.migrate().await } else { store.check_schema().await }
}

/// Loads everything that nothing may be served without, waiting for a store that is away.
///
/// # Errors
/// What waiting does not mend.
///
/// What keeps the mirror true runs on `vital`, where no client's work does; the rest on the runtime that this is
/// called on.
pub(super) async fn start(
    loaded: LoadedGateway,
    shared: Arc<Shared>,
    hasher: Arc<Hasher>,
    vital: Handle,
) -> Result<Arc<Gateway>, StartFault> {
    let config = &loaded.config;
    let store = store::open(&config.store, shared.time.clone())?;
    let random: Arc<dyn Random> = Arc::new(OsRandom);
    let gateway = uuid::Builder::from_random_bytes(random.bytes()).into_uuid();
    let follower = Follower::new(store.clone(), shared.mirror.clone(), shared.time.clone(), gateway);
    let follower = Arc::new(tokio::sync::Mutex::new(follower));
    let mut waiting = false;
    let (keys, root, keyring, hints) = loop {
        match load(config, &store, random.clone(), &hasher, &follower, &vital).await {
            Ok(loaded) => break loaded,
            Err(fault) if fault.is_passing() => {
                if !waiting {
                    tracing::warn!(error = %fault, "waiting for the store");
                    waiting = true;
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
            Err(fault) => return Err(fault),
        }
    };
    let auth = &config.auth;
    let verifier = Arc::new(Verifier::new(&auth.issuer, &auth.audience, Arc::new(keyring)));
    let access =
        || Access::new(verifier.clone(), shared.mirror.clone(), shared.time.clone(), shared.metrics.clone());
    let mail = match &auth.email {
        Some(email) => {
            let (postman, desk) = Postman::new(email, store.clone(), root.mail_tokens())?;
            let postman = Arc::new(postman);
            for _ in 0..POSTMEN {
                tokio::spawn(postman.clone().work());
            }
            Some(desk)
        }
        None => None,
    };
    let accounts = Arc::new(Accounts {
        config: auth.clone(),
        store: store.clone(),
        hasher: hasher.clone(),
        attempts: Attempts::new(store.clone(), shared.time.clone(), auth.throttle),
        mail,
        issuer: Issuer::new(
            &auth.issuer,
            &auth.audience,
            auth.access_token_ttl,
            verifier.clone(),
            random.clone(),
        ),
        refresh_tokens: root.refresh_tokens(),
        device_tokens: root.device_tokens(),
        mirror: shared.mirror.clone(),
        time: shared.time.clone(),
        random,
    });
    let keys = Arc::new(keys);
    let operator = Operator {
        store: store.clone(),
        hasher: hasher.clone(),
        rules: Rules { min_length: auth.password.min_length, reject_common: auth.password.reject_common },
        usernames: auth.username.clone(),
        clock: shared.time.clone(),
        random: Arc::new(OsRandom),
        gateway: Some((shared.mirror.clone(), auth.access_token_ttl)),
    };
    let admin_api =
        AdminApi::new(operator, access(), keys.clone(), verifier.clone(), auth.default_roles.clone());
    let jwks_max_age = config.revocation.max_staleness.as_secs();
    let api = AuthApi::new(&auth.path, accounts, Arc::new(access()), verifier.clone(), jwks_max_age);
    let gate = CallGate::new(MAX_CALLS);
    let _ = shared.gate.set(gate.clone());
    let own_calls = Arc::new(OnControl { api: Arc::new(api), runtime: Handle::current(), gate });
    let control = Handle::current();
    vital.spawn(follow(follower, hints, keys, verifier.clone(), store.clone(), shared.clone(), control));
    vital.spawn(sweep(shared.clone()));
    tokio::spawn(tidy(store, hasher, shared.time.clone(), config.keep_audit));
    // Nothing sets it twice: there is one start.
    let _ = shared.admin_api.set(Arc::new(admin_api));
    let access_log = shared.logs.access.clone();
    let gateway =
        Gateway::new(config, loaded.routes, access(), own_calls, shared.metrics.clone(), access_log);
    Ok(Arc::new(gateway))
}

async fn load(
    config: &Config,
    store: &Arc<dyn Store>,
    random: Arc<dyn Random>,
    hasher: &Hasher,
    follower: &Arc<tokio::sync::Mutex<Follower>>,
    vital: &Handle,
) -> Result<(Keys, RootSecret, Keyring, Option<Hints>), StartFault> {
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
    let keys = Keys::new(store.clone(), masters, &config.auth, &config.revocation);
    let keyring = keys.load_or_create().await?;
    learn_schemes(&**store, hasher).await?;
    let follower = follower.clone();
    on(vital, async move { follower.lock().await.poll(true).await }).await?;
    Ok((keys, root, keyring, hints))
}

/// Runs work of the store on another runtime, where the connections that it makes stay.
async fn on<T: Send + 'static>(
    runtime: &Handle,
    work: impl Future<Output = store::Result<T>> + Send + 'static,
) -> store::Result<T> {
    runtime.spawn(work).await.unwrap_or_else(|error| Err(StoreError::Failed(error.to_string())))
}

/// Calls below `auth.path` run beside the workers, and to their end.
struct OnControl {
    api: Arc<AuthApi>,
    runtime: Handle,
    gate: Arc<CallGate>,
}

impl OwnCalls for OnControl {
    fn max_body(&self) -> u64 {
        auth_api::MAX_BODY
    }

    fn call(&self, call: OwnCall) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send>> {
        let api = self.api.clone();
        let id = call.request_id.clone();
        let Some(admitted) = self.gate.admit(Prefix::of(call.client)) else {
            let request_id = id.to_str().unwrap_or_default();
            let refused = Failure::from(Kind::Unavailable).answer(request_id, &Statuses::default());
            return Box::pin(async { refused });
        };
        // A task of its own: dropping the handle, when the client hangs up, does not stop it.
        let task = self.runtime.spawn(async move {
            let _admitted = admitted;
            let request_id = call.request_id.to_str().unwrap_or_default();
            api.handle(call.request, call.client, request_id).await
        });
        Box::pin(async move {
            task.await.unwrap_or_else(|error| {
                tracing::error!(%error, "a call below auth.path ended without an answer");
                let kind = Kind::Internal;
                let body = Problem::new(kind, None, id.to_str().unwrap_or_default()).to_json();
                let mut response = Response::new(Bytes::from(body));
                *response.status_mut() = kind.status();
                response
            })
        })
    }
}
