//! Identities of people at providers, from ID tokens, userinfo and GitHub's API.

use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use super::{
    FetchError, ProviderClient, ProviderError,
    discovery::Metadata,
    provider::{address_of, failed_fetch, read},
};
use crate::{clock::UnixMillis, config::HttpUrl, types::Secret};
use ProviderError::Rejected;

/// The longest subject, in bytes (OpenID Connect Core 1.0, section 2).
const LONGEST_SUBJECT: usize = 255;

/// The identity of a person at a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The provider's issuer.
    pub issuer: String,
    /// Their identifier there, which never changes.
    pub subject: String,
    /// Their name there.
    pub name: Option<String>,
    /// Their address, and whether it is verified.
    pub email: Option<(String, bool)>,
    /// Their roles there, or `None` if the provider does not say.
    pub roles: Option<Vec<String>>,
    /// When they were asked for their credentials there, if the provider says so.
    pub authenticated_at: Option<UnixMillis>,
    /// Whether it says so where it is asked to.
    pub tells_time: bool,
}

impl ProviderClient {
    /// Returns the identity in the claims of an ID token, and of userinfo where those are not complete.
    pub(super) async fn open_id_identity(
        &self,
        issuer: &str,
        mut claims: Value,
        token: Option<Secret>,
        metadata: &Metadata,
    ) -> Result<Identity, ProviderError> {
        let subject = claims["sub"].as_str().and_then(checked_subject);
        let subject = subject.ok_or_else(|| Rejected("its ID token: no `sub`".to_owned()))?;
        let authenticated_at = claims["auth_time"].as_i64().map(|seconds| seconds.saturating_mul(1_000));
        // Claims that are not in the token may be in userinfo (OpenID Connect Core 1.0, section 5.3).
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
                return Err(Rejected("userinfo is about another `sub`".to_owned()));
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
            authenticated_at,
            tells_time: true,
        })
    }

    /// Returns the identity of the person with this access token.
    pub(super) async fn github_identity(
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

        let person = self.fetcher.get_as(&api.below("/user"), token).await.map_err(failed_fetch)?;
        let person: Person = read(&person, "its user")?;
        let emails = match self.fetcher.get_as(&api.below("/user/emails"), token).await {
            Ok(emails) => read::<Vec<Email>>(&emails, "the addresses of its user")?,
            // Its user has not allowed to see them.
            Err(FetchError::Status(StatusCode::FORBIDDEN | StatusCode::NOT_FOUND)) => Vec::new(),
            Err(error) => return Err(failed_fetch(error)),
        };
        let primary = emails.into_iter().find(|email| email.primary);
        Ok(Identity {
            issuer: address_of(web),
            subject: person.id.to_string(),
            name: Some(person.login),
            email: primary.map(|email| (email.email, email.verified)),
            roles: None,
            authenticated_at: None,
            tells_time: false,
        })
    }
}

fn checked_subject(text: &str) -> Option<String> {
    let is_one = !text.is_empty() && text.len() <= LONGEST_SUBJECT && !text.chars().any(char::is_control);
    is_one.then(|| text.to_owned())
}
