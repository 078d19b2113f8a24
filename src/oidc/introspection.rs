//! The word of an issuer on tokens that only it can read (RFC 7662).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::digest::{SHA256, digest};
use moka::sync::Cache;
use tokio::{runtime::Handle, sync::watch};

use super::Fetcher;
use crate::{
    clock::TimeKeeper,
    config::{Introspection, IssuerKeys},
    limit::{CallGate, Prefix},
    telemetry::Metrics,
    token::{Claims, ExternalIssuer, TokenError, Verifier},
};

/// The most questions at once.
const MOST_ASKED: usize = 256;

/// The most tokens that are remembered to be no good.
const MOST_REFUSED: u64 = 100_000;

type TokenHash = [u8; 32];

/// What a question came to; none while it is asked.
type Outcome = Option<Result<(), TokenError>>;

/// Asks an issuer about tokens. Each token is asked about once, however many requests wait for the answer.
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
}

impl Introspector {
    /// Creates what asks `issuer`, or none if it is not asked about tokens. Questions run on `runtime`.
    pub fn new(
        issuer: &Arc<ExternalIssuer>,
        fetcher: Fetcher,
        verifier: Arc<Verifier>,
        time: Arc<TimeKeeper>,
        metrics: Arc<Metrics>,
        runtime: Handle,
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
        if !token.bytes().all(legal) {
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
        let admitted = self.gate.admit(Prefix::of(client)).ok_or(TokenError::NoKeys)?;
        let (sender, outcome) = watch::channel(None);
        asking.insert(hash, outcome.clone());
        let (introspector, token) = (self.clone(), token.to_owned());
        // To its end: what it comes to holds for the requests that come next, too.
        self.runtime.spawn(async move {
            let _admitted = admitted;
            let asked = introspector.ask_issuer(&token).await;
            if let Err(error) = asked
                && error != TokenError::NoKeys
            {
                introspector.refused.insert(hash, error);
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
            tracing::warn!(issuer = name, %error, "an issuer could not be asked about a token");
            TokenError::NoKeys
        })?;
        let said = Claims::parse(&said).map_err(|_| TokenError::NoKeys)?;
        let until = now.seconds().saturating_add(cache.as_secs() as i64);
        let principal = self.issuer.introspected(&said, until, now)?;
        self.verifier.learn(token.as_bytes(), principal);
        Ok(())
    }
}
