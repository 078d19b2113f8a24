//! What is read ahead of a slow side.

use std::{thread, time::Duration};

use crate::harness::{Client, Gateway, Settings, Upstream, eventually, ok};

/// One connection to the upstream, for which nobody waits long.
fn gateway(upstream: &Upstream, buffer: &str) -> Gateway {
    let settings = Settings {
        upstream: format!(", buffer: {buffer}, max_connections: 1, max_wait: 300ms"),
        workers: 1,
        ..Settings::routes("  - {path: /public/**, auth: none, body: 10MiB, upstream: backend}\n")
    };
    Gateway::start(upstream, settings)
}

fn begun(gateway: &Gateway, head: &str, body: &str) -> Client {
    let mut client = Client::connect(gateway.address);
    client.send(format!("POST /public/x HTTP/1.1\r\nHost: a\r\n{head}\r\n\r\n{body}"));
    client
}

#[test]
fn a_request_holds_no_server_before_its_body_is_there() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "{request: 64KiB}");
    let mut slow = begun(&gateway, "Content-Length: 10", "hello");
    let mut chunked = begun(&gateway, "Transfer-Encoding: chunked", "5\r\nhello\r\n");
    for _ in 0..5 {
        assert_eq!(gateway.get("/public/other", None).status, 200);
    }
    assert_eq!(upstream.seen().iter().filter(|seen| seen.method == "POST").count(), 0);
    assert_eq!(slow.send("world").response().status, 200);
    let seen = upstream.last();
    assert_eq!((seen.header("Content-Length"), seen.body.as_slice()), (Some("10"), &b"helloworld"[..]));
    assert_eq!(chunked.send("1\r\n!\r\n0\r\n\r\n").response().status, 200);
    let seen = upstream.last();
    // Now its length is known.
    assert_eq!(
        (seen.header("Content-Length"), seen.header("Transfer-Encoding"), seen.body.as_slice()),
        (Some("6"), None, &b"hello!"[..])
    );
}

#[test]
fn a_body_over_the_buffer_streams_and_comes_whole() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream, "{request: 4KiB}");
    let body: String = (0..100_000).map(|index| char::from(b'a' + (index % 26) as u8)).collect();
    let mut client = begun(&gateway, &format!("Content-Length: {}", body.len()), &body[..50_000]);
    let active = r#"authgate_upstream_connections{state="active",upstream="backend"}"#;
    eventually("it streams", || (gateway.metric(active) == Some(1.0)).then_some(()));
    assert_eq!(client.send(&body[50_000..]).response().status, 200);
    assert_eq!(upstream.last().body, body.as_bytes());
}

#[test]
fn a_body_that_does_not_come_is_408_and_asks_nobody() {
    let upstream = Upstream::start();
    let settings = Settings { upstream: ", buffer: {request: 64KiB}".to_owned(), ..Settings::default() };
    let gateway = Gateway::start(&upstream, settings.extra("limits: {body_idle_timeout: 300ms}\n"));
    assert_eq!(begun(&gateway, "Content-Length: 10", "hello").response().status, 408);
    assert_eq!(begun(&gateway, "Content-Length: 100000000", "x").response().status, 413);
    let large = format!("19000000\r\n{}", "x".repeat(100));
    assert_eq!(begun(&gateway, "Transfer-Encoding: chunked", &large).response().status, 408);
    assert_eq!(upstream.seen().len(), 0);
}

#[test]
fn a_response_that_is_read_ahead_frees_its_server() {
    // More than the sockets between hold.
    const LENGTH: usize = 24 << 20;
    let body: String = "0123456789abcdef".repeat(LENGTH / 16);
    let answer = body.clone();
    let upstream =
        Upstream::answering(move |seen| ok(if seen.target.ends_with("big") { &answer } else { "small" }));
    for (buffer, status) in [("{response: 32MiB}", 200), ("{response: 0B}", 503)] {
        let gateway = gateway(&upstream, buffer);
        let mut slow = Client::connect(gateway.address);
        slow.send("GET /public/big HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("it has begun", || {
            thread::sleep(Duration::from_millis(20));
            (gateway.get("/public/other", None).status == status).then_some(())
        });
        let response = slow.response();
        assert!(response.body == body.as_bytes(), "{} bytes", response.body.len());
        eventually("the server is free", || (gateway.get("/public/other", None).status == 200).then_some(()));
    }
}
