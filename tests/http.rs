//! HTTP as RFC 9110 and RFC 9112 have it, where a gateway has a part in it.

use std::{
    io::{Read, Write},
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::harness::{Gateway, Settings, Upstream, eventually, ok};

fn start() -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    (gateway, upstream)
}

/// The access line of a request, by a part of it.
#[track_caller]
fn access_line(gateway: &Gateway, part: &str) -> Value {
    let line = eventually(&format!("the access line with {part}"), || {
        let is_access = |line: &&str| line.contains("\"access\"") && line.contains(part);
        gateway.log().lines().find(is_access).map(str::to_owned)
    });
    serde_json::from_str(&line).unwrap()
}

#[test]
fn a_denied_request_whose_body_was_not_read_says_that_the_connection_closes() {
    let (gateway, _upstream) = start();
    let mut client = gateway.client();
    client.send("POST /api/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhalf");
    let response = client.response();
    assert_eq!((response.status, response.header("Connection")), (401, Some("close")));
    assert!(client.is_closed_silently());
    let mut client = gateway.client();
    assert_eq!(client.send("GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n").response().header("Connection"), None);
}

#[test]
fn an_upload_goes_on_behind_the_head_of_its_response_for_as_long_as_it_flows() {
    let upstream = Upstream::with_head(|socket, read| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n");
        let body = read();
        let _ = socket.write_all(format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).as_bytes());
        false
    });
    let gateway =
        Gateway::start(&upstream, Settings::default().extra("limits: {body_idle_timeout: 700ms}\n"));
    let mut client = gateway.client();
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    for _ in 0..10 {
        thread::sleep(Duration::from_millis(200));
        client.send("x");
    }
    assert_eq!(client.response().text(), "begunxxxxxxxxxx");
}

#[test]
fn a_standard_method_in_another_case_is_400() {
    let routes = "  - {path: /x, auth: none, methods: [GET, DELETE, PURGE], upstream: backend}\n  - {path: /**, auth: none, upstream: backend}\n";
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::routes(routes));
    for method in ["delete", "Delete", "get", "pATCH", "connect", "purge"] {
        assert_eq!(gateway.send(method, "/x", None, None).status, 400, "{method}");
    }
    assert_eq!(upstream.bytes(), 0);
    assert_eq!(gateway.send("PROPFIND", "/x", None, None).status, 200);
    assert_eq!(gateway.send("custom", "/x", None, None).status, 200);
}

#[test]
fn the_method_is_overridden_only_where_a_route_asks_for_it_and_allows_both() {
    let routes = "  - {path: /plain/**, auth: none, upstream: backend}\n  - {path: /over/**, auth: none, methods: [GET, POST, PUT], method_override: true, upstream: backend}\n  - {path: /over/**, methods: [DELETE], upstream: backend}\n";
    let upstream = Upstream::start();
    let settings = Settings::routes(routes).extra("trusted_proxies: [127.0.0.0/8]\n");
    let gateway = Gateway::start(&upstream, settings);
    let alone = |line: &str| {
        gateway
            .client()
            .send(format!("POST /over/x HTTP/1.1\r\nHost: a\r\n{line}: DELETE\r\n\r\n"))
            .response()
    };
    for line in ["X_HTTP_Method_Override", "X.Http.Method", "X_Http_Method", "x-method_override"] {
        assert_eq!(alone(line).status, 200, "{line}");
        assert_eq!(upstream.last().header(line), None, "{line}");
    }
    let send = |path: &str, method: &str| {
        let lines = format!("Host: a\r\nX-HTTP-Method-Override: {method}\r\nX_Http_Method: {method}\r\n");
        gateway.client().send(format!("POST {path} HTTP/1.1\r\n{lines}\r\n")).response().status
    };
    assert_eq!(send("/plain/x", "DELETE"), 200);
    assert_eq!(upstream.last().header("X-HTTP-Method-Override"), None);
    assert_eq!(send("/over/x", "PUT"), 200);
    assert_eq!(upstream.last().header("X-HTTP-Method-Override"), Some("PUT"));
    let before = upstream.seen().len();
    assert_eq!(send("/over/x", "DELETE"), 401);
    assert_eq!(send("/over/x", "delete"), 401);
    assert_eq!(send("/over/x", "PATCH"), 405);
    assert_eq!(upstream.seen().len(), before);
}

