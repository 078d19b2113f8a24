//! Others are told what happened: every event at least once, by messages that show who has sent them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::harness::{
    Authority, Cluster, Dice, Gateway, PASSWORD, Seen, Settings, Upstream, errors_of, eventually,
    fleet::{self, access, user_id},
    node_file, ok, peer_folder, port_to_keep, shared_database, shared_sql,
    tls_server::server,
};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Settings with a receiver at this port, which is told of these events.
fn telling(port: u16, events: &str) -> String {
    format!(
        "webhooks:\n  - {{url: \"http://127.0.0.1:{port}/hook\", secret: {SECRET}, events: [{events}], timeout: 2s}}\n"
    )
}

fn url(receiver: &Upstream) -> String {
    format!("http://{}/hook", receiver.address)
}

fn settings(receiver: &Upstream, events: &str) -> Settings {
    Settings::default().extra(&telling(receiver.address.port(), events))
}

fn body(seen: &Seen) -> Value {
    serde_json::from_slice(&seen.body).unwrap()
}

fn id(seen: &Seen) -> String {
    seen.header("webhook-id").unwrap().to_owned()
}

fn kinds(receiver: &Upstream) -> Vec<String> {
    receiver.seen().iter().map(|seen| body(seen)["type"].as_str().unwrap().to_owned()).collect()
}

/// Waits until so many messages have come.
#[track_caller]
fn told(receiver: &Upstream, count: usize) -> Vec<Seen> {
    eventually("the receiver is told", || {
        let seen = receiver.seen();
        (seen.len() >= count).then_some(seen)
    })
}

/// What `authgate webhook list` says of the only receiver.
fn state(gateway: &Gateway) -> Vec<String> {
    let listed = gateway.run(&["webhook", "list"], "");
    listed.lines().nth(1).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

/// A receiver that takes a message by its number as this says: a status, and further lines of the head.
fn answering(answer: impl Fn(usize, &Seen) -> &'static str + Send + Sync + 'static) -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::answering(move |seen| {
        let status = answer(count.fetch_add(1, SeqCst), seen);
        format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes()
    })
}

#[test]
fn a_receiver_is_told_what_it_is_to_be_told_and_sees_who_has_sent_it() {
    for store in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let receiver = Upstream::start();
        let events = "user.created, user.updated, session.*, api_key.created, user.deleted";
        let settings = Settings { store: format!("{{url: \"{store}\"}}"), ..settings(&receiver, events) };
        let gateway = Gateway::alone(settings);
        let alice = gateway.register("alice");
        told(&receiver, 1);
        let login = gateway.login("alice");
        assert_eq!(gateway.logout(access(&login)).status, 200);
        let made = gateway.send("POST", "/auth/keys", Some(access(&alice)), Some(&json!({"name": "script"})));
        assert_eq!(made.status, 201);
        gateway.run(&["user", "set-roles", "alice", "--role", "staff"], "");
        gateway.run(&["user", "delete", "alice"], "");
        // Setting roles is two kinds, and so is deleting; nothing is said of other events.
        assert_eq!(gateway.try_login("alice", PASSWORD).status, 401);
        let seen = told(&receiver, 8);
        let mut sorted = kinds(&receiver);
        sorted.sort();
        let wanted = [
            "api_key.created",
            "session.created",
            "session.revoked",
            "session.revoked",
            "session.revoked",
            "user.created",
            "user.deleted",
            "user.updated",
        ];
        assert_eq!(sorted, wanted);
        let first = body(&seen[0]);
        let data = &first["data"];
        assert_eq!((&first["type"], &data["action"]), (&json!("user.created"), &json!("user.register")));
        assert_eq!(data["user"], json!({"id": user_id(&alice), "username": "alice"}));
        assert_eq!((&data["actor"]["id"], &data["address"]), (&json!(user_id(&alice)), &json!("127.0.0.1")));
        assert!(first["timestamp"].as_str().unwrap().ends_with('Z'), "{first}");
        assert_eq!(seen[0].header("content-type"), Some("application/json"));
        assert_eq!((seen[0].method.as_str(), seen[0].target.as_str()), ("POST", "/hook"));
        let by_operator = seen.iter().map(body).find(|body| body["type"] == "user.updated").unwrap();
        assert_eq!(
            (&by_operator["data"]["actor"]["id"], &by_operator["data"]["detail"]),
            (&Value::Null, &json!("roles: staff"))
        );
        let ids: BTreeSet<String> = seen.iter().map(id).collect();
        assert_eq!(ids.len(), seen.len());

        let messages: Vec<Value> = seen
            .iter()
            .map(|seen| {
                let headers: BTreeMap<_, _> = seen.headers.iter().cloned().collect();
                json!({"headers": headers, "body": String::from_utf8_lossy(&seen.body)})
            })
            .collect();
        let file = gateway.folder.path().join("messages.json");
        fs::write(&file, json!(messages).to_string()).unwrap();
        let (peers, file) = (peer_folder(), file.display().to_string());
        let printed = node_file("webhooks.mjs", &[peers.to_str().unwrap(), SECRET, &file]);
        assert_eq!(printed, "8 0 0");
        assert_eq!(state(&gateway), [&url(&receiver), "enabled", "0"]);
        assert!(!gateway.log().contains("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"));
        let counted =
            format!("authgate_webhook_deliveries_total{{receiver=\"{}\",result=\"sent\"}}", receiver.address);
        assert_eq!(gateway.metric(&counted), Some(8.0));
    }
}

