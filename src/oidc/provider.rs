//! Providers by whom people sign in: the code flow of OpenID Connect Core 1.0 (section 3.1) with PKCE (RFC 7636), and that of GitHub.
//!
//! Metadata is fetched at the first sign-in, so a provider that is unavailable affects nothing else.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

use super::{
    FetchError, Fetcher, Identity,
    discovery::{self, Metadata},
};
use crate::{
    clock::{UnixMillis, millis},
    config::{self, HttpUrl, ProviderKind, SignatureAlgorithm},
    token::{KeySet, TokenError, verify_signature},
    types::Secret,
};

/// How long metadata and keys are fresh.
const METADATA_FOR: Duration = Duration::from_secs(3_600);

/// How long metadata is used while it cannot be fetched again.
const STALE_FOR: Duration = Duration::from_secs(86_400);

/// How long no fetch is tried after one that was slow and failed. Requests in that time fail at once.
const AWAY_FOR: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(1);

/// The shortest time between two fetches of keys for unknown or wrong signatures.
const KEYS_AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// The greatest accepted clock difference, in seconds.
const LEEWAY: i64 = 60;

/// The greatest age of an ID token, in seconds, however long it holds: one is made for each sign-in.
const LONGEST_AGE: i64 = 3_600;

/// An error of a sign-in by a provider. The text is for the log.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// The provider cannot be reached, or breaks the protocol.
    #[error("the provider is unavailable: {0}")]
    Unavailable(String),
    /// The provider rejected the code, or its response was rejected here.
    #[error("the provider's response is rejected: {0}")]
    Rejected(String),
}

use ProviderError::{Rejected, Unavailable};

/// An authorization request (RFC 6749, section 4.1.1).
#[derive(Debug)]
pub struct AuthorizationRequest<'a> {
    /// The address of the callback.
    pub redirect_uri: &'a str,
    /// The state, which the callback returns.
    pub state: &'a str,
    /// The nonce, which the ID token returns.
    pub nonce: &'a str,
    /// The PKCE challenge (RFC 7636, section 4.2).
    pub challenge: &'a str,
    /// Whether the person is to be asked anew, although they are signed in there.
    pub is_proof: bool,
}

#[derive(Deserialize)]
struct Tokens {
    access_token: Option<Secret>,
    id_token: Option<String>,
    /// GitHub's way to say no.
    error: Option<String>,
}

#[derive(Default)]
struct Known {
    metadata: Option<(Metadata, UnixMillis)>,
    keys: Option<(Arc<KeySet>, UnixMillis)>,
    /// When a fetch failed at last, and why.
    failed: Option<(UnixMillis, String)>,
}

/// A client of a provider.
pub struct ProviderClient {
    pub(super) config: config::Provider,
    pub(super) fetcher: Fetcher,
    known: Mutex<Known>,
    /// Held by the task that fetches for all.
    fetching: tokio::sync::Mutex<()>,
}

pub(super) fn failed_fetch(error: FetchError) -> ProviderError {
    match error {
        // It was asked, and says no.
        FetchError::Status(status) if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
            Rejected(error.to_string())
        }
        error => Unavailable(error.to_string()),
    }
}

pub(super) fn read<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ProviderError> {
    serde_json::from_slice(bytes).map_err(|error| Rejected(format!("{what}: {error}")))
}

