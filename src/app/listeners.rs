//! Listening sockets: bound at the start, listening once everything is loaded, shared by the workers.

use std::{io, net::SocketAddr, sync::Arc};

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use crate::gateway::{Listener, Listening};

/// The queue of connections that the kernel has made and no worker has accepted yet.
const BACKLOG: i32 = 4_096;

/// An address cannot be listened on.
#[derive(Debug, Error)]
#[error("cannot listen on {0}: {1}")]
pub struct ListenError(pub(super) SocketAddr, #[source] pub(super) io::Error);

/// Sockets that are bound and, once all is loaded, listen.
pub(super) struct Listeners {
    sockets: Vec<(Arc<Listener>, Socket)>,
    message: &'static str,
}

impl Listeners {
    pub(super) fn bind(
        listeners: impl IntoIterator<Item = Listener>,
        message: &'static str,
    ) -> Result<Self, ListenError> {
        let bind = |listener: Listener| {
            let address = listener.config.address;
            let socket = bind(address).map_err(|error| ListenError(address, error))?;
            Ok::<_, ListenError>((Arc::new(listener), socket))
        };
        Ok(Self { sockets: listeners.into_iter().map(bind).collect::<Result<_, _>>()?, message })
    }

    pub(super) fn listen(&self) -> Result<(), ListenError> {
        for (listener, socket) in &self.sockets {
            let address = listener.config.address;
            socket.listen(BACKLOG).map_err(|error| ListenError(address, error))?;
            // The port that the system chose, where the config leaves it to it.
            let local = socket.local_addr().ok().and_then(|local| local.as_socket()).unwrap_or(address);
            tracing::info!(address = %local, "{}", self.message);
        }
        Ok(())
    }

    /// The sockets of those listeners, by their numbers, that a worker accepts on.
    pub(super) fn share(&self, accepts: impl Fn(usize) -> bool) -> io::Result<Vec<Listening>> {
        let share = |(listener, socket): &(Arc<Listener>, Socket)| {
            Ok(Listening { socket: socket.try_clone()?.into(), listener: listener.clone() })
        };
        let accepted = self.sockets.iter().enumerate().filter(|(number, _)| accepts(*number));
        accepted.map(|(_, socket)| share(socket)).collect()
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}