#[test]
#[ignore = "slow"]
fn what_a_receiver_refuses_comes_again_as_the_same_message() {
    let receiver = answering(|number, _| match number {
        0 => "500 Internal Server Error",
        1 => "429 Too Many Requests\r\nRetry-After: 1",
        2 => "400 Bad Request",
        _ => "204 No Content",
    });
    let gateway = Gateway::alone(settings(&receiver, "user.created"));
    gateway.register("alice");
    let seen = told(&receiver, 4);
    assert!(seen.iter().all(|one| id(one) == id(&seen[0]) && one.body == seen[0].body), "{seen:?}");
    eventually("nothing waits any more", || (state(&gateway)[1..] == ["enabled", "0"]).then_some(()));
    gateway.register("bob");
    assert_ne!(id(&told(&receiver, 5)[4]), id(&seen[0]));
}

#[test]
fn a_receiver_that_is_away_is_told_when_it_is_back_whatever_happens_meanwhile() {
    for store in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let port = port_to_keep();
        let extra = telling(port, "user.created");
        let mut gateway = Gateway::alone(
            Settings { store: format!("{{url: \"{store}\"}}"), ..Settings::default() }.extra(&extra),
        );
        gateway.register("alice");
        eventually("it is seen to fail", || (state(&gateway)[1] == "failing").then_some(()));
        gateway.kill();
        let gateway = gateway.restart();
        gateway.register("bob");
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let receiver = Upstream::on(listener, |_| ok(""));
        let seen = told(&receiver, 2);
        let names: BTreeSet<String> = seen
            .iter()
            .map(|seen| body(seen)["data"]["user"]["username"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["alice", "bob"].map(str::to_owned).into());
        eventually("nothing waits any more", || (state(&gateway)[1..] == ["enabled", "0"]).then_some(()));
    }
}

