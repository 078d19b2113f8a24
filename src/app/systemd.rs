//! What systemd is told: that the process serves, drains, lives, or has a successor. Without systemd nothing happens.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;

use super::process::Process;

/// Variables that are meant for the process that systemd started, and not for its successor.
pub(super) const OF_ONE_PROCESS: [&str; 4] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "WATCHDOG_PID"];

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::debug!(%error, "systemd could not be told");
    }
}

/// The process serves.
pub(super) fn ready() {
    tell(NotifyState::Ready);
}

/// The process ends.
pub(super) fn stopping() {
    tell(NotifyState::Stopping);
}

/// Another process is the service's main one.
pub(super) fn main_pid(pid: u32) {
    tell(NotifyState::MainPid(pid));
}

/// Tells systemd that the process lives for as long as all of its workers do, if it wants to know.
pub(super) async fn watch(process: Arc<Process>) {
    let Some(longest) = sd_notify::watchdog_enabled().filter(|longest| !longest.is_zero()) else { return };
    // After a hand-over it is the other process that is watched.
    while !process.drain.is_handed_over() {
        // Half of the time for a worker that hangs to be seen, half for systemd to miss the word.
        if process.placement.all_alive(longest / 2) {
            tell(NotifyState::Watchdog);
        }
        tokio::time::sleep((longest / 3).max(Duration::from_millis(1))).await;
    }
}
