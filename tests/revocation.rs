//! A token that was revoked is dead at once, here and for whoever else may ask.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use crate::harness::protocol::by_each_protocol;
use crate::harness::{Gateway, PASSWORD, Settings, eventually, header_of, shared_database};

fn both_stores() -> [Settings; 2] {
    [Settings::default(), Settings::postgres(&shared_database())]
}

#[test]
#[ignore = "slow"]
fn no_request_begun_after_a_logout_response_succeeds() {
    for settings in both_stores() {
        let gateway = Arc::new(Gateway::alone(
            settings.auth("  throttle: {registrations: {requests: 1000, per: 1s}}\n"),
        ));
        for round in 0..10 {
            let token = Arc::new(gateway.token(&format!("user-{round}")));
            let logged_out = Arc::new(AtomicBool::new(false));
            let users: Vec<_> = (0..4)
                .map(|_| {
                    let (gateway, token, logged_out) = (gateway.clone(), token.clone(), logged_out.clone());
                    thread::spawn(move || {
                        let mut client = gateway.client();
                        let request = format!(
                            "GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
                        );
                        loop {
                            let begun_after = logged_out.load(SeqCst);
                            let status = client.send(&request).response().status;
                            assert!(!begun_after || status == 401, "{status} after the logout had answered");
                            if status == 401 {
                                return;
                            }
                        }
                    })
                })
                .collect();
            assert_eq!(gateway.logout(&token).status, 200);
            logged_out.store(true, SeqCst);
            users.into_iter().for_each(|user| user.join().unwrap());
        }
    }
}

#[test]
fn logout_all_ends_every_session_and_new_logins_live() {
    for settings in both_stores() {
        let gateway = Gateway::alone(settings);
        let first = gateway.register("alice");
        let second = gateway.login("alice");
        let own = second["access_token"].as_str();
        assert_eq!(gateway.send("POST", "/auth/logout-all", own, None).status, 200);
        for response in [&first, &second] {
            assert_eq!(gateway.get("/api/x", response["access_token"].as_str()).status, 401);
            assert_eq!(gateway.refresh(response["refresh_token"].as_str().unwrap()).status, 401);
        }
        let fresh = gateway.login("alice");
        assert_eq!(gateway.get("/api/x", fresh["access_token"].as_str()).status, 200);
    }
}

#[test]
#[ignore = "slow"]
fn what_the_command_line_does_reaches_a_running_gateway() {
    for settings in both_stores() {
        let gateway = Gateway::alone(settings);
        for (name, command) in [
            ("disabled", &["user", "disable", "disabled"][..]),
            ("promoted", &["user", "set-roles", "promoted", "--role", "admin"]),
            ("reset", &["user", "set-password", "reset", "--password-stdin"]),
            ("deleted", &["user", "delete", "deleted"]),
        ] {
            let response = gateway.register(name);
            let token = response["access_token"].as_str();
            assert_eq!(gateway.get("/api/x", token).status, 200);
            gateway.run(command, "a quite different password");
            let begun = Instant::now();
            eventually(name, || (gateway.get("/api/x", token).status == 401).then_some(()));
            assert!(begun.elapsed() < Duration::from_secs(5), "{name}: {:?}", begun.elapsed());
            assert_eq!(gateway.refresh(response["refresh_token"].as_str().unwrap()).status, 401);
        }
        assert_eq!(gateway.try_login("disabled", PASSWORD).status, 401);
        gateway.run(&["user", "enable", "disabled"], "");
        assert_eq!(gateway.try_login("disabled", PASSWORD).status, 200);
        let promoted = gateway.login("promoted");
        assert_eq!(gateway.get("/admin/x", promoted["access_token"].as_str()).status, 200);
        assert_eq!(gateway.try_login("reset", "a quite different password").status, 200);
    }
}

#[test]
#[ignore = "slow"]
fn a_rotated_key_signs_after_a_while_and_the_old_one_still_verifies() {
    for settings in both_stores() {
        let gateway = Gateway::alone(settings.extra("revocation: {max_staleness: 2s}\n"));
        let old = gateway.token("alice");
        let listed = gateway.run(&["key", "list"], "");
        assert!(listed.contains(header_of(&old)["kid"].as_str().unwrap()), "{listed}");
        gateway.run(&["key", "rotate"], "");
        eventually("both keys are published", || {
            (gateway.get("/auth/jwks.json", None).json()["keys"].as_array()?.len() == 2).then_some(())
        });
        let new = eventually("the new key signs", || {
            let login = gateway.login("alice");
            let token = login["access_token"].as_str()?.to_owned();
            (header_of(&token)["kid"] != header_of(&old)["kid"]).then_some(token)
        });
        for token in [&old, &new] {
            assert_eq!(gateway.get("/api/x", Some(token)).status, 200);
        }
    }
    let gateway = Gateway::alone(Settings::shared_secret());
    let refused = gateway.command(&["key", "rotate"], "");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("previous_secret"));
}

#[test]
fn a_gateway_without_its_log_is_not_ready_and_denies() {
    let cluster = crate::harness::Cluster::start();
    let gateway = Gateway::alone(
        Settings {
            store: format!("{{url: \"{}\", timeout: 2s}}", cluster.database()),
            ..Settings::default()
        }
        .extra("revocation: {max_staleness: 2s}\n"),
    );
    let token = gateway.token("alice");
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    cluster.freeze();
    let response = eventually("the mirror is stale", || {
        let response = gateway.get("/api/x", Some(&token));
        (response.status != 200).then_some(response)
    });
    assert_eq!((response.status, response.message().as_str()), (503, "Service unavailable"));
    assert!(response.header("Retry-After").is_some());
    let ready = gateway.admin_get("/readyz");
    assert_eq!((ready.status, ready.text().as_str()), (503, "the revocation mirror is stale\n"));
    assert_eq!(gateway.admin_get("/livez").status, 200);
    assert_eq!(gateway.get("/public/x", None).status, 200);
    assert!(gateway.metric("authgate_revocation_lag_seconds").unwrap() > 2.0);
    cluster.thaw();
    eventually("it recovers by itself", || (gateway.get("/api/x", Some(&token)).status == 200).then_some(()));
}

#[test]
fn a_route_may_serve_on_when_the_log_is_away_but_never_a_revoked_token() {
    let cluster = crate::harness::Cluster::start();
    let settings = Settings {
        store: format!("{{url: \"{}\", timeout: 2s}}", cluster.database()),
        routes: "  - {path: /api/**, on_stale: allow, upstream: backend}\n  - {path: /strict, upstream: backend}\n".to_owned(),
        ..Settings::default()
    };
    let gateway = Gateway::alone(settings.extra("revocation: {max_staleness: 2s}\n"));
    let (token, revoked) = (gateway.token("alice"), gateway.token("bob"));
    gateway.get("/api/x", Some(&revoked));
    gateway.logout(&revoked);
    cluster.freeze();
    eventually("the mirror is stale", || (gateway.get("/strict", Some(&token)).status == 503).then_some(()));
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    assert!(gateway.metric("authgate_served_stale_total").unwrap() >= 1.0);
    assert_eq!(gateway.get("/api/x", Some(&revoked)).status, 401);
}

by_each_protocol!(
    no_request_begun_after_a_logout_response_succeeds,
    logout_all_ends_every_session_and_new_logins_live,
    #[ignore = "slow"]
    a_gateway_without_its_log_is_not_ready_and_denies,
    #[ignore = "slow"]
    a_route_may_serve_on_when_the_log_is_away_but_never_a_revoked_token,
);
