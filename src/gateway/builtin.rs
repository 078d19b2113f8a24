//! The interface to the builtin calls.

use std::{future::Future, net::IpAddr, pin::Pin};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};

/// A whole request below `auth.path`.
#[derive(Debug)]
pub struct BuiltinCall {
    /// The request; its URI's path is the decoded one.
    pub request: Request<Bytes>,
    /// The client's address.
    pub client: IpAddr,
    /// The request's id.
    pub request_id: HeaderValue,
}

/// Handles builtin calls. Once a call was handed over it runs to its end, whatever the client does:
/// a logout is not undone by hanging up.
pub trait BuiltinCalls: Send + Sync {
    /// The largest body that a call may have, in bytes.
    fn max_body(&self) -> u64;

    /// Handles a call.
    fn call(&self, call: BuiltinCall) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>;
}
