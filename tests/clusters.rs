//! Upstreams of several servers: shares, health, ejection, retries.

use std::{
    collections::HashMap,
    io::Write,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use serde_json::Value;

use crate::harness::{
    Client, Gateway, Settings, Upstream, authgate, eventually, ok, port_to_keep, upstreams_are_errors,
    write_config,
};

/// An upstream that answers with its own name.
fn named(name: &'static str) -> Upstream {
    Upstream::answering(move |_| ok(name))
}

/// An upstream that answers with a status that can be changed.
fn with_status(status: &Arc<AtomicU16>) -> Upstream {
    let status = status.clone();
    Upstream::answering(move |_| {
        format!("HTTP/1.1 {} X\r\nContent-Length: 0\r\n\r\n", status.load(SeqCst)).into_bytes()
    })
}

/// A gateway before these servers.
fn gateway(servers: &[(&Upstream, u32)], upstream: &str) -> Gateway {
    let settings = Settings { upstream: upstream.to_owned(), ..Settings::default() }.servers(servers);
    Gateway::start(servers[0].0, settings)
}

fn get(client: &mut Client) -> String {
    client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().text()
}

/// How often each name was the answer.
fn counted(client: &mut Client, requests: usize) -> HashMap<String, usize> {
    let mut counts = HashMap::new();
    for _ in 0..requests {
        *counts.entry(get(client)).or_default() += 1;
    }
    counts
}

/// The states of all servers of `backend`.
fn states(gateway: &Gateway, token: &str) -> Vec<(String, String)> {
    let response = gateway.admin("GET", "/api/upstreams", Some(token), None);
    assert_eq!(response.status, 200, "{response:?}");
    let json = response.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let servers = json["upstreams"][0]["servers"].as_array().unwrap();
    servers.iter().map(|server| (text(&server["address"]), text(&server["state"]))).collect()
}

fn state(gateway: &Gateway, token: &str, upstream: &Upstream) -> String {
    let address = upstream.address.to_string();
    states(gateway, token).into_iter().find(|(own, _)| *own == address).unwrap().1
}

/// An address where nobody listens.
fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

#[test]
fn servers_get_the_shares_of_their_weights() {
    for balance in ["round_robin", "least_requests"] {
        let (a, b) = (named("a"), named("b"));
        let gateway = gateway(&[(&a, 3), (&b, 1)], &format!(", balance: {balance}"));
        let mut client = gateway.client();
        let counts = counted(&mut client, 2_000);
        let share = counts["a"] as f64 / 2_000.0;
        assert!((share - 0.75).abs() < 0.05, "{balance}: {counts:?}");
    }
}

#[test]
fn least_requests_avoids_a_server_that_is_slow() {
    let (fast, slow) = (
        named("fast"),
        Upstream::with(|_, socket| {
            thread::sleep(Duration::from_millis(300));
            socket.write_all(&ok("slow")).is_ok()
        }),
    );
    let settings = Settings { workers: 1, ..Settings::default() }.servers(&[(&fast, 1), (&slow, 1)]);
    let gateway = Gateway::start(&fast, settings);
    let address = gateway.address;
    let slow_ones: usize = (0..16)
        .map(|_| thread::spawn(move || counted(&mut Client::connect(address), 60)))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|thread| thread.join().unwrap().get("slow").copied().unwrap_or(0))
        .sum();
    // Half of 960 without looking.
    assert!(slow_ones < 150, "{slow_ones}");
}

