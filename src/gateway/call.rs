//! Handing over a builtin call, with its whole body.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderValue, Request};
use http_body_util::BodyExt;

use super::{
    builtin::BuiltinCall,
    exchange::Exchange,
    forward,
    message::{ClientRequest, ClientResponse},
    refusal::Refusal,
    request_body::{BodyBounds, Incoming, RequestBody},
    state::ConnectionState,
    thread_bound::ThreadBound,
    view::View,
};
use crate::error::Kind;

impl ConnectionState {
    /// Reads the whole body of a builtin call and calls it. The request's path is the decoded one.
    pub(super) async fn call_builtin(
        &self,
        view: &View,
        request: &mut ClientRequest,
        client: IpAddr,
        request_id: &HeaderValue,
    ) -> Result<ClientResponse, Refusal> {
        let snapshot = &*view.snapshot;
        let builtin_calls = &snapshot.builtin_calls;
        if announced(request) > builtin_calls.max_body() {
            return Err(Kind::BodyTooLarge.into());
        }
        let timeout = snapshot.limits.request_timeout;
        let bounds = BodyBounds {
            limit: builtin_calls.max_body(),
            due: self.exchange.moment(timeout),
            min_rate: snapshot.limits.body_min_rate,
            response_timeout: timeout,
        };
        let body = RequestBody::new(request.body.take(), &self.exchange, bounds, None, &snapshot.headers);
        let mut call = Request::new(collect(body, &self.exchange).await?);
        let head = &mut request.head;
        *call.method_mut() = head.method.clone();
        *call.uri_mut() = head.uri.clone();
        *call.version_mut() = head.version;
        *call.headers_mut() = std::mem::take(&mut head.fields).into();
        let call = BuiltinCall {
            request: call,
            client,
            request_id: request_id.clone(),
            destinations: view.snapshot.clone(),
        };
        let handled = forward::in_time(&self.exchange, builtin_calls.call(call)).await;
        Ok(ClientResponse::whole(&handled.ok_or(Kind::Unavailable)?, &self.exchange))
    }
}

/// Returns the length of the body that a request announces, or 0.
pub(super) fn announced(request: &ClientRequest) -> u64 {
    request.body.as_ref().and_then(Incoming::left).unwrap_or(0)
}

async fn collect(body: RequestBody, exchange: &ThreadBound<Exchange>) -> Result<Bytes, Kind> {
    match body.collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(_) => Err(exchange.body_failure().unwrap_or(Kind::BadRequest)),
    }
}
