//! The interface to the builtin calls.

use std::{future::Future, net::IpAddr, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};

/// A whole request below `auth.path`.
pub struct BuiltinCall {
    /// The request; its URI's path is the decoded one.
    pub request: Request<Bytes>,
    /// The client's address.
    pub client: IpAddr,
    /// The request's id.
    pub request_id: HeaderValue,
    /// Where a browser may be sent afterwards.
    pub destinations: Arc<dyn Destinations>,
}

/// The routes that a browser may be sent to.
pub trait Destinations: Send + Sync {
    /// Returns whether a route takes a path of this host, with its query, as it is.
    fn takes(&self, host: &str, target: &str) -> bool;
}

/// Handles builtin calls. Once a call was handed over it runs to its end, whatever the client does:
/// a logout is not undone by hanging up.
pub trait BuiltinCalls: Send + Sync {
    /// The largest body that a call may have, in bytes.
    fn max_body(&self) -> u64;

    /// Handles a call.
    fn call(&self, call: BuiltinCall) -> Pin<Box<dyn Future<Output = Response<Bytes>> + Send>>;
}
