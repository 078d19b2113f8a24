//! A database that has lost a part of its past: a failover to a standby that lagged, a restored backup.

use std::time::Instant;

use serde_json::json;

use crate::harness::{
    Cluster, Gateway, PASSWORD, Proxy, SqlSession, eventually,
    fleet::{POLL, access, eventually_is, has_ended, refresh, settings, status},
    header_of,
};

/// Every gateway has read the log since.
fn polls_go_by() {
    let begun = Instant::now();
    eventually("it has polled", || (begun.elapsed() > 2 * POLL).then_some(()));
}

/// A gateway behind a road that can lead to another server; the database's name there.
fn behind_a_road(cluster: &Cluster) -> (Gateway, Proxy, String) {
    let url = cluster.database();
    let proxy = Proxy::before(&url);
    let gateway = Gateway::alone(settings(&proxy.url(&url)));
    (gateway, proxy, url.rsplit('/').next().unwrap().to_owned())
}

#[test]
#[ignore = "slow"]
fn a_failover_that_forgets_logouts_is_noticed_and_mended() {
    for promoted in [false, true] {
        let mut cluster = Cluster::start();
        let url = cluster.database();
        let proxy = Proxy::before(&url);
        let settings = settings(&proxy.url(&url));
        let (here, there) = (Gateway::alone(settings.clone()), Gateway::alone(settings.clone()));
        let (ended, changed, kept, later) =
            (here.register("ended"), here.register("changed"), here.register("kept"), here.register("later"));
        let key = header_of(access(&ended))["kid"].clone();
        // Each gateway has moved its beat before the copy is made, and moves it after.
        let copy = cluster.copy(promoted);
        assert_eq!(here.logout(access(&ended)).status, 200);
        assert_eq!(there.send("POST", "/auth/logout-all", Some(access(&changed)), None).status, 200);
        polls_go_by();
        cluster.kill();
        proxy.lead_to(&copy.url(url.rsplit('/').next().unwrap()));
        for gateway in [&here, &there] {
            eventually("it is noticed", || {
                (gateway.metric("authgate_store_regressions_total") == Some(1.0)).then_some(())
            });
            eventually_is(gateway, access(&kept), 200);
            for response in [&ended, &changed] {
                assert_eq!(status(gateway, access(response)), 401);
                assert_eq!(gateway.refresh(refresh(response)).status, 401);
            }
        }
        // A row that is made now has a lower number than the gateways have passed over.
        assert_eq!(here.logout(access(&later)).status, 200);
        eventually_is(&there, access(&later), 401);
        // One that starts now knows only what the store was given back.
        let fresh = Gateway::alone(settings);
        for response in [&ended, &changed, &later] {
            assert_eq!(status(&fresh, access(response)), 401);
        }
        assert_eq!(status(&fresh, access(&kept)), 200);
        let login = fresh.login("changed");
        assert_eq!(status(&here, access(&login)), 200);
        assert_eq!(header_of(access(&login))["kid"], key);
        let once = here.metric("authgate_store_regressions_total");
        assert_eq!(once, Some(1.0), "promoted: {promoted}");
    }
}

#[test]
#[ignore = "slow"]
fn a_failover_that_forgets_a_revoked_key_leaves_one_that_signs() {
    let mut cluster = Cluster::start();
    let url = cluster.database();
    let proxy = Proxy::before(&url);
    let gateway = Gateway::alone(settings(&proxy.url(&url)));
    let response = gateway.register("alice");
    let kid = header_of(access(&response))["kid"].as_str().unwrap().to_owned();
    let copy = cluster.copy(false);
    gateway.run(&["key", "revoke", &kid], "");
    eventually_is(&gateway, access(&response), 401);
    polls_go_by();
    cluster.kill();
    proxy.lead_to(&copy.url(url.rsplit('/').next().unwrap()));
    eventually("it is noticed", || {
        (gateway.metric("authgate_store_regressions_total") == Some(1.0)).then_some(())
    });
    eventually("the token is known to be dead", || match status(&gateway, access(&response)) {
        401 => Some(()),
        // On a busy machine the mirror was stale by then.
        status => {
            assert_eq!(status, 503);
            None
        }
    });
    let login = eventually("a new key signs", || {
        let response = gateway.try_login("alice", PASSWORD);
        (response.status == 200).then(|| response.json())
    });
    assert_ne!(header_of(access(&login))["kid"], kid);
    assert_eq!(status(&gateway, access(&login)), 200);
}

