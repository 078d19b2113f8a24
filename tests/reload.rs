//! Another config is taken up while the gateway runs.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use serde_json::json;

use crate::harness::{
    Client, Gateway, Protocol, Seen, Settings, Upstream, eventually, ok, port_to_keep,
    protocol::USUAL,
    streaming::{UPGRADE, begin, held_upstream, streaming_upstream},
};

const ROUTES: &str =
    "  - {path: /public/**, auth: none, upstream: backend}\n  - {path: /api/**, upstream: backend}\n";

fn routes(more: &str) -> Settings {
    Settings::routes(&format!("{ROUTES}{more}"))
}

fn start(settings: Settings) -> (Gateway, Upstream, String) {
    let upstream = streaming_upstream();
    let gateway = Gateway::start(&upstream, settings);
    let admin = gateway.admin_token("root");
    (gateway, upstream, admin)
}

fn get(client: &mut Client, path: &str, token: Option<&str>) -> u16 {
    let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{bearer}\r\n")).response().status
}

#[test]
fn a_config_is_taken_up_by_call_by_signal_and_by_a_changed_file() {
    let (gateway, _upstream, admin) = start(routes(""));
    let mut client = gateway.client();
    assert_eq!(get(&mut client, "/one", None), 404);
    let one = "  - {path: /one, auth: none, upstream: backend}\n";
    let reloaded = gateway.reload(&admin, &routes(one));
    assert_eq!((reloaded.status, reloaded.message().as_str()), (200, "Config taken up"), "{reloaded:?}");
    // Everywhere once that was said, and on connections that are open already.
    for _ in 0..20 {
        assert_eq!(gateway.get("/one", None).status, 200);
    }
    assert_eq!(get(&mut client, "/one", None), 200);
    // A strange order of things, but it is the operator's: the token and the open connections go on.
    gateway.write(&routes("  - {path: /two, auth: none, upstream: backend}\n"));
    gateway.signal(libc::SIGHUP);
    eventually("the signal is heard", || (gateway.get("/two", None).status == 200).then_some(()));
    assert_eq!(get(&mut client, "/one", None), 404);
    gateway.write(&routes("  - {path: /three, auth: none, upstream: backend}\n"));
    eventually("the file is looked at", || (gateway.get("/three", None).status == 200).then_some(()));
    let token = gateway.login("root")["access_token"].as_str().unwrap().to_owned();
    assert_eq!(get(&mut client, "/api/x", Some(&token)), 200);
    assert_eq!(get(&mut client, "/api/x", Some(&admin)), 200);
    let count = |result: &str| {
        gateway.metric(&format!("authgate_config_reloads_total{{result=\"{result}\"}}")).unwrap_or_default()
    };
    assert!(count("ok") >= 3.0);
    assert_eq!(count("failed"), 0.0);
    let trail = gateway.admin("GET", "/api/audit?limit=50", Some(&admin), None).json();
    assert!(trail["entries"].as_array().unwrap().iter().any(|entry| entry["action"] == "config.reload"));
}

#[test]
fn a_link_that_is_swapped_is_a_change() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let path = folder.path().join("gateway.yaml");
    let upstream = streaming_upstream();
    let gateway = Gateway::start_in(folder.clone(), upstream.address, routes(""));
    let text = std::fs::read_to_string(&path).unwrap();
    let more = text.replace("routes:\n", "routes:\n  - {path: /one, auth: none, upstream: backend}\n");
    std::fs::write(folder.path().join("next"), more).unwrap();
    std::os::unix::fs::symlink("next", folder.path().join("link")).unwrap();
    std::fs::rename(folder.path().join("link"), &path).unwrap();
    eventually("it is taken up", || (gateway.get("/one", None).status == 200).then_some(()));
}

