//! Throttling: which attempts are counted in which buckets.
//!
//! It is never a lockout: a stranger's failures bind strangers. Whoever has logged in from an address before, or brings
//! the token of a device that he has logged in from, has buckets of his own there. Each attempt counts twice: as a failure
//! until it has succeeded, and, in a bucket ten times as wide, whatever comes of it, since a right password costs a hash, too.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use foldhash::quality::RandomState;
use uuid::Uuid;

use super::{AccountError, Result};
use crate::{
    clock::TimeKeeper,
    config::{self, Rate},
    limit::{Bucket, Counter, Prefix, Throttle},
    store::{SharedBucket, Store},
    types::{SessionId, UserId, Username},
};

/// For how long an address is familiar after a login.
const FAMILIAR_FOR: Duration = Duration::from_secs(30 * 86_400);

/// How many attempts there may be for each failure.
const ATTEMPTS_A_FAILURE: u32 = 10;

/// Counts attempts at the rates of a config.
pub struct Attempts {
    counts: Arc<AttemptCounts>,
    rates: config::Throttle,
}

/// The attempts so far: counted here, or in the store where several gateways share one.
pub struct AttemptCounts {
    local: Arc<Throttle>,
    store: Arc<dyn Store>,
    time: Arc<TimeKeeper>,
    /// Buckets of the store that were found empty, and until when they are, by the boot clock: a flood of attempts that
    /// are refused anyway does not reach the store.
    empty: Mutex<HashMap<[u8; 16], i64, RandomState>>,
}

/// How long an empty bucket is taken for empty, in milliseconds: another attempt may have been given back meanwhile.
const EMPTY_FOR: i64 = 1_000;

/// Buckets that are remembered as empty.
const MAX_EMPTY: usize = 10_000;

/// A reserved attempt to authenticate. Unless it is given back, it counts as a failure.
#[must_use]
pub(super) struct Reserved {
    failures: Vec<Bucket>,
    attempts: Vec<Bucket>,
    familiar: Bucket,
}

/// A reserved use of a bounded operation.
#[must_use]
pub(super) struct Used(Vec<Bucket>);

/// An account as it is counted.
pub(super) struct Counted {
    /// Its canonical name: what is familiar is familiar to it alone.
    name: String,
    /// Its skeleton: for strangers, spellings and look-alikes are one.
    look: String,
}

impl Counted {
    /// The account of a name.
    pub(super) fn of(name: &Username) -> Self {
        Self { name: name.to_string(), look: name.skeleton() }
    }

    /// A text that is no legal name.
    pub(super) fn of_text(typed: &str) -> Self {
        let typed: String = typed.chars().take(Username::MAX_CHARS).collect();
        Self { name: typed.clone(), look: typed }
    }

    /// Its skeleton.
    pub(super) fn look(&self) -> &str {
        &self.look
    }
}

fn wide(rate: Rate) -> Rate {
    Rate { count: rate.count.saturating_mul(ATTEMPTS_A_FAILURE), ..rate }
}

impl AttemptCounts {
    /// Counters for a store: its own if it has any, otherwise in memory.
    pub fn new(store: Arc<dyn Store>, time: Arc<TimeKeeper>) -> Arc<Self> {
        Arc::new(Self { local: Throttle::new(), store, time, empty: Mutex::default() })
    }
}

impl Attempts {
    /// Counts at these rates.
    pub fn new(counts: Arc<AttemptCounts>, rates: config::Throttle) -> Self {
        Self { counts, rates }
    }

