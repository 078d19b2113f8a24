//! The PROXY protocol: whom it is believed, and what it says.

use std::{sync::Arc, time::Instant};

use crate::harness::{Authority, Client, Gateway, Settings, Upstream, eventually};

fn start(from: &str, lines: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let listener = format!(", proxy_protocol: {{from: [{from}]}}");
    (Gateway::start(&upstream, Settings { listener, ..Settings::default() }.extra(lines)), upstream)
}

const GET: &str = "GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n";

/// Version 2: a command, family and protocol, and what follows.
fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend((rest.len() as u16).to_be_bytes());
    bytes.extend(rest);
    bytes
}

/// The addresses 192.0.2.7:4000 and 127.0.0.1:80, and an extension.
fn tcp4() -> Vec<u8> {
    let mut rest = vec![192, 0, 2, 7, 127, 0, 0, 1];
    rest.extend([0x0f, 0xa0, 0, 80]);
    // PP2_TYPE_SSL, which claims that TLS was spoken.
    rest.extend([0x20, 0, 5, 7, 0, 0, 0, 0]);
    version_2(1, 0x11, &rest)
}

fn refused(gateway: &Gateway) -> f64 {
    let name = r#"authgate_connections_refused_total{reason="proxy_protocol"}"#;
    gateway.metric(name).unwrap_or_default()
}

#[test]
fn a_configured_peer_says_who_the_client_is() {
    let (gateway, upstream) = start("127.0.0.0/8", "");
    let mut tcp6 = vec![0x20, 1, 0xd, 0xb8];
    tcp6.extend([0; 11]);
    tcp6.extend([9]);
    tcp6.extend([0; 16]);
    tcp6.extend([1, 0, 0, 80]);
    for (preamble, client) in [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 80\r\n".to_vec(), "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::9 ::1 4000 80\r\n".to_vec(), "2001:db8::9"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n".to_vec(), "127.0.0.1"),
        (tcp4(), "192.0.2.7"),
        (version_2(1, 0x21, &tcp6), "2001:db8::9"),
        (version_2(0, 0x00, &[]), "127.0.0.1"),
        (version_2(0, 0x11, &tcp4()[16..]), "127.0.0.1"),
        (version_2(1, 0x00, &[]), "127.0.0.1"),
    ] {
        let mut client_of = Client::connect(gateway.address);
        client_of.send(&preamble).send(GET);
        assert_eq!(client_of.response().status, 200, "{preamble:?}");
        let seen = upstream.last();
        assert_eq!(seen.header("X-Forwarded-For"), Some(client), "{preamble:?}");
        assert_eq!(seen.header("X-Forwarded-Proto"), Some("http"), "claims of TLS are not believed");
        assert_eq!(client_of.send(GET).response().status, 200);
        assert_eq!(upstream.last().header("X-Forwarded-For"), Some(client));
    }
    // In pieces, and with the request in the same one.
    let mut pieces = Client::connect(gateway.address);
    for byte in tcp4() {
        pieces.send([byte]);
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
    assert_eq!(pieces.send(GET).response().status, 200);
    let whole = [tcp4(), GET.into()].concat();
    assert_eq!(Client::connect(gateway.address).send(whole).response().status, 200);
    let line = r#""client.address":"192.0.2.7","peer.address":"192.0.2.7""#;
    eventually("the access line has it", || gateway.log().contains(line).then_some(()));
    assert_eq!(refused(&gateway), 0.0);
}

