//! Verifying addresses and resetting passwords, by a real mail server.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{
    Gateway, MailServer, PASSWORD, Response, Settings, SqlSession, eventually, shared_database, token_of,
};

const NEW_PASSWORD: &str = "another password for the tests";

fn settings(mail: &MailServer, more: &str) -> Settings {
    settings_with(mail, "2s", more)
}

fn settings_with(mail: &MailServer, timeout: &str, more: &str) -> Settings {
    let port = mail.port;
    Settings::default().auth(&format!(
        "  throttle: {{mails: {{requests: 1000, per: 1m}}, registrations: {{requests: 1000, per: 1m}}}}\n  email:\n    smtp: {{host: 127.0.0.1, port: {port}, encryption: none, timeout: {timeout}}}\n    from: Tests <no-reply@example.com>\n    base_url: https://app.example.com\n{more}"
    ))
}

fn gateway(mail: &MailServer) -> Gateway {
    Gateway::alone(settings(mail, ""))
}

fn register(gateway: &Gateway, name: &str) -> Value {
    let body = json!({"username": name, "password": PASSWORD, "email": format!("{name}@example.com")});
    let response = gateway.post("/auth/register", &body);
    assert_eq!(response.status, 201, "{response:?}");
    response.json()
}

/// An account whose address is verified.
fn verified(gateway: &Gateway, mail: &MailServer, name: &str) -> Value {
    let before = mail.mails().len();
    let registered = register(gateway, name);
    let token = token_of(&mail.mail(before));
    assert_eq!(gateway.post("/auth/email/verify", &json!({"token": token})).status, 200);
    registered
}

fn forgot(gateway: &Gateway, email: &str) -> Response {
    gateway.post("/auth/password/forgot", &json!({"email": email}))
}

fn reset(gateway: &Gateway, token: &str) -> Response {
    gateway.post("/auth/password/reset", &json!({"token": token, "new_password": NEW_PASSWORD}))
}

#[test]
fn a_new_address_is_verified_by_the_link_that_was_sent_to_it() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    register(&gateway, "alice");
    let sent = mail.mail(0);
    assert_eq!(sent["to"], json!(["alice@example.com"]));
    assert_eq!(sent["from"], "Tests <no-reply@example.com>");
    assert_eq!(sent["auto_submitted"], "auto-generated");
    assert!(sent["text"].as_str().unwrap().contains("https://app.example.com/verify-email?token="));
    let shown = || gateway.run(&["user", "show", "alice"], "");
    assert!(shown().contains("email verified  no"), "{}", shown());
    let token = json!({"token": token_of(&sent)});
    assert_eq!(gateway.post("/auth/email/verify", &token).message(), "Email verified successfully");
    assert!(shown().contains("email verified  yes"), "{}", shown());
    let again = gateway.post("/auth/email/verify", &token);
    assert_eq!((again.status, again.message().as_str()), (400, "Invalid or expired token"));
}

#[test]
fn a_forgotten_password_is_reset_once_and_every_session_ends() {
    for url in [r#"sqlite:authgate.db"#.to_owned(), shared_database()] {
        let mail = MailServer::start("plain");
        let settings = Settings { store: format!("{{url: \"{url}\"}}"), ..settings(&mail, "") };
        let gateway = Gateway::alone(settings);
        let alice = verified(&gateway, &mail, "alice");
        assert_eq!(forgot(&gateway, "Alice@Example.com").status, 200);
        let token = token_of(&mail.mail(1));
        let weak = gateway.post("/auth/password/reset", &json!({"token": token, "new_password": "short"}));
        assert_eq!((weak.status, weak.message().as_str()), (400, "Password not accepted"));
        assert_eq!(reset(&gateway, &token).message(), "Password reset successfully");
        let again = reset(&gateway, &token);
        assert_eq!((again.status, again.message().as_str()), (400, "Invalid or expired token"));
        assert_eq!(gateway.get("/auth/me", alice["access_token"].as_str()).status, 401);
        assert_eq!(gateway.refresh(alice["refresh_token"].as_str().unwrap()).status, 401);
        assert_eq!(gateway.try_login("alice", PASSWORD).status, 401);
        assert_eq!(gateway.try_login("alice", NEW_PASSWORD).status, 200);
    }
}

