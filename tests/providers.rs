//! Sign-in by others: by a certified provider, and by one that says what it likes.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Lines},
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{
    Client, Gateway, PASSWORD, Response, Seen, Settings, Upstream,
    authenticator::totp,
    browser::{Browser, forms, only_form, with_pages},
    claims_of, errors_of, eventually,
    issuer::now,
    ok,
    provider::{Provider, decoded},
    shared_database,
};

fn settings(url: &str, more: &str) -> Settings {
    let provider = format!(
        "providers:\n  - {{name: corp, title: Corp, issuer: \"{url}\", client_id: gateway, client_secret: the secret of the gateway there{more}}}\n"
    );
    Settings::default().extra(&with_pages("")).extra(&provider).auth(
        "  throttle: {registrations: {requests: 1000, per: 1m}}\n  password: {argon2: {memory: 64KiB, iterations: 1}}\n",
    )
}

fn start(provider: &Provider, more: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    (Gateway::start(&upstream, settings(&provider.url, more)), upstream)
}

#[track_caller]
fn location(response: &Response) -> String {
    assert_eq!(response.status, 303, "{response:?}");
    response.header("location").unwrap().to_owned()
}

/// The parameters of an address.
fn query(address: &str) -> BTreeMap<String, String> {
    let pairs = address.split_once('?').unwrap().1.split('&').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), decoded(value))).collect()
}

