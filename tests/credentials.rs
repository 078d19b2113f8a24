//! What is a credential, and which tokens hold.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use serde_json::{Value, json};

use crate::harness::protocol::by_each_protocol;
use crate::harness::{Gateway, SECRET, Settings, Upstream, claims_of, forge, forge_raw, header_of, sign};

/// The gateway, its upstream, and a genuine token with its header and claims.
fn genuine() -> (Gateway, Upstream, String, Value, Value) {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::shared_secret());
    let token = gateway.token("alice");
    let (header, claims) = (header_of(&token), claims_of(&token));
    (gateway, upstream, token, header, claims)
}

fn with(value: &Value, key: &str, new: Value) -> Value {
    let mut changed = value.clone();
    changed[key] = new;
    changed
}

fn without(value: &Value, key: &str) -> Value {
    let mut changed = value.clone();
    changed.as_object_mut().unwrap().remove(key);
    changed
}

#[track_caller]
fn refused(gateway: &Gateway, upstream: &Upstream, token: &str, what: &str) {
    let before = upstream.bytes();
    let response = gateway.get("/api/x", Some(token));
    assert_eq!((response.status, response.message().as_str()), (401, "Missing or invalid token"), "{what}");
    assert_eq!(upstream.bytes(), before, "{what}");
}

#[test]
fn a_token_that_the_gateway_could_have_made_is_accepted() {
    let (gateway, _upstream, _, header, claims) = genuine();
    assert_eq!(gateway.get("/api/x", Some(&forge(&header, &claims))).status, 200);
    let spelled = with(&header, "typ", json!("application/AT+JWT"));
    assert_eq!(gateway.get("/api/x", Some(&forge(&spelled, &claims))).status, 200);
}

#[test]
fn no_algorithm_but_the_keys_own_is_accepted() {
    let (gateway, upstream, token, header, claims) = genuine();
    for alg in ["none", "None", "NONE", "", "HS384", "HS512", "RS256", "ES256", "EdDSA"] {
        let header = with(&header, "alg", json!(alg));
        refused(&gateway, &upstream, &forge(&header, &claims), alg);
        let message = format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims.to_string()));
        refused(&gateway, &upstream, &format!("{message}."), alg);
    }
    let message = token.rsplit_once('.').unwrap().0;
    for secret in [&b""[..], b"secret", &SECRET.as_bytes()[1..]] {
        refused(&gateway, &upstream, &format!("{message}.{}", sign_any(message, secret)), "another secret");
    }
}

fn sign_any(message: &str, secret: &[u8]) -> String {
    sign(message, if secret.is_empty() { b"\0" } else { secret })
}

#[test]
fn the_public_key_is_no_hmac_secret() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let token = gateway.token("alice");
    let jwk = gateway.get("/auth/jwks.json", None).json()["keys"][0].clone();
    let public = BASE64.decode(jwk["x"].as_str().unwrap()).unwrap();
    let header = with(&header_of(&token), "alg", json!("HS256"));
    let message =
        format!("{}.{}", BASE64.encode(header.to_string()), BASE64.encode(claims_of(&token).to_string()));
    for secret in [&public[..], jwk["x"].as_str().unwrap().as_bytes(), jwk.to_string().as_bytes()] {
        refused(
            &gateway,
            &upstream,
            &format!("{message}.{}", sign(&message, secret)),
            "public key as secret",
        );
    }
}

