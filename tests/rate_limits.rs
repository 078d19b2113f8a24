//! Routes take so many requests, and no more.

use std::{
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::Duration,
};

use crate::harness::{Client, Gateway, Settings, Upstream, errors_of};

fn start(limit: &str, more: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let routes = format!(
        "  - {{path: /api/**, auth: optional, upstream: backend, rate_limit: {limit}}}\n  - {{path: /other/**, auth: none, upstream: backend}}\n"
    );
    let gateway = Gateway::start(&upstream, Settings::routes(&routes).extra(more));
    (gateway, upstream)
}

fn ask(client: &mut Client, path: &str, headers: &str) -> (u16, [Option<String>; 3]) {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n"));
    let response = client.response();
    let told =
        ["ratelimit", "ratelimit-policy", "retry-after"].map(|name| response.header(name).map(str::to_owned));
    (response.status, told)
}

#[test]
fn a_bucket_is_emptied_and_the_client_is_told() {
    let (gateway, upstream) = start("{requests: 3, per: 1m, by: address}", "");
    let mut client = gateway.client();
    for left in [2, 1, 0] {
        let (status, [limit, policy, retry]) = ask(&mut client, "/api/x", "");
        assert_eq!(status, 200);
        assert_eq!(limit.unwrap(), format!("\"address\";r={left};t={}", (3 - left) * 20));
        assert_eq!((policy.unwrap().as_str(), retry), ("\"address\";q=3;w=60", None));
    }
    client.send("GET /api/x HTTP/1.1\r\nHost: a\r\n\r\n");
    let refused = client.response();
    assert_eq!((refused.status, refused.message().as_str()), (429, "Too many requests"), "{refused:?}");
    let (limit, retry) = (refused.header("ratelimit").unwrap(), refused.header("retry-after").unwrap());
    assert!(limit.starts_with("\"address\";r=0;t="), "{limit}");
    assert!((1..=20).contains(&retry.parse::<u32>().unwrap()), "{retry}");
    assert_eq!(upstream.seen().len(), 3, "what is refused reaches nobody");
    // Others are others, and say nothing of it.
    let (status, told) = ask(&mut client, "/other/x", "");
    assert_eq!((status, told), (200, [None, None, None]));
    assert_eq!(gateway.metric("authgate_rate_limited_total{route=\"/api/**\"}"), Some(1.0));
    assert_eq!(gateway.metric("authgate_denied_total{reason=\"rate_limited\"}"), Some(1.0));
}

#[test]
fn the_bucket_fills_by_the_rate_and_holds_no_more_than_its_size() {
    let (gateway, _upstream) = start("{requests: 10, per: 1s, burst: 2, by: route}", "");
    let mut client = gateway.client();
    let mut taken = || (0..30).take_while(|_| ask(&mut client, "/api/x", "").0 == 200).count();
    assert!((2..=3).contains(&taken()));
    thread::sleep(Duration::from_millis(600));
    assert!((2..=3).contains(&taken()));
}

#[test]
fn users_addresses_and_headers_are_counted_apart() {
    let (gateway, _upstream) = start("{requests: 2, per: 1h, by: user}", "trusted_proxies: [127.0.0.1/32]\n");
    let tokens = [gateway.token("alice"), gateway.token("bob")];
    let mut client = gateway.client();
    for token in &tokens {
        let bearer = format!("Authorization: Bearer {token}\r\n");
        let statuses: Vec<_> = (0..3).map(|_| ask(&mut client, "/api/x", &bearer).0).collect();
        assert_eq!(statuses, [200, 200, 429]);
    }
    // Whoever is not signed in is counted by the address, which a trusted proxy tells; one of IPv6 by its network.
    for (address, expected) in [
        ("192.0.2.1", [200, 200, 429]),
        ("192.0.2.2", [200, 200, 429]),
        ("2001:db8::1", [200, 200, 429]),
        ("2001:db8::2", [429, 429, 429]),
    ] {
        let told = format!("X-Forwarded-For: {address}\r\n");
        let statuses = [(); 3].map(|()| ask(&mut client, "/api/x", &told).0);
        assert_eq!(statuses, expected, "{address}");
    }
    let (gateway, _upstream) = start("{requests: 1, per: 1h, by: {header: X-Api-Client}}", "");
    let mut client = gateway.client();
    for (header, expected) in
        [("X-Api-Client: a\r\n", [200, 429]), ("x-api-client: b\r\n", [200, 429]), ("", [200, 429])]
    {
        assert_eq!([(); 2].map(|()| ask(&mut client, "/api/x", header).0), expected, "{header}");
    }
    // A second line makes no other client, whatever stands there.
    let several = |index: u32| format!("X-Api-Client: {index}\r\nX-Api-Client: a\r\n");
    let statuses: Vec<_> = (0..4).map(|index| ask(&mut client, "/api/x", &several(index)).0).collect();
    assert_eq!(statuses, [200, 429, 429, 429]);
}

