//! TLS towards clients and operators.

use std::{fs, net::SocketAddr, path::Path, sync::Arc};

use rustls::{ClientConfig, HandshakeKind, ProtocolVersion};
use tempfile::TempDir;

use crate::harness::{
    Authority, Client, EXPIRY, Gateway, Issued, Settings, Upstream, authgate, errors_of, eventually,
    write_config,
};

/// A gateway with certificates in its folder, and who issued them.
struct Secure {
    gateway: Gateway,
    upstream: Upstream,
    authority: Authority,
    client: Arc<ClientConfig>,
}

fn write(folder: &Path, name: &str, issued: &Issued) {
    fs::write(folder.join(format!("{name}.pem")), &issued.certificate).unwrap();
    fs::write(folder.join(format!("{name}.key")), &issued.key).unwrap();
}

impl Secure {
    /// One whose `tls` has these lines; `pairs` are certificates by their names as files.
    fn start(tls: &str, pairs: &[(&str, &[&str])], settings: Settings) -> Self {
        let authority = Authority::new();
        let folder = Arc::new(tempfile::tempdir().unwrap());
        for (name, hosts) in pairs {
            write(folder.path(), name, &authority.issue(hosts));
        }
        fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        Self::start_in(folder, tls, authority, settings)
    }

    fn start_in(folder: Arc<TempDir>, tls: &str, authority: Authority, settings: Settings) -> Self {
        let upstream = Upstream::start();
        let settings = Settings { listener: format!(", tls: {{{tls}}}"), ..settings };
        let gateway = Gateway::start_in(folder, upstream.address, settings);
        let client = authority.client(None);
        Self { gateway, upstream, authority, client }
    }

    /// One with a certificate for `localhost` and `*.example.com`.
    fn usual() -> Self {
        Self::start(USUAL, &[("a", &["localhost", "*.example.com"])], Settings::default())
    }

    fn connect(&self, name: &str) -> Client {
        Client::connect_tls(self.gateway.address, name, &self.client)
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address
    }
}

const USUAL: &str = "certificate: a.pem, key: a.key";