#[test]
fn the_same_key_gets_the_same_server_and_keeps_it_when_another_leaves() {
    let servers: Vec<Upstream> = ["a", "b", "c", "d"].into_iter().map(named).collect();
    let weighted: Vec<_> = servers.iter().map(|server| (server, 1)).collect();
    let by_header = ", balance: {hash: {header: X-Shard}}";
    let four = gateway(&weighted, by_header);
    let three = gateway(&weighted[..3], by_header);
    let server = |client: &mut Client, shard: usize| {
        let request = format!("GET /public/x HTTP/1.1\r\nHost: a\r\nX-Shard: {shard}\r\n\r\n");
        client.send(request).response().text()
    };
    let (mut of_four, mut of_three) = (four.client(), three.client());
    let mut moved = 0;
    for shard in 0..200 {
        let first = server(&mut of_four, shard);
        assert_eq!(server(&mut of_four, shard), first);
        let other = server(&mut of_three, shard);
        assert!(first == "d" || other == first, "{shard} moved from {first} to {other}");
        moved += usize::from(first == "d");
    }
    assert!((30..70).contains(&moved), "{moved}");
    // A user has one, whoever asks from the same address.
    let by_user = gateway(&weighted, ", balance: hash");
    let tokens: Vec<String> = (0..8).map(|user| by_user.token(&format!("user{user}"))).collect();
    let server_of = |token: &String| by_user.get("/api/x", Some(token)).text();
    let first: Vec<String> = tokens.iter().map(server_of).collect();
    assert_eq!(tokens.iter().map(server_of).collect::<Vec<_>>(), first);
    assert!(first.iter().any(|server| *server != first[0]), "{first:?}");
}

#[test]
fn an_address_keeps_its_server_and_weights_are_shares_of_the_addresses() {
    let (a, b) = (named("a"), named("b"));
    let upstream = ", balance: {hash: address}".to_owned();
    let settings = Settings { upstream, ..Settings::default() }.extra("trusted_proxies: [127.0.0.1/32]\n");
    let gateway = Gateway::start(&a, settings.servers(&[(&a, 3), (&b, 1)]));
    let mut client = gateway.client();
    let mut server = |address: usize| {
        let (high, low) = (address / 250, address % 250);
        let request =
            format!("GET /public/x HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 192.0.{high}.{low}\r\n\r\n");
        client.send(request).response().text()
    };
    let first: Vec<String> = (0..1_000).map(&mut server).collect();
    assert_eq!((0..1_000).map(&mut server).collect::<Vec<_>>(), first);
    let share = first.iter().filter(|name| *name == "a").count();
    // Three quarters, and four times what a thousand draws vary by.
    assert!((695..805).contains(&share), "{share}");
}

#[test]
fn a_server_whose_probes_fail_gets_no_requests_until_they_succeed() {
    let health = ", health: {path: /healthz, interval: 50ms, timeout: 500ms, healthy_after: 2, unhealthy_after: 2, host: probed.test}";
    let ill = Arc::new(AtomicBool::new(false));
    let is_ill = ill.clone();
    let a = Upstream::answering(move |seen| {
        let fails = seen.target == "/healthz" && is_ill.load(SeqCst);
        if fails { b"HTTP/1.1 500 X\r\nContent-Length: 0\r\n\r\n".to_vec() } else { ok("a") }
    });
    let b = named("b");
    let gateway = gateway(&[(&a, 1), (&b, 1)], health);
    let admin = gateway.admin_token("root");
    let mut client = gateway.client();
    assert!(counted(&mut client, 50).len() == 2);
    let probe = a.seen().into_iter().find(|seen| seen.target == "/healthz").unwrap();
    assert_eq!(probe.header("Host"), Some("probed.test"));
    assert_eq!((probe.header("Authorization"), probe.header("X-User-Id")), (None, None));
    ill.store(true, SeqCst);
    eventually("it is unhealthy", || (state(&gateway, &admin, &a) == "unhealthy").then_some(()));
    assert_eq!(counted(&mut client, 50).get("a"), None);
    let up = |server: &Upstream| {
        let address = server.address;
        gateway.metric(&format!("authgate_upstream_server_up{{server=\"{address}\",upstream=\"backend\"}}"))
    };
    assert_eq!((up(&a), up(&b)), (Some(0.0), Some(1.0)));
    ill.store(false, SeqCst);
    eventually("it is up again", || (state(&gateway, &admin, &a) == "up").then_some(()));
    assert_eq!(counted(&mut client, 50).len(), 2);
}

