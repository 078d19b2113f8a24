//! Client programs: tokens by what they show, and what becomes of these.

use std::fs;

use authgate::{
    clock::{Clock, SystemClock},
    types::{NewApiKeyText, OsRandom},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::harness::{
    Cluster, Gateway, Response, Settings, Upstream, claims_of, eventually,
    fleet::{POLL, pair},
    issuer::IssuerKey,
    node_file, peer_folder, python_file,
};

const ISSUER: &str = "https://login.example.com";

/// A client with a secret: its id, and the header that shows it.
#[track_caller]
fn add(gateway: &Gateway, name: &str, roles: &[&str]) -> (String, String) {
    let mut args = vec!["client", "add", name];
    roles.iter().for_each(|role| args.extend(["--role", role]));
    let said = gateway.run(&args, "");
    let of = |key: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(&format!("{key}: ")));
        line.unwrap_or_else(|| panic!("{said}")).to_owned()
    };
    let (id, secret) = (of("client_id"), of("client_secret"));
    let header = basic(&id, &secret);
    (id, header)
}

fn basic(id: &str, secret: &str) -> String {
    format!("Authorization: Basic {}\r\n", STANDARD.encode(format!("{id}:{secret}")))
}

/// Sends a form.
#[track_caller]
fn form(gateway: &Gateway, path: &str, headers: &str, body: &str) -> Response {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    );
    gateway.client().send(format!("{head}Content-Length: {length}\r\n{headers}\r\n{body}")).response()
}

const GRANT: &str = "grant_type=client_credentials";

#[track_caller]
fn token(gateway: &Gateway, headers: &str, more: &str) -> String {
    let response = form(gateway, "/auth/token", headers, &format!("{GRANT}{more}"));
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["access_token"].as_str().unwrap().to_owned()
}

#[track_caller]
fn failed(response: &Response, status: u16, error: &str) {
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    assert_eq!((response.status, body["error"].as_str()), (status, Some(error)), "{response:?}");
    assert_eq!(response.header("cache-control"), Some("no-store"));
}

fn now() -> u64 {
    SystemClock.wall().unsigned_abs() / 1_000
}

#[test]
fn a_client_gets_a_token_that_opens_what_its_roles_do() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let (id, header) = add(&gateway, "reports", &["staff", "reader"]);
    let response = form(&gateway, "/auth/token", &header, GRANT);
    assert_eq!(response.status, 200);
    assert_eq!(
        (response.header("cache-control"), response.header("pragma")),
        (Some("no-store"), Some("no-cache"))
    );
    let body = response.json();
    assert_eq!((&body["token_type"], &body["expires_in"]), (&json!("Bearer"), &json!(900)));
    assert_eq!((&body["scope"], body.get("refresh_token")), (&json!("reader staff"), None));
    let access = body["access_token"].as_str().unwrap();
    let claims = claims_of(access);
    assert_eq!((&claims["sub"], &claims["client_id"]), (&json!(id), &json!(id)));
    assert_eq!((&claims["iss"], &claims["roles"]), (&json!(ISSUER), &json!(["reader", "staff"])));

    assert_eq!(gateway.get("/api/x", Some(access)).status, 200);
    let seen = upstream.seen().pop().unwrap();
    assert_eq!(seen.header("x-user-id"), Some(id.as_str()));
    assert_eq!(
        (seen.header("x-user-name"), seen.header("x-user-roles")),
        (Some("reports"), Some("reader,staff"))
    );
    assert_eq!(gateway.get("/admin/x", Some(access)).status, 403);

    let one = token(&gateway, &header, "&scope=reader");
    assert_eq!(gateway.get("/api/x", Some(&one)).status, 200);
    assert_eq!(upstream.seen().pop().unwrap().header("x-user-roles"), Some("reader"));
    // It is nobody's account.
    for (method, path) in
        [("GET", "/auth/me"), ("GET", "/auth/sessions"), ("POST", "/auth/logout"), ("POST", "/auth/keys")]
    {
        assert_eq!(
            gateway.send(method, path, Some(access), Some(&json!({"name": "a"}))).status,
            403,
            "{path}"
        );
    }
    assert_eq!(gateway.admin("GET", "/api/users", Some(access), None).status, 403);
    // The secret is no token, and the token no secret.
    assert_eq!(gateway.get("/api/x", header.rsplit(' ').next().map(str::trim)).status, 401);
    failed(&form(&gateway, "/auth/token", &basic(&id, access), GRANT), 401, "invalid_client");
}

