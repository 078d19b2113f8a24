//! The endpoints for client programs: tokens (RFC 6749, section 4.4), introspection (RFC 7662), revocation (RFC 7009) and metadata
//! (RFC 8414). They take forms, and their errors are those of RFC 6749, section 5.2.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use serde::Serialize;
use serde_json::{Value, json};

use super::{AuthApi, Caller, handler::CallResult};
use crate::{
    access::{Credential, Failure},
    account::{AccountError, ClientError, ClientProof},
    config::OnStale,
    error::{Kind, private_json},
    store::Client,
    token::Principal,
    types::{Secret, Subject, looks_like_api_key},
    web::media_type::{FORM, essence},
};

/// The path of the metadata.
pub const METADATA: &str = "/.well-known/oauth-authorization-server";

/// The type of the assertions of clients (RFC 7523, section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

const TOKEN: &str = "/token";
const INTROSPECT: &str = "/introspect";
const REVOKE: &str = "/revoke";

/// The algorithms of assertions.
const ALGORITHMS: [&str; 7] = ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"];

/// A failed request of a client.
enum OauthError {
    /// The form is wrong: the error code, and its description.
    Request(&'static str, &'static str),
    /// The client has not shown who it is; whether it has tried by `Authorization`.
    Client { by_header: bool },
    /// Too many tries.
    Throttled(Duration),
    /// Anything else.
    Failed(Failure),
}

impl From<AccountError> for OauthError {
    fn from(error: AccountError) -> Self {
        Self::Failed(error.into())
    }
}

#[derive(Serialize)]
struct ErrorBody {
    error: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    error_description: &'static str,
}

impl OauthError {
    fn response(self, request_id: &str) -> Response<Bytes> {
        let body =
            |status, error, error_description| private_json(status, &ErrorBody { error, error_description });
        match self {
            Self::Request(error, description) => body(StatusCode::BAD_REQUEST, error, description),
            Self::Client { by_header } => {
                let mut response = body(StatusCode::UNAUTHORIZED, "invalid_client", "");
                let scheme = if by_header { "Basic realm=\"clients\"" } else { "Bearer" };
                let headers = response.headers_mut();
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(scheme));
                response
            }
            Self::Throttled(after) => {
                let mut response = body(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable", "");
                let seconds = u64::try_from(after.as_millis().div_ceil(1_000).max(1)).unwrap_or(u64::MAX);
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
                response
            }
            Self::Failed(failure) => {
                failure.log(request_id);
                let kind = failure.problem.kind;
                let is_away = kind.status() == StatusCode::SERVICE_UNAVAILABLE;
                let error = if is_away { "temporarily_unavailable" } else { "server_error" };
                let mut response = body(kind.status(), error, "");
                if is_away {
                    response.headers_mut().insert(header::RETRY_AFTER, 1.into());
                }
                response
            }
        }
    }
}

/// The fields of a form, each once.
struct Form(HashMap<String, Secret>);

impl Form {
    fn read(request: &Request<Bytes>) -> Result<Self, OauthError> {
        let is_form = essence(request.headers()).eq_ignore_ascii_case(FORM);
        let pairs: Vec<(String, String)> = is_form
            .then(|| serde_urlencoded::from_bytes(request.body()).ok())
            .flatten()
            .ok_or(OauthError::Request("invalid_request", "the body is no form"))?;
        let mut fields = HashMap::new();
        for (name, value) in pairs {
            // One without a value is treated as one that is not there (RFC 6749, section 3.2).
            if !value.is_empty() && fields.insert(name, Secret::new(value)).is_some() {
                return Err(OauthError::Request("invalid_request", "a parameter stands twice"));
            }
        }
        Ok(Self(fields))
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(Secret::expose)
    }
}

/// Returns user and password of Basic, which are form-encoded within it (RFC 6749, section 2.3.1).
fn basic(request: &Request<Bytes>) -> Option<Option<(String, Secret)>> {
    let mut values = request.headers().get_all(header::AUTHORIZATION).iter();
    let (value, is_only) = (values.next()?, values.next().is_none());
    let read = || {
        let (scheme, encoded) = value.to_str().ok()?.split_once(' ')?;
        if !is_only || !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (id, secret) = decoded.split_once(':')?;
        let decode = |text: &str| {
            let pairs: Vec<(String, String)> = serde_urlencoded::from_str(&format!("x={text}")).ok()?;
            let [(_, value)] = <[_; 1]>::try_from(pairs).ok()?;
            Some(value)
        };
        Some((decode(id)?, Secret::new(decode(secret)?)))
    };
    Some(read())
}

