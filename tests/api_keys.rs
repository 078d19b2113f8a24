//! API keys: what they open, what they do not, and how they end.

use std::{
    thread,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::{
    Client, Cluster, Gateway, Response, Settings, Upstream, eventually,
    fleet::{BOUND, pair},
    protocol::by_each_protocol,
};

/// A key of the one who has this token; the whole response.
#[track_caller]
fn make(gateway: &Gateway, token: &str, body: Value) -> Value {
    let response = gateway.send("POST", "/auth/keys", Some(token), Some(&body));
    assert_eq!(response.status, 201, "{response:?}");
    response.json()
}

fn text(value: &Value, member: &str) -> String {
    value[member].as_str().unwrap().to_owned()
}

/// One request with these lines of headers.
#[track_caller]
fn with(gateway: &Gateway, path: &str, headers: &str) -> Response {
    gateway.client().send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")).response()
}

#[track_caller]
fn end(gateway: &Gateway, token: &str, key: &Value) -> u16 {
    let path = format!("/auth/keys/{}", text(key, "id"));
    gateway.send("DELETE", &path, Some(token), None).status
}

/// Settings by which bad keys do not end a test.
fn settings() -> Settings {
    Settings::default().auth("  throttle: {address: {failures: 10000, per: 1m}}\n")
}

fn by_all_ways() -> Settings {
    settings().auth("  keys: {basic: true, header: true}\n")
}

#[test]
#[ignore = "slow"]
fn a_key_opens_what_its_owner_may_and_is_shown_once() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, by_all_ways());
    let registered = gateway.register("alice");
    let token = text(&registered, "access_token");
    let made = make(&gateway, &token, json!({"name": " nightly backup "}));
    let (id, key, prefix) = (text(&made, "id"), text(&made, "key"), text(&made, "prefix"));
    assert_eq!((prefix.clone(), text(&made, "name")), (format!("agk_{id}"), "nightly backup".to_owned()));
    assert!(key.starts_with(&format!("{prefix}_")) && made["expires_at"].is_null(), "{made}");
    assert!(key.split('_').all(|part| part.bytes().all(|byte| byte.is_ascii_alphanumeric())), "{key}");

    assert_eq!(gateway.get("/api/x", Some(&key)).status, 200);
    let seen = upstream.seen().pop().unwrap();
    assert_eq!(seen.header("x-user-id"), registered["user_id"].as_str());
    assert_eq!((seen.header("x-user-name"), seen.header("x-user-roles")), (Some("alice"), Some("user")));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(gateway.get("/admin/x", Some(&key)).status, 403);
    assert_eq!(gateway.get("/optional/x", Some(&key)).status, 200);

    let listed = gateway.get("/auth/keys", Some(&token)).json();
    let entry = &listed["keys"][0];
    assert_eq!((text(entry, "id"), text(entry, "prefix")), (id, prefix));
    assert_eq!(listed["keys"].as_array().unwrap().len(), 1);
    assert!(entry["routes"].is_null() && entry["roles"].is_null() && entry["address_ranges"].is_null());
    let secret = key.split('_').nth(2).unwrap();
    // By whichever way it comes, nothing tells of more than its prefix.
    let basic = STANDARD.encode(format!("app:{key}"));
    for (path, line) in [
        ("/api/x", format!("Authorization: Basic {basic}")),
        ("/api/x", format!("X-Api-Key: {key}")),
        ("/admin/x", format!("Authorization: Basic {basic}")),
        ("/api/x", format!("Authorization: Basic {}", STANDARD.encode(format!("app:{key}x")))),
        ("/api/x", format!("X-Api-Key: {key}x")),
    ] {
        with(&gateway, path, &format!("{line}\r\n"));
    }
    let said = [listed.to_string(), gateway.log(), gateway.admin_get("/metrics").text()];
    for said in &said {
        assert!(![secret, key.as_str(), basic.as_str()].iter().any(|part| said.contains(part)), "{said}");
    }
    eventually("its last use is told", || {
        gateway.get("/auth/keys", Some(&token)).json()["keys"][0]["last_used_at"].as_str().map(drop)
    });
}

