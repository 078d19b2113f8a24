//! Who is at the other end, as far as can be believed.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use super::target::Scheme;
use crate::{error::Kind, types::fields::Fields};

pub(super) static FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) static FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) static FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Proxies that are believed, under one snapshot of the config.
pub(super) struct TrustedProxies {
    /// The snapshot's number, which no other one of the process has.
    pub(super) number: u64,
    /// Where they are.
    pub(super) networks: Vec<IpNet>,
}

/// The peer of a connection.
pub(super) struct Peer {
    address: IpAddr,
    value: HeaderValue,
    /// Whether it is trusted in the lowest bit, and the number of the snapshot that says so in the others.
    trust: AtomicU64,
}

const NOT_KNOWN: u64 = u64::MAX;

impl Peer {
    pub(super) fn new(peer: SocketAddr) -> Self {
        let address = peer.ip().to_canonical();
        let value = HeaderValue::from_str(&address.to_string()).unwrap_or(UNKNOWN);
        Self { address, value, trust: AtomicU64::new(NOT_KNOWN) }
    }

    /// Returns the same peer for another request of its connection.
    pub(super) fn again(&self) -> Self {
        let trust = AtomicU64::new(self.trust.load(Relaxed));
        Self { address: self.address, value: self.value.clone(), trust }
    }

    /// Its address.
    pub(super) fn address(&self) -> IpAddr {
        self.address
    }

    /// Its address, as header values and logs have it.
    pub(super) fn value(&self) -> &HeaderValue {
        &self.value
    }

    /// Returns whether its forwarding headers are trusted.
    pub(super) fn is_trusted(&self, proxies: &TrustedProxies) -> bool {
        let known = self.trust.load(Relaxed);
        if known >> 1 == proxies.number {
            return known & 1 == 1;
        }
        let trusted = is_trusted(self.address, &proxies.networks);
        self.trust.store(proxies.number << 1 | u64::from(trusted), Relaxed);
        trusted
    }
}

/// The origin of a request, as upstreams are told.
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
    ///
    /// # Errors
    /// When such a proxy names several hosts: it is not known which one the client asked for.
    pub(super) fn of(
        peer: &Peer,
        fields: &Fields,
        scheme: Scheme,
        proxies: &TrustedProxies,
    ) -> Result<Self, Kind> {
        let direct = Self::direct(peer, scheme);
        if peer.is_trusted(proxies) { direct.corrected(fields, &proxies.networks) } else { Ok(direct) }
    }

    /// What the socket says.
    fn direct(peer: &Peer, scheme: Scheme) -> Self {
        Self { client: peer.address, chain: peer.value.clone(), proto: scheme.as_value(), host: None }
    }

    /// The origin according to a trusted proxy.
    fn corrected(self, fields: &Fields, trusted_proxies: &[IpNet]) -> Result<Self, Kind> {
        let mut hosts = fields.get_all(&FORWARDED_HOST);
        let host = hosts.next().cloned();
        if hosts.next().is_some() || host.as_ref().is_some_and(|host| host.as_bytes().contains(&b',')) {
            return Err(Kind::BadRequest);
        }
        let believed = believed_chain(fields, trusted_proxies);
        let proto = fields.get_only(&FORWARDED_PROTO).filter(|proto| *proto == "http" || *proto == "https");
        let proto = proto.cloned().unwrap_or(self.proto);
        let Some(client) = believed.last() else {
            return Ok(Self { proto, host, ..self });
        };
        let mut chain = Vec::with_capacity((believed.len() + 1) * LONGEST_IPV4);
        for address in believed.iter().rev() {
            push_address(&mut chain, *address);
            chain.extend_from_slice(b", ");
        }
        push_address(&mut chain, self.client);
        let chain = HeaderValue::from_maybe_shared(Bytes::from(chain)).unwrap_or(UNKNOWN);
        Ok(Self { client: *client, chain, proto, host })
    }
}

/// The addresses of `X-Forwarded-For` from the right, over trusted proxies to the first that is not
/// one; up to the first entry that is not an address.
fn believed_chain(fields: &Fields, trusted_proxies: &[IpNet]) -> Vec<IpAddr> {
    let mut believed = Vec::new();
    let lines: Vec<_> = fields.get_all(&FORWARDED_FOR).collect();
    for line in lines.into_iter().rev() {
        let Ok(line) = line.to_str() else { return believed };
        for entry in line.rsplit(',') {
            let Some(address) = entry_address(entry.trim()) else { return believed };
            let address = address.to_canonical();
            believed.push(address);
            if !is_trusted(address, trusted_proxies) {
                return believed;
            }
        }
    }
    believed
}

/// The address of an entry, which some load balancers write with its port: `192.0.2.1:1234`, `[2001:db8::1]:80`.
fn entry_address(entry: &str) -> Option<IpAddr> {
    if let Ok(address) = entry.parse() {
        return Some(address);
    }
    if let Ok(with_port) = entry.parse::<SocketAddr>() {
        return Some(with_port.ip());
    }
    let bracketed = entry.strip_prefix('[')?.strip_suffix(']')?;
    bracketed.parse::<Ipv6Addr>().ok().map(IpAddr::V6)
}

fn is_trusted(address: IpAddr, trusted_proxies: &[IpNet]) -> bool {
    trusted_proxies.iter().any(|network| network.contains(&address))
}

/// Stands for an address, which is plain ASCII that a header value always takes.
const UNKNOWN: HeaderValue = HeaderValue::from_static("unknown");

/// The length of most addresses in a chain at most, with what stands between two.
const LONGEST_IPV4: usize = "255.255.255.255, ".len();

/// Writes an address. Another proxy in front tells of one with each request.
fn push_address(text: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            text.extend_from_slice(itoa::Buffer::new().format(first).as_bytes());
            for octet in rest {
                text.push(b'.');
                text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        IpAddr::V6(address) => text.extend_from_slice(address.to_string().as_bytes()),
    }
}

#[cfg(test)]
#[path = "../../fuzz/forwarded.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded(peer: &str, lines: &[&'static str]) -> (String, String) {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let mut headers = Fields::default();
        for line in lines {
            headers.append(FORWARDED_FOR.clone(), HeaderValue::from_static(line));
        }
        let peer = Peer::new(SocketAddr::new(peer.parse().unwrap(), 1));
        let direct = Forwarded::direct(&peer, Scheme::Http);
        let forwarded = if is_trusted(peer.address, &trusted) {
            direct.corrected(&headers, &trusted).unwrap()
        } else {
            direct
        };
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
    fn entries_with_ports_are_addresses_too() {
        for (entry, client) in [
            ("2.2.2.2:1234", "2.2.2.2"),
            ("[2001:db8::1]:80", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("2.2.2.2:x", "10.0.0.1"),
            ("[2.2.2.2]", "10.0.0.1"),
        ] {
            assert_eq!(forwarded("10.0.0.1", &[entry]).0, client, "{entry}");
        }
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