#[test]
fn what_is_no_request_for_a_token_is_told_by_the_errors_of_oauth() {
    let gateway = Gateway::alone(Settings::default());
    let (id, header) = add(&gateway, "reports", &["staff"]);
    let token = |headers: &str, body: &str| form(&gateway, "/auth/token", headers, body);
    failed(&token(&header, ""), 400, "invalid_request");
    failed(&token(&header, "grant_type=password&username=a&password=b"), 400, "unsupported_grant_type");
    failed(&token(&header, &format!("{GRANT}&{GRANT}")), 400, "invalid_request");
    failed(&token(&header, &format!("{GRANT}&scope=admin")), 400, "invalid_scope");
    failed(&token(&header, &format!("{GRANT}&scope=No+Role")), 400, "invalid_scope");
    let unknown = "01890000-0000-7000-8000-000000000000";
    for headers in [
        String::new(),
        basic(&id, "wrong"),
        basic(&id, ""),
        basic(unknown, "wrong"),
        basic("reports", "wrong"),
        "Authorization: Basic !!!\r\n".to_owned(),
        "Authorization: Bearer x\r\n".to_owned(),
        format!("{header}{header}"),
    ] {
        let response = token(&headers, GRANT);
        failed(&response, 401, "invalid_client");
        let challenge = response.header("www-authenticate").unwrap();
        assert_eq!(challenge.starts_with("Basic"), !headers.is_empty(), "{challenge}");
    }
    // Secrets in the body are not taken, nor a client that names itself otherwise.
    failed(&token("", &format!("{GRANT}&client_id={id}&client_secret=x")), 401, "invalid_client");
    failed(&token(&header, &format!("{GRANT}&client_id={unknown}")), 401, "invalid_client");
    failed(&token(&header, &format!("{GRANT}&client_id={id}&client_secret=x")), 400, "invalid_request");
    let json = gateway.send("POST", "/auth/token", None, Some(&json!({"grant_type": "client_credentials"})));
    failed(&json, 400, "invalid_request");
    assert_eq!(gateway.get("/auth/token", None).status, 405);
}