#[test]
fn a_config_that_is_wrong_changes_nothing_and_says_why() {
    let (gateway, _upstream, admin) = start(routes(""));
    let faults = |settings: &Settings| {
        let response = gateway.reload(&admin, settings);
        assert_eq!(
            (response.status, response.message().as_str()),
            (422, "Config not accepted"),
            "{response:?}"
        );
        response.json()["detail"].as_str().unwrap().to_owned()
    };
    let one = "  - {path: /one, auth: none, upstream: nowhere}\n";
    let said = faults(&routes(one));
    assert!(said.contains("gateway.yaml:") && said.contains("routes[2].upstream"), "{said}");
    eventually("the log has it, too", || gateway.log().contains("routes[2].upstream").then_some(()));
    // Its own tests are run.
    let one = "  - {path: /one, auth: none, upstream: backend}\n";
    let test = "tests: [{method: GET, path: /one, expect: deny}]\n";
    let said = faults(&routes(one).extra(test));
    assert!(said.contains("expected deny, but it is allow"), "{said}");
    // What needs a restart is named, all of it.
    let said =
        faults(&Settings { workers: 3, store: "{url: \"sqlite:other.db\"}".to_owned(), ..routes(one) });
    for key in ["workers", "store"] {
        assert!(said.contains(&format!("{key}: has changed, which needs a restart")), "{said}");
    }
    let as_it_is = Settings::default().store.trim_end_matches('}').to_owned();
    let said = faults(&Settings { store: format!("{as_it_is}, migrate: false}}"), ..routes(one) });
    assert!(said.contains("store: has changed"), "{said}");
    let said = faults(&Settings { admin: ", hosts: [console.example.com]".to_owned(), ..routes(one) });
    assert!(said.contains("admin: has changed"), "{said}");
    let master = "  master_key: \"another-master-key-for-tests-0123456789\"\n";
    let said = faults(&routes(one).auth(master).auth("  signing: {algorithm: ES256}\n"));
    assert!(said.contains("auth.master_key: ") && said.contains("auth.signing.algorithm: "), "{said}");
    // An address that somebody else has.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = format!("}}\n  - {{address: \"{}\"", taken.local_addr().unwrap());
    let said = faults(&Settings { listener, ..routes(one) });
    assert!(said.contains("cannot listen on"), "{said}");
    assert_eq!(gateway.get("/one", None).status, 404);
    assert_eq!(gateway.get("/public/x", None).status, 200);
    let failed = gateway.metric("authgate_config_reloads_total{result=\"failed\"}");
    assert!(failed >= Some(6.0), "{failed:?}");
    // Nobody but an administrator asks for it.
    let token = gateway.token("alice");
    assert_eq!(gateway.admin("POST", "/api/config/reload", Some(&token), None).status, 403);
    assert_eq!(gateway.admin("POST", "/api/config/reload", None, None).status, 401);
}

#[test]
fn a_stream_goes_on_as_long_as_the_config_allows_it() {
    let (gateway, _upstream, admin) = start(Settings::default());
    let token = gateway.token("alice");
    let mut streams = Vec::new();
    for (path, token) in [("/api/events", Some(&token)), ("/public/events", None)] {
        let mut client = begin(&gateway, path, token.map(String::as_str), "");
        assert_eq!(client.head().0, 200);
        streams.push(client);
    }
    for (path, token) in [("/api/ws", Some(&token)), ("/public/ws", None)] {
        let mut client = begin(&gateway, path, token.map(String::as_str), UPGRADE);
        assert_eq!(client.head().0, 101);
        streams.push(client);
    }
    let go_on = |streams: &mut [Client]| {
        for client in &mut streams[..2] {
            client.read_some(100);
        }
        for client in &mut streams[2..] {
            client.send("ping");
            assert_eq!(client.read_some(4), b"ping");
        }
    };
    go_on(&mut streams);
    // Other things change.
    let other = Settings::default().extra("limits: {body: 2MiB}\n");
    assert_eq!(gateway.reload(&admin, &other).status, 200);
    go_on(&mut streams);
    // `/public` is gone, `/api` is for others now.
    let stricter = Settings::routes(
        "  - {path: /api/**, roles: {any: [admin]}, upstream: backend}\n  - {path: /x, upstream: backend}\n",
    );
    assert_eq!(gateway.reload(&admin, &stricter).status, 200);
    for mut client in streams {
        client.until_closed_or_refused();
    }
    assert_eq!(gateway.metric("authgate_streams_cut_total{reason=\"config\"}"), Some(4.0));
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 403);
}

