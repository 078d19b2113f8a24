//! Which route wins, and what it asks for.

use serde_json::json;

use crate::harness::{Gateway, PASSWORD, Settings};

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
