//! Tokens of other issuers: whose key verifies them, whom they stand for, and how they end.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use serde_json::{Value, json};

use crate::harness::{
    Client, Cluster, Gateway, Settings, Upstream, errors_of, eventually,
    fleet::pair_with,
    header_of,
    issuer::{Issuer, IssuerKey, now},
    port_to_keep,
};

const CLAIMS: &str = "claims: {roles: realm_access.roles}, roles: {map: {staff: clerk}, prefix: \"corp:\"}";

const ROUTES: &str = "  - {path: /api/**, upstream: backend}\n  - {path: /optional/**, auth: optional, upstream: backend}\n  - {path: /clerks/**, roles: {any: [clerk]}, upstream: backend}\n  - {path: /admin/**, roles: {any: [admin]}, upstream: backend}\n  - {path: /events, upstream: backend}\n";

/// Settings of an issuer called `corp`, whose keys come from `keys`.
fn corp(issuer: &str, keys: &str, more: &str) -> Settings {
    let issuers = format!(
        "issuers:\n  - {{name: corp, issuer: \"{issuer}\", {keys}, audiences: [orders], {CLAIMS}{more}}}\n"
    );
    Settings::routes(ROUTES).extra(&issuers)
}

fn start(issuer: &Issuer, more: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, corp(&issuer.url, "discovery: true", more));
    (gateway, upstream)
}

fn status(gateway: &Gateway, token: &str) -> u16 {
    gateway.get("/api/x", Some(token)).status
}

#[test]
fn a_caller_of_another_issuer_has_an_id_with_its_name_and_mapped_roles() {
    let key = IssuerKey::p256("a");
    let issuer = Issuer::start(&[&key]);
    let (gateway, upstream) = start(&issuer, "");
    let token = issuer.token(&key, "anna");
    assert_eq!(status(&gateway, &token), 200);
    let seen = upstream.last();
    assert_eq!(seen.header("x-user-id"), Some("corp:anna"));
    assert_eq!(seen.header("x-user-name"), Some("anna%20name"));
    // What the issuer calls admin is called corp:admin here; what is no role is left out.
    assert_eq!(seen.header("x-user-roles"), Some("clerk,corp:admin"));
    assert_eq!(seen.header("authorization"), None);
    assert_eq!(gateway.get("/clerks/x", Some(&token)).status, 200);
    assert_eq!(gateway.get("/admin/x", Some(&token)).status, 403);
    // Its own tokens go on beside them.
    let own = gateway.token("alice");
    assert_eq!(status(&gateway, &own), 200);
    assert_eq!(gateway.metric("authgate_issuer_fetches_total{issuer=\"corp\",result=\"ok\"}"), Some(1.0));
}

#[test]
fn a_foreign_caller_has_no_account_and_no_say() {
    let key = IssuerKey::ed25519("a");
    let issuer = Issuer::start(&[&key]);
    let (gateway, _upstream) = start(&issuer, "");
    let token = issuer.token(&key, "anna");
    for (method, path) in [
        ("GET", "/auth/me"),
        ("GET", "/auth/sessions"),
        ("POST", "/auth/logout-all"),
        ("DELETE", "/auth/delete"),
    ] {
        let refused = gateway.send(method, path, Some(&token), None);
        assert_eq!(refused.status, 403, "{path} {refused:?}");
    }
    assert_eq!(gateway.admin("GET", "/api/users", Some(&token), None).status, 403);
}