/// Goes to the provider from the login page, and returns what it is asked.
#[track_caller]
fn set_out(browser: &mut Browser, gateway: &Gateway, path: &str) -> BTreeMap<String, String> {
    let login = location(&browser.go(gateway, path));
    let page = browser.go(gateway, &login).text();
    let button = page.split("<a class=\"button\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    assert!(page.contains("Continue with Corp"), "{page}");
    query(&location(&browser.go(gateway, &button.replace("&amp;", "&"))))
}

/// Comes back from the provider, as a browser does that was sent there.
#[track_caller]
fn come_back(browser: &mut Browser, gateway: &Gateway, parameters: &str) -> Response {
    let path = format!("/auth/ui/provider/corp/callback?{parameters}");
    let headers = ["Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: cross-site"];
    browser.send(gateway, "GET", &path, &headers, "")
}

/// Signs in by the provider, which says these claims.
#[track_caller]
fn sign_in(browser: &mut Browser, gateway: &Gateway, provider: &Provider, claims: Value) -> Response {
    let asked = set_out(browser, gateway, "/api/orders?page=2");
    let code = provider.code(&asked, &claims);
    come_back(browser, gateway, &format!("code={code}&state={}", asked["state"]))
}

fn name(browser: &Browser) -> String {
    claims_of(browser.session().expect("a session"))["name"].as_str().unwrap().to_owned()
}

#[track_caller]
fn is_failed(response: &Response, browser: &Browser, status: u16) {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    assert!(browser.session().is_none());
}

/// A certified provider.
struct Certified {
    process: Child,
    host: String,
    /// What it prints, and would end by if nobody could read it.
    _prints: Lines<BufReader<ChildStdout>>,
}

impl Drop for Certified {
    fn drop(&mut self) {
        self.end();
    }
}

impl Certified {
    fn start() -> Self {
        let root = env!("CARGO_MANIFEST_DIR");
        let mut process = Command::new("node")
            .arg(format!("{root}/tests/peers/provider.mjs"))
            .args([format!("{root}/target/peers"), "http://127.0.0.1:1".to_owned()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let line = lines.find_map(|line| line.ok().filter(|line| line.starts_with("port "))).unwrap();
        Self { process, host: format!("127.0.0.1:{}", &line[5..]), _prints: lines }
    }

    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    fn url(&self) -> String {
        format!("http://{}", self.host)
    }

    fn get(&self, path: &str, cookies: &str) -> Response {
        let mut client = Client::connect(self.host.parse().unwrap());
        let host = &self.host;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\n\r\n")).response()
    }

    /// Says who signs in there from now on.
    fn signs_in(&self, query: &str) {
        assert_eq!(self.get(&format!("/as?{query}"), "").status, 200);
    }

    /// Goes there with what the gateway asks, with the cookies that it sets, until it leads back. Returns the parameters.
    #[track_caller]
    fn lead_back(&self, mut address: String) -> String {
        let mut cookies: BTreeMap<String, String> = BTreeMap::new();
        while !address.starts_with("https://app.example.com/") {
            let path = address.strip_prefix(&self.url()).unwrap_or(&address);
            let pairs: Vec<String> = cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
            let response = self.get(path, &pairs.join("; "));
            for (name, value) in &response.headers {
                if name.eq_ignore_ascii_case("set-cookie") {
                    let (name, value) = value.split(';').next().unwrap().split_once('=').unwrap();
                    cookies.insert(name.to_owned(), value.to_owned());
                }
            }
            assert!(response.status == 302 || response.status == 303, "{response:?} {}", response.text());
            address = response.header("location").unwrap().to_owned();
        }
        address.split_once('?').unwrap().1.to_owned()
    }
}

/// The address to which the button of a provider leads.
#[track_caller]
fn set_out_from(browser: &mut Browser, gateway: &Gateway, name: &str) -> String {
    location(&browser.go(gateway, &format!("/auth/ui/provider/{name}?return_to=/api/x")))
}

#[test]
fn people_sign_in_by_a_certified_provider_and_are_the_same_again() {
    let provider = Certified::start();
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings(&provider.url(), ", register: true"));
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut browser = Browser::default();
        let login = location(&browser.go(&gateway, "/api/orders?page=2"));
        let page = browser.go(&gateway, &login).text();
        let button = page.split("<a class=\"button\" href=\"").nth(1).unwrap().split('"').next().unwrap();
        let address = location(&browser.go(&gateway, &button.replace("&amp;", "&")));
        let parameters = provider.lead_back(address);
        assert_eq!(query(&format!("?{parameters}"))["iss"], provider.url());
        assert_eq!(location(&come_back(&mut browser, &gateway, &parameters)), "/api/orders?page=2");
        assert_eq!(browser.fetch(&gateway, "GET", "/api/x").status, 200);
        let claims = claims_of(browser.session().unwrap());
        assert_eq!((&claims["name"], &claims["amr"]), (&json!("anna"), &json!(["fed"])));
        ids.push(claims["sub"].clone());
        // What came back is good once.
        is_failed(&come_back(&mut Browser::default(), &gateway, &parameters), &Browser::default(), 400);
    }
    assert_eq!(ids[0], ids[1], "it is one account");
    let account = gateway.run(&["user", "show", "anna"], "");
    assert!(account.contains("anna@example.com") && account.contains("verified"), "{account}");
}

#[test]
fn what_a_certified_provider_says_to_another_browser_sign_in_or_gateway_signs_nobody_in() {
    let (mut corp, other) = (Certified::start(), Certified::start());
    let both = format!(
        ", register: true}}\n  - {{name: other, issuer: \"{}\", client_id: gateway, client_secret: the secret of the gateway there, register: true",
        other.url()
    );
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings(&corp.url(), &both));
    // The nonce of another sign-in, in a token that is right otherwise.
    let mut browser = Browser::default();
    let address = set_out_from(&mut browser, &gateway, "corp");
    let nonce = &query(&address)["nonce"];
    let parameters = corp.lead_back(address.replace(nonce.as_str(), "of-another-sign-in"));
    is_failed(&come_back(&mut browser, &gateway, &parameters), &browser, 400);
    // The challenge of another one, whose verifier is not there.
    let address = set_out_from(&mut browser, &gateway, "corp");
    let challenge = &query(&address)["code_challenge"];
    let parameters = corp.lead_back(address.replace(challenge.as_str(), &"A".repeat(43)));
    is_failed(&come_back(&mut browser, &gateway, &parameters), &browser, 400);
    // Once more, with the cookies of before.
    let address = set_out_from(&mut browser, &gateway, "corp");
    let parameters = corp.lead_back(address);
    let mut again = browser.clone();
    assert_eq!(location(&come_back(&mut browser, &gateway, &parameters)), "/api/x");
    is_failed(&come_back(&mut again, &gateway, &parameters), &again, 400);
    // Of one provider, as if it were the other one's.
    let mut browser = Browser::default();
    let asked = query(&set_out_from(&mut browser, &gateway, "corp"));
    let of_the_other = other.lead_back(set_out_from(&mut browser, &gateway, "other"));
    is_failed(&come_back(&mut browser, &gateway, &of_the_other), &browser, 400);
    let code = &query(&format!("?{of_the_other}"))["code"];
    let mixed = format!("code={code}&state={}", asked["state"]);
    is_failed(&come_back(&mut browser, &gateway, &mixed), &browser, 400);
    // An address that it has not verified is not verified here, either.
    corp.signs_in("sub=bert&unverified=1");
    let mut browser = Browser::default();
    let parameters = corp.lead_back(set_out_from(&mut browser, &gateway, "corp"));
    assert_eq!(location(&come_back(&mut browser, &gateway, &parameters)), "/api/x");
    let account = gateway.run(&["user", "show", "bert"], "");
    assert!(account.contains("bert@example.com") && account.contains("email verified  no"), "{account}");
    // It goes away between the sign-in there and the one here.
    let mut browser = Browser::default();
    let parameters = corp.lead_back(set_out_from(&mut browser, &gateway, "corp"));
    corp.end();
    is_failed(&come_back(&mut browser, &gateway, &parameters), &browser, 502);
}