#[test]
fn of_two_resets_at_once_one_succeeds() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    verified(&gateway, &mail, "alice");
    forgot(&gateway, "alice@example.com");
    let token = token_of(&mail.mail(1));
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let tries: Vec<_> = (0..4).map(|_| scope.spawn(|| reset(&gateway, &token).status)).collect();
        tries.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(statuses.iter().filter(|&&status| status == 200).count(), 1, "{statuses:?}");
}

#[test]
fn an_unknown_address_is_answered_like_a_known_one() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    verified(&gateway, &mail, "alice");
    register(&gateway, "unverified");
    mail.mail(1);
    let ask = |email: &str| {
        let begun = Instant::now();
        let mut response = forgot(&gateway, email);
        let took = begun.elapsed();
        response
            .headers
            .retain(|(name, _)| !["x-request-id", "date"].contains(&name.to_lowercase().as_str()));
        (response.status, response.text(), response.headers, took)
    };
    let known = ask("alice@example.com");
    for email in ["nobody@example.com", "unverified@example.com"] {
        let unknown = ask(email);
        assert_eq!((&known.0, &known.1, &known.2), (&unknown.0, &unknown.1, &unknown.2));
        // The timer answers, not the store.
        assert!(unknown.3 >= Duration::from_millis(250) && known.3 >= Duration::from_millis(250));
    }
    assert_eq!(mail.mail(2)["to"], json!(["alice@example.com"]));
    assert_eq!(mail.mails().len(), 3, "an unverified or unknown address gets no mail");
}

#[test]
fn links_are_built_from_the_config_and_not_from_the_request() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    verified(&gateway, &mail, "alice");
    let body = json!({"email": "alice@example.com"}).to_string();
    let request = format!(
        "POST /auth/password/forgot HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: evil.example\r\nForwarded: host=evil.example\r\nOrigin: https://evil.example\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    assert_eq!(gateway.client().send(request).response().status, 200);
    let text = mail.mail(1)["text"].as_str().unwrap().to_owned();
    assert!(
        text.contains("https://app.example.com/reset-password?token=") && !text.contains("evil"),
        "{text}"
    );
}

#[test]
fn a_link_expires() {
    let mail = MailServer::start("plain");
    let gateway = Gateway::alone(settings(&mail, "    reset_ttl: 1s\n"));
    verified(&gateway, &mail, "alice");
    forgot(&gateway, "alice@example.com");
    let token = token_of(&mail.mail(1));
    // It is not used up by being looked at with a password that is too short.
    let weak = || gateway.post("/auth/password/reset", &json!({"token": token, "new_password": "short"}));
    eventually("the link expires", || (weak().message() == "Invalid or expired token").then_some(()));
    assert_eq!(reset(&gateway, &token).status, 400);
}

#[test]
fn a_link_is_worth_nothing_once_the_password_or_the_address_is_another() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    let alice = verified(&gateway, &mail, "alice");
    forgot(&gateway, "alice@example.com");
    let token = token_of(&mail.mail(1));
    let change = json!({"new_password": "a third password for the tests"});
    let response = gateway.send("POST", "/auth/change", alice["access_token"].as_str(), Some(&change));
    assert_eq!(response.status, 200);
    assert_eq!(reset(&gateway, &token).status, 400);
    let change = json!({"new_email": "alice@example.org"});
    let response =
        gateway.send("POST", "/auth/change", response.json()["access_token"].as_str(), Some(&change));
    assert_eq!(response.status, 200);
    let first = token_of(&mail.to("alice@example.org", 0));
    let change = json!({"new_email": "alice@example.net"});
    let response =
        gateway.send("POST", "/auth/change", response.json()["access_token"].as_str(), Some(&change));
    assert_eq!(response.status, 200);
    assert_eq!(gateway.post("/auth/email/verify", &json!({"token": first})).status, 400);
    let second = token_of(&mail.to("alice@example.net", 0));
    assert_eq!(gateway.post("/auth/email/verify", &json!({"token": second})).status, 200);
}

