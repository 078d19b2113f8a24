//! People with browsers and second factors: the second step, the proof of who is signed in, the page of factors.

use serde_json::{Value, json};

use crate::harness::{
    Gateway, PASSWORD, Response, Settings, Upstream,
    authenticator::{Passkey, totp},
    browser::{Browser, Form, ORIGIN, forms, only_form, with_pages},
    claims_of, eventually,
    issuer::now,
};

const ROUTES: &str = "  - {path: /api/**, upstream: backend}\n  - {path: /safe/**, mfa: true, upstream: backend}\n  \
                      - {path: /soon/**, fresh: 2s, upstream: backend}\n";

const FACTORS: &str = "/auth/ui/account/factors";

fn settings(pages: &str, auth: &str) -> Settings {
    let settings = Settings::routes(ROUTES).extra(&with_pages(pages)).auth(
        "  throttle: {registrations: {requests: 1000, per: 1m}}\n  password: {argon2: {memory: 64KiB, iterations: 1}}\n",
    );
    settings.auth(auth)
}

fn start(more: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&upstream, settings("", more)), upstream)
}

#[track_caller]
fn location(response: &Response) -> String {
    assert_eq!(response.status, 303, "{response:?}");
    response.header("location").unwrap().to_owned()
}

#[track_caller]
fn between(text: &str, before: &str, after: &str) -> String {
    let rest = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}")).1;
    rest.split_once(after).unwrap().0.to_owned()
}

/// The form of a page that has a button of this name and value.
#[track_caller]
fn form_with(page: &Response, button: &str) -> Form {
    let text = page.text();
    let index = text.split("<form ").skip(1).position(|form| form.contains(button));
    forms(page).swap_remove(index.unwrap_or_else(|| panic!("no {button} in {text}")))
}