#[test]
fn a_client_shows_who_it_is_by_a_key_once_for_each_assertion() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let key = IssuerKey::p256("a");
    let file = gateway.folder.path().join("jwks.json");
    fs::write(&file, json!({"keys": [key.jwk]}).to_string()).unwrap();
    let said =
        gateway.run(&["client", "add", "reports", "--role", "staff", "--jwks", file.to_str().unwrap()], "");
    assert!(!said.contains("client_secret"), "{said}");
    let id = said.trim().strip_prefix("client_id: ").unwrap().to_owned();
    let claims =
        |jti: &str| json!({"iss": id, "sub": id, "aud": ISSUER, "exp": now() + 60, "iat": now(), "jti": jti});
    let header = json!({"alg": "ES256", "kid": "a"});
    let sign = |claims: &Value| key.sign(&header, &claims.to_string());
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let by = |assertion: &str| {
        let body = format!("{GRANT}&client_assertion_type={kind}&client_assertion={assertion}");
        form(&gateway, "/auth/token", "", &body)
    };
    let first = sign(&claims("first"));
    let issued = by(&first);
    assert_eq!(issued.status, 200, "{issued:?}");
    assert_eq!(gateway.get("/api/x", issued.json()["access_token"].as_str()).status, 200);
    failed(&by(&first), 401, "invalid_client");
    for audience in [json!(format!("{ISSUER}/auth/token")), json!(["https://other.example", ISSUER])] {
        let mut claims = claims(&audience.to_string());
        claims["aud"] = audience;
        assert_eq!(by(&sign(&claims)).status, 200, "{claims}");
    }
    let changed = |name: &str, value: Value| {
        let mut changed = claims(&format!("{name}{value}"));
        changed[name] = value;
        changed
    };
    for claims in [
        changed("aud", json!("https://other.example")),
        changed("aud", json!(null)),
        changed("iss", json!("other")),
        changed("sub", json!("01890000-0000-7000-8000-000000000000")),
        changed("exp", json!(now() - 1)),
        changed("exp", json!(now() + 7_200)),
        changed("exp", json!(null)),
        changed("jti", json!(null)),
        changed("nbf", json!(now() + 300)),
        changed("iat", json!(now() + 300)),
    ] {
        failed(&by(&sign(&claims)), 401, "invalid_client");
    }
    let other = IssuerKey::p256("a");
    failed(&by(&other.sign(&header, &claims("other").to_string())), 401, "invalid_client");
    for typ in ["at+jwt", "logout+jwt"] {
        let header = json!({"alg": "ES256", "kid": "a", "typ": typ});
        failed(&by(&key.sign(&header, &claims(typ).to_string())), 401, "invalid_client");
    }
    let none = json!({"alg": "none", "kid": "a"});
    failed(&by(&key.sign(&none, &claims("none").to_string())), 401, "invalid_client");
    let body = format!("{GRANT}&client_assertion={}", sign(&claims("kind")));
    failed(&form(&gateway, "/auth/token", "", &body), 401, "invalid_client");
    // By a secret it cannot come, unless it is given one in place of the key.
    failed(&form(&gateway, "/auth/token", &basic(&id, ""), GRANT), 401, "invalid_client");
    let said = gateway.run(&["client", "renew-secret", "reports"], "");
    let secret = said.trim().strip_prefix("client_secret: ").unwrap();
    assert_eq!(form(&gateway, "/auth/token", &basic(&id, secret), GRANT).status, 200);
    failed(&by(&sign(&claims("later"))), 401, "invalid_client");
    // Private keys are not taken.
    let mut private = key.jwk.clone();
    private["d"] = json!("c2VjcmV0");
    fs::write(&file, json!({"keys": [private]}).to_string()).unwrap();
    let refused = gateway.command(&["client", "add", "others", "--jwks", file.to_str().unwrap()], "");
    assert!(!refused.status.success());
}

#[test]
fn keys_that_are_none_are_counted_wherever_they_are_shown() {
    let bad = NewApiKeyText::generate(&OsRandom).text.expose().to_owned();
    for call in ["introspect", "revoke"] {
        let gateway =
            Gateway::alone(Settings::default().auth("  throttle: {address: {failures: 5, per: 1h}}\n"));
        let (_, header) = add(&gateway, "reports", &[]);
        let shown: Vec<u16> = (0..8)
            .map(|_| form(&gateway, &format!("/auth/{call}"), &header, &format!("token={bad}")).status)
            .collect();
        assert_eq!(shown, [200, 200, 200, 200, 200, 429, 429, 429], "{call}");
    }
}

#[test]
fn tokens_are_described_to_clients_and_to_nobody_else() {
    let gateway = Gateway::alone(Settings::default());
    let (id, header) = add(&gateway, "reports", &["staff"]);
    let (_, other) = add(&gateway, "others", &[]);
    let asked =
        |headers: &str, token: &str| form(&gateway, "/auth/introspect", headers, &format!("token={token}"));
    let own = token(&gateway, &header, "");
    for headers in [&header, &other] {
        let said = asked(headers, &own).json();
        assert_eq!(
            (&said["active"], &said["sub"], &said["client_id"]),
            (&json!(true), &json!(id), &json!(id))
        );
        assert_eq!((&said["scope"], &said["iss"]), (&json!("staff"), &json!(ISSUER)));
        assert!(said["exp"].as_u64().unwrap() > now());
    }
    let registered = gateway.register("alice");
    let user = registered["access_token"].as_str().unwrap();
    let said = asked(&header, user).json();
    assert_eq!(
        (&said["active"], &said["sub"], &said["username"]),
        (&json!(true), &registered["user_id"], &json!("alice"))
    );
    assert!(said.get("client_id").is_none());
    let key = gateway.send("POST", "/auth/keys", Some(user), Some(&json!({"name": "a"}))).json();
    let said = asked(&header, key["key"].as_str().unwrap()).json();
    assert_eq!((&said["active"], &said["username"]), (&json!(true), &json!("alice")));
    // Where one with limits is good cannot be told.
    let limited = json!({"name": "b", "routes": ["/api/**"]});
    let limited = gateway.send("POST", "/auth/keys", Some(user), Some(&limited)).json();
    assert_eq!(asked(&header, limited["key"].as_str().unwrap()).json(), json!({"active": false}));
    assert_eq!(gateway.logout(user).status, 200);
    for dead in [user, "x", "a.b.c", registered["refresh_token"].as_str().unwrap(), &own[..own.len() - 1]] {
        assert_eq!(asked(&header, dead).json(), json!({"active": false}), "{dead}");
    }
    failed(&asked("", &own), 401, "invalid_client");
    failed(&asked(&format!("Authorization: Bearer {own}\r\n"), &own), 401, "invalid_client");
    failed(&form(&gateway, "/auth/introspect", &header, ""), 400, "invalid_request");
}