#[test]
fn what_is_not_exactly_as_the_config_says_is_refused() {
    let (key, other) = (IssuerKey::ed25519("a"), IssuerKey::ed25519("a"));
    let issuer = Issuer::start(&[&key]);
    let (gateway, upstream) = start(&issuer, "");
    assert_eq!(status(&gateway, &issuer.token(&key, "good")), 200);
    let seen = upstream.seen().len();
    let claims = issuer.claims("bad");
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims.to_string()
    };
    let without = |name: &str| {
        let mut claims = claims.clone();
        claims.as_object_mut().unwrap().remove(name);
        claims.to_string()
    };
    let header = key.header();
    let cases = [
        ("key of the same name", other.sign(&header, &claims.to_string())),
        ("audience", key.sign(&header, &with("aud", json!("elsewhere")))),
        ("audiences", key.sign(&header, &with("aud", json!(["elsewhere"])))),
        ("audience that is no text", key.sign(&header, &with("aud", json!(["orders", 7])))),
        ("no audience", key.sign(&header, &without("aud"))),
        ("expired", key.sign(&header, &with("exp", json!(now() - 31)))),
        ("text as exp", key.sign(&header, &with("exp", json!((now() + 60).to_string())))),
        ("no exp", key.sign(&header, &without("exp"))),
        ("good for years", key.sign(&header, &with("exp", json!(now() + 40 * 86_400)))),
        ("issued long ago", key.sign(&header, &with("iat", json!(now() - 31 * 86_400)))),
        ("not dated", key.sign(&header, &without("iat"))),
        ("ID token", key.sign(&header, &with("at_hash", json!("x")))),
        ("ID token by its own word", key.sign(&header, &with("typ", json!("ID")))),
        ("refresh token", key.sign(&header, &with("typ", json!("Refresh")))),
        ("bound to a key", key.sign(&header, &with("cnf", json!({"jkt": "x"})))),
        ("not yet", key.sign(&header, &with("nbf", json!(now() + 60)))),
        ("issued ahead", key.sign(&header, &with("iat", json!(now() + 60)))),
        ("issuer", key.sign(&header, &with("iss", json!("https://elsewhere.example.com")))),
        ("the gateway as issuer", key.sign(&header, &with("iss", json!("https://login.example.com")))),
        ("issuer with a slash", key.sign(&header, &with("iss", json!(format!("{}/", issuer.url))))),
        ("no issuer", key.sign(&header, &without("iss"))),
        ("no subject", key.sign(&header, &without("sub"))),
        ("number as subject", key.sign(&header, &with("sub", json!(7)))),
        ("event", key.sign(&header, &with("events", json!({})))),
        ("a claim twice", key.sign(&header, &claims.to_string().replacen('{', "{\"sub\":\"root\",", 1))),
        ("type", key.sign(&json!({"alg": "EdDSA", "typ": "logout+jwt", "kid": "a"}), &claims.to_string())),
        ("no type", key.sign(&json!({"alg": "EdDSA", "kid": "a"}), &claims.to_string())),
        ("algorithm", key.sign(&json!({"alg": "ES256", "typ": "JWT", "kid": "a"}), &claims.to_string())),
        ("none", key.sign(&json!({"alg": "none", "typ": "JWT", "kid": "a"}), &claims.to_string())),
        (
            "jku",
            key.sign(
                &json!({"alg": "EdDSA", "typ": "JWT", "kid": "a", "jku": issuer.url}),
                &claims.to_string(),
            ),
        ),
        ("jwk", key.sign(&json!({"alg": "EdDSA", "typ": "JWT", "jwk": other.jwk}), &claims.to_string())),
    ];
    for (what, token) in cases {
        let refused = gateway.get("/api/x", Some(&token));
        assert_eq!(refused.status, 401, "{what}: {refused:?}");
        assert_eq!(gateway.get("/optional/x", Some(&token)).status, 401, "{what}");
    }
    assert_eq!(upstream.seen().len(), seen);
    assert_eq!(issuer.fetches(), 1, "no token makes the gateway fetch");
    // Types are compared without case and without `application/`, and times with the leeway.
    let header = json!({"alg": "EdDSA", "typ": "application/AT+JWT", "kid": "a"});
    assert_eq!(status(&gateway, &key.sign(&header, &with("exp", json!(now() - 20)))), 200);
    // A token that names no key is verified by the only one.
    let header = json!({"alg": "EdDSA", "typ": "JWT"});
    assert_eq!(status(&gateway, &key.sign(&header, &with("aud", json!("orders")))), 200);
}

#[test]
fn no_token_of_one_issuer_is_verified_by_anothers_key() {
    let (one_key, other_key) = (IssuerKey::ed25519("k"), IssuerKey::ed25519("k"));
    let (one, other) = (Issuer::start(&[&one_key]), Issuer::start(&[&other_key]));
    let upstream = Upstream::start();
    let issuers = [("one", &one), ("other", &other)].map(|(name, issuer)| {
        format!("  - {{name: {name}, issuer: \"{}\", discovery: true, audiences: [orders]}}\n", issuer.url)
    });
    let settings = Settings::routes(ROUTES).extra(&format!("issuers:\n{}", issuers.concat()));
    let gateway = Gateway::start(&upstream, settings);
    assert_eq!(status(&gateway, &one.token(&one_key, "anna")), 200);
    assert_eq!(upstream.last().header("x-user-id"), Some("one:anna"));
    assert_eq!(status(&gateway, &other.token(&other_key, "anna")), 200);
    assert_eq!(upstream.last().header("x-user-id"), Some("other:anna"));
    assert_eq!(upstream.last().header("x-user-roles"), Some(""), "no role is mapped");
    assert_eq!(status(&gateway, &one.token(&other_key, "anna")), 401);
    assert_eq!(status(&gateway, &other.token(&one_key, "anna")), 401);
    // The gateway's own key verifies its own tokens only.
    let own = gateway.token("alice");
    let parts: Vec<&str> = own.split('.').collect();
    let foreign = one.token(&one_key, "anna");
    let payload = foreign.split('.').nth(1).unwrap();
    assert_eq!(status(&gateway, &format!("{}.{payload}.{}", parts[0], parts[2])), 401);
}

