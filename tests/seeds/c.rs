//! A User Authentication System.

use serde_json::json;

use super::PASSWORD;
use crate::harness::{Gateway, shared_database};

fn gateway() -> Gateway {
    let url = shared_database();
    Gateway::seed("c", &[("DATABASE_URL", &url)])
}

fn token(gateway: &Gateway, name: &str) -> String {
    let body = json!({"username": name, "password": PASSWORD});
    assert_eq!(gateway.post("/api/auth/register", &body).status, 201);
    let response = gateway.post("/api/auth/login", &body);
    assert_eq!(response.status, 200);
    response.json()["token"].as_str().unwrap().to_owned()
}

#[test]
fn a_role_may_be_given_at_registration_and_is_user_by_default() {
    let gateway = gateway();
    for (name, role, roles) in
        [("alice", None, "user"), ("bob", Some("user"), "user"), ("carol", Some("editor"), "editor")]
    {
        let response = gateway
            .post("/api/auth/register", &json!({"username": name, "password": PASSWORD, "role": role}));
        assert_eq!(response.status, 201, "{response:?}");
        assert_eq!(response.json()["roles"], json!([roles]));
    }
}

#[test]
fn nobody_registers_as_an_administrator() {
    let gateway = gateway();
    for body in [
        json!({"username": "mallory", "password": PASSWORD, "role": "admin"}),
        json!({"username": "mallory", "password": PASSWORD, "roles": ["user", "admin"]}),
        json!({"username": "mallory", "password": PASSWORD, "role": "Admin"}),
    ] {
        assert_eq!(gateway.post("/api/auth/register", &body).status, 403, "{body}");
    }
    let login = gateway.post("/api/auth/login", &json!({"username": "mallory", "password": PASSWORD}));
    assert_eq!(login.status, 401);
}

#[test]
fn a_duplicate_is_409_and_wrong_credentials_stay_401() {
    let gateway = gateway();
    token(&gateway, "alice");
    let body = json!({"username": "alice", "password": PASSWORD});
    assert_eq!(gateway.post("/api/auth/register", &body).status, 409);
    let response = gateway.post("/api/auth/login", &json!({"username": "alice", "password": "not this one"}));
    assert_eq!((response.status, response.message().as_str()), (401, "Invalid credentials"));
}

#[test]
fn the_protected_route_greets_by_name() {
    let gateway = gateway();
    let token = token(&gateway, "alice");
    let response = gateway.get("/api/auth/protected", Some(&token));
    assert_eq!((response.status, response.message().as_str()), (200, "Hello, alice!"));
}

#[test]
fn a_missing_bad_or_ended_token_is_403_everywhere() {
    let gateway = gateway();
    let token = token(&gateway, "alice");
    assert_eq!(gateway.send("POST", "/api/auth/logout", Some(&token), None).status, 200);
    for path in ["/api/auth/protected", "/api/auth/me"] {
        for token in [None, Some("not.a.token"), Some(token.as_str())] {
            let response = gateway.get(path, token);
            assert_eq!((response.status, response.message().as_str()), (403, "Missing or invalid token"));
            assert_eq!(response.json()["status"], 403);
            assert_eq!(response.json()["code"], "missing_or_invalid_token");
        }
    }
}

#[test]
fn tokens_expire() {
    let gateway = gateway();
    let token = token(&gateway, "alice");
    let claims = crate::harness::claims_of(&token);
    let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((1..=900).contains(&life), "{life}");
}
