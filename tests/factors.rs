//! Second factors by JSON: apps, passkeys, recovery codes, codes by mail, and what asks for them.

use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{
    Faketime, Gateway, MailServer, PASSWORD, Response, Settings, Upstream,
    authenticator::{Passkey, totp},
    claims_of, eventually,
    issuer::now,
    shared_database, token_of,
};

const ORIGIN: &str = "https://app.example.com";

const ROUTES: &str = "  - {path: /api/**, upstream: backend}\n  - {path: /safe/**, mfa: true, upstream: backend}\n  \
                      - {path: /soon/**, mfa: true, fresh: 5m, upstream: backend}\n";

fn settings() -> Settings {
    Settings::routes(ROUTES)
        .extra(&format!("public_url: {ORIGIN}\n"))
        .auth("  throttle: {registrations: {requests: 1000, per: 1m}}\n  password: {argon2: {memory: 64KiB, iterations: 1}}\n")
}

/// A gateway whose clock is set by a test, and how far it is ahead.
struct Place {
    gateway: Gateway,
    time: Faketime,
    ahead: i64,
    _upstream: Upstream,
}

impl Place {
    fn start(settings: Settings) -> Self {
        let folder = Arc::new(TempDir::new().unwrap());
        let (time, upstream) = (Faketime::new(folder.path()), Upstream::start());
        let mut settings = settings;
        settings.env.extend(time.env());
        let gateway = Gateway::start_in(folder, upstream.address, settings);
        Self { gateway, time, ahead: 0, _upstream: upstream }
    }

    fn now(&self) -> i64 {
        now() + self.ahead
    }

    /// Lets time pass.
    fn pass(&mut self, seconds: i64) {
        self.ahead += seconds;
        self.time.set(&format!("+{}", self.ahead));
        // What was fresh is stale by that clock, until it was looked at again.
        eventually("it is ready", || (self.gateway.admin_get("/readyz").status == 200).then_some(()));
    }

    fn send(&self, method: &str, path: &str, token: &str, body: Value) -> Response {
        self.gateway.send(method, path, Some(token), Some(&body))
    }

    /// Gives an account an app: its secret, its id, and the recovery codes.
    #[track_caller]
    fn app(&self, token: &str) -> (String, String, Vec<String>) {
        let begun = self.send("POST", "/auth/factors", token, json!({"type": "totp", "name": "my phone"}));
        assert_eq!(begun.status, 201, "{begun:?}");
        let begun = begun.json();
        let (secret, id) = (text(&begun["secret"]), text(&begun["id"]));
        let uri = begun["uri"].as_str().unwrap();
        assert!(uri.starts_with("otpauth://totp/") && uri.contains(&secret), "{uri}");
        let code = totp(&secret, self.now());
        let confirmed =
            self.send("POST", &format!("/auth/factors/{id}/confirm"), token, json!({"code": code}));
        assert_eq!(confirmed.status, 200, "{confirmed:?}");
        let codes = confirmed.json()["recovery_codes"].as_array().cloned().unwrap_or_default();
        (secret, id, codes.iter().map(text).collect())
    }

    /// Gives an account a passkey.
    #[track_caller]
    fn passkey(&self, token: &str) -> (Passkey, String) {
        let begun = self.send("POST", "/auth/factors", token, json!({"type": "passkey"}));
        assert_eq!(begun.status, 201, "{begun:?}");
        let begun = begun.json();
        let (passkey, made) = Passkey::create(&begun["publicKey"], ORIGIN);
        let id = text(&begun["id"]);
        let confirmed =
            self.send("POST", &format!("/auth/factors/{id}/confirm"), token, json!({"credential": made}));
        assert_eq!(confirmed.status, 200, "{confirmed:?}");
        (passkey, id)
    }

    /// Logs in by the password, and returns what is asked for then.
    #[track_caller]
    fn challenge(&self, name: &str) -> Value {
        let asked = self.gateway.try_login(name, PASSWORD);
        assert_eq!(asked.status, 401, "{asked:?}");
        let asked = asked.json();
        assert_eq!(asked["code"], "second_factor_required");
        assert_eq!(asked["access_token"], Value::Null);
        asked
    }

    fn answer(&self, asked: &Value, method: &str, code: &str) -> Response {
        let body = json!({"challenge": asked["challenge"], "method": method, "code": code});
        self.gateway.post("/auth/login/factor", &body)
    }

    fn show(&self, asked: &Value, passkey: &Passkey) -> Response {
        let shown = passkey.assert(&asked["publicKey"]);
        let body = json!({"challenge": asked["challenge"], "method": "passkey", "credential": shown});
        self.gateway.post("/auth/login/factor", &body)
    }
}

#[track_caller]
fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}")).to_owned()
}

#[track_caller]
fn token(response: &Response) -> String {
    assert_eq!(response.status, 200, "{response:?}");
    text(&response.json()["access_token"])
}

#[track_caller]
fn is_wrong(response: &Response) {
    assert_eq!((response.status, response.message().as_str()), (401, "Invalid credentials"), "{response:?}");
}

#[track_caller]
fn lacks_proof(response: &Response, challenge: &str) {
    assert_eq!(response.status, 401, "{response:?}");
    let expected = format!("Bearer error=\"insufficient_user_authentication\"{challenge}");
    assert_eq!(response.header("www-authenticate"), Some(expected.as_str()));
}

