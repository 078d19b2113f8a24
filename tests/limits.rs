//! Bounds of size and time.

use std::time::{Duration, Instant};

use crate::harness::{Gateway, Settings, Upstream};

fn limited(lines: &str) -> Gateway {
    Gateway::alone(Settings::default().extra(&format!("limits: {{{lines}}}\n")))
}

#[test]
fn heads_over_their_limits_are_431_at_once() {
    let gateway = limited("header_bytes: 8KiB, header_count: 10");
    let many = "X: y\r\n".repeat(300);
    let long = format!("X: {}\r\n", "y".repeat(9_000));
    let endless = format!("X: {}", "y".repeat(200_000));
    for lines in [many, long, endless] {
        let mut client = gateway.client();
        client.send(format!("GET /public/x HTTP/1.1\r\nHost: a\r\n{lines}\r\n"));
        let response = client.response();
        assert_eq!((response.status, response.message().as_str()), (431, "Headers too large"));
        assert!(response.header("X-Request-Id").is_some());
    }
    let nine = "X: y\r\n".repeat(9);
    assert_eq!(
        gateway.client().send(format!("GET /public/x HTTP/1.1\r\nHost: a\r\n{nine}\r\n")).response().status,
        200
    );
}

#[test]
fn huge_tokens_and_heads_cost_no_memory() {
    let gateway = Gateway::alone(Settings::default());
    // What the first hashes take is not counted.
    gateway.register("alice");
    let ask = |value: &str| gateway.get("/api/x", Some(value)).status;
    let round = || {
        assert_eq!(ask(&".".repeat(60_000)), 401);
        assert_eq!(ask(&"A".repeat(60_000)), 401);
        assert_eq!(ask(&format!("{}.{}.x", "A".repeat(30_000), "B".repeat(29_000))), 401);
        assert_eq!(ask(&".".repeat(100_000)), 431);
    };
    (0..20).for_each(|_| round());
    let before = gateway.memory();
    (0..100).for_each(|_| round());
    let grown = gateway.memory().saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes more");
}

#[test]
fn nothing_but_hashes_asks_for_huge_pages() {
    let gateway = Gateway::alone(Settings::default());
    gateway.register("alice");
    let sizes = gateway.huge_mappings();
    // The memory of a hash, for each core; the allocator's is a gigabyte.
    assert!(sizes.iter().all(|&size| size < 64 << 20), "{sizes:?}");
}

#[test]
fn a_head_that_is_late_is_408_and_an_idle_connection_closes_silently() {
    let gateway = limited("header_timeout: 300ms, idle_timeout: 500ms");
    let mut late = gateway.client();
    late.send("GET /public/x HTTP/1.1\r\nHost:");
    let response = late.response();
    assert_eq!((response.status, response.message().as_str()), (408, "Request timeout"));
    assert!(late.is_closed_silently());
    // A byte now and then does not help.
    let mut slow = gateway.client();
    let begun = Instant::now();
    for byte in b"GET /public/x HTTP/1.1\r\nHost: a\r\nX: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy" {
        slow.send([*byte]);
        std::thread::sleep(Duration::from_millis(10));
        if begun.elapsed() > Duration::from_millis(600) {
            break;
        }
    }
    assert_eq!(slow.response().status, 408);
    assert!(gateway.client().is_closed_silently());
    let mut used = gateway.client();
    assert_eq!(used.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 200);
    assert!(used.is_closed_silently());
}

#[test]
fn a_body_that_is_late_is_408() {
    let gateway = limited("body_idle_timeout: 300ms");
    for path in ["/public/x", "/auth/login"] {
        let mut client = gateway.client();
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\nabc"));
        let response = client.response();
        assert_eq!((response.status, response.message().as_str()), (408, "Request timeout"), "{path}");
        assert!(client.is_closed_silently());
    }
}

#[test]
fn a_body_below_its_least_rate_is_408_and_one_above_it_may_take_long() {
    let gateway = limited("request_timeout: 500ms, body_min_rate: 1KiB, body_idle_timeout: 5s");
    let mut slow = gateway.client();
    slow.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1_500) {
        slow.send("abc");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(slow.response().status, 408);
    let mut steady = gateway.client();
    steady.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 20000\r\n\r\n");
    for _ in 0..10 {
        steady.send("y".repeat(2_000));
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(steady.response().status, 200);
}

#[test]
fn a_client_that_does_not_read_is_given_up() {
    let upstream = Upstream::answering(|_| {
        let mut response = b"HTTP/1.1 200 OK\r\nContent-Length: 50000000\r\n\r\n".to_vec();
        response.resize(response.len() + 50_000_000, b'x');
        response
    });
    let gateway =
        Gateway::start(&upstream, Settings::default().extra("limits: {body_idle_timeout: 400ms}\n"));
    let mut deaf = gateway.client();
    deaf.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    std::thread::sleep(Duration::from_millis(1_500));
    let received = deaf.rest().len();
    assert!(received < 50_000_000, "{received}");
}
