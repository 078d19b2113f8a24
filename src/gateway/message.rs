//! A client's request, and the response to it.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};

use super::{
    exchange::Exchange, request_body::Incoming, request_head::RequestHead, response_body::ResponseBody,
    thread_bound::ThreadBound,
};
use crate::{error::Kind, types::fields::Fields};

/// A client's request.
pub(super) struct ClientRequest {
    pub(super) head: RequestHead,
    /// Why it is refused before it is looked at further.
    pub(super) refused: Option<Kind>,
    /// Its body, if it has one. It is taken out when it is read.
    pub(super) body: Option<Incoming>,
}

/// The response to a client.
pub(super) struct ClientResponse {
    pub(super) status: StatusCode,
    pub(super) fields: Fields,
    pub(super) body: ResponseBody,
}

impl ClientResponse {
    /// Creates a response that is there as a whole.
    pub(super) fn whole(response: &Response<Bytes>, exchange: &Arc<ThreadBound<Exchange>>) -> Self {
        Self {
            status: response.status(),
            fields: response.headers().into(),
            body: ResponseBody::whole(response.body().clone(), exchange),
        }
    }
}
