//! Several gateways on one PostgreSQL, and what can come between them and it.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{
    Cluster, Gateway, Pooler, Proxy, Settings, claims_of, eventually,
    fleet::{
        POLL, access, assert_refused_within_the_bound, eventually_is, has_ended, hints, pair, refresh,
        settings, status, user_id,
    },
};

#[test]
fn a_logout_is_told_to_the_other_gateways() {
    let cluster = Cluster::start();
    let (here, there, _) = pair(&cluster);
    let token = here.token("alice");
    assert_eq!(status(&there, &token), 200);
    let before = hints(&there);
    assert_eq!(here.logout(&token).status, 200);
    eventually("the hint arrives", || (hints(&there) > before).then_some(()));
    eventually_is(&there, &token, 401);
    // The command line tells, too.
    let token = here.token("bob");
    let before = hints(&there);
    here.run(&["user", "disable", "bob"], "");
    eventually("the hint arrives", || (hints(&there) > before).then_some(()));
    eventually_is(&there, &token, 401);
}

#[test]
fn whatever_revokes_holds_on_every_gateway() {
    let cluster = Cluster::start();
    let (here, there, _) = pair(&cluster);
    let admin = here.admin_token("root");
    let change = |body: Value| {
        let (here, admin) = (&here, &admin);
        move |response: &Value| {
            let path = format!("/api/users/{}", response["user_id"].as_str().unwrap());
            assert_eq!(here.admin("PATCH", &path, Some(admin), Some(&body)).status, 200);
        }
    };
    let with_token = |method: &'static str, path: &'static str, body: Option<Value>| {
        let here = &here;
        move |response: &Value| {
            let done = here.send(method, path, Some(access(response)), body.as_ref());
            assert_eq!(done.status, 200, "{path}");
        }
    };
    type Act<'a> = Box<dyn Fn(&Value) + 'a>;
    let changes: Vec<(&str, Act<'_>)> = vec![
        ("logout", Box::new(with_token("POST", "/auth/logout", None))),
        ("logout-all", Box::new(with_token("POST", "/auth/logout-all", None))),
        ("delete", Box::new(with_token("DELETE", "/auth/delete", None))),
        (
            "password",
            Box::new(with_token(
                "POST",
                "/auth/change",
                Some(json!({"new_password": "quite another password"})),
            )),
        ),
        (
            "rename",
            Box::new(with_token("POST", "/auth/change", Some(json!({"new_username": "somebody-else"})))),
        ),
        ("roles", Box::new(change(json!({"roles": ["staff"]})))),
        ("disable", Box::new(change(json!({"disabled": true})))),
        ("reset", Box::new(change(json!({"password": "quite another password"})))),
    ];
    for (name, change) in changes {
        let response = here.register(name);
        assert_eq!(status(&there, access(&response)), 200);
        change(&response);
        assert_eq!(status(&here, access(&response)), 401, "{name}");
        eventually_is(&there, access(&response), 401);
        assert_eq!(there.refresh(refresh(&response)).status, 401, "{name}");
    }
    // Roles in a token are those of the account, or the token is dead; a new one has the new ones.
    let login = there.login("roles");
    assert_eq!(claims_of(access(&login))["roles"], json!(["staff"]));
    assert_eq!(status(&here, access(&login)), 200);
}

#[test]
fn a_logout_of_all_on_a_gateway_that_does_not_know_yet_that_the_account_is_gone_denies() {
    let cluster = Cluster::start();
    let (here, there, proxy) = pair(&cluster);
    proxy.lose_notifications(true);
    for round in 0..5 {
        let response = here.register(&format!("user-{round}"));
        assert_eq!(status(&there, access(&response)), 200);
        assert_eq!(here.send("DELETE", "/auth/delete", Some(access(&response)), None).status, 200);
        if there.send("POST", "/auth/logout-all", Some(access(&response)), None).status == 200 {
            assert_eq!(status(&there, access(&response)), 401);
        }
    }
}

#[test]
fn without_a_listening_connection_the_poll_finds_everything_and_another_is_made() {
    let cluster = Cluster::start();
    let (here, there, _) = pair(&cluster);
    let token = here.token("alice");
    let end =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'authgate hints'";
    cluster.sql("postgres", end);
    assert_eq!(here.logout(&token).status, 200);
    eventually_is(&there, &token, 401);
    let before = hints(&there);
    let mut users = 0;
    eventually("hints are heard again", || {
        users += 1;
        here.logout(&here.token(&format!("user-{users}")));
        (hints(&there) > before).then_some(())
    });
}