#[test]
fn what_is_no_key_is_refused_and_nothing_reaches_the_upstream() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, by_all_ways());
    let token = gateway.token("alice");
    let made = make(&gateway, &token, json!({"name": "a"}));
    let (key, prefix) = (text(&made, "key"), text(&made, "prefix"));
    let other = text(&make(&gateway, &token, json!({"name": "b"})), "key");
    let [own, foreign] = [&key, &other].map(|key| key.split('_').collect::<Vec<_>>());
    // The secret of the other, with its check and with one's own.
    let mixed = format!("{prefix}_{}_{}", foreign[2], foreign[3]);
    let crossed = format!("{prefix}_{}_{}", own[2], foreign[3]);
    let before = upstream.bytes();
    for bad in [
        &key[..key.len() - 1],
        &format!("{key}a"),
        &key.replacen("agk_", "AGK_", 1),
        &key.to_uppercase(),
        &prefix,
        &format!("{prefix}_"),
        "agk_",
        "agk",
        &mixed,
        &crossed,
        &format!("agk_{}_{}_{}", "0".repeat(10), "0".repeat(27), "0".repeat(6)),
    ] {
        for headers in [format!("Authorization: Bearer {bad}"), format!("X-Api-Key: {bad}")] {
            for path in ["/api/x", "/optional/x"] {
                let response = with(&gateway, path, &format!("{headers}\r\n"));
                assert_eq!((response.status, response.message().as_str()), (401, "Missing or invalid token"));
            }
        }
    }
    // A token is no key.
    assert_eq!(with(&gateway, "/api/x", &format!("X-Api-Key: {token}\r\n")).status, 401);
    // Nothing reads a key out of an address.
    assert_eq!(gateway.get(&format!("/api/x?access_token={key}&api_key={key}"), None).status, 401);
    assert_eq!(upstream.bytes(), before);
}

#[test]
fn native_apps_and_scripts_bring_a_key_as_a_password_or_in_a_header_of_its_own() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, by_all_ways());
    let token = gateway.token("alice");
    let made = make(&gateway, &token, json!({"name": "a", "routes": ["/api/orders/**"]}));
    let key = text(&made, "key");
    let basic = |user: &str, key: &str| {
        format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{user}:{key}")))
    };
    let header = format!("X-Api-Key: {key}\r\n");
    for headers in [
        basic("alice", &key),
        basic("ALICE", &key),
        basic(&text(&made, "id"), &key),
        basic(&text(&made, "prefix"), &key),
        header.clone(),
        format!("Authorization: Bearer {key}\r\n"),
    ] {
        assert_eq!(with(&gateway, "/api/orders/1", &headers).status, 200, "{headers}");
        let seen = upstream.seen().pop().unwrap();
        assert_eq!(seen.header("x-user-name"), Some("alice"));
        assert_eq!((seen.header("authorization"), seen.header("x-api-key")), (None, None));
        // A good key elsewhere.
        for path in ["/api/other", "/optional/x"] {
            assert_eq!(with(&gateway, path, &headers).status, 403, "{headers}");
        }
    }
    for headers in [
        basic("bob", &key),
        basic("", &key),
        basic("alice", "a password"),
        basic("alice", &token),
        "Authorization: Basic !!!\r\n".to_owned(),
        format!("Authorization: Basic {}\r\n", STANDARD.encode("no colon")),
        format!("Authorization: Basic {}\r\n", STANDARD.encode("a".repeat(3_000) + ":b")),
        format!("{header}{header}"),
        format!("{header}Authorization: Bearer {token}\r\n"),
        format!("{header}{}", basic("alice", &key)),
    ] {
        assert_eq!(with(&gateway, "/api/orders/1", &headers).status, 401, "{headers}");
    }

    // Without the settings, one is refused and the other an ordinary header.
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings());
    let token = gateway.token("alice");
    assert_eq!(with(&gateway, "/api/x", &basic("alice", &key)).status, 401);
    let both = format!("X-Api-Key: something\r\nAuthorization: Bearer {token}\r\n");
    assert_eq!(with(&gateway, "/api/x", &both).status, 200);
    assert_eq!(upstream.seen().pop().unwrap().header("x-api-key"), Some("something"));
}

