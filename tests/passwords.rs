//! Guessing, flooding and telling names apart.

use std::{
    io::Write,
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde_json::json;

use crate::harness::{
    Gateway, PASSWORD, Response, Settings, Upstream, authgate, errors_of, eventually, ok, shared_database,
};

/// What a response shows, but for what differs in any two answers.
fn shown(response: &Response) -> (u16, Vec<String>, serde_json::Value) {
    let mut body = response.json();
    body.as_object_mut().unwrap().remove("request_id");
    let hidden = ["date", "x-request-id"];
    let headers = response.headers.iter().filter(|(name, _)| !hidden.contains(&name.to_lowercase().as_str()));
    (response.status, headers.map(|(name, value)| format!("{name}: {value}")).collect(), body)
}

#[test]
fn unknown_wrong_and_disabled_logins_look_alike() {
    let gateway = Gateway::alone(Settings::default());
    gateway.register("alice");
    gateway.register("bob");
    gateway.run(&["user", "disable", "bob"], "");
    let wrong = gateway.try_login("alice", "not the password at all");
    assert_eq!((wrong.status, wrong.message().as_str()), (401, "Invalid credentials"));
    for (name, password) in
        [("nobody", PASSWORD), ("bob", PASSWORD), ("a b", PASSWORD), ("alice", "x"), ("nobody", "\u{7}")]
    {
        assert_eq!(shown(&gateway.try_login(name, password)), shown(&wrong), "{name}");
    }
}

#[test]
fn an_unknown_user_costs_a_hash_too() {
    let gateway = Gateway::alone(Settings::default());
    let hashes = || gateway.metric("authgate_password_seconds_count").unwrap();
    gateway.register("alice");
    for (name, password) in [("alice", "not the password at all"), ("nobody", PASSWORD), ("a b", PASSWORD)] {
        let before = hashes();
        gateway.try_login(name, password);
        assert_eq!(hashes() - before, 1.0, "{name}");
    }
}

#[test]
fn long_passwords_are_refused_without_a_hash() {
    let gateway = Gateway::alone(Settings::default());
    gateway.register("alice");
    let before = gateway.metric("authgate_password_seconds_count");
    let long = "x".repeat(1_025);
    assert_eq!(gateway.try_login("alice", &long).message(), "Invalid credentials");
    let response = gateway.post("/auth/register", &json!({"username": "bob", "password": long}));
    assert_eq!((response.status, response.message().as_str()), (400, "Password not accepted"));
    assert_eq!(gateway.metric("authgate_password_seconds_count"), before);
    let longest = json!({"username": "bob", "password": "x".repeat(1_024)});
    assert_eq!(gateway.post("/auth/register", &longest).status, 201);
}

#[test]
fn common_passwords_are_refused() {
    let gateway = Gateway::alone(Settings::default().auth("  password: {min_length: 8}\n"));
    for password in ["password", "Passw0rd", "iloveyou", "bob-the-builder"] {
        let response =
            gateway.post("/auth/register", &json!({"username": "bob-the-builder", "password": password}));
        assert_eq!(
            (response.status, response.message().as_str()),
            (400, "Password not accepted"),
            "{password}"
        );
    }
}

#[test]
fn a_flood_of_logins_is_shed_with_503_and_protected_requests_go_on() {
    let settings = Settings::default()
        .auth("  password: {workers: 1, queue: 4, queue_timeout: 500ms, argon2: {memory: 64MiB}}\n  throttle: {address: {failures: 100000, per: 1s}, account: {failures: 100000, per: 1s}}\n");
    let gateway = Arc::new(Gateway::alone(settings));
    let token = gateway.token("alice");
    let flood: Vec<_> = (0..40)
        .map(|_| {
            let gateway = gateway.clone();
            thread::spawn(move || gateway.try_login("alice", "not the password at all"))
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    }
    let responses: Vec<_> = flood.into_iter().map(|client| client.join().unwrap()).collect();
    let shed: Vec<_> = responses.iter().filter(|response| response.status == 503).collect();
    assert!(!shed.is_empty());
    for response in shed {
        assert_eq!(response.message(), "Service unavailable");
        assert!(response.header("Retry-After").unwrap().parse::<u64>().unwrap() >= 1);
    }
    assert!(responses.iter().all(|response| [401, 503].contains(&response.status)));
}

#[test]
fn failures_are_throttled_and_the_password_is_then_not_looked_at() {
    let settings = Settings::default().auth("  throttle: {account: {failures: 3, per: 1h}}\n");
    let gateway = Gateway::alone(settings);
    gateway.run(&["user", "add", "alice", "--password-stdin"], PASSWORD);
    for name in ["alice", "nobody"] {
        for _ in 0..3 {
            assert_eq!(gateway.try_login(name, "not the password at all").status, 401);
        }
        let hashes = gateway.metric("authgate_password_seconds_count");
        let refused = gateway.try_login(name, PASSWORD);
        assert_eq!((refused.status, refused.message().as_str()), (429, "Too many requests"), "{name}");
        assert!(refused.header("Retry-After").unwrap().parse::<u64>().unwrap() > 60);
        assert_eq!(gateway.metric("authgate_password_seconds_count"), hashes);
    }
}

#[test]
fn spellings_and_look_alikes_are_counted_together_and_are_one_account() {
    let gateway = Gateway::alone(Settings::default().auth("  throttle: {account: {failures: 3, per: 1h}}\n"));
    gateway.run(&["user", "add", "paypal", "--password-stdin"], PASSWORD);
    for name in ["PAYPAL", "PayPal", "\u{ff50}aypal"] {
        assert_eq!(gateway.try_login(name, "not the password at all").status, 401);
    }
    assert_eq!(gateway.try_login("paypal", PASSWORD).status, 429);
    let look_alike = json!({"username": "p\u{430}yp\u{430}l", "password": PASSWORD});
    assert_eq!(gateway.post("/auth/register", &look_alike).status, 409);
}

#[test]
fn whoever_has_logged_in_before_is_not_locked_out_by_a_stranger() {
    let settings = Settings::default()
        .auth("  throttle: {account: {failures: 3, per: 1h}}\n")
        .extra("trusted_proxies: [127.0.0.1]\n");
    let gateway = Gateway::alone(settings);
    gateway.run(&["user", "add", "alice", "--password-stdin"], PASSWORD);
    let login = |from: &str, password: &str| {
        let body = json!({"username": "alice", "password": password}).to_string();
        let length = body.len();
        gateway
            .client()
            .send(format!("POST /auth/login HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {from}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"))
            .response()
            .status
    };
    assert_eq!(login("192.0.2.1", PASSWORD), 200);
    for _ in 0..3 {
        assert_eq!(login("198.51.100.66", "not the password at all"), 401);
    }
    assert_eq!(login("198.51.100.67", PASSWORD), 429);
    assert_eq!(login("192.0.2.1", PASSWORD), 200);
}

#[test]
fn registrations_are_throttled_by_address() {
    let gateway =
        Gateway::alone(Settings::default().auth("  throttle: {registrations: {requests: 2, per: 1h}}\n"));
    gateway.register("a1");
    gateway.register("a2");
    let refused = gateway.post("/auth/register", &json!({"username": "a3", "password": PASSWORD}));
    assert_eq!(refused.status, 429);
}

#[test]
#[ignore = "slow"]
fn a_hash_from_before_the_config_was_changed_still_logs_in() {
    let costly = "  password: {argon2: {memory: 128MiB, iterations: 20}, queue_timeout: 20s}\n";
    let first = Gateway::alone(Settings::default().auth(costly));
    first.register("alice");
    let cheap = Settings::default().auth("  password: {argon2: {memory: 64KiB, iterations: 1}}\n");
    let folder = first.folder.clone();
    drop(first);
    let second = Gateway::start_in(folder, "127.0.0.1:1".parse().unwrap(), cheap);
    assert_eq!(second.try_login("alice", "not the password at all").status, 401);
    assert_eq!(second.try_login("alice", PASSWORD).status, 200);
    assert_eq!(second.try_login("alice", PASSWORD).status, 200, "renewed");
}

/// A list of stolen passwords in the form in which such lists are published.
fn stolen(passwords: &[&str]) -> String {
    let hash = |password: &&str| {
        let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let hexadecimal: String = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        format!("{hexadecimal}:7\r\n")
    };
    let mut lines: Vec<_> = passwords.iter().map(hash).collect();
    lines.sort();
    lines.concat()
}

/// Makes the file `stolen.filter` in a folder.
fn build_filter(folder: &Path, passwords: &[&str]) {
    std::fs::write(folder.join("list.txt"), stolen(passwords)).unwrap();
    let output = authgate()
        .args(["password-filter", "build"])
        .args([folder.join("stolen.filter"), folder.join("list.txt")])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(&format!("{} passwords", passwords.len())), "{output:?}");
}

const STOLEN: &str = "a password that was stolen";
const STOLEN_LATER: &str = "a password that is stolen later";

#[test]
fn a_stolen_password_is_nobodys_choice_and_goes_on_where_it_is_one() {
    let folder = Arc::new(tempfile::tempdir().unwrap());
    build_filter(folder.path(), &[STOLEN, "another one of somebody"]);
    let plain = Settings::default();
    let listed = Settings::default().auth("  password: {breached: stolen.filter}\n");
    let nowhere = "127.0.0.1:9".parse().unwrap();
    let mut gateway = Gateway::start_in(folder.clone(), nowhere, plain);
    let body = |name: &str, password: &str| json!({"username": name, "password": password});
    assert_eq!(gateway.post("/auth/register", &body("early", STOLEN)).status, 201);
    let admin = gateway.admin_token("operator");
    assert_eq!(gateway.reload(&admin, &listed).status, 200);

    let refused = gateway.post("/auth/register", &body("late", STOLEN));
    assert_eq!((refused.status, refused.message().as_str()), (400, "Password not accepted"));
    assert_eq!(refused.json()["detail"], "this password is known from a theft of passwords");
    assert_eq!(gateway.post("/auth/register", &body("late", STOLEN_LATER)).status, 201);
    let early = gateway.try_login("early", STOLEN);
    assert_eq!(early.status, 200);
    let token = early.json()["access_token"].as_str().unwrap().to_owned();
    let change =
        json!({"new_password": "another one of somebody", "new_password_confirm": "another one of somebody"});
    assert_eq!(
        gateway.send("POST", "/auth/change", Some(&token), Some(&change)).message(),
        "Password not accepted"
    );
    let set = gateway.command(&["user", "set-password", "early", "--password-stdin"], STOLEN);
    assert!(!set.status.success() && String::from_utf8_lossy(&set.stderr).contains("theft"), "{set:?}");

    // Another list in its place is taken up by a reload; one that is cut is not, and by no start.
    build_filter(folder.path(), &[STOLEN_LATER]);
    assert_eq!(gateway.reload(&admin, &listed).status, 200);
    assert_eq!(
        gateway.post("/auth/register", &body("third", STOLEN_LATER)).message(),
        "Password not accepted"
    );
    assert_eq!(gateway.post("/auth/register", &body("third", STOLEN)).status, 201);
    let file = folder.path().join("stolen.filter");
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let reload = gateway.reload(&admin, &listed);
    assert_eq!(reload.status, 422);
    let check = gateway.command(&["check"], "");
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(
        said.contains("auth.password.breached") && said.contains("stolen.filter: it is no whole file"),
        "{said}"
    );
    assert_eq!(
        gateway.post("/auth/register", &body("fourth", STOLEN_LATER)).message(),
        "Password not accepted"
    );
    let mut damaged = whole;
    damaged[8] ^= 1;
    std::fs::write(&file, damaged).unwrap();
    let check = gateway.command(&["check"], "");
    assert!(
        String::from_utf8_lossy(&check.stderr).contains("stolen.filter: its checksum is wrong"),
        "{check:?}"
    );
    // Commands that set no password do without it.
    assert!(gateway.run(&["user", "list"], "").contains("early"));
    gateway.stop();
    let mut restarted = Gateway::spawn_in(folder, nowhere, listed);
    assert!(!eventually("it does not start", || restarted.ended()).success());
    assert!(restarted.log().contains("its checksum is wrong"), "{}", restarted.log());
}

/// A service that knows the stolen password by its hash, until it breaks.
fn range_service(breaks: Arc<AtomicBool>) -> Upstream {
    Upstream::with(move |seen, socket| {
        let listed = stolen(&[STOLEN]);
        let (begin, rest) = listed.split_at(5);
        let padding = "0018A45C4D1DEF81644B54AB7F969B88D65:0\r\n";
        let answer = match seen.target.strip_prefix("/range/") {
            _ if breaks.load(SeqCst) => return false,
            Some(asked) if asked == begin => ok(&format!("{padding}{rest}")),
            Some(asked) if asked.len() == 5 => ok(padding),
            _ => b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n".to_vec(),
        };
        socket.write_all(&answer).is_ok()
    })
}

#[test]
fn a_service_is_asked_about_stolen_passwords_and_missed_by_nobody() {
    let breaks = Arc::new(AtomicBool::new(false));
    let service = range_service(breaks.clone());
    let url = format!("http://{}/range/", service.address);
    let gateway = Gateway::alone(
        Settings::default().auth(&format!("  password: {{breached_service: {{url: \"{url}\"}}}}\n")),
    );
    let body = |name: &str, password: &str| json!({"username": name, "password": password});
    let refused = gateway.post("/auth/register", &body("alice", STOLEN));
    assert_eq!((refused.status, refused.message().as_str()), (400, "Password not accepted"));
    assert_eq!(refused.json()["detail"], "this password is known from a theft of passwords");
    assert_eq!(gateway.post("/auth/register", &body("alice", STOLEN_LATER)).status, 201);
    let token = gateway.try_login("alice", STOLEN_LATER).json()["access_token"].as_str().unwrap().to_owned();
    let change = json!({"new_password": STOLEN, "new_password_confirm": STOLEN});
    let changed = gateway.send("POST", "/auth/change", Some(&token), Some(&change));
    assert_eq!(changed.message(), "Password not accepted");
    // It is told five digits, by requests that are padded; and a login asks it nothing.
    let seen = service.seen();
    assert_eq!(seen.len(), 3, "{seen:?}");
    assert!(seen.iter().all(|seen| seen.target.len() == "/range/".len() + 5));
    assert!(seen.iter().all(|seen| seen.header("add-padding") == Some("true") && seen.body.is_empty()));
    // While it is away nobody is refused, and an operator can read that.
    breaks.store(true, SeqCst);
    assert_eq!(gateway.post("/auth/register", &body("bob", STOLEN)).status, 201);
    assert!(gateway.log().contains("a password was not looked up among stolen ones"), "{}", gateway.log());
}

#[test]
fn whoever_keeps_the_service_for_stolen_passwords_waiting_keeps_nobody_else() {
    let holds = Arc::new(AtomicBool::new(true));
    let listed = stolen(&[STOLEN]);
    let service = Upstream::with({
        let holds = holds.clone();
        move |seen, socket| {
            let (begin, rest) = listed.split_at(5);
            let is_asked = seen.target.ends_with(begin);
            while !is_asked && holds.load(SeqCst) {
                thread::sleep(Duration::from_millis(10));
            }
            socket.write_all(&ok(if is_asked { rest } else { "" })).is_ok()
        }
    });
    let service_key =
        format!("breached_service: {{url: \"http://{}/range/\", timeout: 10s}}", service.address);
    let gateway =
        Gateway::alone(Settings::default().extra("trusted_proxies: [127.0.0.1/32]\n").auth(&format!(
            "  throttle: {{registrations: {{requests: 1000, per: 1m}}}}\n  password: {{{service_key}}}\n"
        )));
    let register = |address: &str, name: &str, password: &str| {
        let body = json!({"username": name, "password": password}).to_string();
        let length = body.len();
        let request = format!(
            "POST /auth/register HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        gateway.client().send(request).response()
    };
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..16)
            .map(|number| {
                let register = &register;
                scope.spawn(move || register("192.0.2.1", &format!("user{number}"), STOLEN_LATER).status)
            })
            .collect();
        eventually("all of them wait", || (service.seen().len() == 16).then_some(()));
        let other = register("192.0.2.2", "bob", STOLEN);
        assert_eq!((other.status, other.message().as_str()), (400, "Password not accepted"));
        // One more of theirs is not asked about.
        assert_eq!(register("192.0.2.1", "alice", STOLEN).status, 201);
        holds.store(false, SeqCst);
        for status in waiting {
            assert_eq!(status.join().unwrap(), 201);
        }
    });
}