#[test]
#[ignore = "slow"]
fn a_restored_backup_is_made_safe_by_one_command() {
    let mut cluster = Cluster::start();
    let url = cluster.database();
    let proxy = Proxy::before(&url);
    let mut gateway = Gateway::alone(settings(&proxy.url(&url)));
    let response = gateway.register("alice");
    let copy = cluster.copy(false);
    assert_eq!(gateway.logout(access(&response)).status, 200);
    // Nobody is left who remembers.
    gateway.kill();
    cluster.kill();
    proxy.lead_to(&copy.url(url.rsplit('/').next().unwrap()));
    let gateway = gateway.restart();
    assert_eq!(status(&gateway, access(&response)), 200, "this is what the command is for");
    gateway.run(&["key", "revoke", "--all"], "");
    eventually_is(&gateway, access(&response), 401);
    assert_eq!(gateway.refresh(refresh(&response)).status, 401);
    assert_eq!(status(&gateway, access(&gateway.login("alice"))), 200);
}

#[test]
fn a_session_that_was_ended_long_after_its_last_token_stays_ended_through_a_failover() {
    let mut cluster = Cluster::start();
    let (gateway, proxy, database) = behind_a_road(&cluster);
    let response = gateway.register("alice");
    // It was used an hour ago, and its client comes back to log out.
    cluster.sql(&database, "UPDATE sessions SET access_exp_max = access_exp_max - 3600000");
    cluster.sql(&database, "UPDATE users SET access_exp_max = access_exp_max - 3600000");
    let copy = cluster.copy(false);
    let logout = gateway.post("/auth/logout", &json!({"refresh_token": refresh(&response)}));
    assert_eq!(logout.status, 200);
    polls_go_by();
    cluster.kill();
    proxy.lead_to(&copy.url(&database));
    eventually("it is noticed", || {
        (gateway.metric("authgate_store_regressions_total") == Some(1.0)).then_some(())
    });
    assert!(has_ended(&gateway, &response));
    let fresh = Gateway::alone(settings(&proxy.url(&cluster.url(&database))));
    assert!(has_ended(&fresh, &response));
}

#[test]
fn what_has_come_back_gives_no_tokens_before_it_is_mended() {
    let mut cluster = Cluster::start();
    let (gateway, proxy, database) = behind_a_road(&cluster);
    let (ended, changed) = (gateway.register("ended"), gateway.register("changed"));
    let copy = cluster.copy(false);
    assert_eq!(gateway.logout(access(&ended)).status, 200);
    assert_eq!(gateway.send("POST", "/auth/logout-all", Some(access(&changed)), None).status, 200);
    polls_go_by();
    // The repair has to wait.
    let mut other = SqlSession::open(&copy.url(&database));
    other.run("SELECT pg_advisory_lock(hashtext('authgate lost revocations'))");
    cluster.kill();
    proxy.lead_to(&copy.url(&database));
    eventually("it waits", || gateway.log().contains("the store has lost a part of its past").then_some(()));
    let until = Instant::now() + POLL;
    while Instant::now() < until {
        assert_ne!(gateway.refresh(refresh(&ended)).status, 200);
        assert_ne!(gateway.refresh(refresh(&changed)).status, 200);
        assert_ne!(gateway.try_login("changed", PASSWORD).status, 200);
    }
    drop(other);
    let login = eventually("a login", || {
        let login = gateway.try_login("changed", PASSWORD);
        (login.status == 200).then(|| login.json())
    });
    eventually_is(&gateway, access(&login), 200);
    for response in [&ended, &changed] {
        assert!(has_ended(&gateway, response));
        assert_eq!(status(&gateway, access(response)), 401);
    }
}

#[test]
fn a_logout_of_what_the_store_has_lost_is_told_to_all() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let (here, there) = (Gateway::alone(settings(&url)), Gateway::alone(settings(&url)));
    // Lost without a trace: neither the account or session nor what ended it.
    for path in ["/auth/logout", "/auth/logout-all"] {
        let response = here.register(&path.replace('/', "x"));
        for gateway in [&here, &there] {
            assert_eq!(status(gateway, access(&response)), 200);
        }
        cluster.sql(url.rsplit('/').next().unwrap(), "DELETE FROM users");
        assert_eq!(here.send("POST", path, Some(access(&response)), None).status, 200, "{path}");
        assert_eq!(status(&here, access(&response)), 401, "{path}");
        eventually_is(&there, access(&response), 401);
        let fresh = Gateway::alone(settings(&url));
        assert_eq!(status(&fresh, access(&response)), 401, "{path}");
    }
}
