//! Several gateways on one PostgreSQL.

use crate::harness::{Cluster, Gateway, Settings, eventually};

fn settings(url: &str) -> Settings {
    Settings::postgres(url)
        .auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n")
        .auth("  throttle: {registrations: {requests: 1000, per: 1s}}\n")
}

fn hints(gateway: &Gateway) -> f64 {
    gateway.metric("authgate_revocation_hints_total").unwrap()
}

#[test]
fn a_logout_is_told_to_the_other_gateways() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let (here, there) = (Gateway::alone(settings(&url)), Gateway::alone(settings(&url)));
    let token = here.token("alice");
    assert_eq!(there.get("/api/x", Some(&token)).status, 200);
    let before = hints(&there);
    assert_eq!(here.logout(&token).status, 200);
    eventually("the hint arrives", || (hints(&there) > before).then_some(()));
    eventually("it is refused there", || (there.get("/api/x", Some(&token)).status == 401).then_some(()));
    // The command line tells, too.
    let token = here.token("bob");
    let before = hints(&there);
    here.run(&["user", "disable", "bob"], "");
    eventually("the hint arrives", || (hints(&there) > before).then_some(()));
    eventually("it is refused there", || (there.get("/api/x", Some(&token)).status == 401).then_some(()));
}

#[test]
fn without_a_listening_connection_the_poll_finds_everything_and_another_is_made() {
    let cluster = Cluster::start();
    let url = cluster.database();
    let (here, there) = (Gateway::alone(settings(&url)), Gateway::alone(settings(&url)));
    let token = here.token("alice");
    let end =
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'authgate hints'";
    cluster.sql(url.rsplit('/').next().unwrap(), end);
    assert_eq!(here.logout(&token).status, 200);
    eventually("the poll finds it", || (there.get("/api/x", Some(&token)).status == 401).then_some(()));
    let before = hints(&there);
    let mut users = 0;
    eventually("hints are heard again", || {
        users += 1;
        here.logout(&here.token(&format!("user-{users}")));
        (hints(&there) > before).then_some(())
    });
}
