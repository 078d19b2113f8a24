//! What tokens and upstreams are told of accounts beside names and roles.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::harness::{
    Cluster, Faketime, Gateway, MailServer, PASSWORD, Response, Settings, Upstream,
    browser::{Browser, only_form, with_pages},
    claims_of, errors_of, eventually,
    fleet::{self, access},
    shared_database, token_of,
};

const CLAIMS: &str = "\
attributes:
  team: {by: operator, max: 16}
  city: {by: person}
claims:
  email: {from: email, token: email, header: X-User-Email}
  verified: {from: email_verified, token: email_verified, header: X-Email-Verified}
  team: {from: attributes.team, header: X-Team}
  city: {from: attributes.city, token: city}
";

fn settings() -> Settings {
    Settings::default().extra(CLAIMS)
}

fn register(gateway: &Gateway, name: &str) -> Value {
    let body = json!({"username": name, "password": PASSWORD, "email": format!("{name}@example.com")});
    let response = gateway.post("/auth/register", &body);
    assert_eq!(response.status, 201, "{response:?}");
    response.json()
}

/// What the upstream is told of a caller by a header.
#[track_caller]
fn told(gateway: &Gateway, upstream: &Upstream, token: &str, header: &str) -> Option<String> {
    let response = gateway.get("/api/x", Some(token));
    assert_eq!(response.status, 200, "{response:?}");
    upstream.seen().pop().unwrap().header(header).map(str::to_owned)
}

#[track_caller]
fn change(gateway: &Gateway, token: &str, attributes: Value) -> Response {
    gateway.send("PATCH", "/auth/me", Some(token), Some(&json!({"attributes": attributes})))
}

#[test]
fn an_upstream_is_told_what_the_config_declares_and_nothing_that_a_client_says() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings());
    let alice = register(&gateway, "alice");
    let claims = claims_of(access(&alice));
    assert_eq!((&claims["email"], &claims["email_verified"]), (&json!("alice@example.com"), &json!(false)));
    assert_eq!((claims.get("team"), claims.get("city")), (None, None));
    for path in ["/api/x", "/public/x", "/optional/x"] {
        let lines = "X-User-Email: root@example.com\r\nx_team: root\r\nX.Email.Verified: true\r\n";
        let token = access(&alice);
        let authorization =
            if path == "/api/x" { format!("Authorization: Bearer {token}\r\n") } else { String::new() };
        let text = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{authorization}{lines}\r\n");
        assert_eq!(gateway.client().send(text).response().status, 200, "{path}");
        let seen = upstream.seen().pop().unwrap();
        let emails: Vec<_> =
            seen.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("x-user-email")).collect();
        if path == "/api/x" {
            assert_eq!((emails.len(), emails[0].1.as_str()), (1, "alice@example.com"));
            assert_eq!(seen.header("x-email-verified"), Some("false"));
        } else {
            assert!(emails.is_empty() && seen.header("x-email-verified").is_none(), "{path}: {seen:?}");
        }
        assert!(seen.header("x-team").is_none() && seen.header("x_team").is_none(), "{path}: {seen:?}");
        assert!(seen.header("x.email.verified").is_none(), "{path}");
    }
    // Of somebody without an address nothing is said.
    let bob = gateway.token("bob");
    assert_eq!(told(&gateway, &upstream, &bob, "x-user-email"), None);
    assert_eq!(told(&gateway, &upstream, &bob, "x-email-verified"), None);
    assert_eq!(claims_of(&bob).get("email_verified"), None);
}

