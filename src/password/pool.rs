//! Argon2id on threads of its own.
//!
//! What is required here: memory is bounded by the number of threads, each of which allocates its
//! blocks once; the queue is bounded and what waits too long is turned away; the threads run at
//! the lowest priority, so that requests with tokens keep their latency while logins flood in;
//! and an unknown user costs exactly what a known one costs.

use std::{
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use tokio::sync::oneshot;

use super::{
    BreachedFile, ForeignHash, PasswordError,
    cost::{Costs, thread_time},
    job::{Busy, HashError, Job, Stored, Verdict, Work},
    queue::Queue,
    rule,
    share::{Origin, Place, Shares},
};
use crate::{
    config, memory, priority,
    telemetry::Metrics,
    types::{Random, Secret},
};

/// How many times the cost of the slowest scheme passes before a failed login is answered: room for
/// what happens beside it.
const FLOOR: f64 = 1.5;

/// For how long a worker that has nothing to do keeps the memory that it hashes in.
const KEPT_FOR: Duration = Duration::from_secs(2);

/// For learning what a scheme costs.
const CALIBRATION_TIMEOUT: Duration = Duration::from_secs(300);

/// What hashes with the configured parameters are called among the schemes.
const OWN_SCHEME: &str = "own";

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    params: Params,
    reject_common: bool,
    breached: Option<Arc<BreachedFile>>,
    capacity: usize,
    timeout: Duration,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
    costs: Arc<Costs>,
}

/// The pool. Dropping it lets the threads finish and end.
pub struct Hasher {
    shared: Arc<Shared>,
    /// The lane of hashes with other parameters: slow ones do not hold up the rest.
    foreign: Arc<Shared>,
    shares: Arc<Shares>,
    /// When that lane would be free if every login went through it.
    next_in_lane: Mutex<Instant>,
}

impl Drop for Hasher {
    fn drop(&mut self) {
        for lane in [&self.shared, &self.foreign] {
            lane.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
            lane.wake.notify_all();
        }
    }
}

