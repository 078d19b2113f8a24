//! A Flask Authentication API.

use serde_json::json;

use super::{JWT_SECRET_KEY, PASSWORD, SECRET_KEY};
use crate::harness::{Gateway, Settings, authgate, shared_database, shared_sql};

fn gateway() -> Gateway {
    let url = shared_database();
    Gateway::seed(
        "a",
        &[("SECRET_KEY", SECRET_KEY), ("DATABASE_URI", &url), ("JWT_SECRET_KEY", JWT_SECRET_KEY)],
    )
}

#[test]
fn register_answers_the_users_id() {
    let gateway = gateway();
    let response = gateway.post("/register", &json!({"username": "alice", "password": PASSWORD}));
    assert_eq!(response.status, 201);
    assert_eq!(response.message(), "User registered successfully");
    assert_eq!(response.json()["user_id"].as_str().unwrap().len(), 36);
}

#[test]
fn login_answers_the_id_in_the_body_and_the_token_in_the_authorization_header() {
    let gateway = gateway();
    let registered = gateway.post("/register", &json!({"username": "alice", "password": PASSWORD})).json();
    let response = gateway.post("/login", &json!({"username": "alice", "password": PASSWORD}));
    assert_eq!(response.status, 200);
    assert_eq!(response.json()["user_id"], registered["user_id"]);
    let token = response.header("authorization").unwrap().strip_prefix("Bearer ").unwrap().to_owned();
    assert_eq!(response.json()["access_token"], token);
    assert_eq!(gateway.get("/me", Some(&token)).json()["username"], "alice");
}

#[test]
fn faults_have_the_documented_statuses_and_messages() {
    let gateway = gateway();
    let alice = json!({"username": "alice", "password": PASSWORD});
    assert_eq!(gateway.post("/register", &alice).status, 201);
    let duplicate = gateway.post("/register", &alice);
    assert_eq!((duplicate.status, duplicate.message().as_str()), (400, "Username already exists"));
    assert_eq!(duplicate.json()["status"], 400);
    for path in ["/register", "/login"] {
        for body in [json!({}), json!({"username": "alice"}), json!({"password": PASSWORD})] {
            let response = gateway.post(path, &body);
            assert_eq!((response.status, response.message().as_str()), (400, "Missing parameters"));
        }
    }
    for body in [
        json!({"username": "alice", "password": "not this password"}),
        json!({"username": "nobody", "password": PASSWORD}),
    ] {
        let response = gateway.post("/login", &body);
        assert_eq!((response.status, response.message().as_str()), (401, "Invalid credentials"));
    }
}

#[test]
fn a_registration_that_the_store_refuses_has_failed() {
    let url = shared_database();
    let gateway = Gateway::alone(Settings::postgres(&url));
    shared_sql(&url, "ALTER TABLE sessions RENAME TO lost");
    let body = json!({"username": "alice", "password": crate::harness::PASSWORD});
    let response = gateway.post("/auth/register", &body);
    assert_eq!((response.status, response.message().as_str()), (500, "Registration failed"));
    shared_sql(&url, "ALTER TABLE lost RENAME TO sessions");
    assert_eq!(gateway.post("/auth/register", &body).status, 201, "nothing of it was kept");
}

#[test]
fn the_shipped_default_keys_refuse_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let seed = concat!(env!("CARGO_MANIFEST_DIR"), "/config/seeds/a-flask-authentication-api.yaml");
    for key in [
        "your_secret_key",
        "your_jwt_secret_key",
        "super-secret-jwt-key-change-me-please",
        "your-very-secret-key-that-is-long-enough",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        "",
    ] {
        for name in ["SECRET_KEY", "JWT_SECRET_KEY"] {
            let output = authgate()
                .args(["check", "--config", seed])
                .current_dir(folder.path())
                .env("DATABASE_URI", "sqlite:a.db")
                .env("SECRET_KEY", SECRET_KEY)
                .env("JWT_SECRET_KEY", JWT_SECRET_KEY)
                .env(name, key)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{name}={key}: {text}");
            assert!(key.is_empty() || !text.contains(key), "{text}");
        }
    }
}
