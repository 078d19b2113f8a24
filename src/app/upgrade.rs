//! Another binary takes this process's place: it gets the listening sockets and the store's lock, serves, and then this one drains.
//! One that does not come to serve changes nothing.

use std::{
    env,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsRawFd, RawFd},
        unix::process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    runtime::Handle,
    signal::unix::Signal,
    sync::{Notify, oneshot, watch},
};

use super::{
    inheritance::{HandedOver, OF_OPERATORS, Ready, VARIABLE},
    pid_file::PidFile,
    process::Process,
    systemd,
};
use crate::gateway::Listening;

/// How long a successor may take until it serves.
const UNTIL_READY: Duration = Duration::from_secs(60);

/// The binary that this process was started as, as it was called: at its path another one may lie by now.
#[derive(Debug)]
pub(super) struct Program {
    path: PathBuf,
    arguments: Vec<std::ffi::OsString>,
    folder: PathBuf,
}

/// Why no other binary took this process's place.
#[derive(Debug, Error)]
enum UpgradeError {
    #[error("{0} cannot be started: {1}")]
    Start(PathBuf, io::Error),
    #[error("the other process ended, or said nothing, before it served; its log tells why")]
    NotReady,
    #[error("the other process did not serve within {} s", UNTIL_READY.as_secs())]
    Timeout,
    #[error(
        "this is the first process of a container, which ends with it: start another container in its place"
    )]
    FirstProcess,
    #[error("the gateway ends")]
    Ends,
}

impl Program {
    /// Returns the program of this process. To be called at the start, before its file is exchanged.
    pub(super) fn own() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let name = PathBuf::from(arguments.next().unwrap_or_default());
        let folder = env::current_dir()?;
        // By the name that it was called by, which may be a link that leads elsewhere later.
        let called = if name.components().count() > 1 {
            Some(folder.join(&name))
        } else {
            let paths = env::var_os("PATH").unwrap_or_default();
            env::split_paths(&paths).map(|path| path.join(&name)).find(|path| path.is_file())
        };
        let path = match called {
            Some(path) => path,
            None => env::current_exe()?,
        };
        Ok(Self { path, arguments: arguments.collect(), folder })
    }
}

/// Starts other binaries in this process's place.
pub(super) struct Upgrader {
    pub(super) process: Arc<Process>,
    pub(super) program: Program,
    /// The sockets of operators.
    pub(super) admin: Vec<Listening>,
    /// The lock of the embedded store.
    pub(super) lock: Option<File>,
    pub(super) pid_file: Option<Arc<PidFile>>,
    /// Told when another process serves.
    pub(super) upgraded: Arc<Notify>,
    /// The pipe of that process, which waits for its end: it tells that this process accepts no more.
    pub(super) successor_waits: Arc<Mutex<Option<io::PipeReader>>>,
    /// Told when that process has ended, though this one is still there.
    pub(super) successor_ends: Arc<SuccessorEnds>,
    /// Told when this process is to end before that.
    pub(super) ends: watch::Receiver<bool>,
}

/// How a process has ended that had taken this one's place.
#[derive(Debug, Default)]
pub(super) struct SuccessorEnds {
    /// By a failure: nobody serves.
    pub(super) failed: Notify,
    /// As it was told to: the service ends.
    pub(super) ended: Notify,
}

/// A process that does not serve yet. It ends with this, also when this process ends meanwhile.
struct Unready(Option<Child>);