#[test]
fn what_was_begun_is_judged_and_finished_by_the_config_that_it_met() {
    let released = Arc::default();
    let upstream = held_upstream(&released);
    let gateway = Gateway::start(&upstream, routes(""));
    let admin = gateway.admin_token("root");
    let mut slow = begin(&gateway, "/public/slow", None, "");
    eventually("the upstream has the request", || (!upstream.seen().is_empty()).then_some(()));
    let other = Settings::routes("  - {path: /other, auth: none, upstream: backend}\n");
    assert_eq!(gateway.reload(&admin, &other).status, 200);
    assert_eq!(gateway.get("/public/slow", None).status, 404);
    released.store(true, SeqCst);
    let response = slow.response();
    assert_eq!((response.status, response.text().as_str()), (200, "late"));
    // And its connection goes on by the new one.
    assert_eq!(get(&mut slow, "/public/x", None), 404);
    assert_eq!(get(&mut slow, "/other", None), 200);
}

#[test]
fn listeners_come_and_go() {
    let released = Arc::default();
    let upstream = held_upstream(&released);
    let gateway = Gateway::start(&upstream, routes(""));
    let admin = gateway.admin_token("root");
    let second: SocketAddr = ([127, 0, 0, 1], port_to_keep()).into();
    let two = Settings { listener: format!("}}\n  - {{address: \"{second}\""), ..routes("") };
    assert_eq!(gateway.reload(&admin, &two).status, 200);
    let mut resting = Client::connect(second);
    assert_eq!(get(&mut resting, "/public/x", None), 200);
    let mut busy = Client::connect(second);
    busy.send("GET /public/slow HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut tunnel = Client::connect(second);
    tunnel.send(format!("GET /public/ws HTTP/1.1\r\nHost: a\r\n{UPGRADE}\r\n"));
    assert_eq!(tunnel.head().0, 101);
    let is_slow = |seen: &Seen| seen.target == "/public/slow";
    eventually("the upstream has the request", || upstream.seen().iter().any(is_slow).then_some(()));
    // A second one is the same listener, whatever is said beside it.
    assert_eq!(gateway.reload(&admin, &two.clone().extra("limits: {body: 2MiB}\n")).status, 200);
    assert_eq!(get(&mut resting, "/public/x", None), 200);
    assert_eq!(gateway.reload(&admin, &routes("")).status, 200);
    eventually("nobody listens there", || std::net::TcpStream::connect(second).err());
    // What was begun there is finished.
    released.store(true, SeqCst);
    let response = busy.response();
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert!(resting.is_closed_silently());
    tunnel.send("ping");
    assert_eq!(tunnel.read_some(4), b"ping");
    assert_eq!(gateway.get("/public/x", None).status, 200);
    assert_eq!(gateway.reload(&admin, &two).status, 200);
    assert_eq!(get(&mut Client::connect(second), "/public/x", None), 200);
}

#[test]
fn a_listener_that_changes_keeps_its_socket_and_its_open_connections_do_not_keep_its_rules() {
    let (gateway, _upstream, admin) = start(routes(""));
    let mut plain = gateway.client();
    assert_eq!(get(&mut plain, "/public/x", None), 200);
    // Only these may be there.
    let two = Settings { listener: ", max_connections: 1".to_owned(), ..routes("") };
    assert_eq!(gateway.reload(&admin, &two).status, 200);
    assert!(plain.is_closed_silently());
    let mut first = gateway.client();
    assert_eq!(get(&mut first, "/public/x", None), 200);
    let mut second = gateway.client();
    second.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n");
    thread::sleep(Duration::from_millis(300));
    drop(first);
    assert_eq!(second.response().status, 200);
}

#[test]
fn upstreams_that_did_not_change_keep_their_connections_and_others_begin_anew() {
    let (gateway, first, admin) = start(routes(""));
    let second = Upstream::answering(|_| ok("second"));
    let mut client = gateway.client();
    assert_eq!(get(&mut client, "/public/x", None), 200);
    let upstreams = |address: SocketAddr, more: &str| {
        let servers = format!("{{url: \"http://{address}\"}}");
        Settings { servers, upstream: more.to_owned(), workers: 1, ..routes("") }
    };
    drop(gateway);
    let gateway = Gateway::start(&first, upstreams(first.address, ""));
    let token = gateway.admin_token("root");
    let mut client = gateway.client();
    assert_eq!(get(&mut client, "/public/x", None), 200);
    let connections = first.connections();
    for _ in 0..5 {
        let same = upstreams(first.address, "").extra("limits: {body: 2MiB}\n");
        assert_eq!(gateway.reload(&token, &same).status, 200);
        assert_eq!(get(&mut client, "/public/x", None), 200);
    }
    assert_eq!(first.connections(), connections);
    assert_eq!(gateway.reload(&token, &upstreams(second.address, "")).status, 200);
    let response = client.send("GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n").response();
    assert_eq!(response.text(), "second");
    // One that is probed from now on is found out.
    let away = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let probed = ", health: {path: /healthz, interval: 50ms, unhealthy_after: 1}";
    assert_eq!(gateway.reload(&token, &upstreams(away, probed)).status, 200);
    eventually("it is found out", || (get(&mut client, "/public/x", None) == 503).then_some(()));
    drop(admin);
}

#[test]
#[ignore = "slow"]
fn reloads_under_load_cost_no_request() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let settings = |more: &str| Settings { protocol, ..routes(more) };
        let (gateway, _upstream, admin) = start(settings(""));
        let token = gateway.token("alice");
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tunnel =
            (protocol == Protocol::Http1).then(|| begin(&gateway, "/api/ws", Some(&token), UPGRADE));
        if let Some(tunnel) = &mut tunnel {
            assert_eq!(tunnel.head().0, 101);
        }
        let clients: Vec<_> = (0..4)
            .map(|index| {
                let mut client = gateway.client();
                let (stop, served, token) = (stop.clone(), served.clone(), token.clone());
                thread::spawn(move || {
                    while !stop.load(SeqCst) {
                        let (path, token) =
                            if index % 2 == 0 { ("/public/x", None) } else { ("/api/x", Some(&*token)) };
                        assert_eq!(get(&mut client, path, token), 200);
                        served.fetch_add(1, SeqCst);
                    }
                })
            })
            .collect();
        for round in 0..30 {
            let more = format!("  - {{path: /round/{round}, auth: none, upstream: backend}}\n");
            assert_eq!(gateway.reload(&admin, &settings(&more)).status, 200);
            assert_eq!(gateway.get(&format!("/round/{round}"), None).status, 200);
            let before = served.load(SeqCst);
            eventually("requests go on", || (served.load(SeqCst) > before + 4).then_some(()));
        }
        stop.store(true, SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
        if let Some(mut tunnel) = tunnel {
            tunnel.send("ping");
            assert_eq!(tunnel.read_some(4), b"ping");
        }
    }
}