#[test]
fn early_hints_go_on_to_clients_that_understand_them() {
    let upstream = Upstream::with(|seen, socket| {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\nConnection: x-hop\r\nX-Hop: y\r\n\r\n";
        let _ = socket.write_all(hints.as_bytes());
        let _ = socket.write_all(b"HTTP/1.1 102 Processing\r\n\r\n");
        thread::sleep(Duration::from_millis(100));
        socket.write_all(&ok(&seen.target)).is_ok()
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    for _ in 0..2 {
        client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
        let (status, headers) = client.head();
        assert_eq!(status, 103);
        assert_eq!(headers, [("link".to_owned(), "</a.css>".to_owned())]);
        assert_eq!(client.response().text(), "/public/x");
    }
    let mut old = gateway.client();
    old.send("GET /public/x HTTP/1.0\r\nHost: a\r\n\r\n");
    assert_eq!(old.head().0, 200);
}

#[test]
fn via_tells_the_way_and_max_forwards_counts_it() {
    let (gateway, upstream) = start();
    let mut client = gateway.client();
    client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response();
    assert_eq!(upstream.last().header("Via"), Some("1.1 authgate"));
    client.send("GET /public/x HTTP/1.1\r\nHost: a\r\nVia: 1.0 fred\r\nVia: 1.1 p\r\n\r\n").response();
    assert_eq!(upstream.last().header("Via"), Some("1.0 fred, 1.1 p, 1.1 authgate"));
    client.send("OPTIONS /public/x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 7\r\n\r\n").response();
    assert_eq!(upstream.last().header("Max-Forwards"), Some("6"));
    let before = upstream.seen().len();
    let response =
        client.send("OPTIONS /public/x HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n").response_to_head();
    assert_eq!(response.status, 204);
    let response = client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n").response_to_head();
    assert_eq!(response.status, 204);
    assert_eq!(client.send("OPTIONS * HTTP/1.1\r\n\r\n").response().status, 400);
    assert_eq!(upstream.seen().len(), before);
    gateway.client().send("GET /public/x HTTP/1.0\r\n\r\n").response();
    assert_eq!(upstream.last().header("Via"), Some("1.0 authgate"));
}

#[test]
fn trace_is_405_unless_a_route_asks_for_it() {
    let routes = "  - {path: /x, auth: none, upstream: backend}\n  - {path: /traced, auth: none, methods: [TRACE], upstream: backend}\n";
    let gateway = Gateway::start(&Upstream::start(), Settings::routes(routes));
    let response = gateway.send("TRACE", "/x", None, None);
    assert_eq!(response.status, 405);
    assert_eq!(response.header("Allow"), Some("DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"));
    assert_eq!(gateway.send("TRACE", "/traced", None, None).status, 200);
}

#[test]
fn what_never_becomes_a_request_is_refused_as_others_are_and_logged_and_counted() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default().extra("limits: {header_timeout: 500ms}\n"));
    let large = format!("GET /public/x HTTP/1.1\r\nHost: a\r\nX: {}\r\n", "y".repeat(70_000));
    for (request, status) in [
        ("GET /public/x HTTP/1.1\r\nHost: a\nX: y\r\n\r\n", 400),
        ("GET /public/x HTTP/1.2\r\nHost: a\r\n\r\n", 505),
        ("GET /public/x HTTP/1.1\r\nHost:", 408),
        (&large, 431),
    ] {
        let response = gateway.client().send(request).response();
        assert_eq!(response.status, status);
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
        assert_eq!(response.header("Connection"), Some("close"));
        assert!(response.header("Date").is_some_and(|date| date.ends_with(" GMT")));
        let id = response.header("X-Request-Id").unwrap();
        let line = access_line(&gateway, id);
        assert_eq!(line["http.status"], status);
        assert_eq!(line["peer.address"], "127.0.0.1");
        let metric =
            format!("authgate_requests_total{{method=\"OTHER\",route=\"none\",status=\"{status}\"}}");
        assert_eq!(gateway.metric(&metric), Some(1.0));
    }
    let mut client = gateway.client();
    client.send("HEAD /public/x HTTP/1.1\r\nHost: a\nX: y\r\n\r\n");
    assert_eq!(client.response_to_head().status, 400);
    assert!(client.is_closed_silently());
}

#[test]
fn a_refusal_has_a_body_unless_its_own_head_says_head() {
    let gateway = Gateway::alone(Settings::default());
    let refused = |request: &str| {
        let bytes = gateway.client().send(request).until_closed();
        String::from_utf8(bytes).unwrap().ends_with("\r\n\r\n")
    };
    let bad = "Host: a\r\nBad Name: x\r\n\r\n";
    assert!(refused(&format!("HEAD /public/x HTTP/1.1\r\n{bad}")));
    assert!(refused(&format!("\r\nHEAD /public/x HTTP/1.1\r\n{bad}")));
    let next = "HEAD /public/x HTTP/1.1\r\nHost: a\r\n\r\n";
    assert!(!refused(&format!("GET /public/x HTTP/1.1\r\n{bad}{next}")));
}

