//! Registering, logging in, and what an account can do with itself.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{
    Gateway, PASSWORD, Settings, Upstream, claims_of, eventually, header_of, shared_database,
};

#[test]
fn register_log_in_call_through_log_out_and_be_refused() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings::default());
    let registered = gateway.register("Alice");
    assert_eq!(registered["message"], "User registered successfully");
    assert_eq!(registered["username"], "alice");
    assert_eq!(registered["roles"], json!(["user"]));
    assert_eq!(registered["token_type"], "Bearer");
    assert_eq!(registered["expires_in"], 900);

    let login = gateway.login("ALICE");
    assert_eq!(login["message"], "Authenticated successfully");
    assert_eq!(login["user_id"], registered["user_id"]);
    let token = login["access_token"].as_str().unwrap();
    assert_eq!(gateway.get("/api/orders?x=1", Some(token)).text(), "/api/orders?x=1");
    let seen = upstream.only();
    assert_eq!(seen.header("X-User-Id"), login["user_id"].as_str());
    assert_eq!(seen.header("X-User-Name"), Some("alice"));
    assert_eq!(seen.header("X-User-Roles"), Some("user"));
    assert_eq!(seen.header("Authorization"), None);

    let logout = gateway.logout(token);
    assert_eq!((logout.status, logout.message().as_str()), (200, "Logged out successfully"));
    let refused = gateway.get("/api/orders", Some(token));
    assert_eq!((refused.status, refused.message().as_str()), (401, "Missing or invalid token"));
    assert_eq!(refused.header("WWW-Authenticate"), Some(r#"Bearer error="invalid_token""#));
    assert_eq!(upstream.seen().len(), 1);
    // Another session of the same user lives on.
    let first = registered["access_token"].as_str().unwrap();
    assert_eq!(gateway.get("/api/orders", Some(first)).status, 200);
}

#[test]
fn the_access_token_is_the_one_that_is_promised() {
    let gateway = Gateway::alone(Settings::default());
    let response = gateway.register("bob");
    let token = response["access_token"].as_str().unwrap();
    let header = header_of(token);
    assert_eq!((header["alg"].as_str(), header["typ"].as_str()), (Some("EdDSA"), Some("at+jwt")));
    let claims = claims_of(token);
    assert_eq!(claims["iss"], "https://login.example.com");
    assert_eq!(claims["aud"], "tests");
    assert_eq!(claims["sub"], response["user_id"]);
    assert_eq!(claims["name"], "bob");
    assert_eq!(claims["roles"], json!(["user"]));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 900);
    for claim in ["sid", "jti", "gen"] {
        assert!(!claims[claim].is_null(), "{claim}");
    }
    assert_eq!(claims["sub"].as_str().unwrap().as_bytes()[14], b'7');
    let jwks = gateway.get("/auth/jwks.json", None);
    assert_eq!(jwks.json()["keys"][0]["kid"], header["kid"]);
    assert!(jwks.header("Cache-Control").unwrap().contains("max-age"), "{jwks:?}");
    assert_eq!(jwks.json()["keys"][0]["d"], json!(null));
}

#[test]
fn every_algorithm_signs_and_verifies() {
    for (signing, algorithm, keys) in [
        ("{algorithm: EdDSA}", "EdDSA", 1),
        ("{algorithm: ES256}", "ES256", 1),
        ("{algorithm: HS256, secret: kX9vQ2mZ7rT4wB8nL1pC6dF3hJ5gS0aE}", "HS256", 0),
    ] {
        let gateway = Gateway::alone(Settings::default().auth(&format!("  signing: {signing}\n")));
        let token = gateway.token("carol");
        assert_eq!(header_of(&token)["alg"], algorithm);
        assert_eq!(gateway.get("/api/x", Some(&token)).status, 200, "{algorithm}");
        let jwks = gateway.get("/auth/jwks.json", None).json();
        assert_eq!(jwks["keys"].as_array().unwrap().len(), keys, "{algorithm}");
    }
}