#[test]
fn headers_that_point_elsewhere_are_refused_and_nobody_is_asked() {
    let (gateway, upstream, _, header, claims) = genuine();
    let bait = Upstream::start();
    let url = format!("http://{}/keys", bait.address);
    for (key, value) in [
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!(["MIIB"])),
        ("jwk", json!({"kty": "oct", "k": BASE64.encode(SECRET)})),
        ("crit", json!(["exp"])),
        ("crit", json!([])),
        ("crit", json!(null)),
        ("b64", json!(false)),
        ("b64", json!(true)),
        ("zip", json!("DEF")),
        ("kid", json!("../../../../dev/null")),
        ("kid", json!("' OR 1=1 --")),
        ("kid", json!("")),
        ("kid", json!(1)),
        ("typ", json!("JWT")),
        ("typ", json!("at+jwt; x")),
    ] {
        refused(
            &gateway,
            &upstream,
            &forge(&with(&header, key, value.clone()), &claims),
            &format!("{key}: {value}"),
        );
    }
    refused(&gateway, &upstream, &forge(&without(&header, "kid"), &claims), "no kid");
    refused(&gateway, &upstream, &forge(&without(&header, "typ"), &claims), "no typ");
    assert_eq!(bait.connections(), 0);
}

#[test]
fn claims_of_another_kind_are_refused() {
    let (gateway, upstream, _, header, claims) = genuine();
    let (exp, iat) = (claims["exp"].as_i64().unwrap(), claims["iat"].as_i64().unwrap());
    for (key, value) in [
        ("exp", json!(exp.to_string())),
        ("exp", json!(exp as f64 + 0.5)),
        ("exp", json!(null)),
        ("exp", json!(iat - 1)),
        ("exp", json!(-1)),
        ("exp", json!(1e30)),
        ("nbf", json!(exp)),
        ("nbf", json!("0")),
        ("iat", json!("0")),
        ("iss", json!("https://login.example.com/")),
        ("iss", json!(["https://login.example.com"])),
        ("aud", json!("other")),
        ("aud", json!(["tests", "other"])),
        ("sub", json!("1")),
        ("sub", json!("00000000-0000-4000-8000-000000000000")),
        ("sid", json!("x")),
        ("name", json!("Alice")),
        ("name", json!("a\r\nX-User-Roles: admin")),
        ("name", json!("")),
        ("roles", json!("admin")),
        ("roles", json!(["a,b"])),
        ("roles", json!(["a\r\nb"])),
        ("gen", json!("1")),
        ("gen", json!(-1)),
    ] {
        refused(
            &gateway,
            &upstream,
            &forge(&header, &with(&claims, key, value.clone())),
            &format!("{key}: {value}"),
        );
    }
    for key in ["exp", "iss", "aud", "sub", "sid", "name", "roles", "gen", "jti", "iat"] {
        refused(&gateway, &upstream, &forge(&header, &without(&claims, key)), &format!("no {key}"));
    }
    let twice = claims.to_string().replacen('{', r#"{"sub":"01890000-0000-7000-8000-000000000000","#, 1);
    refused(&gateway, &upstream, &forge_raw(&header.to_string(), &twice), "sub twice");
    let twice = header.to_string().replacen('{', r#"{"alg":"HS256","#, 1);
    refused(&gateway, &upstream, &forge_raw(&twice, &claims.to_string()), "alg twice");
}

#[test]
fn an_expired_token_is_refused_even_if_it_was_just_used() {
    let gateway = Gateway::alone(Settings::default().auth("  access_token_ttl: 2s\n"));
    let token = gateway.token("alice");
    assert_eq!(gateway.get("/api/x", Some(&token)).status, 200);
    crate::harness::eventually("the token expires", || {
        let response = gateway.get("/api/x", Some(&token));
        (response.status == 401).then_some(())
    });
}

#[test]
fn what_is_no_single_bearer_token_is_refused() {
    let (gateway, upstream, token, ..) = genuine();
    let try_lines = |lines: &str| {
        gateway.client().send(format!("GET /api/x HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).response()
    };
    assert_eq!(try_lines(&format!("Authorization: bearer {token}\r\n")).status, 200);
    let before = upstream.bytes();
    for lines in [
        format!("Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n"),
        format!("Authorization: Bearer {token}, Bearer {token}\r\n"),
        format!("Authorization: Bearer {token},\r\n"),
        format!("Authorization: Basic {token}\r\n"),
        format!("Authorization: {token}\r\n"),
        format!("Authorization: Bearer  {token} x\r\n"),
        format!("X-Authorization: Bearer {token}\r\n"),
        format!("Cookie: access_token={token}\r\n"),
        "Authorization: Bearer\r\n".to_owned(),
        "Authorization: Bearer null\r\n".to_owned(),
        "Authorization: Bearer ..\r\n".to_owned(),
        format!("Authorization: Bearer {}\r\n", ".".repeat(60_000)),
    ] {
        assert_eq!(try_lines(&lines).status, 401, "{}", &lines[..lines.len().min(80)]);
    }
    for path in [format!("/api/x?access_token={token}"), format!("/api/x?token={token}")] {
        assert_eq!(gateway.get(&path, None).status, 401);
    }
    assert_eq!(upstream.bytes(), before);
}

#[test]
fn on_an_optional_route_a_bad_credential_is_not_anonymous() {
    let (gateway, upstream, token, ..) = genuine();
    assert_eq!(gateway.get("/optional/x", None).status, 200);
    assert_eq!(upstream.last().header("X-User-Id"), None);
    assert_eq!(gateway.get("/optional/x", Some(&token)).status, 200);
    assert_eq!(upstream.last().header("X-User-Name"), Some("alice"));
    assert_eq!(gateway.get("/optional/x", Some("junk")).status, 401);
    gateway.logout(&token);
    assert_eq!(gateway.get("/optional/x", Some(&token)).status, 401);
}

/// The test vectors of the C2SP project, for the verifier itself.
#[test]
fn wycheproof_signatures_are_judged_as_they_should_be() {
    use authgate::token::{VerifyingKey, verify_signature};
    use std::sync::Arc;

    let text = include_str!("vectors/wycheproof_json_web_signature_test.json");
    let vectors: Value = serde_json::from_str(text).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    for group in vectors["testGroups"].as_array().unwrap() {
        let key = if group["public"].is_object() { &group["public"] } else { &group["private"] };
        let decode = |member: &str| BASE64.decode(key[member].as_str().unwrap_or_default()).ok();
        // A key that does not say for which algorithm it is, is none of ours.
        let verifying = match (key["kty"].as_str(), key["alg"].as_str()) {
            (Some("oct"), Some("HS256")) => decode("k").and_then(|secret| VerifyingKey::hmac(&secret)),
            (Some("EC"), Some("ES256")) => decode("x")
                .zip(decode("y"))
                .map(|(x, y)| VerifyingKey::p256(&[&[4], x.as_slice(), y.as_slice()].concat())),
            _ => None,
        };
        let ours = verifying.is_some();
        let verifying = verifying.map(Arc::new);
        for test in group["tests"].as_array().unwrap() {
            let jws = test["jws"].as_str().unwrap_or_default();
            let judged = verify_signature(jws, |_, _| verifying.clone()).is_ok();
            // Two corrections to the labels. Vectors 367 and 370 are called invalid for their padding,
            // but have none: they are one good JWS, whose HMAC under this key anyone can recompute.
            // And some are called valid because a lenient decoder skips what is not base64url.
            let strict = jws.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
            let labelled = test["result"] == "valid" || test["tcId"] == 367 || test["tcId"] == 370;
            let valid = ours && strict && labelled;
            assert_eq!(judged, valid, "{} {}: {jws}", test["tcId"], test["comment"]);
            if judged { accepted += 1 } else { refused += 1 }
        }
    }
    assert!(accepted > 0);
    assert_eq!(accepted + refused, vectors["numberOfTests"].as_i64().unwrap());
}

by_each_protocol!(
    a_token_that_the_gateway_could_have_made_is_accepted,
    no_algorithm_but_the_keys_own_is_accepted,
    the_public_key_is_no_hmac_secret,
    headers_that_point_elsewhere_are_refused_and_nobody_is_asked,
    claims_of_another_kind_are_refused,
    an_expired_token_is_refused_even_if_it_was_just_used,
    what_is_no_single_bearer_token_is_refused,
    on_an_optional_route_a_bad_credential_is_not_anonymous,
);
