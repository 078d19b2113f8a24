//! Refresh tokens: used once, one live successor, and a replay ends the session.

use std::{sync::Arc, thread};

use crate::harness::{Gateway, Settings, shared_database};

fn refresh_token(response: &serde_json::Value) -> String {
    response["refresh_token"].as_str().unwrap().to_owned()
}

fn access_token(response: &serde_json::Value) -> String {
    response["access_token"].as_str().unwrap().to_owned()
}

#[test]
fn a_refresh_token_gives_a_new_pair_and_no_message() {
    let gateway = Gateway::alone(Settings::default());
    let first = gateway.register("alice");
    let second = gateway.refresh(&refresh_token(&first));
    assert_eq!(second.status, 200);
    let second = second.json();
    assert!(second.get("message").is_none());
    assert_ne!(second["refresh_token"], first["refresh_token"]);
    assert_eq!(gateway.get("/api/x", second["access_token"].as_str()).status, 200);
}

#[test]
fn within_the_grace_a_replay_gives_the_same_successor() {
    let gateway = Gateway::alone(Settings::default());
    let first = refresh_token(&gateway.register("alice"));
    let second = gateway.refresh(&first).json();
    let replayed = gateway.refresh(&first).json();
    assert_eq!(replayed["refresh_token"], second["refresh_token"]);
    assert_eq!(gateway.refresh(&refresh_token(&second)).status, 200);
}

#[test]
fn a_token_used_before_ends_the_session_and_its_access_tokens() {
    let gateway = Gateway::alone(Settings::default());
    let first = gateway.register("alice");
    let second = gateway.refresh(&refresh_token(&first)).json();
    let third = gateway.refresh(&refresh_token(&second)).json();
    // Two generations old: not within any grace.
    let stolen = gateway.refresh(&refresh_token(&first));
    assert_eq!((stolen.status, stolen.message().as_str()), (401, "Missing or invalid token"));
    assert_eq!(gateway.refresh(&refresh_token(&third)).status, 401);
    for response in [&first, &second, &third] {
        assert_eq!(gateway.get("/api/x", Some(&access_token(response))).status, 401);
    }
}

#[test]
fn after_the_grace_a_replay_ends_the_session() {
    let gateway = Gateway::alone(Settings::default().auth("  refresh_grace: 0s\n"));
    let first = gateway.register("alice");
    let second = gateway.refresh(&refresh_token(&first)).json();
    thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(gateway.refresh(&refresh_token(&first)).status, 401);
    assert_eq!(gateway.refresh(&refresh_token(&second)).status, 401);
    assert_eq!(gateway.get("/api/x", Some(&access_token(&second))).status, 401);
}

#[test]
fn a_refresh_that_crosses_a_change_of_the_account_is_refused_and_ends_nothing() {
    let gateway = Gateway::alone(Settings::default());
    let first = gateway.register("alice");
    let change = serde_json::json!({"new_username": "alice2"});
    let changed = gateway.send("POST", "/auth/change", first["access_token"].as_str(), Some(&change)).json();
    assert_eq!(gateway.refresh(&refresh_token(&first)).status, 401);
    assert_eq!(gateway.get("/api/x", changed["access_token"].as_str()).status, 200);
    let next = gateway.refresh(&refresh_token(&changed));
    assert_eq!(next.status, 200);
    // Once the new one is used, the old one is no accident any more.
    assert_eq!(gateway.refresh(&refresh_token(&first)).status, 401);
    assert_eq!(gateway.refresh(&refresh_token(&next.json())).status, 401);
}

#[test]
fn forged_tokens_change_nothing() {
    let gateway = Gateway::alone(Settings::default());
    let genuine = refresh_token(&gateway.register("alice"));
    for index in [0, 20, 40, 88] {
        let mut forged = genuine.clone().into_bytes();
        forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
        assert_eq!(gateway.refresh(&String::from_utf8(forged).unwrap()).status, 401);
    }
    for junk in ["x", "null", &"A".repeat(10_000)] {
        assert_eq!(gateway.refresh(junk).status, 401);
    }
    assert_eq!(gateway.refresh(&genuine).status, 200);
}

#[test]
fn a_refresh_token_is_no_access_token() {
    let gateway = Gateway::alone(Settings::default());
    let token = refresh_token(&gateway.register("alice"));
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 401);
}

#[test]
fn a_refresh_token_logs_out_where_the_access_token_has_expired() {
    let gateway = Gateway::alone(Settings::default());
    let response = gateway.register("alice");
    let body = serde_json::json!({"refresh_token": refresh_token(&response)});
    assert_eq!(gateway.post("/auth/logout", &body).status, 200);
    assert_eq!(gateway.get("/api/x", Some(&access_token(&response))).status, 401);
    assert_eq!(gateway.refresh(&refresh_token(&response)).status, 401);
    assert_eq!(gateway.post("/auth/logout", &body).status, 401);
    assert_eq!(gateway.send("POST", "/auth/logout", None, None).status, 401);
}

#[test]
fn refresh_and_session_lifetimes_end() {
    let gateway = Gateway::alone(Settings::default().auth("  refresh_token_ttl: 300ms\n"));
    let token = refresh_token(&gateway.register("alice"));
    thread::sleep(std::time::Duration::from_millis(400));
    assert_eq!(gateway.refresh(&token).status, 401);

    let gateway = Gateway::alone(Settings::default().auth("  session_max_ttl: 600ms\n"));
    let token = refresh_token(&gateway.register("alice"));
    let next = refresh_token(&gateway.refresh(&token).json());
    thread::sleep(std::time::Duration::from_millis(700));
    assert_eq!(gateway.refresh(&next).status, 401);
}

#[test]
fn many_refreshes_at_once_leave_one_live_successor() {
    for settings in [Settings::default(), Settings::postgres(&shared_database())] {
        let gateway = Arc::new(Gateway::alone(settings));
        let token = Arc::new(refresh_token(&gateway.register("alice")));
        let racers: Vec<_> = (0..8)
            .map(|_| {
                let (gateway, token) = (gateway.clone(), token.clone());
                thread::spawn(move || gateway.refresh(&token))
            })
            .collect();
        let mut successors: Vec<_> = racers
            .into_iter()
            .map(|racer| racer.join().unwrap())
            .inspect(|response| assert_eq!(response.status, 200))
            .map(|response| refresh_token(&response.json()))
            .collect();
        successors.dedup();
        assert_eq!(successors.len(), 1);
        assert_eq!(gateway.refresh(&successors[0]).status, 200);
    }
}
