//! The head of a response: read, and what it says of the connection.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

/// Whether `Connection` names this option (RFC 9110, section 7.6.1).
pub(super) fn connection_says(headers: &HeaderMap, option: &str) -> bool {
    let lines = headers.get_all(header::CONNECTION).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}

/// Whether a head names this protocol in `Upgrade`, and no other, and `upgrade` in `Connection` (RFC 9110,
/// section 7.8).
pub fn names_upgrade(headers: &HeaderMap, protocol: &HeaderValue) -> bool {
    let mut values = headers.get_all(header::UPGRADE).iter();
    let same = values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()));
    same && values.next().is_none() && connection_says(headers, "upgrade")
}

/// Lines of a head for which there is room without an allocation.
const FEW_LINES: usize = 100;

/// The head of a response of at most `count` header lines, its values slices of the bytes that arrived.
pub(super) fn to_response(bytes: &Bytes, count: usize) -> Result<Response<()>, &'static str> {
    const FAULT: &str = "the head of the response is not HTTP";
    let mut few = [const { std::mem::MaybeUninit::uninit() }; FEW_LINES];
    let mut many = Vec::new();
    let lines = if count <= FEW_LINES {
        &mut few[..]
    } else {
        many.resize_with(count, std::mem::MaybeUninit::uninit);
        &mut many[..]
    };
    let mut parsed = httparse::Response::new(&mut []);
    let complete = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, bytes, lines)
        .map_err(|_| FAULT)?;
    if complete.is_partial() {
        return Err(FAULT);
    }
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + 4);
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| FAULT)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).map_err(|_| FAULT)?;
        headers.append(name, value);
    }
    let mut response = Response::new(());
    *response.status_mut() = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(FAULT)?;
    *response.version_mut() =
        if parsed.version == Some(0) { http::Version::HTTP_10 } else { http::Version::HTTP_11 };
    *response.headers_mut() = headers;
    Ok(response)
}
