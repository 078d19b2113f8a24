//! The calls, one function each.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};

use super::{
    AuthApi, Caller,
    input::{self, read, required, required_secret},
    output::{Account, Message, Session, SessionEntry, Sessions},
};
use crate::{
    access::{Credential, Failure},
    account::{ChangeRequest, Changed, Ended, ExternalTarget, Registration, Tokens},
    clock::rfc3339,
    error::private_json,
    web::device,
};

/// A response, or why there is none.
pub(super) type CallResult = Result<Response<Bytes>, Failure>;

pub(super) fn done(message: &'static str) -> Response<Bytes> {
    private_json(StatusCode::OK, &Message { message })
}

impl AuthApi {
    pub(super) fn session<'a>(&'a self, tokens: &'a Tokens, message: Option<&'static str>) -> Session<'a> {
        Session::new(tokens, message, &self.compat.token_fields)
    }

    pub(super) fn give_device(&self, response: &mut Response<Bytes>, tokens: &Tokens) {
        if let Some(token) = &tokens.device {
            device::give(response, token, &self.mount);
        }
        let ttl = self.accounts.remembers_devices_for();
        let remembered = tokens.remembered.as_deref();
        if let Some(cookie) = remembered.and_then(|token| device::remembered_cookie(token, &self.mount, ttl))
        {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }

    pub(super) async fn register(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let input: input::Register = read(request)?;
        let registration = Registration {
            username: required(input.username)?,
            password: required_secret(input.password)?,
            password_confirm: input.password_confirm,
            email: input.email,
            roles: input.roles.or(input.role.map(|role| vec![role])),
            invitation: input.invitation.filter(|token| !token.expose().is_empty()),
        };
        let tokens = self.accounts.register(registration, caller.client).await;
        let tokens = tokens.map_err(|error| Failure::from(error).while_registering())?;
        let mut response =
            private_json(StatusCode::CREATED, &self.session(&tokens, Some("User registered successfully")));
        self.give_device(&mut response, &tokens);
        Ok(response)
    }

    pub(super) async fn login(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let input: input::Login = read(request)?;
        let (username, password) = (required(input.username)?, required_secret(input.password)?);
        let tokens = self.accounts.login(&username, &password, caller.client).await?;
        let mut response =
            private_json(StatusCode::OK, &self.session(&tokens, Some("Authenticated successfully")));
        self.give_device(&mut response, &tokens);
        if self.compat.token_in_header
            && let Ok(value) = HeaderValue::try_from(format!("Bearer {}", tokens.access.text))
        {
            response.headers_mut().insert(header::AUTHORIZATION, value);
        }
        Ok(response)
    }

    pub(super) async fn refresh(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let input: input::Refresh = read(request)?;
        let token = required_secret(input.refresh_token)?;
        let tokens = self.accounts.refresh(token.expose(), caller.client.address).await?;
        Ok(private_json(StatusCode::OK, &self.session(&tokens, None)))
    }

    pub(super) async fn logout(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let input: input::Refresh = read(request)?;
        match (self.identify(caller), input.refresh_token) {
            (Ok(person), _) => self.accounts.logout(&person, caller.client.address).await?,
            // The client's access token has expired, or it sends none.
            (Err(_), Some(token)) if caller.credential != Credential::Unusable => {
                self.accounts.logout_by_refresh_token(token.expose(), caller.client.address).await?;
            }
            (Err(failure), _) => return Err(failure),
        }
        Ok(done("Logged out successfully"))
    }

    pub(super) async fn logout_all(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let input::Nothing {} = read(request)?;
        let person = self.identify(caller)?;
        self.accounts.logout_all(&person, caller.client.address).await?;
        Ok(done("Logged out successfully"))
    }

    pub(super) async fn me(&self, caller: &Caller<'_>) -> CallResult {
        let person = self.identify(caller)?;
        let user = self.accounts.me(&person).await?;
        let account = Account {
            user_id: user.id.to_string(),
            username: user.name.as_str(),
            email: user.email.as_deref(),
            email_verified: user.email_verified,
            pending_email: user.pending_email.as_deref(),
            roles: &user.roles,
            attributes: self.accounts.declared_attributes(&user),
            created_at: rfc3339(user.created_at),
        };
        Ok(private_json(StatusCode::OK, &account))
    }

    pub(super) async fn change(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let person = self.identify(caller)?;
        let input: input::Change = read(request)?;
        let wanted = ChangeRequest {
            user_id: input.user_id.map(String::from),
            new_username: input.new_username,
            new_email: input.new_email,
            new_password: input.new_password,
            new_password_confirm: input.new_password_confirm,
            attributes: input.attributes,
            current_password: input.current_password,
        };
        const MESSAGE: &str = "User credentials updated successfully";
        Ok(match self.accounts.change(&person, wanted, caller.client.address).await? {
            Some(Changed::Tokens(tokens)) => {
                private_json(StatusCode::OK, &self.session(&tokens, Some(MESSAGE)))
            }
            Some(Changed::Cookie(session)) => {
                let mut response = done(MESSAGE);
                response.headers_mut().append(header::SET_COOKIE, session.cookie);
                response
            }
            None => done(MESSAGE),
        })
    }

    pub(super) async fn delete(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let person = self.identify(caller)?;
        let input: input::Delete = read(request)?;
        let (user_id, password) = (input.user_id.map(String::from), input.current_password.as_ref());
        self.accounts.delete(&person, user_id.as_deref(), password, caller.client.address).await?;
        Ok(done("User account deleted successfully"))
    }

    pub(super) async fn sessions(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let person = self.identify(caller)?;
        let (limit, after) = input::page(request)?;
        let listed = self.accounts.sessions(&person, limit, after.as_deref()).await?;
        let entry = |session: crate::store::Session| SessionEntry {
            id: session.id.to_string(),
            created_at: rfc3339(session.created_at),
            last_used_at: rfc3339(session.last_used_at),
            current: session.id == person.session,
            address: session.place.address,
            user_agent: session.place.user_agent,
        };
        let sessions = listed.sessions.into_iter().map(entry).collect();
        Ok(private_json(StatusCode::OK, &Sessions { sessions, next: listed.next }))
    }

    pub(super) async fn end_session(&self, id: &str, caller: &Caller<'_>) -> CallResult {
        let person = self.identify(caller)?;
        self.accounts.end_session(&person, id, caller.client.address).await?;
        Ok(done("Session ended successfully"))
    }

    pub(super) async fn forgot_password(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let input: input::Email = read(request)?;
        self.accounts.clone().forgot_password(&required(input.email)?, caller.client.address).await?;
        Ok(done("If the address is known, a mail is on its way"))
    }

    pub(super) async fn reset_password(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let input: input::Reset = read(request)?;
        let (token, password) = (required_secret(input.token)?, required_secret(input.new_password)?);
        self.accounts.reset_password(token.expose(), &password, caller.client.address).await?;
        Ok(done("Password reset successfully"))
    }

    pub(super) async fn verify_email(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let input: input::Verify = read(request)?;
        if input.token.is_none() && caller.credential != Credential::Absent {
            let person = self.identify(caller)?;
            self.accounts.resend_verification(&person, caller.client.address).await?;
            return Ok(done("If the address is not verified yet, a mail is on its way"));
        }
        self.accounts.verify_email(required_secret(input.token)?.expose(), caller.client.address).await?;
        Ok(done("Email verified successfully"))
    }

    /// Another issuer tells of a logout (OpenID Connect Back-Channel Logout 1.0, section 2.5).
    pub(super) async fn backchannel_logout(
        &self,
        request: &Request<Bytes>,
        caller: &Caller<'_>,
    ) -> CallResult {
        let input: input::BackchannelLogout = input::read_form(request)?;
        let logout = self.access.read_logout(&input.logout_token).await?;
        let issuer = logout.issuer.config();
        let address = caller.client.address;
        let ended = Ended::IssuedUpTo(logout.issued_at);
        // Of a session that is named all is ended, and of a subject that is named beside it what names no session.
        let targets = match (&logout.session, &logout.subject) {
            (Some(sid), sub) => {
                [Some(ExternalTarget::Session(sid)), sub.as_deref().map(ExternalTarget::Sessionless)]
            }
            (None, sub) => [sub.as_deref().map(ExternalTarget::Subject), None],
        };
        for target in targets.into_iter().flatten() {
            self.accounts.end_external(issuer, target, ended, address).await?;
        }
        Ok(done("Logged out successfully"))
    }

    pub(super) fn description(&self) -> Response<Bytes> {
        let mut response = Response::new(self.description.clone());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    pub(super) fn jwks(&self) -> Response<Bytes> {
        let mut response = Response::new(Bytes::from(self.keyring.get().jwks().to_owned()));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
        if let Ok(value) = HeaderValue::try_from(format!("public, max-age={}", self.jwks_max_age)) {
            headers.insert(header::CACHE_CONTROL, value);
        }
        response
    }
}
