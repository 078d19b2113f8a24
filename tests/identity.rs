//! What an upstream is told of the caller, and what nobody else may tell it.

use serde_json::json;

use crate::harness::protocol::by_each_protocol;
use crate::harness::{Gateway, PASSWORD, Protocol, Settings, Upstream};

const SPOOFED: &str = "X-User-Id: 1\r\nx-user-id: 2\r\nX-USER-NAME: root\r\nX-User-Roles: admin\r\n\
    X_User_Id: 3\r\nX.User.Id: 4\r\nx_user.roles: admin\r\nX-User_Name: root\r\n\
    Remote-User: root\r\nREMOTE_USER: root\r\nRemote-Groups: admin\r\nX-WEBAUTH-USER: root\r\nX-Auth-Request-User: root\r\n\
    X-Auth-Request-Groups: admin\r\nX-Forwarded-User: root\r\nX-Forwarded-Groups: admin\r\n\
    Forwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nTrue-Client-IP: 1.2.3.4\r\nCF-Connecting-IP: 1.2.3.4\r\n\
    X-Original-URL: /admin\r\nX-Original-Method: GET\r\nX-Rewrite-URL: /admin\r\nX-Forwarded-For: 1.2.3.4\r\nX_Forwarded_For: 1.2.3.4\r\n\
    X-Forwarded-Host: evil\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Prefix: /x\r\nX-Request-Id: mine\r\n\
    X-HTTP-Method-Override: DELETE\r\n";

/// The names that reached the upstream, folded as CGI would.
fn folded(seen: &crate::harness::Seen) -> Vec<String> {
    seen.headers.iter().map(|(name, _)| name.to_ascii_lowercase().replace(['_', '.'], "-")).collect()
}

#[test]
fn exactly_one_of_each_identity_header_and_it_is_the_gateways() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let response = gateway.register("alice");
    let token = response["access_token"].as_str().unwrap();
    let request = format!("GET /api/x HTTP/1.1\r\nHost: a\r\n{SPOOFED}Authorization: Bearer {token}\r\n\r\n");
    assert_eq!(gateway.client().send(request).response().status, 200);
    let seen = upstream.only();
    let names = folded(&seen);
    for (name, value) in [
        ("x-user-id", response["user_id"].as_str().unwrap()),
        ("x-user-name", "alice"),
        ("x-user-roles", "user"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-proto", Protocol::current().scheme()),
        ("x-forwarded-host", "a"),
    ] {
        assert_eq!(names.iter().filter(|own| *own == name).count(), 1, "{name}: {names:?}");
        assert_eq!(seen.header(name), Some(value));
    }
    assert_ne!(seen.header("x-request-id"), Some("mine"));
    for name in [
        "remote-user",
        "remote-groups",
        "x-webauth-user",
        "x-auth-request-user",
        "x-auth-request-groups",
        "x-forwarded-user",
        "x-forwarded-groups",
        "x-forwarded-prefix",
        "forwarded",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "x-original-url",
        "x-original-method",
        "x-rewrite-url",
        "x-http-method-override",
        "authorization",
    ] {
        assert!(!names.contains(&name.to_owned()), "{name}: {names:?}");
    }
}

#[test]
fn no_identity_on_an_open_route_whatever_is_sent() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let token = gateway.token("alice");
    for path in ["/public/x", "/optional/x"] {
        let credential =
            if path == "/public/x" { format!("Authorization: Bearer {token}\r\n") } else { String::new() };
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n{SPOOFED}{credential}\r\n");
        assert_eq!(gateway.client().send(request).response().status, 200);
        let names = folded(&upstream.last());
        for name in ["x-user-id", "x-user-name", "x-user-roles", "remote-user", "authorization"] {
            assert!(!names.contains(&name.to_owned()), "{path}: {names:?}");
        }
    }
    // On an open route a token is not even read.
    assert_eq!(gateway.get("/public/x", Some("junk")).status, 200);
}

#[test]
fn what_connection_nominates_is_not_taken_from_the_gateway() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let token = gateway.token("alice");
    let request = format!(
        "GET /api/x HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-User-Id, x-user-roles, X-Forwarded-For, X-Mine\r\n\
         X-Mine: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\nProxy-Authorization: Basic x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    assert_eq!(gateway.client().send(request).response().status, 200);
    let seen = upstream.only();
    for name in ["X-User-Id", "X-User-Name", "X-User-Roles", "X-Forwarded-For"] {
        assert!(seen.header(name).is_some(), "{name}");
    }
    for name in
        ["X-Mine", "TE", "Keep-Alive", "Proxy-Authorization", "Upgrade", "HTTP2-Settings", "Connection"]
    {
        assert_eq!(seen.header(name), None, "{name}");
    }
}

#[test]
fn names_beyond_ascii_are_percent_encoded_and_roles_sorted() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    gateway.run(
        &[
            "user",
            "add",
            "J\u{f6}rg",
            "--role",
            "staff",
            "--role",
            "admin",
            "--role",
            "a.b:c",
            "--password-stdin",
        ],
        PASSWORD,
    );
    let login = gateway.login("j\u{f6}rg");
    assert_eq!(login["username"], "j\u{f6}rg");
    assert_eq!(gateway.get("/api/x", login["access_token"].as_str()).status, 200);
    assert_eq!(upstream.only().header("X-User-Name"), Some("j%C3%B6rg"));
    assert_eq!(upstream.only().header("X-User-Roles"), Some("a.b:c,admin,staff"));
}

