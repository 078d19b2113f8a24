//! Whatever one address sends to the calls below `auth.path`, the others are served as before.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{Client, Gateway, PASSWORD, Response, Settings, Upstream, shared_database};

const ATTACKER: &str = "198.51.100.1";
const OTHER: &str = "203.0.113.7";

/// A password whose strength takes long to estimate: every sign of it could stand for a letter.
const COSTLY: &str = "4@8({[<3691!|70$5+%24@8({[<3691!|70$5+%2";

fn settings(store: &str) -> Settings {
    Settings {
        store: format!("{{url: \"{store}\"}}"),
        ..Settings::default()
            .auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n")
            .extra("trusted_proxies: [127.0.0.1/32]\nrevocation: {max_staleness: 1s}\n")
    }
}

fn call(
    client: &mut Client,
    from: &str,
    method: &str,
    path: &str,
    token: &str,
    body: &Value,
) -> Option<Response> {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let token = if token.is_empty() { String::new() } else { format!("Authorization: Bearer {token}\r\n") };
    client.send(format!(
        "{method} {path} HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {from}\r\n{token}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    client.try_response()
}

#[test]
#[ignore = "slow"]
fn a_flood_of_any_call_costs_others_nothing() {
    for store in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let upstream = Upstream::start();
        let gateway = Gateway::start(&upstream, settings(&store));
        let account = gateway.register("attacker");
        let text = |name: &str| account[name].as_str().unwrap().to_owned();
        let (token, refresh) = (text("access_token"), text("refresh_token"));
        let bystander = gateway.token("bystander");
        let login = json!({"username": "attacker", "password": PASSWORD});
        let floods: Vec<(&str, &str, &str, Value)> = vec![
            ("POST", "/auth/register", "", json!({"username": "x", "password": COSTLY})),
            ("POST", "/auth/register", "", json!({"username": "x", "password": &COSTLY[..20]})),
            ("POST", "/auth/login", "", login),
            ("POST", "/auth/login", "", json!({"username": "attacker", "password": COSTLY})),
            ("POST", "/auth/login", "", json!({"username": "nobody", "password": COSTLY})),
            ("POST", "/auth/refresh", "", json!({"refresh_token": refresh})),
            ("POST", "/auth/change", &token, json!({"new_password": COSTLY})),
            ("POST", "/auth/change", &token, json!({"new_username": "bystander"})),
            ("DELETE", "/auth/delete", &token, json!({"current_password": "wrong"})),
            ("GET", "/auth/sessions?limit=200", &token, Value::Null),
            ("GET", "/auth/me", &token, Value::Null),
            ("POST", "/auth/password/reset", "", json!({"token": "x".repeat(60), "new_password": COSTLY})),
        ];
        for (method, path, token, body) in floods {
            let stop = Arc::new(AtomicBool::new(false));
            let floods: Vec<_> = (0..16)
                .map(|_| {
                    let (address, stop) = (gateway.address, stop.clone());
                    let (method, path, token, body) =
                        (method.to_owned(), path.to_owned(), token.to_owned(), body.clone());
                    thread::spawn(move || {
                        let mut client = Client::connect(address);
                        while !stop.load(Relaxed) {
                            if call(&mut client, ATTACKER, &method, &path, &token, &body).is_none() {
                                client = Client::connect(address);
                            }
                        }
                    })
                })
                .collect();
            let end = Instant::now() + Duration::from_millis(800);
            let mut client = gateway.client();
            let mut served = 0;
            while served < 10 || Instant::now() < end {
                let response = call(&mut client, OTHER, "GET", "/api/x", &bystander, &Value::Null).unwrap();
                assert_eq!(response.status, 200, "{method} {path}: {response:?}");
                served += 1;
                thread::sleep(Duration::from_millis(2));
            }
            let lag = gateway.metric("authgate_revocation_lag_seconds").unwrap();
            stop.store(true, Relaxed);
            floods.into_iter().for_each(|flood| flood.join().unwrap());
            assert!(lag < 1.0, "{method} {path}: {lag}");
        }
        // What stands behind the flood still does.
        let response = call(
            &mut gateway.client(),
            OTHER,
            "POST",
            "/auth/login",
            "",
            &json!({"username": "bystander", "password": PASSWORD}),
        );
        assert_eq!(response.unwrap().status, 200);
    }
}

#[test]
fn hashes_without_end_do_not_hold_up_the_logins_of_others() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings("sqlite:authgate.db"));
    let token = gateway.token("attacker");
    gateway.register("other");
    let stop = Arc::new(AtomicBool::new(false));
    let throttled = Arc::new(AtomicUsize::new(0));
    let flood: Vec<_> = (0..150)
        .map(|_| {
            let (address, stop, throttled) = (gateway.address, stop.clone(), throttled.clone());
            let token = token.clone();
            thread::spawn(move || {
                let mut client = Client::connect(address);
                // The password is hashed, and then the name is taken: it can be sent again and again.
                let body = json!({"new_username": "other", "new_password": PASSWORD});
                while !stop.load(Relaxed) {
                    let response = call(&mut client, ATTACKER, "POST", "/auth/change", &token, &body);
                    if response.is_some_and(|response| response.status == 429) {
                        throttled.fetch_add(1, Relaxed);
                    }
                }
            })
        })
        .collect();
    let body = json!({"username": "other", "password": PASSWORD});
    for _ in 0..10 {
        let response = call(&mut gateway.client(), OTHER, "POST", "/auth/login", "", &body).unwrap();
        assert_eq!(response.status, 200, "{response:?}");
    }
    stop.store(true, Relaxed);
    flood.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(throttled.load(Relaxed) > 0);
}

