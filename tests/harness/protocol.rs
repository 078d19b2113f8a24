//! The protocols that a test can be run by.

use std::{cell::Cell, sync::LazyLock};

use super::{Authority, Issued};

/// What a client speaks with the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1 on TCP.
    #[default]
    Http1,
    /// HTTP/1.1 on TLS.
    Tls,
    /// HTTP/2 on TLS.
    Http2,
    /// HTTP/2 by prior knowledge on TCP.
    H2c,
}

thread_local! {
    static CURRENT: Cell<Protocol> = const { Cell::new(Protocol::Http1) };
}

impl Protocol {
    /// The protocol of the test that runs on this thread.
    pub fn current() -> Self {
        CURRENT.get()
    }

    /// Runs a test by this protocol: gateways that it starts with the usual settings speak it, and so do their clients.
    pub fn run(self, test: fn()) {
        CURRENT.set(self);
        test();
    }

    pub fn is_tls(self) -> bool {
        matches!(self, Self::Tls | Self::Http2)
    }

    /// As upstreams are told.
    pub fn scheme(self) -> &'static str {
        if self.is_tls() { "https" } else { "http" }
    }

    /// The settings of a listener for it.
    pub fn listener(self) -> &'static str {
        match self {
            Self::Http1 => "",
            Self::Tls | Self::Http2 => ", tls: {certificate: usual.pem, key: usual.key}",
            Self::H2c => ", http2: true",
        }
    }
}

/// The certificate of gateways with the usual settings, for the hosts that tests ask for.
pub static USUAL: LazyLock<(Authority, Issued)> = LazyLock::new(|| {
    let authority = Authority::new();
    let hosts = ["localhost", "127.0.0.1", "a", "b", "a.example", "example.com", "*.example.com"];
    let issued = authority.issue(&hosts);
    (authority, issued)
});

/// Runs tests of this file by the other protocols, too: each is a test of its own, named by its protocol.
macro_rules! by_each_protocol {
    ($($(#[$attribute:meta])* $test:ident),* $(,)?) => {
        mod by_tls {
            $($(#[$attribute])* #[test] fn $test() { crate::harness::Protocol::Tls.run(super::$test); })*
        }
        mod by_http2 {
            $($(#[$attribute])* #[test] fn $test() { crate::harness::Protocol::Http2.run(super::$test); })*
        }
        mod by_h2c {
            $($(#[$attribute])* #[test] fn $test() { crate::harness::Protocol::H2c.run(super::$test); })*
        }
    };
}

/// The same for tests of what only HTTP/1.1 can say.
macro_rules! by_tls {
    ($($(#[$attribute:meta])* $test:ident),* $(,)?) => {
        mod by_tls {
            $($(#[$attribute])* #[test] fn $test() { crate::harness::Protocol::Tls.run(super::$test); })*
        }
    };
}

pub(crate) use by_each_protocol;
pub(crate) use by_tls;