impl ProviderClient {
    /// Returns a client.
    pub fn new(config: config::Provider, fetcher: Fetcher) -> Self {
        Self { config, fetcher, known: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// Returns the provider's config.
    pub fn config(&self) -> &config::Provider {
        &self.config
    }

    /// Returns the address of an authorization request.
    ///
    /// # Errors
    /// [`ProviderError::Unavailable`].
    pub async fn authorization_url(
        &self,
        request: &AuthorizationRequest<'_>,
        now: UnixMillis,
    ) -> Result<String, ProviderError> {
        let scope = self.config.scopes.join(" ");
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", self.config.client_id.as_str()),
            ("redirect_uri", request.redirect_uri),
            ("scope", &scope),
            ("state", request.state),
            ("code_challenge", request.challenge),
            ("code_challenge_method", "S256"),
        ];
        let address = match &self.config.kind {
            ProviderKind::OpenId { .. } => {
                parameters.push(("nonce", request.nonce));
                if request.is_proof {
                    // OpenID Connect Core 1.0, section 3.1.2.1.
                    parameters.push(("max_age", "0"));
                }
                self.metadata(now).await?.authorization
            }
            ProviderKind::GitHub { web, .. } => address_of(&web.below("/login/oauth/authorize")),
        };
        let query = serde_urlencoded::to_string(&parameters).unwrap_or_default();
        let separator = if address.contains('?') { '&' } else { '?' };
        Ok(format!("{address}{separator}{query}"))
    }

    /// Checks the `iss` of an authorization response (RFC 9207, section 2.4).
    ///
    /// # Errors
    /// [`ProviderError`].
    pub async fn check_issuer(&self, iss: Option<&str>, now: UnixMillis) -> Result<(), ProviderError> {
        let ProviderKind::OpenId { issuer, .. } = &self.config.kind else {
            return match iss {
                None => Ok(()),
                Some(_) => Err(Rejected("its response names an issuer, and it is none".to_owned())),
            };
        };
        match iss {
            Some(iss) if iss == issuer => Ok(()),
            Some(_) => Err(Rejected("its response names another issuer".to_owned())),
            None if self.metadata(now).await?.names_issuer => {
                Err(Rejected("its response names no issuer, and it says that each one does".to_owned()))
            }
            None => Ok(()),
        }
    }

    /// Exchanges a code, and returns the identity of the person.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub async fn identify(
        &self,
        code: &str,
        redirect_uri: &str,
        verifier: &str,
        nonce: &str,
        now: UnixMillis,
    ) -> Result<Identity, ProviderError> {
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", redirect_uri),
            ("code_verifier", verifier),
        ];
        match &self.config.kind {
            ProviderKind::OpenId { issuer, .. } => {
                let metadata = self.metadata(now).await?;
                let (id, secret) = (self.config.client_id.as_str(), &self.config.client_secret);
                let response = if metadata.posts_secret {
                    let own = [("client_id", id), ("client_secret", secret.expose())];
                    self.fetcher.post_form(&metadata.token, &[&form[..], &own].concat()).await
                } else {
                    self.fetcher.post(&metadata.token, &form, id, secret).await
                };
                let tokens: Tokens = read(&response.map_err(failed_fetch)?, "its tokens")?;
                let token = tokens.id_token.ok_or_else(|| Rejected("it gave no ID token".to_owned()))?;
                let claims = self.verify(&token, issuer, nonce, &metadata, now).await?;
                self.open_id_identity(issuer, claims, tokens.access_token, &metadata).await
            }
            ProviderKind::GitHub { web, api } => {
                let (id, secret) = (self.config.client_id.as_str(), self.config.client_secret.expose());
                let own = [("client_id", id), ("client_secret", secret)];
                let address = web.below("/login/oauth/access_token");
                let response = self.fetcher.post_form(&address, &[&form[..], &own].concat()).await;
                let tokens: Tokens = read(&response.map_err(failed_fetch)?, "its tokens")?;
                let token = tokens.access_token.ok_or_else(|| {
                    let error = tokens.error.unwrap_or_default();
                    Rejected(format!("it gave no access token: {}", error.escape_debug()))
                })?;
                self.github_identity(web, api, &token).await
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a document, unless a fetch has failed a moment ago.
    async fn fetch(&self, url: &HttpUrl, now: UnixMillis) -> Result<Bytes, String> {
        if let Some((failed_at, why)) = &self.known().failed
            && (now - failed_at).abs() < millis(AWAY_FOR)
        {
            return Err(why.clone());
        }
        let begun = Instant::now();
        let fetched = self.fetcher.get(url).await.map_err(|error| error.to_string());
        let took_long = begun.elapsed() >= LONG;
        self.known().failed = fetched.as_ref().err().filter(|_| took_long).map(|why| (now, why.clone()));
        fetched
    }

    fn known_metadata(&self, now: UnixMillis, longest: Duration) -> Option<Metadata> {
        let known = self.known();
        let (metadata, read_at) = known.metadata.as_ref()?;
        (now - read_at < millis(longest)).then(|| metadata.clone())
    }

    async fn metadata(&self, now: UnixMillis) -> Result<Metadata, ProviderError> {
        let ProviderKind::OpenId { issuer, url } = &self.config.kind else {
            return Err(Unavailable("it has no OpenID configuration".to_owned()));
        };
        if let Some(metadata) = self.known_metadata(now, METADATA_FOR) {
            return Ok(metadata);
        }
        let _turn = self.fetching.lock().await;
        if let Some(metadata) = self.known_metadata(now, METADATA_FOR) {
            return Ok(metadata);
        }
        let fetched = self.fetch(&url.below(discovery::PATH), now).await;
        match fetched.and_then(|document| Metadata::parse(&document, issuer)) {
            Ok(metadata) => {
                self.known().metadata = Some((metadata.clone(), now));
                Ok(metadata)
            }
            // What it said before may still hold.
            Err(why) => self.known_metadata(now, STALE_FOR).ok_or(Unavailable(why)),
        }
    }

    fn known_keys(&self) -> Option<(Arc<KeySet>, UnixMillis)> {
        self.known().keys.clone()
    }

    /// Returns keys other than those that were fetched at `not_of`.
    async fn fetch_keys(
        &self,
        metadata: &Metadata,
        not_of: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Result<Arc<KeySet>, ProviderError> {
        let _turn = self.fetching.lock().await;
        if let Some((keys, read_at)) = self.known_keys()
            && Some(read_at) != not_of
        {
            return Ok(keys);
        }
        let document = self.fetch(&metadata.keys, now).await.map_err(Unavailable)?;
        let algorithms = SignatureAlgorithm::ALL.map(|(_, algorithm)| algorithm);
        let keys =
            KeySet::parse(&document, &algorithms, None).map_err(|error| Unavailable(error.to_string()))?;
        let keys = Arc::new(keys);
        self.known().keys = Some((keys.clone(), now));
        Ok(keys)
    }

    /// Verifies an ID token (OpenID Connect Core 1.0, section 3.1.3.7), and returns its claims.
    async fn verify(
        &self,
        token: &str,
        issuer: &str,
        nonce: &str,
        metadata: &Metadata,
        now: UnixMillis,
    ) -> Result<Value, ProviderError> {
        let bad = |error: TokenError| Rejected(format!("its ID token: {error}"));
        let by = |keys: &KeySet| verify_signature(token, |kid, algorithm| keys.find(kid, algorithm));
        let known = self.known_keys();
        let read_at = known.as_ref().map(|(_, read_at)| *read_at);
        let age = read_at.map(|read_at| now - read_at);
        let verified = match &known {
            Some((keys, _)) => by(keys),
            None => Err(TokenError::UnknownKey),
        };
        let is_old = age.is_some_and(|age| age >= millis(METADATA_FOR));
        let may_ask = age.is_none_or(|age| age >= millis(KEYS_AT_MOST_EVERY));
        let payload = match verified {
            Ok((payload, _)) if is_old => match self.fetch_keys(metadata, read_at, now).await {
                Ok(keys) => by(&keys).map_err(bad)?.0,
                // They are used through an outage.
                Err(_) => payload,
            },
            Ok((payload, _)) => payload,
            // Some exchange a key without another name for it.
            Err(TokenError::UnknownKey | TokenError::Signature) if may_ask => {
                let keys = self.fetch_keys(metadata, read_at, now).await?;
                by(&keys).map_err(bad)?.0
            }
            Err(error) => return Err(bad(error)),
        };
        if payload.typ.is_some_and(|typ| !typ.eq_ignore_ascii_case("JWT")) {
            return Err(Rejected("its ID token is of another type".to_owned()));
        }
        let claims: Value = read(&payload.bytes, "its ID token")?;
        let wrong = |what: &str| Rejected(format!("its ID token: {what}"));
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let id = self.config.client_id.as_str();
        let is_ours = match &claims["aud"] {
            Value::String(audience) => audience == id,
            // With others beside us it says for whom it was made.
            Value::Array(all) => {
                all.iter().any(|audience| audience == id) && (all.len() == 1 || text("azp") == Some(id))
            }
            _ => false,
        };
        if text("iss") != Some(issuer) {
            return Err(wrong("`iss` is another"));
        }
        if !is_ours || text("azp").is_some_and(|party| party != id) {
            return Err(wrong("`aud` is another"));
        }
        if text("nonce") != Some(nonce) {
            return Err(wrong("`nonce` is another"));
        }
        let seconds = now.div_euclid(1_000);
        let expires_at = claims["exp"].as_i64().ok_or_else(|| wrong("no `exp`"))?;
        let issued_at = claims["iat"].as_i64().ok_or_else(|| wrong("no `iat`"))?;
        let begins_at = claims["nbf"].as_i64().unwrap_or(issued_at).max(issued_at);
        let is_old = issued_at.saturating_add(LONGEST_AGE) < seconds;
        if seconds >= expires_at.saturating_add(LEEWAY)
            || begins_at > seconds.saturating_add(LEEWAY)
            || is_old
        {
            return Err(wrong("it is not of now"));
        }
        Ok(claims)
    }
}

pub(super) fn address_of(url: &HttpUrl) -> String {
    let scheme = if url.is_https { "https" } else { "http" };
    format!("{scheme}://{}{}", url.authority, url.target.trim_end_matches('/'))
}