impl AuthApi {
    /// Returns the address of an endpoint, as the metadata tells it.
    fn endpoint(&self, path: &str) -> Option<String> {
        self.public_base.as_ref().map(|base| format!("{base}{}{path}", self.mount))
    }

    /// Returns the client that calls the endpoint at `path`, and has shown who it is.
    async fn client(
        &self,
        request: &Request<Bytes>,
        form: &Form,
        path: &str,
        address: IpAddr,
    ) -> Result<Client, OauthError> {
        let basic = basic(request);
        let by_header = basic.is_some();
        let assertion = form.get("client_assertion");
        // At most one way in a request (RFC 6749, section 2.3).
        if by_header && (assertion.is_some() || form.get("client_secret").is_some()) {
            return Err(OauthError::Request("invalid_request", "two ways to show who the client is"));
        }
        let proof = match (&basic, assertion) {
            (Some(Some((id, secret))), _) => ClientProof::Secret(id, secret),
            (None, Some(assertion)) if form.get("client_assertion_type") == Some(ASSERTION_TYPE) => {
                ClientProof::Assertion(assertion)
            }
            // What is no credential at all counts as a try with a wrong one.
            (Some(None), _) | (None, _) => ClientProof::Assertion(""),
        };
        let endpoints = [self.endpoint(TOKEN), self.endpoint(path)];
        let mut audiences = vec![self.accounts.config.issuer.as_str()];
        audiences.extend(endpoints.iter().flatten().map(String::as_str));
        let client = self.accounts.authenticate_client(proof, &audiences, address).await;
        let client = client.map_err(|error| match error {
            ClientError::Unknown | ClientError::Assertion(_) | ClientError::Replayed => {
                OauthError::Client { by_header }
            }
            ClientError::Throttled(after) => OauthError::Throttled(after),
            ClientError::Scope => OauthError::Request("invalid_scope", ""),
            ClientError::Account(error) => error.into(),
        })?;
        // Who names itself besides must name itself (RFC 7521, section 4.2).
        if form.get("client_id").is_some_and(|id| id != client.id.to_string()) {
            return Err(OauthError::Client { by_header });
        }
        Ok(client)
    }

    pub(super) async fn token(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        Ok(self.issue_token(request, caller).await.unwrap_or_else(|error| error.response(caller.request_id)))
    }

    async fn issue_token(
        &self,
        request: &Request<Bytes>,
        caller: &Caller<'_>,
    ) -> Result<Response<Bytes>, OauthError> {
        let form = Form::read(request)?;
        match form.get("grant_type") {
            Some("client_credentials") => {}
            Some(_) => return Err(OauthError::Request("unsupported_grant_type", "")),
            None => return Err(OauthError::Request("invalid_request", "grant_type is missing")),
        }
        let client = self.client(request, &form, TOKEN, caller.client.address).await?;
        let issued = self.accounts.issue_to_client(&client, form.get("scope")).await;
        let issued = issued.map_err(|error| match error {
            ClientError::Scope => OauthError::Request("invalid_scope", ""),
            ClientError::Account(error) => error.into(),
            // It was changed or removed a moment ago.
            _ => OauthError::Client { by_header: false },
        })?;
        let body = json!({
            "access_token": issued.access.text,
            "token_type": "Bearer",
            "expires_in": issued.access.expires_in,
            "scope": issued.roles.to_string().replace(',', " "),
        });
        let mut response = private_json(StatusCode::OK, &body);
        response.headers_mut().insert(header::PRAGMA, HeaderValue::from_static("no-cache"));
        Ok(response)
    }

    pub(super) async fn introspect(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        Ok(self
            .describe_token(request, caller)
            .await
            .unwrap_or_else(|error| error.response(caller.request_id)))
    }

    async fn describe_token(
        &self,
        request: &Request<Bytes>,
        caller: &Caller<'_>,
    ) -> Result<Response<Bytes>, OauthError> {
        let form = Form::read(request)?;
        self.client(request, &form, INTROSPECT, caller.client.address).await?;
        let token = form.get("token").ok_or(OauthError::Request("invalid_request", "token is missing"))?;
        let now = self.access.now();
        let identified = self.access.identify(Credential::Bearer(token.as_bytes()), OnStale::Deny, now);
        let body = match identified {
            // Where a key is good cannot be told here.
            Ok(principal) if principal.api_key().is_some_and(|key| key.scope.is_some()) => {
                json!({"active": false})
            }
            Ok(principal) => self.said_of(&principal, token),
            Err(denied) if denied.kind() == Kind::Unavailable => {
                return Err(OauthError::Failed(Kind::Unavailable.into()));
            }
            // Nothing is told of why (RFC 7662, section 2.2).
            Err(_) => {
                self.count_shown_key(token, caller).await?;
                json!({"active": false})
            }
        };
        Ok(private_json(StatusCode::OK, &body))
    }