fn get(client: &mut Client, host: &str) -> u16 {
    client.send(format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n")).response().status
}

/// The certificate that a client is shown, in DER.
fn shown(client: &Client) -> Vec<u8> {
    client.tls().peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn requests_by_https_are_served_and_upstreams_are_told() {
    let secure = Secure::usual();
    let mut client = secure.connect("localhost");
    for _ in 0..3 {
        assert_eq!(get(&mut client, "localhost"), 200);
    }
    let own = client.send("GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n").response();
    assert_eq!(own.header("Strict-Transport-Security"), Some("max-age=31536000"));
    let absolute = "GET https://localhost/public/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(client.send(absolute).response().status, 200);
    let other = "GET http://localhost/public/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    assert_eq!(client.send(other).response().status, 400, "another scheme than the connection's");
    for seen in secure.upstream.seen() {
        assert_eq!(seen.header("X-Forwarded-Proto"), Some("https"));
    }
    let counted = r#"authgate_tls_handshakes_total{result="ok",version="1.3"}"#;
    assert_eq!(secure.gateway.metric(counted), Some(1.0));
}

#[test]
fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let pairs: &[(&str, &[&str])] =
        &[("a", &["localhost"]), ("b", &["b.example.com"]), ("c", &["*.example.com"])];
    let certificates = "certificates: [{certificate: a.pem, key: a.key}, {certificate: b.pem, key: b.key}, {certificate: c.pem, key: c.key}]";
    let secure = Secure::start(certificates, pairs, Settings::default());
    let shown = |name: &str| shown(&secure.connect(name));
    assert_ne!(shown("localhost"), shown("b.example.com"));
    assert_eq!(shown("B.example.com"), shown("b.example.com"));
    assert_ne!(shown("c.example.com"), shown("b.example.com"));
    assert_eq!(shown("c.example.com"), shown("d.example.com"));
    // Whoever asks for a name that is not known gets the first one, and does not take it.
    let error = Client::try_connect_tls(secure.address(), "unknown.test", &secure.client).err().unwrap();
    assert!(error.to_string().contains("certificate"), "{error}");
}

#[test]
fn a_request_for_a_host_that_the_certificate_is_not_for_is_misdirected() {
    let secure = Secure::usual();
    let mut client = secure.connect("a.example.com");
    for host in ["a.example.com", "b.example.com", "A.Example.com:8443", "localhost", "localhost."] {
        assert_eq!(get(&mut client, host), 200, "{host}");
    }
    for host in ["example.com", "a.b.example.com", "example.org", "127.0.0.1", "[::1]"] {
        client.send(format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        let response = client.response();
        assert_eq!((response.status, response.message().as_str()), (421, "Misdirected request"), "{host}");
    }
    assert_eq!(secure.upstream.seen().len(), 5);
    assert_eq!(get(&mut client, "a.example.com"), 200, "the connection goes on");
}

#[test]
fn certificates_are_taken_up_when_their_files_change_and_never_by_halves() {
    let secure = Secure::usual();
    let folder = secure.gateway.folder.path();
    let mut open = secure.connect("localhost");
    let before = shown(&open);
    // A certificate without its key is not taken up.
    let next = secure.authority.issue(&["localhost", "new.test"]);
    fs::write(folder.join("a.pem"), &next.certificate).unwrap();
    let failed = r#"authgate_certificate_reloads_total{result="failed"}"#;
    eventually("it is refused", || (secure.gateway.metric(failed) >= Some(1.0)).then_some(()));
    assert_eq!(shown(&secure.connect("localhost")), before);
    assert!(secure.gateway.log().contains("not the key of the certificate"));
    fs::write(folder.join("a.key"), &next.key).unwrap();
    let taken_up = |before: &[u8]| {
        let shown = shown(&secure.connect("localhost"));
        (shown != before).then_some(shown)
    };
    let second = eventually("the pair is taken up", || taken_up(&before));
    let mut client = secure.connect("new.test");
    assert_eq!(get(&mut client, "new.test"), 200);
    assert_eq!(
        get(&mut open, "a.example.com"),
        200,
        "a connection goes by the certificate that it was shown"
    );
    assert_eq!(get(&mut open, "new.test"), 421);
    // Kubernetes swaps a link.
    for (version, name) in [("1", "localhost"), ("2", "localhost")] {
        fs::create_dir(folder.join(version)).unwrap();
        write(&folder.join(version), "a", &secure.authority.issue(&[name]));
    }
    let link = |to: &str, from: &str| {
        let temporary = folder.join("temporary");
        std::os::unix::fs::symlink(to, &temporary).unwrap();
        fs::rename(&temporary, folder.join(from)).unwrap();
    };
    link("1", "data");
    link("data/a.pem", "a.pem");
    link("data/a.key", "a.key");
    let third = eventually("the linked pair is taken up", || taken_up(&second));
    link("2", "data");
    eventually("the swapped link is followed", || taken_up(&third));
}

#[test]
fn the_expiry_of_each_certificate_is_a_metric() {
    let secure = Secure::usual();
    let expires = secure.gateway.metric(r#"authgate_certificate_expiry_seconds{name="localhost"}"#);
    assert_eq!(expires, Some(EXPIRY as f64));
}

#[test]
fn older_versions_are_spoken_or_refused_as_configured() {
    let secure = Secure::usual();
    let old = secure.authority.client_of(None, &[&rustls::version::TLS12]);
    let mut client = Client::connect_tls(secure.address(), "localhost", &old);
    assert_eq!(get(&mut client, "localhost"), 200);
    assert_eq!(client.tls().protocol_version(), Some(ProtocolVersion::TLSv1_2));
    let strict = format!("{USUAL}, min_version: \"1.3\"");
    let secure = Secure::start(&strict, &[("a", &["localhost"])], Settings::default());
    let old = secure.authority.client_of(None, &[&rustls::version::TLS12]);
    assert!(Client::try_connect_tls(secure.address(), "localhost", &old).is_err());
    let failed = r#"authgate_tls_handshakes_total{result="failed",version="none"}"#;
    eventually("it is counted", || (secure.gateway.metric(failed) == Some(1.0)).then_some(()));
}

#[test]
fn a_client_comes_back_with_its_ticket() {
    let secure = Secure::usual();
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let config = secure.authority.client_of(None, &[version]);
        let kind = || {
            let mut client = Client::connect_tls(secure.address(), "localhost", &config);
            assert_eq!(get(&mut client, "localhost"), 200);
            client.tls().handshake_kind()
        };
        assert_eq!(kind(), Some(HandshakeKind::Full));
        assert_eq!(kind(), Some(HandshakeKind::Resumed));
    }
}

#[test]
fn no_ticket_is_good_for_early_data() {
    let secure = Secure::usual();
    let mut config = ClientConfig::clone(&secure.authority.client_of(None, &[&rustls::version::TLS13]));
    config.enable_early_data = true;
    let config = Arc::new(config);
    let mut client = Client::connect_tls(secure.address(), "localhost", &config);
    assert_eq!(get(&mut client, "localhost"), 200);
    // It would be sent twice by whoever has seen it (RFC 8446, section 8).
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let mut next = rustls::ClientConnection::new(config.clone(), name).unwrap();
    assert!(next.early_data().is_none());
    let mut client = Client::connect_tls(secure.address(), "localhost", &config);
    assert_eq!(get(&mut client, "localhost"), 200);
    assert_eq!(client.tls().handshake_kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn clients_show_certificates_where_they_must_and_upstreams_may_be_told() {
    let forward = format!("{USUAL}, client_certificates: {{ca: ca.pem, forward: true}}");
    let secure = Secure::start(&forward, &[("a", &["localhost"])], Settings::default());
    let refused = |config: &Arc<ClientConfig>| {
        // In TLS 1.3 a client learns that its certificate is missing after the handshake.
        Client::try_connect_tls(secure.address(), "localhost", config).is_ok_and(|mut client| {
            client.send("GET /public/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.try_response().is_some()))
                .unwrap_or(false)
        })
    };
    assert!(!refused(&secure.client), "without a certificate");
    let strange = Authority::new().issue_for_client("stranger");
    assert!(!refused(&secure.authority.client(Some(&strange))), "of a strange authority");
    let own = secure.authority.issue_for_client("J\u{f6}rg 100%");
    let config = secure.authority.client(Some(&own));
    let spoofed = "GET /public/x HTTP/1.1\r\nHost: localhost\r\nX-Client-Cert-Subject: CN=admin\r\n\r\n";
    for _ in 0..2 {
        // The second time by a ticket.
        let mut client = Client::connect_tls(secure.address(), "localhost", &config);
        assert_eq!(client.send(spoofed).response().status, 200);
    }
    let seen = secure.upstream.seen();
    assert_eq!(seen.len(), 2);
    for seen in seen {
        assert_eq!(seen.header("X-Client-Cert-Subject"), Some("CN=J%C3%B6rg 100%25,O=Tests"));
    }
    let field = r#""tls.client.subject":"CN=J%C3%B6rg 100%25,O=Tests""#;
    eventually("the access line has it, too", || secure.gateway.log().contains(field).then_some(()));
}

#[test]
fn other_authorities_hold_for_open_connections_and_beside_a_broken_pair() {
    let tls = format!("{USUAL}, client_certificates: {{ca: ca.pem}}");
    let secure = Secure::start(&tls, &[("a", &["localhost"])], Settings::default());
    let folder = secure.gateway.folder.path();
    let own = secure.authority.issue_for_client("old");
    let old = secure.authority.client(Some(&own));
    let mut open = Client::connect_tls(secure.address(), "localhost", &old);
    assert_eq!(get(&mut open, "localhost"), 200);
    // The key is broken at the moment at which the authorities change.
    let key = fs::read(folder.join("a.key")).unwrap();
    fs::write(folder.join("a.key"), "").unwrap();
    let other = Authority::new();
    fs::write(folder.join("ca.pem"), other.pem()).unwrap();
    let taken_up = r#"authgate_certificate_reloads_total{result="ok"}"#;
    eventually("they are taken up", || (secure.gateway.metric(taken_up) >= Some(1.0)).then_some(()));
    fs::write(folder.join("a.key"), key).unwrap();
    assert_eq!(get(&mut open, "localhost"), 421);
    // The client believes who issued the gateway's certificate, and shows one of the other authority.
    let strange = other.issue_for_client("new");
    let new = secure.authority.client(Some(&strange));
    let mut client = Client::connect_tls(secure.address(), "localhost", &new);
    assert_eq!(get(&mut client, "localhost"), 200);
}

#[test]
fn a_certificate_of_a_client_may_be_optional_and_never_signs_anybody_in() {
    let optional = format!("{USUAL}, client_certificates: {{ca: ca.pem, required: false}}");
    let secure = Secure::start(&optional, &[("a", &["localhost"])], Settings::default());
    let own = secure.authority.issue_for_client("alice");
    for config in [secure.authority.client(None), secure.authority.client(Some(&own))] {
        let mut client = Client::connect_tls(secure.address(), "localhost", &config);
        let spoofed = "GET /public/x HTTP/1.1\r\nHost: localhost\r\nX-Client-Cert-Subject: CN=admin\r\n\r\n";
        assert_eq!(client.send(spoofed).response().status, 200);
        client.send("GET /api/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
        assert_eq!(client.response().status, 401);
    }
    for seen in secure.upstream.seen() {
        assert_eq!(seen.header("X-Client-Cert-Subject"), None);
    }
}

#[test]
fn whoever_does_not_begin_or_finish_a_handshake_is_late() {
    let secure = Secure::start(
        USUAL,
        &[("a", &["localhost"])],
        Settings::default().extra("limits: {header_timeout: 300ms}\n"),
    );
    let mut silent = Client::connect(secure.address());
    let mut begun = Client::connect(secure.address());
    begun.send([22, 3, 1, 2, 0, 1]);
    assert!(silent.is_closed_silently() && begun.is_closed_silently());
    let late = r#"authgate_tls_handshakes_total{result="late",version="none"}"#;
    eventually("both are counted", || (secure.gateway.metric(late) == Some(2.0)).then_some(()));
    assert_eq!(get(&mut secure.connect("localhost"), "localhost"), 200);
}

#[test]
fn a_client_that_speaks_plain_http_is_told_so() {
    let secure = Secure::usual();
    let mut plain = Client::connect(secure.address());
    plain.send("GET /public/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let text = String::from_utf8_lossy(&plain.rest()).into_owned();
    assert!(text.contains("HTTP/1.1 400 Bad Request"), "{text}");
    assert_eq!(secure.upstream.seen().len(), 0);
}

#[test]
fn bodies_of_any_size_go_both_ways() {
    let settings = Settings::routes("  - {path: /public/**, auth: none, upstream: backend, body: 64MiB}\n");
    let authority = Authority::new();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    write(folder.path(), "a", &authority.issue(&["localhost"]));
    let upstream = Upstream::answering(|seen| {
        let mut response =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len()).into_bytes();
        response.extend_from_slice(&seen.body);
        response
    });
    let settings = Settings { listener: format!(", tls: {{{USUAL}}}"), ..settings };
    let gateway = Gateway::start_in(folder, upstream.address, settings);
    let mut client = Client::connect_tls(gateway.address, "localhost", &authority.client(None));
    for length in [0, 1, 16 << 10, (16 << 10) + 1, 100_000, 5 << 20] {
        let body: Vec<u8> = (0..length).map(|index: usize| (index % 251) as u8).collect();
        client
            .send(format!("POST /public/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"));
        client.send(&body);
        let response = client.response();
        assert!(response.status == 200 && response.body == body, "{length}");
    }
    // Several requests in one record, and one in several.
    let request = "GET /public/x HTTP/1.1\r\nHost: localhost\r\n\r\n";
    client.send(request.repeat(5));
    for _ in 0..5 {
        assert_eq!(client.response().status, 200);
    }
    for byte in request.bytes() {
        client.send([byte]);
    }
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_connection_rests_and_comes_back() {
    let secure = Secure::usual();
    let mut client = secure.connect("a.example.com");
    assert_eq!(get(&mut client, "localhost"), 200);
    let resting = || secure.gateway.metric("authgate_resting_connections");
    eventually("it rests", || (resting() == Some(1.0)).then_some(()));
    assert_eq!(get(&mut client, "localhost"), 200);
    assert_eq!(get(&mut client, "other.test"), 421, "what it was shown is still known");
    assert_eq!(secure.upstream.seen()[0].header("X-Forwarded-Proto"), Some("https"));
    eventually("it rests again", || (resting() == Some(1.0)).then_some(()));
    client.end();
    assert!(client.is_closed_silently());
}

#[test]
fn a_client_that_goes_ends_its_request() {
    let authority = Authority::new();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    write(folder.path(), "a", &authority.issue(&["localhost"]));
    let upstream = Upstream::with(|_, socket| {
        use std::io::Read;
        // Until the gateway gives the request up.
        let _ = socket.read(&mut [0]);
        false
    });
    let settings = Settings { listener: format!(", tls: {{{USUAL}}}"), ..Settings::default() };
    let gateway = Gateway::start_in(folder, upstream.address, settings);
    let mut client = Client::connect_tls(gateway.address, "localhost", &authority.client(None));
    client.send("GET /public/x HTTP/1.1\r\nHost: localhost\r\n\r\n");
    eventually("it is under way", || (upstream.seen().len() == 1).then_some(()));
    client.end();
    eventually("it has ended", || (gateway.metric("authgate_open_connections") == Some(0.0)).then_some(()));
    let status = "\"http.status\":499";
    eventually("the access line says so", || gateway.log().contains(status).then_some(()));
}

#[test]
fn the_admin_listener_may_leave_loopback_with_tls() {
    let authority = Authority::new();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    write(folder.path(), "a", &authority.issue(&["localhost"]));
    let text = |admin: &str| {
        format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]\nadmin: {{address: \"0.0.0.0:0\"{admin}}}\nauth: {{issuer: a, audience: b}}\nroutes: [{{path: /x, respond: {{status: 200, json: {{}}}}}}]\n"
        )
    };
    let check = |text: &str| {
        let config = write_config(folder.path(), text);
        authgate().args(["check", "--config"]).arg(config).output().unwrap()
    };
    assert_eq!(check(&text("")).status.code(), Some(1));
    let secure = format!(", tls: {{{USUAL}}}");
    let output = check(&text(&secure));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let upstream = Upstream::start();
    let settings = Settings { admin: secure, ..Settings::default() };
    let gateway = Gateway::spawn_in(folder, upstream.address, settings);
    eventually("it is ready by https", || {
        let mut client = Client::connect_tls(gateway.admin, "localhost", &authority.client(None));
        client.send("GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n");
        (client.response().status == 200).then_some(())
    });
    let mut plain = Client::connect(gateway.admin);
    assert!(
        !String::from_utf8_lossy(&plain.send("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n").rest())
            .contains("200")
    );
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_place() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a", &authority.issue(&["localhost"]));
    write(folder.path(), "b", &authority.issue(&["localhost"]));
    fs::write(folder.path().join("empty.pem"), "nothing\n").unwrap();
    for (tls, expected) in [
        ("certificate: none.pem, key: a.key", "none.pem: No such file"),
        ("certificate: a.pem, key: none.key", "none.key: No such file"),
        ("certificate: empty.pem, key: a.key", "empty.pem: no certificate in PEM"),
        ("certificate: a.pem, key: empty.pem", "empty.pem: no private key in PEM"),
        ("certificate: a.pem, key: b.key", "not the key of the certificate"),
        ("certificate: a.pem", "needs `key`"),
        ("key: a.key", "needs `certificate`"),
        ("{}", "expected `certificate` and `key`"),
        (
            "certificate: a.pem, key: a.key, certificates: [{certificate: a.pem, key: a.key}]",
            "in place of both",
        ),
        ("certificate: a.pem, key: a.key, min_version: \"1.1\"", "expected \"1.2\" or \"1.3\""),
        ("certificate: a.pem, key: a.key, client_certificates: {ca: none.pem}", "none.pem: No such file"),
        ("certificate: a.pem, key: a.key, client_certificates: {ca: empty.pem}", "empty.pem: no certificate"),
    ] {
        let tls = if tls == "{}" { tls.to_owned() } else { format!("{{{tls}}}") };
        let text = format!(
            "listeners:\n  - address: \"127.0.0.1:0\"\n    tls: {tls}\nauth: {{issuer: a, audience: b}}\nroutes: [{{path: /x, respond: {{status: 200, json: {{}}}}}}]\n"
        );
        let errors = errors_of(folder.path(), &text);
        assert!(
            errors.contains("gateway.yaml:3: listeners[0].tls") && errors.contains(expected),
            "{tls}: {errors}"
        );
    }
}

#[test]
fn an_idle_connection_by_tls_is_small() {
    const COUNT: usize = 500;
    let settings = Settings { workers: 1, ..Settings::default() };
    let secure = Secure::start(USUAL, &[("a", &["localhost"])], settings);
    let connect = |count: usize| -> Vec<Client> {
        let mut clients: Vec<Client> = (0..count).map(|_| secure.connect("localhost")).collect();
        clients.iter_mut().for_each(|client| assert_eq!(get(client, "localhost"), 200));
        clients
    };
    let resting = || secure.gateway.metric("authgate_resting_connections").unwrap();
    let _first = connect(50);
    eventually("they rest", || (resting() == 50.0).then_some(()));
    let before = secure.gateway.memory();
    let _clients = connect(COUNT);
    eventually("all rest", || (resting() == 50.0 + COUNT as f64).then_some(()));
    let each = || secure.gateway.memory().saturating_sub(before) / COUNT as u64;
    eventually("what served them is given back", || (each() < 12 << 10).then_some(()));
}
