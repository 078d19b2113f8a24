//! Parses the head of a response.

use std::cell::RefCell;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

/// Lines of a head for which there is room without an allocation.
const FEW_LINES: usize = 100;

/// The number of empty header maps that a thread keeps, and the capacity of each: one client with many headers does not
/// enlarge the maps of others.
const SPARE_MAPS: usize = 32;
const SPARE_CAPACITY: usize = 48;

thread_local! {
    /// Maps of requests that were formatted, to be used for responses. The last one is likely to be in the processor's cache.
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// Clears the headers of a request and keeps their memory for a response.
pub(super) fn reuse(mut headers: HeaderMap) {
    if headers.capacity() <= SPARE_CAPACITY {
        headers.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAPS {
                spare.push(headers);
            }
        });
    }
}

/// Parses the head of a response of at most `count` header lines. Its values are slices of `bytes`.
pub(super) fn to_response(bytes: &Bytes, count: usize) -> Result<Response<()>, &'static str> {
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
    let mut headers = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
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
