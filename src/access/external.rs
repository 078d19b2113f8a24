//! What other issuers have to be asked, and what they tell.

use std::{net::IpAddr, sync::Arc, time::Duration};

use super::{Access, Credential, Denied};
use crate::{
    error::Kind,
    token::{ExternalIssuer, Logout, TokenError},
};

/// How long a request waits for the keys of another issuer.
const LONGEST_FETCH: Duration = Duration::from_secs(5);

/// A logout that another issuer tells of: of a session, or of all sessions of a subject.
pub struct ExternalLogout {
    /// The issuer.
    pub issuer: Arc<ExternalIssuer>,
    /// The subject, if it is named.
    pub subject: Option<String>,
    /// The session, if it is named.
    pub session: Option<String>,
    /// When the issuer told of it, in Unix seconds.
    pub issued_at: i64,
}

impl Access {
    /// Asks the issuer of a credential, which `client` sent, for what is missing for a decision about it. A bad API key is counted.
    ///
    /// # Errors
    /// When it is clear by now that the credential identifies no caller, or the issuer could not be asked.
    pub async fn settle(&self, credential: Credential<'_>, client: IpAddr) -> Result<(), Denied> {
        if credential.is_api_key() {
            return Err(self.count_bad_key(client).await);
        }
        let Credential::Bearer(token) = credential else { return Ok(()) };
        let token = std::str::from_utf8(token).map_err(|_| TokenError::Malformed)?;
        let Some(issuer) = self.verifier.issuer_to_ask(token)? else { return Ok(()) };
        match &self.introspector {
            Some(introspector) if issuer.is_asked_about_tokens() => introspector.ask(token, client).await?,
            _ => issuer.fetch_for_token(self.now(), LONGEST_FETCH).await,
        }
        Ok(())
    }

    /// Reads a token by which another issuer tells of a logout (OpenID Connect Back-Channel Logout 1.0, section 2.6).
    ///
    /// # Errors
    /// 400 for one that is not accepted, 503 if the issuer's keys are not known.
    pub async fn read_logout(&self, token: &str) -> Result<ExternalLogout, Kind> {
        let issuer = match self.verifier.issuer_to_ask(token) {
            Ok(Some(issuer)) if !issuer.is_asked_about_tokens() => issuer,
            _ => return Err(Kind::BadRequest),
        };
        let mut logout = issuer.logout(token, self.now());
        if logout.as_ref().err() == Some(&TokenError::Unsettled) {
            issuer.fetch_for_token(self.now(), LONGEST_FETCH).await;
            logout = issuer.logout(token, self.now());
        }
        let Logout { subject, session, issued_at } = logout.map_err(|error| match error {
            TokenError::Unsettled | TokenError::NoKeys => Kind::Unavailable,
            _ => Kind::BadRequest,
        })?;
        Ok(ExternalLogout { issuer: issuer.clone(), subject, session, issued_at })
    }
}
