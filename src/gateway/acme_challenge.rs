//! The path at which certificate authorities ask whether a name is served here (RFC 8555, section 8.3).

use bytes::Bytes;
use http::{HeaderValue, Method, Response, header};

use super::request_head::RequestHead;
use crate::tls::Challenges;

const PATH: &str = "/.well-known/acme-challenge/";

/// Returns the response to an authority that asks for the proof of a name; none if the request is about no proof that is pending.
pub(super) fn response(challenges: &Challenges, head: &RequestHead) -> Option<Response<Bytes>> {
    let token = head.uri.path().strip_prefix(PATH)?;
    let is_read = head.method == Method::GET || head.method == Method::HEAD;
    let proof = challenges.key_authorization(token).filter(|_| is_read)?;
    let mut response = Response::new(Bytes::from(proof));
    let media_type = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    Some(response)
}