#[test]
fn a_client_ends_its_own_tokens_one_at_a_time() {
    let gateway = Gateway::alone(Settings::default());
    let (_, header) = add(&gateway, "reports", &["staff"]);
    let (_, other) = add(&gateway, "others", &[]);
    let (first, second) = (token(&gateway, &header, ""), token(&gateway, &header, ""));
    let end = |headers: &str, token: &str| {
        form(&gateway, "/auth/revoke", headers, &format!("token={token}&token_type_hint=access_token"))
    };
    failed(&end(&other, &first), 400, "unauthorized_client");
    failed(&end("", &first), 401, "invalid_client");
    assert_eq!(gateway.get("/api/x", Some(&first)).status, 200);
    assert_eq!(end(&header, &first).status, 200);
    assert_eq!(
        (gateway.get("/api/x", Some(&first)).status, gateway.get("/api/x", Some(&second)).status),
        (401, 200)
    );
    for again in [&first, "x"] {
        assert_eq!(end(&header, again).status, 200);
    }
    let user = gateway.token("alice");
    failed(&end(&header, &user), 400, "unauthorized_client");
    assert_eq!(gateway.get("/api/x", Some(&user)).status, 200);
}

#[test]
fn a_client_that_is_changed_or_removed_has_lost_its_tokens_on_every_gateway() {
    let cluster = Cluster::start();
    let (here, there, _) = pair(&cluster);
    let (id, header) = add(&here, "reports", &["staff"]);
    let admin = here.admin_token("root");
    let ends = |token: &str| {
        assert_eq!(here.get("/api/x", Some(token)).status, 401);
        eventually("it has ended there", || (there.get("/api/x", Some(token)).status == 401).then_some(()));
    };
    let before = token(&there, &header, "");
    assert_eq!(
        (here.get("/api/x", Some(&before)).status, there.get("/api/x", Some(&before)).status),
        (200, 200)
    );
    let roles = format!("/api/clients/{id}/roles");
    assert_eq!(here.admin("PUT", &roles, Some(&admin), Some(&json!({"roles": ["admin"]}))).status, 200);
    ends(&before);
    let raised = token(&there, &header, "");
    assert_eq!(there.get("/admin/x", Some(&raised)).status, 200);
    let renewed = here.admin("POST", &format!("/api/clients/{id}/secret"), Some(&admin), None);
    assert_eq!(renewed.status, 201);
    ends(&raised);
    failed(&form(&there, "/auth/token", &header, GRANT), 401, "invalid_client");
    let header = basic(&id, renewed.json()["client_secret"].as_str().unwrap());
    let last = token(&there, &header, "");
    let listed = here.admin("GET", "/api/clients", Some(&admin), None).json();
    assert_eq!(
        (&listed["clients"][0]["name"], &listed["clients"][0]["roles"]),
        (&json!("reports"), &json!(["admin"]))
    );
    assert!(listed["clients"][0]["last_used_at"].is_string());
    // By the command line, which has no mirror of its own.
    here.run(&["client", "remove", "reports"], "");
    eventually("it has ended here", || (here.get("/api/x", Some(&last)).status == 401).then_some(()));
    eventually("and there", || (there.get("/api/x", Some(&last)).status == 401).then_some(()));
    failed(&form(&there, "/auth/token", &header, GRANT), 401, "invalid_client");
    // One token of a client ends everywhere, too.
    let (_, header) = add(&here, "others", &[]);
    let one = token(&here, &header, "");
    eventually("it holds there", || (there.get("/api/x", Some(&one)).status == 200).then_some(()));
    assert_eq!(form(&here, "/auth/revoke", &header, &format!("token={one}")).status, 200);
    std::thread::sleep(POLL);
    ends(&one);
}