impl Hasher {
    /// Starts the threads. The list of stolen passwords is read with the first new password, if it has not been yet.
    ///
    /// # Errors
    /// When argon2 refuses the parameters, or a thread cannot be made.
    pub fn start(
        config: &config::Password,
        breached: Option<Arc<BreachedFile>>,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, HashError> {
        let params = Params::new(config.memory_kib, config.iterations, config.parallelism, None)
            .map_err(|error| HashError::Failed(error.to_string()))?;
        let costs = Arc::<Costs>::default();
        let lane = || {
            Arc::new(Shared {
                queue: Mutex::default(),
                wake: Condvar::new(),
                params: params.clone(),
                reject_common: config.reject_common,
                breached: breached.clone(),
                capacity: config.queue,
                timeout: config.queue_timeout,
                random: random.clone(),
                metrics: metrics.clone(),
                costs: costs.clone(),
            })
        };
        let shares = Shares::of(config.queue);
        let hasher =
            Self { shared: lane(), foreign: lane(), shares, next_in_lane: Mutex::new(Instant::now()) };
        let names = (0..config.workers).map(|index| (format!("password-{index}"), &hasher.shared));
        for (name, lane) in names.chain([("foreign".to_owned(), &hasher.foreign)]) {
            let lane = lane.clone();
            std::thread::Builder::new()
                .name(name)
                .spawn(move || lane.work())
                .map_err(|error| HashError::Failed(error.to_string()))?;
        }
        Ok(hasher)
    }

    /// When a failed login that begins now may be answered: no earlier than the slowest scheme in
    /// the store takes, so that it does not tell which one an account has. While there are hashes in
    /// the lane of their own, where one waits for the other, every login waits as if it were there.
    pub fn failure_moment(&self) -> Instant {
        let (now, slowest) = (Instant::now(), self.shared.costs.slowest());
        let floor = slowest.mul_f64(FLOOR);
        if !self.shared.costs.knows_foreign() {
            return now + floor;
        }
        let mut next = self.next_in_lane.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = (*next).max(now);
        *next = (turn + slowest).min(now + self.shared.timeout);
        turn + floor
    }

    /// The list of stolen passwords that it goes by.
    pub fn breached(&self) -> Option<Arc<BreachedFile>> {
        self.shared.breached.clone()
    }

    /// Scheme and cost of the hashes that are made.
    pub fn own_scheme(&self) -> String {
        let params = &self.shared.params;
        format!("$argon2id$v=19$m={},t={},p={}", params.m_cost(), params.t_cost(), params.p_cost())
    }

    /// Learns what the schemes of stored hashes cost, and our own.
    ///
    /// # Errors
    /// As for [`Self::hash`].
    pub async fn calibrate(&self, schemes: &[String]) -> Result<(), HashError> {
        let nothing = || Secret::new("calibration");
        if !self.shared.costs.knows(OWN_SCHEME) {
            self.submit_verify(nothing(), Stored::Unknown, None).await?;
        }
        let own = self.own_scheme();
        for scheme in schemes.iter().filter(|scheme| **scheme != own && !self.shared.costs.knows(scheme)) {
            if let Some(specimen) = ForeignHash::specimen(scheme) {
                self.submit_verify(nothing(), Stored::Foreign(Box::new(specimen), nothing()), None).await?;
            }
        }
        Ok(())
    }

    /// Hashes a password that somebody chooses now; the result is a PHC string. One of those that are tried first, if they
    /// are refused, may cost as much as the hash.
    ///
    /// # Errors
    /// [`HashError::Busy`] when the queue is full or the wait was too long; [`HashError::Crowded`] when others of
    /// the same origin are to blame; [`HashError::Rejected`] for a common or a stolen password.
    pub async fn hash_new(&self, password: Secret, origin: Origin) -> Result<String, HashError> {
        self.hash(password, true, origin).await
    }

    /// Hashes a password that an account has already, with the parameters of today.
    ///
    /// # Errors
    /// As for [`Self::hash_new`], but that none is rejected.
    pub async fn hash_again(&self, password: Secret, origin: Origin) -> Result<String, HashError> {
        self.hash(password, false, origin).await
    }

    async fn hash(&self, password: Secret, is_new: bool, origin: Origin) -> Result<String, HashError> {
        let (reply, answer) = oneshot::channel();
        self.submit(&self.shared, password, Work::Hash { is_new, reply }, Some(origin))?;
        self.wait(answer).await
    }

    /// Compares a password with a stored hash: `password` as it is hashed here, `typed` as it came.
    ///
    /// # Errors
    /// [`HashError::Busy`] as for [`Self::hash`]; [`HashError::Failed`] when `stored` is not a
    /// hash that this pool can verify.
    pub async fn verify(
        &self,
        password: Secret,
        typed: &Secret,
        stored: &str,
        origin: Origin,
    ) -> Result<Verdict, HashError> {
        let stored = match self.shared.current(stored) {
            Some(hash) => Stored::Current(Box::new(hash)),
            None => {
                let hash = ForeignHash::parse_stored(stored)
                    .map_err(|error| HashError::Failed(error.to_string()))?;
                Stored::Foreign(Box::new(hash), typed.clone())
            }
        };
        self.submit_verify(password, stored, Some(origin)).await
    }

    /// Spends what comparing with a stored hash would cost, and says no.
    ///
    /// # Errors
    /// As for [`Self::hash`].
    pub async fn verify_unknown(&self, password: Secret, origin: Origin) -> Result<Verdict, HashError> {
        self.submit_verify(password, Stored::Unknown, Some(origin)).await
    }

    async fn submit_verify(
        &self,
        password: Secret,
        stored: Stored,
        origin: Option<Origin>,
    ) -> Result<Verdict, HashError> {
        let lane = if matches!(stored, Stored::Foreign(..)) { &self.foreign } else { &self.shared };
        let (reply, answer) = oneshot::channel();
        self.submit(lane, password, Work::Verify(stored, reply), origin)?;
        self.wait(answer).await
    }

    fn busy(&self) -> Busy {
        Busy { retry_after: self.shared.timeout.max(Duration::from_secs(1)) }
    }

    /// A place among those that nobody waits for any more.
    fn room_for(&self, origin: &Origin) -> Option<Place> {
        for lane in [&self.shared, &self.foreign] {
            lane.queue.lock().unwrap_or_else(PoisonError::into_inner).drop_abandoned();
        }
        self.shares.enter(origin)
    }

    /// Puts work into a lane; without an origin, what nobody waits for.
    fn submit(
        &self,
        lane: &Shared,
        password: Secret,
        work: Work,
        origin: Option<Origin>,
    ) -> Result<(), HashError> {
        let counted = origin.is_some();
        // What nobody waits for may take as long as a busy machine needs.
        let patience = if counted { lane.timeout } else { CALIBRATION_TIMEOUT };
        let deadline = Instant::now() + patience;
        let place = match &origin {
            None => None,
            Some(origin) => match self.shares.enter(origin).or_else(|| self.room_for(origin)) {
                None => return Err(HashError::Crowded),
                place => place,
            },
        };
        let job = Job { origin: origin.unwrap_or_default(), place, counted, password, work, deadline };
        let mut queue = lane.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let pushed = queue.push(job, lane.capacity);
        lane.metrics.password_queue_depth.set(queue.len() as i64);
        drop(queue);
        if !pushed {
            return Err(self.busy().into());
        }
        lane.wake.notify_one();
        Ok(())
    }

    async fn wait<T>(&self, answer: oneshot::Receiver<Result<T, HashError>>) -> Result<T, HashError> {
        // A worker drops a job whose deadline has passed unhashed.
        answer.await.unwrap_or_else(|_| Err(self.busy().into()))
    }
}

impl Shared {
    fn work(&self) {
        priority::add_niceness(priority::HASHING);
        let mut blocks = Vec::new();
        while let Some(job) = self.next_job(&mut blocks) {
            let begun = Instant::now();
            let Job { place: _place, counted, password, work, .. } = job;
            let count = || {
                if counted {
                    self.metrics.password_seconds.observe(begun.elapsed().as_secs_f64());
                }
            };
            // The caller may have gone; then nobody hears the response.
            match work {
                Work::Hash { is_new, reply } => {
                    let screened = if is_new { self.screen(&password) } else { Ok(()) };
                    let hash = match screened {
                        Err(error) => Err(error),
                        Ok(()) => self.hash(&password, &mut blocks),
                    };
                    count();
                    drop(reply.send(hash));
                }
                Work::Verify(stored, reply) => {
                    let verdict = self.verify(&password, &stored, &mut blocks);
                    count();
                    drop(reply.send(verdict));
                }
            }
        }
    }