fn stores() -> [Settings; 2] {
    let url = shared_database();
    [settings(), Settings { store: format!("{{url: \"{url}\"}}"), ..settings() }]
}

#[test]
fn with_an_app_a_password_alone_opens_nothing_and_each_code_is_good_once() {
    for (kind, settings) in stores().into_iter().enumerate() {
        let mut place = Place::start(settings);
        let first = place.gateway.token("alice");
        assert_eq!(place.gateway.get("/safe/x", Some(&first)).status, 401);
        let (secret, id, codes) = place.app(&first);
        assert_eq!(codes.len(), 10);
        // On PostgreSQL its clock counts, which nobody sets here.
        let ahead = |place: &mut Place, seconds| {
            if kind == 0 {
                place.pass(seconds)
            }
        };

        let asked = place.challenge("alice");
        assert_eq!(asked["methods"], json!(["totp", "recovery"]));
        // The code that has confirmed it was one use of it.
        is_wrong(&place.answer(&asked, "totp", &totp(&secret, place.now() - 30)));
        let next = totp(&secret, place.now() + 30);
        let opened = place.answer(&asked, "totp", &next);
        assert_eq!(opened.json()["message"], "Authenticated successfully");
        let access = token(&opened);
        assert_eq!(claims_of(&access)["amr"], json!(["pwd", "otp", "mfa"]));
        assert_eq!(place.gateway.get("/safe/x", Some(&access)).status, 200);
        is_wrong(&place.answer(&asked, "totp", &next));
        is_wrong(&place.answer(&place.challenge("alice"), "totp", &next));
        // A refreshed token still says it.
        let refreshed = place.gateway.refresh(opened.json()["refresh_token"].as_str().unwrap());
        assert_eq!(claims_of(&token(&refreshed))["amr"], json!(["pwd", "otp", "mfa"]));

        for code in &codes[..2] {
            let opened = place.answer(&place.challenge("alice"), "recovery", &code.to_uppercase());
            assert_eq!(claims_of(&token(&opened))["amr"], json!(["pwd", "otp", "mfa"]));
            is_wrong(&place.answer(&place.challenge("alice"), "recovery", code));
        }
        let listed = place.gateway.get("/auth/factors", Some(&access)).json();
        assert_eq!(listed["recovery_codes"], 8);
        assert_eq!(listed["factors"].as_array().unwrap().len(), 1);
        let factor = &listed["factors"][0];
        assert_eq!(
            (&factor["id"], &factor["type"], &factor["name"]),
            (&json!(id), &json!("totp"), &json!("my phone"))
        );
        assert!(factor["last_used_at"].is_string() && factor["created_at"].is_string(), "{factor}");

        // New recovery codes take the place of the old ones.
        let renewed = place.send("POST", "/auth/factors", &access, json!({"type": "recovery"}));
        assert_eq!(renewed.status, 201, "{renewed:?}");
        is_wrong(&place.answer(&place.challenge("alice"), "recovery", &codes[5]));
        let renewed = text(&renewed.json()["recovery_codes"][9]);
        token(&place.answer(&place.challenge("alice"), "recovery", &renewed));

        ahead(&mut place, 60);
        let removed = place.send("DELETE", &format!("/auth/factors/{id}"), &access, json!({}));
        assert_eq!(removed.status, 200, "{removed:?}");
        assert_eq!(place.gateway.get("/auth/factors", Some(&access)).json()["recovery_codes"], 0);
        assert_eq!(place.gateway.try_login("alice", PASSWORD).status, 200);
    }
}

#[test]
fn whoever_must_change_a_password_shows_the_factor_first() {
    for settings in stores() {
        let place = Place::start(settings);
        let (secret, ..) = place.app(&place.gateway.token("alice"));
        place.gateway.run(&["user", "set-password", "alice", "--must-change", "--password-stdin"], PASSWORD);
        let asked = place.challenge("alice");
        assert_eq!(asked["reset_token"], Value::Null);
        is_wrong(&place.answer(&asked, "totp", "000000"));
        // The code that confirmed the app is used up.
        let told = place.answer(&asked, "totp", &totp(&secret, place.now() + 30));
        assert_eq!((told.status, &told.json()["code"]), (401, &json!("password_change_required")));
        assert_eq!(told.json()["access_token"], Value::Null);
        let body =
            json!({"token": told.json()["reset_token"], "new_password": "a password of their own choice"});
        assert_eq!(place.gateway.post("/auth/password/reset", &body).status, 200);
        let asked = place.gateway.try_login("alice", "a password of their own choice").json();
        assert_eq!(asked["code"], "second_factor_required");
    }
}