#[test]
#[ignore = "slow"]
fn a_new_key_is_fetched_when_a_token_names_it_and_an_old_one_ends_its_tokens() {
    let (old, new) = (IssuerKey::ed25519("old"), IssuerKey::p256("new"));
    let issuer = Issuer::start(&[&old]);
    let (gateway, _upstream) = start(&issuer, "");
    let before = issuer.token(&old, "anna");
    assert_eq!(status(&gateway, &before), 200);
    issuer.serve(&[&new]);
    // At most every ten seconds; until then such tokens are refused at once.
    let after = issuer.token(&new, "anna");
    assert_eq!(status(&gateway, &after), 401);
    thread::sleep(Duration::from_secs(10));
    assert_eq!(status(&gateway, &after), 200, "the request waits for the key");
    assert_eq!(status(&gateway, &before), 401, "though it was cached");
    for number in 0..20 {
        let stray = IssuerKey::ed25519(&number.to_string());
        assert_eq!(status(&gateway, &issuer.token(&stray, "anna")), 401);
    }
    assert_eq!(issuer.fetches(), 2);
}

#[test]
fn keys_are_used_through_an_outage_up_to_their_age() {
    let key = IssuerKey::ed25519("a");
    let issuer = Issuer::start(&[&key]);
    let (gateway, _upstream) = start(&issuer, ", jwks_max_age: 4s");
    let (cached, late) = (issuer.token(&key, "anna"), issuer.token(&key, "bert"));
    assert_eq!(status(&gateway, &cached), 200);
    issuer.set_away(true);
    eventually("a fetch fails", || {
        gateway.metric("authgate_issuer_fetches_total{issuer=\"corp\",result=\"failed\"}")
    });
    assert_eq!(status(&gateway, &late), 200, "the keys are a moment old");
    eventually("the keys are too old", || (status(&gateway, &cached) == 503).then_some(()));
    assert_eq!(status(&gateway, &late), 503);
    assert!(gateway.log().contains("the keys of an issuer could not be fetched"));
    issuer.set_away(false);
    eventually("the keys are there again", || (status(&gateway, &cached) == 200).then_some(()));
}

#[test]
fn an_issuer_that_is_away_at_the_start_stops_nothing() {
    let key = IssuerKey::ed25519("a");
    let issuer = Issuer::start(&[&key]);
    issuer.set_away(true);
    let (gateway, _upstream) = start(&issuer, "");
    assert_eq!(status(&gateway, &gateway.token("alice")), 200);
    assert_eq!(status(&gateway, &issuer.token(&key, "anna")), 503);
    issuer.set_away(false);
    eventually("its keys are fetched", || {
        (status(&gateway, &issuer.token(&key, "anna")) == 200).then_some(())
    });
}

#[test]
fn a_hostile_key_set_or_configuration_gives_no_key() {
    let key = IssuerKey::ed25519("a");
    let mut hmac = key.clone();
    hmac.jwk = json!({"kty": "oct", "k": "AAAA", "alg": "EdDSA", "kid": "a"});
    let issuer = Issuer::start(&[&hmac]);
    let (gateway, _upstream) = start(&issuer, "");
    assert_eq!(status(&gateway, &issuer.token(&key, "anna")), 503);
    // A configuration that says to be of another issuer is not this one's.
    let issuer = Issuer::start(&[&key]);
    issuer.pretend("https://elsewhere.example.com");
    let (gateway, _upstream) = start(&issuer, "");
    assert_eq!(status(&gateway, &issuer.token(&key, "anna")), 503);
    assert!(gateway.log().contains("is of the issuer `https://elsewhere.example.com`"), "{}", gateway.log());
    assert_eq!(issuer.fetches(), 0);
    // A redirect is not followed.
    let issuer = Issuer::start(&[&key]);
    let settings = corp(&issuer.url, &format!("jwks: \"{}/redirect\"", issuer.url), "");
    let gateway = Gateway::alone(settings);
    assert_eq!(status(&gateway, &issuer.token(&key, "anna")), 503);
    assert_eq!(issuer.fetches(), 0);
}

#[test]
fn keys_come_from_a_file_too_which_is_followed() {
    let (old, new) = (IssuerKey::ed25519("old"), IssuerKey::ed25519("new"));
    let issuer = Issuer::start(&[]);
    let upstream = Upstream::start();
    let folder = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let write = |key: &IssuerKey| {
        fs::write(folder.path().join("keys.json"), json!({"keys": [key.jwk]}).to_string()).unwrap();
    };
    write(&old);
    let settings = corp("corp's own", "jwks_file: keys.json", "");
    let gateway = Gateway::start_in(folder.clone(), upstream.address, settings);
    let token = |key: &IssuerKey| {
        let mut claims = issuer.claims("anna");
        claims["iss"] = json!("corp's own");
        key.sign(&key.header(), &claims.to_string())
    };
    assert_eq!(status(&gateway, &token(&old)), 200);
    write(&new);
    eventually("the file is read again", || (status(&gateway, &token(&new)) == 200).then_some(()));
    assert_eq!(status(&gateway, &token(&old)), 401);
}

