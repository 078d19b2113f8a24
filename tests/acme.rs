//! Certificates by ACME: obtained, shared, renewed, and what becomes of gateways and authorities that fail meanwhile.

use std::{
    fs,
    net::SocketAddr,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustls::ClientConfig;

use crate::harness::{
    Client, Cluster, Gateway, Settings, Upstream, errors_of, eventually, pebble::Pebble, port_to_keep,
};

const DAYS: u64 = 90 * 86_400;

const ROUTES: &str = "  - {path: /public/**, auth: none, upstream: backend}\n  - {path: /named, host: www.shop.example, auth: none, upstream: backend}\n";

/// The ports of a gateway.
#[derive(Clone, Copy)]
struct Ports {
    http: u16,
    https: u16,
}

fn ports() -> Ports {
    Ports { http: port_to_keep(), https: port_to_keep() }
}

/// A gateway by https and http, whose certificates are issued as `acme` says.
fn settings(ports: Ports, acme: &str) -> Settings {
    let Ports { http, https } = ports;
    Settings {
        listen: format!("127.0.0.1:{https}"),
        listener: format!(", tls: {{acme: true}}}}\n  - {{address: \"127.0.0.1:{http}\", redirect: https"),
        ..Settings::routes(ROUTES)
    }
    .extra(acme)
}

fn https(ports: Ports) -> SocketAddr {
    ([127, 0, 0, 1], ports.https).into()
}

/// The certificate that a client is shown which believes the authority, once it is.
#[track_caller]
fn shown(address: SocketAddr, name: &str, client: &Arc<ClientConfig>) -> Vec<u8> {
    eventually("a certificate of the authority is shown", || {
        let mut connected = Client::try_connect_tls(address, name, client).ok()?;
        let certificate = connected.tls().peer_certificates()?[0].to_vec();
        let request = format!("GET /public/x HTTP/1.1\r\nHost: {name}\r\n\r\n");
        assert_eq!(connected.send(request).response().status, 200);
        Some(certificate)
    })
}

fn obtained(gateway: &Gateway) -> f64 {
    gateway.metric("authgate_acme_orders_total{result=\"obtained\"}").unwrap_or(0.0)
}

#[test]
#[ignore = "slow"]
fn what_routes_and_config_name_is_obtained_and_there_after_a_restart() {
    for challenges in ["[tls-alpn-01]", "[http-01]"] {
        let ports = ports();
        let pebble = Pebble::start(ports.http, ports.https, DAYS, &[]);
        let upstream = Upstream::start();
        let acme = pebble.config(&format!(", names: [Other.Example], challenges: {challenges}"));
        let mut gateway = Gateway::start(&upstream, settings(ports, &acme));
        let client = pebble.client();
        let first = shown(https(ports), "www.shop.example", &client);
        assert_ne!(shown(https(ports), "other.example", &client), first, "each has its own");
        eventually("both are counted", || (obtained(&gateway) == 2.0).then_some(()));
        // A host that the certificate does not cover is another connection's.
        let mut connected = Client::connect_tls(https(ports), "other.example", &client);
        connected.send("GET /named HTTP/1.1\r\nHost: www.shop.example\r\n\r\n");
        assert_eq!(connected.response().status, 421);
        let expiry = gateway.metric("authgate_certificate_expiry_seconds{name=\"www.shop.example\"}");
        assert!(expiry.is_some_and(|expiry| expiry > 0.0), "{expiry:?}");

        // The keys lie in the store, wrapped; another master key opens them once they are wrapped with it.
        let stored = ["authgate.db", "authgate.db-wal"]
            .map(|file| fs::read(gateway.folder.path().join(file)).unwrap_or_default());
        let text = String::from_utf8_lossy(&stored.concat()).into_owned();
        assert!(text.contains("BEGIN CERTIFICATE") && !text.contains("PRIVATE KEY"));
        gateway.stop();
        let gateway = gateway.restart();
        assert_eq!(shown(https(ports), "www.shop.example", &client), first);
        assert_eq!(obtained(&gateway), 0.0, "nothing is ordered again");
        assert!(!gateway.log().contains("PRIVATE"));
    }
}

#[test]
#[ignore = "slow"]
fn two_gateways_obtain_one_certificate_and_either_proves_by_tls_what_the_other_orders() {
    share_certificates("tls-alpn-01");
}

#[test]
#[ignore = "slow"]
fn two_gateways_obtain_one_certificate_and_either_proves_by_http_what_the_other_orders() {
    share_certificates("http-01");
}

#[track_caller]
fn share_certificates(challenge: &str) {
    let cluster = Cluster::start();
    let url = cluster.database();
    let (one, other) = (ports(), ports());
    // The authority comes to the first alone.
    let pebble = Pebble::start(one.http, one.https, DAYS, &[]);
    let of = |ports, names: &str| {
        let acme = pebble.config(&format!(", challenges: [{challenge}], names: [{names}]"));
        Settings { store: format!("{{url: \"{url}\"}}"), ..settings(ports, &acme) }
            .auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n")
    };
    let upstream = Upstream::start();
    let first = Gateway::start(&upstream, of(one, "a.example"));
    let second = Gateway::start(&upstream, of(other, "a.example, b.example"));
    let client = pebble.client();
    let a = shown(https(one), "a.example", &client);
    assert_eq!(shown(https(other), "a.example", &client), a);
    // Ordered by the second, for which the first gives the proof.
    shown(https(other), "b.example", &client);
    // a.example, b.example and the route's host, each once.
    eventually("all are obtained", || (obtained(&first) + obtained(&second) == 3.0).then_some(()));
    // An attempt may fail of refused nonces, one request in five: it goes on with the order that it has begun.
    let ordered = pebble.log().matches("Added order").count();
    assert_eq!(ordered, 3, "{}\n{}\n{}", first.log(), second.log(), pebble.log());
    assert!(obtained(&second) >= 1.0);
}

#[test]
#[ignore = "slow"]
fn an_order_whose_gateway_is_killed_is_finished_by_another() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let (one, other) = (ports(), ports());
    let pebble = Pebble::start(other.http, other.https, DAYS, &[]);
    let of = |ports| {
        let acme = pebble.config(", challenges: [tls-alpn-01]");
        Settings { store: format!("{{url: \"{url}\"}}"), ..settings(ports, &acme) }
            .auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n")
    };
    let upstream = Upstream::start();
    let mut first = Gateway::start(&upstream, of(one));
    // It waits until all gateways know of the proof.
    eventually("the order is begun", || pebble.log().contains("POST /authZ/").then_some(()));
    first.kill();
    let second = Gateway::start(&upstream, of(other));
    let client = pebble.client();
    let begun = Instant::now();
    let certificate = loop {
        if let Ok(connected) = Client::try_connect_tls(https(other), "www.shop.example", &client) {
            break connected.tls().peer_certificates().unwrap()[0].to_vec();
        }
        assert!(begun.elapsed() < Duration::from_secs(120), "{}\n{}", second.log(), pebble.log());
        thread::sleep(Duration::from_millis(200));
    };
    assert!(!certificate.is_empty());
    assert_eq!(obtained(&second), 1.0);
    let orders = pebble.log().matches("POST /order-plz").count();
    assert_eq!(pebble.log().matches("Added order").count(), 1, "{orders} requests: it is the same order");
}