#[test]
#[ignore = "slow"]
fn each_notification_may_be_lost() {
    let cluster = Cluster::start();
    let (here, there, proxy) = pair(&cluster);
    proxy.lose_notifications(true);
    for round in 0..5 {
        let token = here.token(&format!("user-{round}"));
        assert_eq!(status(&there, &token), 200);
        let (before, lost) = (hints(&there), proxy.notifications());
        assert_eq!(here.logout(&token).status, 200);
        let answered = Instant::now();
        assert_refused_within_the_bound(&there, &token, answered);
        assert_eq!(status(&there, &token), 401);
        assert!(proxy.notifications() > lost);
        assert_eq!(hints(&there), before);
    }
}

#[test]
fn each_row_that_a_poll_or_a_hint_reads_may_be_lost() {
    let cluster = Cluster::start();
    let (here, there, proxy) = pair(&cluster);
    for round in 0..6 {
        // A hint is the first to read it, or a poll.
        proxy.lose_notifications(round % 2 == 1);
        let (lost, kept) = (here.token(&format!("lost-{round}")), here.token(&format!("kept-{round}")));
        proxy.lose_rows(1);
        assert_eq!(here.logout(&lost).status, 200);
        eventually("the row is lost", || (proxy.rows_to_lose() == 0).then_some(()));
        let begun = Instant::now();
        eventually_is(&there, &lost, 401);
        assert!(begun.elapsed() < 2 * POLL, "{:?}", begun.elapsed());
        assert_eq!(status(&there, &kept), 200);
    }
}

#[test]
fn a_gateway_that_is_cut_off_denies_within_its_bound_and_catches_up() {
    let cluster = Cluster::start();
    let (here, there, proxy) = pair(&cluster);
    for blocked in [false, true] {
        let name = if blocked { "blocked" } else { "cut" };
        let (ended, kept) = (here.token(name), here.token(&format!("{name}-kept")));
        for token in [&ended, &kept] {
            assert_eq!(status(&there, token), 200);
        }
        if blocked {
            proxy.block()
        } else {
            proxy.cut()
        }
        assert_eq!(here.logout(&ended).status, 200);
        assert_refused_within_the_bound(&there, &ended, Instant::now());
        // It does not know, and says so; nobody is told that a good token is bad.
        assert_eq!((status(&there, &ended), status(&there, &kept)), (503, 503));
        assert_eq!(there.admin_get("/readyz").status, 503);
        assert_eq!(there.logout(&kept).status, 503);
        proxy.open();
        eventually_is(&there, &kept, 200);
        assert_eq!(status(&there, &ended), 401);
        eventually("it is ready", || (there.admin_get("/readyz").status == 200).then_some(()));
        assert_eq!(there.metric("authgate_store_regressions_total"), Some(0.0));
    }
}

#[test]
fn a_slow_road_to_the_database_delays_and_loses_nothing() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let proxy = Proxy::before(&url);
    let here = Gateway::alone(settings(&url));
    // A bound that leaves room for a few ways to and fro.
    let lax = settings(&proxy.url(&url));
    let there = Gateway::alone(Settings { extra: lax.extra.replace("2s", "5s"), ..lax });
    proxy.delay(Duration::from_millis(150));
    let kept = here.token("kept");
    for round in 0..4 {
        let token = here.token(&format!("user-{round}"));
        assert_eq!(status(&there, &token), 200);
        assert_eq!(here.logout(&token).status, 200);
        eventually("it is refused", || {
            assert_eq!(status(&there, &kept), 200);
            (status(&there, &token) == 401).then_some(())
        });
    }
}

#[test]
#[ignore = "slow"]
fn a_database_that_was_killed_has_lost_no_logout() {
    let mut cluster = Cluster::start();
    let (here, there, _) = pair(&cluster);
    let kept = here.token("kept");
    for round in 0..3 {
        let token = here.token(&format!("user-{round}"));
        assert_eq!(status(&there, &token), 200);
        assert_eq!(here.logout(&token).status, 200);
        cluster.kill();
        assert_refused_within_the_bound(&there, &token, Instant::now());
        cluster.restart();
        eventually_is(&there, &kept, 200);
        eventually_is(&here, &kept, 200);
        assert_eq!((status(&here, &token), status(&there, &token)), (401, 401));
    }
}

#[test]
fn a_pooler_that_keeps_sessions_will_do() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let pooler = Pooler::start(&cluster, "session");
    let (here, there) =
        (Gateway::alone(settings(&pooler.url(&url))), Gateway::alone(settings(&pooler.url(&url))));
    let token = here.token("alice");
    assert_eq!(status(&there, &token), 200);
    let before = hints(&there);
    assert_eq!(here.logout(&token).status, 200);
    eventually("the hint arrives", || (hints(&there) > before).then_some(()));
    eventually_is(&there, &token, 401);
}

