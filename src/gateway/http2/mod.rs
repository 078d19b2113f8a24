//! HTTP/2 towards clients (RFC 9113).
//!
//! The `h2` crate does frames, header compression and flow control; what becomes of a stream is ours, and the same as on
//! HTTP/1.1: each is a request with its own deadline, its own decision and its own end. hyper's server on top of it does not
//! look at a body while the client's window is closed, so that neither a cut nor a deadline could end such a stream.

mod connection;
mod duplex;
mod floods;
mod request;
mod stream;
mod wire;

pub(super) use connection::serve;