#[test]
#[ignore = "slow"]
fn an_authority_that_is_away_costs_nothing_and_is_asked_again() {
    let ports = ports();
    let mut pebble = Pebble::prepare(ports.http, ports.https, DAYS, &[]);
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings(ports, &pebble.config("")));
    eventually("it is told", || gateway.log().contains("a certificate could not be obtained").then_some(()));
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    let mut plain = Client::connect(([127, 0, 0, 1], ports.http).into());
    plain.send("GET /public/x HTTP/1.1\r\nHost: www.shop.example\r\n\r\n");
    assert_eq!(plain.response().status, 308);
    pebble.run();
    shown(https(ports), "www.shop.example", &pebble.client());
}

#[test]
#[ignore = "slow"]
fn a_certificate_is_renewed_before_it_ends() {
    let ports = ports();
    let pebble = Pebble::start(
        ports.http,
        ports.https,
        21,
        &[("PEBBLE_WFE_NONCEREJECT", "5"), ("PEBBLE_AUTHZREUSE", "100")],
    );
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings(ports, &pebble.config("")));
    let client = pebble.client();
    let first = shown(https(ports), "www.shop.example", &client);
    let begun = Instant::now();
    while shown(https(ports), "www.shop.example", &client) == first {
        assert!(begun.elapsed() < Duration::from_secs(120), "{}\n{}", gateway.log(), pebble.log());
        thread::sleep(Duration::from_millis(200));
    }
}

