//! What the decision on a request went by, for streams that outlive the snapshot that judged them.

use std::cell::{Cell, RefCell};

use http::{HeaderValue, Method, Uri, Version, header};

use super::{request_head::RequestHead, request_target, snapshot::Snapshot, target::Scheme};
use crate::{access::Credential, route::Match, types::fields::Fields};

/// The most bytes that stay allocated for the next request of a connection.
const MAX_KEPT: usize = 4096;

/// A request as it was judged.
struct Request {
    method: Method,
    version: Version,
    /// How many bytes each part takes in the text, in this order.
    path: usize,
    host: Option<usize>,
    credential: Option<usize>,
}

impl Request {
    /// Returns the path, the `host` and the credential again.
    fn read(&self, text: &[u8]) -> Option<(Uri, Option<HeaderValue>, Option<HeaderValue>)> {
        let (path, text) = text.split_at_checked(self.path)?;
        let (host, text) = text.split_at_checked(self.host.unwrap_or(0))?;
        let value =
            |length: Option<usize>, bytes| length.map(|_| HeaderValue::from_bytes(bytes)).transpose().ok();
        Some((Uri::try_from(path).ok()?, value(self.host, host)?, value(self.credential, text)?))
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

    /// Takes note of a request that a snapshot allowed. Its target is a path and perhaps a query, which takes no part in decisions.
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
            path: keep(uri.path().as_bytes()),
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
        // What was not forwarded, such as a call below `auth.path`, is answered.
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
