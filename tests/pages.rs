//! People with browsers: the way to sign-in and back, cookies, forms, the account's pages.

use crate::harness::{
    Gateway, MailServer, PASSWORD, Response, Settings, Upstream,
    browser::{Browser, Form, ORIGIN, forms, only_form, with_pages},
    claims_of, eventually, forge, header_of, port_to_keep, shared_database, token_of,
};

const NEW_PASSWORD: &str = "another password for the tests";

fn settings() -> Settings {
    Settings::default().extra(&with_pages("")).auth(
        "  throttle: {registrations: {requests: 1000, per: 1m}}\n  password: {argon2: {memory: 64KiB, iterations: 1}}\n",
    )
}

fn start() -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&upstream, settings()), upstream)
}

#[track_caller]
fn location(response: &Response) -> &str {
    assert_eq!(response.status, 303, "{response:?}");
    assert_eq!(response.header("cache-control"), Some("no-store"));
    response.header("location").unwrap()
}

#[track_caller]
fn is_page(response: &Response, status: u16) {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!(response.header("referrer-policy"), Some("same-origin"));
    let policy = response.header("content-security-policy").unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
}

#[test]
fn a_navigation_leads_to_sign_in_and_back_and_a_call_is_refused() {
    let (gateway, upstream) = start();
    Browser::register(&gateway, "alice");
    let mut browser = Browser::default();
    let refused = browser.go(&gateway, "/api/orders?page=2&x=%2Fa");
    let login = location(&refused).to_owned();
    assert!(login.starts_with("/auth/ui/login?return_to="), "{login}");
    assert_eq!(browser.fetch(&gateway, "GET", "/api/orders").status, 401);
    // Older browsers say what they want to see.
    let older = browser.send(&gateway, "GET", "/api/x", &["Accept: text/html,*/*;q=0.8"], "");
    assert_eq!(older.status, 303);
    assert_eq!(browser.send(&gateway, "GET", "/api/x", &["Accept: application/json"], "").status, 401);
    assert_eq!(browser.send(&gateway, "POST", "/api/x", &["Sec-Fetch-Mode: navigate"], "").status, 401);

    let page = browser.go(&gateway, &login);
    is_page(&page, 200);
    // A wrong password shows the form again, and still knows where to go.
    let form = only_form(&page);
    let wrong = browser.submit(&gateway, &form, &[("username", "alice"), ("password", "wrong")]);
    is_page(&wrong, 401);
    assert!(wrong.text().contains("Username or password is wrong") && browser.session().is_none());
    let form = only_form(&wrong);
    let response = browser.submit(&gateway, &form, &[("username", "alice"), ("password", PASSWORD)]);
    assert_eq!(location(&response), "/api/orders?page=2&x=%2Fa");

    assert_eq!(browser.go(&gateway, "/api/orders?page=2&x=%2Fa").status, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("x-user-name"), Some("alice"));
    assert_eq!((seen.header("cookie"), seen.header("authorization")), (None, None));
    // The way back is in the one form that is taken.
    let mut stranger = Browser::default();
    assert_eq!(
        location(&stranger.go(&gateway, "/api/%c3%bc?a=\\")),
        "/auth/ui/login?return_to=%2Fapi%2F%25C3%25BC%3Fa%3D%255C"
    );
    // Signed in, and still not everybody's.
    let denied = browser.go(&gateway, "/admin/x");
    is_page(&denied, 403);
    assert_eq!(
        browser.fetch(&gateway, "GET", "/admin/x").header("content-type"),
        Some("application/problem+json")
    );
}

#[test]
fn a_page_about_a_refusal_has_the_status_that_old_clients_want() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings().auth("  compat: {unauthenticated: 403}\n"));
    let mut client = gateway.client();
    client.send(
        "GET /api/x HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer x\r\nSec-Fetch-Mode: navigate\r\n\r\n",
    );
    is_page(&client.response(), 403);
}

#[test]
fn a_session_of_a_browser_ends_with_the_longest_one_there_may_be() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings().auth("  session_max_ttl: 3s\n"));
    let mut browser = Browser::register(&gateway, "alice");
    assert_eq!(browser.fetch(&gateway, "GET", "/api/x").status, 200);
    eventually("it ends", || (browser.fetch(&gateway, "GET", "/api/x").status == 401).then_some(()));
}

#[test]
fn registration_by_page_signs_in_and_goes_where_the_person_was_going() {
    let (gateway, _upstream) = start();
    let mut browser = Browser::default();
    let login = location(&browser.go(&gateway, "/api/a")).to_owned();
    let page = browser.go(&gateway, &login);
    assert!(page.text().contains("/auth/ui/register?return_to=%2Fapi%2Fa"), "{}", page.text());
    let form = only_form(&browser.go(&gateway, "/auth/ui/register?return_to=%2Fapi%2Fa"));
    let short = browser.submit(&gateway, &form, &[("username", "bob"), ("password", "short")]);
    is_page(&short, 400);
    assert!(short.text().contains("at least 15 characters"), "{}", short.text());
    let form = only_form(&short);
    let response = browser.submit(&gateway, &form, &[("username", "bob"), ("password", PASSWORD)]);
    assert_eq!(location(&response), "/api/a");
    assert_eq!(browser.go(&gateway, "/api/a").status, 200);
    let form = only_form(&browser.go(&gateway, "/auth/ui/register"));
    let taken = browser.submit(&gateway, &form, &[("username", "BOB"), ("password", PASSWORD)]);
    is_page(&taken, 409);
}

