//! Tunnels, event streams and long transfers: decided like any request, and ended with their token.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::harness::{
    Client, Cluster, Gateway, Seen, Settings, Upstream, eventually, ok, peer, python, shared_database,
};

const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

const SWITCHED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: upgrade\r\n\
     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// For tests that register many.
const MANY: &str = "  throttle: {registrations: {requests: 1000, per: 1s}}\n";

/// `…/ws` echoes, `…/events` sends an event now and then, `…/download` sends for ever, `…/slow` takes its
/// time; everything else is answered at once. Counts the connections that are in such a response.
fn upstream() -> (Upstream, Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = open.clone();
    let upstream = Upstream::with(move |seen, socket| {
        counted.fetch_add(1, SeqCst);
        let goes_on = response(seen, socket);
        counted.fetch_sub(1, SeqCst);
        goes_on
    });
    (upstream, open)
}

fn response(seen: &Seen, socket: &mut TcpStream) -> bool {
    let path = seen.target.rsplit('/').next().unwrap_or_default();
    match path {
        "ws" if seen.header("upgrade").is_some() => {
            let _ = socket.write_all(SWITCHED);
            let mut chunk = [0; 1_024];
            while let Ok(length) = socket.read(&mut chunk)
                && length > 0
            {
                if socket.write_all(&chunk[..length]).is_err() {
                    break;
                }
            }
            false
        }
        "events" => {
            let head =
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            let mut sent = socket.write_all(head);
            while sent.is_ok() {
                sent = socket.write_all(b"9\r\ndata: x\n\n\r\n");
                thread::sleep(Duration::from_millis(30));
            }
            false
        }
        "silent" => {
            let head =
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = socket.write_all(head);
            let _ = socket.read(&mut [0]);
            false
        }
        "download" => {
            let mut sent = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n");
            while sent.is_ok() {
                sent = socket.write_all(&[b'x'; 64 << 10]);
            }
            false
        }
        "slow" => {
            thread::sleep(Duration::from_millis(600));
            socket.write_all(&ok("late")).is_ok()
        }
        _ => socket.write_all(&ok(&seen.target)).is_ok(),
    }
}

fn start(settings: Settings) -> (Gateway, Upstream, Arc<AtomicUsize>) {
    let (upstream, open) = upstream();
    (Gateway::start(&upstream, settings), upstream, open)
}

/// Begins a request with a token; its response is still to be read.
fn begin(gateway: &Gateway, path: &str, token: Option<&str>, more: &str) -> Client {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let mut client = gateway.client();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{bearer}{more}\r\n"));
    client
}

#[track_caller]
fn tunnel(gateway: &Gateway, path: &str, token: Option<&str>) -> Client {
    let mut client = begin(gateway, path, token, UPGRADE);
    assert_eq!(client.head().0, 101);
    assert_echoes(&mut client);
    client
}

#[track_caller]
fn assert_echoes(client: &mut Client) {
    client.send("ping");
    assert_eq!(client.read_some(4), b"ping");
}

#[track_caller]
fn stream(gateway: &Gateway, path: &str, token: Option<&str>) -> Client {
    let mut client = begin(gateway, path, token, "");
    assert_eq!(client.head().0, 200);
    client
}

/// One stream of each kind.
#[track_caller]
fn one_of_each(gateway: &Gateway, token: &str) -> Vec<Client> {
    let mut all = vec![tunnel(gateway, "/api/ws", Some(token))];
    for path in ["/api/events", "/api/silent", "/api/download"] {
        all.push(stream(gateway, path, Some(token)));
    }
    eventually("all are known", || (gateway.metric("authgate_live_streams") == Some(4.0)).then_some(()));
    all
}

#[track_caller]
fn assert_all_end(gateway: &Gateway, clients: Vec<Client>, open: &AtomicUsize) {
    for mut client in clients {
        client.until_closed();
    }
    eventually("the upstream hears of it", || (open.load(SeqCst) == 0).then_some(()));
    eventually("none is left", || (gateway.metric("authgate_live_streams") == Some(0.0)).then_some(()));
}