#[test]
#[ignore = "slow"]
fn a_certificate_is_served_while_its_renewal_fails() {
    let ports = ports();
    let mut pebble = Pebble::start(ports.http, ports.https, 60, &[]);
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings(ports, &pebble.config("")));
    let client = pebble.client();
    let first = shown(https(ports), "www.shop.example", &client);
    pebble.stop();
    let begun = Instant::now();
    while !gateway.log().contains("a certificate could not be obtained") {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", gateway.log());
        assert_eq!(shown(https(ports), "www.shop.example", &client), first);
        thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(shown(https(ports), "www.shop.example", &client), first);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    assert_eq!(gateway.metric("authgate_acme_orders_total{result=\"failed\"}"), Some(1.0));
    pebble.run();
    assert_ne!(shown(https(ports), "www.shop.example", &pebble.client()), first);
}

#[test]
#[ignore = "slow"]
fn another_authority_and_one_that_has_forgotten_the_account_are_no_obstacle() {
    let ports = ports();
    let mut first = Pebble::start(ports.http, ports.https, DAYS, &[]);
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings(ports, &first.config("")));
    let by_first = shown(https(ports), "www.shop.example", &first.client());
    let second = Pebble::start(ports.http, ports.https, DAYS, &[]);
    let take_up = |pebble: &Pebble| {
        gateway.write(&settings(ports, &pebble.config("")));
        gateway.signal(libc::SIGHUP);
    };
    take_up(&second);
    assert_ne!(shown(https(ports), "www.shop.example", &second.client()), by_first);
    // The first one knows nothing of what it was, as after a loss of its own.
    first.restart();
    take_up(&first);
    shown(https(ports), "www.shop.example", &first.client());
    assert!(gateway.log().contains("does not know the account"), "{}", gateway.log());
}

#[test]
fn only_proofs_that_are_pending_are_given() {
    let ports = ports();
    let pebble = Pebble::prepare(ports.http, ports.https, DAYS, &[]);
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings(ports, &pebble.config("")));
    let mut asks = ClientConfig::clone(&crate::harness::Authority::new().client(None));
    asks.alpn_protocols = vec![b"acme-tls/1".to_vec()];
    for name in ["www.shop.example", "other.example"] {
        assert!(Client::try_connect_tls(https(ports), name, &Arc::new(asks.clone())).is_err());
    }
    // Elsewhere the path is one as any other.
    let mut plain = Client::connect(([127, 0, 0, 1], ports.http).into());
    plain.send("GET /.well-known/acme-challenge/abc HTTP/1.1\r\nHost: a.example\r\n\r\n");
    assert_eq!(plain.response().status, 308);
    drop(gateway);
}

#[test]
fn what_makes_no_sense_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let text = |tls: &str, acme: &str| {
        format!(
            "listeners: [{{address: \"127.0.0.1:0\", tls: {{{tls}}}}}]\nauth: {{issuer: a, audience: b}}\nacme: {{{acme}}}\n"
        )
    };
    for (acme, expected) in [
        ("", "acme.names: expected a name"),
        ("names: [\"*.example.com\"]", "gateway.yaml:3: acme.names[0]"),
        ("names: [192.0.2.1]", "acme.names[0]"),
        ("names: [a.example], directory: \"http://acme.example/dir\"", "acme.directory"),
        ("names: [a.example], email: nobody", "acme.email"),
        ("names: [a.example], challenges: [dns-01]", "acme.challenges[0]"),
        ("names: [a.example], challenges: []", "acme.challenges"),
        ("names: [a.example], ca: gone.pem", "gone.pem"),
    ] {
        let errors = errors_of(folder.path(), &text("acme: true", acme));
        assert!(errors.contains(expected), "{acme}: {errors}");
    }
    let errors = errors_of(folder.path(), &text("acme: false", "names: [a.example]"));
    assert!(errors.contains("or `acme: true`"), "{errors}");
}
