//! Connections to backends.
//!
//! A connection is driven by the request that uses it, in the request's own task: there is no
//! task of its own to wake. Between two requests it rests in its worker's pool; before it is used
//! again it must prove that nothing arrived on it meanwhile, not even its end.

mod connection;
mod framing;
mod head;
mod pool;
mod resolve;

pub use connection::{Broken, Connection, Head, Outgoing};
pub use pool::{Allowed, Body, ConnectError, Connections, Pool, Upstream};