#[test]
fn tries_of_clients_that_are_none_are_throttled_by_address() {
    let settings = Settings::default().auth("  throttle: {address: {failures: 5, per: 1h}}\n");
    let gateway = Gateway::alone(settings);
    let (id, header) = add(&gateway, "reports", &[]);
    for number in 0..5 {
        failed(
            &form(&gateway, "/auth/token", &basic(&id, &number.to_string()), GRANT),
            401,
            "invalid_client",
        );
    }
    let response = form(&gateway, "/auth/token", &basic(&id, "again"), GRANT);
    assert!(response.status == 429 && response.header("retry-after").is_some(), "{response:?}");
    // Others at the same address go on.
    assert_eq!(form(&gateway, "/auth/token", &header, GRANT).status, 200);
}

/// Gets, shows and ends a token by Authlib and by openid-client.
#[track_caller]
fn by_libraries(base: &str, method: &str, id: &str, secret: &str) {
    let printed = python_file("oauth_client.py", &[base, method, id, secret]);
    assert_eq!(printed.lines().collect::<Vec<_>>(), ["200", "True", "200", "False", "401"]);
    let peers = peer_folder();
    let args = [peers.to_str().unwrap(), base, ISSUER, method, id, secret];
    let printed = node_file("oauth_client.mjs", &args);
    assert_eq!(printed.lines().collect::<Vec<_>>(), ["200 true", "401 false"]);
}

#[test]
fn libraries_for_oauth_get_show_and_end_tokens_by_the_metadata() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let metadata = gateway.get("/.well-known/oauth-authorization-server", None).json();
    assert_eq!(
        (&metadata["issuer"], &metadata["token_endpoint"]),
        (&json!(ISSUER), &json!(format!("{ISSUER}/auth/token")))
    );
    assert_eq!(gateway.get("/.well-known/oauth-authorization-server/tenant", None).status, 404);
    let base = format!("http://{}", gateway.address);
    let said = gateway.run(&["client", "add", "reports", "--role", "staff"], "");
    let of = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)).unwrap().to_owned();
    let (id, secret) = (of("client_id: "), of("client_secret: "));
    by_libraries(&base, "client_secret_basic", &id, &secret);
    let (key, file) = (IssuerKey::p256("a"), gateway.folder.path().join("jwks.json"));
    fs::write(&file, json!({"keys": [key.jwk]}).to_string()).unwrap();
    let private = gateway.folder.path().join("key.pem");
    fs::write(&private, key.pem()).unwrap();
    let said = gateway.run(&["client", "add", "by key", "--jwks", file.to_str().unwrap()], "");
    let id = said.trim().strip_prefix("client_id: ").unwrap();
    by_libraries(&base, "private_key_jwt", id, private.to_str().unwrap());
}

#[test]
fn the_metadata_of_an_issuer_with_a_path_stands_before_that_path() {
    let gateway = Gateway::alone(Settings::default());
    let root = gateway.admin_token("root");
    let file = gateway.folder.path().join("gateway.yaml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace(&format!("issuer: {ISSUER}"), &format!("issuer: {ISSUER}/tenants/one/")))
        .unwrap();
    let reloaded = gateway.admin("POST", "/api/config/reload", Some(&root), None);
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
    const METADATA: &str = "/.well-known/oauth-authorization-server";
    for path in ["", "/tenants/one"] {
        let metadata = gateway.get(&format!("{METADATA}{path}"), None);
        assert_eq!(metadata.status, 200, "{path}");
        assert_eq!(metadata.json()["issuer"], format!("{ISSUER}/tenants/one/"));
    }
    for path in ["/tenants", "/tenants/one/", "/tenants/two"] {
        assert_eq!(gateway.get(&format!("{METADATA}{path}"), None).status, 404, "{path}");
    }
}
