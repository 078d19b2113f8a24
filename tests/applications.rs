//! Upstreams as people run them: uvicorn, hypercorn and Node, by HTTP/1.1 and HTTP/2.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::{Value, json};

use crate::harness::{
    Gateway, Protocol, Settings, Upstream,
    browser::{Browser, ORIGIN},
    eventually, peer, port_to_keep, python_file,
};

/// An application that runs until it is dropped.
struct Application {
    child: Child,
    port: u16,
}

impl Drop for Application {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Application {
    fn start(mut command: Command, file: &str, server: &str) -> Self {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(file);
        let mut child =
            command.arg(file).arg(server).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().strip_prefix("port ").unwrap().parse().unwrap();
        Self { child, port }
    }

    fn python(server: &str) -> Self {
        Self::start(peer("venv/bin/python"), "application.py", server)
    }

    /// A program of the sample in deploy/sample, with a port for `{port}`.
    fn of_the_sample(arguments: &[&str]) -> Self {
        let port = port_to_keep();
        let mut command = Command::new("python3");
        command.args(arguments.iter().map(|argument| argument.replace("{port}", &port.to_string())));
        command.current_dir(sample()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().unwrap();
        eventually("it listens", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        Self { child, port }
    }

    fn node(server: &str) -> Self {
        Self::start(Command::new("node"), "application.mjs", server)
    }
}

fn sample() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/sample")
}

/// A gateway before an application that is spoken to by a scheme.
fn before(application: &Application, scheme: &str, protocol: Protocol) -> Gateway {
    let servers = format!("{{url: \"{scheme}://127.0.0.1:{}\"}}", application.port);
    Gateway::start(&Upstream::start(), Settings { servers, protocol, ..Settings::default() })
}

/// What each of them is asked, by clients of both protocols.
#[track_caller]
fn serves(application: &Application, scheme: &str, version: &str) {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let gateway = before(application, scheme, protocol);
        let token = gateway.token("alice");
        let mut client = gateway.client();
        let mut send = |method: &str, path: &str, body: &str| {
            let length =
                if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
            client
                .send(format!(
                    "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n{length}\r\n{body}"
                ))
                .response()
        };
        let said: Value = serde_json::from_slice(&send("GET", "/api/x?q=%20", "").body).unwrap();
        let wanted = json!({
            "method": "GET", "path": "/api/x", "query": "q=%20", "version": version, "user": "alice", "token": null,
            "host": "localhost", "length": 0,
            "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        });
        assert_eq!(said, wanted, "{protocol:?}");
        let body = "0123456789".repeat(30_000);
        let said: Value = serde_json::from_slice(&send("POST", "/api/upload", &body).body).unwrap();
        assert_eq!((&said["method"], &said["length"]), (&json!("POST"), &json!(300_000)), "{protocol:?}");
        assert_eq!(
            said["sha256"], "91c304e4daed16d1ac074867c3a7b6b25f113684822bb9cb5db2535cf6b21c8c",
            "{protocol:?}"
        );
        let parts: String = (0..100).map(|number| format!("{number:04}").repeat(250)).collect();
        assert!(send("GET", "/api/parts", "").body == parts.as_bytes(), "{protocol:?}");
        assert_eq!(send("DELETE", "/api/x", "").status, 200);
        let clients: Vec<_> = (0..8)
            .map(|_| {
                let (mut client, token) = (gateway.client(), token.clone());
                thread::spawn(move || {
                    (0..25).all(|number| {
                        let path = format!("/api/{number}");
                        let request = format!(
                            "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"
                        );
                        let response = client.send(request).response();
                        serde_json::from_slice::<Value>(&response.body).unwrap()["path"] == path
                    })
                })
            })
            .collect();
        assert!(clients.into_iter().all(|client| client.join().unwrap()), "{protocol:?}");
    }
}

#[test]
fn uvicorn_is_an_upstream() {
    serves(&Application::python("uvicorn"), "http", "1.1");
}

#[test]
fn hypercorn_is_an_upstream_by_both_protocols() {
    let application = Application::python("hypercorn");
    serves(&application, "http", "1.1");
    serves(&application, "h2c", "2");
}

#[test]
fn node_is_an_upstream_by_both_protocols() {
    serves(&Application::node("http"), "http", "1.1");
    serves(&Application::node("http2"), "h2c", "2.0");
}

#[test]
fn a_websocket_over_a_stream_reaches_an_application() {
    for server in ["uvicorn", "hypercorn"] {
        let application = Application::python(server);
        let gateway = before(&application, "http", Protocol::H2c);
        let address = gateway.address.to_string();
        assert_eq!(python_file("websocket_http2.py", &[&address, "/api/x"]), "401");
        let said = python_file("websocket_http2.py", &[&address, "/api/x", &gateway.token("alice")]);
        assert_eq!(said.lines().collect::<Vec<_>>(), ["200", "hello alice", "True", "short"], "{server}");
    }
}

#[test]
fn the_sample_signs_people_in_before_files_and_an_api() {
    let site = Application::of_the_sample(&[
        "-m",
        "http.server",
        "{port}",
        "--bind",
        "127.0.0.1",
        "--directory",
        "site",
    ]);
    let api = Application::of_the_sample(&["api.py", "{port}"]);
    let config = fs::read_to_string(sample().join("gateway.yaml")).unwrap();
    let config = config
        .replace("127.0.0.1:8080", "127.0.0.1:0")
        .replace("http://localhost:8080", ORIGIN)
        .replace("127.0.0.1:9001", &format!("127.0.0.1:{}", site.port))
        .replace("127.0.0.1:9002", &format!("127.0.0.1:{}", api.port));
    let gateway = Gateway::by_text(&format!("{config}admin: {{address: \"127.0.0.1:0\"}}\n"), Vec::new());
    let mut visitor = Browser::default();
    assert!(visitor.go(&gateway, "/").text().contains("Your orders"));
    let led = visitor.go(&gateway, "/orders.html");
    assert_eq!((led.status, led.header("location")), (303, Some("/auth/ui/login?return_to=%2Forders.html")));
    assert_eq!(visitor.fetch(&gateway, "GET", "/api/orders").status, 401);
    let mut alice = Browser::register(&gateway, "alice");
    assert!(alice.go(&gateway, "/orders.html").text().contains("/orders.js"));
    let headers = ["Sec-Fetch-Mode: cors", "Sec-Fetch-Site: same-origin"];
    let sent = alice.send(&gateway, "POST", "/api/orders", &headers, "{\"what\": \"tea\"}");
    assert_eq!(sent.json(), json!({"user": "alice", "orders": ["tea"]}));
    let mut bob = Browser::register(&gateway, "bob");
    assert_eq!(bob.fetch(&gateway, "GET", "/api/orders").json(), json!({"user": "bob", "orders": []}));
    // A body that nobody reads is no request with headers of its own.
    let victim = bob.fetch(&gateway, "GET", "/auth/me").json()["user_id"].as_str().unwrap().to_owned();
    let hidden = format!(
        "POST /api/orders HTTP/1.1\r\nX-User-Id: {victim}\r\nContent-Length: 18\r\n\r\n{{\"what\": \"poison\"}}"
    );
    alice.send(&gateway, "GET", "/api/orders", &headers, &hidden);
    for _ in 0..5 {
        assert_eq!(bob.fetch(&gateway, "GET", "/api/orders").json(), json!({"user": "bob", "orders": []}));
    }
    alice.sign_out(&gateway);
    assert_eq!(alice.fetch(&gateway, "GET", "/api/orders").status, 401);
}
