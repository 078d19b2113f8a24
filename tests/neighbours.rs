//! Programs that stand before and behind a gateway, or ask it: curl, h2load, nghttp, openssl, HAProxy, nginx.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use tempfile::TempDir;

use crate::harness::{
    Authority, Client, Gateway, Protocol, Settings, Upstream, eventually, port_to_keep, protocol::USUAL,
};

/// A program, which may lie where only administrators look.
fn program(name: &str) -> PathBuf {
    let beside = Path::new("/usr/sbin").join(name);
    if beside.exists() { beside } else { name.into() }
}

/// What a program prints, which must succeed.
#[track_caller]
fn output(name: &str, args: &[&str], input: &str) -> String {
    let mut child = Command::new(program(name))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{name}: {error}; `./run setup` installs it"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{name} {args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

/// A program that runs until it is dropped.
struct Running(Child, Arc<TempDir>);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A gateway that speaks `protocol`, and the file of the authority of its certificate.
fn gateway(protocol: Protocol) -> (Gateway, Upstream, String) {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings { protocol, ..Settings::default() });
    let ca = gateway.folder.path().join("ca.pem");
    fs::write(&ca, USUAL.0.pem()).unwrap();
    (gateway, upstream, ca.display().to_string())
}

#[test]
fn curl_is_served_by_every_protocol() {
    for (protocol, option, version) in [
        (Protocol::Http1, "--http1.1", "1.1"),
        (Protocol::Tls, "--http1.1", "1.1"),
        (Protocol::Http2, "--http2", "2"),
        (Protocol::H2c, "--http2-prior-knowledge", "2"),
    ] {
        let (gateway, upstream, ca) = gateway(protocol);
        let token = gateway.token("alice");
        let url = format!("{}://localhost:{}/api/x", protocol.scheme(), gateway.address.port());
        let bearer = format!("Authorization: Bearer {token}");
        let write = "%{http_version} %{http_code}";
        let common = ["-sS", option, "--cacert", &ca, "-o", "/dev/null", "-w", write];
        assert_eq!(output("curl", &[&common[..], &[&url]].concat(), ""), format!("{version} 401"));
        let args = [&common[..], &["-H", &bearer, "--data-binary", "@-", &url]].concat();
        let body = "x".repeat(300_000);
        assert_eq!(output("curl", &args, &body), format!("{version} 200"), "{protocol:?}");
        let seen = upstream.last();
        assert_eq!((seen.body.len(), seen.header("X-User-Name")), (300_000, Some("alice")));
        // Without `--insecure` curl takes no certificate that is not for the host.
        assert_eq!(
            output("curl", &[&common[..], &["-X", "DELETE", &url]].concat(), ""),
            format!("{version} 401")
        );
    }
}

#[test]
fn h2load_finds_no_request_that_fails() {
    for protocol in [Protocol::Http2, Protocol::H2c] {
        let (gateway, _upstream, _) = gateway(protocol);
        let url = format!("{}://localhost:{}/public/x", protocol.scheme(), gateway.address.port());
        let said = output("h2load", &["-n", "3000", "-c", "2", "-m", "30", &url], "");
        assert!(said.contains("3000 succeeded, 0 failed, 0 errored, 0 timeout"), "{protocol:?}: {said}");
    }
}

#[test]
fn nghttp_is_served_on_one_connection() {
    let (gateway, upstream, _) = gateway(Protocol::Http2);
    let url = |path: &str| format!("https://localhost:{}{path}", gateway.address.port());
    let body = gateway.folder.path().join("body");
    fs::write(&body, "x".repeat(100_000)).unwrap();
    let said = output(
        "nghttp",
        &["-n", "-v", "-d", &body.display().to_string(), &url("/public/1"), &url("/public/2")],
        "",
    );
    assert_eq!(said.matches(":status: 200").count(), 2, "{said}");
    assert!(upstream.seen().iter().all(|seen| seen.body.len() == 100_000));
}

