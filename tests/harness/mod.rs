//! What the tests hold the gateway with.

mod client;
mod database;
pub mod fleet;
mod gateway;
mod peers;
mod proxy;
mod token;
mod upstream;

pub use client::{Answer, Client};
pub use database::{Cluster, Pooler, SqlSession, shared_database, shared_sql};
pub use gateway::{Gateway, Settings, authgate, write_config};
pub use peers::{MailServer, peer, python, token_of};
pub use proxy::Proxy;
pub use token::{SECRET, claims_of, forge, forge_raw, header_of, sign};
pub use upstream::{Seen, Upstream, ok};

use std::time::{Duration, Instant};

/// A password that every rule accepts.
pub const PASSWORD: &str = "a password for the tests";

/// Waits until `condition` gives something, or fails with `what`.
pub fn eventually<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
