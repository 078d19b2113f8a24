//! The work that never ends: reading what was issued, and ordering what is due.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    certificates::IssuedCertificates,
    client::Client,
    order::{Obtained, OrderError, Orders},
    schedule::{next_look, renewal, wait},
};
use crate::{
    clock::{TimeKeeper, UnixMillis, millis},
    config,
    http_client::HttpClient,
    store::{OrderEnd, OrderLease, Store, StoredCertificate},
    telemetry::Metrics,
    tls::Issued,
    token::MasterKeys,
    types::{Random, hash::sha256},
};

/// How often the store is looked at for what other gateways obtained, and which proofs are pending.
const LOOK: Duration = Duration::from_secs(2);

/// How often it is looked for an order that is due.
const SEEK: Duration = Duration::from_secs(5);

/// How long a lease lasts, and how often it is extended.
const HOLD: Duration = Duration::from_secs(15);
const EXTEND: Duration = Duration::from_secs(5);

/// What a config wants, and how the authority is reached.
pub(super) struct Wanted {
    config: config::Acme,
    client: Client,
}

/// Reads what was issued, and orders what is due, for as long as the process runs.
pub struct Worker {
    store: Arc<dyn Store>,
    masters: Arc<MasterKeys>,
    certificates: Arc<IssuedCertificates>,
    time: Arc<TimeKeeper>,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
    wanted: watch::Sender<Option<Arc<Wanted>>>,
}

impl Worker {
    /// Creates a worker that wants nothing yet.
    pub fn new(
        store: Arc<dyn Store>,
        masters: Arc<MasterKeys>,
        certificates: Arc<IssuedCertificates>,
        time: Arc<TimeKeeper>,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { store, masters, certificates, time, random, metrics, wanted: watch::Sender::new(None) }
    }

    /// Returns what was issued.
    pub fn certificates(&self) -> &Arc<IssuedCertificates> {
        &self.certificates
    }

    /// Works for another config from now on; `client` reaches its authority.
    pub fn set_wanted(&self, wanted: Option<(config::Acme, Arc<HttpClient>)>) {
        let wanted = wanted.map(|(config, client)| {
            let client = Client::new(client, &config.directory);
            Arc::new(Wanted { config, client })
        });
        self.wanted.send_replace(wanted);
    }

