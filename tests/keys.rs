//! Signing keys: made once, revoked everywhere, and known to all before they sign.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::harness::{
    Cluster, Gateway, PASSWORD, SECRET, Settings, SqlSession, Upstream, eventually,
    fleet::{BOUND, access, assert_refused_within_the_bound, eventually_is, pair, refresh, settings, status},
    header_of, shared_database, shared_sql,
};

#[test]
#[ignore = "slow"]
fn a_revoked_key_ends_its_tokens_everywhere_and_nobody_is_logged_out() {
    let cluster = Cluster::start();
    let (here, there, _) = pair(&cluster);
    let before = here.register("alice");
    let kid = header_of(access(&before))["kid"].as_str().unwrap().to_owned();
    assert_eq!(status(&there, access(&before)), 200);
    let begun = Instant::now();
    let said = here.run(&["key", "revoke", &kid], "");
    assert!(said.contains(&format!("Key {kid} is revoked.")), "{said}");
    let answered = Instant::now();
    for gateway in [&here, &there] {
        assert_refused_within_the_bound(gateway, access(&before), answered);
        eventually_is(gateway, access(&before), 401);
    }
    // The session goes on, with a token by a key that every gateway knows before it signs.
    let after = here.refresh(refresh(&before));
    assert_eq!(after.status, 200);
    assert!(begun.elapsed() > BOUND, "{:?}", begun.elapsed());
    let after = after.json();
    assert_ne!(header_of(access(&after))["kid"], kid);
    for gateway in [&here, &there] {
        assert_eq!(status(gateway, access(&after)), 200);
        let published = gateway.get("/auth/jwks.json", None).json();
        assert_eq!(published["keys"][0]["kid"], header_of(access(&after))["kid"]);
        assert_eq!(published["keys"].as_array().unwrap().len(), 1);
    }
    // By the admin API, of a key that was rotated out.
    here.admin_token("root");
    let old = header_of(access(&after))["kid"].as_str().unwrap().to_owned();
    here.run(&["key", "rotate"], "");
    let admin = eventually("the new key signs", || {
        let login = here.login("root");
        (header_of(access(&login))["kid"] != old).then(|| access(&login).to_owned())
    });
    let path = format!("/api/keys/{old}");
    assert_eq!(there.admin("DELETE", &path, Some(&admin), None).status, 200);
    assert_eq!(status(&there, access(&after)), 401);
    eventually_is(&here, access(&after), 401);
    assert_eq!(there.admin("DELETE", &path, Some(&admin), None).status, 404);
    // Another key signs already.
    let again = there.refresh(refresh(&after)).json();
    assert_eq!(header_of(access(&again))["kid"], header_of(&admin)["kid"]);
}

#[test]
fn a_second_gateway_with_another_master_key_is_refused() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let gateway = Gateway::alone(settings(&url));
    assert_eq!(gateway.try_login("nobody", PASSWORD).status, 401);
    let other = Settings::postgres(&url).auth("  master_key: another-Hq7vK2xR9mB4wZ8nD5cF-tests\n");
    let upstream = crate::harness::Upstream::start();
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let mut refused = Gateway::spawn_in(folder, upstream.address, other);
    assert_eq!(eventually("it ends", || refused.ended()).code(), Some(1));
}

#[test]
fn a_login_right_after_a_key_was_revoked_gets_a_token_that_holds() {
    for store in [Settings::default(), Settings::postgres(&shared_database())] {
        let gateway = Gateway::alone(store.extra("revocation: {max_staleness: 500ms}\n"));
        let admin = gateway.admin_token("root");
        let kid = header_of(&admin)["kid"].as_str().unwrap().to_owned();
        eventually_is(&gateway, &admin, 200);
        let revoked = gateway.admin("DELETE", &format!("/api/keys/{kid}"), Some(&admin), None);
        assert_eq!(revoked.status, 200);
        assert_ne!(status(&gateway, &admin), 200);
        let login = gateway.login("root");
        assert_ne!(status(&gateway, access(&login)), 401);
        eventually_is(&gateway, access(&login), 200);
        let published = gateway.get("/auth/jwks.json", None).json();
        assert_eq!(published["keys"].as_array().unwrap().len(), 1);
        assert_ne!(published["keys"][0]["kid"], kid.as_str());
    }
}