#[test]
fn a_code_holds_a_step_early_and_a_step_late_and_no_more() {
    let mut place = Place::start(settings());
    let (secret, _, codes) = place.app(&place.gateway.token("alice"));
    for (offset, holds) in [(-2, false), (2, false), (-1, true), (1, true), (0, false)] {
        // In the middle of a step, and beyond those that were used.
        place.pass(120 + 15 - place.now().rem_euclid(30));
        let answered =
            place.answer(&place.challenge("alice"), "totp", &totp(&secret, place.now() + offset * 30));
        assert_eq!(answered.status, if holds { 200 } else { 401 }, "{offset}: {answered:?}");
        if offset == 1 {
            // What is older than the last one that was taken is not taken after it.
            is_wrong(&place.answer(&place.challenge("alice"), "totp", &totp(&secret, place.now())));
            break;
        }
    }
    token(&place.answer(&place.challenge("alice"), "recovery", &codes[0]));
}

#[test]
fn a_challenge_ends_after_five_tries_or_five_minutes() {
    let mut place = Place::start(settings());
    let (secret, _, codes) = place.app(&place.gateway.token("alice"));
    let asked = place.challenge("alice");
    for _ in 0..5 {
        is_wrong(&place.answer(&asked, "totp", "000000"));
    }
    is_wrong(&place.answer(&asked, "recovery", &codes[0]));
    is_wrong(&place.answer(&asked, "totp", &totp(&secret, place.now() + 30)));
    // None of it has used anything up.
    token(&place.answer(&place.challenge("alice"), "recovery", &codes[0]));

    let asked = place.challenge("alice");
    place.pass(299);
    token(&place.answer(&asked, "recovery", &codes[1]));
    let asked = place.challenge("alice");
    place.pass(301);
    is_wrong(&place.answer(&asked, "recovery", &codes[2]));
    for bad in ["", "x", "a.b.c", &"x".repeat(5_000)] {
        let refused = place
            .gateway
            .post("/auth/login/factor", &json!({"challenge": bad, "method": "totp", "code": "123456"}));
        assert_eq!(refused.status, if bad.is_empty() { 400 } else { 401 }, "{refused:?}");
    }
    for body in
        [json!({}), json!({"challenge": "x"}), json!({"challenge": "x", "method": "magic", "code": "1"})]
    {
        assert_eq!(place.gateway.post("/auth/login/factor", &body).status, 400, "{body}");
    }
}

#[test]
#[ignore = "slow"]
fn guesses_are_throttled_with_the_accounts_logins() {
    let place = Place::start(settings());
    let (secret, _, _) = place.app(&place.gateway.token("alice"));
    let spare = place.challenge("alice");
    let mut guesses = 0;
    loop {
        let again = place.gateway.try_login("alice", PASSWORD);
        if again.status == 429 {
            break;
        }
        let asked = again.json();
        for _ in 0..6 {
            let refused = place.answer(&asked, "totp", &format!("{guesses:06}"));
            guesses += u32::from(refused.status == 401);
            assert!(refused.status == 429 || refused.status == 401, "{refused:?}");
        }
        assert!(guesses < 30, "nothing stops it");
    }
    // However many more come.
    let mut client = place.gateway.client();
    for guess in 0..10_000 {
        let body = json!({"challenge": spare["challenge"], "method": "totp", "code": format!("{guess:06}")})
            .to_string();
        let length = body.len();
        client.send(format!("POST /auth/login/factor HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"));
        let refused = client.response();
        guesses += u32::from(refused.status == 401);
        assert!(refused.status == 429 || refused.status == 401, "{refused:?}");
    }
    assert!(guesses < 40, "{guesses} were looked at");
    // The right code is not looked at, either.
    assert_eq!(place.answer(&spare, "totp", &totp(&secret, place.now() + 30)).status, 429);
    // Nobody else is bound by it.
    place.gateway.register("bob");
    assert_eq!(place.gateway.try_login("bob", PASSWORD).status, 200);
}

#[test]
fn a_route_asks_for_two_factors_and_a_session_rises_to_them() {
    let mut place = Place::start(settings());
    let first = place.gateway.register("alice");
    let access = text(&first["access_token"]);
    lacks_proof(&place.gateway.get("/safe/x", Some(&access)), ", acr_values=\"mfa\"");
    lacks_proof(&place.gateway.get("/soon/x", Some(&access)), ", acr_values=\"mfa\", max_age=300");
    let (secret, ..) = place.app(&access);
    // What the confirmation proves, a refreshed token says; so does the one that it gives.
    let refreshed = place.gateway.refresh(&text(&first["refresh_token"]));
    assert_eq!(place.gateway.get("/safe/x", Some(&token(&refreshed))).status, 200);

    // Another session has seen a password alone: the device was remembered, or the factor came later.
    place.pass(400);
    let access = token(&refreshed);
    lacks_proof(&place.gateway.get("/soon/x", Some(&access)), ", acr_values=\"mfa\", max_age=300");
    let asked = place.gateway.send("POST", "/auth/factors/challenge", Some(&access), None);
    assert_eq!(asked.status, 200, "{asked:?}");
    let asked = asked.json();
    assert_eq!(asked["methods"], json!(["totp", "recovery"]));
    let body = |code: &str| json!({"challenge": asked["challenge"], "method": "totp", "code": code});
    let code = totp(&secret, place.now());
    // It is the session's: nobody else's token meets it, nor does none.
    is_wrong(&place.gateway.post("/auth/login/factor", &body(&code)));
    is_wrong(&place.send("POST", "/auth/login/factor", &place.gateway.token("bob"), body(&code)));
    let risen = place.send("POST", "/auth/login/factor", &access, body(&code));
    let risen_token = token(&risen);
    let (before, after) = (claims_of(&access), claims_of(&risen_token));
    assert_eq!((&before["sid"], &after["amr"]), (&after["sid"], &json!(["pwd", "otp", "mfa"])));
    assert!(after["auth_time"].as_i64() > before["auth_time"].as_i64(), "{before} {after}");
    assert_eq!(place.gateway.get("/soon/x", Some(&risen_token)).status, 200);
    // The new refresh token is the session's.
    let refreshed = place.gateway.refresh(&text(&risen.json()["refresh_token"]));
    assert_eq!(claims_of(&token(&refreshed))["sid"], after["sid"]);
}