#[test]
fn a_subject_a_session_or_a_token_is_revoked_on_every_gateway() {
    let key = IssuerKey::ed25519("a");
    let issuer = Issuer::start(&[&key]);
    let cluster = Cluster::start();
    let (here, there, _) = pair_with(&cluster, |settings| {
        let own = corp(&issuer.url, "discovery: true", "");
        settings.extra = own.extra;
        settings.routes = own.routes;
    });
    let admin = here.admin_token("root");
    let revoke = |body: Value| here.admin("POST", "/api/revocations", Some(&admin), Some(&body));
    for (what, of) in [("sub", "anna"), ("sid", "session of bert"), ("jti", "token of carl")] {
        let user = of.rsplit(' ').next().unwrap();
        let (token, other) = (issuer.token(&key, user), issuer.token(&key, &format!("{user}2")));
        for gateway in [&here, &there] {
            assert_eq!((status(gateway, &token), status(gateway, &other)), (200, 200));
        }
        let done = revoke(json!({"issuer": "corp", what: of}));
        assert_eq!(done.status, 201, "{done:?}");
        assert_eq!(status(&here, &token), 401, "{what}, at once");
        eventually("it is revoked there", || (status(&there, &token) == 401).then_some(()));
        assert_eq!((status(&here, &other), status(&there, &other)), (200, 200));
    }
    for nobody in [json!({"issuer": "corp", "sub": ""}), json!({"issuer": "corp", "sub": "a", "jti": ""})] {
        assert_eq!(revoke(nobody).status, 400);
    }
    // A subject comes back with a token that was issued later, but not before a given time.
    let later = |sub: &str| {
        let mut claims = issuer.claims(sub);
        claims["iat"] = json!(now() + 25);
        key.sign(&key.header(), &claims.to_string())
    };
    assert_eq!(status(&here, &later("anna")), 401, "the issuer's clock may be ahead");
    assert_eq!(revoke(json!({"issuer": "corp", "sub": "dora", "until": "2099-01-01T00:00:00Z"})).status, 201);
    assert_eq!(status(&here, &later("dora")), 401);
    // For a short time only, to the moment.
    let token = issuer.token(&key, "emil");
    let until = authgate::clock::rfc3339((now() + 3) * 1_000);
    assert_eq!(revoke(json!({"issuer": "corp", "sub": "emil", "until": until})).status, 201);
    assert_eq!(status(&here, &token), 401);
    eventually("its time is over", || (status(&here, &token) == 200).then_some(()));
    eventually("and there", || (status(&there, &token) == 200).then_some(()));
    assert!(here.admin("GET", "/api/audit", Some(&admin), None).text().contains("corp sub: dora"));
    for (body, expected) in [
        (json!({"issuer": "nobody", "sub": "a"}), 404),
        (json!({"issuer": "corp"}), 400),
        (json!({"issuer": "corp", "sub": "a", "sid": "b"}), 400),
        (json!({"issuer": "corp", "sub": "a", "until": "tomorrow"}), 400),
        (json!({"issuer": "corp", "sub": "a", "until": "2001-01-01T00:00:00Z"}), 400),
    ] {
        assert_eq!(revoke(body.clone()).status, expected, "{body}");
    }
    // What was revoked stays so after a restart.
    let again = there.restart();
    assert_eq!(status(&again, &issuer.token(&key, "carl")), 401);
}

#[test]
fn a_stream_ends_with_its_token() {
    let key = IssuerKey::ed25519("a");
    let issuer = Issuer::start(&[&key]);
    let upstream = Upstream::with(|_, socket| {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n";
        let _ = socket.write_all(head.as_bytes());
        while socket.write_all(b"2\r\nhi\r\n").is_ok() {
            thread::sleep(Duration::from_millis(50));
        }
        false
    });
    let gateway = Gateway::start(&upstream, corp(&issuer.url, "discovery: true", ""));
    let admin = gateway.admin_token("root");
    for (what, of) in [("sub", "anna"), ("sid", "session of bert"), ("jti", "token of carl")] {
        let user = of.rsplit(' ').next().unwrap();
        let mut client: Client = gateway.client();
        client.send(format!(
            "GET /events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {}\r\n\r\n",
            issuer.token(&key, user)
        ));
        assert_eq!(client.head().0, 200);
        let body = json!({"issuer": "corp", what: of});
        assert_eq!(gateway.admin("POST", "/api/revocations", Some(&admin), Some(&body)).status, 201);
        client.until_closed();
    }
}