fn change(gateway: &Gateway, token: &serde_json::Value, what: &serde_json::Value) -> serde_json::Value {
    let response = gateway.send("POST", "/auth/change", token["access_token"].as_str(), Some(what));
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn me(gateway: &Gateway, token: &serde_json::Value) -> serde_json::Value {
    gateway.send("GET", "/auth/me", token["access_token"].as_str(), None).json()
}

#[test]
fn a_verified_address_goes_on_until_the_new_one_is_verified() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    let alice = verified(&gateway, &mail, "alice");
    let alice = change(&gateway, &alice, &json!({"new_email": "alice@example.org"}));
    let told = me(&gateway, &alice);
    assert_eq!(
        (&told["email"], &told["email_verified"], &told["pending_email"]),
        (&json!("alice@example.com"), &json!(true), &json!("alice@example.org"))
    );
    forgot(&gateway, "alice@example.org");
    forgot(&gateway, "alice@example.com");
    assert_eq!(mail.to("alice@example.com", 2)["subject"], "Reset your password");
    let link = token_of(&mail.to("alice@example.org", 0));
    assert_eq!(gateway.post("/auth/email/verify", &json!({"token": link})).status, 200);
    let told = me(&gateway, &alice);
    assert_eq!(
        (&told["email"], &told["email_verified"], &told["pending_email"]),
        (&json!("alice@example.org"), &json!(true), &json!(null))
    );
}

#[test]
fn the_old_address_is_told_of_a_changed_password_and_of_a_changed_address() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    let alice = verified(&gateway, &mail, "alice");
    let alice = change(&gateway, &alice, &json!({"new_password": NEW_PASSWORD}));
    let notice = mail.to("alice@example.com", 1);
    assert_eq!(notice["subject"], "Your password was changed");
    let text = notice["text"].as_str().unwrap();
    assert!(text.contains("Hello alice,") && !text.contains("://"), "{text}");
    change(&gateway, &alice, &json!({"new_email": "alice@example.org"}));
    let notice = mail.to("alice@example.com", 2);
    assert_eq!(notice["subject"], "Another e-mail address was given for your account");
    let text = notice["text"].as_str().unwrap();
    assert!(!text.contains("example.org") && !text.contains("://"), "{text}");
}

#[test]
fn a_recovered_account_drops_the_address_that_a_thief_put_there() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    let alice = verified(&gateway, &mail, "alice");
    change(&gateway, &alice, &json!({"new_email": "thief@example.org"}));
    let link = token_of(&mail.to("thief@example.org", 0));
    forgot(&gateway, "alice@example.com");
    let token = token_of(&mail.to("alice@example.com", 2));
    assert_eq!(reset(&gateway, &token).status, 200);
    assert_eq!(gateway.post("/auth/email/verify", &json!({"token": link})).status, 400);
    assert_eq!(mail.to("alice@example.com", 3)["subject"], "Your password was changed");
}

#[test]
fn an_account_gets_so_many_mails_an_hour_and_all_together_so_many() {
    let mail = MailServer::start("plain");
    let gateway = Gateway::alone(settings(&mail, "    max_per_hour: 4\n    max_per_hour_of_account: 2\n"));
    let mut alice = register(&gateway, "alice");
    for index in 0..3 {
        alice = change(&gateway, &alice, &json!({"new_email": format!("alice{index}@example.com")}));
    }
    for name in ["bob", "carol", "dave"] {
        register(&gateway, name);
    }
    eventually("carol has hers", || {
        mail.mails().iter().any(|mail| mail["to"][0] == "carol@example.com").then_some(())
    });
    let log = gateway.log();
    assert_eq!(log.matches("mail not queued").count(), 3, "{log}");
    assert!(mail.mails().iter().all(|mail| mail["to"][0] != "dave@example.com"));
}

#[test]
fn a_token_of_one_purpose_does_not_serve_the_other() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    register(&gateway, "alice");
    let token = token_of(&mail.mail(0));
    assert_eq!(reset(&gateway, &token).status, 400);
    assert_eq!(gateway.post("/auth/email/verify", &json!({"token": token})).status, 200);
}

#[test]
fn a_reset_does_not_enable_an_account() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    verified(&gateway, &mail, "alice");
    forgot(&gateway, "alice@example.com");
    let token = token_of(&mail.mail(1));
    gateway.run(&["user", "disable", "alice"], "");
    reset(&gateway, &token);
    assert_eq!(gateway.try_login("alice", NEW_PASSWORD).status, 401);
    assert_eq!(gateway.try_login("alice", PASSWORD).status, 401);
    assert_eq!(forgot(&gateway, "alice@example.com").status, 200);
    verified(&gateway, &mail, "bob");
    let resets = mail.mails().iter().filter(|mail| mail["subject"] == "Reset your password").count();
    assert_eq!(resets, 1, "a disabled account gets no link");
}

