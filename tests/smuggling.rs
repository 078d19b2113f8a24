//! Requests with two readings: refused before a byte reaches the upstream, and the next client on
//! the same upstream connection still gets its own response.

use crate::harness::protocol::by_tls;
use crate::harness::{Gateway, Settings, Upstream};

fn start() -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    (gateway, upstream)
}

/// After any probe, others are served as if nothing had been.
#[track_caller]
fn others_are_unaffected(gateway: &Gateway) {
    let mut client = gateway.client();
    for path in ["/public/own-1", "/public/own-2"] {
        assert_eq!(client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).response().text(), path);
    }
}

#[test]
fn ambiguous_framing_is_400_and_close() {
    let (gateway, upstream) = start();
    others_are_unaffected(&gateway);
    let before = upstream.bytes();
    let smuggled = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5a\r\n",
        "Content-Length:\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding:\x0bchunked\r\n",
        "Transfer-Encoding\r\n",
        "Transfer-Encoding : chunked\r\n",
        " Transfer-Encoding: chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "X: y\nTransfer-Encoding: chunked\r\n",
        "X: y\rTransfer-Encoding: chunked\r\n",
        "Content-Length : 5\r\n",
        "Content-Length\t: 5\r\n",
        "X: a\0b\r\n",
        "\0: b\r\n",
    ] {
        let mut client = gateway.client();
        client.send(format!("POST /public/x HTTP/1.1\r\nHost: a\r\n{lines}\r\n0\r\n\r\n{smuggled}"));
        let response = client.response();
        assert_eq!((response.status, response.message().as_str()), (400, "Bad request"), "{lines:?}");
        assert!(response.header("X-Request-Id").is_some(), "{lines:?}");
        assert!(client.is_closed_silently(), "{lines:?}");
    }
    assert_eq!(upstream.bytes(), before);
    others_are_unaffected(&gateway);
}

#[test]
fn line_ends_and_start_lines_are_taken_strictly() {
    let (gateway, upstream) = start();
    for request in [
        "GET /public/x HTTP/1.1\nHost: a\n\n",
        "GET /public/x HTTP/1.1\r\nHost: a\n\r\n",
        "GET /public/x HTTP/1.1\r\nHost: a\r\n\n",
        "GET /public/x HTTP/1.1\rHost: a\r\r",
        "GET  /public/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /public/x HTTP/9.9\r\nHost: a\r\n\r\n",
        "GET /public/x\r\nHost: a\r\n\r\n",
        "GET /public/x#y HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /public/x HTTP/1.1\r\nHo st: a\r\n\r\n",
        "GET /public/x HTTP/1.1\r\n: a\r\n\r\n",
        "G@T /public/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "\x16\x03\x01\r\n\r\n",
        "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let response = gateway.client().send(request).response();
        assert_eq!((response.status, response.message().as_str()), (400, "Bad request"), "{request:?}");
        assert!(response.header("X-Request-Id").is_some(), "{request:?}");
    }
    assert_eq!(upstream.bytes(), 0);
    others_are_unaffected(&gateway);
}

#[test]
fn one_host_however_it_is_said() {
    let (gateway, upstream) = start();
    for (target, lines) in [
        ("/public/x", ""),
        ("/public/x", "Host: a\r\nHost: a\r\n"),
        ("/public/x", "Host: a\r\nHost: b\r\n"),
        ("/public/x", "Host: a, b\r\n"),
        ("/public/x", "Host: user@a\r\n"),
        ("/public/x", "Host: a/b\r\n"),
        ("/public/x", "Host: a b\r\n"),
        ("/public/x", "Host:\r\n"),
        ("http://b/public/x", "Host: a\r\n"),
        ("http://a:81/public/x", "Host: a\r\n"),
        ("https://a/public/x", "Host: a\r\n"),
        ("http://u@a/public/x", "Host: a\r\n"),
        ("ftp://a/public/x", "Host: a\r\n"),
    ] {
        let response = gateway.client().send(format!("GET {target} HTTP/1.1\r\n{lines}\r\n")).response();
        assert_eq!(
            (response.status, response.message().as_str()),
            (400, "Bad request"),
            "{target} {lines:?}"
        );
    }
    assert_eq!(upstream.bytes(), 0);
    let response = gateway.client().send("GET http://A/public/x?y HTTP/1.1\r\nHost: a\r\n\r\n").response();
    assert_eq!(response.text(), "/public/x?y");
    others_are_unaffected(&gateway);
}

