//! The background tasks: following the revocation log and the keys, ending streams in time, and maintenance.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{task::JoinHandle, time::MissedTickBehavior};

use super::{
    error::StartError,
    foundation::{Foundation, learn_schemes},
    process::Process,
};
use crate::{
    revocation::Follower,
    store::{self, Hints, Revoked},
};

/// How often the log and the keys are read, at the least; more often where the bound would leave no room for
/// two polls that fail.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// How long further hints are waited for once there is one; and how far looks at the log lie apart when
/// hints come thick and fast: fifty gateways that look for each of two hundred logouts a second would keep
/// the database busy with nothing else.
const GATHER_HINTS: Duration = Duration::from_millis(1);
const LOOKS_APART: Duration = Duration::from_millis(10);

/// How often streams are looked at whose time may be over.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);

/// How many polls lie between two clean-ups of the mirror.
const PRUNE_EVERY: u32 = 60;

/// How often the schemes of stored hashes are looked at, and how many looks lie between two clean-ups of
/// the store.
const LEARN_INTERVAL: Duration = Duration::from_secs(10);
const STORE_PRUNE_EVERY: u32 = 6;

/// The next hint. Without a connection to hear any there is none, and the poll is all there is.
async fn next_hint(hints: &mut Option<Hints>) {
    match hints {
        Some(heard) => {
            if heard.recv().await.is_none() {
                *hints = None;
            }
        }
        None => std::future::pending().await,
    }
}

/// How often the log and the keys are read under the present bound.
fn interval_of(foundation: &Foundation) -> Duration {
    let bound = Duration::from_millis(foundation.process.mirror.max_staleness().unsigned_abs());
    POLL_INTERVAL.min(bound / 3)
}

/// Keeps mirror and keys true, each second and at each hint, for as long as the gateway runs. What uses the connections
/// of clients' calls runs with them.
pub(super) async fn follow(follower: Follower, hints: Option<Hints>, foundation: Arc<Foundation>) {
    let mut ticks = tokio::time::interval(interval_of(&foundation));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = Instant::now();
    let mut following = Following {
        follower,
        listens: hints.is_some(),
        hints,
        foundation,
        reconnecting: None,
        settling: None,
        reading_keys: None,
        failing: false,
        count: 0,
    };
    loop {
        tokio::select! {
            // However thick the hints come, the poll has its turn.
            biased;
            _ = ticks.tick() => {
                following.poll().await;
                let wanted = interval_of(&following.foundation);
                if ticks.period() != wanted {
                    // Another config has another bound.
                    ticks = tokio::time::interval_at((Instant::now() + wanted).into(), wanted);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                }
            }
            () = next_hint(&mut following.hints) => {
                following.foundation.process.metrics.revocations.hints.inc();
                // Logouts come together; one look finds them all.
                let wait = LOOKS_APART.saturating_sub(looked.elapsed()).max(GATHER_HINTS);
                tokio::time::sleep(wait).await;
                looked = Instant::now();
                following.glance().await;
            }
        }
    }
}

/// The follower with its connection for hints and its tasks.
struct Following {
    follower: Follower,
    hints: Option<Hints>,
    /// Whether the store gives hints at all.
    listens: bool,
    foundation: Arc<Foundation>,
    reconnecting: Option<JoinHandle<store::Result<Option<Hints>>>>,
    settling: Option<JoinHandle<()>>,
    reading_keys: Option<JoinHandle<store::Result<()>>>,
    failing: bool,
    /// Polls so far.
    count: u32,
}

impl Following {
    /// Looks at the log out of turn. Whether the store still answers in time is the timed poll's to say.
    async fn glance(&mut self) {
        match self.follower.glance().await {
            // The verifier refuses the key's tokens at once. This updates the published and the signing keys.
            Ok(followed) => {
                if followed.key {
                    self.read_keys_again().await;
                }
                if let Err(error) = self.refresh_api_keys().await {
                    tracing::debug!(%error, "the API keys could not be read");
                }
            }
            Err(error) => tracing::debug!(%error, "a hint could not be followed"),
        }
    }

    /// Has the API keys read that are to be read again, beside the polls, which must not wait for it. Returns what became of it the last
    /// time.
    async fn refresh_api_keys(&mut self) -> store::Result<()> {
        let read = match self.reading_keys.take() {
            Some(reading) if !reading.is_finished() => {
                self.reading_keys = Some(reading);
                return Ok(());
            }
            Some(read) => read.await.unwrap_or(Ok(())),
            None => Ok(()),
        };
        if self.foundation.process.mirror.api_keys().is_due() {
            let foundation = self.foundation.clone();
            self.reading_keys = Some(tokio::spawn(async move {
                foundation.process.mirror.refresh_api_keys(&*foundation.store, false).await
            }));
        }
        read
    }

    async fn read_keys_again(&self) {
        if let Err(error) = self.foundation.keys.load().follow(&self.foundation.keyring).await {
            tracing::debug!(%error, "the keys could not be read");
        }
    }

