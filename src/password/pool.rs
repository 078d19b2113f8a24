//! Argon2id on threads of its own.
//!
//! What is required here: memory is bounded by the number of threads, each of which allocates its
//! blocks once; the queue is bounded and what waits too long is turned away; the threads run at
//! the lowest priority, so that requests with tokens keep their latency while logins flood in;
//! and an unknown user costs exactly what a known one costs.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant},
};

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::phc::{Output, ParamsString, PasswordHash, Salt},
};
use thiserror::Error;
use tokio::sync::oneshot;

use crate::{
    config,
    telemetry::Metrics,
    types::{Random, Secret},
};

/// The most memory that a hash from elsewhere may ask for.
const MAX_STORED_KIB: u32 = 64 << 10;

/// Turned away: the queue is full, or the wait was too long.
#[derive(Debug, Error, Clone, Copy, PartialEq, Eq)]
#[error("the password workers are busy")]
pub struct Busy {
    /// When to try again.
    pub retry_after: Duration,
}

/// Why there is no hash.
#[derive(Debug, Error)]
pub enum HashError {
    /// Turned away.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// The stored hash cannot be used, or the library refused.
    #[error("password hash: {0}")]
    Failed(String),
}

/// What a stored hash says to a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// It is the password.
    pub matches: bool,
    /// It was hashed with other parameters than are configured now.
    pub outdated: bool,
}

enum Work {
    Hash(oneshot::Sender<Result<String, HashError>>),
    Verify(Option<Box<PasswordHash>>, oneshot::Sender<Result<Verdict, HashError>>),
}

struct Job {
    password: Secret,
    work: Work,
    deadline: Instant,
}

impl Job {
    fn is_abandoned(&self) -> bool {
        match &self.work {
            Work::Hash(reply) => reply.is_closed(),
            Work::Verify(_, reply) => reply.is_closed(),
        }
    }
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    params: Params,
    capacity: usize,
    timeout: Duration,
    random: Arc<dyn Random>,
    metrics: Arc<Metrics>,
}

/// The pool. Dropping it lets the threads finish and end.
pub struct Hasher {
    shared: Arc<Shared>,
}

impl Drop for Hasher {
    fn drop(&mut self) {
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.shared.wake.notify_all();
    }
}

impl Hasher {
    /// Starts the threads.
    ///
    /// # Errors
    /// When argon2 refuses the parameters, or a thread cannot be made.
    pub fn start(
        config: &config::Password,
        random: Arc<dyn Random>,
        metrics: Arc<Metrics>,
    ) -> Result<Self, HashError> {
        let params = Params::new(config.memory_kib, config.iterations, config.parallelism, None)
            .map_err(|error| HashError::Failed(error.to_string()))?;
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
            params,
            capacity: config.queue,
            timeout: config.queue_timeout,
            random,
            metrics,
        });
        let hasher = Self { shared };
        for index in 0..config.workers {
            let shared = hasher.shared.clone();
            std::thread::Builder::new()
                .name(format!("password-{index}"))
                .spawn(move || shared.work())
                .map_err(|error| HashError::Failed(error.to_string()))?;
        }
        Ok(hasher)
    }

    /// Hashes a password; the result is a PHC string.
    ///
    /// # Errors
    /// [`HashError::Busy`] when the queue is full or the wait was too long.
    pub async fn hash(&self, password: Secret) -> Result<String, HashError> {
        let (reply, answer) = oneshot::channel();
        self.submit(password, Work::Hash(reply))?;
        self.wait(answer).await
    }

    /// Compares a password with a stored hash.
    ///
    /// # Errors
    /// [`HashError::Busy`] as for [`Self::hash`]; [`HashError::Failed`] when `stored` is not a
    /// hash that this pool can verify.
    pub async fn verify(&self, password: Secret, stored: &str) -> Result<Verdict, HashError> {
        let stored = PasswordHash::new(stored).map_err(|error| HashError::Failed(error.to_string()))?;
        self.submit_verify(password, Some(stored)).await
    }

    /// Spends what comparing with a stored hash would cost, and says no.
    ///
    /// # Errors
    /// As for [`Self::hash`].
    pub async fn verify_unknown(&self, password: Secret) -> Result<Verdict, HashError> {
        self.submit_verify(password, None).await
    }

    async fn submit_verify(
        &self,
        password: Secret,
        stored: Option<PasswordHash>,
    ) -> Result<Verdict, HashError> {
        let (reply, answer) = oneshot::channel();
        self.submit(password, Work::Verify(stored.map(Box::new), reply))?;
        self.wait(answer).await
    }

    fn busy(&self) -> Busy {
        Busy { retry_after: self.shared.timeout.max(Duration::from_secs(1)) }
    }

    fn submit(&self, password: Secret, work: Work) -> Result<(), Busy> {
        let mut queue = self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.jobs.len() >= self.shared.capacity {
            queue.jobs.retain(|job| !job.is_abandoned());
        }
        if queue.jobs.len() >= self.shared.capacity {
            return Err(self.busy());
        }
        queue.jobs.push_back(Job { password, work, deadline: Instant::now() + self.shared.timeout });
        self.shared.metrics.password_queue_depth.set(queue.jobs.len() as i64);
        drop(queue);
        self.shared.wake.notify_one();
        Ok(())
    }

    async fn wait<T>(&self, answer: oneshot::Receiver<Result<T, HashError>>) -> Result<T, HashError> {
        // A worker drops a job whose deadline has passed unhashed.
        answer.await.unwrap_or_else(|_| Err(self.busy().into()))
    }
}

