//! The head of a client's request.

use http::{Method, Uri, Version};

use crate::types::fields::Fields;

/// The head of a client's request.
pub(super) struct RequestHead {
    pub(super) method: Method,
    /// Its target.
    pub(super) uri: Uri,
    pub(super) version: Version,
    pub(super) fields: Fields,
}
