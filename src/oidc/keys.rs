//! Keeps the keys of an issuer: fetched ahead of need, sooner when a token names one that is not known, and used on while the issuer is
//! out of reach, up to a bound.

use std::{
    future::Future,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{Fetcher, discovery};
use crate::{
    clock::TimeKeeper,
    config::{HttpUrl, IssuerKeys},
    telemetry::Metrics,
    token::{ExternalIssuer, KeySet},
};

/// How old keys become before they are fetched again, though nothing is wrong.
const FRESH: Duration = Duration::from_secs(300);

/// The same of files: to read one costs little.
const FRESH_FILE: Duration = Duration::from_secs(5);

/// The shortest and the longest wait after a fetch that failed.
const AFTER_FAILURE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// The least time between two fetches that tokens ask for.
const AGAIN_AFTER: Duration = Duration::from_secs(10);

/// How long the first fetch is waited for.
const AT_START: Duration = Duration::from_secs(2);

/// The largest file of keys, in bytes.
const MAX_FILE: u64 = 256 << 10;

/// Follows the keys of an issuer.
pub struct KeyFollower {
    issuer: Weak<ExternalIssuer>,
    wanted: Arc<Notify>,
    fetcher: Fetcher,
    time: Arc<TimeKeeper>,
    metrics: Arc<Metrics>,
    /// What went wrong last, so that it is logged once.
    failure: Option<String>,
}

/// Reads a file of keys.
///
/// # Errors
/// When it cannot be read.
pub fn read_key_file(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err("it is no file of up to 256 KiB".to_owned());
    }
    std::fs::read(path).map_err(|error| error.to_string())
}

impl KeyFollower {
    /// Creates the follower of an issuer that has keys.
    pub fn new(
        issuer: &Arc<ExternalIssuer>,
        fetcher: Fetcher,
        time: Arc<TimeKeeper>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let wanted = issuer.wanted();
        Self { issuer: Arc::downgrade(issuer), wanted, fetcher, time, metrics, failure: None }
    }

    /// Returns what waits for the first fetch, for a moment only: an issuer that is out of reach stops nothing.
    pub fn first_fetch(&self) -> impl Future<Output = ()> + use<> {
        let fetched = self.issuer.upgrade().map(|issuer| issuer.fetched());
        async move {
            if let Some(fetched) = fetched {
                let _ = tokio::time::timeout(AT_START, fetched).await;
            }
        }
    }

    /// Follows the keys for as long as the issuer is there.
    pub async fn follow(mut self) {
        let mut failures = 0;
        loop {
            let Some(issuer) = self.issuer.upgrade() else { return };
            let begun = Instant::now();
            let succeeded = self.fetch(&issuer).await;
            failures = if succeeded { 0 } else { failures + 1 };
            let max_age = issuer.config().keys_max_age;
            let is_file = matches!(issuer.config().keys, IssuerKeys::File(_));
            drop(issuer);
            let (least, most) = AFTER_FAILURE;
            let wait = match failures {
                0 if is_file => FRESH_FILE.min(max_age / 2),
                0 => FRESH.min(max_age / 2).max(least),
                failures => least.saturating_mul(1 << (failures - 1).min(5)).min(most),
            };
            if !self.wait(begun, wait).await {
                return;
            }
        }
    }

    /// Waits for the next fetch, and takes keys out of use that become too old meanwhile. Returns false when the issuer is gone.
    async fn wait(&self, begun: Instant, wait: Duration) -> bool {
        let mut until = Instant::now() + wait;
        while Instant::now() < until {
            let old_in = match self.issuer.upgrade() {
                Some(issuer) => {
                    let now = self.time.now();
                    issuer.expire(now);
                    issuer.old_in(now)
                }
                None => return false,
            };
            let next = old_in.map_or(until, |old_in| until.min(Instant::now() + old_in));
            tokio::select! {
                () = sleep_until(next) => {}
                () = self.wanted.notified() => until = until.min(begun + AGAIN_AFTER),
            }
        }
        true
    }

    async fn fetch(&mut self, issuer: &ExternalIssuer) -> bool {
        let begun = self.time.now();
        issuer.fetch_begins(begun);
        let fetched = self.fetch_keys(issuer).await;
        let (keys, failure) = match fetched {
            Ok(keys) => (Some(keys), None),
            Err(failure) => (None, Some(failure)),
        };
        let name = &issuer.config().name;
        self.metrics.issuer_fetch(name, failure.is_none());
        match &failure {
            Some(reason) if self.failure != failure => {
                tracing::error!(issuer = name, reason, "the keys of an issuer could not be fetched");
            }
            None if self.failure.is_some() => {
                tracing::info!(issuer = name, "the keys of an issuer are there again")
            }
            _ => {}
        }
        self.failure = failure;
        let succeeded = keys.is_some();
        issuer.fetch_ends(keys, begun);
        succeeded
    }

    async fn fetch_keys(&self, issuer: &ExternalIssuer) -> Result<KeySet, String> {
        let config = issuer.config();
        let bytes = match &config.keys {
            IssuerKeys::Address(url) => self.get(url).await?,
            IssuerKeys::Discovery(url) => {
                let document = self.get(&url.below(discovery::PATH)).await?;
                self.get(&discovery::key_address(&document, &config.issuer)?).await?
            }
            IssuerKeys::File(path) => read_key_file(path)?.into(),
            IssuerKeys::Introspection(_) => return Err("it has no keys".to_owned()),
        };
        let before = issuer.keys();
        KeySet::parse(&bytes, &config.algorithms, before.as_deref()).map_err(|error| error.to_string())
    }

    async fn get(&self, url: &HttpUrl) -> Result<bytes::Bytes, String> {
        let fetched = self.fetcher.get(url).await;
        // A query may hold what the log must not.
        let path = url.target.split('?').next().unwrap_or_default();
        fetched.map_err(|error| format!("{}{path}: {error}", url.authority))
    }
}
