//! Requests by which a browser goes to another page: a person reads what comes back.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, header};

use super::{refusal::Refusal, request_head::RequestHead};
use crate::{error::Kind, types::fields::Fields};

static SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// What people get in place of a refusal that programs read.
pub trait RefusalPages: Send + Sync {
    /// Returns the page about a failure, in the language that `languages` (`Accept-Language`) prefers; none if there is no page about it.
    fn page(
        &self,
        kind: Kind,
        languages: Option<&HeaderValue>,
        request_id: &HeaderValue,
    ) -> Option<Response<Bytes>>;

    /// Returns the response that leads to the login page, and from there to `target`, a path with its query, or nowhere if it is empty.
    fn login(&self, target: &str) -> Response<Bytes>;

    /// Returns the response that leads to where people show anew who they are, and from there to `target`.
    fn prove(&self, target: &str) -> Response<Bytes>;
}

/// A request by which a browser goes to another page.
pub(super) struct Navigation {
    pages: Arc<dyn RefusalPages>,
    languages: Option<HeaderValue>,
}

impl Navigation {
    /// Returns the navigation that a request is, if there are pages for people.
    pub(super) fn of(pages: Option<&Arc<dyn RefusalPages>>, head: &RequestHead) -> Option<Box<Self>> {
        let pages = pages.filter(|_| is_navigation(&head.method, &head.fields))?;
        let languages = head.fields.get(&header::ACCEPT_LANGUAGE).cloned();
        Some(Box::new(Self { pages: pages.clone(), languages }))
    }

    /// Returns the page in place of a refusal; none for one that is left to the browser. `target` is that of the request.
    pub(super) fn refused(
        &self,
        refusal: &Refusal,
        target: Option<&str>,
        request_id: &HeaderValue,
    ) -> Option<Response<Bytes>> {
        let kind = refusal.kind();
        let mut response = match (kind, target) {
            (Kind::Unauthenticated, Some(target)) => self.pages.login(target),
            (Kind::InsufficientUserAuthentication, Some(target)) => self.pages.prove(target),
            (kind, _) => self.pages.page(kind, self.languages.as_ref(), request_id)?,
        };
        refusal.add_fields(response.headers_mut());
        Some(response)
    }
}

/// Returns whether a browser follows a link (Fetch Metadata Request Headers, section 2.2), or whether it looks like it where that is not
/// told.
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
