//! Which names people get, and what operators may do beyond that.

use serde_json::json;

use crate::harness::{Gateway, PASSWORD, Settings, shared_database};

fn gateways() -> Vec<Gateway> {
    ["sqlite:authgate.db".to_owned(), shared_database()]
        .into_iter()
        .map(|url| Gateway::alone(Settings { store: format!("{{url: \"{url}\"}}"), ..Settings::default() }))
        .collect()
}

#[test]
fn nobody_registers_a_name_that_could_be_taken_for_something_else() {
    let gateway = Gateway::alone(Settings::default());
    for name in ["ceo@corp.example", "https://corp.example", "a/b", "a:b", "Admin", "r\u{43e}ot", "system"] {
        let response = gateway.post("/auth/register", &json!({"username": name, "password": PASSWORD}));
        assert_eq!((response.status, response.message().as_str()), (400, "Username not accepted"), "{name}");
        assert!(response.json()["detail"].is_string());
    }
    let token = gateway.token("alice");
    let response =
        gateway.send("POST", "/auth/change", Some(&token), Some(&json!({"new_username": "admin"})));
    assert_eq!((response.status, response.message().as_str()), (400, "Username not accepted"));
    // An operator may, and is told.
    let output = gateway.command(&["user", "add", "ceo@corp.example", "--password-stdin"], PASSWORD);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("auth.username"));
    assert_eq!(gateway.try_login("ceo@corp.example", PASSWORD).status, 200);
    assert!(!gateway.admin_token("root").is_empty());
}

#[test]
fn the_rules_for_names_are_the_operators() {
    let rules = "  username: {pattern: \"[a-z]+@example[.]com|[a-z]{2,}\", min_length: 3, max_length: 20, reserved: [chief]}\n";
    let gateway = Gateway::alone(Settings::default().auth(rules));
    let register =
        |name: &str| gateway.post("/auth/register", &json!({"username": name, "password": PASSWORD})).status;
    for (name, status) in [
        ("alice@example.com", 201),
        ("admin", 201),
        ("chief", 400),
        ("ab", 400),
        ("a1b", 400),
        ("abcdefghijklmnopqrstu", 400),
        ("x@other.com", 400),
    ] {
        assert_eq!(register(name), status, "{name}");
    }
}

#[test]
fn letters_and_emojis_of_today_are_what_people_type() {
    let gateway = Gateway::alone(Settings::default());
    let password = "correct horse \u{1f97a}\u{1fae0} battery";
    let body = json!({"username": "\u{104b0}\u{104b1}", "password": password});
    let made = gateway.post("/auth/register", &body);
    assert_eq!((made.status, made.json()["username"].as_str()), (201, Some("\u{104d8}\u{104d9}")));
    assert_eq!(gateway.try_login("\u{104d8}\u{104d9}", password).status, 200);
    let spaced = password.replace(' ', "\u{a0}");
    assert_eq!(gateway.try_login("\u{104d8}\u{104d9}", &spaced).status, 200);
    let bell =
        gateway.post("/auth/register", &json!({"username": "bob", "password": "a bell \u{7} in a password"}));
    assert_eq!((bell.status, bell.message().as_str()), (400, "Password not accepted"));
}

#[test]
fn names_of_former_accounts_are_given_out_again_by_an_operator_only() {
    for gateway in gateways() {
        let admin = gateway.admin_token("chief");
        for name in ["alice", "bob", "carol"] {
            gateway.register(name);
            gateway.run(&["user", "delete", name], "");
            let body = json!({"username": name, "password": PASSWORD});
            assert_eq!(gateway.post("/auth/register", &body).status, 409);
        }
        let add = |args: &[&str]| {
            gateway.command(&[&["user", "add"], args, &["--password-stdin"]].concat(), PASSWORD)
        };
        assert!(!add(&["alice"]).status.success());
        assert!(add(&["alice", "--release"]).status.success());
        gateway.run(&["user", "release-name", "bob"], "");
        assert!(!gateway.command(&["user", "release-name", "bob"], "").status.success());
        gateway.register("bob");
        assert_eq!(gateway.admin("DELETE", "/api/names/carol", Some(&admin), None).status, 200);
        assert_eq!(gateway.admin("DELETE", "/api/names/carol", Some(&admin), None).status, 404);
        let body = json!({"username": "carol", "password": PASSWORD});
        assert_eq!(gateway.admin("POST", "/api/users", Some(&admin), Some(&body)).status, 201);
        let trail = gateway.run(&["audit"], "");
        assert_eq!(trail.matches("name.release").count(), 2, "{trail}");
    }
}