#[test]
fn who_has_no_factor_rises_by_the_password_and_who_has_one_does_not() {
    let mut place = Place::start(settings());
    let access = place.gateway.token("alice");
    place.pass(400);
    lacks_proof(&place.send("POST", "/auth/factors", &access, json!({"type": "totp"})), ", max_age=300");
    let asked = place.gateway.send("POST", "/auth/factors/challenge", Some(&access), None).json();
    assert_eq!(asked["methods"], json!(["password"]));
    let by = |password: &str| {
        let body = json!({"challenge": asked["challenge"], "method": "password", "password": password});
        place.send("POST", "/auth/login/factor", &access, body)
    };
    is_wrong(&by("a wrong password that is long"));
    let access = token(&by(PASSWORD));
    assert_eq!(claims_of(&access)["amr"], json!(["pwd"]));
    let (_, id, _) = place.app(&access);
    place.pass(400);
    // Removing it, or naming another address, takes the factor itself.
    let needed = ", acr_values=\"mfa\", max_age=300";
    lacks_proof(&place.send("DELETE", &format!("/auth/factors/{id}"), &access, json!({})), needed);
    lacks_proof(&place.send("POST", "/auth/factors", &access, json!({"type": "recovery"})), needed);
    let change = json!({"new_email": "a@example.com", "current_password": PASSWORD});
    lacks_proof(&place.send("POST", "/auth/change", &access, change), needed);
    let asked = place.gateway.send("POST", "/auth/factors/challenge", Some(&access), None).json();
    assert_eq!(asked["methods"], json!(["totp", "recovery"]));
    let body = json!({"challenge": asked["challenge"], "method": "password", "password": PASSWORD});
    is_wrong(&place.send("POST", "/auth/login/factor", &access, body));
    // A new password is no proof of the factor, either.
    let change = json!({"new_password": "another password for the tests", "current_password": PASSWORD});
    let changed = token(&place.send("POST", "/auth/change", &access, change));
    lacks_proof(&place.send("DELETE", &format!("/auth/factors/{id}"), &changed, json!({})), needed);
}

#[test]
fn whoever_must_have_a_factor_gets_one_on_the_way_in() {
    for settings in stores() {
        let place = Place::start(settings.auth("  mfa: {required_for: [admin]}\n"));
        place.gateway.run(&["user", "add", "root", "--role", "admin", "--password-stdin"], PASSWORD);
        let refused = place.gateway.try_login("root", PASSWORD);
        assert_eq!(refused.status, 401, "{refused:?}");
        let asked = refused.json();
        assert_eq!(asked["code"], "factor_enrolment_required");
        let challenge = text(&asked["challenge"]);
        // It opens nothing else.
        assert_eq!(place.gateway.get("/api/x", Some(&challenge)).status, 401);
        assert_eq!(place.gateway.get("/auth/me", Some(&challenge)).status, 401);
        assert_eq!(place.send("POST", "/auth/factors", &challenge, json!({"type": "recovery"})).status, 401);
        is_wrong(&place.answer(&asked, "password", PASSWORD));
        is_wrong(&place.answer(&asked, "totp", "123456"));

        let begun = place.send("POST", "/auth/factors", &challenge, json!({"type": "totp"})).json();
        let (secret, id) = (text(&begun["secret"]), text(&begun["id"]));
        let confirm = |code: &str| {
            place.send("POST", &format!("/auth/factors/{id}/confirm"), &challenge, json!({"code": code}))
        };
        is_wrong(&confirm("000000"));
        let confirmed = confirm(&totp(&secret, place.now()));
        let access = token(&confirmed);
        assert_eq!(confirmed.json()["recovery_codes"].as_array().unwrap().len(), 10);
        let trail = place.gateway.run(&["audit"], "");
        let told = ["user.add-factor", "user.login "].map(|action| trail.matches(action).count());
        assert_eq!(told, [1, 1], "{trail}");
        assert_eq!(claims_of(&access)["amr"], json!(["pwd", "otp", "mfa"]));
        assert_eq!(place.gateway.get("/safe/x", Some(&access)).status, 200);
        assert_eq!(place.gateway.refresh(&text(&confirmed.json()["refresh_token"])).status, 200);
        assert_eq!(confirm(&totp(&secret, place.now() + 30)).status, 401);
        let asked = place.challenge("root");
        token(&place.answer(&asked, "totp", &totp(&secret, place.now() + 30)));
        // The others go on without.
        assert_eq!(place.gateway.get("/api/x", Some(&place.gateway.token("bob"))).status, 200);
    }
}