#[test]
fn nobody_is_led_elsewhere_after_sign_in() {
    let (gateway, _upstream) = start();
    Browser::register(&gateway, "alice");
    for (return_to, expected) in [
        ("/api/x", "/api/x"),
        ("/auth/ui/account/sessions", "/auth/ui/account/sessions"),
        ("/nowhere", "/"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/api/\\..\\x", "/"),
        ("https://evil.example/api/x", "/"),
        ("https://app.example.com/api/x", "/"),
        ("javascript:alert(1)", "/"),
        ("/api/%2e%2e/x", "/"),
        ("/api//x", "/"),
        ("/api/x#y", "/"),
        ("/api/x\r\nSet-Cookie: a=b", "/"),
        ("/auth/ui/login", "/"),
        ("/auth/logout", "/"),
        ("/auth/ui/account/nothing", "/"),
        ("", "/"),
    ] {
        let mut browser = Browser::default();
        let mut form = only_form(&browser.go(&gateway, "/auth/ui/login"));
        form.hidden.push(("return_to".to_owned(), return_to.to_owned()));
        let response = browser.submit(&gateway, &form, &[("username", "alice"), ("password", PASSWORD)]);
        assert_eq!(location(&response), expected, "{return_to:?}");
    }
}

#[test]
fn sign_out_ends_the_session_everywhere_and_in_the_other_tab() {
    let database = shared_database();
    let upstream = Upstream::start();
    let shared = || {
        let Settings { auth, extra, .. } = settings();
        let key = "  master_key: a master key of the tests, kX9vQ2mZ7rT4wB8nL1pC6dF3hJ5\n";
        Settings { extra, ..Settings::postgres(&database) }.auth(&auth).auth(key)
    };
    let (one, other) = (Gateway::start(&upstream, shared()), Gateway::start(&upstream, shared()));
    let mut browser = Browser::register(&one, "alice");
    let mut tab = browser.clone();
    eventually("the other gateway knows the key", || {
        (tab.fetch(&other, "GET", "/api/x").status == 200).then_some(())
    });
    browser.sign_out(&one);
    assert_eq!(tab.clone().fetch(&one, "GET", "/api/x").status, 401);
    eventually("the other gateway hears of it", || {
        (tab.clone().fetch(&other, "GET", "/api/x").status == 401).then_some(())
    });
    // The cookie is taken away, and the way leads to sign-in.
    assert!(location(&tab.go(&one, "/api/x")).starts_with("/auth/ui/login"));
    assert!(tab.session().is_none());
}

#[test]
fn a_cookie_is_no_bearer_token_and_a_bearer_token_is_no_cookie() {
    let upstream = Upstream::start();
    let auth = Settings::shared_secret().auth;
    let gateway = Gateway::start(&upstream, settings().auth(&auth));
    let browser = Browser::register(&gateway, "alice");
    let cookie = browser.session().unwrap().to_owned();
    assert_eq!(gateway.get("/api/x", Some(&cookie)).status, 401);
    assert_eq!(gateway.get("/auth/me", Some(&cookie)).status, 401);
    let token = gateway.login("alice")["access_token"].as_str().unwrap().to_owned();
    let with = |value: &str| {
        let mut browser = Browser::default();
        browser.cookies.insert("__Host-authgate".to_owned(), value.to_owned());
        browser.fetch(&gateway, "GET", "/api/x").status
    };
    assert_eq!((with(&cookie), with(&token), with(""), with("a.b.c")), (200, 401, 401, 401));
    // Not by another type, another audience, nor without an end.
    let (header, claims) = (header_of(&cookie), claims_of(&cookie));
    assert_eq!(with(&forge(&header, &claims)), 200);
    for (key, value) in [("aud", "tests"), ("iss", "https://other.example.com")] {
        let mut other = claims.clone();
        other[key] = value.into();
        assert_eq!(with(&forge(&header, &other)), 401, "{key}");
    }
    for missing in ["exp", "end", "keep", "sid", "gen"] {
        let mut other = claims.clone();
        other.as_object_mut().unwrap().remove(missing);
        assert_eq!(with(&forge(&header, &other)), 401, "{missing}");
    }
    let mut typed = header.clone();
    typed["typ"] = "at+jwt".into();
    assert_eq!(with(&forge(&typed, &claims)), 401);
    // With both, the bearer token decides.
    let mut both = browser.clone();
    assert_eq!(both.send(&gateway, "GET", "/api/x", &["Authorization: Bearer nonsense"], "").status, 401);
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(both.send(&gateway, "POST", "/api/x", &[&bearer], "").status, 200);
    // A sibling's cookie beside ours.
    let response = both.send(&gateway, "GET", "/api/x", &["Cookie: __Host-authgate=x"], "");
    assert_eq!(response.status, 401);
}

#[test]
fn a_request_of_another_site_that_changes_something_is_refused() {
    let (gateway, upstream) = start();
    let mut browser = Browser::register(&gateway, "alice");
    let origin = format!("Origin: {ORIGIN}");
    for (headers, allowed) in [
        (&["Sec-Fetch-Site: same-origin"][..], true),
        (&["Sec-Fetch-Site: none"], true),
        (&["Sec-Fetch-Site: same-site"], false),
        (&["Sec-Fetch-Site: cross-site"], false),
        (&["Sec-Fetch-Site: cross-site", &origin], false),
        (&["Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"], false),
        (&[&origin], true),
        (&["Origin: https://app.example.com.evil.example"], false),
        (&["Origin: http://app.example.com"], false),
        (&["Origin: null"], false),
        (&[], false),
    ] {
        for path in ["/api/x", "/optional/x"] {
            let before = upstream.bytes();
            let response = browser.send(&gateway, "POST", path, headers, "a=b");
            assert_eq!(response.status, if allowed { 200 } else { 403 }, "{headers:?}");
            if !allowed {
                assert_eq!(response.json()["code"], "cross_site_request");
                assert_eq!(upstream.bytes(), before);
            }
        }
    }
    assert_eq!(browser.send(&gateway, "GET", "/api/x", &["Sec-Fetch-Site: cross-site"], "").status, 200);
    // Whoever has none is nobody's browser; and where nobody is asked for, nobody is.
    assert_eq!(Browser::default().send(&gateway, "POST", "/optional/x", &[], "a=b").status, 200);
    assert_eq!(browser.send(&gateway, "POST", "/public/x", &[], "a=b").status, 200);
    // A WebSocket acts for its user.
    let upgrade = [
        "Connection: upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let before = upstream.bytes();
    let cross = [&upgrade[..], &["Sec-Fetch-Site: cross-site"]].concat();
    assert_eq!(browser.send(&gateway, "GET", "/api/x", &cross, "").status, 403);
    assert_eq!(upstream.bytes(), before);
    // The calls of the API are asked by the same rule.
    assert_eq!(
        browser.send(&gateway, "POST", "/auth/logout", &["Origin: https://evil.example"], "").status,
        403
    );
    assert_eq!(browser.fetch(&gateway, "GET", "/auth/me").status, 200);
}

#[test]
fn a_cookie_of_a_whole_domain_opens_the_account_at_the_public_host_only() {
    let upstream = Upstream::start();
    let extra = with_pages("cookies: {domain: example.com}\n");
    let gateway = Gateway::start(&upstream, Settings { extra, ..settings() });
    let browser = Browser::register(&gateway, "alice");
    assert!(browser.cookies.contains_key("__Secure-authgate"));
    let cookie = format!("Cookie: __Secure-authgate={}", browser.session().unwrap());
    let at = |host: &str, path: &str| {
        let lines =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Site: same-origin\r\n{cookie}\r\n\r\n");
        gateway.client().send(lines).response().status
    };
    for (host, status) in [("app.example.com", 200), ("app.example.com:8443", 200), ("b.example.com", 401)] {
        assert_eq!(at(host, "/auth/me"), status, "{host}");
        assert_eq!(at(host, "/api/x"), 200, "{host}");
    }
    assert_eq!(at("b.example.com", "/auth/ui/account"), 303);
    assert_eq!(at("app.example.com", "/auth/ui/account"), 200);
}

#[test]
fn a_form_needs_the_token_that_this_browser_got() {
    let (gateway, _upstream) = start();
    let mut alice = Browser::register(&gateway, "alice");
    let mut mallory = Browser::register(&gateway, "mallory");
    // Before sign-in: with no token, with another visitor's, without the cookie, from another site.
    let mut visitor = Browser::default();
    let form = only_form(&visitor.go(&gateway, "/auth/ui/login"));
    let fields = [("username", "alice"), ("password", PASSWORD)];
    let bare = Form { hidden: Vec::new(), ..form.clone() };
    is_page(&visitor.submit(&gateway, &bare, &fields), 403);
    let others = only_form(&Browser::default().go(&gateway, "/auth/ui/login"));
    is_page(&visitor.submit(&gateway, &others, &fields), 403);
    is_page(&Browser::default().submit(&gateway, &form, &fields), 403);
    is_page(&visitor.submit_from(&gateway, &form, &fields, "cross-site"), 403);
    // Another site, which the browser gives no cookie, cannot take it away either.
    let stranger =
        Browser::default().send(&gateway, "POST", "/auth/ui/logout", &["Sec-Fetch-Site: cross-site"], "");
    assert!(stranger.header("set-cookie").is_none(), "{stranger:?}");
    assert!(visitor.session().is_none());
    assert_eq!(visitor.submit(&gateway, &form, &fields).status, 303);
    // Signed in: with another's, and without.
    let page = "/auth/ui/account/name";
    let form = only_form(&alice.go(&gateway, page));
    let theirs = only_form(&mallory.go(&gateway, page));
    is_page(&alice.submit(&gateway, &theirs, &[("username", "carol")]), 403);
    is_page(
        &alice.submit(&gateway, &Form { hidden: Vec::new(), ..form.clone() }, &[("username", "carol")]),
        403,
    );
    is_page(&alice.submit_from(&gateway, &form, &[("username", "carol")], "same-site"), 403);
    assert_eq!(alice.fetch(&gateway, "GET", "/auth/me").json()["username"], "alice");
    assert_eq!(
        location(&alice.submit(&gateway, &form, &[("username", "carol")])),
        "/auth/ui/account?done=name"
    );
    assert_eq!(alice.fetch(&gateway, "GET", "/auth/me").json()["username"], "carol");
}

#[test]
fn sign_in_begins_a_new_session_whatever_cookie_came_along() {
    let (gateway, _upstream) = start();
    let mut mallory = Browser::register(&gateway, "mallory");
    Browser::register(&gateway, "alice");
    let before = mallory.session().unwrap().to_owned();
    let form = only_form(&mallory.go(&gateway, "/auth/ui/login"));
    let response = mallory.submit(&gateway, &form, &[("username", "alice"), ("password", PASSWORD)]);
    assert_eq!(response.status, 303, "{response:?}");
    let after = mallory.session().unwrap();
    assert_ne!(claims_of(&before)["sid"], claims_of(after)["sid"]);
    let name = mallory.fetch(&gateway, "GET", "/auth/me").json()["username"].clone();
    assert_eq!(name, "alice");
}

#[test]
fn a_cookie_is_signed_anew_past_half_of_its_life_and_ends_with_its_session() {
    let upstream = Upstream::start();
    let extra = with_pages("cookies: {idle: 4s, ttl: 9s}\n");
    let gateway = Gateway::start(&upstream, Settings { extra, ..settings() });
    let mut browser = Browser::register(&gateway, "alice");
    let first = browser.session().unwrap().to_owned();
    let claims = claims_of(&first);
    let at = |key: &str| claims[key].as_i64().unwrap();
    assert_eq!((at("exp") - at("iat"), at("end") - at("iat")), (4, 9));
    assert_eq!(browser.fetch(&gateway, "GET", "/api/x").status, 200);
    assert_eq!(browser.session(), Some(first.as_str()));
    let mut old = browser.clone();
    eventually("the cookie is signed anew", || {
        assert_eq!(browser.fetch(&gateway, "GET", "/api/x").status, 200);
        (browser.session() != Some(first.as_str())).then_some(())
    });
    let second = claims_of(browser.session().unwrap());
    assert_eq!((&second["sid"], &second["end"]), (&claims["sid"], &claims["end"]));
    // The old copy is good until its own end, and no longer.
    assert_eq!(old.clone().fetch(&gateway, "GET", "/api/x").status, 200);
    old.cookies.insert("__Host-authgate".to_owned(), first);
    eventually("the old one ends", || {
        (old.clone().fetch(&gateway, "GET", "/api/x").status == 401).then_some(())
    });
    assert_eq!(browser.fetch(&gateway, "GET", "/api/x").status, 200);
    eventually("the session ends", || {
        let status = browser.fetch(&gateway, "GET", "/api/x").status;
        (status == 401).then_some(())
    });
    assert!(browser.session().is_none());
}

#[test]
fn a_response_that_caches_share_carries_nobodys_cookie() {
    let upstream = Upstream::answering(|seen| {
        let cached = if seen.target.starts_with("/api/shared") { "public, max-age=60" } else { "max-age=60" };
        // Nor one of ours that it makes up.
        let theirs = "Set-Cookie: theirs=1\r\nSet-Cookie: __Host-authgate=x; Path=/; Secure; HttpOnly; SameSite=Lax\r\n";
        format!("HTTP/1.1 200 OK\r\nCache-Control: {cached}\r\n{theirs}Content-Length: 2\r\n\r\nok")
            .into_bytes()
    });
    let extra = with_pages("cookies: {idle: 2s}\n");
    let gateway = Gateway::start(&upstream, Settings { extra, ..settings() });
    let browser = Browser::register(&gateway, "alice");
    let first = browser.session().unwrap().to_owned();
    let get = |path: &str, cookie: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: app.example.com\r\n{cookie}\r\n\r\n")
    };
    eventually("the cookie is to be signed anew", || {
        let mut tab = browser.clone();
        let set = |response: &Response| -> Vec<String> {
            let cookies = response.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
            cookies.map(|(_, value)| value.clone()).collect()
        };
        let cookie = format!("Cookie: __Host-authgate={first}");
        let shared = gateway.client().send(get("/api/shared", &cookie)).response();
        assert_eq!((shared.status, set(&shared)), (200, vec!["theirs=1".to_owned()]));
        let own = gateway.client().send(get("/api/x", &cookie)).response();
        let renewed = set(&own).into_iter().find(|value| value.starts_with("__Host-authgate="))?;
        assert!(!renewed.starts_with("__Host-authgate=x"), "{renewed}");
        let directives: Vec<_> =
            own.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("cache-control")).collect();
        assert_eq!(directives.last().unwrap().1, "private", "{own:?}");
        tab.cookies
            .insert("__Host-authgate".to_owned(), renewed.split(['=', ';']).nth(1).unwrap().to_owned());
        (tab.session() != Some(first.as_str())).then_some(())
    });
}