#[test]
fn a_response_that_is_not_of_this_browser_provider_or_time_signs_nobody_in() {
    let provider = Provider::start();
    let (gateway, _upstream) = start(&provider, ", register: true");
    // Another browser's, none, twice, changed.
    let mut victim = Browser::default();
    let asked = set_out(&mut victim, &gateway, "/api/x");
    let code = provider.code(&asked, &json!({}));
    let good = format!("code={code}&state={}", asked["state"]);
    let mut thief = Browser::default();
    is_failed(&come_back(&mut thief, &gateway, &good), &thief, 400);
    set_out(&mut thief, &gateway, "/api/x");
    is_failed(&come_back(&mut thief, &gateway, &good), &thief, 400);
    for bad in [
        "",
        "code=x",
        "state=x&code=x",
        &format!("code={code}&state={}x", asked["state"]),
        // Each once.
        &format!("{good}&state=x"),
        &format!("{good}&code={code}"),
        &format!("{good}&iss=a&iss=b"),
    ] {
        is_failed(&come_back(&mut victim, &gateway, bad), &victim, 400);
    }
    // Forged cookies of a ticket.
    let ticket = victim.cookies.keys().find(|name| name.contains("ticket")).unwrap().clone();
    let mut forged = victim.clone();
    forged.cookies.insert(ticket.clone(), format!("{}A", victim.cookies[&ticket]));
    is_failed(&come_back(&mut forged, &gateway, &good), &forged, 400);
    let kept = victim.clone();
    assert_eq!(location(&come_back(&mut victim, &gateway, &good)), "/api/x");
    assert!(!victim.cookies.keys().any(|name| name.contains("ticket")), "{:?}", victim.cookies.keys());
    // The browser's own cookies once more, as somebody who has copied them would send them.
    let mut again = kept;
    let session = again.cookies.remove("__Host-authgate");
    assert!(session.is_none());
    is_failed(&come_back(&mut again, &gateway, &good), &again, 400);

    // What its token says is another's, old, or of another sign-in.
    for claims in [
        json!({"nonce": "another"}),
        json!({"nonce": null}),
        json!({"aud": "another"}),
        json!({"aud": ["gateway", "another"]}),
        json!({"aud": ["gateway", "another"], "azp": "another"}),
        json!({"azp": "another"}),
        json!({"iss": "https://another.example.com"}),
        json!({"exp": now() - 120}),
        json!({"iat": now() + 600}),
        json!({"iat": now() - 7_200}),
        json!({"nbf": now() + 600}),
        json!({"exp": "soon"}),
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": "x".repeat(256)}),
        json!({"sub": "a\nb"}),
    ] {
        let mut browser = Browser::default();
        let failed = sign_in(&mut browser, &gateway, &provider, claims.clone());
        assert_eq!(failed.status, 400, "{claims}: {failed:?}");
        assert!(browser.session().is_none());
    }
    // An access token is no ID token.
    provider.call_tokens("at+jwt");
    is_failed(&sign_in(&mut Browser::default(), &gateway, &provider, json!({})), &Browser::default(), 400);
    provider.call_tokens("JWT");
    let with_both = json!({"aud": ["gateway", "another"], "azp": "gateway", "sub": "both"});
    let mut browser = Browser::default();
    assert_eq!(location(&sign_in(&mut browser, &gateway, &provider, with_both)), "/api/orders?page=2");
    // The code of one sign-in with the state of another: the verifier is another.
    let mut browser = Browser::default();
    let (one, other) = (set_out(&mut browser, &gateway, "/api/x"), set_out(&mut browser, &gateway, "/api/y"));
    let code = provider.code(&one, &json!({"nonce": other["nonce"]}));
    is_failed(
        &come_back(&mut browser, &gateway, &format!("code={code}&state={}", other["state"])),
        &browser,
        400,
    );
    // Two tabs do not get in each other's way.
    let (one, other) = (set_out(&mut browser, &gateway, "/api/x"), set_out(&mut browser, &gateway, "/api/y"));
    let code = provider.code(&one, &json!({}));
    let first = come_back(&mut browser, &gateway, &format!("code={code}&state={}", one["state"]));
    assert_eq!(location(&first), "/api/x");
    let code = provider.code(&other, &json!({}));
    let second = come_back(&mut browser, &gateway, &format!("code={code}&state={}", other["state"]));
    assert_eq!(location(&second), "/api/y");
}

#[test]
#[ignore = "slow"]
fn a_provider_that_is_away_refuses_or_mixes_up_is_told_so() {
    let provider = Provider::start();
    provider.set_away(true);
    // It does not keep the gateway from its start.
    let (gateway, _upstream) = start(&provider, ", register: true");
    let mut browser = Browser::register(&gateway, "alice");
    browser.cookies.clear();
    is_failed(&browser.go(&gateway, "/auth/ui/provider/corp"), &browser, 502);
    assert_eq!(browser.go(&gateway, "/auth/ui/provider/nobody").status, 404);
    provider.set_away(false);
    let asked = set_out(&mut browser, &gateway, "/api/x");
    let denied = come_back(&mut browser, &gateway, &format!("error=access_denied&state={}", asked["state"]));
    is_failed(&denied, &browser, 403);
    let asked = set_out(&mut browser, &gateway, "/api/x");
    let failed = come_back(&mut browser, &gateway, &format!("error=server_error&state={}", asked["state"]));
    is_failed(&failed, &browser, 502);
    let asked = set_out(&mut browser, &gateway, "/api/x");
    let code = provider.code(&asked, &json!({}));
    provider.set_away(true);
    is_failed(
        &come_back(&mut browser, &gateway, &format!("code={code}&state={}", asked["state"])),
        &browser,
        502,
    );
    provider.set_away(false);

    // Of another issuer, in any case; of none, where it says that it tells (RFC 9207).
    for (metadata, iss, status) in [
        (json!({}), "&iss=https%3A%2F%2Fanother.example.com".to_owned(), 400),
        (json!({"authorization_response_iss_parameter_supported": true}), String::new(), 400),
        (
            json!({"authorization_response_iss_parameter_supported": true}),
            format!("&iss={}", provider.url.replace(':', "%3A").replace('/', "%2F")),
            303,
        ),
    ] {
        provider.declare(metadata);
        let (gateway, _upstream) = start(&provider, ", register: true");
        let mut browser = Browser::default();
        let asked = set_out(&mut browser, &gateway, "/api/x");
        let code = provider.code(&asked, &json!({}));
        let back = come_back(&mut browser, &gateway, &format!("code={code}&state={}{iss}", asked["state"]));
        assert_eq!(back.status, status, "{iss}: {back:?}");
    }
    // Its configuration is another issuer's, or leads elsewhere.
    for metadata in
        [json!({"issuer": "https://another.example.com"}), json!({"token_endpoint": "http://10.0.0.1/token"})]
    {
        provider.declare(metadata);
        let (gateway, _upstream) = start(&provider, "");
        assert_eq!(Browser::default().go(&gateway, "/auth/ui/provider/corp").status, 502);
    }
    // New keys are found.
    provider.declare(json!({}));
    let (gateway, _upstream) = start(&provider, ", register: true");
    location(&sign_in(&mut Browser::default(), &gateway, &provider, json!({})));
    provider.rotate("b");
    thread::sleep(Duration::from_secs(10));
    location(&sign_in(&mut Browser::default(), &gateway, &provider, json!({})));
}

