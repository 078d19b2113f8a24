//! Which route wins, and what it asks for.

use serde_json::json;

use crate::harness::{Gateway, PASSWORD, Settings, Upstream};

#[test]
fn the_most_specific_route_wins_and_404_and_405_come_before_401() {
    let routes = "  - {path: /**, roles: {any: [nobody]}, upstream: backend}\n  - {path: \"/users/{id}/files\", methods: [GET], auth: none, upstream: backend}\n  - {path: /users/me/files, methods: [POST], auth: none, upstream: backend}\n  - {path: /only, host: api.example.com, methods: [GET], auth: none, upstream: backend}\n";
    let gateway = Gateway::alone(Settings::routes(routes));
    let ask = |method: &str, path: &str, host: &str| {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n\r\n");
        gateway.client().send(request).response()
    };
    assert_eq!(ask("GET", "/users/1/files", "a").status, 200);
    assert_eq!(ask("GET", "/users/me/files", "a").status, 200);
    assert_eq!(ask("POST", "/users/me/files", "a").status, 200);
    assert_eq!(ask("POST", "/users/1/files", "a").status, 401);
    assert_eq!(ask("GET", "/users/1/files/", "a").status, 401);
    for host in ["api.example.com", "API.example.com:8443", "api.example.com."] {
        assert_eq!(ask("GET", "/only", host).status, 200, "{host}");
    }
    assert_eq!(ask("GET", "/only", "other.example.com").status, 401);

    let gateway = Gateway::alone(Settings::routes("  - {path: /a, methods: [GET], upstream: backend}\n"));
    let response = gateway.send("POST", "/a", None, None);
    assert_eq!((response.status, response.message().as_str()), (405, "Method not allowed"));
    assert_eq!(response.header("Allow"), Some("GET, HEAD"));
    assert_eq!(gateway.get("/b", None).message(), "Not found");
}

#[test]
fn roles_any_and_all() {
    let routes = "  - {path: /any, roles: {any: [staff, boss]}, upstream: backend}\n  - {path: /all, roles: {all: [staff, boss]}, upstream: backend}\n";
    let gateway = Gateway::alone(Settings::routes(routes));
    let token = |name: &str, roles: &[&str]| {
        let mut args = vec!["user", "add", name, "--password-stdin"];
        roles.iter().for_each(|role| args.extend(["--role", role]));
        gateway.run(&args, PASSWORD);
        gateway.login(name)["access_token"].as_str().unwrap().to_owned()
    };
    let (staff, both, neither) =
        (token("a", &["staff"]), token("b", &["staff", "boss"]), token("c", &["stuff"]));
    for (path, caller, status) in [
        ("/any", &staff, 200),
        ("/any", &both, 200),
        ("/any", &neither, 403),
        ("/all", &staff, 403),
        ("/all", &both, 200),
        ("/all", &neither, 403),
    ] {
        let response = gateway.get(path, Some(caller));
        assert_eq!(response.status, status, "{path}");
        if status == 403 {
            assert_eq!(response.message(), "Insufficient role");
        }
    }
}

#[test]
fn the_gateway_answers_itself_where_a_route_says_respond() {
    let routes = "  - path: /hello\n    respond: {json: {message: \"Welcome {user.name}\", id: \"{user.id}\", roles: [\"{user.roles}\"], n: 1, raw: \"{other} {user\"}}\n  - {path: /teapot, auth: none, respond: {status: 418, json: {short: true}}}\n";
    let gateway = Gateway::alone(Settings::routes(routes));
    assert_eq!(gateway.get("/hello", None).status, 401);
    let registered = gateway.register("alice");
    let response = gateway.get("/hello", registered["access_token"].as_str());
    assert_eq!(
        response.json(),
        json!({
            "message": "Welcome alice", "id": registered["user_id"], "roles": ["user"], "n": 1, "raw": "{other} {user",
        })
    );
    assert_eq!(response.header("X-Content-Type-Options"), Some("nosniff"));
    assert_eq!(response.header("Strict-Transport-Security"), None, "it is not by https");
    assert_eq!(gateway.get("/teapot", None).status, 418);
}

#[test]
fn a_name_cannot_leave_its_string_in_a_response() {
    let gateway =
        Gateway::alone(Settings::routes("  - {path: /hello, respond: {json: {message: \"{user.name}\"}}}\n"));
    let odd = r#"a"},{"x":"{user.id}"#;
    // Only the operator may give such names.
    gateway.run(&["user", "add", odd, "--password-stdin"], PASSWORD);
    let response = gateway.try_login(odd, PASSWORD);
    let response = gateway.get("/hello", response.json()["access_token"].as_str());
    assert_eq!(response.json(), json!({"message": odd}));
}

#[test]
fn a_pattern_of_hosts_takes_what_no_exact_host_does() {
    let routes = "  - {path: /**, host: \"*.example.com\", auth: none, respond: {json: pattern}}\n  - {path: /**, host: a.example.com, auth: none, respond: {json: exact}}\n";
    let gateway = Gateway::alone(Settings::routes(routes));
    let ask = |host: &str| {
        let response = gateway.client().send(format!("GET /x HTTP/1.1\r\nHost: {host}\r\n\r\n")).response();
        (response.status, response.text())
    };
    assert_eq!(ask("A.example.com:8080"), (200, "\"exact\"".to_owned()));
    for host in ["b.example.com", "c.b.Example.com.", "b.a.example.com:80"] {
        assert_eq!(ask(host), (200, "\"pattern\"".to_owned()), "{host}");
    }
    for host in ["example.com", "b.example.com.evil", "bexample.com"] {
        assert_eq!(ask(host).0, 404, "{host}");
    }
}