#[test]
fn who_is_remembered_keeps_the_cookie() {
    let (gateway, _upstream) = start();
    Browser::register(&gateway, "alice");
    let mut browser = Browser::default();
    let form = only_form(&browser.go(&gateway, "/auth/ui/login"));
    let fields = [("username", "alice"), ("password", PASSWORD), ("remember", "yes")];
    let response = browser.submit(&gateway, &form, &fields);
    let kept = |response: &Response| {
        let cookies = response.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
        cookies.map(|(_, value)| value.clone()).find(|value| value.starts_with("__Host-authgate=")).unwrap()
    };
    assert!(kept(&response).contains("Max-Age=2592000"), "{}", kept(&response));
    let form = only_form(&browser.go(&gateway, "/auth/ui/login"));
    let response = browser.submit(&gateway, &form, &fields[..2]);
    assert!(!kept(&response).contains("Max-Age"), "{}", kept(&response));
}

#[test]
fn a_dead_cookie_is_anonymous_where_that_may_be_and_is_taken_away() {
    let (gateway, upstream) = start();
    let mut browser = Browser::register(&gateway, "alice");
    let mut tab = browser.clone();
    assert_eq!(tab.fetch(&gateway, "GET", "/optional/x").status, 200);
    assert_eq!(upstream.last().header("x-user-name"), Some("alice"));
    browser.sign_out(&gateway);
    assert_eq!(tab.fetch(&gateway, "GET", "/optional/x").status, 200);
    assert_eq!(upstream.last().header("x-user-name"), None);
    assert!(tab.session().is_none());
    // A bearer token that is dead is not.
    assert_eq!(gateway.get("/optional/x", Some("a.b.c")).status, 401);
}

