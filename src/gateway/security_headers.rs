//! Headers by which browsers take no more from the gateway's own responses than they should.

use http::{HeaderName, HeaderValue, header};

use crate::types::fields::Fields;

const SAME_ORIGIN: HeaderValue = HeaderValue::from_static("same-origin");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const NO_FRAMES: HeaderValue = HeaderValue::from_static("frame-ancestors 'none'");

/// A year, in seconds (RFC 6797, section 6.1).
const STRICT_TRANSPORT: HeaderValue = HeaderValue::from_static("max-age=31536000");

/// Adds them to a response, where it has none of its own; `is_strict` says whether the host is to be spoken to by https only.
pub(super) fn add(fields: &mut Fields, is_strict: bool) {
    let mut add = |name: HeaderName, value: HeaderValue| {
        if !fields.contains(&name) {
            fields.append(name, value);
        }
    };
    add(header::X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    add(header::REFERRER_POLICY, SAME_ORIGIN);
    add(header::CONTENT_SECURITY_POLICY, NO_FRAMES);
    if is_strict {
        add(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT);
    }
}