#[test]
fn a_gateway_killed_at_any_step_of_a_logout_leaves_it_done_or_undone() {
    let cluster = Cluster::start();
    let (here, mut there, proxy) = pair(&cluster);
    let mut outcomes = Vec::new();
    for step in 1..20 {
        let response = here.register(&format!("user-{step}"));
        proxy.block_after(user_id(&response), step);
        let logout = {
            let (token, mut client) = (access(&response).to_owned(), there.client());
            thread::spawn(move || {
                let request =
                    format!("POST /auth/logout HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
                client.send(request).try_response().map(|response| response.status)
            })
        };
        eventually("the road is blocked", || (proxy.is_blocked() || logout.is_finished()).then_some(()));
        there.kill();
        let said = logout.join().unwrap();
        proxy.open();
        there = there.restart();
        // Whatever became of it, both gateways and the store agree.
        let ended = has_ended(&there, &response);
        assert!(said != Some(200) || ended, "step {step}: answered, and not done");
        let wanted = if ended { 401 } else { 200 };
        eventually_is(&here, access(&response), wanted);
        eventually_is(&there, access(&response), wanted);
        outcomes.push((said, ended));
        if outcomes.ends_with(&[(None, true), (Some(200), true)]) {
            break;
        }
    }
    for outcome in [(None, false), (None, true), (Some(200), true)] {
        assert!(outcomes.contains(&outcome), "{outcomes:?}");
    }
}

#[test]
#[ignore = "slow"]
fn a_gateway_killed_at_any_step_of_a_refresh_leaves_one_live_successor() {
    let cluster = Cluster::start();
    let (here, mut there, proxy) = pair(&cluster);
    let mut answered = 0;
    let mut rotated = 0;
    for step in 1..20 {
        let first = here.register(&format!("user-{step}"));
        proxy.block_after(claims_of(access(&first))["sid"].as_str().unwrap(), step);
        let exchange = {
            let (body, mut client) = (json!({"refresh_token": refresh(&first)}).to_string(), there.client());
            thread::spawn(move || {
                let length = body.len();
                let request = format!(
                    "POST /auth/refresh HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
                );
                client.send(request).try_response()
            })
        };
        eventually("the road is blocked", || (proxy.is_blocked() || exchange.is_finished()).then_some(()));
        there.kill();
        let said = exchange
            .join()
            .unwrap()
            .filter(|response| response.status == 200)
            .map(|response| response.json());
        proxy.open();
        there = there.restart();
        // The client that got no response asks again, and others do at the same time.
        let again: Vec<Value> = [&here, &there, &here]
            .map(|gateway| gateway.refresh(refresh(&first)))
            .into_iter()
            .inspect(|response| assert_eq!(response.status, 200, "step {step}"))
            .map(|response| response.json())
            .collect();
        for response in again.iter().chain(&said) {
            assert_eq!(refresh(response), refresh(&again[0]), "step {step}: one successor");
        }
        rotated += usize::from(said.is_none());
        let next = there.refresh(refresh(&again[0]));
        assert_eq!(next.status, 200);
        // Now the first is two generations old: whoever has it is a thief.
        assert_eq!(here.refresh(refresh(&first)).status, 401);
        assert_eq!(there.refresh(refresh(&next.json())).status, 401);
        if said.is_some() {
            answered += 1;
            break;
        }
    }
    assert!(answered == 1 && rotated > 5, "{answered} {rotated}");
}

#[test]
#[ignore = "slow"]
fn a_database_on_which_the_guarantee_would_not_hold_is_refused_with_the_reason() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let refused = |url: &str| {
        let upstream = crate::harness::Upstream::start();
        let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
        let mut gateway = Gateway::spawn_in(folder, upstream.address, settings(url));
        assert_eq!(eventually("it ends", || gateway.ended()).code(), Some(1));
        gateway.log()
    };
    let proxy = Proxy::before(&url);
    proxy.lose_notifications(true);
    let said = refused(&proxy.url(&url));
    assert!(said.contains("notifications do not arrive"), "{said}");
    let pooler = Pooler::start(&cluster, "transaction");
    let said = refused(&pooler.url(&url));
    assert!(said.contains("a pooler that keeps sessions"), "{said}");
    let standby = cluster.standby();
    let said = refused(&standby.url(url.rsplit('/').next().unwrap()));
    assert!(said.contains("the server is a standby"), "{said}");
}