#[test]
fn a_redirect_keeps_path_and_query_and_goes_where_the_config_says() {
    let routes = "  - {path: /old/**, auth: none, redirect: {to: \"https://new.example.com{path}\"}}\n  - {path: /gone, redirect: {to: \"/here?from=gone\", status: 302}}\n";
    let gateway = Gateway::alone(Settings::routes(routes));
    let token = gateway.register("ann")["access_token"].as_str().unwrap().to_owned();
    let location = |target: &str, token: Option<&str>| {
        let response = gateway.get(target, token);
        (response.status, response.header("Location").map(str::to_owned))
    };
    let to = |status, location: &str| (status, Some(location.to_owned()));
    assert_eq!(location("/old/a%40b?c=d&e", None), to(308, "https://new.example.com/old/a%40b?c=d&e"));
    assert_eq!(location("/old", None), to(308, "https://new.example.com/old"));
    assert_eq!(location("/old//evil.com", None).0, 400, "no path names another host");
    assert_eq!(location("/gone?x=y", None), (401, None), "it is decided like any other route");
    assert_eq!(location("/gone?x=y", Some(&token)), to(302, "/here?from=gone"));
}

#[test]
fn an_upstream_is_asked_by_the_path_and_host_that_a_route_says() {
    let routes = "  - {path: /api/**, auth: none, upstream: backend, rewrite: {strip_prefix: /api, add_prefix: /v2, host: \"orders.internal:81\"}}\n  - {path: /one/**, auth: none, upstream: backend, rewrite: {path: /fixed}}\n";
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::routes(routes));
    for (asked, seen) in [
        ("/api/orders/7?a=%2f&b", "/v2/orders/7?a=%2f&b"),
        ("/api", "/v2"),
        ("/api/", "/v2/"),
        ("/api/a%40b", "/v2/a%40b"),
        ("/one/a/b?c", "/fixed?c"),
    ] {
        assert_eq!(gateway.get(asked, None).status, 200);
        assert_eq!(upstream.last().target, seen, "{asked}");
    }
    gateway.get("/api/x", None);
    let last = upstream.last();
    assert_eq!(last.header("Host"), Some("orders.internal:81"));
    assert_eq!(last.header("X-Forwarded-Host"), Some("localhost"), "the client's own stays known");
}

#[test]
fn a_route_changes_headers_on_both_ways_and_never_who_is_calling() {
    let routes = "  - path: /**\n    upstream: backend\n    headers:\n      request: {set: {X-Env: prod, Authorization: Basic YTpi}, add: {X-Tag: b}, remove: [X-Debug]}\n      response: {set: {X-Frame-Options: DENY}, remove: [Server]}\n";
    let upstream = Upstream::answering(|_| {
        b"HTTP/1.1 200 OK\r\nServer: x\r\nX-Frame-Options: ALLOW\r\nContent-Length: 0\r\n\r\n".to_vec()
    });
    let gateway = Gateway::start(&upstream, Settings::routes(routes));
    let token = gateway.register("ann")["access_token"].as_str().unwrap().to_owned();
    let lines = "X-Env: dev\r\nX_Env: dev\r\nX-Tag: a\r\nX-Debug: 1\r\nX_debug: 1\r\nConnection: X-Env\r\n";
    let request = format!("GET /x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n{lines}\r\n");
    let response = gateway.client().send(request).response();
    assert_eq!(response.header("X-Frame-Options"), Some("DENY"));
    assert_eq!(response.header("Server"), None);
    let seen = upstream.last();
    assert_eq!(seen.all("X-Env"), ["prod"]);
    assert_eq!((seen.header("X_Env"), seen.header("X_Debug")), (None, None), "in no spelling");
    assert_eq!(seen.all("X-Tag"), ["a", "b"]);
    assert_eq!((seen.header("X-Debug"), seen.header("Authorization")), (None, Some("Basic YTpi")));
    assert_eq!(seen.header("X-User-Name"), Some("ann"));
}

#[test]
fn a_listener_sends_everybody_to_the_same_place_by_https() {
    let start = |redirect: &str| {
        let listener = format!(", redirect: \"{redirect}\"");
        Gateway::alone(Settings { listener, ..Settings::default() })
    };
    let gateway = start("https");
    let ask = |request: &str| {
        let response = gateway.client().send(request).response();
        (response.status, response.header("Location").map(str::to_owned))
    };
    let to = |location: &str| (308, Some(location.to_owned()));
    assert_eq!(
        ask("GET /public/a%40b?c=%2f HTTP/1.1\r\nHost: A.example.com:8080\r\n\r\n"),
        to("https://a.example.com/public/a%40b?c=%2f")
    );
    assert_eq!(
        ask("POST /auth/login HTTP/1.1\r\nHost: [::1]:80\r\nContent-Length: 2\r\n\r\n{}"),
        to("https://[::1]/auth/login")
    );
    assert_eq!(ask("GET / HTTP/1.0\r\n\r\n"), (400, None), "no host, nowhere to go");
    assert_eq!(ask("GET //evil.com HTTP/1.1\r\nHost: a\r\n\r\n"), (400, None));
    let response = start("https:8443").get("/x", None);
    assert_eq!(response.header("Location"), Some("https://localhost:8443/x"));
}
