//! The calls below `auth.path`: HTTP in front of [`crate::account`].
//!
//! A call is a plain request with its whole body, and its response is a plain response, so that the
//! API can be tested without a socket.

mod call;
mod factors;
mod handler;
mod input;
mod keys;
mod oauth;
mod output;

use std::{net::IpAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{Method, Request, Response, header};

pub use call::calls;
pub use oauth::METADATA;

use crate::{
    access::{Access, Credential, Denied, Failure},
    account::{Accounts, Client},
    config::{Compat, OnStale},
    error::Kind,
    openapi::Call,
    route::Table,
    token::{CookieChange, CurrentKeyring, Principal, SessionCookies, SignedIn},
    web::{credential, device},
};

/// The largest body of a call, in bytes.
pub const MAX_BODY: u64 = 64 << 10;

/// The API.
pub struct AuthApi {
    mount: String,
    accounts: Arc<Accounts>,
    access: Arc<Access>,
    keyring: Arc<CurrentKeyring>,
    jwks_max_age: u64,
    compat: Compat,
    description: Bytes,
    routes: Arc<Table>,
    /// What addresses of endpoints begin with, if it is known.
    public_base: Option<String>,
    calls: Vec<Call<call::Handler>>,
}

/// Who sends a call, and from where.
struct Caller<'a> {
    credential: Credential<'a>,
    client: Client<'a>,
    request_id: &'a str,
}

impl AuthApi {
    /// The API at `mount`. Its public keys may be kept by others for `jwks_max_age` seconds: a new
    /// key is published for longer before it signs.
    pub fn new(
        mount: &str,
        accounts: Arc<Accounts>,
        access: Arc<Access>,
        keyring: Arc<CurrentKeyring>,
        jwks_max_age: u64,
        routes: Arc<Table>,
        public_base: Option<String>,
    ) -> Self {
        let compat = accounts.config.compat.clone();
        let cookie = access.cookies().map(|cookies| cookies.name());
        let description = call::description(mount, &compat.statuses, cookie).to_string().into();
        Self {
            mount: mount.to_owned(),
            accounts,
            access,
            keyring,
            jwks_max_age,
            compat,
            description,
            routes,
            public_base,
            calls: calls(),
        }
    }

    /// Handles a call.
    pub async fn handle(
        &self,
        request: Request<Bytes>,
        address: IpAddr,
        request_id: &str,
    ) -> Response<Bytes> {
        let headers = request.headers();
        let user_agent = headers.get(header::USER_AGENT).and_then(|name| name.to_str().ok());
        let client = Client {
            address,
            user_agent,
            device: device::token(headers),
            remembered: device::remembered(headers),
        };
        let credential = credential::of(&request, self.access.credential_kinds());
        let caller = Caller { credential, client, request_id };
        let (begun, before) = (Instant::now(), self.identify_cookie(&caller));
        let mut response = match self.route(&request, &caller).await {
            Ok(response) => response,
            Err(failure) => {
                let failure = self.count_bad_key(failure, &caller).await;
                failure.log(request_id);
                failure.problem.response(request_id, &self.compat.statuses)
            }
        };
        let is_read_only = matches!(*request.method(), Method::GET | Method::HEAD);
        let is_late = begun.elapsed() > SessionCookies::LATEST;
        if let Some(before) = before.filter(|_| !is_late)
            && let Some(change) = self.cookie_after(before, &caller, &response, is_read_only)
            && let Some(cookie) = self.access.set_cookie(change).await
        {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
        response
    }

    /// Returns the owner of the caller's cookie, or why it is refused; `None` for a caller without a cookie.
    fn identify_cookie(&self, caller: &Caller<'_>) -> Option<Result<Arc<Principal>, Denied>> {
        let credential = caller.credential;
        credential.is_cookie().then(|| self.access.identify(credential, OnStale::Deny, self.access.now()))
    }

    /// Returns the `Set-Cookie` of a response: a renewed cookie when it is due, or a removal if the session had ended `before` the call or
    /// was ended by it. A parallel call that ended the session may have set another cookie, which must not be removed.
    fn cookie_after(
        &self,
        before: Result<Arc<Principal>, Denied>,
        caller: &Caller<'_>,
        response: &Response<Bytes>,
        is_read_only: bool,
    ) -> Option<CookieChange> {
        let cookies = self.access.cookies()?;
        let headers = response.headers();
        // The call has set it, or the response is for others, too.
        let is_set = headers.get_all(header::SET_COOKIE).iter().any(|set| cookies.is_set_by(set));
        let is_shared =
            headers.get(header::CACHE_CONTROL).is_some_and(|by| by.as_bytes().starts_with(b"public"));
        if is_set || is_shared {
            return None;
        }
        let may_end = !is_read_only && response.status().is_success();
        let is_dead = match (before, self.identify_cookie(caller)?) {
            (Err(denied), _) => denied.is_dead(),
            (Ok(_), Ok(principal)) => return self.access.renewed_cookie(&principal),
            (Ok(_), Err(denied)) => may_end && denied.is_dead(),
        };
        cookies.removal().filter(|_| is_dead).map(CookieChange::Set)
    }

    async fn route(&self, request: &Request<Bytes>, caller: &Caller<'_>) -> Result<Response<Bytes>, Failure> {
        if let Some(path) = request.uri().path().strip_prefix(METADATA)
            && (path.is_empty() || path == self.accounts.config.issuer_path())
        {
            return self.metadata();
        }
        let path = request.uri().path().strip_prefix(self.mount.as_str()).unwrap_or_default();
        let method = if *request.method() == Method::HEAD { &Method::GET } else { request.method() };
        let mut found = self.calls.iter().filter(|call| call.method == *method);
        let call = found.find_map(|call| Some((call, call.captures(path)?)));
        let Some((call, parameters)) = call else { return Err(Kind::NotFound.into()) };
        call.handler.call(self, request, caller, &parameters).await
    }

    /// Counts a call that was refused for a bad API key, as requests are.
    async fn count_bad_key(&self, failure: Failure, caller: &Caller<'_>) -> Failure {
        if !caller.credential.is_api_key() || failure.problem.kind != Kind::Unauthenticated {
            return failure;
        }
        match self.access.settle(caller.credential, caller.client.address).await {
            Ok(()) => failure,
            Err(denied) => denied.into(),
        }
    }

    /// Returns the user who calls. Their actions go to the store, so a stale mirror always denies.
    fn identify(&self, caller: &Caller<'_>) -> Result<SignedIn, Failure> {
        let identified = self.access.identify(caller.credential, OnStale::Deny, self.access.now());
        // Whatever another issuer would say, it makes no account of ours.
        let principal = identified.map_err(Denied::without_asking)?;
        principal.signed_in().ok_or_else(|| Kind::InsufficientRole.into())
    }
}
