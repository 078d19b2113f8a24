//! TLS to upstreams.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    thread,
};

use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use crate::harness::{
    Authority, Gateway, Issued, Settings, Upstream, ok, tls_server::server, upstreams_are_errors,
};

/// A server by TLS that is gone after its first response: the connection is closed with the next request on it, and no other is taken.
fn dying(issued: &Issued) -> SocketAddr {
    let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let chain = vec![CertificateDer::from_pem_slice(issued.certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config = Arc::new(builder.with_single_cert(chain, key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        drop(listener);
        let mut stream = StreamOwned::new(ServerConnection::new(config).unwrap(), socket);
        let mut chunk = [0; 16 << 10];
        let _ = stream.read(&mut chunk);
        let _ = stream.write_all(&ok("first")).and_then(|()| stream.flush());
        let _ = stream.read(&mut chunk);
    });
    address
}

#[test]
fn a_server_that_dies_with_a_resting_connection_costs_no_request() {
    let authority = Authority::new();
    let issued = authority.issue(&["localhost"]);
    for retries in ["", ", retries: {attempts: 2, on: [connect, reset]}"] {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let (dies, (lives, _)) = (dying(&issued), server(&issued, None));
        let url = |address: SocketAddr| format!("{{url: \"https://localhost:{}\"}}", address.port());
        let servers = format!("{}, {}", url(dies), url(lives));
        let upstream = format!(", balance: round_robin, tls: {{ca: ca.pem}}{retries}");
        let settings = Settings { servers, upstream, workers: 1, ..Settings::default() };
        let gateway = Gateway::start_in(folder, Upstream::start().address, settings);
        let mut client = gateway.client();
        let texts: Vec<_> = (0..10)
            .map(|_| client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response())
            .map(|response| (response.status, response.text()))
            .collect();
        assert!(texts.contains(&(200, "first".to_owned())), "{texts:?}");
        assert!(texts.iter().all(|(status, _)| *status == 200), "{texts:?}");
    }
}

fn write(folder: &Path, name: &str, issued: &Issued) {
    fs::write(folder.join(format!("{name}.pem")), &issued.certificate).unwrap();
    fs::write(folder.join(format!("{name}.key")), &issued.key).unwrap();
}

fn gateway(authority: &Authority, own: Option<&Issued>, url: &str, upstream: &str) -> Gateway {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    if let Some(own) = own {
        write(folder.path(), "own", own);
    }
    let servers = format!("{{url: \"{url}\"}}");
    let settings = Settings { servers, upstream: upstream.to_owned(), ..Settings::default() };
    Gateway::start_in(folder, Upstream::start().address, settings)
}

#[test]
fn requests_go_by_tls_to_a_server_whose_name_is_verified() {
    let authority = Authority::new();
    let (address, seen) = server(&authority.issue(&["localhost", "orders.internal"]), None);
    let url = format!("https://localhost:{}", address.port());
    let by_url = gateway(&authority, None, &url, ", tls: {ca: ca.pem}");
    let mut client = by_url.client();
    for length in [0, 5, 100_000] {
        client.send(format!("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n"));
        client.send("x".repeat(length));
        assert_eq!(client.response().text(), length.to_string());
    }
    assert_eq!(client.send("GET /public/big HTTP/1.1\r\nHost: a\r\n\r\n").response().body.len(), 3 << 20);
    for _ in 0..20 {
        assert_eq!(client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().text(), "0");
    }
    assert_eq!(seen.lock().unwrap()[0], (Some("localhost".to_owned()), 0));
    let by_address = format!("https://{address}");
    let named = gateway(&authority, None, &by_address, ", tls: {ca: ca.pem, name: orders.internal}");
    assert_eq!(named.get("/public/x", None).text(), "0");
    assert_eq!(seen.lock().unwrap().last().unwrap().0, Some("orders.internal".to_owned()));
    // Another name, another authority, or none that the system knows.
    for (url, tls) in [
        (by_address.as_str(), ", tls: {ca: ca.pem}"),
        (url.as_str(), ", tls: {ca: ca.pem, name: other.internal}"),
        (url.as_str(), ""),
    ] {
        let refusing = gateway(&authority, None, url, tls);
        assert_eq!(refusing.get("/public/x", None).status, 502, "{url}{tls}");
    }
    let strange = gateway(&Authority::new(), None, &url, ", tls: {ca: ca.pem}");
    assert_eq!(strange.get("/public/x", None).status, 502);
}

#[test]
fn the_gateway_shows_a_certificate_where_it_has_one() {
    let authority = Authority::new();
    let (address, seen) = server(&authority.issue(&["localhost"]), Some(&authority));
    let url = format!("https://localhost:{}", address.port());
    let own = authority.issue_for_client("the gateway");
    let tls = ", tls: {ca: ca.pem, certificate: own.pem, key: own.key}";
    let showing = gateway(&authority, Some(&own), &url, tls);
    assert_eq!(showing.get("/public/x", None).text(), "0");
    assert_eq!(seen.lock().unwrap()[0].1, 1);
    let bare = gateway(&authority, None, &url, ", tls: {ca: ca.pem}");
    assert_eq!(bare.get("/public/x", None).status, 502);
}

#[test]
fn two_names_at_one_address_are_two_servers() {
    let authority = Authority::new();
    let (address, seen) = server(&authority.issue(&["localhost", "127.0.0.1"]), None);
    let folder = Arc::new(tempfile::tempdir().unwrap());
    fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let port = address.port();
    let servers = format!("{{url: \"https://127.0.0.1:{port}\"}}, {{url: \"https://localhost:{port}\"}}");
    let upstream = ", balance: round_robin, health: {path: /healthz, interval: 50ms, unhealthy_after: 1}, tls: {ca: ca.pem}".to_owned();
    let gateway = Gateway::start_in(
        folder,
        Upstream::start().address,
        Settings { servers, upstream, ..Settings::default() },
    );
    for _ in 0..4 {
        assert_eq!(gateway.get("/public/x", None).status, 200);
    }
    // An address is not asked for by name (RFC 6066, section 3).
    let names: Vec<_> = seen.lock().unwrap().iter().map(|(name, _)| name.clone()).collect();
    assert!(names.contains(&None) && names.contains(&Some("localhost".to_owned())), "{names:?}");
    let up = |server: &str| {
        gateway.metric(&format!("authgate_upstream_server_up{{server=\"{server}\",upstream=\"backend\"}}"))
    };
    assert_eq!(up(&address.to_string()), Some(1.0));
    assert_eq!(up(&format!("{address} (https://localhost:{port})")), Some(1.0));
}

#[test]
fn a_request_waits_for_the_only_connection_also_before_a_protocol_is_agreed_on() {
    let authority = Authority::new();
    let (address, _) = server(&authority.issue(&["localhost"]), None);
    let url = format!("https://localhost:{}", address.port());
    let only = ", tls: {ca: ca.pem}, max_connections: 1, max_wait: 10s";
    let gateway = gateway(&authority, None, &url, only);
    // A WebSocket offers HTTP/1.1 alone, so nothing is known of others; the body is awaited.
    let mut upload = gateway.client();
    upload.send("GET /public/x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nX-Late: 300\r\n\r\n");
    let active = || gateway.metric(r#"authgate_upstream_connections{state="active",upstream="backend"}"#);
    crate::harness::eventually("the connection is taken", || (active() == Some(1.0)).then_some(()));
    assert_eq!(gateway.get("/public/x", None).status, 200);
    assert_eq!(upload.response().status, 200);
}

#[test]
fn probes_go_by_tls_too() {
    let authority = Authority::new();
    let (address, seen) = server(&authority.issue(&["localhost"]), None);
    let url = format!("https://localhost:{}", address.port());
    let health = ", tls: {ca: ca.pem}, health: {path: /healthz, interval: 50ms, unhealthy_after: 1}";
    let probing = gateway(&authority, None, &url, health);
    crate::harness::eventually("it is probed", || (seen.lock().unwrap().len() > 3).then_some(()));
    assert_eq!(probing.get("/public/x", None).status, 200);
}

#[test]
fn what_makes_no_sense_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("empty.pem"), "nothing\n").unwrap();
    let cases = [
        ("servers: [{url: \"http://a\"}], tls: {name: b}", "tls", "goes with servers"),
        ("servers: [{url: \"https://a\"}], tls: {name: \"b c\"}", "tls.name", "the name of a host"),
        ("servers: [{url: \"https://a\"}], tls: {certificate: x.pem}", "tls.certificate", "needs `key`"),
        ("servers: [{url: \"https://a\"}], tls: {key: x.pem}", "tls.key", "needs `certificate`"),
        ("servers: [{url: \"https://a\"}], tls: {ca: none.pem}", "tls", "none.pem: No such file"),
        ("servers: [{url: \"https://a\"}], tls: {ca: empty.pem}", "tls", "no certificate in PEM"),
    ];
    upstreams_are_errors(folder.path(), &cases);
}