#[test]
fn a_key_is_not_forwarded_where_tokens_are() {
    let upstream = Upstream::start();
    let routes = "  - {path: /api/**, forward_token: true, upstream: backend}\n  - {path: /open/**, auth: none, forward_token: true, upstream: backend}\n";
    let gateway = Gateway::start(&upstream, Settings { routes: routes.to_owned(), ..by_all_ways() });
    let token = gateway.token("alice");
    let key = text(&make(&gateway, &token, json!({"name": "a"})), "key");
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    assert!(upstream.seen().pop().unwrap().header("authorization").is_some());
    let basic = STANDARD.encode(format!("alice:{key}"));
    for headers in [
        format!("Authorization: Bearer {key}\r\n"),
        format!("Authorization: Basic {basic}\r\n"),
        format!("X-Api-Key: {key}\r\n"),
    ] {
        // Also where nobody is asked who they are.
        for path in ["/api/x", "/open/x"] {
            assert_eq!(with(&gateway, path, &headers).status, 200);
            let seen = upstream.seen().pop().unwrap();
            assert_eq!((seen.header("authorization"), seen.header("x-api-key")), (None, None), "{headers}");
        }
    }
    // Nor in another scheme, where nobody looks at it.
    for scheme in ["Token ", "Bearer\t", "Basic  ", "Key x=", "ApiKey \""] {
        for shown in [&key, &basic] {
            let headers = format!("Authorization: {scheme}{shown}\r\n");
            assert_eq!(with(&gateway, "/open/x", &headers).status, 200);
            assert_eq!(upstream.seen().pop().unwrap().header("authorization"), None, "{headers}");
        }
    }
    assert_eq!(gateway.get("/open/x", Some(&token)).status, 200);
    assert!(upstream.seen().pop().unwrap().header("authorization").is_some());
}

#[test]
fn a_key_is_limited_to_routes_roles_addresses_and_time() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings().extra("trusted_proxies: [127.0.0.1]\n"));
    gateway.admin_token("root");
    gateway.run(&["user", "set-roles", "root", "--role", "admin", "--role", "user"], "");
    let admin = text(&gateway.login("root"), "access_token");
    let key = |body: Value| text(&make(&gateway, &admin, body), "key");
    let routes = key(json!({"name": "a", "routes": ["/api/orders/{id}", "/public/**"]}));
    for (path, status) in [
        ("/api/orders/1", 200),
        ("/api/orders/1/lines", 403),
        ("/api/orders", 403),
        ("/api/orders/1/", 403),
        ("/admin/x", 403),
        ("/optional/x", 403),
    ] {
        assert_eq!(gateway.get(path, Some(&routes)).status, status, "{path}");
    }
    let roles = key(json!({"name": "b", "roles": ["user"]}));
    assert_eq!(gateway.get("/api/x", Some(&roles)).status, 200);
    assert_eq!(gateway.get("/admin/x", Some(&roles)).status, 403);
    let none = key(json!({"name": "c", "roles": []}));
    assert_eq!(gateway.get("/api/x", Some(&none)).status, 200);
    assert_eq!(upstream.seen().pop().unwrap().header("x-user-roles"), Some(""));
    let addresses = key(json!({"name": "d", "address_ranges": ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]}));
    for (address, status) in [
        ("10.9.8.7", 200),
        ("192.0.2.7", 200),
        ("2001:db8::1", 200),
        ("::ffff:10.1.1.1", 200),
        ("192.0.2.8", 403),
        ("11.0.0.1", 403),
    ] {
        let headers = format!("Authorization: Bearer {addresses}\r\nX-Forwarded-For: {address}\r\n");
        assert_eq!(with(&gateway, "/api/x", &headers).status, status, "{address}");
    }
    let short = make(&gateway, &admin, json!({"name": "e", "expires_in": 2}));
    // Whole seconds are compared, so it ends with one.
    assert!(!short["expires_at"].as_str().unwrap().contains('.'), "{short}");
    assert_eq!(gateway.get("/api/x", Some(&text(&short, "key"))).status, 200);
    eventually("it expires", || {
        (gateway.get("/api/x", Some(&text(&short, "key"))).status == 401).then_some(())
    });
    let listed = gateway.get("/auth/keys", Some(&admin)).json();
    let named =
        |name: &str| listed["keys"].as_array().unwrap().iter().find(|key| key["name"] == name).cloned();
    assert_eq!(named("a").unwrap()["routes"], json!(["/api/orders/{id}", "/public/**"]));
    assert_eq!(named("b").unwrap()["roles"], json!(["user"]));
    assert_eq!(named("d").unwrap()["address_ranges"], json!(["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"]));
    eventually("what has expired is listed no more", || {
        let listed = gateway.get("/auth/keys", Some(&admin)).text();
        (!listed.contains(&text(&short, "id"))).then_some(())
    });
}

