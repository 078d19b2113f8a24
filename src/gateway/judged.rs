//! What the decision on a request went by, for streams that outlive the snapshot that judged them.

use std::cell::{Cell, RefCell};

use http::{
    HeaderValue, Method, Uri, Version, header,
    uri::{Authority, PathAndQuery, Scheme as UriScheme},
};

use super::{request_head::RequestHead, request_target, snapshot::Snapshot, target::Scheme};
use crate::{access::Credential, route::Match, types::fields::Fields};

/// The most bytes that stay allocated for the next request of a connection.
const MAX_KEPT: usize = 4096;

/// A request as it was judged.
struct Request {
    method: Method,
    version: Version,
    /// How many bytes each part takes in the text, in this order.
    scheme: Option<usize>,
    authority: Option<usize>,
    path_and_query: Option<usize>,
    host: Option<usize>,
    credential: Option<usize>,
}

impl Request {
    /// Returns the URI, the `host` and the credential again, or `None` if the text does not hold them.
    fn read(&self, mut text: &[u8]) -> Option<(Uri, Option<HeaderValue>, Option<HeaderValue>)> {
        let mut part = |length: Option<usize>| match length {
            Some(length) => {
                let (part, rest) = text.split_at_checked(length)?;
                text = rest;
                Some(Some(part))
            }
            None => Some(None),
        };
        let mut uri = http::uri::Parts::default();
        uri.scheme = part(self.scheme)?.map(UriScheme::try_from).transpose().ok()?;
        uri.authority = part(self.authority)?.map(Authority::try_from).transpose().ok()?;
        uri.path_and_query = part(self.path_and_query)?.map(PathAndQuery::try_from).transpose().ok()?;
        let host = part(self.host)?.map(HeaderValue::from_bytes).transpose().ok()?;
        let credential = part(self.credential)?.map(HeaderValue::from_bytes).transpose().ok()?;
        Some((Uri::from_parts(uri).ok()?, host, credential))
    }
}

/// What the decision on the last request of a connection went by.
#[derive(Default)]
pub(super) struct Judged {
    /// The number of the snapshot.
    number: Cell<u64>,
    request: RefCell<Option<Request>>,
    /// The bytes of the request. They are copied: a reference would keep the buffer that the connection reads into, which would need
    /// another one for each request.
    text: RefCell<Vec<u8>>,
}

impl Judged {
    /// Another request begins.
    pub(super) fn forget(&self) {
        self.request.take();
    }

    /// Takes note of a request that a snapshot allowed.
    pub(super) fn allowed(&self, snapshot: &Snapshot, head: &RequestHead) {
        let mut text = self.text.borrow_mut();
        text.clear();
        text.shrink_to(MAX_KEPT);
        let mut keep = |part: &[u8]| {
            text.extend_from_slice(part);
            part.len()
        };
        let RequestHead { method, uri, version, fields } = head;
        let request = Request {
            method: method.clone(),
            version: *version,
            scheme: uri.scheme().map(|scheme| keep(scheme.as_str().as_bytes())),
            authority: uri.authority().map(|authority| keep(authority.as_str().as_bytes())),
            path_and_query: uri.path_and_query().map(|path| keep(path.as_str().as_bytes())),
            host: fields.get(&header::HOST).map(|host| keep(host.as_bytes())),
            // With several there was no caller, and none will there be.
            credential: fields.get_only(&header::AUTHORIZATION).map(|credential| keep(credential.as_bytes())),
        };
        self.number.set(snapshot.number());
        self.request.replace(Some(request));
    }

    /// Returns whether the snapshot of a number has judged it.
    pub(super) fn is_by(&self, number: u64) -> bool {
        self.number.get() == number
    }

    /// Judges the request by another snapshot. Returns whether it may go on.
    pub(super) fn again(&self, snapshot: &Snapshot, scheme: Scheme) -> bool {
        self.number.set(snapshot.number());
        let request = self.request.borrow();
        // What no snapshot had to allow, such as a call below `auth.path`, is answered.
        let Some(request) = &*request else { return true };
        let Some((uri, host, credential)) = request.read(&self.text.borrow()) else { return false };
        let mut fields = Fields::default();
        if let Some(host) = host {
            fields.append(header::HOST, host);
        }
        let head = RequestHead { method: request.method.clone(), uri, version: request.version, fields };
        let Ok(target) = request_target::read(&head, scheme, snapshot.keeps_encoded) else { return false };
        let Ok(Match::Route(route)) = target.find(&snapshot.routes, &request.method) else { return false };
        let credential = Credential::of(credential.iter());
        snapshot.access.decide(&route.config.access, route.config.on_stale, credential).is_ok()
    }
}
