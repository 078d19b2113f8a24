//! Who is at the other end, as far as can be believed.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

pub(super) static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

const HTTP: HeaderValue = HeaderValue::from_static("http");

/// The peer of a connection.
pub(super) struct Peer {
    address: IpAddr,
    value: HeaderValue,
    trusted: bool,
}

impl Peer {
    pub(super) fn new(peer: SocketAddr, trusted_proxies: &[IpNet]) -> Self {
        let address = peer.ip().to_canonical();
        Self { address, value: to_value(&address.to_string()), trusted: is_trusted(address, trusted_proxies) }
    }

    /// Its address.
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// Whether what it says of others is believed.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted
    }
}

/// What upstreams are told of where a request came from.
pub(super) struct Forwarded {
    /// The client's address.
    pub(super) client: IpAddr,
    /// `X-Forwarded-For`.
    pub(super) chain: HeaderValue,
    /// `X-Forwarded-Proto`.
    pub(super) proto: HeaderValue,
    /// `X-Forwarded-Host`, if a trusted proxy named one.
    pub(super) host: Option<HeaderValue>,
}

impl Forwarded {
    /// Believes nothing but the socket, unless the peer is a trusted proxy.
    pub(super) fn of(peer: &Peer, headers: &HeaderMap, trusted_proxies: &[IpNet]) -> Self {
        let direct = Self { client: peer.address, chain: peer.value.clone(), proto: HTTP, host: None };
        if !peer.trusted {
            return direct;
        }
        let believed = believed_chain(headers, trusted_proxies);
        let only = |name: &HeaderName| {
            let mut values = headers.get_all(name).iter();
            values.next().filter(|_| values.next().is_none())
        };
        let proto = only(&FORWARDED_PROTO).filter(|proto| *proto == "http" || *proto == "https");
        let Some(client) = believed.last() else {
            return Self {
                proto: proto.cloned().unwrap_or(HTTP),
                host: only(&FORWARDED_HOST).cloned(),
                ..direct
            };
        };
        let mut chain = String::new();
        for address in believed.iter().rev() {
            chain.push_str(&address.to_string());
            chain.push_str(", ");
        }
        chain.push_str(&peer.address.to_string());
        Self {
            client: *client,
            chain: to_value(&chain),
            proto: proto.cloned().unwrap_or(HTTP),
            host: only(&FORWARDED_HOST).cloned(),
        }
    }
}

/// The addresses of `X-Forwarded-For` from the right, over trusted proxies to the first that is not
/// one; up to the first entry that is not an address.
fn believed_chain(headers: &HeaderMap, trusted_proxies: &[IpNet]) -> Vec<IpAddr> {
    let mut believed = Vec::new();
    let lines: Vec<_> = headers.get_all(&FORWARDED_FOR).iter().collect();
    for line in lines.into_iter().rev() {
        let Ok(line) = line.to_str() else { return believed };
        for entry in line.rsplit(',') {
            let Ok(address) = entry.trim().parse::<IpAddr>() else { return believed };
            let address = address.to_canonical();
            believed.push(address);
            if !is_trusted(address, trusted_proxies) {
                return believed;
            }
        }
    }
    believed
}

fn is_trusted(address: IpAddr, trusted_proxies: &[IpNet]) -> bool {
    trusted_proxies.iter().any(|network| network.contains(&address))
}

/// Addresses are plain ASCII, which a header value always takes.
fn to_value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(peer: &str, lines: &[&'static str]) -> (String, String) {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(&FORWARDED_FOR, HeaderValue::from_static(line));
        }
        let peer = Peer::new(SocketAddr::new(peer.parse().unwrap(), 1), &trusted);
        let forwarded = Forwarded::of(&peer, &headers, &trusted);
        (forwarded.client.to_string(), forwarded.chain.to_str().unwrap().to_owned())
    }

    fn pair(client: &str, chain: &str) -> (String, String) {
        (client.to_owned(), chain.to_owned())
    }

    #[test]
    fn only_a_trusted_peer_is_believed() {
        assert_eq!(forwarded("192.0.2.1", &["198.51.100.1"]), pair("192.0.2.1", "192.0.2.1"));
        assert_eq!(forwarded("10.0.0.1", &["198.51.100.1"]), pair("198.51.100.1", "198.51.100.1, 10.0.0.1"));
        assert_eq!(forwarded("::ffff:10.0.0.1", &["198.51.100.1"]).0, "198.51.100.1");
    }

    #[test]
    fn the_walk_stops_at_the_first_stranger_and_at_what_is_no_address() {
        assert_eq!(
            forwarded("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.2"]),
            pair("198.51.100.1", "198.51.100.1, 10.0.0.2, 10.0.0.1")
        );
        assert_eq!(forwarded("10.0.0.1", &["198.51.100.1, junk, 10.0.0.2"]).0, "10.0.0.2");
        assert_eq!(forwarded("10.0.0.1", &["1.1.1.1", "198.51.100.1"]).0, "198.51.100.1");
        assert_eq!(forwarded("10.0.0.1", &["junk"]), pair("10.0.0.1", "10.0.0.1"));
    }
}
