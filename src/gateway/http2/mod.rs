//! HTTP/2 towards clients: what becomes of a stream is the same as of a request on HTTP/1.1. Each has its own deadline, its own
//! decision and its own end.

mod connection;
mod duplex;
mod request;
mod stream;

pub(super) use connection::serve;