#[test]
fn an_issuer_tells_of_a_logout_itself() {
    let (key, stranger) = (IssuerKey::ed25519("a"), IssuerKey::ed25519("a"));
    let issuer = Issuer::start(&[&key]);
    let cluster = Cluster::start();
    let (gateway, there, _) = pair_with(&cluster, |settings| {
        let own = corp(&issuer.url, "discovery: true", "");
        settings.extra = own.extra;
        settings.routes = own.routes;
    });
    const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";
    let claims = |more: Value| {
        let mut claims = json!({
            "iss": issuer.url, "aud": "orders", "iat": now(), "exp": now() + 60, "jti": "l", "events": {EVENT: {}},
        });
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        claims.to_string()
    };
    let header = json!({"alg": "EdDSA", "typ": "logout+jwt", "kid": "a"});
    let post = |content_type: &str, body: &str| {
        let mut client = gateway.client();
        client.send(format!(
            "POST /auth/backchannel-logout HTTP/1.1\r\nHost: a\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        client.response()
    };
    let tell = |token: &str| {
        let told = post("application/x-www-form-urlencoded", &format!("logout_token={token}"));
        assert_eq!(told.header("cache-control"), Some("no-store"));
        told.status
    };
    let (anna, bert) = (issuer.token(&key, "anna"), issuer.token(&key, "bert"));
    assert_eq!((status(&gateway, &anna), status(&gateway, &bert)), (200, 200));
    for (what, token) in [
        ("signed by a stranger", stranger.sign(&header, &claims(json!({"sub": "anna"})))),
        ("of nobody", key.sign(&header, &claims(json!({})))),
        ("with a nonce", key.sign(&header, &claims(json!({"sub": "anna", "nonce": "n"})))),
        ("without the event", key.sign(&header, &claims(json!({"sub": "anna", "events": {}})))),
        ("for another", key.sign(&header, &claims(json!({"sub": "anna", "aud": "elsewhere"})))),
        ("expired", key.sign(&header, &claims(json!({"sub": "anna", "exp": now() - 60})))),
        ("an access token", anna.clone()),
        ("nothing", String::new()),
    ] {
        assert_eq!(tell(&token), 400, "{what}");
    }
    assert_eq!(post("application/json", "{}").status, 415);
    assert_eq!((status(&gateway, &anna), status(&gateway, &bert)), (200, 200));
    assert_eq!(tell(&key.sign(&header, &claims(json!({"sub": "anna"})))), 200);
    assert_eq!((status(&gateway, &anna), status(&gateway, &bert)), (401, 200));
    eventually("the other gateway knows", || (status(&there, &anna) == 401).then_some(()));
    assert_eq!(status(&there, &bert), 200);
    let logout = key.sign(&header, &claims(json!({"sub": "bert", "sid": "session of bert"})));
    assert_eq!((tell(&logout), tell(&logout)), (200, 200));
    assert_eq!(status(&gateway, &bert), 401);
    // A token that names no session ends with its subject's.
    let mut nameless = issuer.claims("carl");
    nameless.as_object_mut().unwrap().remove("sid");
    let (nameless, named) = (key.sign(&key.header(), &nameless.to_string()), issuer.token(&key, "carl"));
    assert_eq!((status(&gateway, &nameless), status(&gateway, &named)), (200, 200));
    assert_eq!(tell(&key.sign(&header, &claims(json!({"sub": "carl", "sid": "another"})))), 200);
    assert_eq!((status(&gateway, &nameless), status(&gateway, &named)), (401, 200));
    // Whoever signs in anew at the issuer is let in.
    let mut again = issuer.claims("anna");
    again["iat"] = json!(now() + 2);
    assert_eq!(status(&gateway, &key.sign(&key.header(), &again.to_string())), 200);
    assert_eq!(gateway.get("/api/x", Some(&logout)).status, 401, "it is no access token");
}

const INTROSPECTION: &str =
    "introspection: {url: \"URL/introspect\", client_id: gate way, client_secret: \"s:1\", cache: 2s}";

#[test]
fn an_opaque_token_is_asked_about_once_and_anew_after_a_while() {
    let issuer = Issuer::start(&[]);
    let settings = corp(&issuer.url, &INTROSPECTION.replace("URL", &issuer.url), "");
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, settings);
    let mut said = issuer.claims("anna");
    said["active"] = json!(true);
    issuer.say(said);
    let statuses: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| status(&gateway, "opaque-1"))).collect();
        asked.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 8]);
    assert_eq!(issuer.server.seen().len(), 1, "all of them wait for one answer");
    let asked = issuer.server.last();
    assert_eq!(
        (asked.method.as_str(), asked.body.as_slice()),
        ("POST", &b"token=opaque-1&token_type_hint=access_token"[..])
    );
    // `gate%20way:s%3A1`
    assert_eq!(asked.header("authorization"), Some("Basic Z2F0ZSUyMHdheTpzJTNBMQ=="));
    assert_eq!(upstream.last().header("x-user-id"), Some("corp:anna"));
    issuer.say(json!({"active": false}));
    eventually("it is asked anew", || (status(&gateway, "opaque-1") == 401).then_some(()));
    assert_eq!(issuer.server.seen().len(), 2, "and what it says is remembered");
    // What is for another audience, or what could never be a token, is refused.
    let mut said = issuer.claims("anna");
    (said["active"], said["aud"]) = (json!(true), json!("elsewhere"));
    issuer.say(said);
    assert_eq!(status(&gateway, "opaque-2"), 401);
    let asked = issuer.server.seen().len();
    assert_eq!(status(&gateway, "no token\"at all"), 401);
    assert_eq!(issuer.server.seen().len(), asked);
    // An issuer that cannot be asked is no reason to let anybody in.
    issuer.set_away(true);
    assert_eq!(status(&gateway, "opaque-3"), 503);
    assert_eq!(gateway.get("/optional/x", Some("opaque-3")).status, 503);
    assert!(!gateway.log().contains("opaque-") && !gateway.log().contains("s:1"));
}

