//! The media types of bodies.

use http::{HeaderMap, header};

/// The media type of forms.
pub const FORM: &str = "application/x-www-form-urlencoded";

/// Returns the media type of a body without its parameters (RFC 9110, section 8.3.1).
pub fn essence(headers: &HeaderMap) -> &str {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}
