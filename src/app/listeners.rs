//! Listening sockets: bound at the start, listening once everything is loaded, shared by the workers.

use std::{io, net::TcpListener, sync::Arc};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
use thiserror::Error;

use super::inheritance::Inherited;
use crate::{
    config::{self, ListenAddress},
    gateway::{Listener, Listening},
    tls::ServerTls,
};

/// The queue of connections that the kernel has made and no worker has accepted yet.
const BACKLOG: i32 = 4_096;

/// An address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {0}: {1}")]
pub struct ListenError(pub(super) ListenAddress, #[source] pub(super) io::Error);

/// Returns sockets that are bound to the addresses of listeners, with `tls` in their order. A listener that is as it was `before`
/// goes on, and one that has changed keeps its socket, in which clients may be waiting. One that was `inherited` is not bound anew.
///
/// # Errors
/// [`ListenError`].
pub(super) fn bind(
    listeners: &[config::Listener],
    tls: &[Option<Arc<ServerTls>>],
    before: &[Listening],
    inherited: &Inherited,
) -> Result<Vec<Listening>, ListenError> {
    let mut bound: Vec<Listening> = Vec::with_capacity(listeners.len());
    for (config, tls) in listeners.iter().zip(tls) {
        let is_free = |listening: &&Listening| {
            listening.listener.config.address == config.address
                && !bound.iter().any(|taken| Arc::ptr_eq(&taken.socket, &listening.socket))
        };
        let passed = inherited.sockets_for(&config.address.to_string()).count();
        if matches!(config.address, ListenAddress::Systemd(_)) && passed > 1 {
            let problem = format!(
                "systemd has passed {passed} sockets of this name; give each a FileDescriptorName of its own"
            );
            return Err(ListenError(config.address.clone(), io::Error::other(problem)));
        }
        let is_fresh =
            |socket: &Arc<TcpListener>| !bound.iter().any(|taken| Arc::ptr_eq(&taken.socket, socket));
        let known = before.iter().find(is_free);
        bound.push(match known {
            Some(known) if known.listener.config.is_like(config) => known.clone(),
            known => {
                let socket = match known {
                    Some(known) => known.socket.clone(),
                    None => match inherited
                        .sockets_for(&config.address.to_string())
                        .find(|socket| is_fresh(socket))
                    {
                        Some(socket) => socket.clone(),
                        None => bind_to(&config.address)
                            .map(|socket| Arc::new(socket.into()))
                            .map_err(|error| ListenError(config.address.clone(), error))?,
                    },
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
        let address = &listener.config.address;
        let listened = SockRef::from(&**socket).listen(BACKLOG);
        listened.map_err(|error| ListenError(address.clone(), error))?;
        // The port that the system chose, where the config leaves it to it.
        let local = socket.local_addr().map_or_else(|_| address.to_string(), |local| local.to_string());
        tracing::info!(address = local, "{message}");
    }
    Ok(())
}

fn bind_to(address: &ListenAddress) -> io::Result<Socket> {
    let address = match address {
        ListenAddress::Ip(address) => *address,
        ListenAddress::Systemd(_) => {
            return Err(io::Error::new(io::ErrorKind::NotFound, "systemd has passed no socket of this name"));
        }
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}