    /// Reserves a login. `known` says whether there is such an account; `device` is one that it was logged in from.
    pub(super) async fn login(
        &self,
        account: &Counted,
        known: bool,
        address: IpAddr,
        device: Option<Uuid>,
    ) -> Result<Reserved> {
        let prefix = Prefix::of(address).to_string();
        let familiar = familiar(&prefix, &account.name);
        // Asked for every name: one question less would tell by its time that there is no such account.
        let is_familiar = self.is_known(&familiar).await?;
        let (failures, attempts, whom) = if let (true, Some(device)) = (known, device) {
            (Counter::FamiliarFailures, Counter::FamiliarAttempts, format!("{device}\0{}", account.name))
        } else if known && is_familiar {
            let whom = format!("{prefix}\0{}", account.name);
            (Counter::FamiliarFailures, Counter::FamiliarAttempts, whom)
        } else if known {
            (Counter::AccountFailures, Counter::AccountAttempts, account.look.clone())
        } else {
            (Counter::UnknownFailures, Counter::UnknownAttempts, account.look.clone())
        };
        let rates = &self.rates;
        let reserved = Reserved {
            failures: vec![
                Bucket::new(Counter::AddressFailures, &prefix, rates.address),
                Bucket::new(failures, &whom, rates.account),
            ],
            attempts: vec![
                Bucket::new(Counter::AddressAttempts, &prefix, wide(rates.address)),
                Bucket::new(attempts, &whom, wide(rates.account)),
            ],
            familiar,
        };
        self.take(&reserved.all()).await?;
        Ok(reserved)
    }

    /// Counts a change of credentials by a signed-in caller, in the wide buckets of its account and address.
    pub(super) async fn change(&self, account: &Username, address: IpAddr) -> Result<Used> {
        let prefix = Prefix::of(address).to_string();
        let account = Counted::of(account);
        let (counter, whom) = match self.is_known(&familiar(&prefix, &account.name)).await? {
            true => (Counter::FamiliarAttempts, format!("{prefix}\0{}", account.name)),
            false => (Counter::AccountAttempts, account.look),
        };
        let buckets = vec![
            Bucket::new(Counter::AddressAttempts, &prefix, wide(self.rates.address)),
            Bucket::new(counter, &whom, wide(self.rates.account)),
        ];
        self.take(&buckets).await?;
        Ok(Used(buckets))
    }

    async fn by_address(&self, counter: Counter, address: IpAddr, rate: Rate) -> Result<Used> {
        let buckets = vec![Bucket::new(counter, &Prefix::of(address).to_string(), rate)];
        self.take(&buckets).await?;
        Ok(Used(buckets))
    }

    /// Counts a registration.
    pub(super) async fn registration(&self, address: IpAddr) -> Result<Used> {
        self.by_address(Counter::Registrations, address, self.rates.registrations).await
    }

    /// Counts a request for a mail.
    pub(super) async fn mail(&self, address: IpAddr) -> Result<Used> {
        self.by_address(Counter::Mails, address, self.rates.mails).await
    }

    /// Counts a mail that is to be queued.
    pub(super) async fn queued_mail(
        &self,
        user: UserId,
        is_notice: bool,
        most: config::MailsPerHour,
    ) -> Result<()> {
        // What others have sent for an account must not silence what it is told.
        let of_account = if is_notice { Counter::AccountNotices } else { Counter::AccountMails };
        let hour = |count| Rate { count, per: Duration::from_secs(3_600) };
        let buckets = [
            Bucket::new(Counter::AllMails, "", hour(most.all)),
            Bucket::new(of_account, &user.to_string(), hour(most.account)),
        ];
        self.take(&buckets).await
    }

    /// Returns whether they are counted by these rates.
    pub fn are_by(&self, rates: config::Throttle) -> bool {
        self.rates == rates
    }

    /// Counts an API key that is none, as a failed login from the address is counted.
    ///
    /// # Errors
    /// [`AccountError::Throttled`], or the store's.
    pub async fn bad_key(&self, address: IpAddr) -> Result<()> {
        self.by_address(Counter::AddressFailures, address, self.rates.address).await.map(drop)
    }

    /// Counts a refresh token that is none of ours.
    pub(super) async fn bad_refresh(&self, address: IpAddr) -> Result<Used> {
        self.by_address(Counter::BadRefreshes, address, self.rates.address).await
    }

    /// Counts a refresh of a session: who shares an address with others is not bound by theirs.
    pub(super) async fn refresh(&self, session: SessionId) -> Result<Used> {
        let buckets = vec![Bucket::new(Counter::Refreshes, &session.to_string(), wide(self.rates.account))];
        self.take(&buckets).await?;
        Ok(Used(buckets))
    }

    /// Counts a challenge that is made for nobody in particular, or a token of one that is none.
    pub(super) async fn challenge(&self, address: IpAddr) -> Result<Used> {
        self.by_address(Counter::Challenges, address, wide(self.rates.address)).await
    }