    fn next_job(&self, blocks: &mut Vec<Block>) -> Option<Job> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(job) = queue.pop() {
                self.metrics.password_queue_depth.set(queue.len() as i64);
                if !job.is_abandoned() && Instant::now() < job.deadline {
                    return Some(job);
                }
            }
            if queue.closed {
                return None;
            }
            if blocks.is_empty() {
                queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let woken = self.wake.wait_timeout(queue, KEPT_FOR).unwrap_or_else(PoisonError::into_inner);
            if woken.1.timed_out() {
                memory::free_huge_pages(std::mem::take(blocks));
            }
            queue = woken.0;
        }
    }

    /// Looks whether a new password is one that attackers have.
    fn screen(&self, password: &Secret) -> Result<(), HashError> {
        // What costs microseconds goes first.
        let list = self.breached.as_ref().map(|file| file.list()).transpose()?;
        if list.is_some_and(|list| list.contains(password)) {
            return Err(PasswordError::Breached.into());
        }
        if self.reject_common && rule::is_common(password.expose()) {
            return Err(PasswordError::Common.into());
        }
        Ok(())
    }

    fn hash(&self, password: &Secret, blocks: &mut Vec<Block>) -> Result<String, HashError> {
        let salt = self.random.bytes::<16>();
        let output = self.derive(password, &salt, blocks)?;
        let failed = |error: &dyn std::fmt::Display| HashError::Failed(error.to_string());
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(&self.params).map_err(|error| failed(&error))?,
            salt: Some(Salt::new(&salt).map_err(|error| failed(&error))?),
            hash: Some(output),
        };
        Ok(hash.to_string())
    }

    /// A stored hash with the parameters that are configured; `None` for any other.
    fn current(&self, stored: &str) -> Option<PasswordHash> {
        let hash = PasswordHash::new(stored).ok()?;
        let params = Params::try_from(&hash).ok()?;
        let same = hash.algorithm == Algorithm::Argon2id.ident()
            && hash.version == Some(Version::V0x13.into())
            && (params.m_cost(), params.t_cost(), params.p_cost())
                == (self.params.m_cost(), self.params.t_cost(), self.params.p_cost());
        let whole = hash.salt.is_some()
            && hash.hash.as_ref().is_some_and(|hash| hash.len() == Params::DEFAULT_OUTPUT_LEN);
        (same && whole).then_some(hash)
    }

    fn verify(
        &self,
        password: &Secret,
        stored: &Stored,
        blocks: &mut Vec<Block>,
    ) -> Result<Verdict, HashError> {
        let begun = thread_time();
        let cost = || thread_time().saturating_sub(begun);
        let (salt, expected) = match stored {
            Stored::Unknown => (None, None),
            Stored::Current(hash) => (hash.salt.as_ref(), hash.hash.as_ref()),
            Stored::Foreign(hash, typed) => {
                let mut matches = hash.verify(typed.expose().as_bytes());
                // Our own hashes of other parameters are of the normalised password.
                if !matches && hash.may_be_own() && typed.expose() != password.expose() {
                    matches = hash.verify(password.expose().as_bytes());
                }
                self.costs.observe(hash.scheme(), cost());
                return Ok(Verdict { matches, outdated: true });
            }
        };
        let salt = salt.map_or([0; 16].as_slice(), AsRef::as_ref);
        let output = self.derive(password, salt, blocks)?;
        self.costs.observe(OWN_SCHEME, cost());
        // `Output` compares in constant time.
        Ok(Verdict { matches: expected.is_some_and(|expected| output == *expected), outdated: false })
    }

    fn derive(&self, password: &Secret, salt: &[u8], blocks: &mut Vec<Block>) -> Result<Output, HashError> {
        if blocks.is_empty() {
            // A hash reads and writes all over it: with small pages the processor looks up an address at nearly each step.
            *blocks = Vec::with_capacity(self.params.block_count());
            memory::use_huge_pages(blocks);
        }
        blocks.resize(self.params.block_count(), Block::new());
        let mut output = [0; Params::DEFAULT_OUTPUT_LEN];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, self.params.clone())
            .hash_password_into_with_memory(password.expose().as_bytes(), salt, &mut output, blocks)
            .map_err(|error| HashError::Failed(error.to_string()))?;
        Output::new(&output).map_err(|error| HashError::Failed(error.to_string()))
    }
}
