//! Providers by whom people sign in: the code flow of OpenID Connect Core 1.0 (section 3.1) with PKCE (RFC 7636), and that of GitHub.
//!
//! Where a provider's parts are is read when somebody needs them, so that one that is away stops nobody else.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;

use super::{FetchError, Fetcher, discovery};
use crate::{
    clock::{UnixMillis, millis},
    config::{self, HttpUrl, ProviderKind, SignatureAlgorithm},
    token::{KeySet, TokenError, verify_signature},
    types::Secret,
};

/// How long what a provider says of itself is taken for true.
const METADATA_FOR: Duration = Duration::from_secs(3_600);

/// How long it is, while it cannot be asked anew.
const STALE_FOR: Duration = Duration::from_secs(86_400);

/// How long nobody asks again after a fetch that took long and failed: those who wait for it are told at once.
const AWAY_FOR: Duration = Duration::from_secs(5);
const LONG: Duration = Duration::from_secs(1);

/// How often its keys are fetched for tokens that none of them has signed.
const KEYS_AT_MOST_EVERY: Duration = Duration::from_secs(10);

/// How far its clock may differ, in seconds.
const LEEWAY: i64 = 60;

/// The longest name of somebody there, in bytes (OpenID Connect Core 1.0, section 2).
const LONGEST_SUBJECT: usize = 255;

/// Why a sign-in by a provider comes to nothing. The text is for the log.
#[derive(Debug, Error)]
pub enum ProviderError {
    /// It cannot be reached, or does not do what it says.
    #[error("the provider is away: {0}")]
    Away(String),
    /// It does not take the code, or what it says cannot be taken.
    #[error("the provider's word cannot be taken: {0}")]
    Refused(String),
}

use ProviderError::{Away, Refused};

/// What a browser is sent to a provider with.
#[derive(Debug)]
pub struct Outset<'a> {
    /// Where it calls back.
    pub redirect_uri: &'a str,
    /// What comes back with it.
    pub state: &'a str,
    /// What its token names.
    pub nonce: &'a str,
    /// The challenge of the verifier.
    pub challenge: &'a str,
}

/// Who somebody is, by the word of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The provider's issuer.
    pub issuer: String,
    /// Who they are there.
    pub subject: String,
    /// What they are called there.
    pub name: Option<String>,
    /// Their address, and whether it is verified.
    pub email: Option<(String, bool)>,
    /// Their roles there; none if it does not tell.
    pub roles: Option<Vec<String>>,
}

/// Where a provider's parts are, by its OpenID configuration.
#[derive(Debug, Clone)]
struct Metadata {
    authorization: String,
    token: HttpUrl,
    userinfo: Option<HttpUrl>,
    keys: HttpUrl,
    /// Whether each response names its issuer (RFC 9207, section 3).
    names_issuer: bool,
    /// Whether the secret goes into the form.
    posts_secret: bool,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    authorization_endpoint: String,
    token_endpoint: String,
    jwks_uri: String,
    #[serde(default)]
    userinfo_endpoint: Option<String>,
    #[serde(default)]
    authorization_response_iss_parameter_supported: bool,
    #[serde(default)]
    token_endpoint_auth_methods_supported: Option<Vec<String>>,
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

/// Speaks to a provider.
pub struct ProviderClient {
    config: config::Provider,
    fetcher: Fetcher,
    known: Mutex<Known>,
    /// The turn of whoever fetches for all.
    fetching: tokio::sync::Mutex<()>,
}

fn away(error: FetchError) -> ProviderError {
    match error {
        // It was asked, and says no.
        FetchError::Status(status) if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
            Refused(error.to_string())
        }
        error => Away(error.to_string()),
    }
}

fn read<T: DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, ProviderError> {
    serde_json::from_slice(bytes).map_err(|error| Refused(format!("{what}: {error}")))
}