#[test]
fn a_receiver_that_is_slow_holds_up_no_other_and_no_client() {
    let slow = Upstream::with(|_, _| {
        thread::sleep(Duration::from_secs(30));
        false
    });
    let receiver = Upstream::start();
    let extra = telling(slow.address.port(), "'*'");
    let second = telling(receiver.address.port(), "user.created").replace("webhooks:\n", "");
    let gateway = Gateway::alone(Settings::default().extra(&format!("{extra}{second}")));
    let begun = Instant::now();
    for number in 0..20 {
        gateway.register(&format!("user{number}"));
    }
    told(&receiver, 20);
    // Each message to the slow one would have taken two seconds.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[test]
fn a_receiver_that_leads_elsewhere_is_not_followed() {
    let elsewhere = Upstream::start();
    let target = elsewhere.address;
    let receiver = Upstream::answering(move |_| {
        format!(
            "HTTP/1.1 307 Temporary Redirect\r\nLocation: http://{target}/inner\r\nContent-Length: 0\r\n\r\n"
        )
        .into_bytes()
    });
    let gateway = Gateway::alone(settings(&receiver, "user.created"));
    gateway.register("alice");
    told(&receiver, 2);
    assert!(elsewhere.seen().is_empty());
    assert_eq!(state(&gateway)[1], "failing");
}

#[test]
fn a_receiver_that_shows_the_certificate_of_another_is_told_nothing() {
    let authority = Authority::new();
    let (lies, told_to_liar) = server(&authority.issue(&["elsewhere.test"]), None);
    let (honest, told_to_honest) = server(&authority.issue(&["localhost"]), None);
    let entry = |address: SocketAddr| {
        let port = address.port();
        format!(
            "  - {{url: \"https://localhost:{port}/hook\", secret: {SECRET}, events: [user.created], ca: ca.pem}}\n"
        )
    };
    let folder = Arc::new(tempfile::tempdir().unwrap());
    fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
    let settings = Settings::default().extra(&format!("webhooks:\n{}{}", entry(lies), entry(honest)));
    let gateway = Gateway::start_in(folder, Upstream::start().address, settings);
    gateway.register("alice");
    eventually("the honest one is told", || (!told_to_honest.lock().unwrap().is_empty()).then_some(()));
    eventually("the other one is failing", || {
        let listed = gateway.run(&["webhook", "list"], "");
        let line = listed.lines().find(|line| line.contains(&lies.port().to_string()))?;
        line.contains("failing").then_some(())
    });
    assert!(told_to_liar.lock().unwrap().is_empty());
}

#[test]
fn a_receiver_that_wants_nothing_is_left_alone_until_it_is_enabled() {
    let receiver = answering(|number, _| if number == 0 { "410 Gone" } else { "200 OK" });
    let gateway = Gateway::alone(settings(&receiver, "user.created"));
    gateway.register("alice");
    eventually("it is not asked any more", || (state(&gateway)[1] == "disabled").then_some(()));
    gateway.register("bob");
    assert_eq!(state(&gateway).last().unwrap(), "1", "nothing is queued for it");
    assert!(gateway.log().contains("authgate webhook list"));
    let unknown = gateway.command(&["webhook", "enable", "http://127.0.0.1:1/"], "");
    assert!(!unknown.status.success());
    gateway.run(&["webhook", "enable", &url(&receiver)], "");
    let seen = told(&receiver, 2);
    assert_eq!(id(&seen[0]), id(&seen[1]));
    gateway.register("carol");
    assert_eq!(body(&told(&receiver, 3)[2])["data"]["user"]["username"], "carol");
    // What it has missed is had by a replay.
    let said = gateway.run(&["webhook", "replay", &url(&receiver), "--since", "1h"], "");
    assert!(said.starts_with("3 messages"), "{said}");
    let seen = told(&receiver, 6);
    let ids: BTreeSet<String> = seen.iter().map(id).collect();
    assert_eq!(ids.len(), 3, "they are the same messages");
}

#[test]
fn a_receiver_that_fails_for_a_week_is_not_asked_any_more() {
    let receiver = answering(|_, _| "503 Service Unavailable");
    let url = shared_database();
    let gateway =
        Gateway::alone(Settings::postgres(&url).extra(&telling(receiver.address.port(), "user.created")));
    gateway.register("alice");
    eventually("it fails", || (state(&gateway)[1] == "failing").then_some(()));
    assert_eq!(state(&gateway).last().unwrap(), "1");
    shared_sql(&url, "UPDATE webhook_endpoints SET failing_since = failing_since - 7 * 86400000");
    eventually("it is not asked any more", || (state(&gateway)[1] == "disabled").then_some(()));
    let before = receiver.seen().len();
    gateway.register("bob");
    assert_eq!(state(&gateway).last().unwrap(), "1");
    assert_eq!(receiver.seen().len(), before);
}

#[test]
fn two_gateways_tell_of_each_event_once() {
    let receiver = Upstream::start();
    let url = shared_database();
    let settings =
        || fleet::settings(&url).extra(&telling(receiver.address.port(), "user.created, session.created"));
    let (here, there) = (Gateway::alone(settings()), Gateway::alone(settings()));
    for number in 0..30 {
        let gateway = if number % 2 == 0 { &here } else { &there };
        gateway.register(&format!("user{number}"));
    }
    told(&receiver, 30);
    eventually("nothing waits any more", || (state(&here)[1..] == ["enabled", "0"]).then_some(()));
    let ids: BTreeSet<String> = receiver.seen().iter().map(id).collect();
    assert_eq!((ids.len(), receiver.seen().len()), (30, 30));
}

#[test]
fn a_reload_takes_up_other_receivers() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let gateway = Gateway::alone(settings(&first, "user.created"));
    let root = gateway.admin_token("root");
    told(&first, 1);
    assert_eq!(gateway.reload(&root, &settings(&second, "user.created")).status, 200);
    gateway.register("alice");
    told(&second, 1);
    assert_eq!(first.seen().len(), 1);
    assert_eq!(gateway.reload(&root, &Settings::default()).status, 200);
    gateway.register("bob");
    assert_eq!(gateway.run(&["webhook", "list"], "").lines().count(), 1);
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1));
}

