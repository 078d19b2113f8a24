//! Counting attempts: here, or in the store where several gateways share one.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{AccountError, Result};
use crate::{
    config::{self, Rate},
    limit::{Attempt, Prefix, Throttle},
    store::{SharedBucket, SharedCounters, Store},
    types::hash::sha256,
};

/// For how long an address is familiar after a login.
const FAMILIAR_FOR: Duration = Duration::from_secs(30 * 86_400);

/// Counts attempts.
pub struct Attempts {
    local: Arc<Throttle>,
    store: Arc<dyn Store>,
    rates: config::Throttle,
}

/// A reserved login attempt. Unless it is given back, it counts as a failure.
#[must_use]
pub(super) enum Reserved {
    Here(Attempt),
    Shared { buckets: Vec<SharedBucket>, familiar: SharedBucket },
}

impl Attempts {
    /// Counters for a store: its own if it has any, otherwise in memory.
    pub fn new(store: Arc<dyn Store>, rates: config::Throttle) -> Self {
        Self { local: Throttle::new(&rates), store, rates }
    }

    /// Reserves a login of `account` (its look, so that spellings count together). `known` says
    /// whether there is such an account.
    pub(super) async fn login(
        &self,
        account: &str,
        known: bool,
        address: IpAddr,
        boot: i64,
    ) -> Result<Reserved> {
        let Some(shared) = self.store.shared_counters() else {
            return Ok(Reserved::Here(self.local.login(account, known, address, boot)?));
        };
        let prefix = Prefix::of(address);
        let place = format!("{prefix}\0{account}");
        let familiar = bucket("familiar", &place, Rate { count: 1, per: FAMILIAR_FOR });
        // Asked for every name: one question less would tell by its time that there is no such account.
        let is_familiar = shared.is_known(&familiar.key).await?;
        let counted = if known && is_familiar {
            bucket("familiar account", &place, self.rates.account)
        } else if known {
            bucket("account", account, self.rates.account)
        } else {
            bucket("unknown name", account, self.rates.account)
        };
        // Addresses before accounts, always: two gateways never wait for each other's row.
        let buckets = vec![bucket("address", &prefix.to_string(), self.rates.address), counted];
        take(shared, &buckets).await?;
        Ok(Reserved::Shared { buckets, familiar })
    }

    /// Counts a registration.
    pub(super) async fn registration(&self, address: IpAddr, boot: i64) -> Result<()> {
        match self.store.shared_counters() {
            Some(shared) => {
                let prefix = Prefix::of(address).to_string();
                take(shared, &[bucket("registration", &prefix, self.rates.registrations)]).await
            }
            None => Ok(self.local.registration(address, boot)?),
        }
    }

    /// Counts a request for a mail.
    pub(super) async fn mail(&self, address: IpAddr, boot: i64) -> Result<()> {
        match self.store.shared_counters() {
            Some(shared) => {
                let prefix = Prefix::of(address).to_string();
                take(shared, &[bucket("mail", &prefix, self.rates.mails)]).await
            }
            None => Ok(self.local.mail(address, boot)?),
        }
    }

    /// The password was right: nothing is counted, and the address is familiar from now on.
    pub(super) async fn succeeded(&self, reserved: Reserved) {
        match reserved {
            Reserved::Here(attempt) => attempt.succeeded(),
            Reserved::Shared { buckets, familiar } => {
                if let Some(shared) = self.store.shared_counters() {
                    warn(shared.give_back(&buckets).await);
                    warn(shared.note(&familiar).await);
                }
            }
        }
    }

    /// The password was never looked at, as when the store is away: nothing is counted.
    pub(super) async fn forgotten(&self, reserved: Reserved) {
        match reserved {
            Reserved::Here(attempt) => attempt.forgotten(),
            Reserved::Shared { buckets, .. } => {
                if let Some(shared) = self.store.shared_counters() {
                    warn(shared.give_back(&buckets).await);
                }
            }
        }
    }
}

/// A login does not fail because it could not be uncounted.
fn warn(result: crate::store::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "an attempt could not be given back");
    }
}

fn bucket(kind: &str, key: &str, rate: Rate) -> SharedBucket {
    let hash = sha256(format!("{kind}\0{key}").as_bytes());
    let mut short = [0; 16];
    short.copy_from_slice(&hash[..16]);
    SharedBucket { key: short, count: rate.count, per: rate.per }
}

async fn take(shared: &dyn SharedCounters, buckets: &[SharedBucket]) -> Result<()> {
    match shared.take(buckets).await? {
        None => Ok(()),
        Some(after) => Err(AccountError::Throttled(after)),
    }
}
