//! The admin listener: whether the process lives, whether it is ready, its metrics, and the admin API: accounts, sessions,
//! keys and the audit trail, for a bearer with the role `admin`.

mod call;
mod clients;
mod export;
mod handler;
mod listener;
mod shape;

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;

pub use call::calls;
pub use listener::{Reload, Status, serve};

use crate::{
    access::{Access, Failure},
    account::{Actor, Keys, Operator},
    error::{Kind, Problem, Statuses},
    openapi::{Bearer, Call},
    token::CurrentKeyring,
    types::Roles,
};

/// The API.
pub struct AdminApi {
    operator: Operator,
    access: Arc<Access>,
    keys: Arc<Keys>,
    keyring: Arc<CurrentKeyring>,
    default_roles: Roles,
    /// The page on which people register, if there is one.
    registration_page: Option<String>,
    /// The link to the page on which people set a new password, with `{token}` in it, if one is known.
    reset_page: Option<String>,
    description: Bytes,
    calls: Vec<Call<call::Handler>>,
}

/// A response, or why there is none.
pub(super) type CallResult = Result<Response<Bytes>, Failure>;

/// The input of a call.
pub(super) struct Asked<'a> {
    /// Who asks; none where that does not matter.
    by: Option<Actor>,
    peer: IpAddr,
    headers: &'a HeaderMap,
    query: &'a str,
    parameters: Vec<&'a str>,
    body: Incoming,
    status: &'a dyn Status,
}

impl<'a> Asked<'a> {
    fn by(&self) -> Result<&Actor, Failure> {
        self.by.as_ref().ok_or_else(|| Kind::Unauthenticated.into())
    }

    /// A parameter in the path.
    fn parameter(&self, index: usize) -> &'a str {
        self.parameters.get(index).copied().unwrap_or_default()
    }
}

impl AdminApi {
    /// The API.
    pub fn new(
        operator: Operator,
        access: Arc<Access>,
        keys: Arc<Keys>,
        keyring: Arc<CurrentKeyring>,
        default_roles: Roles,
        registration_page: Option<String>,
        reset_page: Option<String>,
    ) -> Self {
        let description = call::description().to_string().into();
        let calls = call::calls();
        Self {
            operator,
            access,
            keys,
            keyring,
            default_roles,
            registration_page,
            reset_page,
            description,
            calls,
        }
    }

    /// Handles a call from `peer`.
    pub(super) async fn handle(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        status: &dyn Status,
    ) -> Response<Full<Bytes>> {
        let id =
            uuid::Builder::from_random_bytes(self.operator.random.bytes()).into_uuid().simple().to_string();
        let mut response = self.route(request, peer, &id, status).await.unwrap_or_else(|failure| {
            failure.log(&id);
            failure.problem.response(&id, &Statuses::default())
        });
        if let Ok(id) = HeaderValue::try_from(id) {
            response.headers_mut().insert("x-request-id", id);
        }
        response.map(Full::new)
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        peer: IpAddr,
        id: &str,
        status: &dyn Status,
    ) -> CallResult {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let mut here: Vec<_> =
            self.calls.iter().filter_map(|call| Some((call, call.captures(path)?))).collect();
        // A literal segment has precedence over a parameter.
        let fewest = here.iter().map(|(_, parameters)| parameters.len()).min();
        here.retain(|(_, parameters)| Some(parameters.len()) == fewest);
        if here.is_empty() {
            return Err(Kind::NotFound.into());
        }
        let method = if head.method == Method::HEAD { &Method::GET } else { &head.method };
        let allowed: Vec<&Method> = here.iter().map(|(call, _)| &call.method).collect();
        let Some((call, parameters)) = here.into_iter().find(|(call, _)| call.method == *method) else {
            return Ok(wrong_method(allowed, id));
        };
        let by = match call.bearer {
            Bearer::None => None,
            Bearer::Optional | Bearer::Required => Some(self.authenticate(&head.headers, peer).await?),
        };
        let (headers, query) = (&head.headers, head.uri.query().unwrap_or_default());
        call.handler.call(self, Asked { by, peer, headers, query, parameters, body, status }).await
    }
}

fn wrong_method(allowed: Vec<&Method>, request_id: &str) -> Response<Bytes> {
    let mut names: Vec<&str> = allowed.iter().map(|method| method.as_str()).collect();
    if allowed.contains(&&Method::GET) {
        names.push("HEAD");
    }
    names.sort_unstable();
    let problem = Problem { allow: Some(names.join(", ")), ..Kind::MethodNotAllowed.into() };
    problem.response(request_id, &Statuses::default())
}