#[test]
fn of_the_factors_of_who_must_have_one_two_calls_at_once_leave_one() {
    for settings in stores() {
        let place = Place::start(settings.auth("  mfa: {required_for: [admin]}\n"));
        place.gateway.run(&["user", "add", "root", "--role", "admin", "--password-stdin"], PASSWORD);
        let challenge = text(&place.gateway.try_login("root", PASSWORD).json()["challenge"]);
        let begun = place.send("POST", "/auth/factors", &challenge, json!({"type": "totp"})).json();
        let (secret, first) = (text(&begun["secret"]), text(&begun["id"]));
        let code = json!({"code": totp(&secret, place.now())});
        let access = token(&place.send("POST", &format!("/auth/factors/{first}/confirm"), &challenge, code));
        let (_, second, _) = place.app(&access);
        let remove = |id: &str| {
            let response = place.gateway.send("DELETE", &format!("/auth/factors/{id}"), Some(&access), None);
            response.status
        };
        let (one, other) = std::thread::scope(|scope| {
            let (one, other) = (scope.spawn(|| remove(&first)), scope.spawn(|| remove(&second)));
            (one.join().unwrap(), other.join().unwrap())
        });
        assert_eq!([one.min(other), one.max(other)], [200, 400]);
        let left = place.gateway.get("/auth/factors", Some(&access)).json();
        assert_eq!(left["factors"].as_array().unwrap().len(), 1, "{left}");
    }
}

#[test]
fn a_passkey_is_a_second_factor_and_a_way_in_alone() {
    for settings in stores() {
        let place = Place::start(settings);
        let access = place.gateway.token("alice");
        let (mut passkey, id) = place.passkey(&access);
        let asked = place.challenge("alice");
        assert_eq!(asked["methods"], json!(["passkey", "recovery"]));
        assert_eq!(asked["publicKey"]["rpId"], "app.example.com");
        let opened = place.show(&asked, &passkey);
        assert_eq!(claims_of(&token(&opened))["amr"], json!(["pwd", "pop", "mfa"]));
        // What was signed for one challenge is nothing for another.
        is_wrong(&place.show(&asked, &passkey));

        let alone = || place.gateway.post("/auth/login/passkey", &json!({})).json();
        let asked = alone();
        assert_eq!(
            (&asked["publicKey"]["allowCredentials"], &asked["publicKey"]["userVerification"]),
            (&json!([]), &json!("required"))
        );
        let opened = place.show(&asked, &passkey);
        assert_eq!(opened.json()["username"], "alice");
        let access = token(&opened);
        assert_eq!(claims_of(&access)["amr"], json!(["pop", "mfa"]));
        assert_eq!(place.gateway.get("/safe/x", Some(&access)).status, 200);
        is_wrong(&place.show(&asked, &passkey));

        // Alone, it must know whose hand it is in; beside a password it need not.
        passkey.is_verified = false;
        is_wrong(&place.show(&alone(), &passkey));
        let opened = place.show(&place.challenge("alice"), &passkey);
        assert_eq!(claims_of(&token(&opened))["amr"], json!(["pwd", "pop", "mfa"]));
        passkey.is_verified = true;

        // A device that counts counts on.
        passkey.counter = 7;
        token(&place.show(&alone(), &passkey));
        for counter in [7, 6, 0] {
            passkey.counter = counter;
            is_wrong(&place.show(&alone(), &passkey));
        }
        passkey.counter = 8;
        token(&place.show(&alone(), &passkey));

        let listed = place.gateway.get("/auth/factors", Some(&access)).json();
        assert_eq!(
            (&listed["factors"][0]["id"], &listed["factors"][0]["type"]),
            (&json!(id), &json!("passkey"))
        );
        let removed = place.send("DELETE", &format!("/auth/factors/{id}"), &access, json!({}));
        assert_eq!(removed.status, 200, "{removed:?}");
        passkey.counter = 9;
        is_wrong(&place.show(&alone(), &passkey));
    }
}