#[test]
fn whoever_brings_two_session_cookies_is_told_so_and_not_sent_to_sign_in_again_and_again() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings());
    let browser = Browser::register(&gateway, "alice");
    let own = format!("__Host-authgate={}", browser.session().unwrap());
    let headers = [format!("Cookie: {own}; {own}"), "Sec-Fetch-Mode: navigate".to_owned()];
    let headers = headers.each_ref().map(String::as_str);
    for path in ["/auth/ui/account", "/auth/ui/account/keys"] {
        is_page(&Browser::default().send(&gateway, "GET", path, &headers, ""), 401);
    }
    is_page(&Browser::default().send(&gateway, "GET", "/auth/ui/login", &headers, ""), 200);
}

#[test]
fn an_upstream_that_wants_the_token_gets_an_access_token_and_no_cookie_of_ours() {
    let upstream = Upstream::start();
    let routes = "  - {path: /api/**, upstream: backend}\n  - {path: /token/**, upstream: backend, forward_token: true}\n";
    let gateway = Gateway::start(&upstream, Settings { routes: routes.to_owned(), ..settings() });
    let mut browser = Browser::register(&gateway, "alice");
    browser.cookies.insert("theirs".to_owned(), "1".to_owned());
    browser.cookies.insert("__Secure-authgate-x".to_owned(), "2".to_owned());
    browser.cookies.insert("__Host-authgate-y".to_owned(), "3".to_owned());
    assert_eq!(browser.fetch(&gateway, "GET", "/token/x").status, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("cookie"), Some("theirs=1"));
    let token = seen.header("authorization").unwrap().strip_prefix("Bearer ").unwrap().to_owned();
    let (claims, session) = (claims_of(&token), claims_of(browser.session().unwrap()));
    assert_eq!((&claims["aud"], &claims["sid"]), (&"tests".into(), &session["sid"]));
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    browser.sign_out(&gateway);
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 401);
}

#[test]
fn people_change_their_account_on_its_pages() {
    let (gateway, _upstream) = start();
    let mut alice = Browser::register(&gateway, "alice");
    let mut elsewhere = Browser::sign_in(&gateway, "alice");
    is_page(&alice.go(&gateway, "/auth/ui/account"), 200);
    // The password: other sessions end, this one goes on.
    let form = only_form(&alice.go(&gateway, "/auth/ui/account/password"));
    is_page(&alice.submit(&gateway, &form, &[("password", "short")]), 400);
    let changed = alice.submit(&gateway, &form, &[("password", NEW_PASSWORD)]);
    assert_eq!(location(&changed), "/auth/ui/account?done=password");
    let page = alice.go(&gateway, "/auth/ui/account?done=password");
    assert!(page.text().contains("Your password was changed."));
    assert_eq!(elsewhere.fetch(&gateway, "GET", "/api/x").status, 401);
    assert_eq!(gateway.try_login("alice", PASSWORD).status, 401);
    assert_eq!(gateway.try_login("alice", NEW_PASSWORD).status, 200);
    // Sessions: another is ended by its button, then all of them.
    let page = alice.go(&gateway, "/auth/ui/account/sessions");
    let own = claims_of(alice.session().unwrap())["sid"].as_str().unwrap().to_owned();
    let is_of = |form: &Form, id: &str| form.hidden.iter().any(|(name, value)| name == "id" && value == id);
    let all = forms(&page);
    let other =
        all.iter().find(|form| form.hidden.iter().any(|(name, _)| name == "id") && !is_of(form, &own));
    assert_eq!(
        location(&alice.submit(&gateway, other.unwrap(), &[])),
        "/auth/ui/account/sessions?done=session"
    );
    let page = alice.go(&gateway, "/auth/ui/account/sessions");
    assert_eq!(forms(&page).len(), 2);
    // The end.
    let form = only_form(&alice.go(&gateway, "/auth/ui/account/delete"));
    let deleted = alice.submit(&gateway, &form, &[]);
    is_page(&deleted, 200);
    assert!(alice.session().is_none());
    assert_eq!(gateway.try_login("alice", NEW_PASSWORD).status, 401);
}