#[test]
fn an_operator_sets_attributes_and_what_said_the_old_ones_has_ended() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings());
    let alice = register(&gateway, "alice");
    let said = gateway.run(&["user", "set-attributes", "alice", "team=K\u{f6}ln 1", "city=Bonn"], "");
    assert!(said.contains("sessions have ended"), "{said}");
    // It is read by the follower of a gateway, which was not told by its own call.
    eventually("the old token has ended", || {
        (gateway.get("/api/x", Some(access(&alice))).status == 401).then_some(())
    });
    assert!(gateway.run(&["user", "show", "alice"], "").contains("city=Bonn, team=K\u{f6}ln 1"));
    let token = access(&gateway.login("alice")).to_owned();
    assert_eq!(told(&gateway, &upstream, &token, "x-team").as_deref(), Some("K%C3%B6ln%201"));
    let claims = claims_of(&token);
    assert_eq!((&claims["city"], claims.get("team")), (&json!("Bonn"), None));
    // Refreshed ones say the same.
    let refreshed = gateway.refresh(fleet::refresh(&gateway.login("alice"))).json();
    assert_eq!(told(&gateway, &upstream, access(&refreshed), "x-team").as_deref(), Some("K%C3%B6ln%201"));

    let root = gateway.admin_token("root");
    let path = format!("/api/users/{}", fleet::user_id(&alice));
    let patch = |attributes: Value| {
        let body = json!({"attributes": attributes});
        gateway.admin("PATCH", &path, Some(&root), Some(&body))
    };
    let changed = patch(json!({"team": "red", "city": null}));
    assert_eq!(
        (changed.status, &changed.json()["attributes"]),
        (200, &json!({"team": "red"})),
        "{changed:?}"
    );
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 401);
    let token = access(&gateway.login("alice")).to_owned();
    assert_eq!(told(&gateway, &upstream, &token, "x-team").as_deref(), Some("red"));
    for attributes in
        [json!({"size": "1"}), json!({"team": "x".repeat(17)}), json!({"team": "a\nb"}), json!({"team": ""})]
    {
        assert_eq!(patch(attributes.clone()).status, 400, "{attributes}");
    }
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200, "nothing has changed");
    let new = json!({"username": "carol", "password": PASSWORD, "attributes": {"team": "blue"}});
    assert_eq!(gateway.admin("POST", "/api/users", Some(&root), Some(&new)).status, 201);
    assert_eq!(told(&gateway, &upstream, access(&gateway.login("carol")), "x-team").as_deref(), Some("blue"));
    let exported = gateway.admin("GET", &format!("{path}/export"), Some(&root), None).json();
    assert_eq!(exported["account"]["attributes"], json!({"team": "red"}));
    let trail = gateway.run(&["audit"], "");
    assert!(trail.contains("attributes: city,team") && !trail.contains("Bonn"), "{trail}");
}

#[test]
fn people_set_what_is_declared_as_theirs_and_nothing_else() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings());
    let alice = register(&gateway, "alice");
    let other = access(&gateway.login("alice")).to_owned();
    let changed = change(&gateway, access(&alice), json!({"city": "K\u{f6}ln"}));
    assert_eq!(changed.status, 200, "{changed:?}");
    let changed = changed.json();
    assert_eq!(claims_of(access(&changed))["city"], "K\u{f6}ln");
    assert_eq!(
        gateway.get("/auth/me", Some(access(&changed))).json()["attributes"],
        json!({"city": "K\u{f6}ln"})
    );
    // As with every change of what tokens say.
    assert_eq!(gateway.get("/api/x", Some(access(&alice))).status, 401);
    assert_eq!(gateway.get("/api/x", Some(&other)).status, 401);
    let token = access(&changed);
    for (attributes, status) in [
        (json!({"team": "red"}), 403),
        (json!({"team": null}), 403),
        (json!({"city": "Bonn", "team": "red"}), 403),
        (json!({"size": "1"}), 400),
        (json!({"city": "x".repeat(65)}), 400),
        (json!({"city": "a\r\nX-Team: red"}), 400),
        (json!({"city": "a\u{0}"}), 400),
        (json!({"city": " a"}), 400),
        (json!({"city": 1}), 400),
        (json!("city"), 400),
        (json!({}), 400),
    ] {
        let response = change(&gateway, token, attributes.clone());
        assert_eq!(response.status, status, "{attributes}: {response:?}");
    }
    assert_eq!(gateway.get("/api/x", Some(token)).status, 200);
    let removed = change(&gateway, token, json!({"city": null})).json();
    assert_eq!(claims_of(access(&removed)).get("city"), None);
    assert_eq!(gateway.get("/auth/me", Some(access(&removed))).json()["attributes"], json!({}));
}