#[test]
fn a_mail_can_be_asked_for_again_but_not_without_end() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    let alice = register(&gateway, "alice");
    let token = alice["access_token"].as_str();
    for _ in 0..5 {
        assert_eq!(gateway.send("POST", "/auth/email/verify", token, Some(&json!({}))).status, 200);
    }
    mail.mail(2);
    verified(&gateway, &mail, "bob");
    assert_eq!(mail.mails().len(), 4, "three an hour to one account");
    let nobody = gateway.send("POST", "/auth/email/verify", None, Some(&json!({})));
    assert_eq!((nobody.status, nobody.message().as_str()), (400, "Missing parameters"));
}

#[test]
fn a_mail_server_that_is_down_slow_or_refuses_loses_no_mail_and_delays_no_request() {
    let mut mail = MailServer::start("plain");
    let gateway = Gateway::alone(settings_with(&mail, "60s", ""));
    mail.behave("stall");
    register(&gateway, "alice");
    eventually("the server has it and does not answer", || mail.is_stalling().then_some(()));
    assert!(mail.mails().is_empty(), "the registration was answered before the mail was taken");
    mail.behave("refuse");
    assert_eq!(mail.mail(0)["to"], json!(["alice@example.com"]), "slow, but taken");
    register(&gateway, "bob");
    eventually("it refuses", || gateway.log().contains("550").then_some(()));
    mail.stop();
    register(&gateway, "carol");
    let mail = mail.restart();
    let mut to: Vec<String> =
        (0..2).map(|index| mail.mail(index)["to"][0].as_str().unwrap().to_owned()).collect();
    to.sort();
    assert_eq!(to, ["bob@example.com", "carol@example.com"]);
}

#[test]
fn a_mail_that_is_refused_for_good_is_tried_three_times_over_an_hour_and_given_up() {
    let mut mail = MailServer::start("plain");
    mail.behave("refuse");
    let url = shared_database();
    let settings = Settings { store: format!("{{url: \"{url}\"}}"), ..settings(&mail, "") };
    let gateway = Gateway::alone(settings.auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n"));
    let tries = || gateway.log().matches("mail not sent").count();
    register(&gateway, "alice");
    eventually("it is tried twice within seconds", || (tries() == 2).then_some(()));
    let mut database = SqlSession::open(&url);
    let due = "SELECT round((next_attempt_at / 1000.0 - extract(epoch FROM now())) / 60) FROM mails";
    eventually("the third time is an hour later", || (database.run(due) == ["60"]).then_some(()));
    assert!(!gateway.log().contains("given up"));
    // The hour is over.
    database.run("UPDATE mails SET next_attempt_at = next_attempt_at - 3600000");
    eventually("it is given up", || gateway.log().contains("mail given up").then_some(()));
    // It is said before it is stored.
    let waiting = "SELECT count(*) FROM mails WHERE next_attempt_at IS NOT NULL";
    eventually("nothing waits any more", || (database.run(waiting) == ["0"]).then_some(()));
    assert_eq!(tries(), 3);
}

#[test]
fn a_queued_mail_survives_a_restart() {
    let mut mail = MailServer::start("plain");
    let mut first = gateway(&mail);
    mail.stop();
    register(&first, "alice");
    first.kill();
    let mail = mail.restart();
    let second = first.restart();
    let token = token_of(&mail.mail(0));
    assert_eq!(second.post("/auth/email/verify", &json!({"token": token})).status, 200);
}

#[test]
fn two_gateways_on_one_store_send_each_mail_once() {
    let mail = MailServer::start("plain");
    let url = shared_database();
    let settings = settings(&mail, "").auth("  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n");
    let settings = Settings { store: format!("{{url: \"{url}\"}}"), ..settings };
    let gateways = [Gateway::alone(settings.clone()), Gateway::alone(settings)];
    for index in 0..10 {
        register(&gateways[index % 2], &format!("user{index}"));
    }
    mail.mail(9);
    // A second round would come within the time that a gateway looks again.
    verified(&gateways[0], &mail, "last");
    let mut to: Vec<String> = mail.mails().iter().map(|mail| mail["to"].to_string()).collect();
    to.sort();
    let sent = to.len();
    to.dedup();
    assert_eq!((sent, to.len()), (11, 11));
}

#[test]
fn the_connection_is_encrypted_and_authenticated() {
    for encryption in ["starttls", "tls"] {
        let mail = MailServer::start(encryption);
        let (port, ca) = (mail.port, mail.folder.path().join("ca.pem"));
        let email = |ca: &str| {
            Settings::default().auth(&format!(
                "  email:\n    smtp: {{host: localhost, port: {port}, encryption: {encryption}, username: authgate, password: a password for the mail server, {ca}timeout: 2s}}\n    from: no-reply@example.com\n    base_url: https://app.example.com\n"
            ))
        };
        let gateway = Gateway::alone(email(&format!("ca: {}, ", ca.display())));
        register(&gateway, "alice");
        let sent = mail.mail(0);
        assert_eq!((&sent["tls"], &sent["user"]), (&json!(true), &json!("authgate")));
        // A certificate that nobody vouches for is no reason to go on without.
        let gateway = Gateway::alone(email(""));
        register(&gateway, "bob");
        eventually("it is refused", || gateway.log().contains("mail not sent").then_some(()));
        assert_eq!(mail.mails().len(), 1);
    }
}

#[test]
fn an_operators_own_texts_are_sent() {
    let mail = MailServer::start("plain");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("verify.txt"), "Subject: Moin\n\nMoin: {link} ({lifetime})\n").unwrap();
    let templates =
        format!("    templates: {}\n    verify_path: \"/moin#token={{token}}\"\n", folder.path().display());
    let gateway = Gateway::alone(settings(&mail, &templates));
    register(&gateway, "alice");
    let sent = mail.mail(0);
    assert_eq!(sent["subject"], "Moin");
    let text = sent["text"].as_str().unwrap();
    assert!(text.starts_with("Moin: https://app.example.com/moin#token="), "{text}");
    assert!(text.contains("(24 hours)"), "{text}");
}