#[test]
fn what_is_missing_or_wrong_at_registration_is_said() {
    let gateway = Gateway::alone(Settings::default());
    let register = |body| gateway.post("/auth/register", &body);
    for (body, status, message) in [
        (json!({}), 400, "Missing parameters"),
        (json!({"username": "a"}), 400, "Missing parameters"),
        (json!({"username": "", "password": PASSWORD}), 400, "Missing parameters"),
        (json!({"username": 1, "password": PASSWORD}), 400, "Missing parameters"),
        (json!([]), 400, "Missing parameters"),
        (
            json!({"username": "a", "password": PASSWORD, "password_confirm": "x"}),
            400,
            "Passwords do not match",
        ),
        (json!({"username": "a b", "password": PASSWORD}), 400, "Username not accepted"),
        (json!({"username": "dave", "password": "short"}), 400, "Password not accepted"),
        (json!({"username": "dave", "password": PASSWORD, "role": "admin"}), 403, "Insufficient role"),
        (
            json!({"username": "dave", "password": PASSWORD, "roles": ["user", "admin"]}),
            403,
            "Insufficient role",
        ),
    ] {
        let response = register(body.clone());
        assert_eq!((response.status, response.message().as_str()), (status, message), "{body}");
        let problem = response.json();
        assert_eq!(response.header("Content-Type"), Some("application/problem+json"));
        assert_eq!(response.header("Cache-Control"), Some("no-store"));
        assert_eq!(response.header("X-Request-Id"), problem["request_id"].as_str());
        assert_eq!(problem["status"], status);
        assert_eq!(problem["code"], message.to_lowercase().replace(' ', "_"));
        assert!(problem["type"].is_string() && problem["title"].is_string());
    }
    let detail = register(json!({"username": "dave", "password": "short"})).json()["detail"].clone();
    assert!(detail.as_str().unwrap().contains("15"), "{detail}");
    gateway.register("dave");
    let taken = register(json!({"username": "DAVE", "password": PASSWORD}));
    assert_eq!((taken.status, taken.message().as_str()), (409, "Username already exists"));
}

#[test]
fn an_address_is_one_that_a_mail_can_be_written_to() {
    let gateway = Gateway::alone(Settings::default());
    let register = |name: &str, email: &str| {
        gateway.post("/auth/register", &json!({"username": name, "password": PASSWORD, "email": email}))
    };
    for email in
        ["a@b@c", "a..b@x.de", ".a@x.de", "a@x..de", "a@-x.de", "a@x.de.", "a@[127.0.0.1]", "a@", "@x.de"]
    {
        let response = register("alice", email);
        assert_eq!(
            (response.status, response.json()["code"].as_str()),
            (400, Some("email_not_accepted")),
            "{email}"
        );
    }
    for (name, email) in [
        ("alice", "a.b+c@x.example.com"),
        ("bob", "bob@intranet"),
        ("carol", "j\u{fc}rgen@b\u{fc}cher.example"),
    ] {
        assert_eq!(register(name, email).status, 201, "{email}");
    }
}

#[test]
fn only_json_of_a_sensible_size_is_read() {
    let gateway = Gateway::alone(Settings::default());
    let send = |kind: &str, body: &str| {
        let length = body.len();
        gateway
            .client()
            .send(format!("POST /auth/login HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"))
            .response()
    };
    assert_eq!(send("application/x-www-form-urlencoded", "username=a").status, 415);
    assert_eq!(send("text/plain", "{}").message(), "Unsupported media type");
    // Calls that take no members read no other body, either.
    let token = gateway.token("dora");
    for path in ["/auth/login/passkey", "/auth/factors/challenge", "/auth/logout-all"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n");
        let text = format!("{head}Content-Type: text/plain\r\nContent-Length: 2\r\n\r\n{{}}");
        assert_eq!(gateway.client().send(text).response().status, 415, "{path}");
    }
    assert_eq!(send("application/json; charset=utf-8", "{}").message(), "Missing parameters");
    assert_eq!(send("application/json", "{").status, 400);
    assert_eq!(send("application/json", &"x".repeat(64 * 1024 + 1)).status, 413);
    // Unknown members are nobody's concern.
    gateway.register("erin");
    let body = json!({"username": "erin", "password": PASSWORD, "remember": true});
    assert_eq!(gateway.post("/auth/login", &body).status, 200);
}

