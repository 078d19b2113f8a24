//! The process: pingora's server runs one service for the control plane and one for each worker.
//!
//! Workers start once the control service has loaded what nothing may be served without. At
//! SIGTERM the listening sockets close at once, what is in flight is finished, and the process
//! exits with 0.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering::Relaxed},
};

use async_trait::async_trait;
use pingora_core::{
    server::{
        ListenFds, RunArgs, Server, ShutdownWatch,
        configuration::{Opt, ServerConf},
    },
    services::{Service, ServiceReadyNotifier, ServiceWithDependents},
};
use thiserror::Error;
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    sync::{Notify, watch},
};

use super::{
    certificates, control,
    inheritance::{Inherited, Ready},
    listeners::{self, ListenError},
    load::{LoadedGateway, load_breached},
    pid_file::PidFile,
    process::Process,
    shutdown::{Fatal, Shutdown},
    systemd,
    upgrade::{Program, SuccessorEnds, Upgrader},
};
use crate::{
    admin,
    gateway::{Inbox, Listening, Placement, Worker},
    memory,
    password::Hasher,
    priority::{self, Niceness},
    store,
    telemetry::{Logs, Metrics},
    types::OsRandom,
};

/// File descriptors that are kept for the store, the log and the listeners.
const RESERVED_FILES: u64 = 128;

/// Threads for the calls below `auth.path`, and what they need of the store.
const CONTROL_THREADS: usize = 2;

/// Makes a runtime with threads of its own.
fn runtime(name: &str, threads: usize, niceness: Option<Niceness>) -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name(name)
        .on_thread_start(move || {
            if let Some(niceness) = niceness {
                priority::add_niceness(niceness);
            }
        })
        .enable_all()
        .build()
}

/// Why the gateway did not run, or did not end well.
#[derive(Debug, Error)]
pub enum ServeError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The store is in use or cannot be used.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// A metric's name is not legal.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The binary's own path is not known.
    #[error("the path of this program: {0}")]
    Program(#[source] io::Error),
    /// Keys or revocations could not be loaded. The log has the reason.
    #[error("the gateway could not start")]
    Start,
}

/// Runs once the gateway serves.
pub type OnReady = Box<dyn FnOnce() + Send>;

/// How a gateway starts.
#[derive(Default)]
pub struct Start {
    /// What it has from the process that started it.
    pub inherited: Inherited,
    /// The file that holds its process id while it serves.
    pub pid_file: Option<PidFile>,
    /// Runs once it serves.
    pub on_ready: Option<OnReady>,
}

/// Serves until the process is told to end. `source` is the file of the config, whose changes are taken up.
///
/// # Errors
/// When it could not start.
pub fn serve(
    loaded: LoadedGateway,
    source: Option<PathBuf>,
    logs: Logs,
    how: Start,
) -> Result<(), ServeError> {
    memory::use_small_pages();
    let Start { mut inherited, pid_file, on_ready } = how;
    // A terminal that closes must not end the gateway, and there is nothing to take up before it has started.
    // SAFETY: nothing is called when the signal comes.
    unsafe {
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::signal(libc::SIGUSR2, libc::SIG_IGN);
    }
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let config = &loaded.config;
    let program = Program::own().map_err(ServeError::Program)?;
    let lock = store::lock_for_serving(&config.store, |path| inherited.lock_of(path))?;
    let bound = listeners::bind(&config.listeners, &loaded.tls, &[], &inherited)?;
    let admin = listeners::bind(
        std::slice::from_ref(&config.admin),
        std::slice::from_ref(&loaded.admin_tls),
        &[],
        &inherited.of_operators(),
    )?;
    listeners::listen(&admin, "admin listening")?;
    let predecessor = inherited.ready();
    let workers = config.workers;
    let (placement, inboxes) = Placement::new(workers, max_connections(workers));
    let systemd = inherited.of_systemd();
    drop(inherited);
    let metrics = Arc::new(Metrics::new()?);
    let process = Arc::new(Process::new(config, metrics, logs, placement.clone(), systemd));
    let fatal = Arc::new(Fatal::default());
    let (upgraded, successor_ends): (Arc<Notify>, Arc<SuccessorEnds>) = Default::default();
    let successor_waits: Arc<Mutex<_>> = Arc::default();
    let (ending, ends) = watch::channel(false);
    let pid_file = pid_file.map(Arc::new);
    let upgrader = Upgrader {
        process: process.clone(),
        program,
        admin: admin.clone(),
        lock,
        pid_file: pid_file.clone(),
        upgraded: upgraded.clone(),
        successor_waits: successor_waits.clone(),
        successor_ends: successor_ends.clone(),
        ends,
    };

    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(Some(Opt::default()), conf);
    server.bootstrap();
    let control = server.add_service(Control {
        loaded: Mutex::new(Some(loaded)),
        source,
        admin: Mutex::new(admin),
        bound: Mutex::new(bound),
        process: process.clone(),
        fatal: fatal.clone(),
        predecessor: Mutex::new(predecessor),
        pid_file: pid_file.clone(),
        upgrader: Mutex::new(Some(upgrader)),
        on_ready: Mutex::new(on_ready),
    });
    for (index, inbox) in inboxes.into_iter().enumerate() {
        let worker = WorkerService {
            name: format!("worker-{index}"),
            index,
            placement: placement.clone(),
            inbox: Some(inbox),
            process: process.clone(),
            fatal: fatal.clone(),
        };
        server.add_service(worker).add_dependency(&control);
    }
    let shutdown =
        Shutdown { process, fatal: fatal.clone(), upgraded, successor_ends, successor_waits, ending };
    server.run(RunArgs { shutdown_signal: Box::new(shutdown) });
    if let Some(file) = pid_file {
        file.remove();
    }
    if fatal.failed.load(Relaxed) { Err(ServeError::Start) } else { Ok(()) }
}

