//! A listener, as its connections need it.

use std::{
    net::TcpListener,
    sync::{Arc, OnceLock, atomic::AtomicUsize},
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
    /// The one that has its socket now, if another has.
    next: OnceLock<Arc<Self>>,
}

impl Listener {
    /// Creates a listener without connections.
    pub fn new(config: config::Listener, tls: Option<Arc<ServerTls>>) -> Self {
        Self { config, tls, open: Arc::default(), next: OnceLock::new() }
    }

    /// Another one has its socket from now on.
    pub fn is_followed_by(&self, next: &Arc<Self>) {
        // It is followed once.
        let _ = self.next.set(next.clone());
    }

    /// Returns the one that has its socket now.
    pub(super) fn current(&self) -> &Self {
        let mut current = self;
        while let Some(next) = current.next.get() {
            current = next;
        }
        current
    }

    /// Returns whether the one that has its socket now speaks TLS in another way, or not as this one does: with other certificates, or
    /// with clients who have to show some.
    pub(super) fn is_outdated(&self) -> bool {
        self.next.get().is_some() && !self.config.tls_is_like(&self.current().config)
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
