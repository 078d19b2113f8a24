//! Taking up another config while the gateway runs: checked whole, then exchanged at once, or not at all.

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use futures_util::future::join_all;
use thiserror::Error;
use tokio::{
    runtime::Handle,
    sync::Mutex,
    time::{MissedTickBehavior, interval},
};

use super::{
    assemble::{Assembled, Means, assemble},
    decision::failed_tests,
    foundation::{Foundation, learn_schemes},
    inheritance::Inherited,
    listeners::{self, ListenError},
    load::{LoadedGateway, load, load_breached},
    process::Reloads,
};
use crate::{
    account::{MailWorker, SessionReader, WebhookWorker},
    admin::{self, AdminApi},
    config::{Config, ConfigError, ConfigErrors, digest_of, read_file},
    gateway::{Listening, Snapshot},
    oidc::KeyFollower,
    otlp::Exporter,
    password::{Breached, HashError, Hasher},
    store::Event,
    types::OsRandom,
    upstream::Monitor,
};

/// How many mails are on their way at once: a slow server holds up no more.
const MAIL_TASKS: usize = 4;

/// How often the file is looked at. Its contents are compared, not its time: a link that is swapped, as Kubernetes does, may lead
/// to an older file.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long it is waited for that all workers serve by a config. They do within their turns.
const TAKE_UP: Duration = Duration::from_secs(5);

/// Why a config is not taken up. The one that runs goes on.
#[derive(Debug, Error)]
pub(super) enum ReloadError {
    /// It comes from no file.
    #[error("the config of this gateway comes from no file")]
    NoFile,
    /// It is wrong, or needs a restart.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// What it needs could not be made.
    #[error("{0}")]
    Failed(String),
}

/// What was taken up, for the one who asked.
#[derive(Debug)]
pub(super) struct Reloaded {
    /// How many routes there are.
    routes: usize,
    /// Warnings about legal but unwise settings.
    warnings: Vec<String>,
}

/// Takes up other configs.
pub(super) struct Reloader {
    /// The file of the config.
    source: Option<PathBuf>,
    foundation: Arc<Foundation>,
    /// Where nothing of clients runs.
    vital: Handle,
    admin_api: ArcSwap<AdminApi>,
    current: Arc<Mutex<Current>>,
    /// What tells the file that was taken up last, or could not be, from others.
    known: AtomicU64,
}

/// What runs.
struct Current {
    config: Config,
    mail_worker: Option<Arc<MailWorker>>,
    webhook_worker: Arc<WebhookWorker>,
}

impl Reloader {
    /// Begins with the first config, of which `assembled` was made.
    pub(super) async fn begin(
        source: Option<PathBuf>,
        foundation: Arc<Foundation>,
        vital: Handle,
        config: Config,
        digest: u64,
        assembled: Assembled,
    ) -> (Arc<Self>, Arc<Snapshot>) {
        let Assembled {
            snapshot,
            admin_api,
            mail_worker,
            key_followers,
            exporter,
            session_reader,
            webhook_worker,
        } = assembled;
        follow_servers(&vital, &snapshot, None).await;
        follow_keys(&foundation.calls, key_followers).await;
        send_mails(&foundation.calls, mail_worker.as_ref());
        export_traces(&foundation, exporter);
        read_sessions(&foundation, session_reader);
        tell_of_events(&foundation, &webhook_worker).await;
        let reloader = Self {
            source,
            foundation,
            vital,
            admin_api: ArcSwap::new(admin_api),
            current: Arc::new(Mutex::new(Current { config, mail_worker, webhook_worker })),
            known: AtomicU64::new(digest),
        };
        (Arc::new(reloader), snapshot)
    }

    /// Reads the config's file again, and takes it up if all of it can be.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing has changed then.
    pub(super) async fn take_up(&self) -> Result<Reloaded, ReloadError> {
        let result = self.try_to_take_up().await;
        self.foundation.process.metrics.config_reload(result.is_ok());
        match &result {
            Ok(reloaded) => {
                for warning in &reloaded.warnings {
                    tracing::warn!("{warning}");
                }
                tracing::info!(routes = reloaded.routes, "config taken up");
            }
            Err(ReloadError::Config(errors)) => {
                for error in &errors.0 {
                    tracing::error!(%error, "the config cannot be taken up; the one before goes on");
                }
            }
            Err(error) => tracing::error!(%error, "the config cannot be taken up; the one before goes on"),
        }
        result
    }