#[test]
fn a_login_that_is_not_recent_needs_the_password_for_a_change() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings().auth("  reauth_window: 1s\n"));
    let mut alice = Browser::register(&gateway, "alice");
    let form = eventually("the login is not recent", || {
        let page = alice.go(&gateway, "/auth/ui/account/name");
        page.text().contains("autocomplete=\"current-password\"").then(|| only_form(&page))
    });
    is_page(&alice.submit(&gateway, &form, &[("username", "carol")]), 401);
    let wrong = alice.submit(&gateway, &form, &[("username", "carol"), ("current_password", "wrong")]);
    is_page(&wrong, 401);
    assert!(wrong.text().contains("This is not your current password."), "{}", wrong.text());
    let right = alice.submit(&gateway, &form, &[("username", "carol"), ("current_password", PASSWORD)]);
    assert_eq!(location(&right), "/auth/ui/account?done=name");
}

#[test]
fn links_in_mails_lead_to_pages_that_act_by_a_button() {
    let mail = MailServer::start("plain");
    let upstream = Upstream::start();
    let email = format!(
        "  email:\n    smtp: {{host: 127.0.0.1, port: {}, encryption: none}}\n    from: a@example.com\n",
        mail.port
    );
    let gateway = Gateway::start(&upstream, settings().auth(&email));
    let mut browser = Browser::default();
    let form = only_form(&browser.go(&gateway, "/auth/ui/register"));
    let fields = [("username", "alice"), ("password", PASSWORD), ("email", "alice@example.com")];
    assert_eq!(browser.submit(&gateway, &form, &fields).status, 303);
    let sent = mail.mail(0);
    let link = format!("{ORIGIN}/auth/ui/verify?token=");
    assert!(sent["text"].as_str().unwrap().contains(&link), "{sent}");
    let page = browser.go(&gateway, &format!("/auth/ui/verify?token={}", token_of(&sent)));
    is_page(&page, 200);
    // To look at it changes nothing: mail programs do that, too.
    assert_eq!(browser.fetch(&gateway, "GET", "/auth/me").json()["email_verified"], false);
    let form = only_form(&page);
    is_page(&browser.submit(&gateway, &form, &[]), 200);
    assert_eq!(browser.fetch(&gateway, "GET", "/auth/me").json()["email_verified"], true);
    is_page(&browser.submit(&gateway, &form, &[]), 400);
    // A forgotten password.
    let mut other = Browser::default();
    let login = other.go(&gateway, "/auth/ui/login?return_to=/api/x");
    assert!(login.text().contains("/auth/ui/forgot?return_to=%2Fapi%2Fx"));
    for address in ["alice@example.com", "nobody@example.com"] {
        let form = only_form(&other.go(&gateway, "/auth/ui/forgot?return_to=/api/x"));
        let page = other.submit(&gateway, &form, &[("email", address)]);
        is_page(&page, 200);
        assert!(page.text().contains("a mail is on its way"));
    }
    let sent = mail.mail(1);
    assert!(sent["text"].as_str().unwrap().contains(&format!("{ORIGIN}/auth/ui/reset?token=")), "{sent}");
    let form = only_form(&other.go(&gateway, &format!("/auth/ui/reset?token={}", token_of(&sent))));
    is_page(&other.submit(&gateway, &form, &[("password", "short")]), 400);
    let done = other.submit(&gateway, &form, &[("password", NEW_PASSWORD)]);
    is_page(&done, 200);
    // In the browser that asked for the mail, the way goes on.
    assert!(done.text().contains("/auth/ui/login?return_to=%2Fapi%2Fx"), "{}", done.text());
    assert!(!other.cookies.contains_key("__Host-authgate-destination"), "{:?}", other.cookies);
    assert_eq!(browser.fetch(&gateway, "GET", "/api/x").status, 401);
    assert_eq!(gateway.try_login("alice", NEW_PASSWORD).status, 200);
}