/// Raises the limit on open files as far as it goes. How many clients a worker may keep: each may
/// need an upstream connection too.
fn max_connections(workers: usize) -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the duration of both calls.
    let soft = unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && limit.rlim_cur < limit.rlim_max {
            let raised = libc::rlimit { rlim_cur: limit.rlim_max, rlim_max: limit.rlim_max };
            if libc::setrlimit(libc::RLIMIT_NOFILE, &raised) == 0 {
                limit = raised;
            }
        }
        limit.rlim_cur
    };
    let files = soft.saturating_sub(RESERVED_FILES).max(64);
    usize::try_from(files / 2 / workers as u64).unwrap_or(usize::MAX).max(16)
}

/// The control plane, on a runtime of its own.
struct Control {
    loaded: Mutex<Option<LoadedGateway>>,
    /// The file of the config.
    source: Option<PathBuf>,
    admin: Mutex<Vec<Listening>>,
    bound: Mutex<Vec<Listening>>,
    process: Arc<Process>,
    fatal: Arc<Fatal>,
    /// The process whose place this one takes, until it knows.
    predecessor: Mutex<Option<Ready>>,
    pid_file: Option<Arc<PidFile>>,
    upgrader: Mutex<Option<Upgrader>>,
    on_ready: Mutex<Option<OnReady>>,
}

fn take<T: Default>(slot: &Mutex<T>) -> T {
    std::mem::take(&mut *slot.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Control {
    async fn load(&self, loaded: LoadedGateway, runtime: &Runtime, vital: &Runtime) -> Result<(), String> {
        let (process, vital) = (self.process.clone(), vital.handle().clone());
        // Made here, where threads do not give way yet: what they gave up they could not take back.
        let password = &loaded.config.auth.password;
        let hasher = load_breached(password)
            .and_then(|list| Hasher::start(password, list, Arc::new(OsRandom), process.metrics.clone()));
        let hasher = Arc::new(hasher.map_err(|error| error.to_string())?);
        let (source, admin_tls) = (self.source.clone(), loaded.admin_tls.clone());
        let started = runtime.spawn(control::start(loaded, source, process, hasher, vital)).await;
        let running = started.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        let bound = take(&self.bound);
        listeners::listen(&bound, "listening").map_err(|error| error.to_string())?;
        self.process.listening.send_replace(bound);
        runtime.spawn(certificates::follow(admin_tls, self.process.clone()));
        // From here on the workers may accept.
        self.process.running.set(running).map_err(|_| "loaded twice".to_owned())
    }
}

impl Control {
    /// Accepts operators' connections.
    fn serve_operators(&self, hosts: &Arc<[String]>, runtime: &Runtime, vital: &Runtime) -> io::Result<()> {
        for Listening { socket, listener } in take(&self.admin) {
            let (socket, calls) = (socket.try_clone()?, runtime.handle().clone());
            let serving =
                admin::serve(socket, listener.tls.clone(), self.process.clone(), calls, hosts.clone());
            let task = vital.spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the admin listener failed");
                }
            });
            let mut accepting = self.process.admin.lock().unwrap_or_else(PoisonError::into_inner);
            accepting.push(task.abort_handle());
        }
        Ok(())
    }

    /// The process serves: whoever waits for that is told.
    fn serves(&self, vital: &Runtime) {
        tracing::info!("serving");
        // Heard from before anybody can know whom to signal.
        match (signal(SignalKind::user_defined2()), take(&self.upgrader)) {
            (Ok(signals), Some(upgrader)) => {
                vital.spawn(upgrader.follow(signals, vital.handle().clone()));
            }
            (Err(error), _) => tracing::error!(%error, "an upgrade cannot be asked for"),
            (Ok(_), None) => {}
        }
        if let Some(file) = &self.pid_file {
            file.write();
        }
        self.process.serves.store(true, Relaxed);
        systemd::ready();
        vital.spawn(systemd::watch(self.process.clone()));
        if let Some(on_ready) = take(&self.on_ready) {
            on_ready();
        }
    }
}