#[test]
fn accounts_follow_the_config() {
    let (gateway, _upstream, admin) = start(routes(""));
    let register = |name: &str| {
        let body = json!({"username": name, "password": "correct horse battery staple"});
        gateway.post("/auth/register", &body).status
    };
    assert_eq!(register("alice"), 201);
    assert_eq!(gateway.reload(&admin, &routes("").auth("  registration: closed\n")).status, 200);
    assert_eq!(register("bob"), 403);
    // Other costs of hashes: those that are stored still hold.
    let cheaper = routes("").auth("  password: {argon2: {memory: 9MiB, iterations: 3}, workers: 1}\n");
    assert_eq!(gateway.reload(&admin, &cheaper).status, 200, "{}", gateway.log());
    assert_eq!(register("bob"), 201);
    let login = |name: &str| gateway.try_login(name, "correct horse battery staple").status;
    assert_eq!((login("alice"), login("bob")), (200, 200));
}

#[test]
fn a_secret_is_replaced_without_a_restart() {
    let signing = |secret: &str, previous: &str| {
        let previous =
            if previous.is_empty() { String::new() } else { format!(", previous_secret: \"{previous}\"") };
        routes("").auth(&format!("  signing: {{algorithm: HS256, secret: \"{secret}\"{previous}}}\n"))
    };
    let (old, new) = ("an-old-secret-for-tests-0123456789abcdef", "a-new-secret-for-tests-0123456789abcdef");
    let (gateway, _upstream, admin) = start(signing(old, ""));
    let before = gateway.token("alice");
    assert_eq!(gateway.get("/api/x", Some(&before)).status, 200);
    assert_eq!(gateway.reload(&admin, &signing(new, old)).status, 200);
    let after = gateway.login("alice")["access_token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.get("/api/x", Some(&before)).status, 200);
    assert_eq!(gateway.reload(&admin, &signing(new, "")).status, 200);
    assert_eq!(gateway.get("/api/x", Some(&before)).status, 401);
    assert_eq!(gateway.get("/api/x", Some(&after)).status, 200);
}

#[test]
fn the_level_of_the_log_is_set_while_it_runs() {
    let (gateway, _upstream, admin) = start(routes(""));
    let has = |text: &str| gateway.log().contains(text);
    let set = |level: &str| {
        let body = json!({"level": level});
        gateway.admin("PUT", "/api/log", Some(&admin), Some(&body)).status
    };
    assert_eq!(set("error"), 200);
    gateway.log();
    let lines = gateway.log().len();
    assert_eq!(gateway.get("/nowhere", None).status, 404);
    thread::sleep(Duration::from_millis(200));
    assert!(!gateway.log()[lines..].contains("\"denied\""));
    assert_eq!(set("debug"), 200);
    eventually("it is logged again", || {
        gateway.get("/nowhere", None);
        has("\"denied\"").then_some(())
    });
    assert_eq!(set("loud"), 400);
    let token = gateway.token("alice");
    let body = json!({"level": "error"});
    assert_eq!(gateway.admin("PUT", "/api/log", Some(&token), Some(&body)).status, 403);
}

#[test]
fn a_requirement_of_certificates_holds_for_connections_that_are_open() {
    let settings = Settings { protocol: Protocol::Http2, ..routes("") };
    let (gateway, _upstream, admin) = start(settings);
    std::fs::write(gateway.folder.path().join("ca.pem"), USUAL.0.pem()).unwrap();
    let mut config = (*USUAL.0.client(None)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let mut open = Client::connect_tls(gateway.address, "localhost", &Arc::new(config));
    // Frames of HTTP/2: the preface, SETTINGS, and GET by indexed lines.
    open.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00");
    let ask = |open: &mut Client, stream: u8| {
        let mut block = vec![0x82, 0x87, 0x04, 9];
        block.extend(b"/public/x");
        block.extend([0x01, 1, b'a']);
        let head = [0, 0, block.len() as u8, 1, 5, 0, 0, 0, stream];
        open.send([&head[..], &block].concat());
        // The first byte of the block that comes back on the stream, or none if the connection has ended.
        loop {
            let head = open.try_read(9)?;
            let length = usize::from(head[1]) << 8 | usize::from(head[2]);
            let payload = open.try_read(length)?;
            if head[3] == 1 && head[8] == stream {
                return Some(payload[0]);
            }
        }
    };
    const OK: u8 = 0x88;
    assert_eq!(ask(&mut open, 1), Some(OK));
    let tls = ", tls: {certificate: usual.pem, key: usual.key, client_certificates: {ca: ca.pem}}";
    let stricter = Settings { protocol: Protocol::Http1, listener: tls.to_owned(), ..routes("") };
    assert_eq!(gateway.reload(&admin, &stricter).status, 200);
    assert_ne!(ask(&mut open, 3), Some(OK));
}

#[test]
fn a_stream_ends_with_the_secret_that_signed_its_token_and_a_secret_may_come_back() {
    let signing = |secret: &str, audience: &str| {
        let mut settings =
            routes("").auth(&format!("  signing: {{algorithm: HS256, secret: \"{secret}\"}}\n"));
        settings.extra = audience.to_owned();
        settings
    };
    let (old, new) = ("an-old-secret-for-tests-0123456789abcdef", "a-new-secret-for-tests-0123456789abcdef");
    let (gateway, _upstream, admin) = start(signing(old, ""));
    let token = gateway.token("alice");
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    let mut tunnel = begin(&gateway, "/api/ws", Some(&token), UPGRADE);
    assert_eq!(tunnel.head().0, 101);
    assert_eq!(gateway.reload(&admin, &signing(new, "")).status, 200);
    tunnel.until_closed_or_refused();
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 401);
    gateway.write(&signing(old, ""));
    gateway.signal(libc::SIGHUP);
    eventually("it holds again", || (gateway.get("/api/x", Some(&token)).status == 200).then_some(()));
    let trail = || gateway.run(&["audit"], "");
    eventually("the audit trail tells of both", || {
        (trail().matches("config.reload").count() == 2).then_some(())
    });
    assert!(trail().contains("SIGHUP"), "{}", trail());
    let nonsense = Settings::routes("  - {path: nowhere}\n");
    assert_eq!(gateway.reload(&admin, &nonsense).status, 422);
    gateway.write(&signing(old, ""));
    assert!(trail().contains("config.refuse"), "{}", trail());
}

#[test]
fn an_upload_of_nobody_is_judged_again_and_a_caller_is_known_where_none_was_asked_for() {
    let (gateway, upstream, admin) = start(routes(""));
    let token = gateway.token("alice");
    let mut tunnel = begin(&gateway, "/public/ws", Some(&token), UPGRADE);
    let mut nobody = begin(&gateway, "/public/ws", None, UPGRADE);
    assert_eq!((tunnel.head().0, nobody.head().0), (101, 101));
    let mut upload = gateway.client();
    upload.send("POST /public/upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    upload.send("4\r\nfirst".get(..7).unwrap());
    upload.send("\r\n");
    thread::sleep(Duration::from_millis(200));
    // Everybody has to sign in from now on.
    let stricter = Settings::routes("  - {path: /public/**, upstream: backend}\n");
    assert_eq!(gateway.reload(&admin, &stricter).status, 200);
    tunnel.send("ping");
    assert_eq!(tunnel.read_some(4), b"ping");
    nobody.until_closed_or_refused();
    upload.send("4\r\nmore\r\n0\r\n\r\n");
    upload.until_closed_or_refused();
    assert!(upstream.seen().iter().all(|seen| !seen.target.ends_with("upload") || !seen.complete));
}

#[test]
#[ignore = "slow"]
fn what_stands_in_the_file_is_taken_up_however_it_came_there() {
    let (gateway, _upstream, _admin) = start(routes(""));
    let config = gateway.folder.path().join("gateway.yaml");
    let first = std::fs::read_to_string(&config).unwrap();
    gateway.write(&routes("  - {path: /one, auth: none, upstream: backend}\n"));
    gateway.signal(libc::SIGHUP);
    eventually("the second is taken up", || (gateway.get("/one", None).status == 200).then_some(()));
    std::fs::write(&config, &first).unwrap();
    eventually("and the first again", || (gateway.get("/one", None).status == 404).then_some(()));
    // What is no file is not waited for.
    std::fs::remove_file(&config).unwrap();
    let name = std::ffi::CString::new(config.to_str().unwrap()).unwrap();
    // SAFETY: the name is a string for the call.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    gateway.signal(libc::SIGHUP);
    eventually("it is refused", || gateway.log().contains("it is no file").then_some(()));
    std::fs::remove_file(&config).unwrap();
    std::fs::write(
        &config,
        first.replace("routes:\n", "routes:\n  - {path: /two, auth: none, upstream: backend}\n"),
    )
    .unwrap();
    eventually("the next is taken up", || (gateway.get("/two", None).status == 200).then_some(()));
}

#[test]
fn a_hangup_before_the_start_ends_nothing() {
    let nowhere = port_to_keep();
    let settings = Settings::postgres(&format!("postgres://a:b@127.0.0.1:{nowhere}/x"));
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut gateway = Gateway::spawn_in(folder, Upstream::start().address, settings);
    eventually("it waits for its store", || gateway.log().contains("waiting for the store").then_some(()));
    gateway.signal(libc::SIGHUP);
    thread::sleep(Duration::from_millis(300));
    assert!(gateway.ended().is_none());
}

#[test]
fn a_listener_that_changes_over_and_over_loses_no_connection() {
    let settings = |most: usize| Settings { listener: format!(", max_connections: {most}"), ..routes("") };
    let (gateway, _upstream, admin) = start(settings(1_000));
    let (stop, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(SeqCst) {
                    let mut client = gateway.client();
                    assert_eq!(get(&mut client, "/public/x", None), 200);
                    served.fetch_add(1, SeqCst);
                }
            });
        }
        for round in 0..20 {
            assert_eq!(gateway.reload(&admin, &settings(1_001 + round)).status, 200);
            let before = served.load(SeqCst);
            eventually("connections go on", || (served.load(SeqCst) > before).then_some(()));
        }
        stop.store(true, SeqCst);
    });
}

