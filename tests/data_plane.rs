//! Bodies, keep-alive, and what passes through unchanged.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixListener,
    sync::Arc,
    thread,
    time::Duration,
};

use crate::harness::{Gateway, Protocol, Settings, Upstream, eventually, ok};

#[test]
fn bodies_of_any_size_pass_both_ways() {
    let upstream = Upstream::answering(|seen| {
        let mut response =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", seen.body.len()).into_bytes();
        response.extend_from_slice(&seen.body);
        response
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    for size in [0, 1, 1_000, 100_000, 5_000_000] {
        let body: Vec<u8> = (0..size).map(|index| (index % 251) as u8).collect();
        let head = format!("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
        // In a thread, because a large body comes back while it is still being sent.
        let response = client.send(head).send(&body).response();
        assert_eq!((response.status, response.body.len()), (200, size));
        assert!(response.body == body, "{size}");
    }
}

#[test]
fn a_response_streams_while_it_is_made() {
    let upstream = Upstream::with(|_, socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst \r\n");
        thread::sleep(Duration::from_millis(2_000));
        socket.write_all(b"6\r\nsecond\r\n0\r\n\r\n").is_ok()
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    let begun = std::time::Instant::now();
    let mut early = Vec::new();
    while !String::from_utf8_lossy(&early).contains("first ") {
        early.extend(client.read_some(1));
    }
    assert!(begun.elapsed() < Duration::from_millis(1_900), "the first part waited for the second");
    assert!(String::from_utf8_lossy(&client.read_some(18)).contains("second"));
}

#[test]
fn a_request_streams_while_it_is_sent() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    crate::harness::eventually("the first half reaches the upstream", || {
        (upstream.bytes() > 100).then_some(())
    });
    assert!(upstream.seen().is_empty());
    assert_eq!(client.send("world").response().status, 200);
    assert_eq!(upstream.only().body, b"helloworld");
}

#[test]
fn connections_are_kept_on_both_sides() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    for index in 0..20 {
        let path = format!("/public/{index}");
        assert_eq!(client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).response().text(), path);
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn clients_at_once_each_get_their_own_response() {
    let upstream = Upstream::start();
    let gateway = Arc::new(Gateway::start(&upstream, Settings::default()));
    let clients: Vec<_> = (0..16)
        .map(|client| {
            let gateway = gateway.clone();
            thread::spawn(move || {
                let mut connection = gateway.client();
                for index in 0..50 {
                    let path = format!("/public/{client}/{index}");
                    let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
                    assert_eq!(connection.send(request).response().text(), path);
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    assert_eq!(upstream.seen().len(), 800);
}

#[test]
fn head_http_10_and_responses_without_a_body_pass() {
    let upstream = Upstream::answering(|seen| match (seen.method.as_str(), seen.target.as_str()) {
        ("HEAD", _) => b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n".to_vec(),
        (_, "/public/204") => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        (_, "/public/304") => b"HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n".to_vec(),
        (_, target) => ok(target),
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    let response = client.send("HEAD /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response_to_head();
    assert_eq!((response.status, response.header("Content-Length")), (200, Some("1000")));
    assert_eq!(client.send("GET /public/204 HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 204);
    let response = client.send("GET /public/304 HTTP/1.1\r\nHost: a\r\n\r\n").response();
    assert_eq!((response.status, response.header("ETag")), (304, Some("\"x\"")));
    assert_eq!(client.send("GET /public/y HTTP/1.1\r\nHost: a\r\n\r\n").response().text(), "/public/y");
    let mut old = gateway.client();
    assert_eq!(old.send("GET /public/old HTTP/1.0\r\n\r\n").response().text(), "/public/old");
    assert!(old.is_closed_silently());
}

#[test]
fn expect_continue_is_answered_and_does_not_go_on() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(client.read_some(25), b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.send("hello").response().status, 200);
    assert_eq!(upstream.only().header("Expect"), None);
}

#[test]
fn a_body_that_has_come_is_not_asked_for() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let head = "POST /public/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(gateway.client().send(format!("{head}hello")).response().status, 200);
    assert_eq!(upstream.only().body, b"hello");
}

#[test]
fn headers_of_a_response_pass_but_for_those_of_its_connection() {
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 201 Created\r\nX-One: 1\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nX-Request-Id: theirs\r\nContent-Length: 2\r\n\r\nhi".to_vec()
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    for _ in 0..2 {
        let response = client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response();
        assert_eq!((response.status, response.text().as_str()), (201, "hi"));
        assert_eq!(response.header("X-One"), Some("1"));
        assert_eq!(
            response.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie")).count(),
            2
        );
        for name in ["X-Hop", "Keep-Alive", "Connection"] {
            assert_eq!(response.header(name), None, "{name}");
        }
        assert_ne!(response.header("X-Request-Id"), Some("theirs"));
    }
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn a_client_that_hangs_up_ends_its_request_upstream() {
    let (told, closed) = std::sync::mpsc::channel();
    let upstream = Upstream::with(move |_, socket| {
        use std::io::Read;
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let _ = told.send(socket.read_exact(&mut [0; 1]).map_err(|error| error.kind()));
        false
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    crate::harness::eventually("the request arrives", || (upstream.seen().len() == 1).then_some(()));
    drop(client);
    let closed = closed.recv_timeout(Duration::from_secs(5)).expect("it is told");
    assert_eq!(closed, Err(std::io::ErrorKind::UnexpectedEof));
}

#[test]
fn at_sigterm_requests_in_flight_are_finished_and_new_clients_refused() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let upstream = Upstream::with(move |seen, socket| {
        if seen.target == "/public/slow" {
            let _ = wait.lock().unwrap().recv_timeout(Duration::from_secs(10));
        }
        socket.write_all(&ok(&seen.target)).is_ok()
    });
    let mut gateway = Gateway::start(&upstream, Settings::default());
    let mut idle = gateway.client();
    assert_eq!(idle.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 200);
    let mut busy = gateway.client();
    busy.send("GET /public/slow HTTP/1.1\r\nHost: a\r\n\r\n");
    crate::harness::eventually("the request arrives", || (upstream.seen().len() == 2).then_some(()));
    gateway.signal(libc::SIGTERM);
    assert!(idle.is_closed_silently());
    crate::harness::eventually("new clients are refused", || {
        std::net::TcpStream::connect(gateway.address).err()
    });
    assert_eq!(gateway.admin_get("/readyz").text(), "draining\n");
    release.send(()).unwrap();
    assert_eq!(busy.response().text(), "/public/slow");
    assert!(busy.is_closed_silently());
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_request_whose_head_has_begun_at_sigterm_is_answered() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream, Settings { workers: 1, ..Settings::default() });
    let (mut idle, mut client) = (gateway.client(), gateway.client());
    assert_eq!(client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 200);
    client.send("GET /public/y HTTP/1.1\r\n");
    // What has come before is read before the worker is told of the drain.
    assert_eq!(idle.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 200);
    gateway.signal(libc::SIGTERM);
    assert!(idle.is_closed_silently());
    let response = client.send("Host: a\r\n\r\n").response();
    assert_eq!((response.status, response.header("Connection")), (200, Some("close")));
    assert!(client.is_closed_silently());
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
fn a_hangup_signal_does_not_end_the_gateway() {
    let gateway = Gateway::alone(Settings::default());
    gateway.signal(libc::SIGHUP);
    crate::harness::eventually("it is logged", || gateway.log().contains("config taken up").then_some(()));
    assert_eq!(gateway.get("/public/x", None).status, 200);
}

#[test]
fn health_and_metrics_are_on_the_admin_listener_only() {
    let gateway = Gateway::alone(Settings::default());
    let token = gateway.token("alice");
    for _ in 0..3 {
        gateway.get("/api/x", Some(&token));
    }
    gateway.get("/api/x", None);
    gateway.send("BREW", "/public/x", None, None);
    assert_eq!(gateway.admin_get("/livez").status, 200);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    assert_eq!(
        gateway.metric(r#"authgate_requests_total{method="GET",route="/api/**",status="200"}"#),
        Some(3.0)
    );
    assert_eq!(
        gateway.metric(r#"authgate_requests_total{method="OTHER",route="/public/**",status="200"}"#),
        Some(1.0)
    );
    assert_eq!(gateway.metric(r#"authgate_denied_total{reason="no_token"}"#), Some(1.0));
    assert_eq!(gateway.metric(r#"authgate_token_cache_total{result="hit"}"#), Some(2.0));
    assert_eq!(gateway.metric(r#"authgate_token_cache_total{result="miss"}"#), Some(1.0));
    assert_eq!(gateway.metric("authgate_revocation_entries"), Some(0.0));
    assert_eq!(gateway.metric("authgate_password_seconds_count"), Some(1.0));
    assert!(gateway.metric("authgate_revocation_lag_seconds").unwrap() < 5.0);
    let text = gateway.admin_get("/metrics").text();
    for name in [
        "authgate_request_duration_seconds",
        "authgate_upstream_duration_seconds",
        "authgate_password_queue_depth",
        "authgate_config_reloads_total",
    ] {
        assert!(text.contains(&format!("# TYPE {name} ")), "{name}");
    }
    assert_eq!(gateway.get("/metrics", None).status, 404);
    let rebound = crate::harness::Client::connect(gateway.admin)
        .send("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        .response();
    assert_eq!(rebound.status, 403);
}

#[test]
fn each_request_leaves_a_line_that_can_be_turned_off() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    gateway.get("/public/seen?secret=1", None);
    let line = crate::harness::eventually("the line", || {
        gateway.log().lines().find(|line| line.contains("/public/seen")).map(str::to_owned)
    });
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((line["http.status"].as_u64(), line["http.path"].as_str()), (Some(200), Some("/public/seen")));
    assert!(!gateway.log().contains("secret=1"));
}

#[test]
fn an_upstream_may_be_a_socket_of_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("up.sock");
    let listener = UnixListener::bind(&path).unwrap();
    let (tell, connections) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            tell.send(()).unwrap();
            let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
            // Two requests on each connection.
            for _ in 0..2 {
                let head: Vec<String> =
                    lines.by_ref().map_while(Result::ok).take_while(|l| !l.is_empty()).collect();
                if head.is_empty() || socket.write_all(&ok(&head.join("|"))).is_err() {
                    break;
                }
            }
        }
    });
    let routes = "  - {path: /local/**, auth: none, upstream: local}\n";
    let upstream = format!("}}\n  local: {{servers: [{{url: \"unix:{}\"}}]", path.display());
    let gateway = Gateway::alone(Settings { workers: 1, upstream, ..Settings::routes(routes) });
    for number in 0..4 {
        let response = gateway.client().send("GET /local/x HTTP/1.0\r\n\r\n").response();
        let head = response.text();
        assert!(
            head.starts_with("GET /local/x HTTP/1.1|") && head.contains("host: localhost"),
            "{number}: {head}"
        );
    }
    assert_eq!(connections.try_iter().count(), 2, "a connection is used again until the other end closes it");
    let address = format!("\"upstream.address\":\"unix:{}\"", path.display());
    crate::harness::eventually("it is logged", || gateway.log().contains(&address).then_some(()));
}

#[test]
fn bytes_from_clients_and_to_them_are_counted() {
    let either = Settings { listener: ", http2: true".to_owned(), ..Settings::default() };
    let of = |protocol| Settings { protocol, ..Settings::default() };
    for settings in [of(Protocol::Http1), of(Protocol::Http2), either] {
        let upstream = Upstream::answering(|_| ok(&"x".repeat(50_000)));
        let gateway = Gateway::start(&upstream, settings);
        let count = |direction: &str| {
            gateway.metric(&format!("authgate_bytes_total{{direction=\"{direction}\"}}")).unwrap_or_default()
        };
        let mut client = gateway.client();
        let body = "y".repeat(20_000);
        client.send(format!(
            "POST /public/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        assert_eq!(client.response().status, 200);
        for (direction, least) in [("in", 20_000.0), ("out", 50_000.0)] {
            let counted =
                eventually("it is counted", || Some(count(direction)).filter(|count| *count >= least));
            assert!(counted < least + 2_000.0, "{direction} {counted}");
        }
    }
}