#[test]
fn an_empty_line_before_a_request_begins_none() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default().extra("limits: {header_timeout: 400ms}\n"));
    let mut client = gateway.client();
    client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\n");
    assert_eq!(client.response().status, 200);
    thread::sleep(Duration::from_millis(800));
    assert_eq!(client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 200);
}

#[test]
fn a_413_reaches_a_client_that_reads_only_once_it_has_sent_its_fill() {
    let (gateway, _upstream) = start();
    let mut client = std::net::TcpStream::connect(gateway.address).unwrap();
    let head = format!("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 24 << 20);
    client.write_all(head.as_bytes()).unwrap();
    for _ in 0..24 {
        client.write_all(&vec![b'x'; 1 << 20]).expect("it is still read from");
        thread::sleep(Duration::from_millis(60));
    }
    let mut response = [0; 12];
    client.read_exact(&mut response).unwrap();
    assert_eq!(&response, b"HTTP/1.1 413");
}

#[test]
fn an_old_client_is_told_only_what_is_true() {
    let upstream = Upstream::answering(|seen| match seen.target.as_str() {
        "/public/endless" => {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_vec()
        }
        target => ok(target),
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut old = gateway.client();
    let kept = old.send("GET /public/x HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").response();
    assert_eq!(kept.header("Connection"), Some("keep-alive"));
    let endless =
        old.send("GET /public/endless HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n").response();
    assert_eq!((endless.text().as_str(), endless.header("Connection")), ("hi", Some("close")));
    gateway.client().send("GET /public/x HTTP/1.0\r\n\r\n").response();
    let seen = upstream.last();
    assert_eq!(seen.header("X-Forwarded-Host"), None);
    assert!(seen.header("Host").is_some());
}

#[test]
fn a_query_reaches_the_upstream_in_ascii() {
    let (gateway, upstream) = start();
    let mut request = b"GET /public/x?a=".to_vec();
    request.extend("gr\u{fc}n".as_bytes());
    request.extend(b"&b=%20 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(gateway.client().send(&request).response().status, 200);
    assert_eq!(upstream.last().target, "/public/x?a=gr%C3%BCn&b=%20");
}

#[test]
fn a_proxy_in_front_is_understood_in_every_spelling_and_not_in_lists() {
    let upstream = Upstream::start();
    let settings = Settings::default().extra("trusted_proxies: [127.0.0.0/8]\n");
    let gateway = Gateway::start(&upstream, settings);
    for (entry, client) in
        [("2.2.2.2:1234", "2.2.2.2"), ("[2001:db8::1]:80", "2001:db8::1"), ("198.51.100.9", "198.51.100.9")]
    {
        let id = format!("/public/{}", client.replace(':', "-"));
        gateway
            .client()
            .send(format!("GET {id} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {entry}\r\n\r\n"))
            .response();
        assert_eq!(upstream.last().header("X-Forwarded-For"), Some(format!("{client}, 127.0.0.1").as_str()));
        let line = access_line(&gateway, &id);
        assert_eq!((&line["client.address"], &line["peer.address"]), (&client.into(), &"127.0.0.1".into()));
    }
    for hosts in ["X-Forwarded-Host: a, b\r\n", "X-Forwarded-Host: a\r\nX-Forwarded-Host: b\r\n"] {
        let response =
            gateway.client().send(format!("GET /public/x HTTP/1.1\r\nHost: a\r\n{hosts}\r\n")).response();
        assert_eq!(response.status, 400, "{hosts}");
    }
}

#[test]
fn headers_that_only_a_proxy_may_say_are_gone_and_more_by_config() {
    let upstream = Upstream::start();
    let settings = Settings::default().extra("identity_headers: {strip: [X-Tenant, X-Internal-*]}\n");
    let gateway = Gateway::start(&upstream, settings);
    let long = format!("X-Internal-{}", "a".repeat(80));
    let names = [
        "Content_Length",
        "Content.Length",
        "Transfer_Encoding",
        "Proxy_Connection",
        "Proxy",
        "Client-IP",
        "Fastly-Client-IP",
        "X-Remote-User",
        "X-Authenticated-User",
        "X-User-Email",
        "X-Url-Scheme",
        "Front-End-Https",
        "SSL-Client-Verify",
        "X-SSL-Client-S-DN",
        "X-Envoy-External-Address",
        "X_Tenant",
        "x.internal.user",
        &long,
        "X-Forwarded-Tls-Client-Cert-And-A-Name-That-Is-Longer-Than-Sixty-Four-Bytes",
    ];
    let lines: String = names.iter().map(|name| format!("{name}: 1\r\n")).collect();
    let request = format!("GET /public/x HTTP/1.1\r\nHost: a\r\nX-Kept: 1\r\n{lines}\r\n");
    assert_eq!(gateway.client().send(request).response().status, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("X-Kept"), Some("1"));
    for name in names {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[test]
fn an_access_line_tells_what_happened() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let account = gateway.register("alice");
    let token = account["access_token"].as_str().unwrap();
    let request = format!(
        "POST /api/line?secret=1 HTTP/1.1\r\nHost: shop.example:80\r\nUser-Agent: curl \"x\"\r\nAuthorization: Bearer {token}\r\nContent-Length: 5\r\n\r\nhello"
    );
    let response = gateway.client().send(request).response();
    let line = access_line(&gateway, "/api/line");
    for (field, value) in [
        ("client.address", "127.0.0.1".into()),
        ("peer.address", "127.0.0.1".into()),
        ("http.host", "shop.example:80".into()),
        ("http.method", "POST".into()),
        ("http.path", "/api/line".into()),
        ("http.route", "/api/**".into()),
        ("http.status", 200.into()),
        ("http.protocol", "HTTP/1.1".into()),
        ("request.bytes", 5.into()),
        ("response.bytes", response.body.len().into()),
        ("user_agent", "curl \"x\"".into()),
        ("upstream.name", "backend".into()),
        ("upstream.address", upstream.address.to_string().into()),
        ("user.id", account["user_id"].clone()),
        ("request.id", response.header("X-Request-Id").unwrap().into()),
    ] {
        assert_eq!(line[field], value, "{field}");
    }
    assert!(line["duration_us"].as_u64() >= line["upstream.duration_us"].as_u64());
    assert!(!line.to_string().contains("secret"));
    let denied = gateway.get("/api/denied", None);
    let line = access_line(&gateway, "/api/denied");
    assert_eq!(line["http.status"], 401);
    assert_eq!(line["request.id"], denied.header("X-Request-Id").unwrap());
    assert!(line.get("upstream.name").is_none() && line.get("user.id").is_none());
}

#[test]
fn lines_are_whole_when_the_gateway_ends() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    for index in 0..500 {
        client.send(format!("GET /public/end-{index} HTTP/1.1\r\nHost: a\r\n\r\n")).response();
    }
    assert!(gateway.stop().success());
    eventually("all lines", || {
        let log = gateway.log();
        (log.lines().filter(|line| line.contains("/public/end-")).count() == 500).then_some(())
    });
    assert!(gateway.log().lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[test]
fn a_response_that_breaks_off_is_logged_and_counted_as_that() {
    let upstream = Upstream::with(|_, socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        thread::sleep(Duration::from_millis(50));
        false
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = gateway.client();
    client.send("GET /public/broken HTTP/1.1\r\nHost: a\r\n\r\n").rest();
    let line = access_line(&gateway, "/public/broken");
    assert_eq!((&line["upstream.aborted"], &line["response.bytes"]), (&true.into(), &4.into()));
    assert_eq!(gateway.metric("authgate_upstream_aborted_total{upstream=\"backend\"}"), Some(1.0));
    let warning = eventually("the warning", || {
        gateway.log().lines().find(|line| line.contains("response broke off")).map(str::to_owned)
    });
    assert!(warning.contains(line["request.id"].as_str().unwrap()));
}

#[test]
fn it_says_that_it_ends_before_it_closes() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default().extra("drain: {delay: 1500ms, limit: 5s}\n"));
    gateway.signal(libc::SIGTERM);
    eventually("it is not ready", || (gateway.admin_get("/readyz").status == 503).then_some(()));
    assert_eq!(gateway.get("/public/x", None).status, 200);
    let mut gateway = gateway;
    assert!(eventually("it ends", || gateway.ended()).success());
}

#[test]
fn requests_that_never_left_do_not_count_as_the_upstreams() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let count = || gateway.metric("authgate_upstream_duration_seconds_count{upstream=\"backend\"}");
    gateway.get("/public/x", None);
    assert_eq!(count(), Some(1.0));
    let mut client = gateway.client();
    client.send(format!("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1 << 30));
    assert_eq!(client.response().status, 413);
    assert_eq!(count(), Some(1.0));
}
