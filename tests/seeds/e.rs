//! An API Authentication System.

use serde_json::json;

use super::PASSWORD;
use crate::harness::{Gateway, MailServer, token_of};

fn gateway(mail: &MailServer) -> Gateway {
    let port = mail.port.to_string();
    Gateway::seed("e", &[("SMTP_HOST", "127.0.0.1"), ("SMTP_PORT", &port)])
}

#[test]
fn me_answers_the_bearers_own_account() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    let body = json!({"username": "alice", "password": PASSWORD, "email": "alice@example.com"});
    let registered = gateway.post("/auth/register", &body);
    assert_eq!(registered.status, 201);
    let login = gateway.post("/auth/login", &json!({"username": "alice", "password": PASSWORD})).json();
    let me = gateway.get("/auth/me", login["access_token"].as_str()).json();
    assert_eq!(me["user_id"], registered.json()["user_id"]);
    assert_eq!((&me["username"], &me["email"]), (&json!("alice"), &json!("alice@example.com")));
    assert_eq!(me["roles"], json!(["student"]));
    assert_eq!(gateway.get("/auth/me", None).status, 401);
}

#[test]
fn what_was_future_work_is_there() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    let body = json!({"username": "alice", "password": PASSWORD, "email": "alice@example.com"});
    let registered = gateway.post("/auth/register", &body).json();
    // Refresh tokens.
    let refreshed = gateway.refresh(registered["refresh_token"].as_str().unwrap());
    assert_eq!(refreshed.status, 200);
    // E-mail verification.
    let token = token_of(&mail.mail(0));
    assert_eq!(gateway.post("/auth/email/verify", &json!({"token": token})).status, 200);
    // Password reset.
    assert_eq!(gateway.post("/auth/password/forgot", &json!({"email": "alice@example.com"})).status, 200);
    let token = token_of(&mail.mail(1));
    let reset = json!({"token": token, "new_password": "another long password"});
    assert_eq!(gateway.post("/auth/password/reset", &reset).status, 200);
    let login = json!({"username": "alice", "password": "another long password"});
    let token = gateway.post("/auth/login", &login).json()["access_token"].as_str().unwrap().to_owned();
    // Roles.
    assert_eq!(gateway.get("/courses/1", Some(&token)).status, 200);
    assert_eq!(gateway.get("/grades/1", Some(&token)).status, 403);
    let instructor = json!({"username": "ivan", "password": PASSWORD, "role": "instructor"});
    assert_eq!(gateway.post("/auth/register", &instructor).status, 403);
    // Rate limits.
    let wrong = json!({"username": "alice", "password": "not this password"});
    let statuses: Vec<u16> = (0..7).map(|_| gateway.post("/auth/login", &wrong).status).collect();
    assert!(statuses.contains(&429), "{statuses:?}");
}
