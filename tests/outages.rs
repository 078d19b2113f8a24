//! A store that is away: closed, said so within its timeout, and recovered from without help.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::harness::{Cluster, Gateway, PASSWORD, Settings, Upstream, eventually};

fn settings(cluster: &Cluster) -> Settings {
    Settings { store: format!("{{url: \"{}\", timeout: 1s}}", cluster.database()), ..Settings::default() }
}

fn every_call_says_unavailable(gateway: &Gateway, answer: &serde_json::Value) {
    let token = answer["access_token"].as_str().unwrap();
    let refresh = json!({"refresh_token": answer["refresh_token"]});
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
    let answer = gateway.register("alice");
    cluster.freeze();
    every_call_says_unavailable(&gateway, &answer);
    cluster.thaw();
    eventually("logins work again", || (gateway.try_login("alice", PASSWORD).status == 200).then_some(()));
}

#[test]
fn a_killed_database_is_503_and_recovered_from() {
    let mut cluster = Cluster::start();
    let gateway = Gateway::alone(settings(&cluster));
    let answer = gateway.register("alice");
    let revoked = gateway.login("alice")["access_token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.logout(&revoked).status, 200);
    cluster.kill();
    every_call_says_unavailable(&gateway, &answer);
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