#[test]
fn nobody_gets_a_key_for_more_than_they_may_or_for_what_is_nothing() {
    let gateway = Gateway::alone(settings());
    let token = gateway.token("alice");
    let refused = |body: Value| gateway.send("POST", "/auth/keys", Some(&token), Some(&body)).status;
    for (body, status) in [
        (json!({"name": "a", "roles": ["admin"]}), 403),
        (json!({"name": "a", "routes": ["/admin/**"]}), 403),
        (json!({"name": "a", "routes": ["/admin/x"]}), 403),
        (json!({"name": "a", "routes": ["/api/**", "/admin/x"]}), 403),
        (json!({"name": "a", "routes": ["/**"]}), 403),
        (json!({"name": "a", "routes": ["/nowhere"]}), 403),
        (json!({}), 400),
        (json!({"name": ""}), 400),
        (json!({"name": "a".repeat(65)}), 400),
        (json!({"name": "a\nb"}), 400),
        (json!({"name": "a", "routes": ["api"]}), 400),
        (json!({"name": "a", "routes": ["/a/*/b"]}), 400),
        (json!({"name": "a", "routes": []}), 400),
        (json!({"name": "a", "roles": ["No Role"]}), 400),
        (json!({"name": "a", "address_ranges": ["10.0.0.0/33"]}), 400),
        (json!({"name": "a", "address_ranges": []}), 400),
        (json!({"name": "a", "expires_in": 0}), 400),
        (json!({"name": "a", "expires_in": -5}), 400),
        (json!({"name": "a", "expires_in": 1_000_000_000_000_i64}), 400),
        (json!({"name": "a", "expires_in": "soon"}), 400),
    ] {
        assert_eq!(refused(body.clone()), status, "{body}");
    }
    assert_eq!(gateway.get("/auth/keys", Some(&token)).json()["keys"], json!([]));
    assert_eq!(gateway.send("POST", "/auth/keys", None, Some(&json!({"name": "a"}))).status, 401);
}

#[test]
fn a_key_opens_no_call_about_credentials_and_never_meets_a_proof() {
    let upstream = Upstream::start();
    let routes = "  - {path: /mfa/**, mfa: true, upstream: backend}\n  - {path: /fresh/**, fresh: 5m, upstream: backend}\n  - {path: /api/**, upstream: backend}\n";
    let gateway = Gateway::start(&upstream, Settings { routes: routes.to_owned(), ..by_all_ways() });
    let token = gateway.admin_token("root");
    let made = make(&gateway, &token, json!({"name": "a"}));
    let key = text(&made, "key");
    let limited = text(&make(&gateway, &token, json!({"name": "b", "routes": ["/api/**"]})), "key");
    assert_eq!(gateway.get("/mfa/x", Some(&limited)).status, 403);
    for (method, path) in [
        ("GET", "/auth/me"),
        ("GET", "/auth/keys"),
        ("GET", "/auth/sessions"),
        ("GET", "/auth/factors"),
        ("POST", "/auth/keys"),
        ("POST", "/auth/change"),
        ("POST", "/auth/logout"),
        ("POST", "/auth/logout-all"),
        ("POST", "/auth/factors"),
        ("DELETE", "/auth/delete"),
    ] {
        let status = gateway.send(method, path, Some(&key), Some(&json!({"name": "b"}))).status;
        assert!(status == 401 || status == 403, "{method} {path}: {status}");
    }
    assert_eq!(gateway.admin("GET", "/api/users", Some(&key), None).status, 403);
    for path in ["/mfa/x", "/fresh/x"] {
        let response = gateway.get(path, Some(&key));
        assert_eq!(
            (response.status, text(&response.json(), "code").as_str()),
            (401, "insufficient_user_authentication")
        );
    }
    assert_eq!(gateway.get("/api/x", Some(&key)).status, 200);
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn a_key_lives_and_dies_with_its_owner() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings());
    let admin = gateway.admin_token("root");
    let registered = gateway.register("alice");
    let token = text(&registered, "access_token");
    let user = format!("/api/users/{}", text(&registered, "user_id"));
    let change = |body: Value| {
        let changed = gateway.admin("PATCH", &user, Some(&admin), Some(&body));
        assert_eq!(changed.status, 200, "{changed:?}");
    };
    let key = text(&make(&gateway, &token, json!({"name": "a"})), "key");
    let status = |path: &str, key: &str| gateway.get(path, Some(key)).status;
    // Neither of these ends it.
    assert_eq!(gateway.send("POST", "/auth/logout-all", Some(&token), None).status, 200);
    assert_eq!((status("/api/x", &token), status("/api/x", &key)), (401, 200));
    change(json!({"roles": ["admin", "user"]}));
    assert_eq!(status("/admin/x", &key), 200);
    change(json!({"roles": ["user"]}));
    assert_eq!((status("/admin/x", &key), status("/api/x", &key)), (403, 200));
    assert_eq!(upstream.seen().pop().unwrap().header("x-user-roles"), Some("user"));
    let token = text(&gateway.login("alice"), "access_token");
    let renamed = gateway.send("POST", "/auth/change", Some(&token), Some(&json!({"new_username": "anna"})));
    assert_eq!(renamed.status, 200);
    assert_eq!(status("/api/x", &key), 200);
    assert_eq!(upstream.seen().pop().unwrap().header("x-user-name"), Some("anna"));
    // These do, for good.
    change(json!({"disabled": true}));
    assert_eq!(status("/api/x", &key), 401);
    change(json!({"disabled": false}));
    assert_eq!(status("/api/x", &key), 401);
    let token = text(&gateway.login("anna"), "access_token");
    assert_eq!(gateway.get("/auth/keys", Some(&token)).json()["keys"], json!([]));
    let key = text(&make(&gateway, &token, json!({"name": "b"})), "key");
    assert_eq!(status("/api/x", &key), 200);
    assert_eq!(gateway.send("DELETE", "/auth/delete", Some(&token), None).status, 200);
    assert_eq!(status("/api/x", &key), 401);
}