impl Drop for Unready {
    fn drop(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Upgrader {
    /// Starts the binary at the same path at each SIGUSR2, of which `signals` tells, until one serves.
    pub(super) async fn follow(self, mut signals: Signal, runtime: Handle) {
        let upgrader = Arc::new(self);
        while signals.recv().await.is_some() {
            tracing::info!(path = %upgrader.program.path.display(), "upgrading");
            // A config that is taken up meanwhile would change the sockets that are handed over.
            let paused = match upgrader.process.running.get() {
                Some(running) => running.reloader.pause().await,
                None => continue,
            };
            match upgrader.clone().upgrade(&runtime).await {
                Ok((mut child, pipe)) => {
                    let pid = child.id();
                    tracing::info!(pid, "another process serves, this one drains");
                    systemd::main_pid(pid);
                    // Nothing is taken up here any more.
                    std::mem::forget(paused);
                    if let Some(file) = &upgrader.pid_file {
                        file.give_up();
                    }
                    *upgrader.successor_waits.lock().unwrap_or_else(PoisonError::into_inner) = Some(pipe);
                    upgrader.upgraded.notify_one();
                    let (ends, file) = (upgrader.successor_ends.clone(), upgrader.pid_file.clone());
                    // On a thread of its own: the end of the runtime would wait for it.
                    std::thread::spawn(move || {
                        let status = child.wait();
                        if let Some(file) = &file {
                            file.take_back();
                        }
                        if !status.as_ref().is_ok_and(ExitStatus::success) {
                            tracing::error!(
                                pid,
                                ?status,
                                "the process that took this one's place has failed"
                            );
                            ends.failed.notify_one();
                        } else if file.is_none_or(|file| file.names_a_successor()) {
                            // It was upgraded, too. What is open here goes on.
                            tracing::info!(pid, "the process that took this one's place has drained");
                        } else {
                            ends.ended.notify_one();
                        }
                    });
                    return;
                }
                Err(error) => {
                    tracing::error!(%error, "not upgraded, this process goes on");
                    if let Some(file) = &upgrader.pid_file {
                        // Whoever waits sees that it is written anew.
                        file.write();
                    }
                }
            }
        }
    }

    /// Starts a successor. Returns it once it serves, with its pipe.
    async fn upgrade(self: Arc<Self>, runtime: &Handle) -> Result<(Child, io::PipeReader), UpgradeError> {
        if std::process::id() == 1 {
            return Err(UpgradeError::FirstProcess);
        }
        let start = self.clone();
        let started = runtime.spawn_blocking(move || start.start()).await;
        let failed = |error| UpgradeError::Start(self.program.path.clone(), error);
        let (child, mut ready) = started.map_err(io::Error::other).flatten().map_err(failed)?;
        let mut child = Unready(Some(child));
        let (tell, told) = oneshot::channel();
        // On a thread of its own: the end of the runtime would wait for it.
        std::thread::spawn(move || {
            let mut word = Vec::new();
            // It ends when nobody is left who could say anything.
            let read = ready.by_ref().take(Ready::WORD.len() as u64).read_to_end(&mut word);
            let _ = tell.send((read.is_ok() && word == Ready::WORD).then_some(ready));
        });
        let mut ends = self.ends.clone();
        tokio::select! {
            told = tokio::time::timeout(UNTIL_READY, told) => match told {
                Ok(Ok(Some(ready))) => child.0.take().map(|child| (child, ready)).ok_or(UpgradeError::NotReady),
                Ok(_) => Err(UpgradeError::NotReady),
                Err(_) => Err(UpgradeError::Timeout),
            },
            _ = ends.wait_for(|ends| *ends) => Err(UpgradeError::Ends),
        }
    }

    fn start(&self) -> io::Result<(Child, io::PipeReader)> {
        let (reader, writer) = io::pipe()?;
        let listening = self.process.listening.borrow().clone();
        let address = |listening: &Listening| listening.listener.config.address.to_string();
        let public = listening.iter().map(|public| (address(public), public.socket.as_raw_fd()));
        let admin = self
            .admin
            .iter()
            .map(|admin| (format!("{OF_OPERATORS}{}", address(admin)), admin.socket.as_raw_fd()));
        let of_systemd = self
            .process
            .systemd
            .sockets()
            .iter()
            .map(|(address, socket)| (address.clone(), socket.as_raw_fd()));
        let mut sockets: Vec<(String, RawFd)> = public.chain(admin).chain(of_systemd).collect();
        sockets.sort();
        sockets.dedup_by(|one, other| one.1 == other.1);
        let handed_over = HandedOver {
            by: std::process::id(),
            sockets,
            lock: self.lock.as_ref().map(AsRawFd::as_raw_fd),
            ready: writer.as_raw_fd(),
        };
        let kept: Vec<RawFd> = handed_over
            .sockets
            .iter()
            .map(|(_, fd)| *fd)
            .chain(handed_over.lock)
            .chain([handed_over.ready])
            .collect();
        let mut command = Command::new(&self.program.path);
        command
            .args(&self.program.arguments)
            .current_dir(&self.program.folder)
            .env(VARIABLE, serde_json::to_string(&handed_over).map_err(io::Error::other)?)
            .stdin(Stdio::null());
        for variable in systemd::OF_ONE_PROCESS {
            command.env_remove(variable);
        }
        // SAFETY: between fork and exec only calls are made that are safe in a signal's handler, on memory that exists already.
        unsafe {
            command.pre_exec(move || {
                // Until it has a handler of its own, such a signal would end it.
                libc::signal(libc::SIGUSR2, libc::SIG_IGN);
                for fd in &kept {
                    if libc::fcntl(*fd, libc::F_SETFD, 0) < 0 {
                        return Err(io::Error::last_os_error());
                    }
                }
                Ok(())
            });
        }
        // The sockets live until then, and this side of the pipe ends here.
        let child = command.spawn();
        drop((listening, writer));
        Ok((child?, reader))
    }
}

/// Tells the gateway whose process id a file holds to upgrade, and waits for what comes of it. Returns the id of the process that serves.
///
/// # Errors
/// What went wrong, in words for whoever typed the command.
pub fn request_upgrade(file: &Path) -> Result<u32, String> {
    let before = super::pid_file::read(file)?;
    let id = libc::pid_t::try_from(before.pid).ok().filter(|id| *id > 1);
    let id = id.ok_or_else(|| format!("{}: no process id of a gateway", file.display()))?;
    // The file may be left over from one that was killed, and the id be another's by now, whom the signal would end.
    if let Ok(line) = std::fs::read(format!("/proc/{id}/cmdline")) {
        let has = |wanted: &[u8]| line.split(|byte| *byte == 0).any(|argument| argument == wanted);
        if !has(b"serve") || !line.windows(5).any(|part| part == b"--pid") {
            return Err(format!(
                "{}: process {id} is no gateway that was started with --pid",
                file.display()
            ));
        }
    }
    // SAFETY: the call takes no memory.
    if unsafe { libc::kill(id, libc::SIGUSR2) } != 0 {
        return Err(format!("process {id}: {}", io::Error::last_os_error()));
    }
    let end = std::time::Instant::now() + UNTIL_READY + Duration::from_secs(5);
    while std::time::Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        let Ok(now) = super::pid_file::read(file) else { continue };
        if now.pid != before.pid {
            return Ok(now.pid);
        }
        if now != before {
            return Err(format!("process {id} goes on; its log tells why"));
        }
    }
    Err(format!("process {id} has not said what came of it"))
}