    /// Reads what was issued for as long as the process runs. After each look it calls `changed` with the names that are wanted, and
    /// those for which something was issued since the last one.
    pub async fn follow(self: Arc<Self>, changed: impl Fn(&[String], &[String]) + Send) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut failing = false;
        loop {
            ticks.tick().await;
            let wanted = self.wanted.borrow().clone();
            let Some(wanted) = wanted else {
                self.certificates.forget_challenges().await;
                continue;
            };
            match self.certificates.read(&wanted.config.names).await {
                Ok(fresh) => {
                    failing = false;
                    changed(&wanted.config.names, &fresh);
                }
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(%error, "certificates cannot be read from the store");
                }
                Err(_) => {}
            }
        }
    }

    /// Orders what is due, for as long as the process runs.
    pub async fn work(self: Arc<Self>) {
        let mut changes = self.wanted.subscribe();
        let mut expected: Option<String> = None;
        loop {
            let wanted = changes.borrow_and_update().clone();
            if let Some(wanted) = wanted {
                let hold = millis(HOLD);
                let directory = &wanted.config.directory_text;
                if expected.as_ref() != Some(directory)
                    && self.store.expect_directory(directory).await.is_ok()
                {
                    expected = Some(directory.clone());
                }
                match self.store.lease_order(&wanted.config.names, hold).await {
                    Ok(Some(lease)) => {
                        self.serve(&wanted, lease).await;
                        // There may be more.
                        continue;
                    }
                    Ok(None) => {}
                    Err(error) => tracing::debug!(%error, "orders cannot be leased"),
                }
            }
            tokio::select! {
                () = sleep(SEEK) => {}
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// Does what is due under a lease, and ends it.
    async fn serve(self: &Arc<Self>, wanted: &Wanted, lease: OrderLease) {
        let orders = Orders {
            store: self.store.clone(),
            masters: self.masters.clone(),
            certificates: self.certificates.clone(),
            config: wanted.config.clone(),
            client: wanted.client.clone(),
        };
        let name = &lease.name;
        // In a task of its own: what an authority responds with may not end the orders of all names.
        let ordering = tokio::spawn({
            let (this, lease) = (self.clone(), lease.clone());
            async move { this.order(&orders, &lease).await }
        });
        let abort = ordering.abort_handle();
        let done = tokio::select! {
            done = ordering => done.unwrap_or(Err(OrderError::Panicked)),
            () = self.holds(&lease) => {
                abort.abort();
                Err(OrderError::Lost)
            }
        };
        let (end, due_at) = match done {
            Ok(Done::NotDue(due_at)) => (OrderEnd::NotDue, due_at),
            Ok(Done::Obtained(obtained)) => {
                let Obtained { chain, wrapped_key, issued } = *obtained;
                let (begins, expires) = issued.validity();
                tracing::info!(name, expires, "certificate obtained");
                self.metrics.acme_order(true);
                let (now, renewal) = (self.now(), renewal(begins, expires, None, 0));
                let is_short = renewal <= now;
                let due_at = if is_short {
                    tracing::warn!(
                        name,
                        expires,
                        "a certificate was issued that is past two thirds of its life"
                    );
                    now + millis(wait(lease.failures.saturating_add(1), false, self.draw()))
                } else {
                    next_look(now, renewal)
                };
                let directory = wanted.config.directory_text.clone();
                (OrderEnd::Obtained { chain, wrapped_key, directory, is_short }, due_at)
            }
            Err(OrderError::Lost) => return tracing::warn!(name, "another gateway orders the certificate"),
            Err(error) => {
                self.metrics.acme_order(false);
                let failures = lease.failures.saturating_add(1);
                // Another kind of proof is tried soon.
                let has_others = (failures as usize) < wanted.config.challenges.len();
                let wait = wait(failures, error.is_on_the_way() || has_others, self.draw());
                let wait_s = wait.as_secs();
                tracing::error!(name, %error, failures, wait_s, "a certificate could not be obtained");
                (OrderEnd::Failed { keeps_order: error.keeps_order(failures) }, self.now() + millis(wait))
            }
        };
        self.end(&lease, &end, due_at).await;
    }

    /// Ends a lease. What was obtained is not given up because the store is away for a while.
    async fn end(&self, lease: &OrderLease, end: &OrderEnd, due_at: UnixMillis) {
        let begun = Instant::now();
        loop {
            match self.store.end_order(lease, end, due_at).await {
                Ok(true) => return,
                Ok(false) => {
                    return tracing::warn!(name = lease.name, "another gateway has taken an order over");
                }
                Err(error) if begun.elapsed() > HOLD => {
                    return tracing::error!(name = lease.name, %error, "the end of an order could not be stored");
                }
                Err(_) => sleep(Duration::from_secs(1)).await,
            }
        }
    }

    async fn order(&self, orders: &Orders, lease: &OrderLease) -> Result<Done, OrderError> {
        let of_the_authority = |stored: &&StoredCertificate| stored.directory == orders.config.directory_text;
        let current = lease.current.as_ref().filter(of_the_authority);
        let current: Option<Issued> = current.and_then(|stored| self.certificates.open(stored).ok());
        let account = orders.account().await;
        if let Some(current) = current.as_ref().filter(|_| lease.begun.is_none()) {
            let (begins, expires) = current.validity();
            let usual = renewal(begins, expires, None, 0);
            let account = match &account {
                Ok(account) => account,
                // Nothing is lost before it is due: the next look asks again.
                Err(error) if usual > self.now() => {
                    tracing::debug!(name = lease.name, %error, "the certificate authority cannot be asked");
                    return Ok(Done::NotDue(next_look(self.now(), usual)));
                }
                Err(_) => return account.map(|_| Done::NotDue(usual)),
            };
            let window = orders.window(account, current).await;
            let renewal = renewal(begins, expires, window, draw_of(&lease.name, expires));
            if renewal > self.now() {
                return Ok(Done::NotDue(next_look(self.now(), renewal)));
            }
        }
        let now = u64::try_from(self.now() / 1_000).unwrap_or_default();
        let obtained = orders.obtain_by_any_account(&account?, lease, current.as_ref(), now).await?;
        Ok(Done::Obtained(Box::new(obtained)))
    }

    /// Extends a lease until it is lost.
    async fn holds(&self, lease: &OrderLease) {
        let mut extended = Instant::now();
        loop {
            sleep(EXTEND).await;
            match self.store.extend_lease(lease, millis(HOLD)).await {
                Ok(true) => extended = Instant::now(),
                Ok(false) => return,
                // Another gateway may take it over from now on.
                Err(_) if extended.elapsed() > HOLD => return,
                Err(_) => {}
            }
        }
    }

    fn now(&self) -> UnixMillis {
        self.time.database_time()
    }

    fn draw(&self) -> u32 {
        u32::from_ne_bytes((*self.random).bytes())
    }
}

/// What was done under a lease.
enum Done {
    /// The certificate is to be looked at again at this time.
    NotDue(UnixMillis),
    Obtained(Box<Obtained>),
}

/// Returns a number that is the same for one certificate on all gateways, and different for different ones.
fn draw_of(name: &str, expires: u64) -> u32 {
    let [a, b, c, d, ..] = sha256(format!("{name} {expires}").as_bytes());
    u32::from_ne_bytes([a, b, c, d])
}
