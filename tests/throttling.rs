//! Throttling: of spellings, of several gateways, and never a lockout.

use serde_json::json;

use crate::harness::{Gateway, PASSWORD, Response, Settings, shared_database};

const WRONG: &str = "not the password at all";

fn settings(url: &str) -> Settings {
    Settings {
        store: format!("{{url: \"{url}\"}}"),
        ..Settings::default()
            .auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n")
            .auth("  throttle: {account: {failures: 4, per: 10m}, registrations: {requests: 5, per: 10m}}\n")
            .extra("trusted_proxies: [127.0.0.1/32]\n")
    }
}

fn login_from(gateway: &Gateway, address: &str, name: &str, password: &str) -> Response {
    let body = json!({"username": name, "password": password}).to_string();
    let request = format!(
        "POST /auth/login HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    gateway.client().send(request).response()
}

#[test]
fn several_gateways_count_together() {
    let url = shared_database();
    let gateways = [Gateway::alone(settings(&url)), Gateway::alone(settings(&url))];
    gateways[0].run(&["user", "add", "alice", "--password-stdin"], PASSWORD);
    for name in ["alice", "nobody"] {
        let statuses: Vec<u16> =
            (0..6).map(|index| gateways[index % 2].try_login(name, WRONG).status).collect();
        assert_eq!(statuses, [401, 401, 401, 401, 429, 429], "{name}");
    }
    let refused = gateways[1].try_login("alice", PASSWORD);
    assert_eq!(refused.status, 429, "a throttled attempt does not evaluate the password");
    let after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=150).contains(&after), "{after}");
    let registrations: Vec<u16> = (0..6)
        .map(|index| {
            let body = json!({"username": format!("user{index}"), "password": PASSWORD});
            gateways[index % 2].post("/auth/register", &body).status
        })
        .collect();
    assert_eq!(registrations, [201, 201, 201, 201, 201, 429]);
}

#[test]
fn spellings_and_look_alikes_of_a_name_are_counted_as_one() {
    for url in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let gateway = Gateway::alone(settings(&url));
        gateway.register("alice");
        for name in ["alice", "ALICE", "\u{ff41}lice", "Alice"] {
            assert_eq!(gateway.try_login(name, WRONG).status, 401, "{name}");
        }
        assert_eq!(gateway.try_login("aLiCe", WRONG).status, 429);
    }
}

#[test]
fn a_stranger_does_not_lock_out_whoever_has_logged_in_before() {
    for url in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let gateway = Gateway::alone(settings(&url));
        gateway.register("alice");
        assert_eq!(login_from(&gateway, "192.0.2.1", "alice", PASSWORD).status, 200);
        for _ in 0..4 {
            assert_eq!(login_from(&gateway, "198.51.100.7", "alice", WRONG).status, 401);
        }
        assert_eq!(login_from(&gateway, "198.51.100.7", "alice", WRONG).status, 429);
        assert_eq!(login_from(&gateway, "203.0.113.9", "alice", PASSWORD).status, 429, "another stranger");
        assert_eq!(login_from(&gateway, "192.0.2.1", "alice", PASSWORD).status, 200, "who was here before");
    }
}

#[test]
fn a_success_is_not_counted() {
    for url in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let gateway = Gateway::alone(settings(&url));
        gateway.register("alice");
        for _ in 0..8 {
            assert_eq!(gateway.try_login("alice", PASSWORD).status, 200);
        }
    }
}

#[test]
fn attempts_at_once_are_reserved_before_they_are_judged() {
    let url = shared_database();
    let gateways = [Gateway::alone(settings(&url)), Gateway::alone(settings(&url))];
    gateways[0].run(&["user", "add", "alice", "--password-stdin"], PASSWORD);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let gateways = &gateways;
        let tries: Vec<_> = (0..12)
            .map(|index| scope.spawn(move || gateways[index % 2].try_login("alice", WRONG).status))
            .collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|&&status| status == 401).count(), 4, "{statuses:?}");
}

#[test]
fn a_look_alike_does_not_tell_whether_there_is_such_an_account() {
    for url in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let gateway = Gateway::alone(settings(&url));
        gateway.register("paypal");
        for name in ["paypal", "nobody"] {
            for _ in 0..4 {
                assert_eq!(gateway.try_login(name, WRONG).status, 401);
            }
        }
        let look_alikes = ["p\u{430}ypal", "n\u{43e}body"].map(|name| gateway.try_login(name, WRONG).status);
        assert_eq!(look_alikes, [429, 429]);
    }
}