#[test]
fn an_issuer_is_not_asked_about_what_is_not_its_own_nor_by_everybody_without_end() {
    let issuer = Issuer::start(&[]);
    let gateway = Gateway::alone(corp(&issuer.url, &INTROSPECTION.replace("URL", &issuer.url), ""));
    let own = gateway.register("alice");
    assert_eq!(status(&gateway, own["refresh_token"].as_str().unwrap()), 401);
    for path in ["/auth/me", "/auth/sessions"] {
        assert_eq!(gateway.get(path, Some("garbage")).status, 401, "{path}");
    }
    assert_eq!(gateway.admin("GET", "/api/users", Some("garbage"), None).status, 401);
    assert_eq!(issuer.server.seen().len(), 0);
    let mut said = issuer.claims("anna");
    said["active"] = json!(true);
    issuer.say(said.clone());
    assert_eq!(status(&gateway, "good"), 200);
    issuer.say(json!({"active": false}));
    let throttled = (0..1_000).position(|number| status(&gateway, &format!("bad-{number}")) == 429);
    assert!(throttled.is_some_and(|after| after >= 100), "{throttled:?}");
    let asked = issuer.server.seen().len();
    assert_eq!(Some(asked), throttled.map(|after| 1 + after), "the last one was not asked about");
    // A token that was good is asked about, whatever else came from there.
    issuer.say(said);
    eventually("it is asked about anew", || {
        (issuer.server.seen().len() > asked || status(&gateway, "good") != 200).then_some(())
    });
    assert_eq!(status(&gateway, "good"), 200);
}

#[test]
fn a_stream_of_an_opaque_token_goes_on_through_a_reload() {
    let issuer = Issuer::start(&[]);
    let upstream = Upstream::with(|_, socket| {
        let mut sent = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while sent.is_ok() {
            sent = socket.write_all(b"2\r\nhi\r\n");
            thread::sleep(Duration::from_millis(50));
        }
        false
    });
    let settings = corp(&issuer.url, &INTROSPECTION.replace("URL", &issuer.url), "");
    let gateway = Gateway::start(&upstream, settings.clone());
    let admin = gateway.admin_token("root");
    let mut said = issuer.claims("anna");
    said["active"] = json!(true);
    issuer.say(said);
    let begin = || {
        let mut client = gateway.client();
        client.send("GET /events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer opaque\r\n\r\n");
        assert_eq!(client.head().0, 200);
        client
    };
    let mut client = begin();
    // What the issuer said holds no longer, and it cannot be asked.
    thread::sleep(Duration::from_millis(2_500));
    issuer.set_away(true);
    let mut more = settings.clone();
    more.routes.push_str("  - {path: /more, auth: none, upstream: backend}\n");
    assert_eq!(gateway.reload(&admin, &more).status, 200);
    let before = client.read_some(7);
    client.read_some(70);
    assert_eq!(before.len(), 7);
    // But not where its route is for others by now.
    more.routes = more.routes.replace("{path: /events,", "{path: /events, roles: {any: [boss]},");
    assert_eq!(gateway.reload(&admin, &more).status, 200);
    client.until_closed();
}

#[test]
fn a_key_that_is_withdrawn_ends_streams_and_one_that_stays_outlives_a_change_of_the_rest() {
    let (old, new) = (IssuerKey::ed25519("old"), IssuerKey::ed25519("new"));
    let issuer = Issuer::start(&[&old]);
    let upstream = Upstream::with(|seen, socket| {
        if seen.target != "/events" {
            return socket.write_all(&crate::harness::ok("x")).is_ok();
        }
        let mut sent = socket.write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while sent.is_ok() {
            sent = socket.write_all(b"2\r\nhi\r\n");
            thread::sleep(Duration::from_millis(50));
        }
        false
    });
    let gateway = Gateway::start(&upstream, corp(&issuer.url, "discovery: true", ", jwks_max_age: 1h"));
    let admin = gateway.admin_token("root");
    let token = issuer.token(&old, "anna");
    let mut client: Client = gateway.client();
    client.send(format!("GET /events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"));
    assert_eq!(client.head().0, 200);
    // Other roles, while the issuer is away: its keys are still there.
    issuer.set_away(true);
    let mut settings = corp(&issuer.url, "discovery: true", ", jwks_max_age: 1h");
    settings.extra = settings.extra.replace("staff: clerk", "staff: boss");
    assert_eq!(gateway.reload(&admin, &settings).status, 200);
    assert_eq!(status(&gateway, &token), 200);
    client.read_some(70);
    issuer.set_away(false);
    issuer.serve(&[&new]);
    eventually("the new key is fetched", || {
        (status(&gateway, &issuer.token(&new, "anna")) == 200).then_some(())
    });
    client.until_closed();
}

