//! Forwarding headers: a client is one of those that a trusted proxy names, or the proxy itself.

use bolero::check;

use super::*;
use crate::fuzz_words::{spell, steered};

const WORDS: &[&[u8]] = &[
    b"192.0.2.1",
    b"10.0.0.1",
    b"10.9.9.9",
    b"::1",
    b"2001:db8::1",
    b"[2001:db8::1]:80",
    b"::ffff:10.0.0.1",
    b"127.0.0.1",
    b", ",
    b",",
    b" ",
    b"unknown",
    b"_hidden",
    b":",
    b"[",
    b"]",
    b"0",
    b"256",
    b"10.0.0.1:99999",
    b"\t",
    b"\xff",
    b"fe80::1%eth0",
    b"1.2.3",
    b"01.2.3.4",
];

#[test]
fn a_client_is_named_by_trusted_proxies_only() {
    let trusted: Vec<IpNet> = vec!["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    let peers: [SocketAddr; 3] =
        ["10.0.0.1:1", "192.0.2.9:1", "[::ffff:10.0.0.2]:1"].map(|peer| peer.parse().unwrap());
    check!(name = "forwarded").for_each(|input: &[u8]| {
        let Some(([who, hosts], rest)) = steered(input) else { return };
        let peer = Peer::new(peers[usize::from(who) % peers.len()]);
        let mut fields = Fields::default();
        for line in rest.split(|byte| *byte == 0xfe).take(4) {
            if let Ok(value) = HeaderValue::from_bytes(&spell(line, WORDS)) {
                fields.append(FORWARDED_FOR.clone(), value);
            }
        }
        for _ in 0..hosts % 3 {
            fields.append(FORWARDED_HOST.clone(), HeaderValue::from_static("a.example"));
        }
        let proxies = TrustedProxies { number: 1, networks: trusted.clone() };
        let found = Forwarded::of(&peer, &fields, Scheme::Http, &proxies);
        let is_trusted_peer = peer.is_trusted(&proxies);
        let Ok(found) = found else { return assert!(is_trusted_peer && hosts % 3 == 2) };
        if !is_trusted_peer {
            assert_eq!((found.client, &found.host), (peer.address(), &None));
            return;
        }
        let chain = believed_chain(&fields, &trusted);
        assert_eq!(found.client, chain.last().copied().unwrap_or(peer.address()));
        // Everything to the right of the client is trusted.
        let right = chain.split_last().map_or(&[][..], |(_, right)| right);
        assert!(right.iter().all(|address| is_trusted(*address, &trusted)), "{chain:?}");
        let told = found.chain.to_str().unwrap();
        assert_eq!(told.split(", ").count(), chain.len() + 1);
        assert!(told.split(", ").all(|address| address.parse::<IpAddr>().is_ok()), "{told}");
    });
}