#[test]
fn a_config_is_compared_with_what_runs() {
    let (gateway, _upstream, _admin) =
        start(routes("  - {path: /staff/**, roles: {any: [staff]}, upstream: backend}\n"));
    let config = gateway.folder.path().join("gateway.yaml");
    let compare = || {
        let url = format!("http://{}", gateway.admin);
        let output = crate::harness::authgate()
            .args(["check", "--against", &url, "--config"])
            .arg(&config)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(compare().contains("no difference to what runs"));
    let text = std::fs::read_to_string(&config).unwrap();
    let next = text
        .replace(
            "{path: /staff/**, roles: {any: [staff]}, upstream: backend}",
            "{path: /staff/**, roles: {any: [boss]}, upstream: backend}",
        )
        .replace(
            "{path: /public/**, auth: none, upstream: backend}",
            "{path: /public/**, auth: none, methods: [GET], upstream: backend}",
        )
        .replace("routes:\n", "routes:\n  - {path: /new, auth: none, respond: {json: {}}}\n");
    std::fs::write(config.with_file_name("next.yaml"), next).unwrap();
    let config = config.with_file_name("next.yaml");
    let url = format!("http://{}", gateway.admin);
    let output = crate::harness::authgate()
        .args(["check", "--against", &url, "--config"])
        .arg(&config)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for line in [
        "- any /staff/**: any of staff → backend",
        "+ any /staff/**: any of boss → backend",
        "+ any /new: open → respond 200",
        "GET /staff/x with staff: allowed: backend",
        "GET /staff/x with boss: 403, then allowed: backend",
        "GET /new anonymous: 404, then allowed: respond 200",
        "POST /public/x anonymous: allowed: backend",
    ] {
        assert!(said.contains(line), "{line}\n{said}");
    }
    assert!(!said.contains("GET /api/x"), "{said}");
    // Nothing has changed by that, and what is no gateway is an error.
    assert!(compare().contains("no difference"));
    let output = crate::harness::authgate()
        .args(["check", "--against", "http://127.0.0.1:1", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert!(output.status.code() == Some(1) && !output.stderr.is_empty(), "{output:?}");
}