#[test]
fn presets_and_own_names_replace_the_defaults() {
    for (setting, name_header) in [
        ("identity_headers: grafana\n", "X-WEBAUTH-USER"),
        ("identity_headers: authelia\n", "Remote-User"),
        ("identity_headers: oauth2-proxy\n", "X-Auth-Request-Preferred-Username"),
        ("identity_headers: {id: X-Id, name: X-Login, roles: X-Groups}\n", "X-Login"),
    ] {
        let upstream = Upstream::start();
        let gateway = Gateway::start(&upstream, Settings::default().extra(setting));
        let token = gateway.token("alice");
        let request = format!(
            "GET /api/x HTTP/1.1\r\nHost: a\r\n{SPOOFED}x_login: root\r\nAuthorization: Bearer {token}\r\n\r\n"
        );
        assert_eq!(gateway.client().send(request).response().status, 200);
        let seen = upstream.only();
        assert_eq!(seen.header(name_header), Some("alice"), "{setting}");
        assert!(!folded(&seen).contains(&"x-user-id".to_owned()));
        assert!(name_header != "X-Login" || seen.header("x_login").is_none());
    }
}

#[test]
fn the_token_goes_on_only_where_a_route_says_so() {
    let upstream = Upstream::start();
    let routes =
        "  - {path: /a, upstream: backend, forward_token: true}\n  - {path: /b, upstream: backend}\n";
    let gateway = Gateway::start(&upstream, Settings::routes(routes));
    let token = gateway.token("alice");
    gateway.get("/a", Some(&token));
    assert_eq!(upstream.last().header("Authorization"), Some(format!("Bearer {token}").as_str()));
    gateway.get("/b", Some(&token));
    assert_eq!(upstream.last().header("Authorization"), None);
}

#[test]
fn only_a_trusted_proxy_is_believed() {
    let lines = "X-Forwarded-For: 198.51.100.7, junk, 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example.com\r\nX-HTTP-Method-Override: PUT\r\n";
    let request = format!("GET /public/x HTTP/1.1\r\nHost: a\r\nUser-Agent: kube-probe/1.27\r\n{lines}\r\n");
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    gateway.client().send(&request).response();
    let seen = upstream.last();
    assert_eq!(seen.header("X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(seen.header("X-Forwarded-Proto"), Some(Protocol::current().scheme()));
    assert_eq!(seen.header("X-Forwarded-Host"), Some("a"));
    assert_eq!(seen.header("X-HTTP-Method-Override"), None);

    let gateway = Gateway::start(&upstream, Settings::default().extra("trusted_proxies: [127.0.0.0/8]\n"));
    gateway.client().send(&request).response();
    let seen = upstream.last();
    assert_eq!(seen.header("X-Forwarded-For"), Some("203.0.113.9, 127.0.0.1"));
    assert_eq!(seen.header("X-Forwarded-Proto"), Some("https"));
    assert_eq!(seen.header("X-Forwarded-Host"), Some("shop.example.com"));
    assert_eq!(seen.header("X-HTTP-Method-Override"), None);
}

#[test]
fn names_and_roles_that_could_break_a_header_cannot_be_stored() {
    let gateway = Gateway::alone(Settings::default().auth("  self_assignable_roles: [\"ok\"]\n"));
    for name in ["a\r\nX-User-Roles: admin", "a\nb", "a\0b", "a b", "a\u{2028}b", "\u{202e}nimda"] {
        let response = gateway.post("/auth/register", &json!({"username": name, "password": PASSWORD}));
        assert_eq!(
            (response.status, response.message().as_str()),
            (400, "Username not accepted"),
            "{name:?}"
        );
        if !name.contains('\0') {
            assert!(!gateway.command(&["user", "add", name, "--password-stdin"], PASSWORD).status.success());
        }
    }
    for role in ["ok\r\nX: y", "ok,admin", "OK"] {
        let body = json!({"username": "bob", "password": PASSWORD, "role": role});
        assert_eq!(gateway.post("/auth/register", &body).status, 403, "{role:?}");
    }
}

#[test]
fn what_is_for_this_gateway_alone_goes_no_further() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let sent = "Cookie: a=b; __Secure-authgate-device=secret; c=d\r\nCookie: __Host-authgate=secret\r\nX-Authgate-Device: secret\r\n";
    gateway.client().send(format!("GET /public/x HTTP/1.1\r\nHost: a\r\n{sent}\r\n")).response();
    let seen = upstream.last();
    assert_eq!(seen.all("cookie"), ["a=b; c=d"]);
    assert_eq!(seen.header("x-authgate-device"), None);
    gateway.client().send("GET /public/x HTTP/1.1\r\nHost: a\r\nCookie: a=b;c=d\r\n\r\n").response();
    assert_eq!(upstream.last().all("cookie"), ["a=b;c=d"], "what is not ours is as it was");
}

by_each_protocol!(
    exactly_one_of_each_identity_header_and_it_is_the_gateways,
    no_identity_on_an_open_route_whatever_is_sent,
    names_beyond_ascii_are_percent_encoded_and_roles_sorted,
    presets_and_own_names_replace_the_defaults,
    the_token_goes_on_only_where_a_route_says_so,
    only_a_trusted_proxy_is_believed,
    names_and_roles_that_could_break_a_header_cannot_be_stored,
    what_is_for_this_gateway_alone_goes_no_further,
);