#[test]
fn navigations_get_pages_in_their_language_and_programs_do_not() {
    let (gateway, _upstream) = start();
    let mut browser = Browser::default();
    let german = ["Sec-Fetch-Mode: navigate", "Accept-Language: de-AT,de;q=0.9,en;q=0.8"];
    let missing = browser.send(&gateway, "GET", "/nowhere", &german, "");
    is_page(&missing, 404);
    let text = missing.text();
    assert!(text.contains("lang=\"de\"") && text.contains("Nicht gefunden"), "{text}");
    assert!(text.contains(missing.header("x-request-id").unwrap()));
    is_page(&browser.go(&gateway, "/api/%2e%2e/x"), 400);
    let program = browser.send(&gateway, "GET", "/nowhere", &[], "");
    assert_eq!(program.header("content-type"), Some("application/problem+json"));
    let login = browser.send(&gateway, "GET", "/auth/ui/login", &german, "");
    assert!(login.text().contains("Anmelden"));
    // The style is one request, and may be kept.
    let style =
        login.text().split("stylesheet\" href=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    let response = browser.fetch(&gateway, "GET", &style);
    assert_eq!((response.status, response.header("content-type")), (200, Some("text/css; charset=utf-8")));
    assert!(response.header("cache-control").unwrap().contains("immutable"));
    assert!(login.body.len() + response.body.len() < 30 << 10);
    assert_eq!(browser.go(&gateway, "/auth/ui/nothing").status, 404);
    assert_eq!(browser.send(&gateway, "DELETE", "/auth/ui/login", &[], "").status, 405);
}

#[test]
fn a_person_reads_of_a_rate_that_is_exceeded_and_of_upstreams_that_fail() {
    let upstream = Upstream::start();
    let routes = "  - {path: /often/**, rate_limit: {requests: 1, per: 1h}, upstream: backend}\n  - {path: /api/**, upstream: backend}\n";
    let gateway = Gateway::start(&upstream, Settings { routes: routes.to_owned(), ..settings() });
    let mut browser = Browser::register(&gateway, "alice");
    assert_eq!(browser.go(&gateway, "/often/x").status, 200);
    let often = browser.go(&gateway, "/often/x");
    is_page(&often, 429);
    assert!(often.header("retry-after").is_some() && often.header("ratelimit").is_some(), "{often:?}");
    for (health, status) in
        [("", 502), (", health: {path: /healthz, interval: 50ms, unhealthy_after: 1}", 503)]
    {
        let nowhere = format!("{{url: \"http://127.0.0.1:{}\"}}", port_to_keep());
        let gone = Settings { servers: nowhere, upstream: health.to_owned(), ..settings() };
        let gateway = Gateway::start(&upstream, gone);
        let mut browser = Browser::register(&gateway, "bob");
        eventually("the upstream is known to be away", || {
            let response = browser.go(&gateway, "/api/x");
            (response.status == status).then(|| is_page(&response, status))
        });
        assert_ne!(
            browser.fetch(&gateway, "GET", "/api/x").header("content-type"),
            Some("text/html; charset=utf-8")
        );
    }
}

#[test]
fn an_operators_own_templates_and_texts_take_the_place_of_ours() {
    let upstream = Upstream::start();
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write(
        "login.html",
        "{% extends \"base.html\" %}{% block content %}<p>Ours, {{ site.name }}: {{ t(\"login-button\") }}</p>{% endblock %}",
    );
    write("fr.ftl", "login-button = Se connecter\n");
    let extra = format!(
        "public_url: {ORIGIN}\npages: {{name: \"<Example>\", folder: \"{}\", languages: [fr, en], theme: {{accent: \"#0a5\"}}, after_login: /api/home}}\n",
        folder.path().display()
    );
    let gateway = Gateway::start(&upstream, Settings { extra, ..settings() });
    let page = Browser::default().go(&gateway, "/auth/ui/login").text();
    assert!(page.contains("<p>Ours, &lt;Example&gt;: Se connecter</p>"), "{page}");
    let mut browser = Browser::default();
    let form = only_form(&browser.go(&gateway, "/auth/ui/register"));
    let response = browser.submit(&gateway, &form, &[("username", "alice"), ("password", PASSWORD)]);
    assert_eq!(location(&response), "/api/home");
}

#[test]
fn a_route_that_wants_a_recent_proof_asks_a_person_for_the_password_and_tells_a_program() {
    let upstream = Upstream::start();
    let routes = "  - {path: /api/**, upstream: backend}\n  - {path: /money/**, fresh: 2s, upstream: backend}\n  - {path: /staff/**, fresh: 2s, roles: {any: [staff]}, upstream: backend}\n";
    let gateway = Gateway::start(&upstream, Settings { routes: routes.to_owned(), ..settings() });
    let mut browser = Browser::register(&gateway, "alice");
    let token = gateway.login("alice")["access_token"].as_str().unwrap().to_owned();
    assert_eq!(browser.go(&gateway, "/money/send?to=bob").status, 200);
    assert_eq!(gateway.get("/money/x", Some(&token)).status, 200);
    let refused = eventually("the proof is old", || {
        let response = gateway.get("/money/x", Some(&token));
        (response.status == 401).then_some(response)
    });
    assert_eq!(refused.json()["code"], "insufficient_user_authentication");
    let challenge = "Bearer error=\"insufficient_user_authentication\", max_age=2";
    assert_eq!(refused.header("www-authenticate"), Some(challenge));
    // For want of a role no password helps; and elsewhere nobody asks.
    assert_eq!(gateway.get("/staff/x", Some(&token)).status, 403);
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    // A new login is a proof, a refreshed token is none.
    let login = gateway.login("alice");
    let proof = claims_of(login["access_token"].as_str().unwrap())["auth_time"].clone();
    let refreshed = gateway.refresh(login["refresh_token"].as_str().unwrap()).json();
    let refreshed = claims_of(refreshed["access_token"].as_str().unwrap());
    assert_eq!((&refreshed["auth_time"], &refreshed["amr"]), (&proof, &serde_json::json!(["pwd"])));

    let before = upstream.bytes();
    let refused = browser.go(&gateway, "/money/send?to=bob");
    let prove = location(&refused).to_owned();
    assert!(prove.starts_with("/auth/ui/prove?return_to=%2Fmoney"), "{prove}");
    assert_eq!(browser.fetch(&gateway, "POST", "/money/send").status, 401);
    assert_eq!(upstream.bytes(), before);
    let form = only_form(&browser.go(&gateway, &prove));
    is_page(&browser.submit(&gateway, &form, &[("password", "wrong")]), 401);
    let sid = claims_of(browser.session().unwrap())["sid"].clone();
    let proved = browser.submit(&gateway, &form, &[("password", PASSWORD)]);
    assert_eq!(location(&proved), "/money/send?to=bob");
    assert_eq!(claims_of(browser.session().unwrap())["sid"], sid);
    assert_eq!(browser.go(&gateway, "/money/send?to=bob").status, 200);
    // Whoever is not signed in signs in, which is a proof.
    assert!(location(&Browser::default().go(&gateway, "/money/x")).starts_with("/auth/ui/login"));
}

/// The path and query of a link.
fn path_of(link: &str) -> &str {
    link.trim().strip_prefix(ORIGIN).unwrap_or_else(|| panic!("{link}"))
}

#[test]
fn an_invitation_opens_a_closed_registration_as_often_as_it_says() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings().auth("  registration: closed\n"));
    let mut stranger = Browser::default();
    let closed = stranger.go(&gateway, "/auth/ui/register");
    is_page(&closed, 403);
    assert!(forms(&closed).is_empty());
    assert!(!stranger.go(&gateway, "/auth/ui/login").text().contains("/auth/ui/register"));
    is_page(&stranger.go(&gateway, "/auth/ui/register?invitation=nonsense"), 403);
    // By the command line, for one account.
    let link = gateway.run(&["user", "invite", "--role", "staff"], "");
    let path = path_of(&link).to_owned();
    assert!(path.starts_with("/auth/ui/register?invitation="), "{path}");
    for _ in 0..2 {
        is_page(&stranger.go(&gateway, &path), 200);
    }
    let form = only_form(&stranger.go(&gateway, &path));
    is_page(&stranger.submit(&gateway, &form, &[("username", "bob"), ("password", "short")]), 400);
    let form = only_form(&stranger.go(&gateway, &path));
    assert_eq!(stranger.submit(&gateway, &form, &[("username", "bob"), ("password", PASSWORD)]).status, 303);
    let me = stranger.fetch(&gateway, "GET", "/auth/me").json();
    assert_eq!((&me["username"], &me["roles"]), (&"bob".into(), &serde_json::json!(["staff", "user"])));
    is_page(&Browser::default().go(&gateway, &path), 403);
    is_page(&stranger.submit(&gateway, &form, &[("username", "carol"), ("password", PASSWORD)]), 400);
    // By the API, for two, of which a taken name uses none.
    let admin = gateway.admin_token("root-of-tests");
    let wanted = serde_json::json!({"role": "user", "uses": 2, "expires": "1d"});
    let made = gateway.admin("POST", "/api/invitations", Some(&admin), Some(&wanted));
    assert_eq!(made.status, 201, "{made:?}");
    let link = made.json()["link"].as_str().unwrap().to_owned();
    let invitation = link.split_once("invitation=").unwrap().1.to_owned();
    let register = |name: &str, invitation: &str| {
        let body = serde_json::json!({"username": name, "password": PASSWORD, "invitation": invitation});
        gateway.post("/auth/register", &body)
    };
    assert_eq!(register("bob", &invitation).status, 409);
    assert_eq!(register("dave", &invitation).status, 201);
    assert_eq!(register("erin", &invitation).status, 201);
    let spent = register("frank", &invitation);
    assert_eq!((spent.status, spent.json()["code"].clone()), (400, "invalid_or_expired_token".into()));
    assert_eq!(register("frank", "").status, 403);
    // One that has expired is as good as none, and what makes no sense is refused.
    let soon = gateway.run(&["user", "invite", "--expires", "1s", "--uses", "3"], "");
    eventually("the invitation expires", || {
        (Browser::default().go(&gateway, path_of(&soon)).status == 403).then_some(())
    });
    for wrong in [r#"{"uses": 0}"#, r#"{"expires": "soon"}"#, r#"{"expires": 0}"#, r#"{"role": "No Role"}"#] {
        let wrong = serde_json::from_str(wrong).unwrap();
        assert_eq!(
            gateway.admin("POST", "/api/invitations", Some(&admin), Some(&wrong)).status,
            400,
            "{wrong}"
        );
    }
    // The token is in no log and not in the store.
    assert!(!gateway.log().contains(&invitation));
    assert!(gateway.run(&["audit"], "").contains("invitation.create"));
}

