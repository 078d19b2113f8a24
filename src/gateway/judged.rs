//! What the decision on a request went by, for streams that outlive the snapshot that judged them.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use http::{HeaderName, HeaderValue, Method, Uri, Version, header};

use super::{request_head::RequestHead, request_target, snapshot::Snapshot, target::Scheme};
use crate::{
    access::Credential,
    config::{self, Access},
    route::Match,
    token::Principal,
    types::fields::Fields,
};

static X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A request as it was judged. Its parts lie in the buffer that the connection reads into, which is free for the next request once
/// they are dropped.
struct Request {
    method: Method,
    version: Version,
    uri: Uri,
    host: Option<HeaderValue>,
    credential: Option<Presented>,
}

/// The header that had the credential.
#[derive(Clone)]
enum Presented {
    Authorization(HeaderValue),
    ApiKey(HeaderValue),
    Cookie(HeaderValue),
}

/// What the decision on the present request of a connection went by.
#[derive(Default)]
pub(super) struct Judged {
    /// The number of the snapshot.
    number: Cell<u64>,
    /// Allocated for each request, like all that a request needs: what a connection keeps is no longer in the processor's cache.
    request: RefCell<Option<Box<Request>>>,
    /// The credential of a request that is noted only if its response turns out to be a long one.
    credential: RefCell<Option<Presented>>,
    /// The caller, if another issuer was asked about the token: it is not asked again.
    asked: RefCell<Option<Arc<Principal>>>,
    /// Whether the caller is known by a cookie.
    is_by_cookie: Cell<bool>,
    /// Whether the caller is known by an API key.
    is_by_key: Cell<bool>,
}

impl Judged {
    /// The request is over, or another begins.
    pub(super) fn forget(&self) {
        self.request.take();
        self.credential.take();
        self.asked.take();
        self.is_by_cookie.set(false);
        self.is_by_key.set(false);
    }

    /// Notes a request that a snapshot allowed by a route. Of most it takes the credential only, which does not go on: they are
    /// noted once it is known that their response is a long one.
    pub(super) fn allowed(
        &self,
        snapshot: &Snapshot,
        route: &config::Route,
        head: &mut RequestHead,
        has_body: bool,
    ) {
        self.number.set(snapshot.number());
        let is_usual = !has_body
            && route.rewrite.is_none()
            && !route.forward_token
            && !matches!(route.access, Access::Open);
        if self.is_by_cookie.get() {
            let credential = cookie(snapshot, &head.fields);
            if is_usual {
                self.credential.replace(credential);
            } else {
                self.note(head, head.fields.get(&header::HOST).cloned(), credential);
            }
            return;
        }
        if self.is_by_key.get()
            && let Some(key) = head.fields.get_only(&X_API_KEY)
            && !head.fields.contains(&header::AUTHORIZATION)
        {
            let credential = Some(Presented::ApiKey(key.clone()));
            if is_usual {
                self.credential.replace(credential);
            } else {
                self.note(head, head.fields.get(&header::HOST).cloned(), credential);
            }
            return;
        }
        if is_usual {
            self.credential.replace(head.fields.remove(&header::AUTHORIZATION).map(Presented::Authorization));
            return;
        }
        // With several there was no caller, and none will there be.
        let credential = head.fields.get_only(&header::AUTHORIZATION).cloned().map(Presented::Authorization);
        self.note(head, head.fields.get(&header::HOST).cloned(), credential);
    }

    /// Notes a request whose response is a long one, unless it was noted.
    pub(super) fn goes_on(&self, head: &RequestHead, host: Option<HeaderValue>) {
        if self.request.borrow().is_none() {
            self.note(head, host, self.credential.take());
        }
    }

    fn note(&self, head: &RequestHead, host: Option<HeaderValue>, credential: Option<Presented>) {
        let RequestHead { method, uri, version, .. } = head;
        let request =
            Request { method: method.clone(), version: *version, uri: uri.clone(), host, credential };
        self.request.replace(Some(Box::new(request)));
    }

    /// Notes of the caller of the request whether that is one by a cookie, or one whose issuer was asked about the token.
    pub(super) fn has_caller(&self, principal: &Arc<Principal>) {
        self.is_by_cookie.set(principal.is_by_cookie());
        self.is_by_key.set(principal.api_key().is_some());
        if principal.asked().is_some() {
            self.asked.replace(Some(principal.clone()));
        }
    }

    /// Returns whether the snapshot of a number has judged it.
    pub(super) fn is_by(&self, number: u64) -> bool {
        self.number.get() == number
    }

    /// Judges the request by another snapshot. Returns whether it may go on.
    pub(super) fn again(&self, snapshot: &Snapshot, scheme: Scheme) -> bool {
        self.number.set(snapshot.number());
        let request = self.request.borrow();
        // What was not forwarded, such as a call below `auth.path`, is answered.
        let Some(request) = &*request else { return true };
        let mut fields = Fields::default();
        if let Some(host) = &request.host {
            fields.append(header::HOST, host.clone());
        }
        let (method, uri) = (request.method.clone(), request.uri.clone());
        let head = RequestHead { method, uri, version: request.version, fields };
        let Ok(target) = request_target::read(&head, scheme, snapshot.keeps_encoded) else { return false };
        let Ok(Match::Route(route)) = target.find(&snapshot.routes, &request.method) else { return false };
        if let Some(principal) = &*self.asked.borrow() {
            return snapshot.access.decide_again(&route.config.access, principal).is_ok();
        }
        let credential = match (&request.credential, snapshot.access.cookies()) {
            (Some(Presented::Authorization(value)), _) => {
                Credential::of_authorization([value], snapshot.access.credential_kinds().keys)
            }
            (Some(Presented::ApiKey(value)), _) if snapshot.access.credential_kinds().keys.header => {
                Credential::ApiKey(value.as_bytes())
            }
            // Where it came from was judged when it came.
            (Some(Presented::Cookie(value)), Some(cookies)) => {
                Credential::of_cookies([value], cookies.name())
            }
            // What was a credential is none any more.
            (Some(Presented::Cookie(_) | Presented::ApiKey(_)), _) => Credential::Unusable,
            (None, _) => Credential::Absent,
        };
        let (access, on_stale) = (&route.config.access, route.config.on_stale);
        snapshot.access.decide(access, on_stale, credential, target.place(None)).is_ok()
    }
}

/// Returns the line of the cookie that the caller was known by.
fn cookie(snapshot: &Snapshot, fields: &Fields) -> Option<Presented> {
    if let Some(only) = fields.get_only(&header::COOKIE) {
        return Some(Presented::Cookie(only.clone()));
    }
    let name = snapshot.access.cookies()?.name();
    let has_it = |line: &&HeaderValue| matches!(Credential::of_cookies([*line], name), Credential::Cookie(_));
    fields.get_all(&header::COOKIE).find(has_it).cloned().map(Presented::Cookie)
}