impl ProviderClient {
    /// One for a provider of a config.
    pub fn new(config: config::Provider, fetcher: Fetcher) -> Self {
        Self { config, fetcher, known: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// What the config says of it.
    pub fn config(&self) -> &config::Provider {
        &self.config
    }

    /// Returns the address that a browser goes to.
    ///
    /// # Errors
    /// [`ProviderError::Away`].
    pub async fn outset(&self, outset: &Outset<'_>, now: UnixMillis) -> Result<String, ProviderError> {
        let scope = self.config.scopes.join(" ");
        let mut parameters = vec![
            ("response_type", "code"),
            ("client_id", self.config.client_id.as_str()),
            ("redirect_uri", outset.redirect_uri),
            ("scope", &scope),
            ("state", outset.state),
            ("code_challenge", outset.challenge),
            ("code_challenge_method", "S256"),
        ];
        let address = match &self.config.kind {
            ProviderKind::OpenId { .. } => {
                parameters.push(("nonce", outset.nonce));
                self.metadata(now).await?.authorization
            }
            ProviderKind::GitHub { web, .. } => address_of(&web.below("/login/oauth/authorize")),
        };
        let query = serde_urlencoded::to_string(&parameters).unwrap_or_default();
        let separator = if address.contains('?') { '&' } else { '?' };
        Ok(format!("{address}{separator}{query}"))
    }

    /// Makes sure that a response is this provider's and no other's (RFC 9207, section 2.4). `iss` is what it says.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub async fn check_issuer(&self, iss: Option<&str>, now: UnixMillis) -> Result<(), ProviderError> {
        let ProviderKind::OpenId { issuer, .. } = &self.config.kind else {
            return match iss {
                None => Ok(()),
                Some(_) => Err(Refused("its response names an issuer, and it is none".to_owned())),
            };
        };
        match iss {
            Some(iss) if iss == issuer => Ok(()),
            Some(_) => Err(Refused("its response names another issuer".to_owned())),
            None if self.metadata(now).await?.names_issuer => {
                Err(Refused("its response names no issuer, and it says that each one does".to_owned()))
            }
            None => Ok(()),
        }
    }

    /// Returns who somebody is who came back with a code.
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
                let answer = if metadata.posts_secret {
                    let own = [("client_id", id), ("client_secret", secret.expose())];
                    self.fetcher.post_form(&metadata.token, &[&form[..], &own].concat()).await
                } else {
                    self.fetcher.post(&metadata.token, &form, id, secret).await
                };
                let tokens: Tokens = read(&answer.map_err(away)?, "its tokens")?;
                let token = tokens.id_token.ok_or_else(|| Refused("it gave no ID token".to_owned()))?;
                let claims = self.verify(&token, issuer, nonce, &metadata, now).await?;
                self.open_id_identity(issuer, claims, tokens.access_token, &metadata).await
            }
            ProviderKind::GitHub { web, api } => {
                let (id, secret) = (self.config.client_id.as_str(), self.config.client_secret.expose());
                let own = [("client_id", id), ("client_secret", secret)];
                let address = web.below("/login/oauth/access_token");
                let answer = self.fetcher.post_form(&address, &[&form[..], &own].concat()).await;
                let tokens: Tokens = read(&answer.map_err(away)?, "its tokens")?;
                let token = tokens.access_token.ok_or_else(|| {
                    let error = tokens.error.unwrap_or_default();
                    Refused(format!("it gave no access token: {}", error.escape_debug()))
                })?;
                self.github_identity(web, api, &token).await
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fetches a document for all who wait for it. One that failed a moment ago is not asked for again.
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
            return Err(Away("it has no OpenID configuration".to_owned()));
        };
        if let Some(metadata) = self.known_metadata(now, METADATA_FOR) {
            return Ok(metadata);
        }
        let _turn = self.fetching.lock().await;
        if let Some(metadata) = self.known_metadata(now, METADATA_FOR) {
            return Ok(metadata);
        }
        let fetched = self.fetch(&url.below(discovery::PATH), now).await;
        match fetched.and_then(|document| parse_metadata(&document, issuer)) {
            Ok(metadata) => {
                self.known().metadata = Some((metadata.clone(), now));
                Ok(metadata)
            }
            // What it said before may still hold.
            Err(why) => self.known_metadata(now, STALE_FOR).ok_or(Away(why)),
        }
    }

    fn known_keys(&self) -> Option<(Arc<KeySet>, UnixMillis)> {
        self.known().keys.clone()
    }

    /// Returns keys that are not those that were read at `not_of`.
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
        let document = self.fetch(&metadata.keys, now).await.map_err(Away)?;
        let algorithms = SignatureAlgorithm::ALL.map(|(_, algorithm)| algorithm);
        let keys = KeySet::parse(&document, &algorithms, None).map_err(|error| Away(error.to_string()))?;
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
        let bad = |error: TokenError| Refused(format!("its ID token: {error}"));
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
            return Err(Refused("its ID token is of another type".to_owned()));
        }
        let claims: Value = read(&payload.bytes, "its ID token")?;
        let wrong = |what: &str| Refused(format!("its ID token: {what}"));
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
        if seconds >= expires_at.saturating_add(LEEWAY) || issued_at > seconds.saturating_add(LEEWAY) {
            return Err(wrong("it is not of now"));
        }
        Ok(claims)
    }

    async fn open_id_identity(
        &self,
        issuer: &str,
        mut claims: Value,
        token: Option<Secret>,
        metadata: &Metadata,
    ) -> Result<Identity, ProviderError> {
        let subject = claims["sub"].as_str().and_then(checked_subject);
        let subject = subject.ok_or_else(|| Refused("its ID token: no `sub`".to_owned()))?;
        // What is not in the token may be told beside it (section 5.3).
        let lacks = |name: &str| claims.get(name).is_none();
        let at = |claims: &Value| {
            self.config.roles_claim.iter().fold(claims.clone(), |value, name| value[name.as_str()].clone())
        };
        let lacks_roles = !self.config.roles.is_empty() && at(&claims).is_null();
        let is_complete = !lacks("email") && !lacks("preferred_username") && !lacks_roles;
        if let (false, Some(address), Some(token)) = (is_complete, &metadata.userinfo, token) {
            let more = self.fetcher.get_as(address, &token).await;
            // The token is enough.
            let more: Value =
                more.ok().and_then(|more| serde_json::from_slice(&more).ok()).unwrap_or_default();
            if !more.is_null() && more["sub"].as_str() != Some(subject.as_str()) {
                return Err(Refused("what it says of the person is about another one".to_owned()));
            }
            if let (Some(claims), Value::Object(more)) = (claims.as_object_mut(), more) {
                // An address and whether it is verified belong together.
                let has_email = claims.contains_key("email");
                if !has_email {
                    claims.remove("email_verified");
                }
                let is_about_email = |name: &str| matches!(name, "email" | "email_verified");
                for (name, value) in more {
                    if !(has_email && is_about_email(&name)) {
                        claims.entry(name).or_insert(value);
                    }
                }
            }
        }
        let is_verified = match &claims["email_verified"] {
            Value::Bool(verified) => *verified,
            Value::String(text) => self.config.string_booleans && text == "true",
            _ => false,
        };
        let text = |name: &str| claims[name].as_str().map(str::to_owned).filter(|text| !text.is_empty());
        let roles = match at(&claims) {
            Value::Array(roles) => Some(roles.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
            Value::String(roles) => Some(roles.split_whitespace().map(str::to_owned).collect()),
            _ => None,
        };
        Ok(Identity {
            issuer: issuer.to_owned(),
            subject,
            name: text("preferred_username"),
            email: text("email").map(|email| (email, is_verified)),
            roles,
        })
    }

    async fn github_identity(
        &self,
        web: &HttpUrl,
        api: &HttpUrl,
        token: &Secret,
    ) -> Result<Identity, ProviderError> {
        #[derive(Deserialize)]
        struct Person {
            id: u64,
            login: String,
        }

        #[derive(Deserialize)]
        struct Email {
            email: String,
            primary: bool,
            verified: bool,
        }

        let person = self.fetcher.get_as(&api.below("/user"), token).await.map_err(away)?;
        let person: Person = read(&person, "what it says of the person")?;
        let emails = match self.fetcher.get_as(&api.below("/user/emails"), token).await {
            Ok(emails) => read::<Vec<Email>>(&emails, "the addresses of the person")?,
            // Its user has not allowed to see them.
            Err(FetchError::Status(StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)) => Vec::new(),
            Err(error) => return Err(away(error)),
        };
        let primary = emails.into_iter().find(|email| email.primary);
        Ok(Identity {
            issuer: address_of(web),
            subject: person.id.to_string(),
            name: Some(person.login),
            email: primary.map(|email| (email.email, email.verified)),
            roles: None,
        })
    }
}