    /// Counts an API key that is none, as those of requests are.
    async fn count_shown_key(&self, token: &str, caller: &Caller<'_>) -> Result<(), OauthError> {
        if !looks_like_api_key(token.as_bytes()) {
            return Ok(());
        }
        match self.access.settle(Credential::Bearer(token.as_bytes()), caller.client.address).await {
            Err(denied) if denied.kind() == Kind::TooManyRequests => Err(OauthError::Failed(denied.into())),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn said_of(&self, principal: &Principal, token: &str) -> Value {
        let config = &self.accounts.config;
        let subject = principal.id_value.to_str().unwrap_or_default();
        let mut body = json!({
            "active": true,
            "sub": subject,
            "username": principal.name,
            "scope": principal.roles.to_string().replace(',', " "),
            "roles": principal.roles,
            "token_type": "Bearer",
            "iss": config.issuer,
            "aud": config.audience,
        });
        let Value::Object(members) = &mut body else { return body };
        if principal.expires_at != i64::MAX {
            members.insert("exp".to_owned(), principal.expires_at.into());
        }
        match principal.subject {
            Subject::Client(client) => {
                members.insert("client_id".to_owned(), client.to_string().into());
            }
            // Another issuer's: what it calls itself is its own.
            Subject::External(_) => {
                members.remove("iss");
                members.remove("aud");
            }
            Subject::User(_) => {}
        }
        if looks_like_api_key(token.as_bytes()) {
            members.remove("iss");
            members.remove("aud");
        }
        body
    }

    pub(super) async fn revoke(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> CallResult {
        Ok(self.revoke_token(request, caller).await.unwrap_or_else(|error| error.response(caller.request_id)))
    }

    async fn revoke_token(
        &self,
        request: &Request<Bytes>,
        caller: &Caller<'_>,
    ) -> Result<Response<Bytes>, OauthError> {
        let form = Form::read(request)?;
        let client = self.client(request, &form, REVOKE, caller.client.address).await?;
        let token = form.get("token").ok_or(OauthError::Request("invalid_request", "token is missing"))?;
        let now = self.access.now();
        let identified = self.access.identify(Credential::Bearer(token.as_bytes()), OnStale::Allow, now);
        match identified {
            Ok(principal) if principal.subject == Subject::Client(client.id) => {
                for token in &principal.others {
                    let (ends, address) = (principal.expires_at, caller.client.address);
                    self.accounts.end_client_token(&client, *token, ends, address).await?;
                }
            }
            // It was issued to somebody else (RFC 7009, section 2.1).
            Ok(_) => return Err(OauthError::Request("unauthorized_client", "the token is another's")),
            Err(denied) if denied.kind() == Kind::Unavailable => {
                return Err(OauthError::Failed(Kind::Unavailable.into()));
            }
            // What is no token any more is revoked (RFC 7009, section 2.2).
            Err(_) => self.count_shown_key(token, caller).await?,
        }
        Ok(private_json(StatusCode::OK, &json!({})))
    }

    /// What clients are told of the endpoints (RFC 8414, section 2).
    pub(super) fn metadata(&self) -> CallResult {
        let [Some(token), Some(introspect), Some(revoke), Some(jwks)] =
            [TOKEN, INTROSPECT, REVOKE, "/jwks.json"].map(|path| self.endpoint(path))
        else {
            return Err(Kind::NotFound.into());
        };
        let methods = ["client_secret_basic", "private_key_jwt"];
        let body = json!({
            "issuer": self.accounts.config.issuer,
            "token_endpoint": token,
            "introspection_endpoint": introspect,
            "revocation_endpoint": revoke,
            "jwks_uri": jwks,
            "grant_types_supported": ["client_credentials"],
            // There is no authorization endpoint.
            "response_types_supported": [],
            "token_endpoint_auth_methods_supported": methods,
            "token_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
            "introspection_endpoint_auth_methods_supported": methods,
            "introspection_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
            "revocation_endpoint_auth_methods_supported": methods,
            "revocation_endpoint_auth_signing_alg_values_supported": ALGORITHMS,
        });
        Ok(private_json(StatusCode::OK, &body))
    }
}