#[test]
fn what_an_issuer_said_is_revoked_like_a_token() {
    let issuer = Issuer::start(&[]);
    let settings = corp(&issuer.url, &INTROSPECTION.replace("URL", &issuer.url).replace("2s", "1h"), "");
    let gateway = Gateway::alone(settings);
    let mut said = issuer.claims("anna");
    said["active"] = json!(true);
    issuer.say(said);
    assert_eq!(status(&gateway, "opaque"), 200);
    let admin = gateway.admin_token("root");
    let body = json!({"issuer": "corp", "sub": "anna"});
    assert_eq!(gateway.admin("POST", "/api/revocations", Some(&admin), Some(&body)).status, 201);
    assert_eq!(status(&gateway, "opaque"), 401);
}

#[test]
fn forward_auth_decides_by_tokens_of_others() {
    let key = IssuerKey::ed25519("a");
    let issuer = Issuer::start(&[&key]);
    let mut settings = corp(&issuer.url, "discovery: true", "");
    settings = settings.extra("trusted_proxies: [127.0.0.1/32]\n");
    let gateway = Gateway::alone(settings);
    let mut client = gateway.client();
    client.send(format!(
        "GET /auth/verify HTTP/1.1\r\nHost: a\r\nX-Forwarded-Method: GET\r\nX-Forwarded-Proto: http\r\n\
         X-Forwarded-Host: a\r\nX-Forwarded-Uri: /api/x\r\nAuthorization: Bearer {}\r\n\r\n",
        issuer.token(&key, "anna")
    ));
    let verified = client.response();
    assert_eq!((verified.status, verified.header("x-user-id")), (200, Some("corp:anna")));
}

#[test]
fn a_reload_takes_up_issuers_and_lets_go_of_them() {
    let key = IssuerKey::ed25519("a");
    let issuer = Issuer::start(&[&key]);
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::routes(ROUTES));
    let admin = gateway.admin_token("root");
    let token = issuer.token(&key, "anna");
    assert_eq!(status(&gateway, &token), 401);
    assert_eq!(gateway.reload(&admin, &corp(&issuer.url, "discovery: true", "")).status, 200);
    assert_eq!(status(&gateway, &token), 200, "its keys were fetched before");
    // One that stays goes on with its keys.
    let another = "  - {name: other, issuer: \"https://other.example.com\", jwks: \"http://127.0.0.1:1/\", audiences: [orders]}\n";
    let mut settings = corp(&issuer.url, "discovery: true", "");
    settings.extra.push_str(another);
    issuer.set_away(true);
    assert_eq!(gateway.reload(&admin, &settings).status, 200);
    assert_eq!(status(&gateway, &token), 200);
    assert_eq!(gateway.reload(&admin, &Settings::routes(ROUTES)).status, 200);
    assert_eq!(status(&gateway, &token), 401);
}

#[test]
fn mistakes_in_the_config_are_errors_that_say_where() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("empty.json"), r#"{"keys": []}"#).unwrap();
    let good = "name: corp, issuer: \"https://id.example.com\", audiences: [orders]";
    for (issuer, key, problem) in [
        (
            "name: Corp, issuer: \"https://id.example.com\", audiences: [a], discovery: true",
            "issuers[0].name",
            "a-z",
        ),
        (
            "name: corp, issuer: \"http://id.example.com\", audiences: [a], discovery: true",
            "issuers[0].issuer",
            "https://",
        ),
        (
            "name: corp, issuer: \"https://login.example.com\", audiences: [a], discovery: true",
            "issuers[0].issuer",
            "auth.issuer",
        ),
        (
            "name: corp, issuer: \"https://id.example.com\", discovery: true",
            "issuers[0].audiences",
            "audiences",
        ),
        (good, "issuers[0]", "discovery: true"),
        (&format!("{good}, discovery: true, jwks_file: a.json"), "issuers[0]", "one of"),
        (&format!("{good}, jwks_file: none.json"), "issuers[0]", "none.json"),
        (&format!("{good}, jwks_file: empty.json"), "issuers[0]", "none of its keys"),
        (&format!("{good}, jwks: \"http://10.0.0.1/keys\""), "issuers[0].jwks", "https://"),
        (&format!("{good}, discovery: true, algorithms: [HS256]"), "issuers[0].algorithms[0]", "RS256"),
        (&format!("{good}, discovery: true, algorithms: [none]"), "issuers[0].algorithms[0]", "RS256"),
        (&format!("{good}, discovery: true, leeway: 1h"), "issuers[0].leeway", "5m"),
        (
            &format!("{good}, discovery: true, roles: {{map: {{boss: admin}}}}"),
            "issuers[0].roles.map.boss",
            "administrators",
        ),
        (&format!("{good}, discovery: true, roles: {{prefix: ad}}"), "issuers[0].roles.prefix", "corp:"),
        (&format!("{good}, discovery: true, roles: {{prefix: \"\"}}"), "issuers[0].roles.prefix", "corp:"),
        (
            &format!("{good}, discovery: true, claims: {{id: a..b}}"),
            "issuers[0].claims.id",
            "realm_access.roles",
        ),
        (&format!("{good}, discovery: true, ca: none.pem"), "issuers[0].ca", "none.pem"),
        (
            &format!("{good}, discovery: true}}, {{{good}, discovery: true"),
            "issuers[1].name",
            "another issuer",
        ),
    ] {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]\nauth: {{issuer: \"https://login.example.com\", audience: a}}\nissuers: [{{{issuer}}}]\n"
        );
        let errors = errors_of(folder.path(), &text);
        assert!(errors.contains(key) && errors.contains(problem), "{issuer}:\n{errors}");
    }
}

