//! Calls from pages of other origins.

use crate::harness::{Gateway, Response, Settings, Upstream, ok};

const APP: &str = "https://app.example.com";

fn gateway(upstream: &Upstream) -> Gateway {
    let settings = Settings::routes(
        "  - {path: /api/**, methods: [GET, PUT], upstream: backend, cors: {origins: [\"https://app.example.com\"], credentials: true, max_age: 1h}}\n  - {path: /other/**, auth: none, upstream: backend}\n",
    );
    Gateway::start(
        upstream,
        settings.auth("  cors: {origins: [\"https://app.example.com\", \"http://localhost:3000\"]}\n"),
    )
}

fn call(gateway: &Gateway, method: &str, path: &str, headers: &str) -> Response {
    gateway.client().send(format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).response()
}

fn preflight(gateway: &Gateway, path: &str, origin: &str, method: &str) -> Response {
    let headers = format!(
        "Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\nAccess-Control-Request-Headers: authorization,content-type\r\n"
    );
    call(gateway, "OPTIONS", path, &headers)
}

fn vary(response: &Response) -> String {
    let lines = response.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("vary"));
    lines.map(|(_, value)| value.as_str()).collect::<Vec<_>>().join(", ").to_lowercase()
}

#[test]
fn a_listed_origin_is_told_what_it_may_do_without_a_token_and_without_the_upstream() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let response = preflight(&gateway, "/api/x", APP, "PUT");
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some(APP));
    assert_eq!(response.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(response.header("access-control-allow-methods"), Some("PUT"));
    assert_eq!(response.header("access-control-allow-headers"), Some("authorization,content-type"));
    assert_eq!(response.header("access-control-max-age"), Some("3600"));
    assert!(vary(&response).contains("origin"));
    let response = preflight(&gateway, "/auth/login", "http://localhost:3000", "POST");
    assert_eq!(response.status, 204);
    assert_eq!(response.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(response.header("access-control-allow-credentials"), None);
    assert!(upstream.seen().is_empty());
}

#[test]
fn any_other_origin_is_told_nothing() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    for origin in [
        "https://evil.example",
        "https://app.example.com.evil.example",
        "null",
        "https://app.example.com:444",
    ] {
        for (path, method) in [("/api/x", "PUT"), ("/auth/login", "POST")] {
            let response = preflight(&gateway, path, origin, method);
            assert_eq!(response.header("access-control-allow-origin"), None, "{origin}");
            assert_eq!(response.header("access-control-allow-methods"), None, "{origin}");
            assert!(vary(&response).contains("origin"));
        }
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_page_may_read_responses_and_refusals_and_no_token_is_spared() {
    let upstream = Upstream::start();
    let gateway = gateway(&upstream);
    let token = gateway.token("alice");
    let origin = format!("Origin: {APP}\r\n");
    let refused = call(&gateway, "GET", "/api/x", &origin);
    assert_eq!(refused.status, 401);
    assert_eq!(refused.header("access-control-allow-origin"), Some(APP));
    let response = call(&gateway, "GET", "/api/x", &format!("{origin}Authorization: Bearer {token}\r\n"));
    assert_eq!(response.status, 200);
    assert_eq!(response.header("access-control-allow-origin"), Some(APP));
    assert!(response.header("access-control-expose-headers").unwrap().contains("X-Request-Id"));
    assert!(vary(&response).contains("origin"));
    let own = call(&gateway, "GET", "/auth/me", &origin);
    assert_eq!((own.status, own.header("access-control-allow-origin")), (401, Some(APP)));
    // Without an origin nothing is allowed, and a cache is told that it would make a difference.
    let plain = call(&gateway, "GET", "/auth/me", "");
    assert_eq!(plain.header("access-control-allow-origin"), None);
    assert!(vary(&plain).contains("origin"));
}

#[test]
fn what_an_upstream_says_of_origins_gives_way_where_a_route_has_rules() {
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\nContent-Length: 0\r\n\r\n".to_vec()
    });
    let gateway = gateway(&upstream);
    let token = gateway.token("alice");
    let headers = format!("Origin: https://evil.example\r\nAuthorization: Bearer {token}\r\n");
    let response = call(&gateway, "GET", "/api/x", &headers);
    assert_eq!(response.header("access-control-allow-origin"), None);
    assert_eq!(response.header("access-control-allow-credentials"), None);
    let response = call(&gateway, "GET", "/other/x", "Origin: https://evil.example\r\n");
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
}

#[test]
fn an_options_request_that_asks_nothing_is_an_ordinary_one() {
    let upstream = Upstream::answering(|_| ok(""));
    let gateway = gateway(&upstream);
    assert_eq!(call(&gateway, "OPTIONS", "/other/x", "").status, 200);
    assert_eq!(call(&gateway, "OPTIONS", "/api/x", "").status, 405);
    assert_eq!(preflight(&gateway, "/api/x", APP, "DELETE").status, 405);
    assert_eq!(preflight(&gateway, "/nowhere", APP, "GET").status, 404);
}