#[test]
fn people_say_of_themselves_on_the_page_of_their_name_what_is_theirs_to_say() {
    let upstream = Upstream::start();
    let extra = format!("{}{CLAIMS}", with_pages(""));
    let gateway = Gateway::start(&upstream, Settings { extra, ..Settings::default() });
    let mut alice = Browser::register(&gateway, "alice");
    let page = alice.go(&gateway, "/auth/ui/account/name");
    assert!(page.text().contains("attribute.city") && !page.text().contains("attribute.team"), "{page:?}");
    let form = only_form(&page);
    let wrong = [("username", "alice"), ("attribute.city", &*"x".repeat(65))];
    assert_eq!(alice.submit(&gateway, &form, &wrong).status, 400);
    let fields = [("username", "alice"), ("attribute.city", "K\u{f6}ln <b>"), ("attribute.team", "red")];
    let saved = alice.submit(&gateway, &form, &fields);
    assert_eq!(
        (saved.status, saved.header("location")),
        (303, Some("/auth/ui/account?done=profile")),
        "{saved:?}"
    );
    assert_eq!(claims_of(alice.session().unwrap())["city"], "K\u{f6}ln <b>");
    let page = alice.go(&gateway, "/auth/ui/account/name");
    assert!(page.text().contains("K\u{f6}ln &lt;b&gt;") && !page.text().contains("<b>"), "{page:?}");
    assert!(!gateway.run(&["user", "show", "alice"], "").contains("team"));
    let form = only_form(&page);
    let renamed = alice.submit(&gateway, &form, &[("username", "alicia"), ("attribute.city", "")]);
    assert_eq!(renamed.header("location"), Some("/auth/ui/account?done=name"), "{renamed:?}");
    assert!(gateway.run(&["user", "show", "alicia"], "").contains("attributes      none"));
}

#[test]
fn a_key_says_what_its_owner_is_now_on_every_gateway() {
    let (upstream, other) = (Upstream::start(), Upstream::start());
    let url = shared_database();
    let here = Gateway::start(&upstream, fleet::settings(&url).extra(CLAIMS));
    let there = Gateway::start(&other, fleet::settings(&url).extra(CLAIMS));
    let alice = register(&here, "alice");
    let made = here.send("POST", "/auth/keys", Some(access(&alice)), Some(&json!({"name": "script"})));
    let key = made.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(told(&here, &upstream, &key, "x-user-email").as_deref(), Some("alice@example.com"));
    assert_eq!(told(&here, &upstream, &key, "x-team"), None);
    let root = here.admin_token("root");
    let path = format!("/api/users/{}", fleet::user_id(&alice));
    let set = |team: &str| {
        let body = json!({"attributes": {"team": team}});
        let response = here.admin("PATCH", &path, Some(&root), Some(&body));
        assert_eq!(response.status, 200, "{response:?}");
    };
    for team in ["red", "blue"] {
        set(team);
        // Here at once; there with the log, and never more than what was before or what is now.
        assert_eq!(told(&here, &upstream, &key, "x-team").as_deref(), Some(team));
        eventually("the other gateway has read it", || {
            (there.get("/api/x", Some(&key)).status == 200).then_some(())?;
            (other.seen().pop()?.header("x-team") == Some(team)).then_some(())
        });
    }
    let address = json!({"new_email": "a@example.net", "current_password": PASSWORD});
    let token = access(&here.login("alice")).to_owned();
    assert_eq!(here.send("PATCH", "/auth/me", Some(&token), Some(&address)).status, 200);
    assert_eq!(told(&here, &upstream, &key, "x-user-email").as_deref(), Some("a@example.net"));
}

/// Lines for `auth` by which addresses are verified.
fn by_mail(mail: &MailServer) -> String {
    let port = mail.port;
    format!("  email: {{smtp: {{host: 127.0.0.1, port: {port}, encryption: none}}, from: a@example.com}}\n")
}