/// What a browser is asked to make or show a passkey with.
#[track_caller]
fn options(page: &Response) -> Value {
    let text = between(&page.text(), "data-options=\"", "\"").replace("&quot;", "\"");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[track_caller]
fn codes(page: &Response) -> Vec<String> {
    assert_eq!(page.status, 200, "{page:?}");
    let text = page.text();
    let codes: Vec<String> =
        text.split("<code>").skip(1).map(|code| code.split("</code>").next().unwrap().to_owned()).collect();
    assert_eq!(codes.len(), 10, "{text}");
    codes
}

/// Sets an app up on the page of factors, and returns its secret and the page that comes then.
#[track_caller]
fn set_up_app(browser: &mut Browser, gateway: &Gateway, path: &str) -> (String, Response) {
    let form = form_with(&browser.go(gateway, path), "value=\"totp\"");
    let begun = location(&browser.submit(gateway, &form, &[("begin", "totp"), ("name", "my phone")]));
    let page = browser.go(gateway, &begun);
    assert_eq!(page.status, 200, "{page:?}");
    let secret = between(&page.text(), "<code>", "</code>").replace(' ', "");
    assert!(page.text().contains("src=\"data:image/svg+xml,%3Csvg"), "there is a picture");
    let form = only_form(&page);
    let wrong = browser.submit(gateway, &form, &[("code", "000000")]);
    assert_eq!(wrong.status, 401, "{wrong:?}");
    assert!(wrong.text().contains("This code is wrong"), "{wrong:?}");
    let confirmed = browser.submit(gateway, &only_form(&wrong), &[("code", &totp(&secret, now()))]);
    (secret, confirmed)
}

/// Gives the password, and returns where the second step is.
#[track_caller]
fn first_step(browser: &mut Browser, gateway: &Gateway, name: &str, path: &str) -> String {
    let login = location(&browser.go(gateway, path));
    let form = only_form(&browser.go(gateway, &login));
    location(&browser.submit(gateway, &form, &[("username", name), ("password", PASSWORD)]))
}

fn amr(browser: &Browser) -> Value {
    claims_of(browser.session().unwrap())["amr"].clone()
}

#[test]
fn the_second_step_leads_on_to_where_the_person_was_going() {
    let (gateway, upstream) = start("");
    let mut browser = Browser::register(&gateway, "alice");
    let (secret, confirmed) = set_up_app(&mut browser, &gateway, FACTORS);
    let recovery = codes(&confirmed);
    assert_eq!(amr(&browser), json!(["pwd", "otp", "mfa"]), "the confirmation is a proof");
    assert_eq!(browser.fetch(&gateway, "GET", "/safe/x").status, 200);

    let mut other = Browser::default();
    let step = first_step(&mut other, &gateway, "alice", "/api/orders?page=2");
    assert!(step.starts_with("/auth/ui/factor?return_to=%2Fapi%2Forders"), "{step}");
    assert!(other.session().is_none(), "a password alone signs nobody in");
    assert_eq!(other.fetch(&gateway, "GET", "/api/x").status, 401);
    let page = other.go(&gateway, &step);
    assert!(page.text().contains("autocomplete=\"one-time-code\""), "{page:?}");
    assert_eq!(page.text().matches("type=\"checkbox\"").count(), 1);
    let wrong = other.submit(&gateway, &only_form(&page), &[("code", "000000")]);
    assert_eq!(wrong.status, 401, "{wrong:?}");
    let right = other.submit(&gateway, &only_form(&wrong), &[("code", &totp(&secret, now() + 30))]);
    assert_eq!(location(&right), "/api/orders?page=2");
    assert_eq!(amr(&other), json!(["pwd", "otp", "mfa"]));
    assert!(!other.cookies.contains_key("__Host-authgate-challenge"));
    assert_eq!(other.fetch(&gateway, "GET", "/api/x").status, 200);
    let cookie = upstream.seen().last().unwrap().header("cookie").map(str::to_owned);
    assert_eq!(cookie, None, "no cookie of ours reaches an upstream");

    // By a recovery code, from a link whose address says so.
    let mut third = Browser::default();
    let step = first_step(&mut third, &gateway, "alice", "/api/x");
    let page = third.go(&gateway, &step);
    let link = between(&page.text(), "<p><a href=\"", "\"").replace("&amp;", "&");
    assert!(link.contains("recovery"), "{link}");
    let form = only_form(&third.go(&gateway, &link));
    assert_eq!(location(&third.submit(&gateway, &form, &[("code", &recovery[0])])), "/api/x");
    // The page of the account knows what is left.
    assert!(third.go(&gateway, FACTORS).text().contains("You have 9 left."));

    // Whoever must choose another password shows the factor first, and is not signed in by that.
    gateway.run(&["user", "set-password", "alice", "--must-change", "--password-stdin"], PASSWORD);
    let mut fourth = Browser::default();
    let step = first_step(&mut fourth, &gateway, "alice", "/api/x");
    let form = form_with(&fourth.go(&gateway, &step.replace("?", "?method=recovery&")), "name=\"code\"");
    let led = location(&fourth.submit(&gateway, &form, &[("code", &recovery[1])]));
    assert!(led.starts_with("/auth/ui/reset?return_to=%2Fapi%2Fx&token="), "{led}");
    assert!(fourth.session().is_none());
}

#[test]
fn a_second_step_belongs_to_the_browser_that_took_the_first_and_ends() {
    let (gateway, _upstream) = start("");
    let mut browser = Browser::register(&gateway, "alice");
    let (secret, _) = set_up_app(&mut browser, &gateway, FACTORS);

    // Nobody begins with it.
    let mut stranger = Browser::default();
    let refused = location(&stranger.go(&gateway, "/auth/ui/factor?return_to=%2Fapi%2Fx"));
    assert!(refused.starts_with("/auth/ui/login?return_to=%2Fapi%2Fx"), "{refused}");
    let mut victim = Browser::default();
    let step = first_step(&mut victim, &gateway, "alice", "/api/x");
    let form = only_form(&victim.go(&gateway, &step));
    // The form of one browser in another: neither its token nor its challenge is there.
    assert_eq!(stranger.submit(&gateway, &form, &[("code", &totp(&secret, now() + 30))]).status, 403);
    // Nor is the challenge of a browser one for programs, or the other way about.
    let challenge = victim.cookies["__Host-authgate-challenge"].clone();
    let by_json = |challenge: &str| {
        let body = json!({"challenge": challenge, "method": "totp", "code": totp(&secret, now() + 30)});
        gateway.post("/auth/login/factor", &body)
    };
    assert_eq!(by_json(&challenge).status, 401);
    let mut mixed = victim.clone();
    let asked = gateway.try_login("alice", PASSWORD).json();
    let theirs = asked["challenge"].as_str().unwrap().to_owned();
    mixed.cookies.insert("__Host-authgate-challenge".to_owned(), theirs.clone());
    assert!(location(&mixed.go(&gateway, "/auth/ui/factor")).starts_with("/auth/ui/login"));
    assert_eq!(by_json(&theirs).status, 200);
    // Another site's page meets nothing.
    assert_eq!(victim.submit_from(&gateway, &form, &[("code", "123456")], "cross-site").status, 403);

    for _ in 0..4 {
        assert_eq!(victim.submit(&gateway, &form, &[("code", "000000")]).status, 401);
    }
    let ended = location(&victim.submit(&gateway, &form, &[("code", "000000")]));
    assert_eq!(ended, "/auth/ui/login?return_to=%2Fapi%2Fx&done=ended");
    assert!(victim.go(&gateway, &ended).text().contains("too many tries"));
    assert!(victim.session().is_none());
}

#[test]
fn a_device_is_asked_again_once_the_account_has_other_factors() {
    let (gateway, _upstream) = start("");
    let mut browser = Browser::register(&gateway, "alice");
    let (secret, confirmed) = set_up_app(&mut browser, &gateway, FACTORS);
    codes(&confirmed);
    let mut device = Browser::default();
    let step = first_step(&mut device, &gateway, "alice", "/api/x");
    let form = only_form(&device.go(&gateway, &step));
    let code = totp(&secret, now() + 30);
    location(&device.submit(&gateway, &form, &[("code", &code), ("remember_device", "yes")]));
    device.sign_out(&gateway);
    assert_eq!(first_step(&mut device, &gateway, "alice", "/api/x"), "/api/x");
    device.sign_out(&gateway);
    // The phone is gone, and another one is there in its place.
    let (_, confirmed) = set_up_app(&mut browser, &gateway, FACTORS);
    assert!(location(&confirmed).contains("done=factor"));
    assert!(first_step(&mut device, &gateway, "alice", "/api/x").starts_with("/auth/ui/factor"));
}

#[test]
fn a_device_is_not_asked_again_if_its_user_wants_that_until_the_password_is_another() {
    let (gateway, _upstream) = start("");
    let mut browser = Browser::register(&gateway, "alice");
    let (secret, confirmed) = set_up_app(&mut browser, &gateway, FACTORS);
    let recovery = codes(&confirmed);
    let mut device = Browser::default();
    let step = first_step(&mut device, &gateway, "alice", "/api/x");
    let form = only_form(&device.go(&gateway, &step));
    let fields = [("code", totp(&secret, now() + 30)), ("remember_device", "yes".to_owned())];
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    location(&device.submit(&gateway, &form, &fields));
    device.sign_out(&gateway);
    // The password is enough there, and proves no more than it does.
    assert_eq!(first_step(&mut device, &gateway, "alice", "/api/x"), "/api/x");
    assert_eq!(amr(&device), json!(["pwd"]));
    assert!(location(&device.go(&gateway, "/safe/x")).starts_with("/auth/ui/prove?"));
    device.sign_out(&gateway);
    // On no other device, and for nobody else there.
    let mut other = Browser::default();
    assert!(first_step(&mut other, &gateway, "alice", "/api/x").starts_with("/auth/ui/factor"));
    let mut bob = Browser::register(&gateway, "bob");
    let (_, confirmed) = set_up_app(&mut bob, &gateway, FACTORS);
    codes(&confirmed);
    assert!(first_step(&mut device, &gateway, "bob", "/api/x").starts_with("/auth/ui/factor"));
    // A new password forgets it.
    gateway.run(&["user", "set-password", "alice", "--password-stdin"], PASSWORD);
    let step = first_step(&mut device, &gateway, "alice", "/api/x");
    assert!(step.starts_with("/auth/ui/factor"), "{step}");
    let link = step.clone() + "&method=recovery";
    let form = only_form(&device.go(&gateway, &link));
    location(&device.submit(&gateway, &form, &[("code", &recovery[0])]));
}

#[test]
fn a_route_that_wants_two_factors_leads_to_one_and_back() {
    let (gateway, _upstream) = start("");
    let mut browser = Browser::register(&gateway, "alice");
    // Who has none gets one first.
    let refused = browser.fetch(&gateway, "GET", "/safe/x");
    let told = refused.header("www-authenticate").unwrap();
    assert_eq!((refused.status, told.contains("acr_values=\"mfa\"")), (401, true), "{told}");
    let prove = location(&browser.go(&gateway, "/safe/x?y=1"));
    assert_eq!(prove, "/auth/ui/prove?return_to=%2Fsafe%2Fx%3Fy%3D1&mfa=yes");
    let factors = location(&browser.go(&gateway, &prove));
    assert_eq!(factors, "/auth/ui/account/factors?return_to=%2Fsafe%2Fx%3Fy%3D1");
    let (secret, confirmed) = set_up_app(&mut browser, &gateway, &factors);
    let recovery = codes(&confirmed);
    assert!(confirmed.text().contains("href=\"/safe/x?y=1\""), "it leads on: {confirmed:?}");
    assert_eq!(browser.go(&gateway, "/safe/x?y=1").status, 200);

    // A proof that grows old is renewed by the factor, not by the password.
    let begun = std::time::Instant::now();
    while browser.fetch(&gateway, "GET", "/soon/x").status == 200 {
        assert!(begun.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    let prove = location(&browser.go(&gateway, "/soon/x"));
    let page = browser.go(&gateway, &prove);
    assert!(!page.text().contains("current-password"), "{page:?}");
    assert_eq!(page.text().matches("type=\"checkbox\"").count(), 0);
    let form = only_form(&page);
    let by_password = browser.submit(&gateway, &form, &[("password", PASSWORD)]);
    assert_eq!(by_password.status, 400, "{by_password:?}");
    assert_eq!(browser.submit(&gateway, &form, &[("code", "000000")]).status, 401);
    let sid = claims_of(browser.session().unwrap())["sid"].clone();
    let proved = browser.submit(&gateway, &form, &[("code", &totp(&secret, now() + 30))]);
    assert_eq!(location(&proved), "/soon/x");
    assert_eq!(claims_of(browser.session().unwrap())["sid"], sid);
    assert_eq!(browser.go(&gateway, "/soon/x").status, 200);
    let link = prove.clone() + "&method=recovery";
    let form = only_form(&browser.go(&gateway, &link));
    assert_eq!(location(&browser.submit(&gateway, &form, &[("code", &recovery[3])])), "/soon/x");
}

#[test]
fn whoever_must_have_a_factor_gets_one_on_the_page_of_factors() {
    let (gateway, _upstream) = start("  mfa: {required_for: [admin]}\n");
    gateway.run(&["user", "add", "root", "--role", "admin", "--password-stdin"], PASSWORD);
    let mut browser = Browser::default();
    let factors = first_step(&mut browser, &gateway, "root", "/api/x");
    assert_eq!(factors, "/auth/ui/account/factors?return_to=%2Fapi%2Fx");
    assert!(browser.session().is_none());
    assert!(location(&browser.go(&gateway, "/auth/ui/account")).starts_with("/auth/ui/login"));
    let (_, confirmed) = set_up_app(&mut browser, &gateway, &factors);
    codes(&confirmed);
    assert!(confirmed.text().contains("href=\"/api/x\""), "it leads on: {confirmed:?}");
    assert_eq!(amr(&browser), json!(["pwd", "otp", "mfa"]));
    assert_eq!(browser.go(&gateway, "/api/x").status, 200);
    assert!(!browser.cookies.contains_key("__Host-authgate-challenge"));
}

/// Waits until a browser's cookie, which lives for 4 seconds, is past half of its life.
fn past_half(browser: &Browser) {
    let half = claims_of(browser.session().unwrap())["iat"].as_i64().unwrap() + 2;
    eventually("half of its life is over", || (now() >= half).then_some(()));
}

#[test]
fn a_cookie_that_is_signed_anew_says_of_its_holders_proofs_what_is_true_by_then() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings("cookies: {idle: 4s}\n", ""));
    let mut browser = Browser::register(&gateway, "alice");
    let (_, confirmed) = set_up_app(&mut browser, &gateway, FACTORS);
    codes(&confirmed);
    let mut other_tab = browser.clone();
    assert_eq!(other_tab.go(&gateway, "/safe/x").status, 200);
    let form = form_with(&browser.go(&gateway, FACTORS), "name=\"remove\"");
    location(&browser.submit(&gateway, &form, &[("remove", "yes")]));
    past_half(&other_tab);
    assert_eq!(other_tab.fetch(&gateway, "GET", "/api/x").status, 200);
    assert_eq!(amr(&other_tab), json!(["pwd"]), "the proof is gone with the factor");
    assert_eq!(other_tab.fetch(&gateway, "GET", "/safe/x").status, 401);
}

#[test]
fn whoever_must_have_a_factor_by_a_new_config_is_led_to_one_once_the_cookie_runs_out() {
    let upstream = Upstream::start();
    let pages = "cookies: {idle: 4s}\n";
    let gateway = Gateway::start(&upstream, settings(pages, ""));
    for name in ["alice", "bob"] {
        gateway.register(name);
    }
    gateway.run(&["user", "set-roles", "alice", "--role", "staff"], "");
    let mut browser = Browser::sign_in(&gateway, "alice");
    let mut other = Browser::sign_in(&gateway, "bob");
    gateway.write(&settings(pages, "  mfa: {required_for: [staff]}\n"));
    gateway.signal(libc::SIGHUP);
    eventually("it is taken up", || gateway.log().contains("config taken up").then_some(()));
    let before = browser.session().unwrap().to_owned();
    past_half(&other);
    for browser in [&mut browser, &mut other] {
        assert_eq!(browser.fetch(&gateway, "GET", "/api/x").status, 200);
    }
    assert_eq!(browser.session(), Some(before.as_str()), "it is not signed anew");
    eventually("it runs out", || (browser.fetch(&gateway, "GET", "/api/x").status == 401).then_some(()));
    assert_eq!(other.fetch(&gateway, "GET", "/api/x").status, 200, "others go on");
    let factors = first_step(&mut browser, &gateway, "alice", "/api/x");
    assert!(factors.starts_with(FACTORS), "{factors}");
}

#[test]
fn a_passkey_is_made_shown_and_removed_by_the_pages() {
    let (gateway, _upstream) = start("");
    let mut browser = Browser::register(&gateway, "alice");
    let form = form_with(&browser.go(&gateway, FACTORS), "value=\"passkey\"");
    let begun = location(&browser.submit(&gateway, &form, &[("begin", "passkey"), ("name", "")]));
    let page = browser.go(&gateway, &begun);
    let policy = page.header("content-security-policy").unwrap();
    assert!(policy.contains("script-src 'self'") && !policy.contains("unsafe"), "{policy}");
    let (passkey, made) = Passkey::create(&options(&page), ORIGIN);
    let made = made.to_string();
    let mut form = only_form(&page);
    form.hidden.retain(|(name, _)| name != "credential");
    let confirmed = browser.submit(&gateway, &form, &[("credential", &made)]);
    codes(&confirmed);
    assert_eq!(amr(&browser), json!(["pwd", "pop", "mfa"]));

    // Beside the password.
    let mut other = Browser::default();
    let step = first_step(&mut other, &gateway, "alice", "/api/x");
    let show = |browser: &mut Browser, page: &Response| {
        let shown = passkey.assert(&options(page)).to_string();
        let mut form = only_form(page);
        form.hidden.retain(|(name, _)| name != "credential");
        browser.submit(&gateway, &form, &[("credential", &shown)])
    };
    let page = other.go(&gateway, &step);
    assert_eq!(location(&show(&mut other, &page)), "/api/x");
    // Alone, without a name.
    let mut third = Browser::default();
    let login = location(&third.go(&gateway, "/api/x"));
    let form = only_form(&third.go(&gateway, &login));
    let step = location(&third.submit(
        &gateway,
        &form,
        &[("username", ""), ("password", ""), ("method", "passkey")],
    ));
    let page = third.go(&gateway, &step);
    assert!(page.text().contains("data-begun"), "it is asked at once: {page:?}");
    assert_eq!(location(&show(&mut third, &page)), "/api/x");
    assert_eq!(amr(&third), json!(["pop", "mfa"]));

    // As a proof of who is signed in, and gone.
    let page = third.go(&gateway, "/auth/ui/prove?return_to=%2Fapi%2Fx&method=passkey");
    let begun = location(&third.submit(&gateway, &only_form(&page), &[]));
    let page = third.go(&gateway, &begun);
    assert_eq!(location(&show(&mut third, &page)), "/api/x");
    let form = form_with(&third.go(&gateway, FACTORS), "name=\"remove\"");
    let removed = location(&third.submit(&gateway, &form, &[("remove", "yes")]));
    assert!(third.go(&gateway, &removed).text().contains("It was removed."));
    assert_eq!(first_step(&mut Browser::default(), &gateway, "alice", "/api/x"), "/api/x");
}