    /// Takes the config up for a reason that has no operator's name. What is wrong is in the log.
    pub(super) async fn take_up_unasked(&self, reason: &'static str) {
        let is_taken_up = self.take_up().await.is_ok();
        let event = Event {
            actor_id: None,
            actor: String::new(),
            address: None,
            action: if is_taken_up { "config.reload" } else { "config.refuse" },
            detail: reason.to_owned(),
        };
        let store = self.foundation.store.clone();
        // The next config does not wait for a store that is slow.
        self.foundation.calls.spawn(async move {
            if let Err(error) = store.record(None, &event).await {
                tracing::warn!(%error, "the audit trail does not tell of a config");
            }
        });
    }

    async fn try_to_take_up(&self) -> Result<Reloaded, ReloadError> {
        let source = self.source.clone().ok_or(ReloadError::NoFile)?;
        let failed = |error: &dyn std::fmt::Display| ReloadError::Failed(error.to_string());
        // One after the other.
        let mut current = self.current.lock().await;
        let path = source.clone();
        // The routes of a large config take a while; what keeps the mirror true must not wait for them.
        let read = move || {
            let digest = read_file(&path).map(|bytes| digest_of(&bytes));
            (digest, load(&path))
        };
        let (digest, loaded) = self.vital.spawn_blocking(read).await.map_err(|error| failed(&error))?;
        if let Some(digest) = loaded.as_ref().map(|loaded| loaded.digest).ok().or(digest.ok()) {
            self.known.store(digest, Relaxed);
        }
        let loaded = loaded?;
        check(&source, &current.config, &loaded)?;
        let process = &self.foundation.process;
        let running = process.running.get().ok_or_else(|| failed(&"the gateway has not started yet"))?;
        let before = running.snapshots.borrow().clone();
        super::certificates::show_issued(&self.foundation.acme, &loaded).await;
        let acme = loaded.config.acme.clone().zip(loaded.acme_client.clone());
        let listening_before = process.listening.borrow().clone();
        let listening = bind(&source, &loaded, &listening_before, &process.systemd)?;
        let hasher = self.hasher_for(&current.config, &loaded.config).await?;
        let keys = self.foundation.keys.load().for_config(&loaded.config);
        let keys = Arc::new(keys);
        let warnings = loaded.warnings.clone();
        let addresses = loaded.config.own_addresses();
        let (config, parts) = loaded.split();
        let means = Means {
            hasher: hasher.clone().unwrap_or_else(|| self.foundation.hasher.load_full()),
            keys: keys.clone(),
        };
        let assembled = assemble(&self.foundation, &means, &config, parts, Some(&before));
        let assembled = assembled.map_err(|error| failed(&error))?;
        let Assembled {
            snapshot,
            admin_api,
            mail_worker,
            key_followers,
            exporter,
            session_reader,
            webhook_worker,
        } = assembled;
        // Names are looked up, and keys fetched, before anything asks for them.
        follow_servers(&self.vital, &snapshot, Some(&before)).await;
        follow_keys(&self.foundation.calls, key_followers).await;
        let (number, routes) = (snapshot.number(), config.routes.len());
        for cluster in snapshot.upstreams() {
            cluster.set_listeners(addresses.clone());
        }
        // Streams are judged again by the keys that hold from now on.
        if let Err(error) = keys.take_up(&self.foundation.keyring).await {
            tracing::warn!(%error, "the keys are read again with the next poll");
        }
        self.foundation.keys.store(keys);
        self.foundation.acme.set_wanted(acme);
        if !process.exchange(snapshot, listening) {
            return Err(failed(&"the gateway ends"));
        }
        // Nothing fails from here on.
        export_traces(&self.foundation, exporter);
        read_sessions(&self.foundation, session_reader);
        if let Some(hasher) = hasher {
            self.foundation.hasher.store(hasher);
        }
        process.take_up(&config);
        if tokio::time::timeout(TAKE_UP, process.placement.all_take_up(number)).await.is_err() {
            tracing::warn!("a worker has not taken the config up yet");
        }
        self.admin_api.store(admin_api);
        if let Some(before) = current.mail_worker.take() {
            before.stop();
        }
        send_mails(&self.foundation.calls, mail_worker.as_ref());
        current.mail_worker = mail_worker;
        std::mem::replace(&mut current.webhook_worker, webhook_worker.clone()).stop();
        tell_of_events(&self.foundation, &webhook_worker).await;
        current.config = config;
        Ok(Reloaded { routes, warnings })
    }