impl Shared {
    fn work(&self) {
        // SAFETY: a plain system call about the calling thread (0 is itself).
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
        let mut blocks = vec![Block::new(); self.params.block_count()];
        while let Some(job) = self.next_job() {
            let begun = Instant::now();
            let Job { password, work, .. } = job;
            let count = || self.metrics.password_seconds.observe(begun.elapsed().as_secs_f64());
            // The caller may have gone; then nobody hears the answer.
            match work {
                Work::Hash(reply) => {
                    let hash = self.hash(&password, &mut blocks);
                    count();
                    drop(reply.send(hash));
                }
                Work::Verify(stored, reply) => {
                    let verdict = self.verify(&password, stored.as_deref(), &mut blocks);
                    count();
                    drop(reply.send(verdict));
                }
            }
        }
    }

    fn next_job(&self) -> Option<Job> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            while let Some(job) = queue.jobs.pop_front() {
                self.metrics.password_queue_depth.set(queue.jobs.len() as i64);
                if !job.is_abandoned() && Instant::now() < job.deadline {
                    return Some(job);
                }
            }
            if queue.closed {
                return None;
            }
            queue = self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn hash(&self, password: &Secret, blocks: &mut Vec<Block>) -> Result<String, HashError> {
        let salt = self.random.bytes::<16>();
        let output =
            self.derive(&self.params, Algorithm::Argon2id, Version::V0x13, password, &salt, blocks)?;
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

    fn verify(
        &self,
        password: &Secret,
        stored: Option<&PasswordHash>,
        blocks: &mut Vec<Block>,
    ) -> Result<Verdict, HashError> {
        let Some(stored) = stored else {
            self.derive(&self.params, Algorithm::Argon2id, Version::V0x13, password, &[0; 16], blocks)?;
            return Ok(Verdict { matches: false, outdated: false });
        };
        let failed = |text: &str| HashError::Failed(text.to_owned());
        let algorithm =
            Algorithm::try_from(stored.algorithm.as_str()).map_err(|_| failed("not an argon2 hash"))?;
        let version = match stored.version {
            Some(version) => Version::try_from(version).map_err(|_| failed("unknown argon2 version"))?,
            None => Version::V0x13,
        };
        let params = Params::try_from(stored).map_err(|_| failed("illegal argon2 parameters"))?;
        if params.m_cost() > self.params.m_cost().max(MAX_STORED_KIB) {
            return Err(failed("more memory than a stored hash may ask for"));
        }
        let salt = stored.salt.as_ref().ok_or_else(|| failed("no salt"))?;
        let expected = stored.hash.as_ref().ok_or_else(|| failed("no hash"))?;
        let output = self.derive(&params, algorithm, version, password, salt.as_ref(), blocks)?;
        let outdated = algorithm != Algorithm::Argon2id
            || (params.m_cost(), params.t_cost(), params.p_cost())
                != (self.params.m_cost(), self.params.t_cost(), self.params.p_cost());
        // `Output` compares in constant time.
        Ok(Verdict { matches: output == *expected, outdated })
    }

    fn derive(
        &self,
        params: &Params,
        algorithm: Algorithm,
        version: Version,
        password: &Secret,
        salt: &[u8],
        blocks: &mut Vec<Block>,
    ) -> Result<Output, HashError> {
        let needed = params.block_count();
        if blocks.len() < needed {
            blocks.resize(needed, Block::new());
        }
        let mut output = [0; Output::MAX_LENGTH];
        let length = params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN).min(output.len());
        Argon2::new(algorithm, version, params.clone())
            .hash_password_into_with_memory(
                password.expose().as_bytes(),
                salt,
                &mut output[..length],
                &mut blocks[..needed],
            )
            .map_err(|error| HashError::Failed(error.to_string()))?;
        // What a hash with larger parameters needed is not kept.
        blocks.truncate(self.params.block_count());
        blocks.shrink_to_fit();
        Output::new(&output[..length]).map_err(|error| HashError::Failed(error.to_string()))
    }
}