/// A certified OpenID provider.
struct Provider {
    child: Child,
    address: SocketAddr,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Provider {
    /// Starts one that tells a gateway at `gateway` of logouts.
    fn start(gateway: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("node");
        command.arg(root.join("tests/peers/provider.mjs")).arg(root.join("target/peers")).arg(gateway);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port: u16 = line.trim().strip_prefix("port ").unwrap().parse().unwrap();
        Self { child, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    #[track_caller]
    fn ask(&self, target: &str) -> String {
        let mut client = Client::connect(self.address);
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address));
        let response = client.response();
        assert_eq!(response.status, 200, "{response:?}");
        response.text()
    }
}

#[test]
fn a_certified_providers_tokens_are_accepted_by_each_algorithm_and_its_logouts_heard() {
    // The provider has to know the gateway's address, and the gateway the provider's.
    let port = port_to_keep();
    let provider = Provider::start(&format!("http://127.0.0.1:{port}"));
    let url = format!("http://{}", provider.address);
    let upstream = Upstream::start();
    let issuers = format!(
        "  - {{name: corp, issuer: \"{url}\", discovery: true, audiences: [orders, gateway], roles: {{map: {{staff: clerk}}}}}}\n"
    );
    let mut settings = Settings::routes(ROUTES).extra(&format!("issuers:\n{issuers}"));
    settings.listen = format!("127.0.0.1:{port}");
    let gateway = Gateway::start(&upstream, settings);
    let admin = gateway.admin_token("root");
    let mut algorithms =
        vec![header_of(&provider.ask("/mint?sub=a&sid=1"))["alg"].as_str().unwrap().to_owned()];
    for number in 0..7 {
        let token = provider.ask(&format!("/mint?sub=user{number}&sid=session{number}"));
        eventually("the keys are there", || (status(&gateway, &token) == 200).then_some(()));
        let seen = upstream.last();
        assert_eq!(seen.header("x-user-id"), Some(format!("corp:user{number}").as_str()));
        assert_eq!(seen.header("x-user-name"), Some(format!("user{number}%20by%20name").as_str()));
        assert_eq!(seen.header("x-user-roles"), Some("clerk"));
        let other = provider.ask(&format!("/mint?sub=user{number}&sid=another"));
        assert_eq!(status(&gateway, &other), 200);
        provider.ask(&format!("/end?sub=user{number}&sid=session{number}"));
        assert_eq!(
            (status(&gateway, &token), status(&gateway, &other)),
            (401, 200),
            "{:?}",
            algorithms.last()
        );
        if number < 6 {
            algorithms.push(provider.ask("/rotate"));
            // Without waiting for the next fetch: another config is another issuer.
            let leeway = format!("leeway: {}s, ", number + 10);
            let again = format!("issuers:\n{}", issuers.replace("discovery", &format!("{leeway}discovery")));
            let mut settings = Settings::routes(ROUTES).extra(&again);
            settings.listen = format!("127.0.0.1:{port}");
            assert_eq!(gateway.reload(&admin, &settings).status, 200);
        }
    }
    algorithms.sort();
    assert_eq!(algorithms, ["ES256", "ES384", "EdDSA", "PS256", "RS256", "RS384", "RS512"]);
}

#[test]
fn a_certified_provider_is_asked_about_opaque_tokens() {
    let provider = Provider::start("http://127.0.0.1:1");
    let url = format!("http://{}", provider.address);
    let keys = format!(
        "introspection: {{url: \"{url}/token/introspection\", client_id: gateway, client_secret: the secret of the gateway there}}"
    );
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, corp(&url, &keys, ""));
    let token = provider.ask("/mint?sub=anna&sid=s&opaque=1");
    assert!(!token.contains('.'), "{token}");
    assert_eq!(status(&gateway, &token), 200, "{}", gateway.log());
    assert_eq!(upstream.last().header("x-user-id"), Some("corp:anna"));
    assert_eq!(status(&gateway, &format!("{token}x")), 401);
}