#[test]
fn a_look_alike_is_vetoed_unless_an_operator_says_otherwise() {
    for gateway in gateways() {
        let admin = gateway.admin_token("chief");
        gateway.register("paypal");
        let alike = "p\u{430}ypal";
        assert!(!gateway.command(&["user", "add", alike, "--password-stdin"], PASSWORD).status.success());
        gateway.run(&["user", "add", alike, "--allow-similar", "--password-stdin"], PASSWORD);
        assert_eq!(gateway.try_login(alike, PASSWORD).json()["username"], alike);
        assert_eq!(gateway.try_login("paypal", PASSWORD).json()["username"], "paypal");
        // The first one's look is still guarded.
        let third = json!({"username": "payp\u{430}l", "password": PASSWORD});
        assert_eq!(gateway.post("/auth/register", &third).status, 409);
        let mut allowed = third.clone();
        allowed["allow_similar"] = true.into();
        assert_eq!(gateway.admin("POST", "/api/users", Some(&admin), Some(&third)).status, 409);
        assert_eq!(gateway.admin("POST", "/api/users", Some(&admin), Some(&allowed)).status, 201);
        let csv = gateway.folder.path().join("users.csv");
        let hash = "pbkdf2:sha256:1000$salt$d8ae0ba3a6e36b3a2cd9f3e9c2f1d1e2f6c3e1b0a9d8c7b6a5948372615f4e3d";
        std::fs::write(&csv, format!("id,username,password\n1,paypa\u{4cf},{hash}\n")).unwrap();
        let import = |more: &[&str]| {
            gateway
                .run(&[&["user", "import", "--csv", csv.to_str().unwrap(), "--id", "id"], more].concat(), "")
        };
        assert!(import(&[]).contains("1 refused"));
        assert!(import(&["--allow-similar"]).contains("1 imported"));
        assert!(import(&["--allow-similar"]).contains("1 were here before"));
    }
}

#[test]
fn administrators_do_not_undo_each_others_changes_unseen() {
    for gateway in gateways() {
        let admin = gateway.admin_token("chief");
        let id = gateway.register("alice")["user_id"].as_str().unwrap().to_owned();
        let path = format!("/api/users/{id}");
        let patch = |version: &str, body: &serde_json::Value| {
            let body = body.to_string();
            crate::harness::Client::connect(gateway.admin)
                .send(format!(
                    "PATCH {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {admin}\r\n{version}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                ))
                .response()
        };
        let shown = gateway.admin("GET", &path, Some(&admin), None);
        let version = shown.header("ETag").unwrap().to_owned();
        assert_eq!(version, format!("\"{}\"", shown.json()["version"]));
        let seen = format!("If-Match: {version}\r\n");
        let changed = patch(&seen, &json!({"roles": ["staff"]}));
        assert_eq!(changed.status, 200);
        let stale = patch(&seen, &json!({"disabled": true}));
        assert_eq!((stale.status, stale.message().as_str()), (412, "Precondition failed"));
        assert_eq!(patch("If-Match: \"x\"\r\n", &json!({"disabled": true})).status, 412);
        let fresh = format!("If-Match: {}\r\n", changed.header("ETag").unwrap());
        assert_eq!(patch(&fresh, &json!({"disabled": true})).status, 200);
        assert_eq!(patch("If-Match: *\r\n", &json!({"disabled": false})).status, 200);
        assert_eq!(patch("", &json!({"disabled": true})).status, 200);
    }
}
