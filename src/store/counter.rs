//! Counters that several gateways share.

use std::time::Duration;

use async_trait::async_trait;

use super::Result;

/// A bucket that refills evenly.
#[derive(Debug, Clone)]
pub struct SharedBucket {
    /// What is counted: a hash, so that no name that somebody tried lies in the store.
    pub key: [u8; 16],
    /// How many attempts it holds.
    pub count: u32,
    /// In how long it refills.
    pub per: Duration,
}

/// Buckets in the store.
#[async_trait]
pub trait SharedCounters: Send + Sync {
    /// Takes one from each bucket, or from none. `None` when it was taken; otherwise which bucket is empty, and when to
    /// try again.
    async fn take(&self, buckets: &[SharedBucket]) -> Result<Option<(usize, Duration)>>;

    /// Gives one back to each bucket.
    async fn give_back(&self, buckets: &[SharedBucket]) -> Result<()>;

    /// Makes sure that a bucket is known for its period.
    async fn note(&self, bucket: &SharedBucket) -> Result<()>;

    /// Whether a bucket is known.
    async fn is_known(&self, key: &[u8; 16]) -> Result<bool>;
}