#[test]
fn a_key_is_ended_by_its_owner_alone_and_stays_ended_after_a_restart() {
    let upstream = Upstream::start();
    let mut gateway = Gateway::start(&upstream, settings());
    let (alice, bob) = (gateway.token("alice"), gateway.token("bob"));
    let (kept, ended) =
        (make(&gateway, &alice, json!({"name": "kept"})), make(&gateway, &alice, json!({"name": "ended"})));
    assert_eq!(end(&gateway, &bob, &ended), 404);
    assert_eq!(gateway.send("DELETE", "/auth/keys/nothing", Some(&alice), None).status, 404);
    assert_eq!(end(&gateway, &alice, &ended), 200);
    assert_eq!(gateway.get("/api/x", Some(&text(&ended, "key"))).status, 401);
    assert_eq!(end(&gateway, &alice, &ended), 404);
    gateway.stop();
    let gateway = gateway.restart();
    assert_eq!(gateway.get("/api/x", Some(&text(&ended, "key"))).status, 401);
    assert_eq!(gateway.get("/api/x", Some(&text(&kept, "key"))).status, 200);
    let audit = gateway.admin_token("root");
    let trail = gateway.admin("GET", "/api/audit", Some(&audit), None).text();
    for (action, prefix) in
        [("api-key.create", text(&kept, "prefix")), ("api-key.end", text(&ended, "prefix"))]
    {
        assert!(trail.contains(action) && trail.contains(&prefix), "{trail}");
    }
    let more = text(&make(&gateway, &gateway.token("carol"), json!({"name": "hers"})), "key");
    assert_eq!(gateway.command(&["api-key", "end", "alice"], "").status.code(), Some(2));
    assert_eq!(gateway.run(&["api-key", "end", "alice", "--all"], ""), "Ended: 1.\n");
    let kept = text(&kept, "key");
    eventually("no key of hers opens", || (gateway.get("/api/x", Some(&kept)).status == 401).then_some(()));
    assert_eq!(gateway.get("/api/x", Some(&more)).status, 200);
}