#[test]
fn without_a_server_that_is_well_the_answer_is_503() {
    let status = Arc::new(AtomicU16::new(500));
    let upstream = with_status(&status);
    let health = ", health: {path: /, interval: 50ms, healthy_after: 1, unhealthy_after: 1}";
    let gateway = gateway(&[(&upstream, 1)], health);
    eventually("it is unhealthy", || (gateway.get("/public/x", None).status == 503).then_some(()));
    let response = gateway.get("/public/x", None);
    assert_eq!(response.message(), "No healthy upstream");
    assert!(response.header("Retry-After").is_some());
    status.store(204, SeqCst);
    eventually("it is well again", || (gateway.get("/public/x", None).status == 204).then_some(()));
}

#[test]
fn a_probe_may_ask_for_a_connection_only() {
    let port = port_to_keep();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let b = named("b");
    let servers = format!("{{url: \"http://{address}\"}}, {{url: \"http://{}\"}}", b.address);
    let upstream = ", health: {tcp: true, interval: 50ms, healthy_after: 1, unhealthy_after: 1}".to_owned();
    let gateway = Gateway::start(&b, Settings { servers, upstream, ..Settings::default() });
    let admin = gateway.admin_token("root");
    let first = |expected: &str| (states(&gateway, &admin)[0].1 == expected).then_some(());
    eventually("nobody listens there", || first("unhealthy"));
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || listener.incoming().for_each(drop));
    eventually("somebody does", || first("up"));
}

#[test]
fn a_server_that_fails_is_ejected_and_comes_back_by_one_trial() {
    // Long beside what forty requests take on a busy machine.
    const EJECTED_FOR: Duration = Duration::from_millis(1_100);
    let status = Arc::new(AtomicU16::new(502));
    let a = with_status(&status);
    let b = named("b");
    let rules = ", balance: round_robin, ejection: {failures: 3, for: 1s}, retries: 0";
    let gateway = gateway(&[(&a, 1), (&b, 1)], rules);
    let admin = gateway.admin_token("root");
    let mut client = gateway.client();
    let mut ask = || client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status;
    let failed = (0..40).filter(|_| ask() == 502).count();
    assert_eq!(failed, 3);
    assert_eq!(state(&gateway, &admin, &a), "ejected");
    // One request tries it, fails, and it is out again.
    thread::sleep(EJECTED_FOR);
    let failed = (0..40).filter(|_| ask() == 502).count();
    assert_eq!((failed, state(&gateway, &admin, &a)), (1, "ejected".to_owned()));
    status.store(204, SeqCst);
    thread::sleep(EJECTED_FOR);
    let succeeded = (0..40).filter(|_| ask() == 204).count();
    assert_eq!((succeeded, state(&gateway, &admin, &a)), (20, "up".to_owned()));
    for told in ["server ejected", "server is back"] {
        eventually(told, || gateway.log().contains(told).then_some(()));
    }
}

#[test]
fn no_more_than_a_share_of_the_servers_is_ejected() {
    let status = Arc::new(AtomicU16::new(503));
    let servers: Vec<Upstream> = (0..4).map(|_| with_status(&status)).collect();
    let weighted: Vec<_> = servers.iter().map(|server| (server, 1)).collect();
    let gateway = gateway(&weighted, ", ejection: {failures: 1, for: 1h, at_most: 50%}, retries: 0");
    let admin = gateway.admin_token("root");
    let mut client = gateway.client();
    counted(&mut client, 40);
    let ejected = states(&gateway, &admin).iter().filter(|(_, state)| state == "ejected").count();
    assert_eq!(ejected, 2);
}