#[test]
fn neither_tokens_nor_addresses_reach_the_log_or_the_queue() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    verified(&gateway, &mail, "alice");
    forgot(&gateway, "alice@example.com");
    let token = token_of(&mail.mail(1));
    reset(&gateway, &token);
    let log = gateway.log();
    assert!(!log.contains(&token) && !log.contains("alice@example.com"), "{log}");
    for file in ["authgate.db", "authgate.db-wal"] {
        let bytes = std::fs::read(gateway.folder.path().join(file)).unwrap_or_default();
        assert!(!bytes.windows(token.len()).any(|window| window == token.as_bytes()), "{file}");
    }
}

#[test]
fn without_a_mail_server_the_calls_say_so() {
    let gateway = Gateway::alone(Settings::default());
    register(&gateway, "alice");
    for (path, body) in [
        ("/auth/password/forgot", json!({"email": "alice@example.com"})),
        ("/auth/password/reset", json!({"token": "t", "new_password": NEW_PASSWORD})),
        ("/auth/email/verify", json!({"token": "t"})),
    ] {
        let response = gateway.post(path, &body);
        assert_eq!(
            (response.status, response.message().as_str()),
            (404, "Email is not configured"),
            "{path}"
        );
    }
}

#[test]
fn requests_for_mails_are_throttled_alike_for_known_and_unknown() {
    let mail = MailServer::start("plain");
    let port = mail.port;
    let gateway = Gateway::alone(Settings::default().auth(&format!(
        "  throttle: {{mails: {{requests: 2, per: 1m}}}}\n  email:\n    smtp: {{host: 127.0.0.1, port: {port}, encryption: none}}\n    from: a@example.com\n    base_url: https://app.example.com\n"
    )));
    let statuses: Vec<u16> = (0..3).map(|_| forgot(&gateway, "nobody@example.com").status).collect();
    assert_eq!(statuses, [200, 200, 429]);
}

#[test]
fn a_reset_that_was_sent_to_an_address_ends_with_it() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    let alice = verified(&gateway, &mail, "alice");
    forgot(&gateway, "alice@example.com");
    let token = token_of(&mail.mail(1));
    let change = json!({"new_email": "alice@example.org"});
    let response = gateway.send("POST", "/auth/change", alice["access_token"].as_str(), Some(&change));
    assert_eq!(response.status, 200);
    let link = token_of(&mail.to("alice@example.org", 0));
    assert_eq!(gateway.post("/auth/email/verify", &json!({"token": link})).status, 200);
    assert_eq!(reset(&gateway, &token).status, 400);
}