#[test]
fn a_verified_address_is_told_by_the_next_token_the_next_cookie_and_at_once_by_a_key() {
    let mail = MailServer::start("plain");
    let upstream = Upstream::start();
    let email = by_mail(&mail);
    let extra = format!("{}{CLAIMS}", with_pages("cookies: {idle: 4s, ttl: 60s}\n"));
    let gateway = Gateway::start(&upstream, Settings { extra, ..Settings::default() }.auth(&email));
    let alice = register(&gateway, "alice");
    let verified = |token: &str| told(&gateway, &upstream, token, "x-email-verified");
    let made = gateway.send("POST", "/auth/keys", Some(access(&alice)), Some(&json!({"name": "script"})));
    let key = made.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(verified(&key).as_deref(), Some("false"));
    let mut browser = Browser::sign_in(&gateway, "alice");
    assert_eq!(browser.fetch(&gateway, "GET", "/api/x").status, 200);
    assert_eq!(upstream.seen().pop().unwrap().header("x-email-verified"), Some("false"));
    let token = json!({"token": token_of(&mail.mail(0))});
    assert_eq!(gateway.post("/auth/email/verify", &token).status, 200);
    assert_eq!(verified(&key).as_deref(), Some("true"));
    // A token says what was so when it was made; nobody is signed out.
    assert_eq!(verified(access(&alice)).as_deref(), Some("false"));
    let refreshed = gateway.refresh(fleet::refresh(&alice)).json();
    assert_eq!(verified(access(&refreshed)).as_deref(), Some("true"));
    eventually("the cookie is signed anew and says so", || {
        assert_eq!(browser.fetch(&gateway, "GET", "/api/x").status, 200);
        (upstream.seen().pop()?.header("x-email-verified") == Some("true")).then_some(())
    });
}

#[test]
fn other_proxies_are_told_the_same() {
    let upstream = Upstream::start();
    let extra = format!("trusted_proxies: [127.0.0.0/8]\n{CLAIMS}");
    let gateway = Gateway::start(&upstream, Settings { extra, ..Settings::default() });
    let alice = register(&gateway, "alice");
    let ask = |authorization: &str| {
        let lines = "X-Forwarded-Method: GET\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: localhost\r\nX-Forwarded-Uri: /optional/x\r\n";
        let text = format!("GET /auth/verify HTTP/1.1\r\nHost: localhost\r\n{lines}{authorization}\r\n");
        let response = gateway.client().send(text).response();
        assert_eq!(response.status, 200, "{response:?}");
        response
    };
    let response = ask(&format!("Authorization: Bearer {}\r\n", access(&alice)));
    assert_eq!(response.header("x-user-email"), Some("alice@example.com"));
    // Whoever copies them overwrites what a client said.
    assert_eq!((response.header("x-team"), ask("").header("x-user-email")), (Some(""), Some("")));
}

#[test]
fn a_reload_takes_up_claims_and_attributes() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let root = gateway.admin_token("root");
    let alice = register(&gateway, "alice");
    let made = gateway.send("POST", "/auth/keys", Some(access(&alice)), Some(&json!({"name": "script"})));
    let key = made.json()["key"].as_str().unwrap().to_owned();
    assert_eq!(told(&gateway, &upstream, &key, "x-user-email"), None);
    assert_eq!(gateway.reload(&root, &settings()).status, 200);
    // A token from before says nothing of it; a key does, and the next token.
    assert_eq!(told(&gateway, &upstream, access(&alice), "x-user-email"), None);
    eventually("the key's owner is read again", || {
        (told(&gateway, &upstream, &key, "x-user-email").as_deref() == Some("alice@example.com"))
            .then_some(())
    });
    let refreshed = gateway.refresh(fleet::refresh(&alice)).json();
    assert_eq!(
        told(&gateway, &upstream, access(&refreshed), "x-user-email").as_deref(),
        Some("alice@example.com")
    );
    assert_eq!(gateway.reload(&root, &Settings::default()).status, 200);
    assert_eq!(told(&gateway, &upstream, access(&refreshed), "x-user-email"), None);
    assert_eq!(told(&gateway, &upstream, &key, "x-user-email"), None);
}

#[test]
fn a_token_says_nothing_by_rules_that_came_later() {
    let upstream = Upstream::start();
    let by = |from: &str| {
        Settings::default().extra(&format!("claims: {{mail: {{from: {from}, header: X-User-Email}}}}\n"))
    };
    let gateway = Gateway::start(&upstream, by("email"));
    let root = gateway.admin_token("root");
    let alice = register(&gateway, "alice");
    let token = access(&alice);
    assert_eq!(told(&gateway, &upstream, token, "x-user-email").as_deref(), Some("alice@example.com"));
    // What the name means by now is another thing.
    assert_eq!(gateway.reload(&root, &by("verified_email")).status, 200);
    assert_eq!(told(&gateway, &upstream, token, "x-user-email"), None);
    let refreshed = gateway.refresh(fleet::refresh(&alice)).json();
    assert_eq!(told(&gateway, &upstream, access(&refreshed), "x-user-email"), None, "it is not verified");
    assert_eq!(gateway.reload(&root, &by("email")).status, 200);
    assert_eq!(told(&gateway, &upstream, token, "x-user-email").as_deref(), Some("alice@example.com"));
}

