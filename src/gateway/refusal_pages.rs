//! The interface to the pages that people get in place of refusals.

use bytes::Bytes;
use http::{HeaderValue, Response};

use crate::error::Kind;

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

    /// Returns the redirect to the page for a new proof of identity, by a factor if that is required, and from there to `target`.
    fn prove(&self, target: &str, needs_factors: bool) -> Response<Bytes>;
}