#[test]
fn right_passwords_and_changes_are_counted_in_a_wide_bucket() {
    let throttle = "  throttle: {account: {failures: 2, per: 10m}, address: {failures: 1000, per: 10m}}\n";
    for store in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let gateway = Gateway::alone(settings(&store).auth(throttle));
        let token = gateway.token("alice");
        let body = json!({"username": "alice", "password": PASSWORD});
        let statuses: Vec<u16> = (0..24)
            .map(|_| call(&mut gateway.client(), OTHER, "POST", "/auth/login", "", &body).unwrap().status)
            .collect();
        // One more where the address became familiar after the first, which was counted as a stranger's.
        let good = statuses.iter().filter(|status| **status == 200).count();
        assert!((20..=21).contains(&good) && statuses[23] == 429, "{statuses:?}");

        let rename = json!({"new_username": "bob"});
        let taken = gateway.register("bob");
        assert!(taken["user_id"].is_string());
        let statuses: Vec<u16> = (0..24)
            .map(|_| {
                call(&mut gateway.client(), ATTACKER, "POST", "/auth/change", &token, &rename).unwrap().status
            })
            .collect();
        assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 19, "{statuses:?}");
        assert_eq!(statuses[23], 429);
        // From elsewhere it is a stranger, too: only familiar addresses have buckets of their own.
        assert_eq!(gateway.login("bob")["username"], "bob");
    }
}

#[test]
fn registrations_are_throttled_before_anything_else_is_looked_at() {
    let gateway = Gateway::alone(
        settings("sqlite:authgate.db").auth("  throttle: {registrations: {requests: 2, per: 10m}}\n"),
    );
    let hashes = || gateway.metric("authgate_password_seconds_count").unwrap();
    let body = json!({"username": "x", "password": "password"});
    let statuses: Vec<u16> = (0..4).map(|_| gateway.post("/auth/register", &body).status).collect();
    assert_eq!(statuses, [400, 400, 429, 429]);
    assert_eq!(hashes(), 0.0);
    // A common password is found out by the workers.
    let gateway = Gateway::alone(settings("sqlite:authgate.db").auth("  password: {min_length: 8}\n"));
    let common = json!({"username": "x", "password": "p@ssw0rd"});
    let response = gateway.post("/auth/register", &common);
    assert_eq!((response.status, response.message().as_str()), (400, "Password not accepted"));
    assert_eq!(gateway.metric("authgate_password_seconds_count"), Some(1.0));
}

#[test]
fn the_sessions_of_an_account_are_bounded_and_listed_by_the_page() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings("sqlite:authgate.db").auth("  max_sessions: 3\n"));
    let first = gateway.token("alice");
    let mut tokens = vec![first];
    for _ in 0..3 {
        tokens.push(gateway.login("alice")["access_token"].as_str().unwrap().to_owned());
    }
    let statuses: Vec<u16> = tokens.iter().map(|token| gateway.get("/api/x", Some(token)).status).collect();
    assert_eq!(statuses, [401, 200, 200, 200]);
    let page = |query: &str| gateway.get(&format!("/auth/sessions{query}"), Some(&tokens[3])).json();
    assert_eq!(page("")["sessions"].as_array().unwrap().len(), 3);
    assert_eq!(page("")["next"], Value::Null);
    let begin = page("?limit=2");
    assert_eq!(begin["sessions"].as_array().unwrap().len(), 2);
    let rest = page(&format!("?limit=2&after={}", begin["next"].as_str().unwrap()));
    assert_eq!((rest["sessions"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    for query in ["?limit=0", "?limit=201", "?limit=x", "?after=x"] {
        assert_eq!(gateway.get(&format!("/auth/sessions{query}"), Some(&tokens[3])).status, 400, "{query}");
    }
}