#[test]
fn an_operator_gives_somebody_a_link_to_set_a_new_password_where_there_is_no_mail() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings());
    let session = gateway.register("alice");
    let session = session["access_token"].as_str().unwrap();
    let login = |password: &str| {
        gateway.post("/auth/login", &serde_json::json!({"username": "alice", "password": password})).status
    };
    let first = gateway.run(&["user", "reset-link", "alice"], "");
    let admin = gateway.admin_token("root-of-tests");
    let id = gateway.get("/auth/me", Some(session)).json()["user_id"].as_str().unwrap().to_owned();
    let path = format!("/api/users/{id}/reset-link");
    let made = gateway.admin("POST", &path, Some(&admin), Some(&serde_json::json!({"expires": "2h"})));
    assert_eq!(made.status, 201, "{made:?}");
    let link = made.json()["link"].as_str().unwrap().to_owned();
    let second = path_of(&link).to_owned();
    assert!(second.starts_with("/auth/ui/reset?token="), "{second}");
    let mut alice = Browser::default();
    // The newest holds, and the others do not any more.
    let named = |page: &Response| page.text().contains("autocomplete=\"username\" value=\"alice\"");
    let page = alice.go(&gateway, path_of(&first));
    assert!(!named(&page), "{page:?}");
    let form = only_form(&page);
    is_page(&alice.submit(&gateway, &form, &[("password", NEW_PASSWORD)]), 400);
    let page = alice.go(&gateway, &second);
    assert!(named(&page), "a password manager needs the name: {page:?}");
    let again = alice.submit(&gateway, &only_form(&page), &[("password", "short")]);
    is_page(&again, 400);
    assert!(named(&again));
    let form = only_form(&alice.go(&gateway, &second));
    is_page(&alice.submit(&gateway, &form, &[("password", NEW_PASSWORD)]), 200);
    assert_eq!((login(PASSWORD), login(NEW_PASSWORD)), (401, 200));
    assert_eq!(gateway.get("/auth/me", Some(session)).status, 401, "its sessions have ended");
    // It holds once, by JSON as well.
    let token = second.split_once("token=").unwrap().1;
    let again = serde_json::json!({"token": token, "new_password": PASSWORD});
    assert_eq!(gateway.post("/auth/password/reset", &again).json()["code"], "invalid_or_expired_token");
    for wrong in [r#"{"expires": "soon"}"#, r#"{"expires": 0}"#, r#"{"expires": "31d"}"#] {
        let wrong = serde_json::from_str(wrong).unwrap();
        assert_eq!(gateway.admin("POST", &path, Some(&admin), Some(&wrong)).status, 400, "{wrong}");
    }
    let bob = gateway.register("bob");
    assert_eq!(gateway.admin("POST", &path, bob["access_token"].as_str(), None).status, 403);
    assert!(!gateway.log().contains(token));
    assert!(gateway.run(&["audit"], "").contains("user.reset-link"));
}

#[test]
fn who_must_change_a_password_is_led_to_choose_one_and_signs_in_with_it() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings());
    gateway.run(&["user", "add", "alice", "--must-change", "--password-stdin"], PASSWORD);
    let mut alice = Browser::default();
    let form = only_form(&alice.go(&gateway, "/auth/ui/login?return_to=/api/orders?page=2"));
    let led = alice.submit(&gateway, &form, &[("username", "alice"), ("password", PASSWORD)]);
    assert!(led.status == 303 && alice.session().is_none(), "{led:?}");
    let place = led.header("location").unwrap().to_owned();
    assert!(place.starts_with("/auth/ui/reset?return_to=%2Fapi%2Forders%3Fpage%3D2&token="), "{place}");
    let form = only_form(&alice.go(&gateway, &place));
    let again = alice.submit(&gateway, &form, &[("password", PASSWORD)]);
    is_page(&again, 400);
    // Where she was going is carried on to the sign-in that follows.
    let done = alice.submit(&gateway, &only_form(&again), &[("password", NEW_PASSWORD)]);
    is_page(&done, 200);
    assert!(done.text().contains("/auth/ui/login?return_to=%2Fapi%2Forders%3Fpage%3D2"), "{}", done.text());
    let form = only_form(&alice.go(&gateway, "/auth/ui/login?return_to=/api/orders?page=2"));
    let signed_in = alice.submit(&gateway, &form, &[("username", "alice"), ("password", NEW_PASSWORD)]);
    assert!(alice.session().is_some());
    assert_eq!(location(&signed_in), "/api/orders?page=2");
}