#[test]
fn a_service_for_stolen_passwords_that_cannot_be_one_is_a_fault() {
    const HEAD: &str =
        "listeners: [{address: \"127.0.0.1:0\"}]\nauth:\n  issuer: https://i.example\n  audience: a\n";
    let folder = tempfile::tempdir().unwrap();
    for (service, key, legal) in [
        ("url: \"http://example.com/range/\"", "breached_service.url", "begins with https://"),
        ("url: \"https://example.com/range\"", "breached_service.url", "a / at its end"),
        ("url: \"https://example.com/range/\", timeout: 1m", "breached_service.timeout", "at most 10s"),
        ("url: \"https://example.com/range/\", ca: none.pem", "breached_service.ca", "none.pem"),
    ] {
        let text = format!("{HEAD}  password: {{breached_service: {{{service}}}}}\n");
        let said = errors_of(folder.path(), &text);
        assert!(said.contains(key) && said.contains(legal), "{said}");
    }
}

#[test]
fn a_list_is_made_whole_or_not_at_all_and_says_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    build_filter(folder.path(), &[STOLEN]);
    let file = folder.path().join("stolen.filter");
    let filter = |args: &[&str], input: &str| {
        let mut child = authgate()
            .arg("password-filter")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let file_name = file.to_str().unwrap();
    let check = |password: &str| filter(&["check", file_name, "--password-stdin"], password).status.code();
    assert_eq!((check(STOLEN), check(STOLEN_LATER)), (Some(3), Some(0)));

    let failed = filter(&["build", file_name], &format!("{}password\n", stolen(&[STOLEN_LATER])));
    assert_eq!(failed.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&failed.stderr).contains("standard input: line 2: expected a SHA-1 hash")
    );
    assert_eq!(check(STOLEN), Some(3), "the list before is still there");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "and nothing of the failed one");
    assert!(filter(&["build", file_name, "--min-count", "8"], &stolen(&[STOLEN_LATER])).status.success());
    assert_eq!((check(STOLEN), check(STOLEN_LATER)), (Some(0), Some(0)), "it was seen seven times");
}