/// Gateway, database and receiver are killed in turn and at random while accounts are made: whatever was answered with 201 is told, every
/// message has one id, and one id has one message.
#[test]
#[ignore = "slow"]
fn no_event_is_lost_however_gateway_database_and_receiver_are_killed() {
    const KILLS: usize = 50;
    let mut cluster = Cluster::start();
    let url = cluster.database();
    let port = port_to_keep();
    let listen = || TcpListener::bind(("127.0.0.1", port)).ok();
    let taken: Arc<std::sync::Mutex<Vec<Seen>>> = Arc::default();
    let receive = |listener: TcpListener| {
        let taken = taken.clone();
        Upstream::on(listener, move |seen| {
            taken.lock().unwrap().push(seen.clone());
            ok("")
        })
    };
    let settings = fleet::settings(&url).extra(&telling(port, "user.created"));
    let mut gateway = Gateway::alone(settings);
    let mut receiver = Some(receive(listen().unwrap()));
    let mut dice = Dice::new(7);
    let mut made = BTreeSet::new();
    for kill in 0..KILLS {
        for number in 0..1 + dice.below(3) {
            let name = format!("user{kill}x{number}");
            let body = json!({"username": name, "password": PASSWORD});
            if gateway.post("/auth/register", &body).status == 201 {
                made.insert(name);
            }
        }
        match dice.below(3) {
            0 => {
                gateway.kill();
                gateway = gateway.restart();
            }
            1 => {
                cluster.kill();
                cluster.restart();
            }
            _ => match receiver.take() {
                Some(receiver) => receiver.stop(),
                None => receiver = listen().map(&receive),
            },
        }
    }
    let _receiver = receiver.unwrap_or_else(|| receive(eventually("the port is free", listen)));
    assert!(made.len() >= KILLS / 2, "{} accounts were made", made.len());
    let names = || -> BTreeSet<String> {
        let taken = taken.lock().unwrap();
        taken.iter().map(|seen| body(seen)["data"]["user"]["username"].as_str().unwrap().to_owned()).collect()
    };
    let end = Instant::now() + Duration::from_secs(120);
    while !names().is_superset(&made) {
        let missing: Vec<_> = made.difference(&names()).cloned().collect();
        assert!(Instant::now() < end, "{missing:?} were not told of; {:?}", state(&gateway));
        thread::sleep(Duration::from_millis(100));
    }
    let mut by_id: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for seen in taken.lock().unwrap().iter() {
        by_id.entry(id(seen)).or_default().insert(seen.body.clone());
    }
    assert!(by_id.values().all(|bodies| bodies.len() == 1), "one id, one message");
    assert_eq!(by_id.len(), names().len(), "an account has one message");
}

