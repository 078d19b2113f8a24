//! Requests by which a browser goes to another page: a person reads what comes back.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, header};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::{refusal::Refusal, refusal_pages::RefusalPages, request_head::RequestHead, snapshot::Snapshot};
use crate::{
    access::Credential,
    error::{Kind, Statuses},
    types::{
        fields::Fields,
        path::{Canonical, canonical},
    },
};

static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// A request by which a browser goes to another page.
pub(super) struct Navigation {
    pages: Arc<dyn RefusalPages>,
    languages: Option<HeaderValue>,
}

impl Navigation {
    /// Returns the navigation that a request is, if there are pages for people. Another proxy that asks goes by the status.
    pub(super) fn of(snapshot: &Snapshot, head: &RequestHead) -> Option<Self> {
        let pages = snapshot.services.refusal_pages.as_ref()?;
        if !is_navigation(&head.method, &head.fields) || snapshot.is_spelled_verify(head.uri.path()) {
            return None;
        }
        Some(Self { pages: pages.clone(), languages: head.fields.get(&header::ACCEPT_LANGUAGE).cloned() })
    }

    /// Returns the page in place of a refusal; none for one that is left to the browser. `target` is that of the request. `is_program` is
    /// the result of [`is_program`].
    pub(super) fn refused(
        &self,
        refusal: &Refusal,
        target: Option<&str>,
        is_program: bool,
        request_id: &HeaderValue,
        statuses: &Statuses,
    ) -> Option<Response<Bytes>> {
        let kind = refusal.kind();
        let mut response = match (kind, target) {
            (Kind::Unauthenticated, Some(target)) if !is_program => self.pages.login(&way_back(target)),
            (Kind::InsufficientUserAuthentication, Some(_)) if is_program => return None,
            (Kind::InsufficientUserAuthentication, Some(target)) => {
                self.pages.prove(&way_back(target), refusal.needs_factors())
            }
            (kind, _) => {
                let mut page = self.pages.page(kind, self.languages.as_ref(), request_id)?;
                *page.status_mut() = statuses.of(kind);
                page
            }
        };
        refusal.add_fields(&mut response);
        Some(response)
    }
}

/// Returns a target in the one form in which it is led back to: the path as it is forwarded, and nothing raw in the query.
pub(super) fn way_back(target: &str) -> Cow<'_, str> {
    const RAW: &AsciiSet = &CONTROLS.add(b' ').add(b'\\');
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let Ok(Canonical { wire, .. }) = canonical(path) else { return target.into() };
    match query {
        Some(query) => format!("{wire}?{}", utf8_percent_encode(query, RAW)).into(),
        None => wire,
    }
}

/// Returns whether a request has a credential other than a session's cookie. A browser would send it again after a sign-in.
pub(super) fn is_program(snapshot: &Snapshot, method: &Method, fields: &Fields) -> bool {
    !matches!(snapshot.credential(method, fields), Credential::Absent | Credential::Cookie(_))
}

/// Returns whether a browser follows a link (Fetch Metadata Request Headers, section 2.2), or looks like it if the browser does
/// not tell.
pub(super) fn is_navigation(method: &Method, fields: &Fields) -> bool {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return false;
    }
    match fields.get(&SEC_FETCH_MODE) {
        Some(mode) => mode == "navigate",
        None => fields.get(&header::ACCEPT).is_some_and(|accept| {
            accept.as_bytes().get(..9).is_some_and(|begin| begin.eq_ignore_ascii_case(b"text/html"))
        }),
    }
}