#[test]
fn a_server_that_is_away_costs_no_request() {
    let a = named("a");
    let servers = format!("{{url: \"http://{}\"}}, {{url: \"http://{}\"}}", nobody(), a.address);
    let gateway = Gateway::start(&a, Settings { servers, ..Settings::default() });
    let mut client = gateway.client();
    for _ in 0..100 {
        assert_eq!(get(&mut client), "a");
        // Nothing was sent, so a body is no matter.
        let post = "POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(client.send(post).response().text(), "a");
    }
    let retries = r#"authgate_upstream_retries_total{result="ok",upstream="backend"}"#;
    // Once for each failure before the ejection of ten seconds.
    assert_eq!(gateway.metric(retries), Some(5.0));
    assert!(a.seen().iter().all(|seen| seen.complete));
}

/// A server that closes connections instead of responding, while it is told to.
fn resetting(resets: &Arc<AtomicBool>, name: &'static str) -> Upstream {
    let resets = resets.clone();
    Upstream::with(move |_, socket| !resets.load(SeqCst) && socket.write_all(&ok(name)).is_ok())
}

#[test]
fn what_may_be_repeated_is_sent_to_another_server_and_nothing_else_is() {
    let resets = Arc::new(AtomicBool::new(true));
    let (a, b) = (resetting(&resets, "a"), named("b"));
    let rules = ", balance: round_robin, ejection: {failures: 1000}, retries: {attempts: 1, budget: 100%}";
    let gateway = gateway(&[(&a, 1), (&b, 1)], rules);
    let mut client = gateway.client();
    assert_eq!(counted(&mut client, 20), HashMap::from([("b".to_owned(), 20)]));
    let posts = |client: &mut Client, body: &str| {
        let request =
            format!("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        (0..10).filter(|_| client.send(&request).response().status == 502).count()
    };
    assert_eq!(posts(&mut client, ""), 5, "POST is not idempotent");
    assert_eq!(posts(&mut client, "hi"), 5);
    let put = "PUT /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    let failed = (0..10).filter(|_| client.send(put).response().status == 502).count();
    assert_eq!(failed, 5, "its body is gone");
    // All tries of a request have one id.
    let ids: Vec<_> = a.seen().iter().map(|seen| seen.header("X-Request-Id").unwrap().to_owned()).collect();
    let of_b = b.seen();
    let again = of_b.iter().filter(|seen| ids.contains(&seen.header("X-Request-Id").unwrap().to_owned()));
    assert_eq!(again.count(), 10);
}

#[test]
fn statuses_are_retried_at_another_server_only() {
    let status = Arc::new(AtomicU16::new(503));
    let (a, b) = (with_status(&status), named("b"));
    let rules = ", balance: round_robin, ejection: {failures: 1000}, retries: {attempts: 1, budget: 100%}";
    let both = gateway(&[(&a, 1), (&b, 1)], rules);
    assert_eq!(counted(&mut both.client(), 20), HashMap::from([("b".to_owned(), 20)]));
    assert_eq!(a.seen().len(), 10);
    status.store(500, SeqCst);
    let mut client = both.client();
    let mut ask = || client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status;
    assert_eq!((0..20).filter(|_| ask() == 500).count(), 10, "500 is not among them");
    status.store(503, SeqCst);
    let alone = gateway(&[(&a, 1)], "");
    let before = a.seen().len();
    assert_eq!(alone.get("/public/x", None).status, 503);
    assert_eq!(a.seen().len(), before + 1);
    let only_connect = gateway(&[(&a, 1), (&b, 1)], ", balance: round_robin, retries: {on: [connect]}");
    let mut client = only_connect.client();
    let mut ask = || client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status;
    assert_eq!((0..4).filter(|_| ask() == 503).count(), 2);
}

#[test]
fn retries_are_a_share_of_the_requests() {
    let resets = Arc::new(AtomicBool::new(true));
    let servers = [resetting(&resets, "a"), resetting(&resets, "b")];
    let rules = ", ejection: {failures: 1000}, retries: {attempts: 1, budget: 20%}";
    let gateway = gateway(&[(&servers[0], 1), (&servers[1], 1)], rules);
    let mut client = gateway.client();
    for _ in 0..100 {
        client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response();
    }
    let seen: usize = servers.iter().map(|server| server.seen().len()).sum();
    assert!((115..=121).contains(&seen), "{seen}");
    let over = r#"authgate_upstream_retries_total{result="over_budget",upstream="backend"}"#;
    assert!(gateway.metric(over) >= Some(70.0));
}

#[test]
fn a_killed_server_costs_nobody_an_answer_and_a_revived_one_comes_back() {
    let port = port_to_keep();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let serve = move |until: Arc<AtomicBool>| {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let served = Arc::new(AtomicUsize::new(0));
        let count = served.clone();
        let thread = thread::spawn(move || {
            let mut open = Vec::new();
            while !until.load(SeqCst) {
                if let Ok((socket, _)) = listener.accept() {
                    socket.set_nonblocking(false).unwrap();
                    let kept = socket.try_clone().unwrap();
                    open.push(kept);
                    let count = count.clone();
                    thread::spawn(move || {
                        let mut socket = socket;
                        let mut head = [0; 4_096];
                        while std::io::Read::read(&mut socket, &mut head).is_ok_and(|length| length > 0) {
                            count.fetch_add(1, SeqCst);
                            if socket.write_all(&ok("mortal")).is_err() {
                                return;
                            }
                        }
                    });
                }
                thread::sleep(Duration::from_millis(1));
            }
            open.iter().for_each(|socket| drop(socket.shutdown(std::net::Shutdown::Both)));
        });
        (served, thread)
    };
    let killed = Arc::new(AtomicBool::new(false));
    let (first, thread) = serve(killed.clone());
    let b = named("b");
    let servers = format!("{{url: \"http://{address}\"}}, {{url: \"http://{}\"}}", b.address);
    let upstream = ", ejection: {failures: 3, for: 300ms}".to_owned();
    let gateway = Gateway::start(&b, Settings { servers, upstream, ..Settings::default() });
    let mut client = gateway.client();
    assert_eq!(counted(&mut client, 100).len(), 2);
    killed.store(true, SeqCst);
    for _ in 0..300 {
        assert!(["b", "mortal"].contains(&get(&mut client).as_str()));
    }
    thread.join().unwrap();
    assert!(first.load(SeqCst) > 0);
    let (second, _thread) = serve(Arc::default());
    eventually("it comes back", || {
        get(&mut client);
        (second.load(SeqCst) > 3).then_some(())
    });
}

#[test]
fn a_server_that_is_back_begins_slowly() {
    let status = Arc::new(AtomicU16::new(500));
    let (a, b) = (with_status(&status), named("b"));
    let rules = ", balance: round_robin, slow_start: 1h, health: {path: /, interval: 30ms, healthy_after: 1, unhealthy_after: 1}";
    let gateway = gateway(&[(&a, 1), (&b, 1)], rules);
    let admin = gateway.admin_token("root");
    eventually("it is unhealthy", || (state(&gateway, &admin, &a) == "unhealthy").then_some(()));
    status.store(204, SeqCst);
    eventually("it is back", || (state(&gateway, &admin, &a) == "up").then_some(()));
    let counts = counted(&mut gateway.client(), 220);
    assert!((190..=210).contains(&counts["b"]), "a tenth of its weight at first: {counts:?}");
}

#[test]
fn an_upgrade_is_sent_once_and_so_is_what_has_told_the_client_something() {
    let a = Upstream::with(|seen, socket| {
        let _ = match seen.target.as_str() {
            "/public/hints" => socket.write_all(
                b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n",
            ),
            "/public/first" => return socket.write_all(&ok("a")).is_ok(),
            _ => Ok(()),
        };
        false
    });
    // The same one by another address of this machine.
    let port = a.address.port();
    let servers = format!("{{url: \"http://127.0.0.1:{port}\"}}, {{url: \"http://localhost:{port}\"}}");
    let upstream = ", ejection: {failures: 1000}".to_owned();
    let gateway = Gateway::start(&a, Settings { servers, upstream, workers: 1, ..Settings::default() });
    let mut client = gateway.client();
    for path in ["hints", "ws"] {
        let upgrade = if path == "ws" { "Connection: Upgrade\r\nUpgrade: websocket\r\n" } else { "" };
        // On a connection that rested, too.
        client.send("GET /public/first HTTP/1.1\r\nHost: a\r\n\r\n").response();
        let before = a.seen().len();
        client.send(format!("GET /public/{path} HTTP/1.1\r\nHost: a\r\n{upgrade}\r\n"));
        assert!(client.response().status >= 502, "{path}");
        assert_eq!(a.seen().len(), before + 1, "{path}");
    }
}

#[test]
fn addresses_of_a_name_that_are_all_away_cost_one_look_at_each() {
    let port = port_to_keep();
    let a = named("a");
    let servers = format!("{{url: \"http://localhost:{port}\"}}");
    let gateway = Gateway::start(&a, Settings { servers, ..Settings::default() });
    let mut client = gateway.client();
    for _ in 0..20 {
        let begun = std::time::Instant::now();
        assert_eq!(client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 502);
        assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    }
}

#[test]
fn a_server_that_breaks_its_responses_off_is_ejected() {
    let a = Upstream::with(|_, socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf");
        false
    });
    let b = named("b");
    let rules = ", balance: round_robin, ejection: {failures: 3, for: 10s}, retries: 0";
    let gateway = gateway(&[(&a, 1), (&b, 1)], rules);
    let admin = gateway.admin_token("root");
    let broken = (0..20)
        .filter(|_| {
            let mut client = gateway.client();
            client.send("GET /public/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            String::from_utf8(client.rest()).unwrap().ends_with("half")
        })
        .count();
    assert_eq!(broken, 3);
    assert_eq!(state(&gateway, &admin, &a), "ejected");
}

#[test]
fn a_clients_own_fault_says_nothing_of_a_server() {
    let status = Arc::new(AtomicU16::new(502));
    let (a, b) = (with_status(&status), named("b"));
    let rules = ", balance: round_robin, ejection: {failures: 3, for: 300ms}, retries: 0";
    let gateway = gateway(&[(&a, 1), (&b, 1)], rules);
    let admin = gateway.admin_token("root");
    let mut client = gateway.client();
    let mut ask = || client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status;
    eventually("it is ejected", || {
        ask();
        (state(&gateway, &admin, &a) == "ejected").then_some(())
    });
    thread::sleep(Duration::from_millis(350));
    // The trial is a request that its client breaks.
    let mut broken = gateway.client();
    broken.send("POST /public/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    assert_eq!(broken.response().status, 400);
    assert_eq!(state(&gateway, &admin, &a), "ejected");
}

#[test]
fn a_server_of_weight_0_is_drained() {
    let (a, b) = (named("a"), named("b"));
    let gateway = gateway(&[(&a, 0), (&b, 1)], "");
    let admin = gateway.admin_token("root");
    assert_eq!(counted(&mut gateway.client(), 50), HashMap::from([("b".to_owned(), 50)]));
    assert_eq!(state(&gateway, &admin, &a), "drained");
}

#[test]
fn a_server_that_a_reload_drains_finishes_what_it_has() {
    let (begun, ends) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (tells, awaits) = (begun.clone(), ends.clone());
    let a = Upstream::with(move |seen, socket| {
        if seen.target.ends_with("/slow") {
            tells.store(true, SeqCst);
            eventually("the reload is done", || awaits.load(SeqCst).then_some(()));
        }
        socket.write_all(&ok("a")).is_ok()
    });
    let b = named("b");
    let settings = |weight: u32| Settings::default().servers(&[(&a, weight), (&b, 1)]);
    let gateway = Gateway::start(&a, Settings::default().servers(&[(&a, 1)]));
    let admin = gateway.admin_token("root");
    let mut slow = gateway.client();
    slow.send("GET /public/slow HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("it is there", || begun.load(SeqCst).then_some(()));
    assert_eq!(gateway.reload(&admin, &settings(0)).status, 200);
    assert_eq!(counted(&mut gateway.client(), 50), HashMap::from([("b".to_owned(), 50)]));
    ends.store(true, SeqCst);
    assert_eq!(slow.response().text(), "a");
    assert_eq!(gateway.reload(&admin, &settings(1)).status, 200);
    assert_eq!(counted(&mut gateway.client(), 50).len(), 2);
}

#[test]
fn what_is_known_of_a_server_outlives_a_reload_that_changes_its_upstream() {
    let status = Arc::new(AtomicU16::new(502));
    let (ill, ejected, well) =
        (with_status(&status), resetting(&Arc::new(AtomicBool::new(true)), "ejected"), named("well"));
    let rules = |wait: &str| {
        format!(
            ", balance: round_robin, max_wait: {wait}, ejection: {{failures: 2, for: 1h, at_most: 100%}}, health: {{path: /healthz, interval: 50ms, timeout: 5s, healthy_after: 1, unhealthy_after: 2, expect: 200-204}}"
        )
    };
    let settings = |wait: &str| {
        let upstream = rules(wait);
        Settings { upstream, ..Settings::default() }.servers(&[(&ill, 1), (&ejected, 1), (&well, 1)])
    };
    let gateway = Gateway::start(&well, settings("1s"));
    let admin = gateway.admin_token("root");
    let both = || {
        let states = states(&gateway, &admin);
        (states[0].1 != "up" && states[1].1 != "up").then_some(())
    };
    eventually("both are out", both);
    let before = ill.seen().iter().filter(|seen| seen.target != "/healthz").count();
    for wait in ["2s", "3s"] {
        assert_eq!(gateway.reload(&admin, &settings(wait)).status, 200);
        both().expect("both are out still");
        assert_eq!(counted(&mut gateway.client(), 30), HashMap::from([("well".to_owned(), 30)]));
    }
    assert_eq!(ill.seen().iter().filter(|seen| seen.target != "/healthz").count(), before);
    status.store(204, SeqCst);
    eventually("it is up again", || (state(&gateway, &admin, &ill) == "up").then_some(()));
}

#[test]
fn each_address_of_a_name_is_a_server() {
    // `localhost` is 127.0.0.1, and ::1 where there is IPv6; nobody listens at the latter.
    let a = named("a");
    let servers = format!("{{url: \"http://localhost:{}\"}}", a.address.port());
    let gateway = Gateway::start(&a, Settings { servers, ..Settings::default() });
    let admin = gateway.admin_token("root");
    let mut client = gateway.client();
    assert_eq!(counted(&mut client, 50), HashMap::from([("a".to_owned(), 50)]));
    let response = gateway.admin("GET", "/api/upstreams", Some(&admin), None).json();
    let server = &response["upstreams"][0]["servers"][0];
    assert_eq!(server["url"], format!("http://localhost:{}", a.address.port()));
    let addresses: Vec<_> = states(&gateway, &admin).into_iter().map(|(address, _)| address).collect();
    assert!(addresses.contains(&a.address.to_string()), "{addresses:?}");
}

#[test]
fn a_name_that_leads_to_the_gateway_itself_or_nowhere_is_no_server() {
    let a = named("a");
    let port = port_to_keep();
    let folder = tempfile::tempdir().unwrap();
    // `localhost.` is a name for the config, and an address for the system.
    let text = format!(
        "listeners: [{{address: \"127.0.0.1:{port}\"}}]\nadmin: {{address: \"127.0.0.1:0\"}}\nauth: {{issuer: a, audience: b}}\nupstreams:\n  own: {{servers: [{{url: \"http://localhost.:{port}\"}}]}}\n  none: {{servers: [{{url: \"http://nowhere.invalid:80\"}}, {{url: \"http://{}\"}}]}}\nroutes:\n  - {{path: /own, auth: none, upstream: own}}\n  - {{path: /none, auth: none, upstream: none}}\n",
        a.address
    );
    let config = write_config(folder.path(), &text);
    let mut child = authgate().args(["serve", "--config"]).arg(config).spawn().unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("it listens", || std::net::TcpStream::connect(address).ok());
    let ask = |path: &str| {
        Client::connect(address).send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).response()
    };
    eventually("the other server is used", || (ask("/none").text() == "a").then_some(()));
    let response = ask("/own");
    assert!(response.status == 503 || response.status == 502, "{response:?}");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_access_line_names_the_server_that_answered() {
    let (a, b) = (named("a"), named("b"));
    let gateway = gateway(&[(&a, 1), (&b, 1)], ", balance: round_robin");
    counted(&mut gateway.client(), 10);
    for server in [&a, &b] {
        let field = format!("\"upstream.address\":\"{}\"", server.address);
        eventually("a line has it", || gateway.log().contains(&field).then_some(()));
    }
}

#[test]
fn faults_of_upstreams_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let cases = [
        ("servers: []", "servers", "expected at least one"),
        ("servers: [{url: \"http://a\"}, {url: \"http://a:80\"}]", "servers[1].url", "give it a `weight`"),
        ("servers: [{url: \"http://a\", weight: 0}]", "servers", "a weight above 0"),
        ("servers: [{url: \"http://a\", weight: 1001}]", "servers[0].weight", "expected 0 to 1000"),
        ("servers: [{url: \"http://a\"}], balance: best", "balance", "expected least_requests"),
        (
            "servers: [{url: \"http://a\"}], buffer: {request: 1GiB}",
            "buffer.request",
            "expected 0B to 67108864B",
        ),
        ("servers: [{url: \"http://a\"}], balance: {hash: colour}", "balance", "expected least_requests"),
        (
            "servers: [{url: \"http://a\"}], balance: {hash: {header: \"a b\"}}",
            "balance.hash.header",
            "the name of a header",
        ),
        (
            "servers: [{url: \"http://a\"}], health: {interval: 1s}",
            "health",
            "expected `path`, or `tcp: true`",
        ),
        ("servers: [{url: \"http://a\"}], health: {path: /, tcp: true}", "health", "in place of it"),
        ("servers: [{url: \"http://a\"}], health: {path: x}", "health.path", "begins with `/`"),
        (
            "servers: [{url: \"http://a\"}], health: {path: /, expect: 200-}",
            "health.expect",
            "expected statuses",
        ),
        (
            "servers: [{url: \"http://a\"}], health: {path: /, expect: 600}",
            "health.expect",
            "expected statuses",
        ),
        (
            "servers: [{url: \"http://a\"}], health: {tcp: true, host: a}",
            "health.host",
            "goes with `path` only",
        ),
        ("servers: [{url: \"http://a\"}], ejection: {at_most: half}", "ejection.at_most", "0% to 100%"),
        ("servers: [{url: \"http://a\"}], retries: {budget: 101%}", "retries.budget", "0% to 100%"),
        ("servers: [{url: \"http://a\"}], retries: 11", "retries", "expected 0 to 10"),
        ("servers: [{url: \"http://a\"}], retries: {on: [404]}", "retries.on[0]", "from 500 to 599"),
        (
            "servers: [{url: \"http://a\"}], retries: {on: [timeout]}",
            "retries.on[0]",
            "expected connect, reset",
        ),
    ];
    upstreams_are_errors(folder.path(), &cases);
}
