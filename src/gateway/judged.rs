//! What the decision on a request went by, for streams that outlive the snapshot that judged them.

use std::cell::{Cell, RefCell};

use http::{HeaderValue, Method, Uri, Version, header};

use super::{request_head::RequestHead, request_target, snapshot::Snapshot, target::Scheme};
use crate::{access::Credential, route::Match, types::fields::Fields};

/// A request as it was judged.
struct Request {
    method: Method,
    uri: Uri,
    host: Option<HeaderValue>,
    version: Version,
    credential: Option<HeaderValue>,
}

/// What the decision on the last request of a connection went by.
#[derive(Default)]
pub(super) struct Judged {
    /// The number of the snapshot.
    number: Cell<u64>,
    request: RefCell<Option<Request>>,
}

impl Judged {
    /// Another request begins.
    pub(super) fn forget(&self) {
        self.request.take();
    }

    /// Takes note of a request that a snapshot allowed.
    pub(super) fn allowed(&self, snapshot: &Snapshot, head: &RequestHead) {
        let RequestHead { method, uri, version, fields } = head;
        let host = fields.get(&header::HOST).cloned();
        // With several there was no caller, and none will there be.
        let credential = fields.get_only(&header::AUTHORIZATION).cloned();
        let (method, uri, version) = (method.clone(), uri.clone(), *version);
        self.number.set(snapshot.number());
        self.request.replace(Some(Request { method, uri, host, version, credential }));
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
        let Some(Request { method, uri, host, version, credential }) = &*request else { return true };
        let mut fields = Fields::default();
        if let Some(host) = host {
            fields.append(header::HOST, host.clone());
        }
        let head = RequestHead { method: method.clone(), uri: uri.clone(), version: *version, fields };
        let Ok(target) = request_target::read(&head, scheme, snapshot.keeps_encoded) else { return false };
        let Ok(Match::Route(route)) = target.find(&snapshot.routes, method) else { return false };
        let credential = Credential::of(credential.iter());
        snapshot.access.decide(&route.config.access, route.config.on_stale, credential).is_ok()
    }
}
