//! Connections to backends.
//!
//! A connection is driven by the request that uses it, in the request's own task: there is no
//! task of its own to wake. Between two requests it rests in its worker's pool; before it is used
//! again it must prove that nothing arrived on it meanwhile, not even its end.

mod balance;
mod body;
mod cluster;
mod connection;
mod endpoint;
mod exchange;
mod framing;
mod head;
mod mixed;
mod monitor;
mod multiplexed;
mod outgoing;
mod pool;
mod probe;
mod replay;
mod resolve;
mod retry;
mod send;
mod standing;

pub use balance::hash;
pub use body::Body;
pub use cluster::{Client, Cluster, ServerReport};
pub use connection::{Broken, Connection, Counted, Head};
pub use endpoint::Connections;
pub use head::ResponseHead;
pub use monitor::Monitor;
pub use outgoing::{Outgoing, RequestHead};
pub use pool::{Allowed, ConnectError};
pub use replay::Rewind;
pub use send::{Progress, Request, SendError, Sent};
pub use standing::ServerState;
