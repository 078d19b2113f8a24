//! Issuing access tokens (RFC 9068).

use std::{sync::Arc, time::Duration};

use jsonwebtoken::Header;
use serde::Serialize;

use super::{CurrentKeyring, KeyError, SigningKey, claims::TokenClaims};
use crate::{
    clock::UnixMillis,
    config,
    types::{ClaimValues, ClientId, Proofs, Random, Roles, SessionId, UserId},
};

/// What an access token says, from the locked read of the transaction that allowed it.
#[derive(Debug)]
pub struct AccessClaims<'a> {
    /// The user.
    pub user: UserId,
    /// The session.
    pub session: SessionId,
    /// The user's generation.
    pub generation: i64,
    /// The user's name.
    pub name: &'a str,
    /// The user's roles.
    pub roles: &'a Roles,
    /// The id that an imported user had before.
    pub external_id: Option<&'a str>,
    /// When the token was allowed, by the store's clock.
    pub issued_at: UnixMillis,
    /// When its session ends, whatever is refreshed.
    pub session_ends_at: UnixMillis,
    /// When the user last showed who they are.
    pub authenticated_at: UnixMillis,
    /// How they have, in this session.
    pub proofs: Proofs,
    /// What claims say, by the rules of the config.
    pub claims: &'a ClaimValues,
}

/// What the access token of a client program says.
#[derive(Debug)]
pub struct ClientClaims<'a> {
    /// The client.
    pub client: ClientId,
    /// Its generation.
    pub generation: i64,
    /// Its name.
    pub name: &'a str,
    /// The roles of the token, which are all of the client's or some.
    pub roles: &'a Roles,
    /// When the token was allowed, by the store's clock.
    pub issued_at: UnixMillis,
}

/// A signed token.
#[derive(Debug)]
pub struct AccessToken {
    /// The compact form.
    pub text: String,
    /// Its life in seconds.
    pub expires_in: i64,
}

#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: String,
    sid: String,
    jti: String,
    iat: i64,
    exp: i64,
    name: &'a str,
    roles: &'a Roles,
    /// When and how the user last showed who they are (OpenID Connect Core 1.0, section 2; RFC 8176).
    auth_time: i64,
    amr: Proofs,
    r#gen: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<&'a str>,
    #[serde(flatten)]
    claims: TokenClaims<'a>,
}

#[derive(Serialize)]
struct TokenOfClient<'a> {
    iss: &'a str,
    aud: &'a str,
    /// The same as `client_id` (RFC 9068, section 2.2), since no person is concerned.
    sub: String,
    client_id: String,
    jti: String,
    iat: i64,
    exp: i64,
    name: &'a str,
    roles: &'a Roles,
    scope: String,
    r#gen: i64,
}

/// Issues access tokens.
pub struct Issuer {
    issuer: String,
    audience: String,
    ttl: Duration,
    claims: Arc<config::Claims>,
    keyring: Arc<CurrentKeyring>,
    random: Arc<dyn Random>,
}

impl Issuer {
    /// An issuer of the tokens of `auth`, which signs with the keys in use.
    pub fn new(auth: &config::Auth, keyring: Arc<CurrentKeyring>, random: Arc<dyn Random>) -> Self {
        Self {
            issuer: auth.issuer.clone(),
            audience: auth.audience.clone(),
            ttl: auth.access_token_ttl,
            claims: auth.claims.clone(),
            keyring,
            random,
        }
    }

    /// Returns the claims as members of a token.
    pub(super) fn claims<'a>(&'a self, values: &'a ClaimValues) -> TokenClaims<'a> {
        TokenClaims { rules: &self.claims, values }
    }

    /// Returns `iss` of its tokens.
    pub(super) fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Whether it issues what a config asks for.
    pub(super) fn is_for(&self, auth: &config::Auth) -> bool {
        self.issuer == auth.issuer
            && self.audience == auth.audience
            && self.ttl == auth.access_token_ttl
            && self.claims == auth.claims
    }

    /// The key that signs while the store's clock stands at `now`.
    ///
    /// # Errors
    /// When none does.
    pub fn key(&self, now: UnixMillis) -> Result<Arc<SigningKey>, KeyError> {
        self.keyring.get().signing(now)
    }

    /// Signs a token.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn issue(&self, said: &AccessClaims<'_>, key: &SigningKey) -> Result<AccessToken, KeyError> {
        let iat = said.issued_at.div_euclid(1_000);
        // Rounded down, so that no token outlives its session, or what the store has noted for it.
        let end = (said.issued_at + self.ttl.as_millis() as i64).min(said.session_ends_at);
        let exp = end.div_euclid(1_000);
        let claims = Claims {
            iss: &self.issuer,
            aud: &self.audience,
            sub: said.user.to_string(),
            sid: said.session.to_string(),
            jti: self.token_id(),
            iat,
            exp,
            name: said.name,
            roles: said.roles,
            auth_time: said.authenticated_at.div_euclid(1_000),
            amr: said.proofs,
            r#gen: said.generation,
            external_id: said.external_id,
            claims: self.claims(said.claims),
        };
        Ok(AccessToken { text: sign(&claims, key)?, expires_in: exp - iat })
    }

    /// Signs the token of a client.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn issue_to_client(
        &self,
        said: &ClientClaims<'_>,
        key: &SigningKey,
    ) -> Result<AccessToken, KeyError> {
        let iat = said.issued_at.div_euclid(1_000);
        let exp = (said.issued_at + self.ttl.as_millis() as i64).div_euclid(1_000);
        let claims = TokenOfClient {
            iss: &self.issuer,
            aud: &self.audience,
            sub: said.client.to_string(),
            client_id: said.client.to_string(),
            jti: self.token_id(),
            iat,
            exp,
            name: said.name,
            roles: said.roles,
            scope: said.roles.to_string().replace(',', " "),
            r#gen: said.generation,
        };
        Ok(AccessToken { text: sign(&claims, key)?, expires_in: exp - iat })
    }

    /// Returns how long its tokens live.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    fn token_id(&self) -> String {
        uuid::Builder::from_random_bytes(self.random.bytes()).into_uuid().to_string()
    }
}

/// Signs the claims of an access token (RFC 9068, section 2.1).
fn sign(claims: &impl Serialize, key: &SigningKey) -> Result<String, KeyError> {
    let mut header = Header::new(key.algorithm);
    header.typ = Some("at+jwt".to_owned());
    header.kid = Some(key.kid.clone());
    jsonwebtoken::encode(&header, claims, &key.key).map_err(|_| KeyError::Unreadable(key.kid.clone()))
}