#[test]
fn as_long_as_no_key_signs_nothing_is_used_up() {
    let url = shared_database();
    // Longer than any call waits for the key that takes over.
    let gateway = Gateway::alone(Settings::postgres(&url).extra("revocation: {max_staleness: 60s}\n"));
    let response = gateway.register("alice");
    let kid = header_of(access(&response))["kid"].as_str().unwrap().to_owned();
    gateway.run(&["key", "revoke", &kid], "");
    eventually_is(&gateway, access(&response), 401);
    let begun = Instant::now();
    for call in [gateway.refresh(refresh(&response)), gateway.try_login("alice", PASSWORD)] {
        assert_eq!(call.status, 503);
        assert!(call.header("Retry-After").is_some());
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    let kept = SqlSession::open(&url).run("SELECT refresh_number FROM sessions");
    assert_eq!(kept, ["0"], "one session, its token not used");
}

#[test]
fn gateways_that_start_at_once_on_an_empty_database_have_one_key() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let upstream = Upstream::start();
    let mut starting: Vec<_> = (0..3)
        .map(|_| {
            let folder = Arc::new(tempfile::tempdir().unwrap());
            Gateway::spawn_in(folder, upstream.address, settings(&url))
        })
        .collect();
    starting.iter_mut().for_each(Gateway::wait);
    let response = starting[0].register("alice");
    for gateway in &starting {
        assert_eq!(status(gateway, access(&response)), 200);
        let keys = gateway.get("/auth/jwks.json", None).json();
        assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
        assert_eq!(keys["keys"][0]["kid"], header_of(access(&response))["kid"]);
    }
}

#[test]
fn a_shared_secret_is_changed_by_way_of_the_one_before() {
    let signing =
        |more: &str| Settings::default().auth(&format!("  signing: {{algorithm: HS256, {more}}}\n"));
    let mut gateway = Gateway::alone(signing(&format!("secret: \"{SECRET}\"")));
    let old = gateway.token("alice");
    assert!(gateway.log().contains("every holder of the secret"), "{}", gateway.log());
    assert!(gateway.run(&["key", "list"], "").starts_with("KEY"));
    gateway.kill();
    let next = "another-Hq7vK2xR9mB4wZ8nD5cF-secret-of-the-tests";
    let mut gateway =
        gateway.restart_with(signing(&format!("secret: \"{next}\", previous_secret: \"{SECRET}\"")));
    let new = gateway.login("alice");
    for token in [&old, access(&new)] {
        assert_eq!(status(&gateway, token), 200);
    }
    gateway.kill();
    let gateway = gateway.restart_with(signing(&format!("secret: \"{next}\"")));
    assert_eq!((status(&gateway, &old), status(&gateway, access(&new))), (401, 200));
}

#[test]
fn where_no_key_is_left_one_is_made() {
    let url = shared_database();
    let gateway = Gateway::alone(Settings::postgres(&url).extra("revocation: {max_staleness: 2s}\n"));
    let before = gateway.register("alice");
    // Whoever took it away did not come to make another.
    shared_sql(&url, "DELETE FROM signing_keys");
    eventually_is(&gateway, access(&before), 401);
    let login = eventually("a login", || {
        let login = gateway.try_login("alice", PASSWORD);
        assert!([200, 503].contains(&login.status), "{login:?}");
        (login.status == 200).then(|| login.json())
    });
    eventually_is(&gateway, access(&login), 200);
    assert_ne!(header_of(access(&login))["kid"], header_of(access(&before))["kid"]);
}

const OLD_MASTER: &str = "old-Hq7vK2xR9mB4wZ8nD5cF-for-the-tests";
const NEW_MASTER: &str = "new-T3yL6pW1cN5sJ8dF2hQ7-for-the-tests";

/// Settings with this master key, and perhaps the one before.
fn master(store: &str, key: &str, previous: Option<&str>) -> Settings {
    let previous = previous.map_or_else(String::new, |key| format!("  previous_master_key: {key}\n"));
    Settings { store: format!("{{url: \"{store}\"}}"), ..Settings::default() }
        .auth(&format!("  master_key: {key}\n{previous}"))
        // Somebody logs in over and over until a key signs.
        .auth("  throttle: {account: {failures: 1000, per: 1m}}\n  max_sessions: 10000\n")
        .extra("revocation: {max_staleness: 2s}\n")
}

