//! HTTP/2 (RFC 9113), for both sides: frames, header compression, flow control, and what becomes of a connection.
//!
//! Our own, and measured: with the library's, a request on a stream cost twice the user time of one on HTTP/1.1, and a name in
//! upper case ended the whole connection. A task drives each connection ([`Connection`]); the streams on it are used by the
//! tasks of their requests ([`Stream`]). What these have to send in one turn of their worker leaves in one write.

mod closing;
mod config;
mod connection;
mod floods;
mod frame;
mod head;
mod hpack;
mod outgoing;
mod reason;
mod receive;
mod silence;
mod state;
mod stream;
#[cfg(test)]
mod tests;

pub use closing::Ended;
pub use config::Config;
pub use connection::Connection;
pub use floods::Flood;
pub use head::Head;
pub use reason::Reason;
pub use state::{Failure, Opener};
pub use stream::{RequestLine, Stream};

/// What a client sends first (RFC 9113, section 3.4).
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
