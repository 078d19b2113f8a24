//! Upstreams as people run them: uvicorn, hypercorn and Node, by HTTP/1.1 and HTTP/2.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use serde_json::{Value, json};

use crate::harness::{Gateway, Protocol, Settings, Upstream, peer, python_file};

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

    fn node(server: &str) -> Self {
        Self::start(Command::new("node"), "application.mjs", server)
    }
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
