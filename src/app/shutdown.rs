//! The end of the process: what brings it about, and what is waited for.

use std::{
    io::PipeReader,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, watch},
    time::Instant,
};

use super::{process::Process, systemd, upgrade::SuccessorEnds};

/// How long connections have that are still open when all that a hand-over waits for is over.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long workers may take to accept no more, at a hand-over.
const LAST_ACCEPTED: Duration = Duration::from_secs(2);

/// How long the last traces have to be exported.
const LAST_EXPORTS: Duration = Duration::from_secs(2);

/// What ends the process from within.
#[derive(Default)]
pub(super) struct Fatal {
    pub(super) failed: AtomicBool,
    notify: Notify,
}

impl Fatal {
    /// Ends the process with an error.
    pub(super) fn fail(&self, error: &dyn std::fmt::Display) {
        tracing::error!(%error, "cannot go on");
        self.failed.store(true, Relaxed);
        self.notify.notify_one();
    }
}

/// Waits for the end and drains. Pingora's own graceful stop sleeps for a fixed time, whatever is
/// in flight; here it is told to stop when nothing is.
pub(super) struct Shutdown {
    pub(super) process: Arc<Process>,
    pub(super) fatal: Arc<Fatal>,
    /// Told when another process serves, and when that one has ended.
    pub(super) upgraded: Arc<Notify>,
    pub(super) successor_ends: Arc<SuccessorEnds>,
    /// The pipe of that process, which waits until this one accepts no more.
    pub(super) successor_waits: Arc<Mutex<Option<PipeReader>>>,
    /// Tells that the end begins.
    pub(super) ending: watch::Sender<bool>,
}

#[async_trait]
impl ShutdownSignalWatch for Shutdown {
    async fn recv(&self) -> ShutdownSignal {
        // Created once, so that no signal is missed between two waits.
        let mut signals = EndSignals::new();
        if signals.is_none() {
            self.fatal.fail(&"signals cannot be received");
        }
        tokio::select! {
            () = self.told_to_end(&mut signals) => self.drain(&mut signals).await,
            () = self.upgraded.notified() => self.hand_over(&mut signals).await,
        }
        self.process.exports.send_replace(true);
        if tokio::time::timeout(LAST_EXPORTS, self.process.exports.closed()).await.is_err() {
            tracing::warn!("traces could not be exported in time");
        }
        ShutdownSignal::FastShutdown
    }
}

impl Shutdown {
    /// Lets what is in flight come to its end.
    async fn drain(&self, signals: &mut Option<EndSignals>) {
        self.ending.send_replace(true);
        // What never served does not speak for the service.
        if self.process.serves.load(Relaxed) {
            systemd::stopping();
        }
        self.process.drain.announce();
        let drain = self.process.settings().drain;
        if !drain.delay.is_zero() {
            tracing::info!(delay_ms = drain.delay.as_millis() as u64, "not ready any more");
            tokio::select! {
                () = tokio::time::sleep(drain.delay) => {}
                // Told twice, it does not wait.
                () = self.told_to_end(signals) => {}
            }
        }
        tracing::info!("draining");
        self.process.ends();
        self.drained(drain.limit).await;
    }

    /// Lets what is open come to its end, tunnels included, while another process serves.
    async fn hand_over(&self, signals: &mut Option<EndSignals>) {
        let limit = self.process.settings().drain.limit;
        let begun = Instant::now();
        self.process.hands_over();
        // Each worker hears of it in its turn.
        let alone = async {
            while self.process.drain.accepting() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        if tokio::time::timeout(LAST_ACCEPTED, alone).await.is_err() {
            tracing::warn!("a worker still accepts");
        }
        drop(self.successor_waits.lock().unwrap_or_else(PoisonError::into_inner).take());
        tokio::select! {
            () = self.drained(limit) => {}
            // It may be told to end all the same: then tunnels end, and requests have the rest of the time.
            () = self.told_to_end(signals) => {}
            () = self.successor_ends.ended.notified() => {}
            // Nobody serves: whoever watches this process is to see it.
            () = self.successor_ends.failed.notified() => return self.fatal.failed.store(true, Relaxed),
        }
        self.process.ends();
        if self.process.drain.live() > 0 {
            self.drained(limit.saturating_sub(begun.elapsed()).max(LAST_WORDS)).await;
        }
    }

    /// Waits until no connection is open, for so long at the most.
    async fn drained(&self, limit: Duration) {
        let drained = async {
            while self.process.drain.live() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        if tokio::time::timeout(limit, drained).await.is_err() {
            tracing::warn!(connections = self.process.drain.live(), "not drained in time");
        }
    }

    async fn told_to_end(&self, signals: &mut Option<EndSignals>) {
        let told = async {
            match signals {
                Some(signals) => signals.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = told => {}
            () = self.fatal.notify.notified() => {}
        }
    }
}

/// The signals that tell the process to end.
struct EndSignals([Signal; 3]);

impl EndSignals {
    fn new() -> Option<Self> {
        let [term, int, quit] =
            [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::quit()].map(signal);
        Some(Self([term.ok()?, int.ok()?, quit.ok()?]))
    }

    async fn next(&mut self) {
        let [term, int, quit] = &mut self.0;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            _ = quit.recv() => {}
        }
    }
}
