//! A User Authentication Microservice.

use serde_json::{Value, json};

use super::{JWT_SECRET_KEY, PASSWORD};
use crate::harness::{Gateway, shared_database};

fn gateway() -> Gateway {
    let url = shared_database();
    Gateway::seed("b", &[("DATABASE_URL", &url), ("JWT_SECRET_KEY", JWT_SECRET_KEY)])
}

fn register(gateway: &Gateway, name: &str) -> Value {
    let body = json!({"username": name, "password": PASSWORD, "password_confirm": PASSWORD});
    let response = gateway.post("/api/auth/register", &body);
    assert_eq!(response.status, 201, "{response:?}");
    response.json()
}

#[test]
fn registration_and_login_answer_a_token() {
    let gateway = gateway();
    let registered = register(&gateway, "alice");
    assert_eq!(registered["token"], registered["access_token"]);
    let response = gateway.post("/api/auth/login", &json!({"username": "alice", "password": PASSWORD}));
    assert_eq!((response.status, response.message().as_str()), (200, "Authenticated successfully"));
    let token = response.json()["token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.get("/api/auth/me", Some(&token)).status, 200);
}

#[test]
fn passwords_that_differ_are_refused() {
    let gateway = gateway();
    let body = json!({"username": "alice", "password": PASSWORD, "password_confirm": "another password"});
    let response = gateway.post("/api/auth/register", &body);
    assert_eq!((response.status, response.message().as_str()), (400, "Passwords do not match"));
}

#[test]
fn a_user_changes_his_name_and_password() {
    let gateway = gateway();
    let alice = register(&gateway, "alice");
    let (id, token) = (&alice["user_id"], alice["token"].as_str().unwrap());
    let body = json!({
        "user_id": id, "new_username": "alicia", "new_password": "another long password",
        "new_password_confirm": "another long password",
    });
    let response = gateway.send("POST", "/api/auth/change", Some(token), Some(&body));
    assert_eq!(
        (response.status, response.message().as_str()),
        (200, "User credentials updated successfully")
    );
    let old = gateway.post("/api/auth/login", &json!({"username": "alice", "password": PASSWORD}));
    assert_eq!(old.status, 401);
    let new = json!({"username": "alicia", "password": "another long password"});
    assert_eq!(gateway.post("/api/auth/login", &new).status, 200);
    assert_eq!(gateway.get("/api/auth/me", Some(token)).status, 401, "the old token ended");
}

#[test]
fn a_user_deletes_himself() {
    let gateway = gateway();
    let alice = register(&gateway, "alice");
    let token = alice["token"].as_str();
    let body = json!({"user_id": alice["user_id"]});
    let response = gateway.send("DELETE", "/api/auth/delete", token, Some(&body));
    assert_eq!((response.status, response.message().as_str()), (200, "User account deleted successfully"));
    let login = gateway.post("/api/auth/login", &json!({"username": "alice", "password": PASSWORD}));
    assert_eq!(login.status, 401);
}

#[test]
fn nobody_changes_or_deletes_an_account_without_its_token() {
    let gateway = gateway();
    let (alice, mallory) = (register(&gateway, "alice"), register(&gateway, "mallory"));
    let change = json!({
        "user_id": alice["user_id"], "new_password": "another long password",
        "new_password_confirm": "another long password",
    });
    let delete = json!({"user_id": alice["user_id"]});
    for (token, status) in [(None, 401), (mallory["token"].as_str(), 403)] {
        assert_eq!(gateway.send("POST", "/api/auth/change", token, Some(&change)).status, status);
        assert_eq!(gateway.send("DELETE", "/api/auth/delete", token, Some(&delete)).status, status);
    }
    let login = gateway.post("/api/auth/login", &json!({"username": "alice", "password": PASSWORD}));
    assert_eq!(login.status, 200);
}

#[test]
fn pages_of_other_origins_may_call() {
    let gateway = gateway();
    let preflight = gateway
        .client()
        .send(
            "OPTIONS /api/auth/login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost:3000\r\n\
             Access-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type\r\n\r\n",
        )
        .response();
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("*"));
    assert_eq!(preflight.header("access-control-allow-methods"), Some("POST"));
    assert_eq!(preflight.header("access-control-allow-headers"), Some("content-type"));
}

#[test]
fn the_settings_come_from_a_env_file_and_the_tables_are_made_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let seed = concat!(env!("CARGO_MANIFEST_DIR"), "/config/seeds/b-user-authentication-microservice.yaml");
    std::fs::copy(seed, folder.path().join("gateway.yaml")).unwrap();
    let env = format!("DATABASE_URL={}\nJWT_SECRET_KEY={JWT_SECRET_KEY}\n", shared_database());
    std::fs::write(folder.path().join(".env"), env).unwrap();
    let run = |args: &[&str]| {
        let config = folder.path().join("gateway.yaml");
        crate::harness::authgate()
            .args(args)
            .arg("--config")
            .arg(config)
            .env_remove("DATABASE_URL")
            .env_remove("JWT_SECRET_KEY")
            .output()
            .unwrap()
    };
    let output = run(&["user", "list"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
