//! The head of a response, as a value.

use bytes::Bytes;
use http::{Response, StatusCode, Version};

use crate::types::{fields, framing::Head};

/// Returns the response with the head `head`, whose bytes are `bytes`. Its values are slices of them.
pub(super) fn to_response(bytes: &Bytes, head: &Head) -> Result<Response<()>, &'static str> {
    const NOT_HTTP: &str = "the head of the response is not HTTP";
    let headers = fields::parse(bytes, head.start_line.1 + 2, head.fields).map_err(|_| NOT_HTTP)?;
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(head.status).map_err(|_| NOT_HTTP)?;
    *response.version_mut() = if head.old { Version::HTTP_10 } else { Version::HTTP_11 };
    *response.headers_mut() = headers;
    Ok(response)
}
