//! An interim response (RFC 9110, section 15.2).

use http::StatusCode;

use crate::types::fields::Fields;

/// An interim response.
pub(super) struct Interim {
    pub(super) status: StatusCode,
    pub(super) fields: Fields,
}
