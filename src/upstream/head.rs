//! Parses the head of a response.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

/// Lines of a head for which there is room without an allocation.
const FEW_LINES: usize = 100;

/// The head of a response of at most `count` header lines, its values slices of the bytes that arrived. `headers` is empty,
/// and perhaps has room.
pub(super) fn to_response(
    bytes: &Bytes,
    count: usize,
    mut headers: HeaderMap,
) -> Result<Response<()>, &'static str> {
    const NOT_HTTP: &str = "the head of the response is not HTTP";
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
        .map_err(|_| NOT_HTTP)?;
    if complete.is_partial() {
        return Err(NOT_HTTP);
    }
    headers.reserve(parsed.headers.len() + 4);
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| NOT_HTTP)?;
        let value = bytes.slice_ref(line.value);
        // SAFETY: the parser takes no byte into a value that a header must not have: it stops at control characters but
        // tabs, as the library that serves clients relies on, too.
        let value = unsafe { HeaderValue::from_maybe_shared_unchecked(value) };
        headers.append(name, value);
    }
    let mut response = Response::new(());
    *response.status_mut() = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(NOT_HTTP)?;
    *response.version_mut() =
        if parsed.version == Some(0) { http::Version::HTTP_10 } else { http::Version::HTTP_11 };
    *response.headers_mut() = headers;
    Ok(response)
}