#[test]
#[ignore = "slow"]
fn broken_chunks_abort_the_upstream_request_and_are_400() {
    for body in [
        "5;ext=1\nhello\r\n0\r\n\r\n",
        "5;\rext=1\r\nhello\r\n0\r\n\r\n",
        "5 \r\nhello\r\n0\r\n\r\n",
        "0x5\r\nhello\r\n0\r\n\r\n",
        "+5\r\nhello\r\n0\r\n\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-User-Roles: admin\n\r\n",
        "5\r\nhello\r\n0\r\nX: y\rz\r\n\r\n",
        "5\r\nhello\r\nffffffffffffffff1\r\nx",
        "5\r\nhello\r\n-1\r\nx",
        "g\r\n",
    ] {
        let (gateway, upstream) = start();
        let mut client = gateway.client();
        client
            .send(format!("POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        let response = client.response();
        assert_eq!((response.status, response.message().as_str()), (400, "Bad request"), "{body:?}");
        assert!(client.is_closed_silently(), "{body:?}");
        assert!(
            upstream.seen().iter().all(|seen| !seen.complete && seen.header("X-User-Roles").is_none()),
            "{body:?}"
        );
        others_are_unaffected(&gateway);
    }
}

#[test]
fn whole_chunks_arrive_as_they_were() {
    let (gateway, upstream) = start();
    let request = "POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n5\r\nhello\r\n00006\r\n world\r\n0\r\n\r\n";
    let mut client = gateway.client();
    // In pieces of every size, the last of them with the next request behind it.
    for piece in [1, 2, 3, 7, 1000] {
        for part in request.as_bytes().chunks(piece) {
            client.send(part);
        }
        assert_eq!(client.response().status, 200);
        assert_eq!(upstream.last().body, b"hello world");
    }
}

#[test]
fn chunk_extensions_and_trailers_are_read_over_within_a_bound() {
    let (gateway, upstream) = start();
    let mut client = gateway.client();
    for body in [
        "5;ext=1\r\nhello\r\n0;last\r\n\r\n",
        "5 ; ext=\"a b\"\r\nhello\r\n0\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-User-Roles: admin\r\nContent-Length: 9\r\n\r\n",
    ] {
        client.send(format!(
            "POST /public/x HTTP/1.1\r\nHost: a\r\nTrailer: X-User-Roles\r\nTransfer-Encoding: chunked\r\n\r\n{body}"
        ));
        assert_eq!(client.response().status, 200, "{body:?}");
        let seen = upstream.last();
        assert_eq!(seen.body, b"hello", "{body:?}");
        assert!(seen.header("X-User-Roles").is_none() && seen.header("Trailer").is_none(), "{body:?}");
    }
    for body in
        [format!("5;{}\r\nhello\r\n", "x".repeat(20_000)), format!("0\r\n{}\r\n", "A: b\r\n".repeat(5_000))]
    {
        let mut client = gateway.client();
        client
            .send(format!("POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}"));
        assert_eq!(client.response().status, 400);
    }
    others_are_unaffected(&gateway);
}

#[test]
fn the_body_of_a_denied_request_is_never_the_next_request() {
    let (gateway, upstream) = start();
    let token = gateway.token("alice");
    let inner = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let length = inner.len();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    for (start, lines, status) in [
        ("POST /api/x", String::new(), 401),
        ("POST /admin/x", bearer.clone(), 403),
        ("POST /nowhere", String::new(), 404),
        ("POST /api/x", "Expect: 100-continue\r\n".to_owned(), 401),
        ("OPTIONS /api/x", String::new(), 401),
        ("GET /api/x", String::new(), 401),
        ("PUT /auth/login", String::new(), 405),
    ] {
        let before = upstream.bytes();
        let mut client = gateway.client();
        client.send(format!("{start} HTTP/1.1\r\nHost: a\r\n{lines}Content-Length: {length}\r\n\r\n{inner}"));
        assert_eq!(client.response().status, status, "{start}");
        // Either the connection goes on behind the body, or it closes.
        client.send("GET /public/next HTTP/1.1\r\nHost: a\r\n\r\n");
        if let Some(next) = client.try_response() {
            assert_eq!(next.text(), "/public/next", "{start}");
        }
        assert!(upstream.seen().iter().all(|seen| seen.target != "/public/smuggled"), "{start}");
        if upstream.seen().is_empty() {
            assert_eq!(upstream.bytes(), before);
        }
    }
    let mut client = gateway.client();
    client.send(format!("HEAD /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{inner}"));
    assert_eq!(client.response_to_head().status, 401);
    others_are_unaffected(&gateway);
    assert!(upstream.seen().iter().all(|seen| seen.target != "/public/smuggled"));
}

#[test]
fn an_oversized_body_is_413_and_nothing_of_it_a_request() {
    let upstream = Upstream::start();
    let routes = "  - {path: /small, auth: none, body: 8B, upstream: backend}\n  - {path: /public/**, auth: none, upstream: backend}\n";
    let gateway = Gateway::start(&upstream, Settings::routes(routes));
    let inner = "GET /public/smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = gateway.client();
    client.send(format!("POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{inner}", inner.len()));
    let response = client.response();
    assert_eq!((response.status, response.message().as_str()), (413, "Body too large"));
    assert_eq!(upstream.bytes(), 0);
    let mut client = gateway.client();
    client.send("POST /small HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n6\r\nghijkl\r\n0\r\n\r\n");
    assert_eq!(client.response().status, 413);
    assert!(upstream.seen().iter().all(|seen| !seen.complete));
    let exact = "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 8\r\n\r\n12345678";
    assert_eq!(gateway.client().send(exact).response().status, 200);
    others_are_unaffected(&gateway);
}

#[test]
fn pipelined_requests_are_answered_in_order_and_a_bad_one_last() {
    let (gateway, upstream) = start();
    let mut client = gateway.client();
    let mut requests = String::new();
    for index in 0..10 {
        requests += &format!("POST /public/{index} HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    }
    client.send(requests + "GET /public/x HTTP/1.1\r\nHost: a\nX: y\r\n\r\n");
    for index in 0..10 {
        assert_eq!(client.response().text(), format!("/public/{index}"));
    }
    assert_eq!(client.response().status, 400);
    assert!(client.is_closed_silently());
    assert_eq!(upstream.seen().len(), 10);
}

#[test]
fn a_refusal_reaches_a_client_that_once_asked_for_an_upgrade() {
    let (gateway, _upstream) = start();
    let mut client = gateway.client();
    client.send("GET /public/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    assert_eq!(client.response().status, 200);
    client.send("GET /public/x HTTP/1.1\r\nHost: a\nX: y\r\n\r\n");
    assert_eq!(client.response().status, 400);
    assert!(client.is_closed_silently());
}

by_tls!(
    ambiguous_framing_is_400_and_close,
    line_ends_and_start_lines_are_taken_strictly,
    broken_chunks_abort_the_upstream_request_and_are_400,
    whole_chunks_arrive_as_they_were,
    chunk_extensions_and_trailers_are_read_over_within_a_bound,
    the_body_of_a_denied_request_is_never_the_next_request,
    an_oversized_body_is_413_and_nothing_of_it_a_request,
    pipelined_requests_are_answered_in_order_and_a_bad_one_last,
);