#[test]
fn calls_sign_a_cookie_anew_and_take_it_away_once_its_session_has_ended() {
    let upstream = Upstream::start();
    let extra = with_pages("cookies: {idle: 4s}\n");
    let gateway = Gateway::start(&upstream, Settings { extra, ..settings() });
    let mut browser = Browser::register(&gateway, "alice");
    let first = browser.session().unwrap().to_owned();
    eventually("the cookie is signed anew", || {
        assert_eq!(browser.fetch(&gateway, "GET", "/auth/me").status, 200);
        (browser.session() != Some(first.as_str())).then_some(())
    });
    let mut other_tab = browser.clone();
    assert_eq!(browser.fetch(&gateway, "POST", "/auth/logout").status, 200);
    assert!(browser.session().is_none());
    assert_eq!(other_tab.fetch(&gateway, "GET", "/auth/me").status, 401);
    assert!(other_tab.session().is_none());
}

#[test]
fn a_navigation_with_a_credential_of_a_program_is_refused_and_led_nowhere() {
    let (gateway, _upstream) = start();
    for line in [
        "Authorization: Bearer no.such.token",
        "Authorization: Basic YTpi",
        "Cookie: __Host-authgate=a; __Host-authgate=b",
    ] {
        let mut browser = Browser::default();
        let response = browser.send(
            &gateway,
            "GET",
            "/api/x",
            &["Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: none", line],
            "",
        );
        is_page(&response, 401);
        assert!(
            response.header("www-authenticate").is_some_and(|by| by.starts_with("Bearer")),
            "{response:?}"
        );
    }
    // What is not recent enough is told to a program, too, and by no page.
    let routes =
        "  - {path: /api/**, upstream: backend}\n  - {path: /mfa/**, mfa: true, upstream: backend}\n";
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings { routes: routes.to_owned(), ..settings() });
    let bearer = format!("Authorization: Bearer {}", gateway.token("alice"));
    let response =
        Browser::default().send(&gateway, "GET", "/mfa/x", &["Sec-Fetch-Mode: navigate", &bearer], "");
    assert_eq!(response.status, 401, "{response:?}");
    assert!(response.header("www-authenticate").unwrap().contains("insufficient_user_authentication"));
    // A session that has ended leads to the next one.
    let mut browser = Browser::default();
    browser.cookies.insert("__Host-authgate".to_owned(), "no.such.cookie".to_owned());
    assert!(location(&browser.go(&gateway, "/api/x")).starts_with("/auth/ui/login"));
}

#[test]
fn people_go_back_to_the_host_that_they_came_from() {
    let extra = with_pages("cookies: {domain: example.com}\n");
    let routes = "  - {host: shop.example.com, path: /cart/**, upstream: backend}\n  - {host: app.example.com, path: /api/**, upstream: backend}\n";
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings { extra, ..Settings::routes(routes) });
    for (host, goes) in
        [("shop.example.com", true), ("SHOP.example.com:443", true), ("app.example.com", false)]
    {
        let page = gateway
            .client()
            .send(format!("GET /auth/ui/login?return_to=/cart/1 HTTP/1.1\r\nHost: {host}\r\n\r\n"))
            .response();
        let is_kept = only_form(&page).hidden.contains(&("return_to".to_owned(), "/cart/1".to_owned()));
        assert_eq!(is_kept, goes, "{host}");
    }
}

#[test]
fn where_no_mail_is_sent_the_page_of_forgotten_passwords_says_so() {
    let (gateway, _upstream) = start();
    let page = Browser::default().go(&gateway, "/auth/ui/forgot");
    is_page(&page, 200);
    assert!(page.text().contains("Ask the operator") && forms(&page).is_empty(), "{}", page.text());
}

#[test]
fn texts_of_strangers_are_texts_on_every_page() {
    const ATTACK: &str = "\"'></title><script>alert(1)</script><img src=x>";
    let (gateway, _upstream) = start();
    let mut alice = Browser::register(&gateway, "alice");
    let token = gateway.login("alice")["access_token"].as_str().unwrap().to_owned();
    let named = serde_json::json!({"name": ATTACK});
    assert_eq!(gateway.send("POST", "/auth/keys", Some(&token), Some(&named)).status, 201);
    // A session of a program with such a name.
    let body = serde_json::json!({"username": "alice", "password": PASSWORD}).to_string();
    let length = body.len();
    let login = format!(
        "POST /auth/login HTTP/1.1\r\nHost: app.example.com\r\nUser-Agent: {ATTACK}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    assert_eq!(gateway.client().send(login).response().status, 200);
    let query: String = ATTACK.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let keys = alice.go(&gateway, "/auth/ui/account/keys").text();
    assert!(keys.contains("&lt;script"), "the name of a key is shown: {keys}");
    let mut shown = Vec::new();
    for page in
        ["", "/name", "/password", "/email", "/sessions", "/factors", "/keys", "/providers", "/delete"]
    {
        for name in ["done", "error", "return_to", "id"] {
            shown.push(alice.go(&gateway, &format!("/auth/ui/account{page}?{name}={query}")));
        }
        let page = alice.go(&gateway, &format!("/auth/ui/account{page}"));
        for form in forms(&page) {
            // Whatever the form wants, it gets such a text; but not that the account ends.
            let fields = ["username", "email", "name", "code", "roles", "routes", "addresses", "id"];
            let fields: Vec<_> = fields.iter().map(|name| (*name, ATTACK)).collect();
            if !form.action.ends_with("/delete") && !form.action.ends_with("/logout") {
                shown.push(alice.submit(&gateway, &form, &fields));
            }
            if alice.session().is_none() || alice.fetch(&gateway, "GET", "/auth/me").status != 200 {
                // It was about the session.
                alice = Browser::sign_in(&gateway, "alice");
            }
        }
    }
    for page in ["login", "register", "forgot", "reset", "verify", "logout"] {
        let mut stranger = Browser::default();
        for name in ["return_to", "token", "error", "invitation", "username"] {
            shown.push(stranger.go(&gateway, &format!("/auth/ui/{page}?{name}={query}")));
        }
        for form in forms(shown.last().unwrap()) {
            let fields = ["username", "email", "password", "token", "invitation"].map(|name| (name, ATTACK));
            shown.push(stranger.submit(&gateway, &form, &fields));
        }
    }
    shown.push(alice.go(&gateway, &format!("/nowhere/{query}?{query}")));
    let language = format!("Accept-Language: {ATTACK}");
    let headers = [
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-Site: none",
        language.as_str(),
        "X-Request-Id: <script>alert(1)</script>",
    ];
    shown.push(Browser::default().send(&gateway, "GET", "/auth/ui/login", &headers, ""));
    assert!(shown.len() > 60);
    for page in shown {
        let text = page.text();
        for raw in ["<script>alert", "<img src=x", "\"'>"] {
            assert!(!text.contains(raw), "{raw} in {text}");
        }
    }
}