#[test]
fn a_configured_peer_that_says_nothing_of_it_is_closed() {
    let (gateway, upstream) = start("127.0.0.0/8", "");
    let mut too_long = version_2(1, 0x11, &[0; 5_000]);
    too_long.extend(GET.as_bytes());
    for bytes in [
        GET.as_bytes().to_vec(),
        b"PROXY TCP4 192.0.2.7\r\n".to_vec(),
        b"PROXY TCP4 192.0.2.999 127.0.0.1 1 2\r\n".to_vec(),
        [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
        version_2(5, 0x11, &tcp4()[16..]),
        too_long,
    ] {
        let mut client = Client::connect(gateway.address);
        client.send(&bytes);
        assert!(client.is_closed_silently(), "{bytes:?}");
    }
    let begun = Instant::now();
    let mut silent = Client::connect(gateway.address);
    silent.send("PROXY TCP4 ");
    assert!(silent.is_closed_silently());
    assert!((1..5).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
    assert_eq!(upstream.seen().len(), 0);
    eventually("all are counted", || (refused(&gateway) == 7.0).then_some(()));
}

#[test]
fn from_any_other_peer_a_preamble_is_closed_and_requests_are_served() {
    let (gateway, upstream) = start("10.0.0.0/8", "");
    for preamble in [b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 80\r\n".to_vec(), tcp4()] {
        let mut client = Client::connect(gateway.address);
        client.send([&preamble[..], GET.as_bytes()].concat());
        assert!(client.is_closed_silently());
    }
    assert_eq!(upstream.seen().len(), 0);
    eventually("both are counted", || (refused(&gateway) == 2.0).then_some(()));
    // Such as begin with the same letter.
    for method in ["GET", "POST", "PUT", "PROPFIND"] {
        let request = format!("{method} /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        assert_eq!(Client::connect(gateway.address).send(request).response().status, 200, "{method}");
    }
    let mut trickled = Client::connect(gateway.address);
    for byte in "PROPFIND /public/x HTTP/1.1\r\nHost: a\r\n\r\n".bytes() {
        trickled.send([byte]);
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    assert_eq!(trickled.response().status, 200);
}

#[test]
fn what_it_says_counts_for_trust_and_for_limits() {
    let lines = "trusted_proxies: [192.0.2.0/24]\nlimits: {connections_per_address: 2}\n";
    let (gateway, upstream) = start("127.0.0.0/8", lines);
    let connect = |client: &str, forwarded: &str| {
        let mut connection = Client::connect(gateway.address);
        connection.send(format!("PROXY TCP4 {client} 127.0.0.1 4000 80\r\n"));
        connection.send(format!("GET /public/x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {forwarded}\r\n\r\n"));
        connection
    };
    assert_eq!(connect("192.0.2.7", "198.51.100.1").response().status, 200);
    assert_eq!(upstream.last().header("X-Forwarded-For"), Some("198.51.100.1, 192.0.2.7"));
    assert_eq!(connect("203.0.113.1", "198.51.100.1").response().status, 200);
    assert_eq!(upstream.last().header("X-Forwarded-For"), Some("203.0.113.1"));
    let mut open: Vec<Client> = (0..2).map(|_| connect("203.0.113.9", "")).collect();
    open.iter_mut().for_each(|client| assert_eq!(client.response().status, 200));
    assert!(connect("203.0.113.9", "").is_closed_silently(), "a third one of that address");
    assert_eq!(connect("203.0.113.10", "").response().status, 200);
}

#[test]
fn connections_are_counted_while_it_is_waited_for() {
    let (gateway, _upstream) = start("10.0.0.0/8", "limits: {connections_per_address: 2}\n");
    let _silent: Vec<Client> = (0..5).map(|_| Client::connect(gateway.address)).collect();
    let refused = r#"authgate_connections_refused_total{reason="address"}"#;
    eventually("three are too many", || (gateway.metric(refused) == Some(3.0)).then_some(()));
}

#[test]
fn it_comes_before_tls() {
    let authority = Authority::new();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let issued = authority.issue(&["localhost"]);
    std::fs::write(folder.path().join("a.pem"), &issued.certificate).unwrap();
    std::fs::write(folder.path().join("a.key"), &issued.key).unwrap();
    let upstream = Upstream::start();
    let listener = ", tls: {certificate: a.pem, key: a.key}, proxy_protocol: {from: [127.0.0.1]}".to_owned();
    let settings = Settings { listener, ..Settings::default() };
    let gateway = Gateway::start_in(folder, upstream.address, settings);
    let preamble = b"PROXY TCP4 192.0.2.7 127.0.0.1 4000 80\r\n";
    let mut client =
        Client::connect_tls_after(gateway.address, preamble, "localhost", &authority.client(None));
    client.send("GET /public/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("X-Forwarded-For"), Some("192.0.2.7"));
    assert_eq!(seen.header("X-Forwarded-Proto"), Some("https"));
}