#[test]
fn a_passkey_of_another_origin_party_account_or_question_is_refused() {
    let place = Place::start(settings());
    let alice = place.gateway.token("alice");
    let (mut passkey, _) = place.passkey(&alice);
    let (others, _) = place.passkey(&place.gateway.token("bob"));
    let asked = || place.gateway.post("/auth/login/passkey", &json!({})).json();

    passkey.origin = "https://app.example.com.evil.example".to_owned();
    is_wrong(&place.show(&asked(), &passkey));
    passkey.origin = ORIGIN.to_owned();
    passkey.cross_origin = true;
    is_wrong(&place.show(&asked(), &passkey));
    passkey.cross_origin = false;
    passkey.party = "evil.example".to_owned();
    is_wrong(&place.show(&asked(), &passkey));
    passkey.party = "app.example.com".to_owned();
    passkey.is_present = false;
    is_wrong(&place.show(&asked(), &passkey));
    passkey.is_present = true;
    let owner = std::mem::replace(&mut passkey.user, others.user.clone());
    is_wrong(&place.show(&asked(), &passkey));
    passkey.user = owner;
    // The id of one with the signature of another.
    let id = std::mem::replace(&mut passkey.id, others.id.clone());
    is_wrong(&place.show(&asked(), &passkey));
    passkey.id = id;
    // Another's passkey is no second factor of mine.
    let challenge = place.challenge("alice");
    let shown = others.assert(&challenge["publicKey"]);
    let body = json!({"challenge": challenge["challenge"], "method": "passkey", "credential": shown});
    is_wrong(&place.gateway.post("/auth/login/factor", &body));
    // A question that was made for somebody else.
    let (mine, theirs) = (asked(), asked());
    let body = json!({"challenge": theirs["challenge"], "method": "passkey", "credential": passkey.assert(&mine["publicKey"])});
    is_wrong(&place.gateway.post("/auth/login/factor", &body));
    token(&place.show(&asked(), &passkey));

    // Making one for a question that was put to another account, or twice.
    let begin = |token: &str| place.send("POST", "/auth/factors", token, json!({"type": "passkey"})).json();
    let (mine, theirs) = (begin(&alice), begin(&place.gateway.token("carol")));
    let (_, made) = Passkey::create(&theirs["publicKey"], ORIGIN);
    let confirm = |begun: &Value, made: &Value| {
        place.send(
            "POST",
            &format!("/auth/factors/{}/confirm", text(&begun["id"])),
            &alice,
            json!({"credential": made}),
        )
    };
    is_wrong(&confirm(&mine, &made));
    assert_eq!(confirm(&theirs, &made).status, 404);
    let twice = passkey.attest(&mine["publicKey"]);
    let refused = confirm(&mine, &twice);
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (400, Some("factor_not_accepted")),
        "{refused:?}"
    );
    for broken in [
        json!({}),
        json!({"id": "", "type": "public-key", "response": {"clientDataJSON": "", "attestationObject": ""}}),
    ] {
        assert!([400, 401].contains(&confirm(&mine, &broken).status), "{broken}");
    }
}

#[test]
fn another_accounts_factors_cannot_be_seen_removed_or_confirmed() {
    let place = Place::start(settings());
    let (alice, bob) = (place.gateway.token("alice"), place.gateway.token("bob"));
    let (secret, id, _) = place.app(&alice);
    assert_eq!(place.send("DELETE", &format!("/auth/factors/{id}"), &bob, json!({})).status, 404);
    assert_eq!(place.gateway.get("/auth/factors", Some(&bob)).json()["factors"], json!([]));
    let begun = place.send("POST", "/auth/factors", &alice, json!({"type": "totp"})).json();
    let path = format!("/auth/factors/{}/confirm", text(&begun["id"]));
    let code = json!({"code": totp(&text(&begun["secret"]), place.now())});
    assert_eq!(place.send("POST", &path, &bob, code.clone()).status, 404);
    assert_eq!(place.send("POST", &path, &alice, code.clone()).status, 200);
    assert_eq!(place.send("POST", &path, &alice, code).status, 404, "it is confirmed");
    for id in ["x", "", "00000000-0000-0000-0000-000000000000"] {
        assert_eq!(
            place.send("DELETE", &format!("/auth/factors/{id}"), &alice, json!({})).status,
            404,
            "{id}"
        );
    }
    // An account has so many and no more.
    let begun = (0..30).map(|_| place.send("POST", "/auth/factors", &bob, json!({"type": "totp"})).status);
    let statuses: Vec<u16> = begun.collect();
    assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 20, "{statuses:?}");
    assert_eq!(place.gateway.get("/auth/factors", None).status, 401);
    let log = place.gateway.log();
    assert!(!log.contains(&secret), "a secret is logged");
}

#[test]
fn a_changed_or_disabled_account_meets_no_challenge_of_before() {
    let place = Place::start(settings());
    let access = place.gateway.token("alice");
    let (_, _, codes) = place.app(&access);
    let asked = place.challenge("alice");
    place.gateway.run(&["user", "set-roles", "alice", "--role", "user", "--role", "staff"], "");
    is_wrong(&place.answer(&asked, "recovery", &codes[0]));
    let asked = place.challenge("alice");
    place.gateway.run(&["user", "disable", "alice"], "");
    is_wrong(&place.answer(&asked, "recovery", &codes[0]));
    is_wrong(&place.gateway.try_login("alice", PASSWORD));
}

