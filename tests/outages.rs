//! A store that is away: closed, said so within its timeout, and recovered from without help.

use std::time::{Duration, Instant};

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
