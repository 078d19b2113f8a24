//! A store that is away: closed, said so within its timeout, and recovered from without help.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::harness::{
    Cluster, Gateway, PASSWORD, Proxy, Settings, SqlSession, Upstream, eventually, shared_database,
    shared_sql,
};

fn settings(cluster: &Cluster) -> Settings {
    Settings { store: format!("{{url: \"{}\", timeout: 1s}}", cluster.database()), ..Settings::default() }
}

fn every_call_says_unavailable(gateway: &Gateway, response: &serde_json::Value) {
    let token = response["access_token"].as_str().unwrap();
    let refresh = json!({"refresh_token": response["refresh_token"]});
    let account = json!({"username": "bob", "password": PASSWORD});
    for (method, path, token, body) in [
        ("POST", "/auth/register", None, Some(&account)),
        ("POST", "/auth/login", None, Some(&account)),
        ("POST", "/auth/refresh", None, Some(&refresh)),
        ("POST", "/auth/logout", Some(token), None),
        ("GET", "/auth/me", Some(token), None),
    ] {
        let begun = Instant::now();
        let said = gateway.send(method, path, token, body);
        assert_eq!((said.status, said.message().as_str()), (503, "Service unavailable"), "{path}");
        assert!(said.header("Retry-After").is_some());
        assert!(begun.elapsed() < Duration::from_secs(4), "{path} took {:?}", begun.elapsed());
    }
}

#[test]
fn a_frozen_database_is_503_within_its_timeout_and_recovered_from() {
    let cluster = Cluster::start();
    let gateway = Gateway::alone(settings(&cluster));
    let response = gateway.register("alice");
    cluster.freeze();
    every_call_says_unavailable(&gateway, &response);
    cluster.thaw();
    eventually("logins work again", || (gateway.try_login("alice", PASSWORD).status == 200).then_some(()));
}

#[test]
fn a_killed_database_is_503_and_recovered_from() {
    let mut cluster = Cluster::start();
    let gateway = Gateway::alone(settings(&cluster));
    let response = gateway.register("alice");
    let revoked = gateway.login("alice")["access_token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.logout(&revoked).status, 200);
    cluster.kill();
    every_call_says_unavailable(&gateway, &response);
    assert_ne!(gateway.get("/api/x", Some(&revoked)).status, 200);
    cluster.restart();
    eventually("logins work again", || (gateway.try_login("alice", PASSWORD).status == 200).then_some(()));
    assert_eq!(gateway.get("/api/x", Some(&revoked)).status, 401);
    eventually("it is ready again", || (gateway.admin_get("/readyz").status == 200).then_some(()));
}

#[test]
fn a_gateway_waits_for_a_store_that_is_away_at_the_start() {
    let mut cluster = Cluster::start();
    let settings = settings(&cluster);
    cluster.kill();
    let upstream = Upstream::start();
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let mut gateway = Gateway::spawn_in(folder, upstream.address, settings);
    eventually("it waits", || gateway.log().contains("waiting for the store").then_some(()));
    let ready = gateway.admin_get("/readyz");
    assert_eq!((ready.status, ready.text().as_str()), (503, "keys and revocations are not loaded\n"));
    assert_eq!(gateway.admin_get("/livez").status, 200);
    cluster.restart();
    eventually("it is ready", || (gateway.admin_get("/readyz").status == 200).then_some(()));
    assert!(gateway.ended().is_none());
    assert_eq!(gateway.stop().code(), Some(0));
}

#[test]
#[ignore = "slow"]
fn requests_that_wait_for_the_database_do_not_make_the_mirror_stale() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let database = url.rsplit('/').next().unwrap();
    let settings = |pool: &str| {
        Settings { store: format!("{{url: \"{url}\", timeout: 20s{pool}}}"), ..Settings::default() }
            .auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n")
            .extra("revocation: {max_staleness: 5s}\n")
    };
    let elsewhere = Gateway::alone(settings(""));
    let gateway = Gateway::alone(settings(", pool_size: 2"));
    let waiting: Vec<String> = std::iter::once(elsewhere.token("alice"))
        .chain((0..3).map(|_| elsewhere.login("alice")["access_token"].as_str().unwrap().to_owned()))
        .collect();
    let (bob, carol) = (elsewhere.token("bob"), elsewhere.token("carol"));
    let status = |token: &str| gateway.get("/api/x", Some(token)).status;
    let alice = "SELECT id FROM users WHERE name = 'alice' FOR UPDATE";
    thread::scope(|scope| {
        let lock = scope.spawn(|| cluster.sql(database, &format!("{alice}; SELECT pg_sleep(10)")));
        eventually("her row is locked", || {
            (!cluster.try_sql(database, &format!("{alice} NOWAIT"))).then_some(())
        });
        let logouts: Vec<_> =
            waiting.iter().map(|token| scope.spawn(|| gateway.logout(token).status)).collect();
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(7) {
            assert_eq!(status(&bob), 200);
            thread::sleep(Duration::from_millis(20));
        }
        // Neither does what another gateway revokes pass by.
        assert_eq!(elsewhere.logout(&carol).status, 200);
        eventually("it is told", || (status(&carol) == 401).then_some(()));
        assert!(!lock.is_finished(), "they have waited all the time");
        for logout in logouts {
            assert_eq!(logout.join().unwrap(), 200);
        }
        lock.join().unwrap();
    });
}