#[test]
fn an_account_is_made_linked_or_neither_as_the_config_says() {
    for is_shared in [false, true] {
        let start = |provider: &Provider, more: &str| {
            let upstream = Upstream::start();
            let mut settings = settings(&provider.url, more);
            if is_shared {
                settings.store = format!("{{url: \"{}\"}}", shared_database());
            }
            (Gateway::start(&upstream, settings), upstream)
        };
        let provider = Provider::start();
        let (gateway, _upstream) = start(&provider, "");
        let mut browser = Browser::default();
        is_failed(&sign_in(&mut browser, &gateway, &provider, json!({})), &browser, 403);
        drop(gateway);

        let (gateway, _upstream) = start(&provider, ", register: true, roles: {map: {crew: staff}}");
        // Named by what they are called there, made free by a suffix.
        let sub =
            |sub: &str| json!({"sub": sub, "preferred_username": "Bob Jones", "roles": ["crew", "admin"]});
        for (index, expected) in ["bob-jones", "bob-jones-2"].iter().enumerate() {
            let mut browser = Browser::default();
            location(&sign_in(&mut browser, &gateway, &provider, sub(&index.to_string())));
            assert_eq!(name(&browser), *expected);
            assert_eq!(claims_of(browser.session().unwrap())["roles"], json!(["staff", "user"]));
        }
        let mut browser = Browser::default();
        let by_address = json!({"sub": "by address", "email": "carol@example.com", "email_verified": true});
        location(&sign_in(&mut browser, &gateway, &provider, by_address));
        assert_eq!(name(&browser), "carol");
        // Roles follow those there; what ended for them is ended.
        let mut again = Browser::default();
        let without = json!({"sub": "0", "roles": []});
        location(&sign_in(&mut again, &gateway, &provider, without));
        assert_eq!(claims_of(again.session().unwrap())["roles"], json!(["user"]));
        // An account that was disabled stays so.
        gateway.run(&["user", "disable", "carol"], "");
        let mut browser = Browser::default();
        is_failed(&sign_in(&mut browser, &gateway, &provider, json!({"sub": "by address"})), &browser, 403);
        drop(gateway);

        // By domain, and only with a verified address.
        let (gateway, _upstream) = start(&provider, ", register: [example.com]");
        for (email, verified, status) in [
            ("dave@example.com", json!(true), 303),
            ("erin@example.com", json!(false), 403),
            ("erin@example.com", json!("true"), 403),
            ("erin@example.com", Value::Null, 403),
            ("erin@other.example.com", json!(true), 403),
            ("erin@example.com.evil.example", json!(true), 403),
        ] {
            let claims =
                json!({"sub": format!("{email} {verified}"), "email": email, "email_verified": verified});
            let back = sign_in(&mut Browser::default(), &gateway, &provider, claims);
            assert_eq!(back.status, status, "{email} {verified}: {back:?}");
        }
        drop(gateway);
        let (gateway, _upstream) = start(&provider, ", register: [example.com], string_booleans: true");
        let claims = json!({"sub": "text", "email": "frank@example.com", "email_verified": "true"});
        location(&sign_in(&mut Browser::default(), &gateway, &provider, claims));
        // What is not in the token is told beside it, of the same person.
        provider.tell(json!({"sub": "told", "email": "grace@example.com", "email_verified": true}));
        let mut browser = Browser::default();
        location(&sign_in(&mut browser, &gateway, &provider, json!({"sub": "told"})));
        assert_eq!(name(&browser), "grace");
        // An address and whether it is verified belong together: here they are of two documents.
        provider.tell(json!({"sub": "pair", "email": "ivan@example.com", "email_verified": true}));
        let victim = json!({"sub": "pair", "email": "victim@example.com"});
        is_failed(&sign_in(&mut Browser::default(), &gateway, &provider, victim), &Browser::default(), 403);
        provider.tell(json!({"sub": "another", "email": "heidi@example.com", "email_verified": true}));
        is_failed(
            &sign_in(&mut Browser::default(), &gateway, &provider, json!({"sub": "told 2"})),
            &Browser::default(),
            400,
        );
    }
}

