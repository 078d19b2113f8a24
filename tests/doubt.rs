//! Changes of which nobody knows whether they have happened.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::harness::{
    Client, Cluster, Gateway, PASSWORD, Proxy, Response, Settings, SqlSession, claims_of, eventually,
    fleet::{access, eventually_is, has_ended, refresh, settings, status, user_id},
    header_of, shared_database, shared_sql,
};

/// The response to a login of a user who may be new, once the gateway has the database.
fn signed_in(gateway: &Gateway, name: &str) -> Value {
    let response = eventually("it has the database", || {
        let account = json!({"username": name, "password": PASSWORD});
        let registered = gateway.post("/auth/register", &account);
        // A name that is taken or reserved was given before.
        if ![201, 400, 409].contains(&registered.status) {
            return None;
        }
        let login = gateway.post("/auth/login", &account);
        (login.status == 200).then(|| login.json())
    });
    eventually_is(gateway, access(&response), 200);
    response
}

#[test]
#[ignore = "slow"]
fn a_logout_whose_outcome_nobody_knows_is_denied_and_said_to_be_unavailable() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let proxy = Proxy::before(&url);
    let settings = Settings {
        store: format!("{{url: \"{}\", timeout: 1s, pool_size: 2}}", proxy.url(&url)),
        ..settings(&url)
    };
    let gateway = Gateway::alone(settings);
    let (mut undone, mut unknown) = (0, 0);
    for step in 1..20 {
        let response = signed_in(&gateway, &format!("user-{step}"));
        proxy.block_after(user_id(&response), step);
        let said = gateway.logout(access(&response)).status;
        let here = status(&gateway, access(&response));
        proxy.open();
        let ended = has_ended(&gateway, &response);
        if ended {
            // Even where nobody had said so.
            assert_ne!(here, 200, "step {step}: {said}");
            eventually_is(&gateway, access(&response), 401);
        }
        match (said, ended) {
            (200, true) => {
                assert!(undone > 0 && unknown == 1, "{undone} {unknown}");
                return;
            }
            (503, true) => unknown += 1,
            (503, false) => undone += 1,
            other => panic!("step {step}: {other:?}"),
        }
    }
    panic!("{undone} {unknown}, and none was answered");
}

/// A gateway behind a road, one beside it, and an administrator of the first.
fn doubted(pool_size: usize) -> (Cluster, Gateway, Gateway, Proxy, String) {
    let cluster = Cluster::start();
    let url = cluster.database();
    let proxy = Proxy::before(&url);
    let behind = Settings {
        store: format!("{{url: \"{}\", timeout: 1s, pool_size: {pool_size}}}", proxy.url(&url)),
        ..settings(&url)
    };
    let (gateway, other) = (Gateway::alone(behind), Gateway::alone(settings(&url)));
    let admin = gateway.admin_token("root");
    (cluster, gateway, other, proxy, admin)
}

#[test]
#[ignore = "slow"]
fn whatever_revokes_and_is_in_doubt_is_denied_at_once_and_settled_when_the_store_answers() {
    let (_cluster, gateway, other, proxy, admin) = doubted(3);
    let own = |method: &'static str, path: &'static str, body: Option<Value>| {
        let gateway = &gateway;
        move |response: &Value| gateway.send(method, path, Some(access(response)), body.as_ref())
    };
    let operated = |method: &'static str, tail: &'static str, body: Option<Value>| {
        let (gateway, admin) = (&gateway, &admin);
        move |response: &Value| {
            gateway.admin(
                method,
                &format!("/api/users/{}{tail}", user_id(response)),
                Some(admin),
                body.as_ref(),
            )
        }
    };
    type Act<'a> = Box<dyn Fn(&Value) -> Response + 'a>;
    let acts: Vec<(&str, Act<'_>)> = vec![
        ("logout", Box::new(own("POST", "/auth/logout", None))),
        ("logout-all", Box::new(own("POST", "/auth/logout-all", None))),
        ("roles", Box::new(operated("PATCH", "", Some(json!({"roles": ["staff"]}))))),
        ("sessions", Box::new(operated("DELETE", "/sessions", None))),
        ("deletion", Box::new(operated("DELETE", "", None))),
    ];
    for (name, act) in &acts {
        for arrives in [false, true] {
            let name = format!("{name}-{arrives}");
            let response = signed_in(&gateway, &name);
            proxy.block_at_commit(user_id(&response), arrives);
            eventually("the road is blocked", || {
                assert_eq!(act(&response).status, 503, "{name}");
                proxy.is_blocked().then_some(())
            });
            assert_eq!(status(&gateway, access(&response)), 401, "{name}");
            proxy.open();
            // Nobody gets a token that is dead, and whoever may log in soon can.
            eventually("a login", || {
                let login = gateway.try_login(&name, PASSWORD);
                if login.status == 200 {
                    let login = login.json();
                    assert_ne!(status(&gateway, access(&login)), 401, "{name}");
                    for gateway in [&gateway, &other] {
                        eventually_is(gateway, access(&login), 200);
                    }
                    return Some(());
                }
                (login.status == 401 && name == "deletion-true").then_some(())
            });
            for gateway in [&gateway, &other] {
                eventually_is(gateway, access(&response), 401);
                assert_eq!(gateway.refresh(refresh(&response)).status, 401, "{name}");
            }
        }
    }
}