    async fn poll(&mut self) {
        self.listen_again().await;
        let process = self.foundation.process.clone();
        let followed = self.foundation.keys.load().follow(&self.foundation.keyring).await;
        let asked = process.time.now();
        process.mirror.api_keys().begin_log(asked);
        let refreshed = self.refresh_api_keys().await;
        let polled = self.follower.poll(followed.is_ok() && !process.mirror.api_keys().is_behind()).await;
        if let Ok(polled) = &polled {
            process.mirror.api_keys().end_log(asked);
            if polled.restored {
                process.mirror.api_keys().read_all_again();
            }
            process.metrics.revocations.store_regressions.inc_by(u64::from(polled.restored));
            // A key was revoked a moment ago; or one that was had come back, perhaps, and is gone again.
            if polled.key {
                self.read_keys_again().await;
            }
            if process.mirror.has_doubts() && self.settling.as_ref().is_none_or(JoinHandle::is_finished) {
                // Beside the polls, which must not wait for it.
                self.settling = Some(self.foundation.calls.spawn(settle(self.foundation.clone())));
            }
        }
        process.metrics.revocations.listening.set(i64::from(self.hints.is_some()));
        // Those that the poll named: they are refused until they are read.
        let refreshed = refreshed.and(self.refresh_api_keys().await);
        let polled = polled.map_err(StartError::from).and(refreshed.map_err(StartError::from));
        let error = followed.map_err(StartError::from).and(polled).err();
        match &error {
            Some(error) if !self.failing => tracing::warn!(%error, "revocations and keys cannot be read"),
            None if self.failing => tracing::info!("revocations and keys are read again"),
            _ => {}
        }
        self.failing = error.is_some();
        self.count += 1;
        if self.count.is_multiple_of(PRUNE_EVERY) {
            process.mirror.prune(process.time.now());
        }
    }

    /// Sees to it that hints are heard again, beside the polls, which must not wait for it.
    async fn listen_again(&mut self) {
        if !self.listens || self.hints.is_some() {
            return;
        }
        self.hints = match self.reconnecting.take() {
            Some(task) if task.is_finished() => task.await.ok().and_then(Result::ok).flatten(),
            Some(task) => {
                self.reconnecting = Some(task);
                None
            }
            None => {
                let store = self.foundation.store.clone();
                self.reconnecting = Some(tokio::spawn(async move { store.hints().await }));
                None
            }
        };
    }
}

/// Settles uncertain revocations: writes those that the store does not have. Those that fail are tried again after the next
/// poll.
async fn settle(foundation: Arc<Foundation>) {
    let (store, mirror) = (&foundation.store, &foundation.process.mirror);
    let (mut settled, mut key) = (0, false);
    for entry in mirror.doubts() {
        match store.settle(&entry).await {
            Ok(()) => {
                mirror.forget_doubt(&entry);
                settled += 1;
                key |= matches!(entry.revoked, Revoked::Key(_));
            }
            Err(error) => tracing::debug!(%error, "a revocation in doubt could not be settled yet"),
        }
    }
    if settled == 0 {
        return;
    }
    tracing::info!(entries = settled, "revocations of which nobody knew whether they had happened have");
    // The others find the successor of a key with its end.
    let followed = if key { foundation.keys.load().follow(&foundation.keyring).await } else { Ok(()) };
    let hinted = store.hint().await;
    if let Err(error) = followed.map_err(StartError::from).and(hinted.map_err(StartError::from)) {
        tracing::debug!(%error, "the others or the keys wait for the next poll");
    }
}

/// Ends streams whose time is over, by whichever clock: at the moment that the next one expires, and often
/// enough for clocks that step and for a mirror that grows stale.
pub(super) async fn sweep(process: Arc<Process>) {
    loop {
        let now = process.time.now();
        let next = process.mirror.sweep(now).map(|seconds| {
            let millis = seconds.saturating_mul(1_000).saturating_sub(now.time);
            Duration::from_millis(u64::try_from(millis).unwrap_or(0).max(1))
        });
        tokio::time::sleep(next.map_or(SWEEP_INTERVAL, |next| next.min(SWEEP_INTERVAL))).await;
    }
}

/// Notes in the store when API keys were last used.
pub(super) async fn note_uses(foundation: &Foundation) {
    let used = foundation.process.mirror.api_keys().take_used();
    if used.is_empty() {
        return;
    }
    if let Err(error) = foundation.store.note_api_keys_used(&used).await {
        tracing::debug!(%error, uses = used.len(), "the last uses of API keys could not be noted");
    }
}

/// Runs maintenance, beside the polls.
pub(super) async fn maintain(foundation: Arc<Foundation>) {
    let store = &foundation.store;
    let mut ticks = tokio::time::interval(LEARN_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut count = 0_u32;
    loop {
        ticks.tick().await;
        // An import may have brought hashes that cost more than those before.
        if let Err(error) = learn_schemes(&**store, &foundation.hasher.load_full()).await {
            tracing::debug!(%error, "the schemes of stored hashes could not be learnt");
        }
        note_uses(&foundation).await;
        count += 1;
        if count.is_multiple_of(STORE_PRUNE_EVERY)
            && let Err(error) = store
                .prune(foundation.process.time.earliest(), foundation.process.settings().keep_audit)
                .await
        {
            tracing::warn!(%error, "what has expired could not be removed");
        }
    }
}