    /// Returns the password workers that a config wants, if those that run are others.
    async fn hasher_for(&self, before: &Config, wanted: &Config) -> Result<Option<Arc<Hasher>>, ReloadError> {
        let hashes_alike = before.auth.password.hashes_like(&wanted.auth.password);
        let list = self.foundation.hasher.load().breached();
        let (password, metrics) = (wanted.auth.password.clone(), self.foundation.process.metrics.clone());
        let failed = |error: &dyn std::fmt::Display| ReloadError::Failed(error.to_string());
        // On a thread that has not given way: what it gave up its children could not take back.
        let start = move || -> Result<Option<Hasher>, HashError> {
            let wanted_list =
                password.breached.as_ref().map(|list| Breached::identify(&list.path)).transpose()?;
            let has_list = list.as_ref().and_then(|list| list.identity()) == wanted_list;
            if has_list && hashes_alike {
                return Ok(None);
            }
            let list = if has_list { list } else { load_breached(&password)? };
            Hasher::start(&password, list, Arc::new(OsRandom), metrics).map(Some)
        };
        let started = self.vital.spawn_blocking(start).await.map_err(|error| failed(&error))?;
        let Some(hasher) = started.map_err(|error| failed(&error))?.map(Arc::new) else { return Ok(None) };
        learn_schemes(&*self.foundation.store, &hasher).await.map_err(|error| failed(&error))?;
        Ok(Some(hasher))
    }

    /// Takes the file up when it changes, for as long as the process runs.
    pub(super) async fn follow_file(self: Arc<Self>) {
        let Some(source) = self.source.clone() else { return };
        let mut looks = Looks::default();
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let path = source.clone();
            let read = move || read_file(&path).map(|bytes| digest_of(&bytes));
            let Ok(Ok(digest)) = tokio::task::spawn_blocking(read).await else { continue };
            if looks.finds_change(digest, self.known.load(Relaxed)) {
                self.take_up_unasked("its file changed").await;
            }
        }
    }
}

impl Reloads for Reloader {
    fn pause(&self) -> Pin<Box<dyn Future<Output = Box<dyn Send>> + Send + '_>> {
        let current = self.current.clone();
        Box::pin(async { Box::new(current.lock_owned().await) as Box<dyn Send> })
    }

    fn admin_api(&self) -> Arc<AdminApi> {
        self.admin_api.load_full()
    }

    fn reload(&self) -> admin::Reload<'_> {
        Box::pin(async {
            match self.take_up().await {
                Ok(reloaded) => Ok(reloaded.warnings),
                Err(ReloadError::Config(errors)) => Err(errors.0.iter().map(ToString::to_string).collect()),
                Err(error) => Err(vec![error.to_string()]),
            }
        })
    }
}

/// What the file said when it was looked at last, if that was new.
#[derive(Default)]
struct Looks(Option<u64>);

impl Looks {
    /// Returns whether the file is another than the one that is `known`, and its writer has come to an end: it says the same as a
    /// look ago.
    fn finds_change(&mut self, digest: u64, known: u64) -> bool {
        let is_new = digest != known;
        let is_whole = self.0 == Some(digest);
        self.0 = is_new.then_some(digest);
        is_new && is_whole
    }
}