#[test]
#[ignore = "slow"]
fn the_revocation_of_a_key_in_doubt_shuts_nobody_out_for_longer_than_the_store_is_away() {
    let (_cluster, gateway, other, proxy, admin) = doubted(3);
    for arrives in [false, true] {
        let response = signed_in(&gateway, "root");
        let kid = header_of(access(&response))["kid"].as_str().unwrap().to_owned();
        proxy.block_at_commit(&kid, arrives);
        let admin = if arrives { access(&response) } else { &admin };
        eventually("the road is blocked", || {
            let said = gateway.admin("DELETE", &format!("/api/keys/{kid}"), Some(admin), None);
            assert_eq!(said.status, 503);
            proxy.is_blocked().then_some(())
        });
        assert_eq!(status(&gateway, access(&response)), 401);
        proxy.open();
        let login = eventually("a login", || {
            let login = gateway.try_login("root", PASSWORD);
            (login.status == 200).then(|| login.json())
        });
        assert_ne!(header_of(access(&login))["kid"], kid.as_str());
        for gateway in [&gateway, &other] {
            assert_ne!(status(gateway, access(&login)), 401);
            eventually_is(gateway, access(&login), 200);
            eventually_is(gateway, access(&response), 401);
        }
    }
}

#[test]
#[ignore = "slow"]
fn a_stolen_refresh_token_whose_use_may_have_ended_the_session_denies_at_once() {
    let (_cluster, gateway, other, proxy, _) = doubted(3);
    for arrives in [false, true] {
        let first = signed_in(&gateway, &format!("user-{arrives}"));
        let refreshed = |response: &Value| {
            eventually("the store is there", || {
                let next = gateway.refresh(refresh(response));
                (next.status != 503).then(|| next.json())
            })
        };
        let second = refreshed(&first);
        let third = refreshed(&second);
        let session = claims_of(access(&third))["sid"].clone();
        proxy.block_at_commit(session.as_str().unwrap(), arrives);
        eventually("the road is blocked", || {
            assert_eq!(gateway.refresh(refresh(&first)).status, 503);
            proxy.is_blocked().then_some(())
        });
        assert_eq!(status(&gateway, access(&third)), 401);
        proxy.open();
        eventually_is(&other, access(&third), 401);
        eventually_is(&gateway, access(&third), 401);
        assert_eq!(other.refresh(refresh(&third)).status, 401);
    }
}

#[test]
fn a_commit_that_the_server_refuses_has_changed_nothing() {
    let url = shared_database();
    let gateway = Gateway::alone(Settings::postgres(&url));
    let response = gateway.register("alice");
    shared_sql(
        &url,
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS \
            $$ BEGIN RAISE EXCEPTION 'tests' USING ERRCODE = '57014'; END $$; \
         CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON revocations DEFERRABLE INITIALLY DEFERRED \
            FOR EACH ROW EXECUTE FUNCTION refuse()",
    );
    let logout_all = || gateway.send("POST", "/auth/logout-all", Some(access(&response)), None).status;
    assert_eq!(logout_all(), 503);
    assert_eq!(status(&gateway, access(&response)), 200);
    shared_sql(&url, "DROP TRIGGER refuse ON revocations");
    assert_eq!(logout_all(), 200);
    assert_eq!(status(&gateway, access(&response)), 401);
}

#[test]
fn a_client_that_hangs_up_does_not_stop_what_it_has_asked_for() {
    let url = shared_database();
    let gateway =
        Gateway::alone(Settings { store: format!("{{url: \"{url}\", timeout: 15s}}"), ..settings(&url) });
    let admin = gateway.admin_token("root");
    let (alice, bob) = (gateway.register("alice"), gateway.register("bob"));
    let mut other = SqlSession::open(&url);
    other.run("BEGIN; SELECT 1 FROM users FOR UPDATE");
    let logout =
        format!("POST /auth/logout HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n", access(&alice));
    let disable = format!(
        "DELETE /api/users/{}/sessions HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {admin}\r\n\r\n",
        user_id(&bob),
        gateway.admin,
    );
    let mut clients = [gateway.client(), Client::connect(gateway.admin)];
    for (client, request) in clients.iter_mut().zip([logout, disable]) {
        client.send(request);
    }
    let mut watcher = SqlSession::open(&url);
    eventually("both wait for a row", || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' \
             AND datname = current_database()";
        (watcher.run(sql) == ["2"]).then_some(())
    });
    drop(clients);
    // They are gone for as long as it takes to notice.
    thread::sleep(Duration::from_millis(300));
    other.run("COMMIT");
    for response in [&alice, &bob] {
        eventually_is(&gateway, access(response), 401);
        assert_eq!(gateway.refresh(refresh(response)).status, 401);
    }
}