#[test]
fn a_challenge_to_get_a_factor_is_nothing_once_there_is_one() {
    for settings in stores() {
        let place = Place::start(settings.auth("  mfa: {required_for: [admin]}\n"));
        place.gateway.run(&["user", "add", "root", "--role", "admin", "--password-stdin"], PASSWORD);
        let challenge = || text(&place.gateway.try_login("root", PASSWORD).json()["challenge"]);
        let (owner, thief) = (challenge(), challenge());
        // Both have begun one; the first to confirm it is the owner.
        let begun = place.send("POST", "/auth/factors", &thief, json!({"type": "totp"})).json();
        place.app(&owner);
        let confirm = json!({"code": totp(&text(&begun["secret"]), place.now())});
        let refused =
            place.send("POST", &format!("/auth/factors/{}/confirm", text(&begun["id"])), &thief, confirm);
        assert_eq!(refused.status, 401, "{refused:?}");
        assert_eq!(place.send("POST", "/auth/factors", &thief, json!({"type": "totp"})).status, 401);
        is_wrong(&place.answer(
            &place.challenge("root"),
            "totp",
            &totp(&text(&begun["secret"]), place.now()),
        ));
    }
    let place = Place::start(settings().auth("  mfa: {required_for: [user]}\n"));
    let made = place.gateway.post("/auth/register", &json!({"username": "alice", "password": PASSWORD}));
    assert_eq!(
        (made.status, made.json()["code"].as_str()),
        (401, Some("factor_enrolment_required")),
        "{made:?}"
    );
    let challenge = text(&made.json()["challenge"]);
    let (secret, id, _) = place.app(&challenge);
    let access = token(&place.answer(&place.challenge("alice"), "totp", &totp(&secret, place.now() + 30)));
    let kept = place.send("DELETE", &format!("/auth/factors/{id}"), &access, json!({}));
    assert_eq!((kept.status, kept.json()["code"].as_str()), (400, Some("factor_not_accepted")), "{kept:?}");
    let (_, other, _) = place.app(&access);
    assert_eq!(place.send("DELETE", &format!("/auth/factors/{id}"), &access, json!({})).status, 200);
    assert_eq!(place.send("DELETE", &format!("/auth/factors/{other}"), &access, json!({})).status, 400);
}

#[test]
fn whatever_else_comes_along_is_no_part_of_a_second_step() {
    let place = Place::start(settings());
    let first = place.gateway.register("alice");
    let access = text(&first["access_token"]);
    let (_, _, codes) = place.app(&access);
    let dead = place.gateway.token("bob");
    place.gateway.logout(&dead);
    for (bearer, code) in [(access.as_str(), &codes[0]), (dead.as_str(), &codes[1]), ("nonsense", &codes[2])]
    {
        let asked = place.challenge("alice");
        let body = json!({"challenge": asked["challenge"], "method": "recovery", "code": code});
        token(&place.send("POST", "/auth/login/factor", bearer, body));
    }
    // A proof gives the session another refresh token; the one before is refused and ends nothing.
    let asked = place.gateway.send("POST", "/auth/factors/challenge", Some(&access), None).json();
    let body = json!({"challenge": asked["challenge"], "method": "recovery", "code": codes[3]});
    let risen = place.send("POST", "/auth/login/factor", &access, body);
    token(&risen);
    assert_eq!(place.gateway.refresh(&text(&first["refresh_token"])).status, 401);
    assert_eq!(place.gateway.refresh(&text(&risen.json()["refresh_token"])).status, 200);
}

#[test]
fn a_proof_by_a_factor_that_is_gone_is_none_by_the_next_one() {
    for settings in stores() {
        let place = Place::start(settings);
        let first = place.gateway.register("alice");
        let access = text(&first["access_token"]);
        let (_, id, _) = place.app(&access);
        let session = place.gateway.refresh(&text(&first["refresh_token"])).json();
        let access = text(&session["access_token"]);
        assert_eq!(place.send("DELETE", &format!("/auth/factors/{id}"), &access, json!({})).status, 200);
        let after = place.gateway.refresh(&text(&session["refresh_token"]));
        assert_eq!(claims_of(&token(&after))["amr"], json!(["pwd"]));
        // Another session gets a new one: this one has not shown it.
        place.app(&text(&place.gateway.login("alice")["access_token"]));
        lacks_proof(&place.gateway.get("/auth/factors", Some(&access)), ", acr_values=\"mfa\", max_age=300");
    }
}

#[test]
fn an_operator_resets_the_factors_of_somebody_who_lost_them() {
    let mail = MailServer::start("plain");
    let port = mail.port;
    let place = Place::start(settings().auth(&format!(
        "  email:\n    smtp: {{host: 127.0.0.1, port: {port}, encryption: none}}\n    from: no-reply@example.com\n"
    )));
    let body = json!({"username": "alice", "password": PASSWORD, "email": "alice@example.com"});
    let access = text(&place.gateway.post("/auth/register", &body).json()["access_token"]);
    let verify = token_of(&mail.mail(0));
    assert_eq!(place.gateway.post("/auth/email/verify", &json!({"token": verify})).status, 200);
    place.app(&access);
    assert!(mail.mail(1)["subject"].as_str().unwrap().contains("How you sign in"));
    place.challenge("alice");

    let admin = place.gateway.admin_token("root");
    let id = text(&place.gateway.get("/auth/me", Some(&access)).json()["user_id"]);
    let reset = place.gateway.admin("DELETE", &format!("/api/users/{id}/factors"), Some(&admin), None);
    assert_eq!(reset.status, 200, "{reset:?}");
    assert_eq!(place.gateway.get("/auth/me", Some(&access)).status, 401);
    let told = mail.mail(2);
    assert_eq!(
        (told["to"].clone(), told["subject"].as_str().unwrap().contains("How you sign in")),
        (json!(["alice@example.com"]), true)
    );
    let access = text(&place.gateway.login("alice")["access_token"]);
    assert_eq!(place.gateway.get("/auth/factors", Some(&access)).json()["factors"], json!([]));
    place.app(&access);
    place.gateway.run(&["user", "reset-factors", "alice"], "");
    place.gateway.login("alice");
    let trail = place.gateway.run(&["audit"], "");
    assert_eq!(trail.matches("user.reset-factors").count(), 2, "{trail}");
    assert!(trail.contains("user.add-factor"), "{trail}");
}