/// An account with a password whose address is verified.
fn verified_account(gateway: &Gateway, provider: &Provider, user: &str) {
    // By the provider, and then a password by the operator.
    let email = format!("{user}@example.com");
    let claims = json!({"sub": format!("first {user}"), "email": email, "email_verified": true});
    location(&sign_in(&mut Browser::default(), gateway, provider, claims));
    gateway.run(&["user", "set-password", user, "--password-stdin"], PASSWORD);
}

#[test]
fn an_address_links_where_both_have_verified_it_and_the_config_says_so_after_the_accounts_own_factor() {
    let provider = Provider::start();
    let (gateway, _upstream) = start(&provider, ", register: [example.com]");
    verified_account(&gateway, &provider, "alice");
    // Without `link` the same address is another account, which does not get it.
    let claims = |sub: &str, verified: bool| json!({"sub": sub, "email": "alice@example.com", "email_verified": verified});
    let mut browser = Browser::default();
    location(&sign_in(&mut browser, &gateway, &provider, claims("second", true)));
    assert_eq!(name(&browser), "alice-2");
    assert_eq!(gateway.run(&["user", "show", "alice-2"], "").matches("alice@example.com").count(), 0);

    let mut before = gateway;
    before.stop();
    let gateway = before.restart_with(settings(&provider.url, ", register: true, link: verified_email"));
    let mut browser = Browser::default();
    location(&sign_in(&mut browser, &gateway, &provider, claims("third", false)));
    assert_ne!(name(&browser), "alice");
    let mut browser = Browser::default();
    location(&sign_in(&mut browser, &gateway, &provider, claims("fourth", true)));
    assert_eq!(name(&browser), "alice");
    // What a provider says whose word for addresses is not taken links nothing later.
    let mallory = |sub: &str| json!({"sub": sub, "email": "mallory@other.example", "email_verified": true});
    let mut before = gateway;
    before.stop();
    let gateway = before.restart_with(settings(&provider.url, ", register: true"));
    let mut browser = Browser::default();
    location(&sign_in(&mut browser, &gateway, &provider, mallory("mallory")));
    let squatted = name(&browser);
    let mut before = gateway;
    before.stop();
    let gateway = before.restart_with(settings(&provider.url, ", register: true, link: verified_email"));
    let mut browser = Browser::default();
    location(&sign_in(&mut browser, &gateway, &provider, mallory("the owner")));
    assert_ne!(name(&browser), squatted);
    // With a factor, its proof comes first, and the link with it.
    let factors = "/auth/ui/account/factors";
    let mut owner = Browser::sign_in(&gateway, "alice");
    let form = forms(&owner.go(&gateway, factors)).remove(0);
    let begun = location(&owner.submit(&gateway, &form, &[("begin", "totp")]));
    let page = owner.go(&gateway, &begun);
    let secret =
        page.text().split("<code>").nth(1).unwrap().split("</code>").next().unwrap().replace(' ', "");
    assert_eq!(owner.submit(&gateway, &only_form(&page), &[("code", &totp(&secret, now()))]).status, 200);
    let mut browser = Browser::default();
    let step = location(&sign_in(&mut browser, &gateway, &provider, claims("fifth", true)));
    assert!(step.starts_with("/auth/ui/factor?return_to=%2Fapi%2Forders"), "{step}");
    assert!(browser.session().is_none());
    let links = |owner: &mut Browser| {
        owner.go(&gateway, "/auth/ui/account/providers").text().matches("name=\"id\"").count()
    };
    let before = links(&mut owner);
    let told = || {
        let trail = gateway.run(&["audit"], "");
        ["user.link", "user.login"].map(|action| trail.matches(action).count())
    };
    let [linked, logged_in] = told();
    let form = only_form(&browser.go(&gateway, &step));
    let right = browser.submit(&gateway, &form, &[("code", &totp(&secret, now() + 30))]);
    assert_eq!(location(&right), "/api/orders?page=2");
    assert_eq!(claims_of(browser.session().unwrap())["amr"], json!(["fed", "otp", "mfa"]));
    assert_eq!((name(&browser).as_str(), links(&mut owner)), ("alice", before + 1));
    assert_eq!(told(), [linked + 1, logged_in + 1]);
    // A linked account with a factor is asked for it, too.
    let mut browser = Browser::default();
    assert!(
        location(&sign_in(&mut browser, &gateway, &provider, json!({"sub": "fifth"})))
            .starts_with("/auth/ui/factor")
    );
}

