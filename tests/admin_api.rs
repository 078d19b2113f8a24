//! The admin API: for administrators only, and every change leaves a trace.

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, PASSWORD, Settings, eventually, shared_database};

fn gateways() -> Vec<Gateway> {
    vec![Gateway::alone(Settings::default()), Gateway::alone(Settings::postgres(&shared_database()))]
}

fn add(gateway: &Gateway, admin: &str, name: &str) -> String {
    let body = json!({"username": name, "password": PASSWORD, "email": format!("{name}@example.com")});
    let response = gateway.admin("POST", "/api/users", Some(admin), Some(&body));
    assert_eq!(response.status, 201, "{response:?}");
    response.json()["user_id"].as_str().unwrap().to_owned()
}

fn names(response: &Value) -> Vec<&str> {
    response["users"].as_array().unwrap().iter().map(|user| user["username"].as_str().unwrap()).collect()
}

#[test]
fn only_a_bearer_who_administers_now_is_let_in() {
    let gateway = Gateway::alone(Settings::default());
    let admin = gateway.admin_token("root");
    let user = gateway.token("alice");
    for path in ["/api/users", "/api/keys", "/api/audit"] {
        assert_eq!(gateway.admin("GET", path, Some(&admin), None).status, 200, "{path}");
        assert_eq!(gateway.admin("GET", path, Some(&user), None).status, 403, "{path}");
        let none = gateway.admin("GET", path, None, None);
        assert_eq!((none.status, none.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        assert_eq!(gateway.admin("GET", path, Some("not.a.token"), None).status, 401, "{path}");
        let public = gateway.get(path, Some(&admin)).text();
        assert!(!public.contains("user_id") && !public.contains("kid"), "on the public listener: {public}");
    }
    let other =
        format!("GET /api/users HTTP/1.1\r\nHost: evil.example\r\nAuthorization: Bearer {admin}\r\n\r\n");
    assert_eq!(Client::connect(gateway.admin).send(other).response().status, 403);
    // Another process takes the role away: the store is asked, whatever the mirror knows yet.
    gateway.run(&["user", "set-roles", "root", "--role", "user"], "");
    assert!([401, 403].contains(&gateway.admin("GET", "/api/users", Some(&admin), None).status));
}

#[test]
fn the_admin_listener_answers_to_the_names_that_it_was_given() {
    let admin = ", hosts: [authgate.default.svc]".to_owned();
    let gateway = Gateway::alone(Settings { admin, ..Settings::default() });
    let probe = |host: &str| {
        let request = format!("GET /livez HTTP/1.1\r\nHost: {host}\r\n\r\n");
        Client::connect(gateway.admin).send(request).response().status
    };
    for (host, status) in [
        ("authgate.default.svc", 200),
        ("AuthGate.Default.svc:9901", 200),
        ("localhost", 200),
        ("127.0.0.1:9901", 200),
        ("default.svc", 403),
        ("x.authgate.default.svc", 403),
    ] {
        assert_eq!(probe(host), status, "{host}");
    }
}

#[test]
fn an_ended_session_of_an_administrator_is_none() {
    let gateway = Gateway::alone(Settings::default());
    let admin = gateway.admin_token("root");
    gateway.logout(&admin);
    assert_eq!(gateway.admin("GET", "/api/users", Some(&admin), None).status, 401);
}

#[test]
fn accounts_are_found_by_what_is_exactly_theirs() {
    for gateway in gateways() {
        let admin = gateway.admin_token("root");
        for (name, roles) in
            [("alice", json!(["staff", "user"])), ("bob", json!(["staff_x"])), ("carol", json!([]))]
        {
            let new = json!({"username": name, "password": PASSWORD, "roles": roles, "email": format!("{name}@Example.com")});
            assert_eq!(gateway.admin("POST", "/api/users", Some(&admin), Some(&new)).status, 201);
        }
        gateway.run(&["user", "disable", "carol"], "");
        let found = |query: &str| {
            let response = gateway.admin("GET", &format!("/api/users?{query}"), Some(&admin), None);
            assert_eq!(response.status, 200, "{query}: {response:?}");
            names(&response.json()).into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(found("email=ALICE@example.com"), ["alice"]);
        assert!(found("email=lice@example.com").is_empty() && found("external_id=4711").is_empty());
        assert_eq!(found("role=staff"), ["alice"]);
        assert_eq!(found("disabled=true"), ["carol"]);
        assert_eq!(found("disabled=false&role=staff_x"), ["bob"]);
        let illegal = gateway.admin("GET", "/api/users?role=No%20Role", Some(&admin), None);
        assert_eq!(illegal.status, 400);
    }
}

#[test]
fn all_that_is_kept_about_an_account_is_exported_without_its_secrets() {
    for gateway in gateways() {
        let admin = gateway.admin_token("root");
        let registered = gateway.register("alice");
        let token = registered["access_token"].as_str().unwrap();
        let key = gateway.send("POST", "/auth/keys", Some(token), Some(&json!({"name": "backup"}))).json();
        let factor =
            gateway.send("POST", "/auth/factors", Some(token), Some(&json!({"type": "totp"}))).json();
        gateway.login("alice");
        let path = format!("/api/users/{}/export", registered["user_id"].as_str().unwrap());
        let exported = gateway.admin("GET", &path, Some(&admin), None);
        assert_eq!(exported.status, 200, "{exported:?}");
        assert!(exported.header("content-disposition").unwrap().starts_with("attachment"));
        let body = exported.json();
        assert_eq!((&body["account"]["username"], &body["has_password"]), (&json!("alice"), &json!(true)));
        assert_eq!(body["sessions"].as_array().unwrap().len(), 2);
        assert_eq!(body["keys"]["keys"][0]["name"], "backup");
        let actions: Vec<_> = body["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["action"].as_str().unwrap())
            .collect();
        assert!(actions.contains(&"api-key.create") && actions.contains(&"user.login"), "{actions:?}");
        let text = exported.text();
        for secret in [&key["key"], &factor["secret"]] {
            assert!(!text.contains(secret.as_str().unwrap()), "{text}");
        }
        assert!(!text.contains("argon2"));
        let trail = gateway.admin("GET", "/api/audit?limit=1", Some(&admin), None).json();
        assert_eq!(trail["entries"][0]["action"], "user.export");
        assert_eq!(gateway.admin("GET", &path, Some(token), None).status, 403);
    }
}

#[test]
fn accounts_are_made_found_and_shown_in_pages() {
    for gateway in gateways() {
        let admin = gateway.admin_token("root");
        for name in ["alice", "bob", "carol", "per_cent", "j\u{f6}rg"] {
            add(&gateway, &admin, name);
        }
        let list = |query: &str| {
            let response = gateway.admin("GET", &format!("/api/users{query}"), Some(&admin), None);
            assert_eq!(response.status, 200, "{response:?}");
            response.json()
        };
        assert_eq!(names(&list("")), ["alice", "bob", "carol", "j\u{f6}rg", "per_cent", "root"]);
        let first = list("?limit=2");
        assert_eq!((names(&first), &first["next"]), (vec!["alice", "bob"], &json!("bob")));
        let rest = list("?limit=10&after=bob");
        assert_eq!(names(&rest), ["carol", "j\u{f6}rg", "per_cent", "root"]);
        assert_eq!(rest.get("next"), None);
        assert_eq!(names(&list("?search=AL")), ["alice"]);
        assert_eq!(names(&list("?search=carol%40example")), ["carol"]);
        assert_eq!(names(&list("?search=r_c")), ["per_cent"], "`_` is no wildcard");
        assert!(names(&list("?search=%25")).is_empty(), "`%` is no wildcard");
        assert_eq!(names(&list("?search=J%C3%96R")), ["j\u{f6}rg"]);
        for query in ["?limit=0", "?limit=501", "?limit=x", "?limit=1&limit=2"] {
            let response = gateway.admin("GET", &format!("/api/users{query}"), Some(&admin), None);
            assert_eq!(response.status, 400, "{query}");
        }
        let duplicate = json!({"username": "ALICE", "password": PASSWORD});
        assert_eq!(gateway.admin("POST", "/api/users", Some(&admin), Some(&duplicate)).status, 409);
        let short = json!({"username": "dave", "password": "short"});
        assert_eq!(gateway.admin("POST", "/api/users", Some(&admin), Some(&short)).status, 400);
        assert_eq!(gateway.admin("GET", "/api/users/nobody", Some(&admin), None).status, 404);
    }
}

#[test]
fn what_an_administrator_changes_is_in_force_at_once() {
    for gateway in gateways() {
        let admin = gateway.admin_token("root");
        let id = add(&gateway, &admin, "alice");
        let path = format!("/api/users/{id}");
        let update = |body: Value| gateway.admin("PATCH", &path, Some(&admin), Some(&body));
        let token = || gateway.login("alice")["access_token"].as_str().unwrap().to_owned();

        let before = token();
        assert_eq!(update(json!({"roles": ["admin", "user"]})).json()["roles"], json!(["admin", "user"]));
        assert_eq!(gateway.get("/api/x", Some(&before)).status, 401);

        let before = token();
        assert_eq!(update(json!({"disabled": true})).json()["disabled"], true);
        assert_eq!(gateway.get("/api/x", Some(&before)).status, 401);
        assert_eq!(gateway.try_login("alice", PASSWORD).status, 401);
        assert_eq!(update(json!({"disabled": false})).status, 200);

        let before = token();
        let listed = gateway.admin("GET", &format!("{path}/sessions"), Some(&admin), None).json();
        let session = listed["sessions"][0]["id"].as_str().unwrap().to_owned();
        let end = format!("{path}/sessions/{session}");
        assert_eq!(gateway.admin("DELETE", &end, Some(&admin), None).status, 200);
        assert_eq!(gateway.get("/api/x", Some(&before)).status, 401);
        assert_eq!(gateway.admin("DELETE", &end, Some(&admin), None).status, 404);

        let before = token();
        assert_eq!(gateway.admin("DELETE", &format!("{path}/sessions"), Some(&admin), None).status, 200);
        assert_eq!(gateway.get("/api/x", Some(&before)).status, 401);

        let before = token();
        assert_eq!(update(json!({"password": "another password for the tests"})).status, 200);
        assert_eq!(gateway.get("/api/x", Some(&before)).status, 401);
        assert_eq!(gateway.try_login("alice", PASSWORD).status, 401);

        assert_eq!(update(json!({"email": null})).json()["email"], Value::Null);
        assert_eq!(update(json!({})).status, 400);
        assert_eq!(update(json!({"roles": ["Not a role"]})).status, 400);
        assert_eq!(gateway.admin("DELETE", &path, Some(&admin), None).status, 200);
        assert_eq!(gateway.admin("GET", &path, Some(&admin), None).status, 404);
    }
}

#[test]
fn the_last_administrator_cannot_be_removed() {
    for gateway in gateways() {
        let admin = gateway.admin_token("root");
        let me = gateway.get("/auth/me", Some(&admin)).json()["user_id"].as_str().unwrap().to_owned();
        let path = format!("/api/users/{me}");
        for (method, body) in [
            ("PATCH", Some(json!({"roles": []}))),
            ("PATCH", Some(json!({"disabled": true}))),
            ("DELETE", None),
        ] {
            let response = gateway.admin(method, &path, Some(&admin), body.as_ref());
            assert_eq!(response.status, 403, "{response:?}");
        }
        assert_eq!(gateway.admin("GET", &path, Some(&admin), None).status, 200);
    }
}

#[test]
fn keys_are_listed_and_rotated() {
    let gateway = Gateway::alone(Settings::default());
    let admin = gateway.admin_token("root");
    let list = || gateway.admin("GET", "/api/keys", Some(&admin), None).json();
    assert_eq!(list()["keys"].as_array().unwrap().len(), 1);
    let made = gateway.admin("POST", "/api/keys/rotate", Some(&admin), None);
    assert_eq!(made.status, 201);
    assert_eq!(list()["keys"].as_array().unwrap().len(), 2);
    let kid = made.json()["kid"].as_str().unwrap().to_owned();
    eventually("the key is published", || {
        gateway.get("/auth/jwks.json", None).text().contains(&kid).then_some(())
    });
    let shared = Gateway::alone(Settings::shared_secret());
    let admin = shared.admin_token("root");
    let response = shared.admin("POST", "/api/keys/rotate", Some(&admin), None);
    assert_eq!((response.status, response.message().as_str()), (409, "Keys come from the config"));
}

#[test]
fn every_change_is_in_the_audit_trail_with_who_what_when_and_from_where() {
    for gateway in gateways() {
        let admin = gateway.admin_token("root");
        let root = gateway.get("/auth/me", Some(&admin)).json()["user_id"].clone();
        let id = add(&gateway, &admin, "alice");
        let path = format!("/api/users/{id}");
        for (method, path, body) in [
            ("PATCH", path.clone(), Some(json!({"roles": ["staff"]}))),
            ("PATCH", path.clone(), Some(json!({"disabled": true}))),
            ("PATCH", path.clone(), Some(json!({"disabled": false}))),
            ("PATCH", path.clone(), Some(json!({"password": "another password for the tests"}))),
            ("DELETE", format!("{path}/sessions"), None),
            ("DELETE", path.clone(), None),
            ("POST", "/api/keys/rotate".to_owned(), None),
        ] {
            let status = gateway.admin(method, &path, Some(&admin), body.as_ref()).status;
            assert!([200, 201].contains(&status), "{method} {path}: {status}");
        }
        let trail = |query: &str| {
            let response = gateway.admin("GET", &format!("/api/audit{query}"), Some(&admin), None);
            assert_eq!(response.status, 200, "{response:?}");
            response.json()["entries"].as_array().unwrap().clone()
        };
        let entries = trail("");
        let actions: Vec<&str> = entries.iter().map(|entry| entry["action"].as_str().unwrap()).collect();
        assert_eq!(
            actions,
            [
                "key.rotate",
                "user.delete",
                "user.end-sessions",
                "user.set-password",
                "user.enable",
                "user.disable",
                "user.set-roles",
                "user.add",
                "user.login",
                "user.add",
            ]
        );
        let disabled = &entries[5];
        assert_eq!((&disabled["actor_id"], &disabled["actor"]), (&root, &json!("root")));
        assert_eq!((&disabled["subject_id"], &disabled["subject"]), (&json!(id), &json!("alice")));
        assert_eq!(disabled["address"], "127.0.0.1");
        assert!(disabled["at"].as_str().unwrap().starts_with("20"));
        assert_eq!(entries[6]["detail"], "roles: staff");
        // The command line's own.
        assert_eq!(entries[9]["actor_id"], Value::Null);
        assert!(entries[9]["address"].as_str().unwrap().starts_with("command line on "));
        assert!(!json!(entries).to_string().contains("password for the tests"));
        assert_eq!(trail(&format!("?user={id}")).len(), 7);
        let page = gateway.admin("GET", "/api/audit?limit=2", Some(&admin), None).json();
        let before = page["next"].as_i64().unwrap();
        assert_eq!(trail(&format!("?before={before}&limit=100")).len(), 8);
        let printed = gateway.run(&["audit"], "");
        assert!(printed.contains("user.set-roles") && printed.contains("roles: staff"), "{printed}");
        let json = gateway.run(&["audit", "--json", "--limit", "1"], "");
        assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["action"], "key.rotate");
    }
}

#[test]
fn what_users_change_themselves_is_in_the_trail_too() {
    let gateway = Gateway::alone(Settings::default());
    let token = gateway.token("alice");
    let change = json!({"new_username": "alicia"});
    let response = gateway.send("POST", "/auth/change", Some(&token), Some(&change));
    let token = response.json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.send("DELETE", "/auth/me", Some(&token), None).status, 200);
    let printed = gateway.run(&["audit"], "");
    assert!(printed.contains("user.delete") && printed.contains("user.change"), "{printed}");
}

#[test]
fn bodies_and_methods_are_checked() {
    let gateway = Gateway::alone(Settings::default());
    let admin = gateway.admin_token("root");
    let send = |head: &str, body: &str| {
        let request = format!(
            "{head} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {admin}\r\nContent-Length: {}\r\n",
            body.len()
        );
        request + "Content-Type: application/json\r\n\r\n" + body
    };
    let status =
        |head: &str, body: &str| Client::connect(gateway.admin).send(send(head, body)).response().status;
    assert_eq!(status("POST /api/users", "[\"alice\"]"), 400);
    assert_eq!(status("POST /api/users", "{"), 400);
    assert_eq!(status("POST /api/users", "{\"username\": 1, \"password\": \"x\"}"), 400);
    assert_eq!(status("POST /api/users", &" ".repeat(70_000)), 413);
    assert_eq!(status("PUT /api/users", "{}"), 405);
    assert_eq!(status("GET /api/nothing", ""), 404);
    let no_type = send("POST /api/users", "{}").replace("Content-Type: application/json\r\n", "");
    assert_eq!(Client::connect(gateway.admin).send(no_type).response().status, 415);
}

#[test]
fn a_token_from_before_a_change_on_another_gateway_is_refused_at_once() {
    let settings =
        Settings::postgres(&shared_database()).auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n");
    let gateways = [Gateway::alone(settings.clone()), Gateway::alone(settings)];
    let old = gateways[0].admin_token("root");
    assert_eq!(gateways[1].admin("GET", "/api/users", Some(&old), None).status, 200);
    // The session lives on with new tokens; only the generation tells the old one.
    let change = json!({"new_password": "another password for the tests"});
    assert_eq!(gateways[0].send("POST", "/auth/change", Some(&old), Some(&change)).status, 200);
    assert_eq!(gateways[1].admin("GET", "/api/users", Some(&old), None).status, 401);
}