#[test]
fn a_websocket_is_a_tunnel_with_the_identity_that_was_decided() {
    let (gateway, upstream, _) = start(Settings::default());
    let token = gateway.token("alice");
    let mut client = begin(&gateway, "/api/ws", Some(&token), &format!("X-User-Id: 1\r\n{UPGRADE}"));
    let (status, headers) = client.head();
    let header = |name: &str| {
        let mut found = headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{headers:?}");
        value
    };
    assert_eq!(status, 101);
    assert_eq!((header("connection"), header("upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert!(header("x-request-id").is_some() && header("content-length").is_none());
    for round in 0..50 {
        let message = vec![round; 20_000];
        client.send(&message);
        assert_eq!(client.read_some(message.len()), message);
    }
    let seen = upstream.only();
    assert_eq!((seen.header("Connection"), seen.header("Upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(seen.header("Sec-WebSocket-Key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
    assert_eq!(seen.header("X-User-Name"), Some("alice"));
    assert_eq!((seen.header("Authorization"), seen.all("X-User-Id").len()), (None, 1));
    // One side says that it ends; what the other still sends arrives.
    client.send("bye").end();
    assert_eq!(client.rest(), b"bye");
}

#[test]
fn a_real_websocket_client_talks_to_a_real_server_until_the_logout() {
    let mut server = peer("venv/bin/python")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/websocket.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port: u16 = line.trim().strip_prefix("port ").unwrap().parse().unwrap();
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let gateway = Gateway::start_in(folder, ([127, 0, 0, 1], port).into(), Settings::default());
    let script = r#"
import json, sys, urllib.request
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
address, token = sys.argv[1:]
try:
    connect(f"ws://{address}/api/x")
except InvalidStatus as refused:
    print(refused.response.status_code)
bearer = {"Authorization": f"Bearer {token}"}
with connect(f"ws://{address}/api/x", additional_headers=bearer, max_size=1 << 24) as socket:
    print(socket.recv())
    message = bytes(range(256)) * 20_000
    socket.send(message)
    print(socket.recv() == message)
    socket.ping().wait(10)
    logout = urllib.request.Request(f"http://{address}/auth/logout", method="POST", headers=bearer)
    print(json.load(urllib.request.urlopen(logout))["message"])
    try:
        socket.recv(10)
    except ConnectionClosed:
        print("closed")
"#;
    let said = python(script, &[&gateway.address.to_string(), &gateway.token("alice")]);
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        ["401", "hello alice None", "True", "Logged out successfully", "closed"]
    );
    drop(server.stdin.take());
    server.wait().unwrap();
}

#[test]
fn what_a_client_sends_early_arrives_behind_the_upstreams_response() {
    let upstream = Upstream::with(|_, socket| {
        let _ = socket.write_all(&[SWITCHED, b"hello"].concat());
        let mut early = [0; 5];
        let _ = socket.read_exact(&mut early);
        let _ = socket.write_all(&early);
        false
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let mut client = begin(&gateway, "/public/ws", None, UPGRADE);
    client.send("early");
    assert_eq!(client.head().0, 101);
    assert_eq!(client.read_some(10), b"helloearly");
}

#[test]
fn only_the_upstreams_own_101_opens_a_tunnel() {
    let (gateway, upstream, _) = start(Settings::default());
    // Refused: what follows is another request, and decided.
    let mut client = gateway.client();
    client.send(format!(
        "GET /api/ws HTTP/1.1\r\nHost: a\r\n{UPGRADE}\r\nGET /admin/x HTTP/1.1\r\nHost: a\r\n\r\n"
    ));
    assert_eq!(client.response().status, 401);
    assert_eq!(client.response().status, 401);
    assert_eq!(upstream.bytes(), 0);
    // Answered otherwise: the same.
    let mut client = gateway.client();
    client.send(format!(
        "GET /public/x HTTP/1.1\r\nHost: a\r\n{UPGRADE}\r\nGET /api/x HTTP/1.1\r\nHost: a\r\n\r\n"
    ));
    assert_eq!(client.response().text(), "/public/x");
    assert_eq!(client.response().status, 401);
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn nothing_but_a_websocket_is_switched_to() {
    for asked in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Upgrade: websocket\r\n",
    ] {
        let (gateway, upstream, _) = start(Settings::default());
        let response =
            gateway.client().send(format!("GET /public/ws HTTP/1.1\r\nHost: a\r\n{asked}\r\n")).response();
        assert_eq!(response.status, 200, "{asked}");
        assert_eq!(
            (upstream.only().header("Upgrade"), upstream.only().header("Connection")),
            (None, None),
            "{asked}"
        );
    }
    // Nor does an upstream switch to anything else, or unasked.
    for (asked, switched) in [
        (UPGRADE, "Upgrade: h2c\r\nConnection: upgrade\r\n"),
        (UPGRADE, "Upgrade: websocket\r\n"),
        (UPGRADE, "Connection: upgrade\r\n"),
        ("", "Upgrade: websocket\r\nConnection: upgrade\r\n"),
    ] {
        let upstream = Upstream::with(move |_, socket| {
            let _ =
                socket.write_all(format!("HTTP/1.1 101 Switching Protocols\r\n{switched}\r\n").as_bytes());
            true
        });
        let gateway = Gateway::start(&upstream, Settings::default());
        let response = begin(&gateway, "/public/ws", None, asked).response();
        assert_eq!(response.status, 502, "{asked}{switched}");
    }
}

#[test]
fn a_logout_cuts_the_streams_of_its_session_and_no_others() {
    for settings in [Settings::default(), Settings::postgres(&shared_database())] {
        let (gateway, _upstream, open) = start(settings);
        let token = gateway.token("alice");
        let streams = one_of_each(&gateway, &token);
        let other = gateway.login("alice")["access_token"].as_str().unwrap().to_owned();
        let mut others = tunnel(&gateway, "/api/ws", Some(&other));
        let mut anonymous = tunnel(&gateway, "/public/ws", None);
        assert_eq!(gateway.logout(&token).status, 200);
        for mut client in streams {
            client.until_closed();
        }
        assert_echoes(&mut others);
        assert_echoes(&mut anonymous);
        assert_eq!(gateway.metric(r#"authgate_streams_cut_total{reason="revoked"}"#), Some(4.0));
        drop(anonymous);
        gateway.logout(&other);
        assert_all_end(&gateway, vec![others], &open);
    }
}

#[test]
fn a_client_that_reads_nothing_is_cut_all_the_same() {
    let (gateway, _upstream, open) = start(Settings::default());
    let token = gateway.token("alice");
    let clients = one_of_each(&gateway, &token);
    assert_eq!(gateway.logout(&token).status, 200);
    eventually("the upstream hears of it", || (open.load(SeqCst) == 0).then_some(()));
    drop(clients);
}

#[test]
fn nothing_arrives_on_a_stream_after_the_logout_was_answered() {
    let (gateway, _upstream, _) = start(Settings::default().auth(MANY));
    for round in 0..20 {
        let token = gateway.token(&format!("user-{round}"));
        let mut client = tunnel(&gateway, "/api/ws", Some(&token));
        assert_eq!(gateway.logout(&token).status, 200);
        client.send("ping");
        assert_eq!(client.until_closed(), b"");
    }
}

#[test]
fn a_stream_that_begins_while_its_session_ends_does_not_outlive_it() {
    let (gateway, _upstream, open) = start(Settings::default().auth(MANY));
    let gateway = Arc::new(gateway);
    for round in 0..60 {
        let token = gateway.token(&format!("user-{round}"));
        assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
        let racer = {
            let (gateway, token) = (gateway.clone(), token.clone());
            thread::spawn(move || {
                let upgrade = if round % 2 == 0 { UPGRADE } else { "" };
                let path = if round % 2 == 0 { "/api/ws" } else { "/api/events" };
                begin(&gateway, path, Some(&token), upgrade)
            })
        };
        assert_eq!(gateway.logout(&token).status, 200);
        racer.join().unwrap().until_closed_or_refused();
    }
    eventually("none is left", || (open.load(SeqCst) == 0).then_some(()));
}

#[test]
fn whatever_else_revokes_cuts_streams_too() {
    let (gateway, _upstream, open) = start(Settings::default());
    let admin = gateway.admin_token("root");
    for (name, change) in
        [("promoted", json!({"roles": ["admin", "user"]})), ("disabled", json!({"disabled": true}))]
    {
        let response = gateway.register(name);
        let streams = one_of_each(&gateway, response["access_token"].as_str().unwrap());
        let path = format!("/api/users/{}", response["user_id"].as_str().unwrap());
        assert_eq!(gateway.admin("PATCH", &path, Some(&admin), Some(&change)).status, 200);
        assert_all_end(&gateway, streams, &open);
    }
    let token = gateway.token("by-command");
    let streams = one_of_each(&gateway, &token);
    gateway.run(&["user", "delete", "by-command"], "");
    assert_all_end(&gateway, streams, &open);
    let token = gateway.token("by-key");
    let streams = one_of_each(&gateway, &token);
    gateway.run(&["key", "revoke", "--all"], "");
    assert_all_end(&gateway, streams, &open);
}

#[test]
fn a_logout_on_another_gateway_cuts_streams_here() {
    let cluster = Cluster::start();
    let settings =
        Settings::postgres(&cluster.database()).auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n");
    let (here, _upstream, open) = start(settings.clone());
    let there = Gateway::alone(settings);
    let token = there.token("alice");
    let streams = one_of_each(&here, &token);
    assert_eq!(there.logout(&token).status, 200);
    assert_all_end(&here, streams, &open);
}

#[test]
fn a_stream_ends_when_its_token_expires() {
    let (gateway, _upstream, open) = start(Settings::default().auth("  access_token_ttl: 8s\n"));
    let begun = Instant::now();
    let token = gateway.token("alice");
    let streams = one_of_each(&gateway, &token);
    assert!(begun.elapsed() < Duration::from_millis(6_500), "too slow to tell");
    assert_all_end(&gateway, streams, &open);
    // Tokens carry whole seconds, rounded down.
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(6_900) && took < Duration::from_secs(14), "{took:?}");
    assert_eq!(gateway.metric(r#"authgate_streams_cut_total{reason="expired"}"#), Some(4.0));
}

#[test]
fn a_stream_ends_when_nobody_knows_whether_its_token_was_revoked_unless_its_route_says_otherwise() {
    let cluster = Cluster::start();
    let settings = Settings {
        store: format!("{{url: \"{}\", timeout: 2s}}", cluster.database()),
        routes: "  - {path: /api/**, upstream: backend}\n  - {path: /lax/**, on_stale: allow, upstream: backend}\n"
            .to_owned(),
        ..Settings::default()
    };
    let (gateway, _upstream, _) = start(settings.extra("revocation: {max_staleness: 2s}\n"));
    let token = gateway.token("alice");
    let streams = one_of_each(&gateway, &token);
    let mut lax = tunnel(&gateway, "/lax/ws", Some(&token));
    cluster.freeze();
    for mut client in streams {
        client.until_closed();
    }
    assert_echoes(&mut lax);
    assert_eq!(begin(&gateway, "/api/ws", Some(&token), UPGRADE).response().status, 503);
    assert_eq!(gateway.metric(r#"authgate_streams_cut_total{reason="stale"}"#), Some(4.0));
    cluster.thaw();
}

/// A body of which the beginning has arrived.
fn upload(gateway: &Gateway, path: &str, token: &str, length: usize) -> Client {
    let mut client = gateway.client();
    client.send(format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\nbegun"
    ));
    eventually("the upload is known", || {
        (gateway.metric("authgate_live_streams") == Some(1.0)).then_some(())
    });
    client
}

#[test]
fn a_long_upload_ends_with_its_token_and_is_told_so() {
    let (gateway, upstream, _) = start(Settings::default());
    let token = gateway.token("alice");
    let mut client = upload(&gateway, "/api/x", &token, 1000);
    assert_eq!(gateway.logout(&token).status, 200);
    assert_eq!(client.response().status, 401);
    eventually("the upstream has half of it", || upstream.seen().first().map(|seen| assert!(!seen.complete)));
}

#[test]
fn a_long_upload_of_which_nobody_knows_whether_its_token_lives_is_told_to_come_again() {
    let cluster = Cluster::start();
    let store = format!("{{url: \"{}\", timeout: 2s}}", cluster.database());
    let settings = Settings { store, ..Settings::default() }.extra("revocation: {max_staleness: 2s}\n");
    let (gateway, _upstream, _) = start(settings);
    let token = gateway.token("alice");
    let mut client = upload(&gateway, "/api/x", &token, 1000);
    cluster.freeze();
    assert_eq!(client.response().status, 503);
}

#[test]
fn an_ordinary_response_in_flight_may_finish() {
    let (gateway, _upstream, _) = start(Settings::default());
    let token = gateway.token("alice");
    let mut client = begin(&gateway, "/api/slow", Some(&token), "");
    thread::sleep(Duration::from_millis(200));
    assert_eq!(gateway.logout(&token).status, 200);
    assert_eq!(client.response().text(), "late");
    client.send(format!("GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"));
    assert_eq!(client.response().status, 401);
}

#[test]
fn a_long_upload_that_is_complete_gets_its_response() {
    let (gateway, upstream, _) = start(Settings::default());
    let token = gateway.token("alice");
    let mut client = upload(&gateway, "/api/slow", &token, 10);
    client.send("ended");
    // From here on it is an ordinary response in flight.
    eventually("it is complete", || upstream.seen().first().map(|seen| assert!(seen.complete)));
    assert_eq!(gateway.logout(&token).status, 200);
    assert_eq!(client.response().text(), "late");
}

#[test]
fn a_stream_that_was_not_cut_leaves_its_connection_to_the_next_request() {
    let upstream = Upstream::with(|_, socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(20));
            let _ = socket.write_all(b"2\r\nhi\r\n");
        }
        socket.write_all(b"0\r\n\r\n").is_ok()
    });
    let gateway = Gateway::start(&upstream, Settings::default());
    let (first, second) = (gateway.token("alice"), gateway.token("bob"));
    let mut client = gateway.client();
    let request = |token| format!("GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n");
    assert_eq!(client.send(request(&first)).response().text(), "hihihihihi");
    client.send(request(&second));
    gateway.logout(&first);
    assert_eq!(client.response().text(), "hihihihihi");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_tunnel_without_a_byte_is_closed_in_time_and_one_with_bytes_is_not() {
    let (gateway, _upstream, open) = start(Settings::default().extra("limits: {idle_timeout: 1s}\n"));
    let mut quiet = tunnel(&gateway, "/public/ws", None);
    let mut busy = tunnel(&gateway, "/public/ws", None);
    for _ in 0..8 {
        thread::sleep(Duration::from_millis(250));
        assert_echoes(&mut busy);
    }
    assert!(quiet.is_closed_silently());
    drop(busy);
    eventually("the upstream hears of it", || (open.load(SeqCst) == 0).then_some(()));
}

#[test]
fn a_route_says_how_long_its_streams_and_tunnels_may_be_idle() {
    let routes = "  - {path: /short/**, auth: none, upstream: backend, idle_timeout: 500ms}\n  - {path: /**, auth: none, upstream: backend}\n";
    let (gateway, _upstream, _) = start(Settings::routes(routes));
    let mut long = tunnel(&gateway, "/ws", None);
    let begun = Instant::now();
    assert!(tunnel(&gateway, "/short/ws", None).is_closed_silently());
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_echoes(&mut long);

    let upstream = Upstream::with(|_, socket| {
        let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";
        if socket.write_all(head).is_err() {
            return false;
        }
        thread::sleep(Duration::from_millis(1_500));
        socket.write_all(b"2\r\nho\r\n0\r\n\r\n").is_ok()
    });
    let routes = "  - {path: /long/**, auth: none, upstream: backend, idle_timeout: 10s}\n  - {path: /**, auth: none, upstream: backend}\n";
    let settings = Settings::routes(routes).extra("limits: {body_idle_timeout: 500ms}\n");
    let gateway = Gateway::start(&upstream, settings);
    let mut client = gateway.client();
    assert_eq!(client.send("GET /long/x HTTP/1.1\r\nHost: a\r\n\r\n").response().text(), "hiho");
    // The next request on the connection is bound by its own route.
    client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(client.until_closed().ends_with(b"hi\r\n"));
}

#[test]
fn what_flows_may_flow_for_longer_than_its_route_waits_for_a_response() {
    let upstream = Upstream::with(|_, socket| {
        let mut sent = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..10 {
            thread::sleep(Duration::from_millis(100));
            sent = sent.and_then(|()| socket.write_all(b"2\r\nhi\r\n"));
        }
        sent.and_then(|()| socket.write_all(b"0\r\n\r\n")).is_ok()
    });
    let routes = "  - {path: /**, auth: none, timeout: 300ms, upstream: backend}\n";
    let gateway = Gateway::start(&upstream, Settings::routes(routes));
    let mut client = gateway.client();
    assert_eq!(client.send("GET /x HTTP/1.1\r\nHost: a\r\n\r\n").response().text(), "hi".repeat(10));
}

#[test]
fn the_end_of_the_gateway_does_not_wait_for_tunnels() {
    let (mut gateway, _upstream, _) = start(Settings::default());
    let mut client = tunnel(&gateway, "/public/ws", None);
    let begun = Instant::now();
    assert_eq!(gateway.stop().code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(client.is_closed_silently());
}

#[test]
fn a_download_that_nobody_reads_is_cut_although_it_came_at_once() {
    let large = "x".repeat(8 << 20);
    let upstream = Upstream::answering(move |_| ok(&large));
    let gateway = Gateway::start(&upstream, Settings::default());
    let token = gateway.token("alice");
    let mut client = gateway.client();
    client.send(format!("GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"));
    eventually("it is watched", || (gateway.metric("authgate_live_streams") == Some(1.0)).then_some(()));
    assert_eq!(gateway.logout(&token).status, 200);
    eventually("it is cut", || (gateway.metric("authgate_open_connections") == Some(0.0)).then_some(()));
}
