//! Fields behind a body (RFC 9110, section 6.5).

use super::{fields::Fields, hop_by_hop::is_hop_by_hop};

/// What must be known before the body: framing, routing, credentials, and what the body is (RFC 9110, section 6.5.1).
const NOT_BEHIND: &[&str] = &[
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "expect",
    "host",
    "location",
    "max-forwards",
    "range",
    "set-cookie",
    "www-authenticate",
];

/// Takes out of trailers what does not belong there.
pub fn clean(trailers: &mut Fields) {
    trailers.retain(|name| !is_hop_by_hop(name.as_str()) && !NOT_BEHIND.contains(&name.as_str()));
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn what_must_be_known_before_the_body_is_taken_out() {
        let mut trailers = Fields::default();
        for name in ["grpc-status", "host", "content-length", "te", "set-cookie", "x-checksum"] {
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        clean(&mut trailers);
        assert_eq!(
            trailers.iter().map(|line| line.0.as_str()).collect::<Vec<_>>(),
            ["grpc-status", "x-checksum"]
        );
    }
}