#[test]
fn keys_are_listed_in_pages_and_bounded_in_number() {
    let settings = Settings::default().auth("  throttle: {account: {failures: 1000, per: 1m}}\n");
    let gateway = Gateway::alone(settings);
    let token = gateway.token("alice");
    for number in 0..100 {
        make(&gateway, &token, json!({"name": format!("key {number}")}));
    }
    let one_more = gateway.send("POST", "/auth/keys", Some(&token), Some(&json!({"name": "one more"})));
    assert_eq!(one_more.status, 403, "{one_more:?}");
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = gateway.get(&format!("/auth/keys?limit=30{after}"), Some(&token)).json();
        names.extend(page["keys"].as_array().unwrap().iter().map(|key| text(key, "name")));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    names.sort();
    names.dedup();
    assert_eq!(names.len(), 100);
    assert_eq!(gateway.get("/auth/keys?after=x", Some(&token)).status, 400);
}

#[test]
fn tries_with_keys_that_are_none_are_throttled_by_address_and_good_keys_are_not() {
    let upstream = Upstream::start();
    let settings = Settings::default()
        .auth("  throttle: {address: {failures: 5, per: 1h}}\n  keys: {basic: true, header: true}\n")
        .extra("trusted_proxies: [127.0.0.1]\n");
    let gateway = Gateway::start(&upstream, settings);
    let token = gateway.token("alice");
    let key = text(&make(&gateway, &token, json!({"name": "a"})), "key");
    let from = |address: &str, headers: &str| {
        with(&gateway, "/api/x", &format!("X-Forwarded-For: {address}\r\n{headers}")).status
    };
    let bad = format!("agk_{}_{}_{}", "0".repeat(10), "0".repeat(27), "0".repeat(6));
    let ways = [format!("Authorization: Bearer {bad}\r\n"), format!("X-Api-Key: {bad}\r\n")];
    for number in 0..5 {
        assert_eq!(from("192.0.2.1", &ways[number % 2]), 401, "{number}");
    }
    for way in &ways {
        assert_eq!(from("192.0.2.1", way), 429);
    }
    let refused = with(&gateway, "/api/x", &format!("X-Forwarded-For: 192.0.2.1\r\n{}", ways[0]));
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    let mistyped = format!("Authorization: Bearer {}\r\n", &key[..key.len() - 1]);
    assert_eq!(from("192.0.2.1", &mistyped), 429);
    assert_eq!(from("192.0.2.1", &format!("Authorization: Bearer {key}\r\n")), 200);
    assert_eq!(from("192.0.2.1", &format!("Authorization: Bearer {token}\r\n")), 200);
    assert_eq!(from("192.0.2.2", &ways[0]), 401);
    // Calls of the gateway's own count, too.
    let own = |address: &str| {
        with(&gateway, "/auth/me", &format!("X-Forwarded-For: {address}\r\n{}", ways[0])).status
    };
    assert_eq!((own("192.0.2.1"), own("192.0.2.3")), (429, 401));
}

#[test]
fn a_stream_ends_with_its_key_and_with_its_owners_roles() {
    let upstream = Upstream::with(|seen, socket| {
        use std::io::Write;
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
        if seen.target != "/api/stream" {
            return socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_ok();
        }
        let _ = socket.write_all(head.as_bytes());
        while socket.write_all(b"1\r\na\r\n").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
        false
    });
    let gateway = Gateway::start(&upstream, by_all_ways());
    let admin = gateway.admin_token("root");
    let registered = gateway.register("alice");
    let token = text(&registered, "access_token");
    let streams = |made: &Value, header: &str| {
        let mut client = Client::connect(gateway.address);
        client.send(format!(
            "GET /api/stream HTTP/1.1\r\nHost: localhost\r\n{header}{}\r\n\r\n",
            text(made, "key")
        ));
        assert_eq!(client.head().0, 200);
        client
    };
    let first = make(&gateway, &token, json!({"name": "a"}));
    let mut by_bearer = streams(&first, "Authorization: Bearer ");
    let mut by_header = streams(&first, "X-Api-Key: ");
    assert_eq!(end(&gateway, &token, &first), 200);
    by_bearer.until_closed();
    by_header.until_closed();
    let second = make(&gateway, &token, json!({"name": "b"}));
    let mut stream = streams(&second, "Authorization: Bearer ");
    let user = format!("/api/users/{}", text(&registered, "user_id"));
    let changed = gateway.admin("PATCH", &user, Some(&admin), Some(&json!({"roles": ["staff"]})));
    assert_eq!(changed.status, 200);
    stream.until_closed();
    assert_eq!(gateway.get("/api/x", Some(&text(&second, "key"))).status, 200);
}