#[test]
fn openssl_agrees_on_versions_protocols_and_tickets() {
    let (gateway, _upstream, ca) = gateway(Protocol::Http2);
    let address = gateway.address.to_string();
    let connect = |more: &[&str]| {
        let args = ["s_client", "-connect", &address, "-servername", "localhost", "-CAfile", &ca];
        output("openssl", &[&args[..], &["-verify_return_error"], more].concat(), "")
    };
    let said = connect(&["-alpn", "h2,http/1.1"]);
    assert!(said.contains("TLSv1.3") && said.contains("ALPN protocol: h2"), "{said}");
    let said = connect(&["-alpn", "http/1.1", "-tls1_2"]);
    assert!(said.contains("TLSv1.2") && said.contains("ALPN protocol: http/1.1"), "{said}");
    let session = gateway.folder.path().join("session.pem").display().to_string();
    connect(&["-tls1_2", "-sess_out", &session]);
    assert!(connect(&["-tls1_2", "-sess_in", &session]).contains("Reused, TLSv1.2"));
    // What processors have instructions for comes first, unless a client has none.
    let both = "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256:TLS_CHACHA20_POLY1305_SHA256";
    assert!(connect(&["-ciphersuites", both]).contains("TLS_AES_128_GCM_SHA256"));
    let first = "TLS_CHACHA20_POLY1305_SHA256:TLS_AES_128_GCM_SHA256";
    assert!(connect(&["-ciphersuites", first]).contains("TLS_CHACHA20_POLY1305_SHA256"));
    // What is older is not spoken.
    let mut old = Command::new("openssl");
    old.args(["s_client", "-connect", &address, "-tls1_1"]).stdin(Stdio::null());
    assert!(!old.output().unwrap().status.success());
}

