//! Client connections on which nothing is under way.

use std::time::{Duration, Instant};

use crate::harness::{Client, Gateway, Settings, Upstream, eventually};

fn resting(gateway: &Gateway) -> f64 {
    gateway.metric("authgate_resting_connections").unwrap()
}

fn gateway(lines: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let settings = Settings { workers: 1, ..Settings::default().extra(lines) };
    (Gateway::start(&upstream, settings), upstream)
}

fn get(client: &mut Client) -> u16 {
    client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response().status
}

#[test]
#[ignore = "slow"]
fn a_connection_that_rests_takes_a_few_kilobytes_and_serves_its_next_request() {
    const COUNT: usize = 1_000;
    let (gateway, _upstream) = gateway("");
    let connect = |count: usize| -> Vec<Client> {
        let mut clients: Vec<Client> = (0..count).map(|_| gateway.client()).collect();
        clients.iter_mut().for_each(|client| assert_eq!(get(client), 200));
        clients
    };
    // What the first ones allocate once for all is not theirs.
    let mut first = connect(50);
    eventually("they rest", || (resting(&gateway) == 50.0).then_some(()));
    let before = gateway.memory();
    let mut clients = connect(COUNT);
    eventually("all rest", || (resting(&gateway) == 50.0 + COUNT as f64).then_some(()));
    let each = || gateway.memory().saturating_sub(before) / COUNT as u64;
    eventually("what served them is given back", || (each() < 4 << 10).then_some(()));
    assert_eq!(gateway.metric("authgate_open_connections"), Some(50.0 + COUNT as f64));
    for client in first.iter_mut().chain(&mut clients) {
        assert_eq!(get(client), 200);
    }
    assert_eq!(resting(&gateway), 0.0);
}

#[test]
fn a_head_that_begins_on_a_resting_connection_is_late_as_any_other() {
    let (gateway, _upstream) = gateway("limits: {header_timeout: 300ms}\n");
    let mut client = gateway.client();
    eventually("it rests", || (resting(&gateway) == 1.0).then_some(()));
    assert_eq!(client.send("GET /public/x HTTP/1.1\r\n").response().status, 408);
}

#[test]
fn a_resting_connection_is_closed_in_time_whatever_empty_lines_come() {
    let (gateway, _upstream) = gateway("limits: {idle_timeout: 5s}\n");
    let begun = Instant::now();
    let mut client = gateway.client();
    eventually("it rests", || (resting(&gateway) == 1.0).then_some(()));
    client.send("\r\n");
    client.until_closed_or_refused();
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(4_500) && took < Duration::from_secs(8), "{took:?}");
    eventually("it is forgotten", || {
        (gateway.metric("authgate_open_connections") == Some(0.0)).then_some(())
    });
}

#[test]
fn a_client_that_leaves_while_it_rests_is_forgotten_and_a_drain_waits_for_none() {
    let (mut gateway, _upstream) = gateway("");
    let (client, mut stays) = (gateway.client(), gateway.client());
    assert_eq!(get(&mut stays), 200);
    eventually("both rest", || (resting(&gateway) == 2.0).then_some(()));
    drop(client);
    eventually("one is forgotten", || {
        (gateway.metric("authgate_open_connections") == Some(1.0)).then_some(())
    });
    let begun = Instant::now();
    gateway.signal(libc::SIGTERM);
    assert!(eventually("it ends", || gateway.ended()).success());
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert!(stays.is_closed_silently());
}

#[test]
fn a_request_that_is_there_when_the_drain_begins_is_answered() {
    let (mut gateway, upstream) = gateway("");
    let (mut rested, mut fresh) = (gateway.client(), gateway.client());
    assert_eq!(get(&mut rested), 200);
    eventually("both rest", || (resting(&gateway) == 2.0).then_some(()));
    // It finds the requests and the end at the same moment.
    gateway.signal(libc::SIGSTOP);
    for client in [&mut rested, &mut fresh] {
        client.send("POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    }
    gateway.signal(libc::SIGTERM);
    gateway.signal(libc::SIGCONT);
    assert_eq!((rested.response().status, fresh.response().status), (200, 200));
    assert!(eventually("it ends", || gateway.ended()).success());
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn an_empty_line_is_no_request_that_a_drain_waits_for() {
    let (mut gateway, _upstream) = gateway("drain: {limit: 60s}\n");
    let mut client = gateway.client();
    assert_eq!(get(&mut client), 200);
    client.send("\r\n");
    // What has come before is read before the worker is told of the drain.
    assert_eq!(get(&mut gateway.client()), 200);
    let begun = Instant::now();
    gateway.signal(libc::SIGTERM);
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    client.until_closed_or_refused();
}

#[test]
fn an_empty_line_behind_a_request_does_not_keep_a_connection_from_resting() {
    let (gateway, _upstream) = gateway("");
    let mut client = gateway.client();
    assert_eq!(get(&mut client), 200);
    client.send("\r\n");
    eventually("it rests", || (resting(&gateway) == 1.0).then_some(()));
    assert_eq!(get(&mut client), 200);
}