#[test]
fn a_key_is_known_and_ended_on_every_gateway() {
    let cluster = Cluster::start();
    let (here, there, proxy) = pair(&cluster);
    let admin = here.admin_token("root");
    let registered = here.register("alice");
    let token = text(&registered, "access_token");
    let user = format!("/api/users/{}", text(&registered, "user_id"));
    let made = make(&here, &token, json!({"name": "a"}));
    let key = text(&made, "key");
    let is = |path: &'static str, status: u16| {
        eventually(&format!("{path} is {status}"), || {
            (there.get(path, Some(&key)).status == status).then_some(())
        });
    };
    is("/api/x", 200);
    let change = |body: Value| {
        assert_eq!(here.admin("PATCH", &user, Some(&admin), Some(&body)).status, 200);
    };
    change(json!({"roles": ["admin"]}));
    is("/admin/x", 200);
    change(json!({"roles": ["user"]}));
    is("/admin/x", 403);
    assert_eq!(there.get("/api/x", Some(&key)).status, 200);
    // By the command line, too.
    here.run(&["user", "set-roles", "alice", "--role", "admin"], "");
    is("/admin/x", 200);
    let token = text(&here.login("alice"), "access_token");
    let ended = make(&here, &token, json!({"name": "b"}));
    eventually("it is known", || {
        (there.get("/api/x", Some(&text(&ended, "key"))).status == 200).then_some(())
    });
    assert_eq!(end(&here, &token, &ended), 200);
    eventually("it has ended", || {
        (there.get("/api/x", Some(&text(&ended, "key"))).status == 401).then_some(())
    });
    // A gateway that cannot know refuses within its bound.
    proxy.block();
    let answered = Instant::now();
    assert_eq!(end(&here, &token, &made), 200);
    assert_eq!(here.get("/api/x", Some(&key)).status, 401);
    loop {
        let begun = answered.elapsed();
        let status = there.get("/api/x", Some(&key)).status;
        assert!(status != 200 || begun <= BOUND, "{begun:?}");
        if begun > BOUND {
            break;
        }
    }
    proxy.open();
    is("/api/x", 401);
    here.run(&["user", "disable", "alice"], "");
}

#[test]
fn keys_that_are_made_at_the_same_time_are_known_with_their_responses() {
    let gateway = Gateway::alone(settings());
    let token = gateway.token("alice");
    thread::scope(|scope| {
        for number in 0..8 {
            let (gateway, token) = (&gateway, &token);
            scope.spawn(move || {
                for round in 0..4 {
                    let made = make(gateway, token, json!({"name": format!("{number} {round}")}));
                    assert_eq!(gateway.get("/api/x", Some(&text(&made, "key"))).status, 200);
                }
            });
        }
    });
}

#[test]
fn keys_are_made_and_ended_no_faster_than_credentials_are_changed() {
    let settings = Settings::default().auth("  throttle: {account: {failures: 1, per: 1h}}\n");
    let gateway = Gateway::alone(settings);
    let token = gateway.token("alice");
    let tried = (0..20).map(|_| {
        gateway.send("POST", "/auth/keys", Some(&token), Some(&json!({"name": "a", "expires_in": 1}))).status
    });
    let statuses: Vec<u16> = tried.collect();
    assert!(statuses.contains(&201) && statuses.last() == Some(&429), "{statuses:?}");
}

#[test]
fn a_stream_by_a_key_in_a_header_ends_when_the_config_takes_no_such_keys() {
    let upstream = Upstream::with(|_, socket| {
        use std::io::Write;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while socket.write_all(b"1\r\na\r\n").is_ok() {
            thread::sleep(Duration::from_millis(20));
        }
        false
    });
    let gateway = Gateway::start(&upstream, by_all_ways());
    let admin = gateway.admin_token("root");
    let key = text(&make(&gateway, &admin, json!({"name": "a"})), "key");
    let mut client = Client::connect(gateway.address);
    client.send(format!("GET /optional/x HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {key}\r\n\r\n"));
    assert_eq!(client.head().0, 200);
    assert_eq!(gateway.reload(&admin, &settings()).status, 200);
    client.until_closed();
}

by_each_protocol!(
    #[ignore = "slow"]
    a_key_opens_what_its_owner_may_and_is_shown_once,
    a_key_is_limited_to_routes_roles_addresses_and_time,
);
