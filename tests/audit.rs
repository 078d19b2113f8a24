//! The audit trail of what people do themselves.

use serde_json::{Value, json};

use crate::harness::{Gateway, PASSWORD, Settings, fleet::access, shared_database};

const WRONG: &str = "not the password at all";

/// The lines of the trail, oldest first.
fn trail(gateway: &Gateway) -> Vec<Value> {
    let printed = gateway.run(&["audit", "--json", "--limit", "1000"], "");
    let mut lines: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.reverse();
    lines
}

fn gateways() -> [Gateway; 2] {
    let settings =
        || Settings::default().auth("  refresh_grace: 0s\n  throttle: {account: {failures: 4, per: 10m}}\n");
    let postgres = Settings { store: format!("{{url: \"{}\"}}", shared_database()), ..settings() };
    [Gateway::alone(settings()), Gateway::alone(postgres)]
}

#[test]
fn logins_failures_replays_and_logouts_are_in_the_trail() {
    for gateway in gateways() {
        let registered = gateway.register("alice");
        let id = registered["user_id"].as_str().unwrap().to_owned();
        let token = access(&gateway.login("alice")).to_owned();
        assert_eq!(gateway.try_login("alice", WRONG).status, 401);
        assert_eq!(gateway.try_login("my-password-in-the-wrong-field", WRONG).status, 401);
        let wrong = json!({"new_password": "another password of alice", "current_password": WRONG});
        assert_eq!(gateway.send("POST", "/auth/change", Some(&token), Some(&wrong)).status, 401);
        assert_eq!(gateway.logout(&token).status, 200);
        let first = registered["refresh_token"].as_str().unwrap();
        assert_eq!(gateway.refresh(first).status, 200);
        // The grace is over at once, or nearly so.
        crate::harness::eventually("the replay is refused", || {
            (gateway.refresh(first).status == 401).then_some(())
        });
        let token = access(&gateway.login("alice")).to_owned();
        assert_eq!(gateway.send("POST", "/auth/logout-all", Some(&token), None).status, 200);

        let trail = trail(&gateway);
        let lines: Vec<(&str, &str, &str)> = trail
            .iter()
            .map(|line| {
                let text = |key: &str| line[key].as_str().unwrap();
                (text("action"), text("actor"), text("subject"))
            })
            .collect();
        assert_eq!(
            lines,
            [
                ("user.register", "alice", "alice"),
                ("user.login", "alice", "alice"),
                ("user.login-failed", "", "alice"),
                ("user.login-failed", "", ""),
                ("user.proof-failed", "alice", "alice"),
                ("user.logout", "alice", "alice"),
                ("session.replay", "", "alice"),
                ("user.login", "alice", "alice"),
                ("user.logout-all", "alice", "alice"),
            ]
        );
        for line in &trail {
            assert_eq!(line["address"], "127.0.0.1");
            assert!(line["subject_id"] == json!(id) || line["subject_id"].is_null());
        }
        assert_eq!(trail[2]["detail"], "wrong password");
        assert_eq!(trail[3]["detail"], "no such account");
        let text = json!(trail).to_string();
        assert!(!text.contains("wrong-field") && !text.contains(WRONG) && !text.contains(PASSWORD), "{text}");
    }
}

#[test]
fn attempts_that_are_throttled_write_nothing() {
    for gateway in gateways() {
        gateway.register("alice");
        let statuses: Vec<u16> = (0..8).map(|_| gateway.try_login("alice", WRONG).status).collect();
        assert_eq!(statuses, [401, 401, 401, 401, 429, 429, 429, 429]);
        let failures = trail(&gateway).iter().filter(|line| line["action"] == "user.login-failed").count();
        assert_eq!(failures, 4);
    }
}

#[test]
fn a_disabled_account_with_the_right_password_is_noted_as_that() {
    let gateway = Gateway::alone(Settings::default());
    gateway.register("alice");
    gateway.run(&["user", "disable", "alice"], "");
    assert_eq!(gateway.try_login("alice", PASSWORD).status, 401);
    assert_eq!(trail(&gateway).last().unwrap()["detail"], "the account is disabled");
}