#[test]
fn a_cookie_that_is_signed_anew_brings_back_nothing_that_an_operator_has_taken_away() {
    let upstream = Upstream::start();
    let extra = format!("{}{CLAIMS}", with_pages("cookies: {idle: 4s, ttl: 60s}\n"));
    let gateway = Gateway::start(&upstream, Settings { extra, ..Settings::default() });
    gateway.register("alice");
    gateway.run(&["user", "set-attributes", "alice", "team=red"], "");
    let mut before = Browser::sign_in(&gateway, "alice");
    let first = before.session().unwrap().to_owned();
    eventually("the cookie is signed anew, by what was read for it", || {
        assert_eq!(before.fetch(&gateway, "GET", "/api/x").status, 200);
        (before.session() != Some(first.as_str())).then_some(())
    });
    assert_eq!(upstream.seen().pop().unwrap().header("x-team"), Some("red"));
    gateway.run(&["user", "set-attributes", "alice", "team="], "");
    let mut after = Browser::sign_in(&gateway, "alice");
    let first = after.session().unwrap().to_owned();
    eventually("the cookie is signed anew", || {
        assert_eq!(after.fetch(&gateway, "GET", "/api/x").status, 200);
        assert_eq!(upstream.seen().pop()?.header("x-team"), None);
        (after.session() != Some(first.as_str())).then_some(())
    });
    assert_eq!(after.fetch(&gateway, "GET", "/api/x").status, 200);
    assert_eq!(upstream.seen().pop().unwrap().header("x-team"), None);
}

/// A way in which a browser shows its cookie.
type Way = fn(&mut Browser, &Gateway) -> Response;

const WAYS: [Way; 4] = [
    |browser, gateway| browser.fetch(gateway, "GET", "/api/x"),
    |browser, gateway| browser.fetch(gateway, "GET", "/auth/me"),
    |browser, gateway| browser.go(gateway, "/auth/ui/account"),
    |browser, gateway| {
        let told = [
            "X-Forwarded-Method: GET",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: app.example.com",
            "X-Forwarded-Uri: /api/x",
        ];
        browser.send(gateway, "GET", "/auth/verify", &told, "")
    },
];

#[test]
fn one_request_late_in_a_cookies_life_is_enough_for_one_that_says_what_is_true_by_then() {
    let (mail, upstream) = (MailServer::start("plain"), Upstream::start());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let time = Faketime::new(folder.path());
    let extra =
        format!("trusted_proxies: [127.0.0.0/8]\n{}{CLAIMS}", with_pages("cookies: {idle: 1h, ttl: 1d}\n"));
    let mut settings = Settings { extra, ..Settings::default() }.auth(&by_mail(&mail));
    settings.env.extend(time.env());
    let gateway = Gateway::start_in(folder, upstream.address, settings);
    register(&gateway, "alice");
    let sign_in = || WAYS.map(|way| (way, Browser::sign_in(&gateway, "alice")));
    let (past_half, at_the_end) = (sign_in(), sign_in());
    let token = json!({"token": token_of(&mail.mail(0))});
    assert_eq!(gateway.post("/auth/email/verify", &token).status, 200);
    for (minutes, browsers) in [(35, past_half), (58, at_the_end)] {
        time.set(&format!("+{minutes}m"));
        eventually("it is ready", || (gateway.admin_get("/readyz").status == 200).then_some(()));
        for (number, (way, mut browser)) in browsers.into_iter().enumerate() {
            let before = browser.session().unwrap().to_owned();
            let response = way(&mut browser, &gateway);
            assert_eq!(response.status, 200, "{minutes}, way {number}: {response:?}");
            assert_ne!(browser.session(), Some(before.as_str()), "{minutes}, way {number}: {response:?}");
            assert_eq!(browser.fetch(&gateway, "GET", "/api/x").status, 200);
            assert_eq!(upstream.seen().pop().unwrap().header("x-email-verified"), Some("true"));
        }
    }
}

