//! Looks up the addresses of a server's name.
//!
//! The system's own lookup blocks, and may hang for as long as its servers do: it runs on a thread of its own.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    time::Duration,
};

use tokio::{task::spawn_blocking, time::timeout};

/// How long a lookup is waited for.
const LONGEST: Duration = Duration::from_secs(10);

/// Returns the addresses of `host:port`; at least one.
///
/// # Errors
/// When the name is not found, or not in time.
pub(super) async fn look_up(authority: &str) -> io::Result<Vec<SocketAddr>> {
    let authority = authority.to_owned();
    let found = spawn_blocking(move || authority.to_socket_addrs().map(Iterator::collect::<Vec<_>>));
    let found = timeout(LONGEST, found).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    let found = found.map_err(io::Error::other)??;
    if found.is_empty() { Err(io::ErrorKind::NotFound.into()) } else { Ok(found) }
}
