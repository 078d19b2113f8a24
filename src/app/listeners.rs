//! Listening sockets: bound at the start, listening once everything is loaded, shared by the workers.

use std::{io, net::SocketAddr, sync::Arc};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;

use crate::{
    config,
    gateway::{Listener, Listening},
    tls::ServerTls,
};

/// The queue of connections that the kernel has made and no worker has accepted yet.
const BACKLOG: i32 = 4_096;

/// An address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {0}: {1}")]
pub struct ListenError(pub(super) SocketAddr, #[source] pub(super) io::Error);

/// Returns sockets that are bound to the addresses of listeners, with `tls` in their order. A listener that is as it was `before`
/// goes on, and one that has changed keeps its socket, in which clients may be waiting.
///
/// # Errors
/// [`ListenError`].
pub(super) fn bind(
    listeners: &[config::Listener],
    tls: &[Option<Arc<ServerTls>>],
    before: &[Listening],
) -> Result<Vec<Listening>, ListenError> {
    let mut bound: Vec<Listening> = Vec::with_capacity(listeners.len());
    for (config, tls) in listeners.iter().zip(tls) {
        let is_free = |listening: &&Listening| {
            listening.listener.config.address == config.address
                && !bound.iter().any(|taken| Arc::ptr_eq(&taken.socket, &listening.socket))
        };
        let known = before.iter().find(is_free);
        bound.push(match known {
            Some(known) if known.listener.config.is_like(config) => known.clone(),
            known => {
                let socket = match known {
                    Some(known) => known.socket.clone(),
                    None => Arc::new(
                        bind_to(config.address).map_err(|error| ListenError(config.address, error))?.into(),
                    ),
                };
                Listening { socket, listener: Arc::new(Listener::new(config.clone(), tls.clone())) }
            }
        });
    }
    Ok(bound)
}

/// Lets clients come to sockets that are bound, and tells `message` of each.
///
/// # Errors
/// [`ListenError`].
pub(super) fn listen<'a>(
    bound: impl IntoIterator<Item = &'a Listening>,
    message: &'static str,
) -> Result<(), ListenError> {
    for Listening { socket, listener } in bound {
        let address = listener.config.address;
        SockRef::from(&**socket).listen(BACKLOG).map_err(|error| ListenError(address, error))?;
        // The port that the system chose, where the config leaves it to it.
        let local = socket.local_addr().unwrap_or(address);
        tracing::info!(address = %local, "{message}");
    }
    Ok(())
}

fn bind_to(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}
