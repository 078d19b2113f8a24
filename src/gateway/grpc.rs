//! gRPC over HTTP/2: what a refusal is to its clients, and the deadline that they name
//! (<https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>).

use std::time::Duration;

use http::{HeaderName, HeaderValue, Response, StatusCode, Version, header};

use super::request_head::RequestHead;
use crate::{error::Kind, types::fields::Fields};

static STATUS: HeaderName = HeaderName::from_static("grpc-status");
static MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
pub(super) const MEDIA_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// Returns whether a request is one of gRPC. gRPC-Web is ordinary HTTP.
pub(super) fn is_call(head: &RequestHead) -> bool {
    if head.version != Version::HTTP_2 {
        return false;
    }
    is_of_a_call(&head.fields)
}

/// Returns whether the fields of a message say that it is one of gRPC.
pub(super) fn is_of_a_call(fields: &Fields) -> bool {
    let media = fields.get(&header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let rest = media.and_then(|media| media.strip_prefix(MEDIA_TYPE.as_bytes()));
    rest.is_some_and(|rest| rest.first().is_none_or(|byte| matches!(byte, b'+' | b';' | b' ')))
}

/// Returns the trailers of a call that has not ended in time.
pub(super) fn deadline_exceeded() -> impl Iterator<Item = (&'static str, &'static [u8])> {
    [("grpc-status", "4"), ("grpc-message", Kind::UpstreamTimeout.message())]
        .into_iter()
        .map(|(name, value)| (name, value.as_bytes()))
}

/// Returns how long the client waits for a call, if it says so.
pub(super) fn timeout(fields: &Fields) -> Option<Duration> {
    let (unit, digits) = fields.get_only(&TIMEOUT)?.as_bytes().split_last()?;
    let legal = (1..=8).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    let count: u64 = std::str::from_utf8(digits).ok().filter(|_| legal)?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(count * 3_600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

/// Returns the response to a call that is refused.
pub(super) fn refusal<T: Default>(kind: Kind) -> Response<T> {
    let code = match kind.status() {
        StatusCode::UNAUTHORIZED => "16",
        StatusCode::FORBIDDEN => "7",
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => "12",
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => "8",
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => "4",
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => "14",
        StatusCode::INTERNAL_SERVER_ERROR => "13",
        _ => "3",
    };
    let mut grpc = Response::new(T::default());
    let headers = grpc.headers_mut();
    headers.insert(header::CONTENT_TYPE, MEDIA_TYPE);
    headers.insert(&STATUS, HeaderValue::from_static(code));
    headers.insert(&MESSAGE, HeaderValue::from_static(kind.message()));
    grpc
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;

    fn head(version: Version, media: &'static str) -> RequestHead {
        let mut fields = Fields::default();
        fields.append(header::CONTENT_TYPE, HeaderValue::from_static(media));
        RequestHead { method: Method::POST, uri: Uri::from_static("/a.B/C"), version, fields }
    }

    #[test]
    fn a_call_is_known_by_its_media_type() {
        for media in ["application/grpc", "application/grpc+proto", "application/grpc;x=y"] {
            assert!(is_call(&head(Version::HTTP_2, media)), "{media}");
        }
        for media in ["application/grpc-web", "application/grpc-web+proto", "application/json"] {
            assert!(!is_call(&head(Version::HTTP_2, media)), "{media}");
        }
        assert!(!is_call(&head(Version::HTTP_11, "application/grpc")));
    }

    #[test]
    fn a_timeout_is_a_number_of_at_most_eight_digits_and_a_unit() {
        let timeout = |text: &'static str| {
            let mut fields = Fields::default();
            fields.append(TIMEOUT.clone(), HeaderValue::from_static(text));
            timeout(&fields)
        };
        assert_eq!(timeout("2H"), Some(Duration::from_secs(7_200)));
        assert_eq!(timeout("1500m"), Some(Duration::from_millis(1_500)));
        assert_eq!(timeout("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for text in ["", "S", "1", "1s", "-1S", "123456789S", "1.5S", "1S "] {
            assert_eq!(timeout(text), None, "{text}");
        }
    }
}