#[test]
fn before_the_accounts_own_factor_a_provider_changes_nothing_and_a_disabled_account_stays_closed() {
    let provider = Provider::start();
    let mapped = ", register: true, link: verified_email, roles: {claim: groups, map: {staff: clerk}}";
    let (gateway, _upstream) = start(&provider, mapped);
    verified_account(&gateway, &provider, "alice");
    gateway.run(&["user", "set-roles", "alice", "--role", "user", "--role", "clerk"], "");
    let mut owner = Browser::sign_in(&gateway, "alice");
    let form = forms(&owner.go(&gateway, "/auth/ui/account/factors")).remove(0);
    let begun = location(&owner.submit(&gateway, &form, &[("begin", "totp")]));
    let page = owner.go(&gateway, &begun);
    let secret =
        page.text().split("<code>").nth(1).unwrap().split("</code>").next().unwrap().replace(' ', "");
    assert_eq!(owner.submit(&gateway, &only_form(&page), &[("code", &totp(&secret, now()))]).status, 200);
    // Somebody of whom the provider says that the address is theirs, and nothing of roles.
    let claims =
        |sub: &str| json!({"sub": sub, "email": "alice@example.com", "email_verified": true, "groups": []});
    let mut browser = Browser::default();
    let step = location(&sign_in(&mut browser, &gateway, &provider, claims("a stranger")));
    assert!(step.starts_with("/auth/ui/factor"), "{step}");
    let shown = || gateway.run(&["user", "show", "alice"], "");
    assert!(shown().contains("clerk"), "{}", shown());
    assert_eq!(owner.fetch(&gateway, "GET", "/api/x").status, 200);
    gateway.run(&["user", "disable", "alice"], "");
    let mut browser = Browser::default();
    is_failed(&sign_in(&mut browser, &gateway, &provider, claims("another stranger")), &browser, 403);
    assert!(!gateway.run(&["user", "list"], "").contains("alice-2"));
}

#[test]
fn people_link_and_unlink_on_their_account_page() {
    let provider = Provider::start();
    let (gateway, _upstream) = start(&provider, "");
    let mut browser = Browser::register(&gateway, "alice");
    let button = |browser: &mut Browser| {
        let page = browser.go(&gateway, "/auth/ui/account/providers").text();
        page.split("<a class=\"button\" href=\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    let link = |browser: &mut Browser, sub: &str| {
        let button = button(browser);
        let asked = query(&location(&browser.go(&gateway, &button)));
        let code = provider.code(&asked, &json!({"sub": sub, "preferred_username": "alice there"}));
        come_back(browser, &gateway, &format!("code={code}&state={}", asked["state"]))
    };
    let linked = location(&link(&mut browser, "anna"));
    let page = browser.go(&gateway, &linked);
    assert!(page.text().contains("It is connected.") && page.text().contains("alice there"), "{page:?}");
    let mut by_provider = Browser::default();
    location(&sign_in(&mut by_provider, &gateway, &provider, json!({})));
    assert_eq!(name(&by_provider), "alice");
    // Somebody who is linked is nobody else's.
    let mut bob = Browser::register(&gateway, "bob");
    assert_eq!(link(&mut bob, "anna").status, 400);
    // A link that was begun in another session makes none.
    let own = button(&mut bob);
    let asked = query(&location(&bob.go(&gateway, &own)));
    let code = provider.code(&asked, &json!({"sub": "new"}));
    // Nor is it begun from another site's page, or by the token of somebody else.
    for forged in ["yes", "x", own.rsplit('=').next().unwrap()] {
        let address = format!("/auth/ui/provider/corp?link={forged}");
        assert_eq!(by_provider.go(&gateway, &address).status, 403, "{forged}");
    }
    let session = by_provider.cookies["__Host-authgate"].clone();
    bob.cookies.insert("__Host-authgate".to_owned(), session);
    assert_eq!(come_back(&mut bob, &gateway, &format!("code={code}&state={}", asked["state"])).status, 400);
    // The form carries the id; another's changes nothing.
    let form = forms(&browser.go(&gateway, "/auth/ui/account/providers")).remove(0);
    let mut carol = Browser::register(&gateway, "carol");
    let mut theirs = form.clone();
    let own = forms(&carol.go(&gateway, "/auth/ui/account/delete")).remove(0);
    theirs.hidden =
        own.hidden.into_iter().chain(form.hidden.iter().filter(|(name, _)| name == "id").cloned()).collect();
    assert_eq!(carol.submit(&gateway, &theirs, &[]).status, 404);
    location(&browser.submit(&gateway, &form, &[]));
    let mut nobody = Browser::default();
    is_failed(&sign_in(&mut nobody, &gateway, &provider, json!({})), &nobody, 403);
    // The only way in stays.
    let mut before = gateway;
    before.stop();
    let gateway = before.restart_with(settings(&provider.url, ", register: true"));
    let mut dave = Browser::default();
    location(&sign_in(&mut dave, &gateway, &provider, json!({"sub": "dave"})));
    let form = forms(&dave.go(&gateway, "/auth/ui/account/providers")).remove(0);
    let kept = dave.submit(&gateway, &form, &[]);
    assert_eq!((kept.status, kept.text().contains("only way")), (409, true), "{kept:?}");
}

#[test]
fn whoever_has_no_password_is_led_to_the_provider_and_not_asked_for_one() {
    let provider = Provider::start();
    let upstream = Upstream::start();
    let settings = settings(&provider.url, ", register: true").auth("  reauth_window: 2s\n");
    let gateway = Gateway::start(&upstream, settings);
    let mut browser = Browser::default();
    location(&sign_in(&mut browser, &gateway, &provider, json!({"sub": "dave"})));
    assert_eq!(browser.go(&gateway, "/auth/ui/account/name").status, 200);
    let form = forms(&browser.go(&gateway, "/auth/ui/account/delete")).remove(0);
    let at = claims_of(browser.session().unwrap())["auth_time"].as_i64().unwrap();
    eventually("the proof is old", || (now() > at + 2).then_some(()));
    for page in ["name", "email", "password", "delete"] {
        let led = location(&browser.go(&gateway, &format!("/auth/ui/account/{page}")));
        assert_eq!(led, format!("/auth/ui/prove?return_to=%2Fauth%2Fui%2Faccount%2F{page}"));
    }
    let led = location(&browser.submit(&gateway, &form, &[("current_password", "any")]));
    assert!(led.starts_with("/auth/ui/prove"), "{led}");
}

#[test]
fn a_link_whose_proof_grows_old_at_the_provider_leads_to_a_new_one_and_back_to_the_page_of_links() {
    let provider = Provider::start();
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings(&provider.url, "").auth("  reauth_window: 2s\n"));
    let mut browser = Browser::register(&gateway, "alice");
    let page = browser.go(&gateway, "/auth/ui/account/providers").text();
    let button = page.split("<a class=\"button\" href=\"").nth(1).unwrap().split('"').next().unwrap();
    let asked = query(&location(&browser.go(&gateway, button)));
    let at = claims_of(browser.session().unwrap())["auth_time"].as_i64().unwrap();
    eventually("the proof is old", || (now() > at + 2).then_some(()));
    let code = provider.code(&asked, &json!({"sub": "anna"}));
    let led = location(&come_back(&mut browser, &gateway, &format!("code={code}&state={}", asked["state"])));
    assert_eq!(led, "/auth/ui/prove?return_to=%2Fauth%2Fui%2Faccount%2Fproviders");
}

