//! What the tests hold the gateway with.

pub mod authenticator;
pub mod browser;
mod client;
mod database;
mod dice;
mod faketime;
pub mod fleet;
mod gateway;
mod hosts;
mod http2;
pub mod issuer;
pub mod pebble;
mod peers;
mod preload;
pub mod protocol;
pub mod provider;
mod proxy;
pub mod streaming;
mod tls;
pub mod tls_server;
mod token;
mod upstream;

pub use client::{Client, Response};
pub use database::{Cluster, Pooler, SqlSession, shared_database, shared_sql};
pub use dice::Dice;
pub use faketime::Faketime;
pub use gateway::{Gateway, Settings, authgate, errors_of, upstreams_are_errors, write_config};
pub use hosts::Hosts;
pub use peers::{
    MailServer, PythonProcess, browser_program, node_file, peer, peer_folder, python, python_file, token_of,
};
pub use protocol::Protocol;
pub use proxy::Proxy;
pub use tls::{Authority, EXPIRY, Issued};
pub use token::{SECRET, claims_of, forge, forge_raw, header_of, sign};
pub use upstream::{Seen, Upstream, ok};

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU16, Ordering::Relaxed},
    time::{Duration, Instant},
};

/// A password that every rule accepts.
pub const PASSWORD: &str = "a password for the tests";

/// A port for what comes back to it: below those that the kernel gives to whoever asks for any, which somebody
/// might hold meanwhile.
pub fn port_to_keep() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    // Tests that run beside these begin elsewhere.
    let begin = (std::process::id() % u32::from(COUNT)) as u16;
    let ports = std::iter::repeat_with(|| FIRST + (begin + NEXT.fetch_add(1, Relaxed) % COUNT) % COUNT);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(usize::from(COUNT)).find(free).expect("a free port")
}

/// How long anything may take that is awaited, on a machine that does much else.
const LONGEST_WAIT: Duration = Duration::from_secs(90);

/// Waits until `condition` gives something, or fails with `what`.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LONGEST_WAIT;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