#[test]
fn registration_can_be_closed_and_roles_offered() {
    let gateway = Gateway::alone(Settings::default().auth("  registration: closed\n"));
    let response = gateway.post("/auth/register", &json!({"username": "a", "password": PASSWORD}));
    assert_eq!((response.status, response.message().as_str()), (403, "Registration is closed"));

    let gateway = Gateway::alone(
        Settings::default().auth("  default_roles: [student]\n  self_assignable_roles: [student, teacher]\n"),
    );
    assert_eq!(gateway.register("frank")["roles"], json!(["student"]));
    let teacher = json!({"username": "grace", "password": PASSWORD, "role": "teacher"});
    assert_eq!(gateway.post("/auth/register", &teacher).json()["roles"], json!(["teacher"]));
}

#[test]
fn me_tells_the_bearer_about_the_account() {
    let gateway = Gateway::alone(Settings::default());
    let body = json!({"username": "heidi", "password": PASSWORD, "email": "heidi@example.com"});
    let registered = gateway.post("/auth/register", &body).json();
    let me = gateway.get("/auth/me", registered["access_token"].as_str());
    assert_eq!(me.status, 200);
    let me = me.json();
    assert_eq!(me["user_id"], registered["user_id"]);
    assert_eq!((me["username"].as_str(), me["email"].as_str()), (Some("heidi"), Some("heidi@example.com")));
    assert!(me["created_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(gateway.get("/auth/me", None).status, 401);
}

#[test]
fn builtin_calls_answer_404_and_405_like_any_path() {
    let gateway = Gateway::alone(Settings::default());
    let wrong = gateway.get("/auth/login", None);
    assert_eq!((wrong.status, wrong.header("Allow")), (405, Some("POST")));
    assert_eq!(gateway.get("/auth/nothing", None).status, 404);
}

#[test]
fn the_mount_can_be_elsewhere() {
    let gateway = Gateway::alone(Settings::default().auth("  path: /api/auth\n"));
    let body = json!({"username": "ivan", "password": PASSWORD});
    let token = gateway.post("/api/auth/register", &body).json()["access_token"].as_str().unwrap().to_owned();
    assert_eq!(gateway.get("/api/auth/me", Some(&token)).json()["username"], "ivan");
    let gateway = Gateway::alone(Settings::default().auth("  path: \"\"\n"));
    assert_eq!(gateway.post("/register", &body).status, 201);
    assert_eq!(gateway.post("/login", &body).status, 200);
}

#[test]
fn a_changed_password_ends_the_other_sessions_and_returns_new_tokens() {
    let gateway = Gateway::alone(Settings::default());
    let other = gateway.register("judy");
    let login = gateway.login("judy");
    let own = login["access_token"].as_str().unwrap();
    let change = json!({"new_password": "another password of mine", "new_password_confirm": "another password of mine", "current_password": PASSWORD});
    let wrong =
        json!({"new_password": "another password of mine", "current_password": "not the password at all"});
    let refused = gateway.send("POST", "/auth/change", Some(own), Some(&wrong));
    assert_eq!((refused.status, refused.message().as_str()), (401, "Invalid credentials"));
    let changed = gateway.send("POST", "/auth/change", Some(own), Some(&change));
    assert_eq!((changed.status, changed.message().as_str()), (200, "User credentials updated successfully"));
    let fresh = changed.json();
    assert_eq!(gateway.get("/api/x", fresh["access_token"].as_str()).status, 200);
    assert_eq!(gateway.refresh(fresh["refresh_token"].as_str().unwrap()).status, 200);
    for old in [own, other["access_token"].as_str().unwrap()] {
        assert_eq!(gateway.get("/api/x", Some(old)).status, 401);
    }
    for old in [&login, &other] {
        assert_eq!(gateway.refresh(old["refresh_token"].as_str().unwrap()).status, 401);
    }
    assert_eq!(gateway.try_login("judy", PASSWORD).status, 401);
    assert_eq!(gateway.try_login("judy", "another password of mine").status, 200);
}

#[test]
fn a_new_name_is_taken_and_the_old_one_is_not_given_out_again() {
    let gateway = Gateway::alone(Settings::default());
    let token = gateway.token("karl");
    gateway.register("lena");
    let rename =
        |name: &str| gateway.send("PATCH", "/auth/me", Some(&token), Some(&json!({"new_username": name})));
    assert_eq!(rename("LENA").status, 409);
    assert_eq!(rename("Karla").json()["username"], "karla");
    let again = gateway.post("/auth/register", &json!({"username": "karl", "password": PASSWORD}));
    assert_eq!(again.status, 409);
}

#[test]
fn an_account_is_changed_and_deleted_by_its_owner_or_an_administrator_only() {
    let gateway = Gateway::alone(Settings::default());
    let victim = gateway.register("mallory-target");
    let id = victim["user_id"].clone();
    let stranger = gateway.token("mallory");
    let theirs = json!({"user_id": id, "new_password": "taken over by mallory"});
    assert_eq!(gateway.send("POST", "/auth/change", Some(&stranger), Some(&theirs)).status, 403);
    assert_eq!(
        gateway.send("DELETE", "/auth/delete", Some(&stranger), Some(&json!({"user_id": id}))).status,
        403
    );
    assert_eq!(gateway.send("DELETE", "/auth/delete", None, Some(&json!({"user_id": id}))).status, 401);

    let admin = gateway.admin_token("root");
    assert_eq!(gateway.send("DELETE", "/auth/delete", Some(&admin), None).status, 400);
    let deleted = gateway.send("DELETE", "/auth/delete", Some(&admin), Some(&json!({"user_id": id})));
    assert_eq!((deleted.status, deleted.message().as_str()), (200, "User account deleted successfully"));
    assert_eq!(gateway.get("/api/x", victim["access_token"].as_str()).status, 401);
    assert_eq!(gateway.try_login("mallory-target", PASSWORD).status, 401);
    assert_eq!(gateway.send("DELETE", "/auth/me", Some(&stranger), None).status, 200);
    assert_eq!(gateway.get("/auth/me", Some(&stranger)).status, 401);
    // The last administrator stays.
    let own = gateway.get("/auth/me", Some(&admin)).json()["user_id"].clone();
    assert_eq!(
        gateway.send("DELETE", "/auth/delete", Some(&admin), Some(&json!({"user_id": own}))).status,
        403
    );
}

#[test]
fn without_a_recent_login_the_current_password_is_needed() {
    let gateway = Gateway::alone(Settings::default().auth("  reauth_window: 0s\n"));
    let token = gateway.token("nina");
    std::thread::sleep(Duration::from_millis(5));
    let refused = gateway.send("DELETE", "/auth/delete", Some(&token), None);
    assert_eq!((refused.status, refused.message().as_str()), (401, "Invalid credentials"));
    let proof = json!({"current_password": PASSWORD});
    assert_eq!(gateway.send("DELETE", "/auth/delete", Some(&token), Some(&proof)).status, 200);
}

#[test]
fn a_refreshed_token_is_no_recent_login() {
    let gateway = Gateway::alone(Settings::default().auth("  reauth_window: 1s\n"));
    let response = gateway.register("otto");
    let begun = Instant::now();
    eventually("the window is over", || (begun.elapsed() > Duration::from_millis(1_500)).then_some(()));
    let fresh = gateway.refresh(response["refresh_token"].as_str().unwrap()).json();
    let change = json!({"new_email": "otto@example.com"});
    let refused = gateway.send("POST", "/auth/change", fresh["access_token"].as_str(), Some(&change));
    assert_eq!(refused.status, 401);
}

#[test]
#[ignore = "slow"]
fn an_access_token_does_not_outlive_its_session() {
    for store in [Settings::default(), Settings::postgres(&shared_database())] {
        let gateway = Gateway::alone(store.auth("  session_max_ttl: 6s\n  access_token_ttl: 10m\n"));
        let response = gateway.register("paula");
        let life = |response: &serde_json::Value| {
            let claims = claims_of(response["access_token"].as_str().unwrap());
            let life = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
            assert_eq!(response["expires_in"], life);
            life
        };
        assert!((5..=6).contains(&life(&response)), "{response}");
        let refreshed = gateway.refresh(response["refresh_token"].as_str().unwrap()).json();
        assert!(life(&refreshed) <= 6, "{refreshed}");
        eventually("the session is over", || {
            let token = refreshed["access_token"].as_str();
            (gateway.get("/api/x", token).status == 401).then_some(())
        });
        assert_eq!(gateway.try_login("paula", PASSWORD).status, 200);
    }
}

#[test]
fn sessions_are_listed_and_ended_one_by_one() {
    let gateway = Gateway::alone(Settings::default());
    let first = gateway.register("olga");
    let second = gateway.login("olga");
    let stranger = gateway.token("peter");
    let own = second["access_token"].as_str();
    let listed = gateway.get("/auth/sessions", own).json();
    let sessions = listed["sessions"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    let sid = claims_of(first["access_token"].as_str().unwrap())["sid"].as_str().unwrap().to_owned();
    let entry = sessions.iter().find(|session| session["id"] == sid.as_str()).unwrap();
    assert_eq!(entry["current"], false);
    let path = format!("/auth/sessions/{sid}");
    assert_eq!(gateway.send("DELETE", &path, Some(&stranger), None).status, 404);
    assert_eq!(gateway.send("DELETE", &path, own, None).status, 200);
    assert_eq!(gateway.get("/api/x", first["access_token"].as_str()).status, 401);
    assert_eq!(gateway.send("DELETE", &path, own, None).status, 404);
    assert_eq!(gateway.get("/api/x", own).status, 200);
}

#[test]
fn a_session_is_listed_with_where_it_was_opened() {
    for url in ["sqlite:authgate.db".to_owned(), shared_database()] {
        let settings = Settings { store: format!("{{url: \"{url}\"}}"), ..Settings::default() };
        let gateway = Gateway::alone(settings.extra("trusted_proxies: [127.0.0.1/32]\n"));
        gateway.register("olga");
        let body = serde_json::json!({"username": "olga", "password": PASSWORD}).to_string();
        let agent = format!("Example/1.0 {}", "x".repeat(400));
        let login = gateway
            .client()
            .send(format!(
                "POST /auth/login HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 192.0.2.7\r\nUser-Agent: {agent}\r\n\
                 Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
            .response()
            .json();
        let listed = gateway.get("/auth/sessions", login["access_token"].as_str()).json();
        let own = listed["sessions"].as_array().unwrap().iter().find(|session| session["current"] == true);
        let own = own.unwrap();
        assert_eq!(own["address"], "192.0.2.7");
        // What a client says of itself is kept in part.
        assert_eq!(own["user_agent"].as_str().unwrap(), &agent[..256]);
        // A refresh from elsewhere does not change where it was opened; a change of the account neither.
        let next = gateway.refresh(login["refresh_token"].as_str().unwrap()).json();
        let change = serde_json::json!({"new_username": "olga2"});
        let changed =
            gateway.send("POST", "/auth/change", next["access_token"].as_str(), Some(&change)).json();
        let listed = gateway.get("/auth/sessions", changed["access_token"].as_str()).json();
        assert_eq!(listed["sessions"][0]["address"], "192.0.2.7");
    }
}