fn login_with(gateway: &Gateway, address: &str, name: &str, password: &str, device: &str) -> Response {
    let body = json!({"username": name, "password": password}).to_string();
    let request = format!(
        "POST /auth/login HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\n{device}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    gateway.client().send(request).response()
}

#[test]
fn a_device_that_was_logged_in_from_is_no_stranger_at_another_address() {
    for url in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let gateway = Gateway::alone(settings(&url));
        let registered = gateway.post("/auth/register", &json!({"username": "alice", "password": PASSWORD}));
        let of_registration = registered.header("x-authgate-device").unwrap().to_owned();
        gateway.register("mallory");
        let login = login_from(&gateway, "192.0.2.1", "alice", PASSWORD);
        let token = login.header("x-authgate-device").unwrap().to_owned();
        let cookie = login.header("set-cookie").unwrap().to_owned();
        for part in ["__Secure-authgate-device=", "; Path=/auth;", "; Secure", "; HttpOnly", "; SameSite=Lax"]
        {
            assert!(cookie.contains(part), "{cookie}");
        }
        let foreign = login_from(&gateway, "192.0.2.3", "mallory", PASSWORD);
        let foreign = foreign.header("x-authgate-device").unwrap().to_owned();
        for _ in 0..4 {
            assert_eq!(login_from(&gateway, "198.51.100.7", "alice", WRONG).status, 401);
        }
        let stranger = |device: &str| login_with(&gateway, "203.0.113.9", "alice", PASSWORD, device).status;
        assert_eq!(stranger("X-Nothing: here"), 429);
        assert_eq!(stranger(&format!("X-Authgate-Device: {foreign}")), 429, "another account's device");
        // Not its last character, of which two bits are no part of the token.
        let (kept, last) = token.split_at(token.len() - 2);
        let forged = format!("{kept}{}{}", if last.starts_with('A') { 'B' } else { 'A' }, &last[1..]);
        assert_eq!(stranger(&format!("X-Authgate-Device: {forged}")), 429, "a forged one");
        let by_header =
            login_with(&gateway, "203.0.113.9", "alice", PASSWORD, &format!("X-Authgate-Device: {token}"));
        assert_eq!(by_header.status, 200);
        let cookie = cookie.split(';').next().unwrap();
        let by_cookie =
            login_with(&gateway, "203.0.113.10", "alice", PASSWORD, &format!("Cookie: a=b; {cookie}"));
        assert_eq!(by_cookie.status, 200);
        let device = format!("X-Authgate-Device: {of_registration}");
        assert_eq!(login_with(&gateway, "203.0.113.11", "alice", PASSWORD, &device).status, 200);
        // Whoever had the password for a while has nothing of it once it is another.
        let change = json!({"new_password": "another password of alice"});
        let access = by_header.json()["access_token"].as_str().unwrap().to_owned();
        let known = login_from(&gateway, "192.0.2.1", "alice", PASSWORD)
            .header("x-authgate-device")
            .unwrap()
            .to_owned();
        assert_eq!(gateway.send("POST", "/auth/change", Some(&access), Some(&change)).status, 200);
        let device = format!("X-Authgate-Device: {known}");
        let old = login_with(&gateway, "203.0.113.12", "alice", "another password of alice", &device);
        assert_eq!(old.status, 429);
        let token = login_from(&gateway, "192.0.2.1", "alice", "another password of alice");
        let token = token.header("x-authgate-device").unwrap().to_owned();
        // Whoever has the device and not the password is bound by a bucket of its own.
        let device = format!("X-Authgate-Device: {token}");
        let statuses: Vec<u16> = (0..5)
            .map(|index| {
                login_with(&gateway, &format!("203.0.113.{}", 20 + index), "alice", WRONG, &device).status
            })
            .collect();
        assert_eq!(statuses, [401, 401, 401, 401, 429]);
    }
}

#[test]
fn spellings_of_a_name_that_is_an_address_are_counted_as_one_too() {
    for url in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let gateway = Gateway::alone(settings(&url).auth("  login: {by: [username, email]}\n"));
        gateway.run(&["user", "add", "alice@example.com", "--password-stdin"], PASSWORD);
        for name in
            ["alice@example.com", "ALICE@example.com", "\u{ff41}lice@example.com", "alice@\u{ff45}xample.com"]
        {
            assert_eq!(gateway.try_login(name, WRONG).status, 401, "{name}");
        }
        assert_eq!(gateway.try_login("al\u{ff49}ce@example.com", PASSWORD).status, 429);
    }
}
