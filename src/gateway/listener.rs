//! A listener, as its connections need it.

use std::{
    net::TcpListener,
    sync::{Arc, atomic::AtomicUsize},
};

use crate::{config, tls::ServerTls};

/// A listener.
pub struct Listener {
    /// The settings.
    pub config: config::Listener,
    /// TLS, if it speaks it.
    pub tls: Option<Arc<ServerTls>>,
    /// How many connections all workers have from it.
    pub(super) open: Arc<AtomicUsize>,
}

impl Listener {
    /// Creates a listener without connections.
    pub fn new(config: config::Listener, tls: Option<Arc<ServerTls>>) -> Self {
        Self { config, tls, open: Arc::default() }
    }
}

/// A socket that workers accept on.
#[derive(Clone)]
pub struct Listening {
    /// The socket, which listens.
    pub socket: Arc<TcpListener>,
    /// Its listener.
    pub listener: Arc<Listener>,
}