    /// The password was right, and a factor is asked for: it was no failure, and the address is not familiar yet.
    pub(super) async fn passed(&self, reserved: Reserved) {
        self.give_back(&reserved.failures).await;
    }

    /// The password was right: it was no failure, and the address is familiar from now on.
    pub(super) async fn succeeded(&self, reserved: Reserved) {
        self.give_back(&reserved.failures).await;
        match self.counts.store.shared_counters() {
            Some(shared) => warn(shared.note(&shared_bucket(&reserved.familiar)).await),
            None => self.counts.local.note(&reserved.familiar, self.counts.time.now().boot),
        }
    }

    /// The password was never looked at, as when the store is away: nothing is counted.
    pub(super) async fn forgotten(&self, reserved: Reserved) {
        self.give_back(&reserved.all()).await;
    }

    /// Gives back a use that failed for no reason of the caller's.
    pub(super) async fn unused(&self, used: Used) {
        self.give_back(&used.0).await;
    }

    async fn is_known(&self, bucket: &Bucket) -> Result<bool> {
        match self.counts.store.shared_counters() {
            Some(shared) => Ok(shared.is_known(&bucket.key).await?),
            None => Ok(self.counts.local.is_known(bucket, self.counts.time.now().boot)),
        }
    }

    async fn take(&self, buckets: &[Bucket]) -> Result<()> {
        let Some(shared) = self.counts.store.shared_counters() else {
            return Ok(self.counts.local.take(buckets, self.counts.time.now().boot)?);
        };
        let now = self.counts.time.now().boot;
        if let Some(until) = self.empty_until(buckets, now) {
            return Err(AccountError::Throttled(Duration::from_millis((until - now).unsigned_abs())));
        }
        match shared.take(&shared_buckets(buckets)).await? {
            None => Ok(()),
            Some((index, after)) => {
                let span = i64::try_from(after.as_millis()).unwrap_or(i64::MAX).min(EMPTY_FOR);
                if let Some(bucket) = buckets.get(index) {
                    let mut empty = self.counts.empty.lock().unwrap_or_else(PoisonError::into_inner);
                    if empty.len() >= MAX_EMPTY {
                        empty.retain(|_, until| now < *until);
                    }
                    if empty.len() < MAX_EMPTY {
                        empty.insert(bucket.key, now + span);
                    }
                }
                Err(AccountError::Throttled(after))
            }
        }
    }

    /// Until when one of these buckets is known to be empty.
    fn empty_until(&self, buckets: &[Bucket], now: i64) -> Option<i64> {
        let empty = self.counts.empty.lock().unwrap_or_else(PoisonError::into_inner);
        buckets.iter().filter_map(|bucket| empty.get(&bucket.key).copied()).find(|until| now < *until)
    }

    async fn give_back(&self, buckets: &[Bucket]) {
        match self.counts.store.shared_counters() {
            Some(shared) => warn(shared.give_back(&shared_buckets(buckets)).await),
            None => self.counts.local.give_back(buckets, self.counts.time.now().boot),
        }
    }
}

impl Reserved {
    /// Addresses before accounts, always: two gateways never wait for each other's row.
    fn all(&self) -> Vec<Bucket> {
        let mut all: Vec<Bucket> = self.failures.iter().chain(&self.attempts).cloned().collect();
        all.sort_by_key(|bucket| bucket.counter as usize);
        all
    }
}

fn familiar(prefix: &str, account: &str) -> Bucket {
    Bucket::new(Counter::Familiar, &format!("{prefix}\0{account}"), Rate { count: 1, per: FAMILIAR_FOR })
}

fn shared_bucket(bucket: &Bucket) -> SharedBucket {
    SharedBucket { key: bucket.key, count: bucket.rate.count, per: bucket.rate.per }
}

fn shared_buckets(buckets: &[Bucket]) -> Vec<SharedBucket> {
    buckets.iter().map(shared_bucket).collect()
}

/// A login does not fail because it could not be uncounted.
fn warn(result: crate::store::Result<()>) {
    if let Err(error) = result {
        tracing::warn!(%error, "an attempt could not be given back");
    }
}