#[test]
fn the_master_key_is_replaced_while_gateways_run_and_nobody_is_logged_out() {
    let url = shared_database();
    let old = || master(&url, OLD_MASTER, None);
    let both = || master(&url, NEW_MASTER, Some(OLD_MASTER));
    let (here, there) = (Gateway::alone(old()), Gateway::alone(old()));
    let before = here.register("alice");
    // Gateways with both keys go on with what the old one has wrapped, and make keys that the others can use.
    let mut here = here.restart_with(both());
    assert!(here.log().contains("run `authgate key rewrap`"), "{}", here.log());
    here.run(&["key", "rotate"], "");
    let kid = |login: &serde_json::Value| header_of(access(login))["kid"].as_str().unwrap().to_owned();
    let first = kid(&before);
    let rotated = eventually("the other one signs with the new key", || {
        let login = there.login("alice");
        (kid(&login) != first).then_some(login)
    });
    assert_eq!(status(&here, access(&rotated)), 200);

    let said = here.run(&["key", "rewrap"], "");
    assert!(said.contains("3 secrets are wrapped"), "{said}");
    assert!(here.run(&["audit"], "").contains("key.rewrap"));
    // Whoever lacks the new key is told, and goes on with what it holds.
    eventually("it is told", || there.log().contains("wrapped with another master key by now").then_some(()));
    assert_eq!(status(&there, access(&rotated)), 200);
    let after = there.refresh(refresh(&before));
    assert_eq!(after.status, 200);
    // It verifies what others sign with a key that it cannot open, and signs nothing meanwhile that would not last.
    here.run(&["key", "rotate"], "");
    let second = kid(&rotated);
    let newest = eventually("the others sign with the newest key", || {
        let login = here.login("alice");
        (kid(&login) != second).then_some(login)
    });
    assert_eq!(
        eventually("it knows the key", || (status(&there, access(&newest)) == 200).then_some(200)),
        200
    );
    assert_eq!(there.try_login("alice", PASSWORD).status, 503);
    assert_eq!(there.logout(access(&newest)).status, 200);
    // It cannot start again without it; with it, or with it alone, a gateway can, and knows everybody.
    let mut refused = Gateway::spawn_in(
        std::sync::Arc::new(tempfile::tempdir().unwrap()),
        Upstream::start().address,
        old(),
    );
    assert_eq!(eventually("it ends", || refused.ended()).code(), Some(1));
    here.stop();
    let here = here.restart_with(master(&url, NEW_MASTER, None));
    assert!(!here.log().contains("rewrap"), "{}", here.log());
    assert_eq!(here.refresh(refresh(&after.json())).status, 200);
    assert_eq!(status(&here, access(&rotated)), 200);
    // A second time changes nothing that anybody sees.
    here.run(&["key", "rewrap"], "");
    assert_eq!(status(&here, access(&here.login("alice"))), 200);
}

#[test]
fn the_master_key_of_an_embedded_store_is_replaced_by_a_file() {
    let mut gateway = Gateway::alone(Settings::default());
    let before = gateway.register("alice");
    gateway.stop();
    let folder = gateway.folder.path().to_owned();
    std::fs::rename(folder.join("master.key"), folder.join("old.key")).unwrap();
    let settings = || Settings::default().auth("  previous_master_key_file: old.key\n");
    // A new key that is not there is not made up: it would be another one on each gateway.
    let mut gateway = Gateway::spawn_in(gateway.folder.clone(), Upstream::start().address, settings());
    assert_eq!(eventually("it ends", || gateway.ended()).code(), Some(1));
    std::fs::write(folder.join("master.key"), format!("{NEW_MASTER}\n")).unwrap();
    let mut gateway = gateway.restart_with(settings());
    gateway.run(&["key", "rewrap"], "");
    assert_eq!(status(&gateway, access(&gateway.login("alice"))), 200);
    gateway.stop();
    std::fs::remove_file(folder.join("old.key")).unwrap();
    let gateway = gateway.restart_with(Settings::default());
    assert_eq!(gateway.refresh(refresh(&before)).status, 200);
}

#[test]
fn a_value_in_the_place_of_another_does_not_open() {
    let url = shared_database();
    let mut gateway = Gateway::alone(master(&url, OLD_MASTER, None));
    gateway.register("alice");
    gateway.stop();
    shared_sql(&url, "UPDATE signing_keys SET wrapped_pair = (SELECT value FROM meta WHERE key = 'root')");
    let mut refused = Gateway::spawn_in(
        std::sync::Arc::new(tempfile::tempdir().unwrap()),
        Upstream::start().address,
        master(&url, OLD_MASTER, None),
    );
    assert_eq!(eventually("it ends", || refused.ended()).code(), Some(1));
    assert!(refused.log().contains("cannot be unwrapped"), "{}", refused.log());
}