#[test]
fn nobody_fills_a_mailbox_by_registering_with_its_address() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    for index in 0..13 {
        let victim = if index % 2 == 0 { "victim@example.com" } else { "Victim@Example.com" };
        let body = json!({"username": format!("user{index}"), "password": PASSWORD, "email": victim});
        assert_eq!(gateway.post("/auth/register", &body).status, 201);
    }
    register(&gateway, "other");
    eventually("the other mail arrives", || {
        mail.mails().iter().any(|mail| mail["to"][0] == "other@example.com").then_some(())
    });
    eventually("ten are sent", || (mail.mails().len() == 11).then_some(()));
}

#[test]
fn a_mail_whose_address_has_changed_meanwhile_is_not_sent() {
    let mut mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    mail.behave("refuse");
    let alice = register(&gateway, "alice");
    eventually("it is refused", || gateway.log().contains("mail not sent").then_some(()));
    let change = json!({"new_email": "alice@example.org"});
    gateway.send("POST", "/auth/change", alice["access_token"].as_str(), Some(&change));
    mail.behave("accept");
    assert_eq!(mail.mail(0)["to"], json!(["alice@example.org"]));
    verified(&gateway, &mail, "bob");
    assert_eq!(mail.mails().len(), 2, "the first has nobody to go to");
    assert!(!gateway.log().contains("not here"), "the server's words stay out of the log");
}

#[test]
fn a_verified_address_is_taken_to_log_in_where_the_config_says_so() {
    for url in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let mail = MailServer::start("plain");
        let with = |by: &str| {
            let more = format!("  login: {{by: {by}}}\n  master_key: tests-share-Hq7vK2xR9mB4wZ8nD5cF\n");
            let own = settings(&mail, &more);
            Gateway::alone(Settings { store: format!("{{url: \"{url}\"}}"), ..own })
        };
        let gateway = with("[username, email]");
        verified(&gateway, &mail, "alice");
        let user_id = |response: Response| response.json()["user_id"].clone();
        let by_name = user_id(gateway.try_login("alice", PASSWORD));
        assert_eq!(user_id(gateway.try_login("Alice@Example.com", PASSWORD)), by_name);
        assert_eq!(gateway.try_login("alice@example.com", NEW_PASSWORD).status, 401);
        // One that was not verified, and one that nobody has.
        register(&gateway, "bob");
        for address in ["bob@example.com", "carol@example.com", "@", "alice@"] {
            let response = gateway.try_login(address, PASSWORD);
            assert_eq!(
                (response.status, response.message().as_str()),
                (401, "Invalid credentials"),
                "{address}"
            );
        }
        // Whoever has an address for a name does not stand in its holder's way.
        gateway.run(&["user", "add", "alice@example.com", "--password-stdin"], "yet another long password");
        assert_eq!(user_id(gateway.try_login("alice@example.com", PASSWORD)), by_name);
        assert_eq!(gateway.try_login("alice@example.com", "yet another long password").status, 401);
        if url.starts_with("sqlite") {
            continue;
        }
        // Other gateways on the same store.
        let gateway = with("[email]");
        assert_eq!(gateway.try_login("alice", PASSWORD).status, 401);
        assert_eq!(user_id(gateway.try_login("alice@example.com", PASSWORD)), by_name);
        let gateway = with("[username]");
        assert_eq!(gateway.try_login("alice@example.com", PASSWORD).status, 401);
    }
}

#[test]
fn whoever_makes_an_api_key_of_somebody_they_are_told() {
    let mail = MailServer::start("plain");
    let gateway = gateway(&mail);
    let alice = verified(&gateway, &mail, "alice");
    let bob = register(&gateway, "bob");
    mail.mail(1);
    let make = |token: &Value| {
        let made = gateway.send("POST", "/auth/keys", token.as_str(), Some(&json!({"name": "backup"})));
        assert_eq!(made.status, 201, "{made:?}");
    };
    // Bob's address might be anybody's.
    make(&bob["access_token"]);
    make(&alice["access_token"]);
    let told = mail.mail(2);
    assert_eq!(told["to"], json!(["alice@example.com"]));
    assert_eq!(told["subject"], "An API key of your account was made");
    gateway.run(&["api-key", "add", "alice", "--name", "of an operator"], "");
    assert_eq!(mail.mail(3)["to"], json!(["alice@example.com"]));
    assert_eq!(mail.mails().len(), 4);
}
