//! The calls about second factors.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};

use super::{
    AuthApi, Caller,
    handler::{CallResult, done},
    input::{self, read, required, required_secret},
    output::{Confirmed, Factor, Factors, PendingChallenge, PendingFactor, RecoveryCodes},
};
use crate::{
    access::{Credential, Failure},
    account::{
        BrowserSession, ChallengeResponse, Enroller, FactorConfirmed, FactorProof, FactorSetup, Issued,
        Method, Responder,
    },
    clock::rfc3339,
    error::{Kind, private_json},
    store::FactorKind,
    token::SignedIn,
    types::Secret,
    web::device,
};

/// Who gets a factor, before it is told apart.
enum Owner {
    Person(SignedIn),
    Challenge(Secret),
}

impl Owner {
    fn enroller(&self) -> Enroller<'_> {
        match self {
            Self::Person(person) => Enroller::Person(person),
            Self::Challenge(token) => Enroller::Challenge(token),
        }
    }
}

impl AuthApi {
    /// Returns whose factors a call is about: the caller's, or of who has a challenge in place of a bearer token.
    fn owner(&self, caller: &Caller<'_>, challenge: Option<Secret>) -> Result<Owner, Failure> {
        if let Some(token) = challenge.filter(|token| !token.expose().is_empty()) {
            return Ok(Owner::Challenge(token));
        }
        if let Credential::Bearer(token) = caller.credential
            && !caller.credential.is_api_key()
            && let Ok(text) = std::str::from_utf8(token)
            // No token of ours is without a dot, and no challenge with one.
            && !text.contains('.')
        {
            return Ok(Owner::Challenge(Secret::new(text)));
        }
        self.identify(caller).map(Owner::Person)
    }

    pub(super) async fn factors(&self, caller: &Caller<'_>) -> CallResult {
        let person = self.identify(caller)?;
        let (factors, recovery_codes) = self.accounts.list_factors_of_proved(&person).await?;
        let factor = |factor: crate::store::Factor| Factor {
            id: factor.id.to_string(),
            kind: factor.kind.name(),
            name: factor.name,
            created_at: rfc3339(factor.created_at),
            last_used_at: factor.last_used_at.map(rfc3339),
        };
        let factors = factors.into_iter().map(factor).collect();
        Ok(private_json(StatusCode::OK, &Factors { factors, recovery_codes }))
    }

    pub(super) async fn begin_factor(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let input: input::BeginFactor = read(request)?;
        let owner = self.owner(caller, input.challenge)?;
        let kind = match required(input.kind)?.as_str() {
            "totp" => FactorKind::Totp,
            "passkey" => FactorKind::Passkey,
            "recovery" => {
                let Owner::Person(person) = owner else { return Err(Kind::Unauthenticated.into()) };
                let address = caller.client.address;
                let recovery_codes = self.accounts.renew_recovery_codes(&person, address).await?;
                return Ok(private_json(StatusCode::CREATED, &RecoveryCodes { recovery_codes }));
            }
            _ => return Err(Kind::MissingParameters.into()),
        };
        let (name, address) = (input.name.as_deref(), caller.client.address);
        let begun = self.accounts.begin_factor(owner.enroller(), kind, name, address).await?;
        let id = begun.id.to_string();
        let body = match begun.with {
            FactorSetup::Totp(secret, uri) => {
                let secret = Some(secret.expose().to_owned());
                PendingFactor { id, kind: kind.name(), secret, uri: Some(uri), public_key: None }
            }
            FactorSetup::Passkey(options) => {
                PendingFactor { id, kind: kind.name(), secret: None, uri: None, public_key: Some(options) }
            }
        };
        Ok(private_json(StatusCode::CREATED, &body))
    }