/// Checks what no config can be checked for by itself.
fn check(source: &Path, before: &Config, loaded: &LoadedGateway) -> Result<(), ConfigErrors> {
    let mut errors = failed_tests(loaded);
    let keys = before.needs_restart(&loaded.config).into_iter();
    errors.extend(keys.map(|key| error_of(source, key, "has changed, which needs a restart")));
    if errors.is_empty() { Ok(()) } else { Err(ConfigErrors(errors)) }
}

/// Binds the sockets that are new, and lets clients come to them.
fn bind(
    source: &Path,
    loaded: &LoadedGateway,
    before: &[Listening],
    inherited: &Inherited,
) -> Result<Vec<Listening>, ConfigErrors> {
    let error = |error: ListenError| ConfigErrors(vec![error_of(source, "listeners", error.to_string())]);
    let bound = listeners::bind(&loaded.config.listeners, &loaded.tls, before, inherited).map_err(error)?;
    let is_new = |wanted: &&Listening| !before.iter().any(|known| Arc::ptr_eq(&known.socket, &wanted.socket));
    listeners::listen(bound.iter().filter(is_new), "listening").map_err(error)?;
    Ok(bound)
}

fn error_of(source: &Path, key: &str, problem: impl Into<String>) -> ConfigError {
    ConfigError {
        file: source.display().to_string(),
        line: 0,
        key: key.to_owned(),
        found: None,
        problem: problem.into(),
    }
}

/// Follows the servers of upstreams that were not there `before`.
async fn follow_servers(vital: &Handle, snapshot: &Snapshot, before: Option<&Snapshot>) {
    let known = before.map_or(&[][..], Snapshot::upstreams);
    let fresh =
        snapshot.upstreams().iter().filter(|cluster| !known.iter().any(|known| Arc::ptr_eq(known, cluster)));
    for monitor in join_all(fresh.map(Monitor::start)).await {
        vital.spawn(monitor.follow());
    }
}

/// Follows the keys of other issuers. Waits for a moment until they are there.
async fn follow_keys(runtime: &Handle, followers: Vec<KeyFollower>) {
    let first = followers.iter().map(KeyFollower::first_fetch).collect::<Vec<_>>();
    for follower in followers {
        runtime.spawn(follower.follow());
    }
    join_all(first).await;
}

/// Begins to send mails.
fn send_mails(runtime: &Handle, worker: Option<&Arc<MailWorker>>) {
    for worker in worker.into_iter().flat_map(|worker| std::iter::repeat_n(worker, MAIL_TASKS)) {
        runtime.spawn(worker.clone().work());
    }
}

/// Begins to tell others of events. Everything from now on is queued for them, also while nothing can be sent.
async fn tell_of_events(foundation: &Foundation, worker: &Arc<WebhookWorker>) {
    if let Err(error) = worker.subscribe().await {
        tracing::warn!(%error, "the receivers of webhooks could not be noted yet");
        foundation.calls.spawn(worker.clone().keep_subscribing());
    }
    for number in 0..worker.receivers() {
        foundation.calls.spawn(worker.clone().work(number));
    }
}

/// Begins to export traces. What exports those of the config before ends with the last request that it serves.
fn export_traces(foundation: &Foundation, exporter: Option<Exporter>) {
    if let Some(exporter) = exporter {
        foundation.calls.spawn(exporter.run(foundation.process.exports.subscribe()));
    }
}

/// Begins to read claims of accounts. What reads them for the config before ends with the last request that it serves.
fn read_sessions(foundation: &Foundation, session_reader: Option<SessionReader>) {
    if let Some(session_reader) = session_reader {
        foundation.calls.spawn(session_reader.run());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_up_once_its_writer_has_come_to_an_end() {
        let mut looks = Looks::default();
        assert!(!looks.finds_change(1, 1) && !looks.finds_change(1, 1));
        assert!(!looks.finds_change(2, 1), "it is being written");
        assert!(!looks.finds_change(3, 1) && looks.finds_change(3, 1));
        assert!(!looks.finds_change(3, 3), "it was taken up");
        // What was there before is new again.
        assert!(!looks.finds_change(1, 3) && looks.finds_change(1, 3));
        assert!(!looks.finds_change(4, 1) && !looks.finds_change(1, 1) && !looks.finds_change(4, 1));
    }
}