#[test]
fn all_limits_of_a_route_hold_and_what_one_refuses_spends_nothing_of_the_others() {
    let limit = "[{requests: 4, per: 1h, by: route}, {requests: 2, per: 1h, by: {header: X-A}}, {requests: 3, per: 30m, burst: 3, by: route}]";
    let (gateway, _upstream) = start(limit, "");
    let mut client = gateway.client();
    let (status, [limit, policy, _]) = ask(&mut client, "/api/x", "X-A: 1\r\n");
    assert_eq!(status, 200);
    assert_eq!(limit.unwrap(), "\"route\";r=3;t=900, \"x-a\";r=1;t=1800, \"route-2\";r=2;t=600");
    assert_eq!(policy.unwrap(), "\"route\";q=4;w=3600, \"x-a\";q=2;w=3600, \"route-2\";q=3;w=1800");
    assert_eq!([(); 5].map(|()| ask(&mut client, "/api/x", "X-A: 1\r\n").0), [200, 429, 429, 429, 429]);
    // One is left of the third, and two of the first.
    assert_eq!([(); 2].map(|()| ask(&mut client, "/api/x", "X-A: 2\r\n").0), [200, 429]);
    let (_, [limit, ..]) = ask(&mut client, "/api/x", "X-A: 3\r\n");
    assert!(limit.unwrap().starts_with("\"route\";r=1;"), "the first has one left");
}

#[test]
fn a_limit_is_exact_whoever_comes_by_whichever_worker() {
    let (gateway, upstream) = start("{requests: 500, per: 1h, by: route}", "");
    let taken = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = gateway.client();
                for _ in 0..100 {
                    match ask(&mut client, "/api/x", "").0 {
                        200 => drop(taken.fetch_add(1, SeqCst)),
                        status => assert_eq!(status, 429),
                    }
                }
            });
        }
    });
    assert_eq!((taken.load(SeqCst), upstream.seen().len()), (500, 500));
}

#[test]
fn who_may_not_come_spends_nothing_and_a_reload_forgets_nothing() {
    let upstream = Upstream::start();
    let settings = |more: &str| {
        Settings::routes(&format!(
            "  - {{path: /api/**, upstream: backend, rate_limit: {{requests: 2, per: 1h, by: route}}}}\n{more}"
        ))
    };
    let gateway = Gateway::start(&upstream, settings(""));
    let admin = gateway.admin_token("root");
    for _ in 0..5 {
        let response = gateway.get("/api/x", None);
        assert_eq!((response.status, response.header("ratelimit")), (401, None));
    }
    assert_eq!(gateway.get("/api/x", Some(&admin)).status, 200);
    let more = "  - {path: /more, auth: none, upstream: backend}\n";
    assert_eq!(gateway.reload(&admin, &settings(more)).status, 200);
    assert_eq!(gateway.get("/api/x", Some(&admin)).status, 200);
    assert_eq!(gateway.get("/api/x", Some(&admin)).status, 429);
}

#[test]
fn faults_of_limits_are_named() {
    let folder = tempfile::tempdir().unwrap();
    for (limit, key, expected) in [
        ("{requests: 0, per: 1s}", "rate_limit.requests", "expected 1 to"),
        ("{requests: 1, per: 0s}", "rate_limit.per", "longer than nothing"),
        ("{requests: 1, per: 48h}", "rate_limit.per", "up to 24h"),
        ("{requests: 1, per: 1s, burst: 0}", "rate_limit.burst", "expected 1 to"),
        (
            "{requests: 1, per: 1s, by: name}",
            "rate_limit.by",
            "expected user, address, route or {header: NAME}",
        ),
        ("{requests: 1, per: 1s, by: {header: \"a b\"}}", "rate_limit.by.header", "the name of a header"),
        ("{requests: 1, per: 24h, burst: 1000}", "rate_limit.burst", "come back within a year"),
        ("[]", "rate_limit", "expected 1 to 8"),
        ("[{requests: 1, per: 1s}, {requests: 1, per: 1s}]", "rate_limit", "twice"),
        ("[{requests: 1, per: 1s}, {requests: 2, per: 48h}]", "rate_limit[1].per", "up to 24h"),
        ("{requests: 1}", "rate_limit", "expected {requests, per, burst, by}"),
    ] {
        let errors = errors_of(
            folder.path(),
            &format!(
                "listeners: [{{address: \"127.0.0.1:0\"}}]\nauth: {{issuer: a, audience: b}}\nupstreams: {{x: {{servers: [{{url: \"http://127.0.0.1:1\"}}]}}}}\nroutes:\n  - {{path: /x, upstream: x, rate_limit: {limit}}}\n"
            ),
        );
        assert!(
            errors.contains(&format!("gateway.yaml:5: routes[0].{key}: ")) && errors.contains(expected),
            "{limit}: {errors}"
        );
    }
}
