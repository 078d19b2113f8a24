//! Several gateways on one database, and what is asked of them.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Cluster, Gateway, Proxy, Settings, eventually};

/// The bound that the tests declare, and what a busy machine may add between a response and a question.
pub const BOUND: Duration = Duration::from_secs(2);
pub const POLL: Duration = Duration::from_secs(1);

/// What gateways on one database have in common.
pub fn settings(url: &str) -> Settings {
    Settings::postgres(url)
        .auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n")
        .auth("  throttle: {registrations: {requests: 1000, per: 1s}}\n")
        .extra("revocation: {max_staleness: 2s}\n")
}

/// One gateway at the database and one behind a road that can be cut.
pub fn pair(cluster: &Cluster) -> (Gateway, Gateway, Proxy) {
    pair_with(cluster, |_| {})
}

/// The same with other settings.
pub fn pair_with(cluster: &Cluster, change: impl Fn(&mut Settings)) -> (Gateway, Gateway, Proxy) {
    let url = cluster.database();
    let proxy = Proxy::before(&url);
    let start = |url: &str| {
        let mut settings = settings(url);
        change(&mut settings);
        Gateway::alone(settings)
    };
    let (here, there) = (start(&url), start(&proxy.url(&url)));
    (here, there, proxy)
}

pub fn hints(gateway: &Gateway) -> f64 {
    gateway.metric("authgate_revocation_hints_total").unwrap()
}

pub fn status(gateway: &Gateway, token: &str) -> u16 {
    gateway.get("/api/x", Some(token)).status
}

pub fn access(response: &Value) -> &str {
    response["access_token"].as_str().unwrap()
}

pub fn refresh(response: &Value) -> &str {
    response["refresh_token"].as_str().unwrap()
}

pub fn user_id(response: &Value) -> &str {
    response["user_id"].as_str().unwrap()
}

/// Whether the store knows of no such session any more.
pub fn has_ended(gateway: &Gateway, response: &Value) -> bool {
    eventually("the store answers", || {
        let status = gateway.refresh(refresh(response)).status;
        (status != 503).then_some(status == 401)
    })
}

#[track_caller]
pub fn eventually_is(gateway: &Gateway, token: &str, wanted: u16) {
    eventually(&format!("{wanted}"), || (status(gateway, token) == wanted).then_some(()));
}

/// The last request that a gateway lets through is begun before the bound has passed.
#[track_caller]
pub fn assert_refused_within_the_bound(gateway: &Gateway, token: &str, answered: Instant) {
    loop {
        let begun = answered.elapsed();
        let status = status(gateway, token);
        assert!(status != 200 || begun <= BOUND, "200 to a request begun {begun:?} after the logout");
        if begun > BOUND + POLL {
            return;
        }
    }
}