#[test]
fn people_sign_in_by_github_with_a_verified_primary_address() {
    let hub = Upstream::answering(|seen: &Seen| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        match seen.target.as_str() {
            "/login/oauth/access_token" if body.contains("code=good&") && body.contains("code_verifier=") => {
                ok(r#"{"access_token": "gho_1", "token_type": "bearer", "scope": "read:user,user:email"}"#)
            }
            "/login/oauth/access_token" => ok(r#"{"error": "bad_verification_code"}"#),
            path if seen.header("authorization") != Some("Bearer gho_1") => {
                panic!("{path} without the token")
            }
            "/api/v3/user" => ok(r#"{"id": 583231, "login": "Octo-Cat", "email": "shown@example.com"}"#),
            "/api/v3/user/emails" => {
                ok(r#"[{"email": "other@example.com", "primary": false, "verified": true},
                    {"email": "octo@example.com", "primary": true, "verified": true}]"#)
            }
            other => panic!("{other}"),
        }
    });
    let upstream = Upstream::start();
    let provider = format!(
        "providers:\n  - {{name: corp, title: Corp, kind: github, url: \"http://{}\", client_id: a, client_secret: b, register: [example.com]}}\n",
        hub.address
    );
    let gateway = Gateway::start(&upstream, Settings::default().extra(&with_pages("")).extra(&provider));
    let mut browser = Browser::default();
    let asked = set_out(&mut browser, &gateway, "/api/x");
    assert_eq!(
        (asked["scope"].as_str(), asked["code_challenge_method"].as_str()),
        ("read:user user:email", "S256")
    );
    is_failed(
        &come_back(&mut browser, &gateway, &format!("code=bad&state={}", asked["state"])),
        &browser,
        400,
    );
    let asked = set_out(&mut browser, &gateway, "/api/x");
    let back = come_back(&mut browser, &gateway, &format!("code=good&state={}", asked["state"]));
    assert_eq!(location(&back), "/api/x");
    assert_eq!(name(&browser), "octo-cat");
    assert!(gateway.run(&["user", "show", "octo-cat"], "").contains("octo@example.com"));
}

#[test]
fn mistakes_about_providers_are_told_with_their_place() {
    let folder = tempfile::tempdir().unwrap();
    let good = "name: corp, issuer: \"https://id.example.com\", client_id: a, client_secret: b";
    for (provider, key, problem) in [
        (
            "name: Corp, issuer: \"https://id.example.com\", client_id: a, client_secret: b",
            "providers[0].name",
            "a-z",
        ),
        (
            "name: corp, issuer: \"http://id.example.com\", client_id: a, client_secret: b",
            "providers[0].issuer",
            "https",
        ),
        ("name: corp, client_id: a, client_secret: b", "providers[0].issuer", "https"),
        (&format!("{good}, scopes: [email]"), "providers[0].scopes", "openid"),
        (&format!("{good}, register: []"), "providers[0].register", "domains"),
        (
            &format!("{good}, roles: {{map: {{boss: admin}}}}"),
            "providers[0].roles.map.boss",
            "administrators",
        ),
        (&format!("{good}, url: \"https://x.example.com\""), "providers[0].url", "github"),
        (&format!("{good}, kind: github"), "providers[0].issuer", "oidc"),
    ] {
        let text = format!(
            "listeners: [{{address: 127.0.0.1:0}}]\nauth: {{issuer: i, audience: a}}\n{}providers:\n  - {{{provider}}}\nroutes: []\nupstreams: {{}}\n",
            with_pages("")
        );
        let said = errors_of(folder.path(), &text);
        assert!(said.contains(key) && said.contains(problem), "{provider}: {said}");
    }
}

/// Sets out to a provider by its button, and returns what it is asked.
#[track_caller]
fn set_out_to(browser: &mut Browser, gateway: &Gateway, name: &str) -> BTreeMap<String, String> {
    query(&location(&browser.go(gateway, &format!("/auth/ui/provider/{name}?return_to=/api/x"))))
}

#[test]
fn a_response_of_one_provider_is_none_of_another_one() {
    let (corp, other) = (Provider::start(), Provider::start());
    let both = format!(
        ", register: true}}\n  - {{name: other, issuer: \"{}\", client_id: gateway, client_secret: the secret of the gateway there, register: true",
        other.url
    );
    let (gateway, _upstream) = start(&corp, &both);
    let back_at = |browser: &mut Browser, name: &str, parameters: &str| {
        let path = format!("/auth/ui/provider/{name}/callback?{parameters}");
        browser.send(&gateway, "GET", &path, &["Sec-Fetch-Mode: navigate", "Sec-Fetch-Site: cross-site"], "")
    };
    // Begun at one and ended at the other one's address, with the code of either.
    for (begun, ended) in [("corp", "other"), ("other", "corp")] {
        for provider in [&corp, &other] {
            let mut browser = Browser::default();
            let asked = set_out_to(&mut browser, &gateway, begun);
            let code = provider.code(&asked, &json!({}));
            let parameters = format!("code={code}&state={}", asked["state"]);
            is_failed(&back_at(&mut browser, ended, &parameters), &browser, 400);
        }
    }
    // The code of one at the other, as a provider that is evil has it done (RFC 9207, section 2.4).
    let mut browser = Browser::default();
    let asked = set_out_to(&mut browser, &gateway, "corp");
    let code = other.code(&asked, &json!({}));
    let failed = back_at(&mut browser, "corp", &format!("code={code}&state={}", asked["state"]));
    assert!(failed.status >= 400 && browser.session().is_none(), "{failed:?}");
    // Each for itself signs in, and the same subject of both is two people.
    let names: Vec<String> = [("corp", &corp), ("other", &other)]
        .into_iter()
        .map(|(at, provider)| {
            let mut browser = Browser::default();
            let asked = set_out_to(&mut browser, &gateway, at);
            let code = provider.code(&asked, &json!({"sub": "the same"}));
            location(&back_at(&mut browser, at, &format!("code={code}&state={}", asked["state"])));
            name(&browser)
        })
        .collect();
    assert_ne!(names[0], names[1]);
}

#[test]
fn who_has_no_password_proves_who_they_are_by_the_provider() {
    let provider = Provider::start();
    let upstream = Upstream::start();
    let routes =
        "  - {path: /fresh/**, fresh: 3s, upstream: backend}\n  - {path: /api/**, upstream: backend}\n";
    let own = settings(&provider.url, ", register: true");
    let gateway = Gateway::start(&upstream, Settings { extra: own.extra, ..Settings::routes(routes) });
    let mut anna = Browser::default();
    location(&sign_in(&mut anna, &gateway, &provider, json!({"sub": "anna"})));
    let mut led = String::new();
    eventually("a proof is asked for", || {
        let response = anna.go(&gateway, "/fresh/orders?page=2");
        led = response.header("location")?.to_owned();
        Some(())
    });
    assert!(led.starts_with("/auth/ui/prove?return_to="), "{led}");
    let session = |browser: &Browser| claims_of(browser.session().unwrap())["sid"].clone();
    let before = session(&anna);
    let prove = |browser: &mut Browser, claims: Value| {
        let page = browser.go(&gateway, &led);
        assert!(forms(&page).is_empty(), "there is no password to ask for: {}", page.text());
        let text = page.text();
        let button = text.split("<a class=\"button\" href=\"").nth(1).unwrap().split('"').next().unwrap();
        let asked = query(&location(&browser.go(&gateway, &button.replace("&amp;", "&"))));
        assert_eq!(asked["max_age"], "0", "they are to be asked anew");
        let code = provider.code(&asked, &claims);
        come_back(browser, &gateway, &format!("code={code}&state={}", asked["state"]))
    };
    // Somebody else there, known here or not, or one whom the provider has not asked, proves nothing and becomes nobody.
    location(&sign_in(&mut Browser::default(), &gateway, &provider, json!({"sub": "bert"})));
    for claims in [
        json!({"sub": "bert"}),
        json!({"sub": "a stranger"}),
        json!({"sub": "anna", "auth_time": now() - 600}),
        json!({"sub": "anna"}),
    ] {
        assert_eq!(prove(&mut anna, claims).status, 400);
        assert_eq!(session(&anna), before);
        assert_eq!(anna.go(&gateway, "/fresh/orders?page=2").status, 303);
    }
    let back = location(&prove(&mut anna, json!({"sub": "anna", "auth_time": now()})));
    assert_eq!(back, "/fresh/orders?page=2");
    assert_eq!((anna.go(&gateway, &back).status, session(&anna)), (200, before));
    // Only from our own page.
    let begun = anna.go(&gateway, "/auth/ui/provider/corp?proof=none&return_to=/api/x");
    assert_eq!(begun.status, 403, "{begun:?}");
}