#[test]
fn while_the_database_is_away_a_cookie_is_signed_anew_by_what_it_says_once_it_nears_its_end() {
    let mut cluster = Cluster::start();
    let (upstream, folder) = (Upstream::start(), Arc::new(tempfile::tempdir().unwrap()));
    let time = Faketime::new(folder.path());
    let extra = format!("{}{CLAIMS}", with_pages("cookies: {idle: 1h, ttl: 1d}\n"));
    let routes = "  - {path: /api/**, on_stale: allow, upstream: backend}\n";
    let mut settings = Settings {
        extra,
        store: format!("{{url: \"{}\", timeout: 1s}}", cluster.database()),
        ..Settings::routes(routes)
    };
    settings.env.extend(time.env());
    let gateway = Gateway::start_in(folder, upstream.address, settings);
    gateway.register("alice");
    let mut browser = Browser::sign_in(&gateway, "alice");
    let before = browser.session().unwrap().to_owned();
    cluster.kill();
    for (minutes, is_signed) in [(35, false), (50, true)] {
        time.set(&format!("+{minutes}m"));
        assert_eq!(browser.fetch(&gateway, "GET", "/api/x").status, 200);
        assert_eq!(browser.session() != Some(before.as_str()), is_signed, "{minutes}");
    }
}

#[test]
fn a_claim_that_means_something_already_or_comes_from_nowhere_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    const HEAD: &str =
        "listeners: [{address: \"127.0.0.1:0\"}]\nauth: {issuer: https://i.example, audience: a}\n";
    for (lines, parts) in [
        ("claims: {a: {from: email, token: roles}}", &["claims.a.token", "`roles`", "meaning"][..]),
        ("claims: {a: {from: email, token: sub}}", &["claims.a.token", "meaning"]),
        ("claims: {a: {from: email, token: headers}}", &["claims.a.token", "meaning"]),
        ("claims: {a: {from: email, token: claims}}", &["claims.a.token", "meaning"]),
        ("claims: {a: {from: email, header: Host}}", &["claims.a.header", "meaning"]),
        ("claims: {a: {from: email, header: X-User-Id}}", &["claims.a.header", "who is calling"]),
        ("claims: {a: {from: email, header: x_team}}", &["claims.a.header", "letters, digits and `-`"]),
        (
            "claims: {a: {from: email, header: X-A}, b: {from: id, header: x-a}}",
            &["claims.b.header", "another claim"],
        ),
        ("claims: {a: {from: email, token: e}, b: {from: id, token: e}}", &["claims.b.token", "another"]),
        ("claims: {a: {from: email}}", &["claims.a", "`token`, `header`"]),
        ("claims: {a: {from: password, token: p}}", &["claims.a.from", "`password`", "attributes.NAME"]),
        // All that is wrong with one.
        (
            "claims: {a: {from: no, token: sub, header: Host}}",
            &["claims.a.from", "claims.a.token", "claims.a.header"],
        ),
        ("claims: {a: {from: attributes.team, token: t}}", &["claims.a.from", "no `team`"]),
        ("claims: {A b: {from: email, token: t}}", &["claims.A b", "lower-case"]),
        ("attributes: {team: {by: anybody}}", &["attributes.team.by", "operator"]),
        ("attributes: {team: {max: 257}}", &["attributes.team.max", "257", "256"]),
        ("attributes: {Team: {}}", &["attributes.Team", "lower-case"]),
        (
            "claims: {a: {from: email, header: X-A}}\nroutes: [{path: /a, auth: none, respond: {status: 200, json: {}}, headers: {request: {set: {X-A: b}}}}]",
            &["routes[0].headers", "who is calling"],
        ),
    ] {
        let errors = errors_of(folder.path(), &format!("{HEAD}{lines}\n"));
        for part in parts {
            assert!(errors.contains(part), "{part:?} is not in: {errors}");
        }
    }
    let many: String = (0..5).map(|n| format!("a{n}: {{max: 256}}, ")).collect();
    let claims: String = (0..5).map(|n| format!("a{n}: {{from: attributes.a{n}, token: a{n}}}, ")).collect();
    let errors = errors_of(folder.path(), &format!("{HEAD}attributes: {{{many}}}\nclaims: {{{claims}}}\n"));
    assert!(errors.contains("1024 bytes together"), "{errors}");
}