#[test]
fn connections_that_fall_silent_while_they_are_made_hold_nothing_up() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let proxy = Proxy::before(&url);
    let settings = Settings {
        store: format!("{{url: \"{}\", timeout: 1s, pool_size: 2}}", proxy.url(&url)),
        ..Settings::default()
    };
    let gateway = Gateway::alone(settings.extra("revocation: {max_staleness: 2s}\n"));
    let token = gateway.token("alice");
    // Those that look for revocations, listen, and serve requests are made anew, and say nothing.
    proxy.silence(4);
    proxy.open();
    eventually("all have fallen silent", || {
        gateway.try_login("alice", PASSWORD);
        (proxy.connections_to_silence() == 0).then_some(())
    });
    eventually("it is ready", || (gateway.admin_get("/readyz").status == 200).then_some(()));
    eventually("logins work", || (gateway.try_login("alice", PASSWORD).status == 200).then_some(()));
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    eventually("hints are heard", || {
        (gateway.metric("authgate_revocation_listening") == Some(1.0)).then_some(())
    });
}

#[test]
#[ignore = "slow"]
fn logouts_that_wait_for_a_lock_do_not_make_the_mirror_stale() {
    let url = shared_database();
    let settings = Settings { store: format!("{{url: \"{url}\", timeout: 8s}}"), ..Settings::default() }
        .auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n")
        .extra("revocation: {max_staleness: 5s}\n");
    let (gateway, elsewhere) = (Gateway::alone(settings.clone()), Gateway::alone(settings));
    let tokens: Vec<String> = (0..8).map(|user| gateway.token(&format!("user-{user}"))).collect();
    let kept = gateway.token("kept");
    // The store has lost their sessions; what puts that right has to wait.
    shared_sql(&url, "DELETE FROM sessions WHERE user_id IN (SELECT id FROM users WHERE name LIKE 'user-%')");
    let mut other = SqlSession::open(&url);
    other.run("SELECT pg_advisory_lock(hashtext('authgate lost revocations'))");
    thread::scope(|scope| {
        let logouts: Vec<_> =
            tokens.iter().map(|token| scope.spawn(|| gateway.logout(token).status)).collect();
        while !logouts.iter().all(|logout| logout.is_finished()) {
            assert_eq!(gateway.get("/api/x", Some(&kept)).status, 200);
            thread::sleep(Duration::from_millis(20));
        }
        for logout in logouts {
            assert_eq!(logout.join().unwrap(), 503, "nobody could be told");
        }
    });
    for token in &tokens {
        assert_eq!(gateway.get("/api/x", Some(token)).status, 401);
    }
    // Nobody need ask again.
    drop(other);
    for token in &tokens {
        eventually("it is told", || (elsewhere.get("/api/x", Some(token)).status == 401).then_some(()));
    }
}

#[test]
fn a_logout_that_was_answered_outlives_the_end_of_a_database_that_commits_without_the_disk() {
    let mut cluster = Cluster::start();
    let url = cluster.database();
    let database = url.rsplit('/').next().unwrap().to_owned();
    cluster.sql("postgres", "ALTER SYSTEM SET wal_writer_delay = '10s'");
    cluster.sql("postgres", &format!("ALTER DATABASE {database} SET synchronous_commit = off"));
    cluster.sql("postgres", "SELECT pg_reload_conf()");
    let gateway = Gateway::alone(Settings::postgres(&url));
    for round in 0..3 {
        let response = gateway.register(&format!("user-{round}"));
        let (access, refresh) =
            (response["access_token"].as_str().unwrap(), response["refresh_token"].as_str());
        cluster.sql("postgres", "CHECKPOINT");
        assert_eq!(gateway.logout(access).status, 200);
        cluster.kill();
        cluster.restart();
        let refreshed = eventually("it has the database again", || {
            let response = gateway.refresh(refresh.unwrap());
            (response.status != 503).then_some(response)
        });
        assert_eq!(refreshed.status, 401);
        let kept = SqlSession::open(&url).run("SELECT count(*) FROM revocations WHERE kind = 1");
        assert_eq!(kept, [(round + 1).to_string()]);
    }
}