    pub(super) async fn confirm_factor(
        &self,
        id: &str,
        request: &Request<Bytes>,
        caller: &Caller<'_>,
    ) -> CallResult {
        let input: input::ConfirmFactor = read(request)?;
        let owner = self.owner(caller, input.challenge)?;
        let proof = match (input.code, input.credential) {
            (Some(code), None) => FactorProof::Code(code),
            (None, Some(made)) => FactorProof::Passkey(Box::new(made)),
            _ => return Err(Kind::MissingParameters.into()),
        };
        let confirmed = self.accounts.confirm_factor(owner.enroller(), id, proof, caller.client).await?;
        let FactorConfirmed { recovery_codes, session } = confirmed;
        const MESSAGE: &str = "Factor confirmed successfully";
        match session {
            Issued::Access(access) => {
                let (access_token, expires_in) = (Some(access.text.as_str()), Some(access.expires_in));
                let token_type = Some("Bearer");
                let body = Confirmed {
                    message: MESSAGE,
                    recovery_codes,
                    access_token,
                    token_type,
                    expires_in,
                    session: None,
                };
                Ok(private_json(StatusCode::OK, &body))
            }
            Issued::Browser(session) => {
                let body = Confirmed { message: MESSAGE, recovery_codes, ..Confirmed::default() };
                let mut response = private_json(StatusCode::OK, &body);
                self.set_cookies(&mut response, *session);
                Ok(response)
            }
            Issued::Tokens(tokens) => {
                let session = Some(self.session(&tokens, None));
                let body = Confirmed { message: MESSAGE, recovery_codes, session, ..Confirmed::default() };
                let mut response = private_json(StatusCode::OK, &body);
                self.give_device(&mut response, &tokens);
                Ok(response)
            }
        }
    }

    pub(super) async fn remove_factor(&self, id: &str, caller: &Caller<'_>) -> CallResult {
        let person = self.identify(caller)?;
        self.accounts.remove_factor(&person, id, caller.client.address).await?;
        Ok(done("Factor removed successfully"))
    }

    pub(super) async fn challenge(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let input::Nothing {} = read(request)?;
        let person = self.identify(caller)?;
        let asked = self.accounts.begin_step_up(&person, caller.client.address).await?;
        Ok(private_json(StatusCode::OK, &PendingChallenge(asked.members())))
    }

    pub(super) async fn login_passkey(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let input::Nothing {} = read(request)?;
        let asked = self.accounts.begin_passkey_login(false, false, caller.client.address).await?;
        Ok(private_json(StatusCode::OK, &PendingChallenge(asked.members())))
    }

    pub(super) async fn login_factor(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        let input: input::ChallengeResponse = read(request)?;
        let token = required_secret(input.challenge)?;
        // A passkey in place of a login needs no name.
        let method = match input.method {
            None if input.credential.is_some() => Method::Passkey,
            method => Method::parse(&required(method)?).ok_or(Kind::MissingParameters)?,
        };
        // Whatever else comes along counts where the challenge is of a session.
        let person = self.identify(caller).ok();
        let responder = Responder { is_page: false, person: person.as_ref() };
        let code = input.code.or(input.password).filter(|code| !code.expose().is_empty());
        if method == Method::Email && code.is_none() {
            self.accounts.mail_code(&token, responder, caller.client.address).await?;
            return Ok(done("A code is on its way"));
        }
        if code.is_none() && input.credential.is_none() {
            return Err(Kind::MissingParameters.into());
        }
        let remember_device = input.remember_device.unwrap_or_default();
        let response = ChallengeResponse { method, code, credential: input.credential, remember_device };
        const MESSAGE: &str = "Authenticated successfully";
        match self.accounts.respond(&token, response, responder, caller.client).await? {
            Issued::Tokens(tokens) => {
                let mut response = private_json(StatusCode::OK, &self.session(&tokens, Some(MESSAGE)));
                self.give_device(&mut response, &tokens);
                if self.compat.token_in_header
                    && let Ok(value) = HeaderValue::try_from(format!("Bearer {}", tokens.access.text))
                {
                    response.headers_mut().insert(header::AUTHORIZATION, value);
                }
                Ok(response)
            }
            Issued::Browser(session) => {
                let mut response = done(MESSAGE);
                self.set_cookies(&mut response, *session);
                Ok(response)
            }
            Issued::Access(_) => Err(Kind::Internal.into()),
        }
    }

    fn set_cookies(&self, response: &mut Response<Bytes>, session: BrowserSession) {
        let headers = response.headers_mut();
        headers.append(header::SET_COOKIE, session.cookie);
        let device = session.device.and_then(|token| device::cookie(&token, &self.mount));
        if let Some(cookie) = device {
            headers.append(header::SET_COOKIE, cookie);
        }
    }
}
