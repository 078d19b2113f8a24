//! Connections to backends.
//!
//! A connection is driven by the request that uses it, in the request's own task: there is no
//! task of its own to wake. Between two requests it rests in its worker's pool, where nothing
//! drives it; before it is used again it must prove that it is still open and that nothing
//! arrived on it meanwhile.

mod connection;
mod pool;
mod reader;
pub mod sample;

pub use connection::{Connection, SendError};
pub use pool::{Body, Pool, Upstream};