#[test]
fn a_code_by_mail_is_the_last_way_and_none_for_who_reset_the_password_by_mail() {
    for store in ["", &shared_database()] {
        let mail = MailServer::start("plain");
        let port = mail.port;
        let settings = settings().auth(&format!(
            "  email:\n    smtp: {{host: 127.0.0.1, port: {port}, encryption: none}}\n    from: no-reply@example.com\n"
        ));
        let settings = match store {
            "" => settings,
            url => Settings { store: format!("{{url: \"{url}\"}}"), ..settings },
        };
        let place = Place::start(settings);
        let body = json!({"username": "alice", "password": PASSWORD, "email": "alice@example.com"});
        let access = text(&place.gateway.post("/auth/register", &body).json()["access_token"]);
        let (_, _, codes) = place.app(&access);
        // Nobody has shown the address to be theirs.
        assert_eq!(place.challenge("alice")["methods"], json!(["totp", "recovery"]));
        let verify = token_of(&mail.mail(0));
        assert_eq!(place.gateway.post("/auth/email/verify", &json!({"token": verify})).status, 200);

        let asked = place.challenge("alice");
        assert_eq!(asked["methods"], json!(["totp", "recovery", "email"]));
        let send = json!({"challenge": asked["challenge"], "method": "email"});
        assert_eq!(place.gateway.post("/auth/login/factor", &send).status, 200);
        let code = eventually("a code is sent", || {
            let mails = mail.mails();
            let sent = mails.iter().find(|mail| mail["subject"] == "Your code to sign in")?;
            let text = sent["text"].as_str().unwrap();
            Some(
                text.split_whitespace()
                    .find(|word| word.len() == 8 && word.parse::<u32>().is_ok())?
                    .to_owned(),
            )
        });
        assert_eq!(place.gateway.log().matches(&code).count(), 0, "a code is logged");
        is_wrong(&place.answer(&asked, "email", "00000000"));
        // A second mail for one challenge is not sent.
        assert_eq!(place.gateway.post("/auth/login/factor", &send).status, 200);
        let other = place.challenge("alice");
        is_wrong(&place.answer(&other, "email", &code));
        let opened = place.answer(&asked, "email", &code);
        assert_eq!(claims_of(&token(&opened))["amr"], json!(["pwd", "otp", "mfa"]));
        is_wrong(&place.answer(&asked, "email", &code));
        let sent = mail.mails().iter().filter(|mail| mail["subject"] == "Your code to sign in").count();
        assert_eq!(sent, 1);

        // An address that was given before there was a factor, and verified after, is nobody's second factor.
        let bob = json!({"username": "bob", "password": PASSWORD, "email": "bob@example.com"});
        let bob = text(&place.gateway.post("/auth/register", &bob).json()["access_token"]);
        let verify = |index| json!({"token": token_of(&mail.to("bob@example.com", index))});
        assert_eq!(place.gateway.post("/auth/email/verify", &verify(0)).status, 200);
        let change = json!({"new_email": "thief@example.com"});
        let bob = token(&place.send("POST", "/auth/change", &bob, change));
        place.app(&bob);
        let theirs = json!({"token": token_of(&mail.to("thief@example.com", 0))});
        assert_eq!(place.gateway.post("/auth/email/verify", &theirs).status, 200);
        assert_eq!(place.challenge("bob")["methods"], json!(["totp", "recovery"]));

        // Whoever reads the mails has set the password: another mail proves nothing.
        place.gateway.post("/auth/password/forgot", &json!({"email": "alice@example.com"}));
        let reset = eventually("a link is sent", || {
            let mails = mail.mails();
            mails.iter().find(|mail| mail["subject"].as_str().unwrap().contains("eset")).map(token_of)
        });
        let reset = json!({"token": reset, "new_password": PASSWORD.to_owned() + "2"});
        assert_eq!(place.gateway.post("/auth/password/reset", &reset).status, 200);
        let asked = place.gateway.try_login("alice", &(PASSWORD.to_owned() + "2")).json();
        assert_eq!(asked["methods"], json!(["totp", "recovery"]));
        let send = json!({"challenge": asked["challenge"], "method": "email"});
        is_wrong(&place.gateway.post("/auth/login/factor", &send));
        token(&place.answer(&asked, "recovery", &codes[0]));
    }
}

#[test]
fn without_a_public_address_there_are_no_passkeys() {
    let gateway = Gateway::alone(Settings::default());
    let access = gateway.token("alice");
    let refused = gateway.send("POST", "/auth/factors", Some(&access), Some(&json!({"type": "passkey"})));
    assert_eq!(
        (refused.status, refused.json()["code"].as_str()),
        (400, Some("factor_not_accepted")),
        "{refused:?}"
    );
    assert_eq!(gateway.post("/auth/login/passkey", &json!({})).status, 404);
    for body in [json!({}), json!({"type": ""}), json!({"type": "sms"}), json!({"type": 1})] {
        assert_eq!(gateway.send("POST", "/auth/factors", Some(&access), Some(&body)).status, 400, "{body}");
    }
}