#[test]
fn a_client_that_names_an_address_is_served_and_leaves_nothing_in_the_log() {
    let (gateway, _upstream, ca) = gateway(Protocol::Tls);
    let address = gateway.address.to_string();
    // RFC 6066, section 3: no address may stand there, and many clients send one.
    let args = ["s_client", "-connect", &address, "-servername", "127.0.0.1", "-CAfile", &ca];
    assert!(output("openssl", &args, "").contains("TLSv1.3"));
    eventually("the handshake is over", || {
        (gateway.metric(r#"authgate_tls_handshakes_total{result="ok",version="1.3"}"#) == Some(1.0))
            .then_some(())
    });
    assert!(!gateway.log().contains("rustls"), "{}", gateway.log());
}

#[test]
fn haproxy_says_who_its_clients_are() {
    let upstream = Upstream::start();
    let listener = ", proxy_protocol: {from: [127.0.0.1]}".to_owned();
    let gateway = Gateway::start(&upstream, Settings { listener, ..Settings::default() });
    for option in ["send-proxy", "send-proxy-v2"] {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let port = port_to_keep();
        let config = format!(
            "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\nlisten x\n  bind 127.0.0.2:{port}\n  server gateway {} {option}\n",
            gateway.address
        );
        let file = folder.path().join("haproxy.cfg");
        fs::write(&file, config).unwrap();
        let child = Command::new(program("haproxy")).arg("-db").arg("-f").arg(&file).spawn().unwrap();
        let _haproxy = Running(child, folder);
        let address = std::net::SocketAddr::from(([127, 0, 0, 2], port));
        eventually("HAProxy listens", || std::net::TcpStream::connect(address).ok());
        let mut client = Client::connect(address);
        let request = "GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n";
        for _ in 0..3 {
            assert_eq!(client.send(request).response().status, 200, "{option}");
        }
        // The client connects from the address that it connects to.
        assert_eq!(upstream.last().header("X-Forwarded-For"), Some("127.0.0.1"), "{option}");
    }
}

/// nginx with a certificate for `localhost` and these servers. What it serves by name lies in its folder.
fn nginx(authority: &Authority, servers: impl FnOnce(&str) -> String) -> Running {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let issued = authority.issue(&["localhost"]);
    fs::write(folder.path().join("a.pem"), &issued.certificate).unwrap();
    fs::write(folder.path().join("a.key"), &issued.key).unwrap();
    let root = folder.path().display().to_string();
    let servers = servers(&root);
    let config = format!(
        "daemon off; pid {root}/pid; error_log {root}/error.log;\nevents {{}}\nhttp {{ access_log off;\nclient_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;\n{servers} }}\n"
    );
    let file = folder.path().join("nginx.conf");
    fs::write(&file, config).unwrap();
    // Its worker may read what belongs to whoever runs the tests.
    let mut nginx = Command::new(program("nginx"));
    nginx.arg("-c").arg(&file).arg("-p").arg(folder.path()).arg("-e").arg(folder.path().join("error.log"));
    nginx.arg("-g").arg("master_process off;");
    Running(nginx.spawn().unwrap(), folder)
}

#[test]
fn an_upstream_that_says_goodbye_over_and_over_costs_no_request() {
    let port = port_to_keep();
    let _nginx = nginx(&Authority::new(), |_| {
        format!(
            "server {{ listen 127.0.0.1:{port} http2; keepalive_requests 50; location / {{ return 200 done; }} }}"
        )
    });
    eventually("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
    let servers = format!("{{url: \"h2c://127.0.0.1:{port}\"}}");
    // Each goodbye leaves a few streams that were not processed.
    let settings = Settings { servers, protocol: Protocol::H2c, ..Settings::default() };
    let gateway = Gateway::start(&Upstream::start(), settings);
    let body = gateway.folder.path().join("body");
    fs::write(&body, "a short body").unwrap();
    let url = format!("http://localhost:{}/public/x", gateway.address.port());
    let said =
        output("h2load", &["-n", "3000", "-c", "4", "-m", "16", "-d", &body.display().to_string(), &url], "");
    assert!(said.contains("status codes: 3000 2xx"), "{said}");
}

#[test]
fn nginx_is_an_upstream_by_tls_and_in_the_clear() {
    let authority = Authority::new();
    let (clear, secure) = (port_to_keep(), port_to_keep());
    let nginx = nginx(&authority, |root| {
        format!(
            "server {{ listen 127.0.0.1:{clear}; listen 127.0.0.1:{secure} ssl; ssl_certificate {root}/a.pem; ssl_certificate_key {root}/a.key; root {root};\nlocation /public/ {{ alias {root}/; }} location /public/who {{ return 200 \"$scheme $http_x_forwarded_for\"; }} }}"
        )
    });
    fs::write(nginx.1.path().join("large"), "x".repeat(2 << 20)).unwrap();
    eventually("nginx listens", || std::net::TcpStream::connect(("127.0.0.1", secure)).ok());
    for (url, scheme, tls) in [
        (format!("http://127.0.0.1:{clear}"), "http", ""),
        (format!("https://localhost:{secure}"), "https", ", tls: {ca: ca.pem}"),
    ] {
        let own = Arc::new(tempfile::tempdir().unwrap());
        fs::write(own.path().join("ca.pem"), authority.pem()).unwrap();
        let servers = format!("{{url: \"{url}\"}}");
        let settings = Settings { servers, upstream: tls.to_owned(), ..Settings::default() };
        let gateway = Gateway::start_in(own, Upstream::start().address, settings);
        let mut client = gateway.client();
        for _ in 0..20 {
            let response = client.send("GET /public/who HTTP/1.1\r\nHost: a\r\n\r\n").response();
            assert_eq!((response.status, response.text()), (200, format!("{scheme} 127.0.0.1")));
        }
        let response = client.send("GET /public/large HTTP/1.1\r\nHost: a\r\n\r\n").response();
        assert_eq!((response.status, response.body.len()), (200, 2 << 20));
        let response = client.send("GET /public/none HTTP/1.1\r\nHost: a\r\n\r\n").response();
        assert_eq!(response.status, 404);
    }
}