#[test]
fn who_must_change_a_password_gets_nothing_until_another_one_is_chosen() {
    const NEW: &str = "a password of their own choice";
    for url in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let settings = Settings { store: format!("{{url: \"{url}\"}}"), ..Settings::default() };
        let gateway = Gateway::alone(settings);
        gateway.run(&["user", "add", "alice", "--must-change", "--password-stdin"], PASSWORD);
        assert!(gateway.run(&["user", "show", "alice"], "").contains("password        must be changed"));
        let wrong = gateway.try_login("alice", "not the password at all");
        assert_eq!((wrong.status, wrong.message().as_str()), (401, "Invalid credentials"));
        let refused = gateway.try_login("alice", PASSWORD);
        assert_eq!((refused.status, &refused.json()["code"]), (401, &json!("password_change_required")));
        assert!(refused.json().get("access_token").is_none(), "{refused:?}");
        let token = refused.json()["reset_token"].clone();
        let reset = |password: &str| {
            gateway.post("/auth/password/reset", &json!({"token": token, "new_password": password}))
        };
        let same = reset(PASSWORD);
        assert_eq!((same.status, same.message().as_str()), (400, "Password not accepted"));
        assert_eq!(reset("short").status, 400);
        assert_eq!(reset(NEW).status, 200);
        assert_eq!(reset("and another one after that").status, 400, "the token is used up");
        assert_eq!(gateway.try_login("alice", PASSWORD).status, 401);
        let login = gateway.try_login("alice", NEW);
        assert_eq!(login.status, 200);

        // By the admin API, of somebody who is signed in.
        let root = gateway.admin_token("root");
        let path = format!("/api/users/{}", login.json()["user_id"].as_str().unwrap());
        let body = json!({"must_change_password": true});
        let changed = gateway.admin("PATCH", &path, Some(&root), Some(&body));
        assert_eq!((changed.status, &changed.json()["must_change_password"]), (200, &json!(true)));
        assert_eq!(gateway.get("/auth/me", login.json()["access_token"].as_str()).status, 401);
        assert_eq!(gateway.refresh(login.json()["refresh_token"].as_str().unwrap()).status, 401);
        assert_eq!(gateway.try_login("alice", NEW).json()["code"], "password_change_required");
        let body = json!({"must_change_password": false});
        assert_eq!(gateway.admin("PATCH", &path, Some(&root), Some(&body)).status, 200);
        assert_eq!(gateway.try_login("alice", NEW).status, 200);
        gateway.run(&["user", "set-password", "alice", "--must-change", "--password-stdin"], PASSWORD);
        assert_eq!(gateway.try_login("alice", PASSWORD).json()["code"], "password_change_required");
        gateway.run(&["user", "set-password", "alice", "--password-stdin"], PASSWORD);
        assert_eq!(gateway.try_login("alice", PASSWORD).status, 200);
        let trail = gateway.run(&["audit"], "");
        assert!(trail.contains("must change it") && trail.contains("user.must-change-password"), "{trail}");
        assert!(!gateway.log().contains(token.as_str().unwrap()));
    }
}
