//! The word of an issuer on tokens that only it can read (RFC 7662).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use moka::sync::Cache;
use tokio::{runtime::Handle, sync::watch};

use super::Fetcher;
use crate::{
    clock::{TimeKeeper, coarse_millis},
    config::{Introspection, IssuerKeys, Rate},
    limit::{Bucket, CallGate, Counter, Prefix, Throttle},
    telemetry::{Metrics, WarningLimit},
    token::{Claims, ExternalIssuer, TokenError, Verifier},
};

/// The most questions at once.
const MOST_ASKED: usize = 256;

/// The most tokens that are remembered to be no good.
const MOST_REFUSED: u64 = 100_000;

/// The most tokens that are remembered to be good, and for how long.
const MOST_GOOD: u64 = 100_000;
const GOOD_FOR: Duration = Duration::from_secs(3_600);

/// Tokens that turn out to be bad, from one address.
const BAD_TOKENS: Rate = Rate { count: 120, per: Duration::from_secs(60) };

type TokenHash = [u8; 32];

/// What a question came to; none while it is asked.
type Outcome = Option<Result<(), TokenError>>;

/// Asks an issuer about tokens. Each token is asked about once, however many requests wait for the response.
pub struct Introspector {
    issuer: Arc<ExternalIssuer>,
    config: Introspection,
    fetcher: Fetcher,
    verifier: Arc<Verifier>,
    time: Arc<TimeKeeper>,
    metrics: Arc<Metrics>,
    gate: Arc<CallGate>,
    runtime: Handle,
    asking: Mutex<HashMap<TokenHash, watch::Receiver<Outcome>>>,
    refused: Cache<TokenHash, TokenError>,
    /// Tokens that were good a while ago. They are asked about whoever else asks.
    good: Cache<TokenHash, ()>,
    throttle: Arc<Throttle>,
    warnings: WarningLimit,
    is_own: IsOwn,
}

/// Tells tokens of the gateway's own, which are nobody else's to see.
pub type IsOwn = Box<dyn Fn(&str) -> bool + Send + Sync>;

impl Introspector {
    /// Creates what asks `issuer`, or none if it is not asked about tokens. Questions run on `runtime`.
    pub fn new(
        issuer: &Arc<ExternalIssuer>,
        fetcher: Fetcher,
        verifier: Arc<Verifier>,
        time: Arc<TimeKeeper>,
        metrics: Arc<Metrics>,
        runtime: Handle,
        is_own: IsOwn,
    ) -> Option<Arc<Self>> {
        let IssuerKeys::Introspection(config) = &issuer.config().keys else { return None };
        let refused = Cache::builder().max_capacity(MOST_REFUSED).time_to_live(config.cache).build();
        Some(Arc::new(Self {
            issuer: issuer.clone(),
            config: config.clone(),
            fetcher,
            verifier,
            time,
            metrics,
            gate: CallGate::new(MOST_ASKED),
            runtime,
            asking: Mutex::default(),
            refused,
            good: Cache::builder().max_capacity(MOST_GOOD).time_to_live(GOOD_FOR).build(),
            throttle: Throttle::new(),
            warnings: WarningLimit::default(),
            is_own,
        }))
    }

    fn asking(&self) -> MutexGuard<'_, HashMap<TokenHash, watch::Receiver<Outcome>>> {
        self.asking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the verifier learn what the issuer says of a token, which `client` sent.
    ///
    /// # Errors
    /// When the token is not accepted, or the issuer cannot be asked.
    pub async fn ask(self: &Arc<Self>, token: &str, client: IpAddr) -> Result<(), TokenError> {
        // RFC 6750, section 2.1.
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !token.bytes().all(legal) || (self.is_own)(token) {
            return Err(TokenError::Malformed);
        }
        let mut hash = TokenHash::default();
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if let Some(error) = self.refused.get(&hash) {
            return Err(error);
        }
        let mut outcome = self.begin(hash, token, client)?;
        let outcome = outcome.wait_for(Option::is_some).await;
        outcome.ok().and_then(|outcome| *outcome).unwrap_or(Err(TokenError::NoKeys))
    }

    /// Begins to ask about a token, unless that was begun.
    fn begin(
        self: &Arc<Self>,
        hash: TokenHash,
        token: &str,
        client: IpAddr,
    ) -> Result<watch::Receiver<Outcome>, TokenError> {
        let mut asking = self.asking();
        if let Some(outcome) = asking.get(&hash) {
            return Ok(outcome.clone());
        }
        let prefix = Prefix::of(client);
        let bucket = Bucket::new(Counter::AddressFailures, &prefix.to_string(), BAD_TOKENS);
        let was_good = self.good.contains_key(&hash);
        let admitted = if was_good {
            None
        } else {
            // Taken before it is asked, and given back if the token is good.
            let taken = self.throttle.take(std::slice::from_ref(&bucket), self.time.now().boot);
            taken.map_err(|_| TokenError::Throttled)?;
            Some(self.gate.admit(prefix).ok_or(TokenError::NoKeys)?)
        };
        let (sender, outcome) = watch::channel(None);
        asking.insert(hash, outcome.clone());
        let (introspector, token) = (self.clone(), token.to_owned());
        // To its end: what it comes to holds for the requests that come next, too.
        self.runtime.spawn(async move {
            let _admitted = admitted;
            let asked = introspector.ask_issuer(&token).await;
            match asked {
                Ok(()) => introspector.good.insert(hash, ()),
                Err(TokenError::NoKeys) => {}
                Err(error) => {
                    introspector.good.invalidate(&hash);
                    introspector.refused.insert(hash, error);
                }
            }
            if !was_good && matches!(asked, Ok(()) | Err(TokenError::NoKeys)) {
                introspector.throttle.give_back(&[bucket], introspector.time.now().boot);
            }
            introspector.asking().remove(&hash);
            sender.send_replace(Some(asked));
        });
        Ok(outcome)
    }

    async fn ask_issuer(&self, token: &str) -> Result<(), TokenError> {
        let Introspection { url, client_id, client_secret, cache } = &self.config;
        // What is said holds from before it was asked for.
        let now = self.time.now();
        let form = [("token", token), ("token_type_hint", "access_token")];
        let fetched = self.fetcher.post(url, &form, client_id, client_secret).await;
        let name = &self.issuer.config().name;
        self.metrics.issuer_fetch(name, fetched.is_ok());
        let said = fetched.map_err(|error| {
            if let Some(suppressed) = self.warnings.admit(coarse_millis()) {
                tracing::warn!(issuer = name, %error, suppressed, "an issuer could not be asked about a token");
            }
            TokenError::NoKeys
        })?;
        let said = Claims::parse(&said).map_err(|_| TokenError::NoKeys)?;
        let until = now.seconds().saturating_add(cache.as_secs() as i64);
        let principal = self.issuer.introspected(&said, until, now)?;
        self.verifier.learn(token.as_bytes(), principal);
        Ok(())
    }
}
