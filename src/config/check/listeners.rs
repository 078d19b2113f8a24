//! Where clients and operators connect: `listeners`, `admin`.

use std::net::SocketAddr;

use super::Check;
use crate::config::{Listener, raw};

impl Check<'_> {
    pub(super) fn listeners(&mut self, raw: &[raw::Listener]) -> Vec<Listener> {
        if raw.is_empty() {
            self.error("listeners", "expected at least one `- address: IP:PORT`");
        }
        let mut listeners: Vec<Listener> = Vec::new();
        for (index, listener) in raw.iter().enumerate() {
            let key = format!("listeners[{index}].address");
            let address = self.address(&key, &listener.address);
            if address.port() != 0 && listeners.iter().any(|other| other.address == address) {
                self.error(&key, "another listener has this address already");
            }
            let max_connections = listener.max_connections.map(|most| {
                let key = format!("listeners[{index}].max_connections");
                self.number(&key, Some(most), 1, (1, 10_000_000))
            });
            let redirect = listener.redirect.as_deref().and_then(|scheme| {
                let port = match scheme.strip_prefix("https") {
                    Some("") => Some(443),
                    Some(port) => port
                        .strip_prefix(':')
                        .filter(|port| port.bytes().all(|byte| byte.is_ascii_digit()))
                        .and_then(|port| port.parse().ok())
                        .filter(|port| *port > 0),
                    None => None,
                };
                if port.is_none() {
                    self.error(&format!("listeners[{index}].redirect"), "expected https, or https:PORT");
                }
                port
            });
            listeners.push(Listener { address, max_connections, redirect });
        }
        if !listeners.is_empty() && listeners.iter().all(|listener| listener.redirect.is_some()) {
            self.warnings
                .push("listeners: each of them has `redirect`, so no route is ever served".to_owned());
        }
        listeners
    }

    pub(super) fn admin(&mut self, raw: &raw::Admin, listeners: &[SocketAddr]) -> SocketAddr {
        let admin = match &raw.address {
            Some(text) => self.address("admin.address", text),
            None => SocketAddr::from(([127, 0, 0, 1], 9901)),
        };
        if !admin.ip().is_loopback() {
            if raw.insecure.is_some_and(|insecure| insecure.0) {
                self.warnings
                    .push("admin.insecure: administrators' tokens cross the network in the clear".to_owned());
            } else {
                self.error(
                    "admin.address",
                    "expected an address on loopback, such as 127.0.0.1:9901; for another, set `insecure: true`",
                );
            }
        }
        if admin.port() != 0 && listeners.contains(&admin) {
            self.error("admin.address", "a public listener has this address");
        }
        for (index, host) in raw.hosts.iter().enumerate() {
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
            if host.is_empty() || !host.bytes().all(legal) {
                let found =
                    format!("found `{host}`, expected a name without a port, such as authgate.default.svc");
                self.error(&format!("admin.hosts[{index}]"), found);
            }
        }
        admin
    }
}
