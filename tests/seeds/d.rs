//! A User Authentication Service.

use serde_json::json;

use super::PASSWORD;
use crate::harness::{Gateway, shared_database};

fn gateway() -> Gateway {
    let url = shared_database();
    Gateway::seed("d", &[("DATABASE_URL", &url)])
}

#[test]
fn logging_out_makes_the_session_token_invalid() {
    let gateway = gateway();
    let body = json!({"username": "alice", "password": PASSWORD});
    assert_eq!(gateway.post("/register", &body).status, 201);
    let login = gateway.post("/login", &body);
    assert_eq!(login.status, 200);
    let token = login.json()["session_token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.get("/me", Some(&token)).status, 200);
    let logout = gateway.send("POST", "/logout", Some(&token), None);
    assert_eq!((logout.status, logout.message().as_str()), (200, "Logged out successfully"));
    assert_eq!(gateway.get("/me", Some(&token)).status, 401);
    assert_eq!(gateway.send("POST", "/logout", Some(&token), None).status, 401);
}

#[test]
fn a_failed_registration_is_400_and_anything_else_401() {
    let gateway = gateway();
    let body = json!({"username": "alice", "password": PASSWORD});
    assert_eq!(gateway.post("/register", &body).status, 201);
    for body in [body, json!({"username": "bob"}), json!({"username": "bob", "password": "short"})] {
        assert_eq!(gateway.post("/register", &body).status, 400, "{body}");
    }
    let wrong = json!({"username": "alice", "password": "not this password"});
    assert_eq!(gateway.post("/login", &wrong).status, 401);
    assert_eq!(gateway.send("POST", "/logout", None, None).status, 401);
    assert_eq!(gateway.send("POST", "/logout", Some("not.a.token"), None).status, 401);
}

#[test]
fn attempts_are_limited() {
    let gateway = gateway();
    let body = json!({"username": "alice", "password": PASSWORD});
    assert_eq!(gateway.post("/register", &body).status, 201);
    let wrong = json!({"username": "alice", "password": "not this password"});
    let statuses: Vec<u16> = (0..12).map(|_| gateway.post("/login", &wrong).status).collect();
    assert_eq!(statuses[..10], [401; 10]);
    assert_eq!(statuses[10..], [429; 2]);
}