fn checked_subject(text: &str) -> Option<String> {
    let is_one = !text.is_empty() && text.len() <= LONGEST_SUBJECT && !text.chars().any(char::is_control);
    is_one.then(|| text.to_owned())
}

fn address_of(url: &HttpUrl) -> String {
    let scheme = if url.is_https { "https" } else { "http" };
    format!("{scheme}://{}{}", url.authority, url.target.trim_end_matches('/'))
}

fn parse_metadata(document: &[u8], issuer: &str) -> Result<Metadata, String> {
    let document: Document = serde_json::from_slice(document)
        .map_err(|error| format!("its OpenID configuration cannot be read: {error}"))?;
    if document.issuer != issuer {
        return Err(format!(
            "its OpenID configuration is of the issuer `{}`; set `issuer` to exactly that if it is the right one",
            document.issuer.escape_debug()
        ));
    }
    let url = |name: &str, text: &str| {
        HttpUrl::parse(text).map_err(|legal| format!("`{name}` of its OpenID configuration: {legal}"))
    };
    url("authorization_endpoint", &document.authorization_endpoint)?;
    let methods = document.token_endpoint_auth_methods_supported.unwrap_or_default();
    let takes = |method: &str| methods.iter().any(|known| known == method);
    Ok(Metadata {
        authorization: document.authorization_endpoint,
        token: url("token_endpoint", &document.token_endpoint)?,
        userinfo: match &document.userinfo_endpoint {
            Some(text) => Some(url("userinfo_endpoint", text)?),
            None => None,
        },
        keys: url("jwks_uri", &document.jwks_uri)?,
        names_issuer: document.authorization_response_iss_parameter_supported,
        posts_secret: takes("client_secret_post") && !takes("client_secret_basic"),
    })
}