#[test]
fn a_receiver_that_cannot_be_one_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    const HEAD: &str =
        "listeners: [{address: \"127.0.0.1:0\"}]\nauth: {issuer: https://i.example, audience: a}\n";
    let hook = |fields: &str| format!("webhooks: [{{{fields}}}]");
    let good = format!("url: \"https://a.example/\", secret: {SECRET}, events: [user.created]");
    for (lines, parts) in [
        (
            hook(&good.replace("https://a.example/", "http://a.example/")),
            &["webhooks[0].url", "https://"][..],
        ),
        (hook(&good.replace("https://a.example/", "https://u:p@a.example/")), &["webhooks[0].url", "user"]),
        (hook(&good.replace(SECRET, "short")), &["webhooks[0].secret", "24 to 64 bytes"]),
        (
            hook(&good.replace("[user.created]", "[user.creatd]")),
            &["webhooks[0].events[0]", "`user.creatd`", "session.revoked"],
        ),
        (hook(&good.replace("[user.created]", "[]")), &["webhooks[0].events", "at least one"]),
        (hook(&format!("{good}, timeout: 5m")), &["webhooks[0].timeout", "60s"]),
        (hook(&format!("{good}, ca: nowhere.pem")), &["webhooks[0].ca", "nowhere.pem"]),
        (format!("webhooks: [{{{good}}}, {{{good}}}]"), &["webhooks[1].url", "given twice"]),
        (format!("audit: {{keep: 1d}}\n{}", hook(&good)), &["audit.keep", "8d"]),
    ] {
        let errors = errors_of(folder.path(), &format!("{HEAD}{lines}\n"));
        for part in parts {
            assert!(errors.contains(part), "{part:?} is not in: {errors}");
        }
        assert!(!errors.contains("MfKQ9r8G") && !errors.contains("u:p@"), "{errors}");
    }
}

#[test]
fn a_receiver_has_taken_a_message_with_the_head_of_its_response() {
    let receiver = Upstream::with(|seen, socket| {
        use std::io::Write;
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbegun\r\n");
        // It never ends.
        thread::sleep(Duration::from_secs(20));
        seen.method.is_empty()
    });
    let gateway = Gateway::alone(settings(&receiver, "user.created"));
    gateway.register("alice");
    eventually("nothing waits any more", || {
        (receiver.seen().len() == 1 && state(&gateway)[1..] == ["enabled", "0"]).then_some(())
    });
}

#[test]
fn what_an_operator_changes_together_is_told_of_as_each_of_it() {
    let receiver = Upstream::start();
    let gateway = Gateway::alone(settings(&receiver, "user.updated, user.disabled, user.enabled"));
    let root = gateway.admin_token("root");
    let alice = gateway.register("alice");
    let path = format!("/api/users/{}", user_id(&alice));
    for disabled in [true, false] {
        let body = json!({"disabled": disabled, "roles": ["staff"], "email": "a@example.com"});
        assert_eq!(gateway.admin("PATCH", &path, Some(&root), Some(&body)).status, 200);
    }
    told(&receiver, 4);
    let mut sorted = kinds(&receiver);
    sorted.sort();
    assert_eq!(sorted, ["user.disabled", "user.enabled", "user.updated", "user.updated"]);
}

/// Actions of the audit trail that nobody is told of.
const UNTOLD: &[&str] = &[
    "client.revoke-token",
    "config.refuse",
    "invitation.create",
    "key.rewrap",
    "log.level",
    "name.release",
    "user.export",
    "user.must-change-password",
    "user.proof",
    "user.proof-failed",
    "user.renew-recovery-codes",
    "user.reset-link",
];

#[test]
fn each_action_of_the_audit_trail_is_told_of_or_known_not_to_be() {
    let told: BTreeSet<&str> =
        authgate::types::EventType::all().flat_map(|kind| kind.actions().iter().copied()).collect();
    let pattern = r#""((?:user|session|client|key|api-key|external|invitation|name|config|log)\.[a-z-]+)""#;
    let action = regex::Regex::new(pattern).unwrap();
    let mut folders =
        vec![std::path::PathBuf::from("src/account"), "src/admin".into(), "src/cli".into(), "src/app".into()];
    let mut found = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
                continue;
            }
            let text = fs::read_to_string(entry.path()).unwrap();
            found.extend(action.captures_iter(&text).map(|found| found[1].to_owned()));
        }
    }
    for action in &found {
        assert!(told.contains(action.as_str()) || UNTOLD.contains(&action.as_str()), "{action}");
    }
    assert!(told.iter().all(|action| found.contains(*action)), "{told:?} {found:?}");
}