#[async_trait]
impl ServiceWithDependents for Control {
    async fn start_service(
        &mut self,
        _: Option<ListenFds>,
        mut shutdown: ShutdownWatch,
        _: usize,
        ready: ServiceReadyNotifier,
    ) {
        let Some(loaded) = take(&self.loaded) else { return };
        // No client's work runs on the second: what follows the log and ends streams, and the probes.
        let (runtime, vital) =
            match (runtime("calls", CONTROL_THREADS, Some(priority::CALLS)), runtime("vital", 1, None)) {
                (Ok(runtime), Ok(vital)) => (runtime, vital),
                (Err(error), _) | (_, Err(error)) => return self.fatal.fail(&error),
            };
        let hosts: Arc<[String]> = loaded.config.admin_hosts.clone().into();
        let predecessor = take(&self.predecessor);
        // A predecessor answers its operators until this process serves.
        if predecessor.is_none()
            && let Err(error) = self.serve_operators(&hosts, &runtime, &vital)
        {
            return self.fatal.fail(&error);
        }
        let loaded = tokio::select! {
            loaded = self.load(loaded, &runtime, &vital) => Some(loaded),
            _ = shutdown.wait_for(|stopping| *stopping) => None,
        };
        match loaded {
            Some(Ok(())) => {
                if predecessor.is_some()
                    && let Err(error) = self.serve_operators(&hosts, &runtime, &vital)
                {
                    return self.fatal.fail(&error);
                }
                let told = match predecessor.map(Ready::tell).transpose() {
                    Ok(told) => told,
                    Err(error) => {
                        tracing::error!(%error, "the process that has started this one is gone");
                        return self.fatal.fail(&error);
                    }
                };
                // The workers accept, beside those of the predecessor for a moment.
                ready.notify_ready();
                if let Some(told) = told {
                    // Whoever hears that this process serves meets no other from then on.
                    let _ = vital.spawn_blocking(move || told.wait_until_alone()).await;
                }
                self.serves(&vital);
            }
            Some(Err(error)) => {
                drop(predecessor);
                self.fatal.fail(&error);
                // Workers check themselves whether everything is loaded.
                ready.notify_ready();
            }
            None => ready.notify_ready(),
        }
        let _ = shutdown.wait_for(|stopping| *stopping).await;
        runtime.shutdown_background();
        vital.shutdown_background();
    }

    fn name(&self) -> &str {
        "control"
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}

/// One worker, on a single-threaded runtime of its own.
struct WorkerService {
    name: String,
    index: usize,
    placement: Arc<Placement>,
    inbox: Option<Inbox>,
    process: Arc<Process>,
    fatal: Arc<Fatal>,
}

#[async_trait]
impl Service for WorkerService {
    async fn start_service(&mut self, _: Option<ListenFds>, _: ShutdownWatch, _: usize) {
        let Some(running) = self.process.running.get() else { return };
        let Some(inbox) = self.inbox.take() else { return };
        priority::use_short_slices();
        let snapshots = running.snapshots.subscribe();
        let listening = self.process.listening.subscribe();
        let (drain, placement) = (self.process.drain.clone(), self.placement.clone());
        let worker = Worker::new(self.index, snapshots, listening, drain, placement);
        if let Err(error) = worker.run(inbox).await {
            self.fatal.fail(&error);
        }
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(1)
    }
}
