//! The Postman collection: every call of the two APIs in an order that works from top to bottom.
//!
//! Paths, methods and descriptions come from the tables of calls. Here is only the order of the requests and the expected
//! responses.

use serde_json::{Value, json};

use crate::{
    admin, auth_api,
    openapi::{Bearer, Call},
};

/// Whose token a step brings.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    /// That of its API, where the call wants one.
    Usual,
    /// None, whatever the call wants.
    Missing,
}

/// One request and the expected response.
struct Step {
    name: &'static str,
    /// The id of the call.
    call: &'static str,
    /// The parameters in the path, in their order.
    path: &'static [&'static str],
    query: &'static str,
    body: Option<Value>,
    token: Token,
    status: u16,
    message: Option<&'static str>,
    /// What else is looked at, or kept for later steps.
    script: &'static [&'static str],
}

/// Keeps the tokens of a response.
const KEEP_TOKENS: &[&str] = &[
    "const body = pm.response.json();",
    "pm.environment.set('token', body.access_token);",
    "pm.environment.set('refresh_token', body.refresh_token);",
    "pm.environment.set('user_id', body.user_id);",
];

fn step(name: &'static str, call: &'static str, status: u16) -> Step {
    Step {
        name,
        call,
        path: &[],
        query: "",
        body: None,
        token: Token::Usual,
        status,
        message: None,
        script: &[],
    }
}

impl Step {
    fn body(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    fn says(self, message: &'static str) -> Self {
        Self { message: Some(message), ..self }
    }

    fn then(self, script: &'static [&'static str]) -> Self {
        Self { script, ..self }
    }

    fn at(self, path: &'static [&'static str]) -> Self {
        Self { path, ..self }
    }

    fn query(self, query: &'static str) -> Self {
        Self { query, ..self }
    }

    fn without_token(self) -> Self {
        Self { token: Token::Missing, ..self }
    }
}

fn login(name: &'static str, user: &str, password: &str) -> Step {
    step(name, "login", 200).body(json!({"username": user, "password": password})).then(KEEP_TOKENS)
}

fn accounts() -> Vec<Step> {
    [registration(), session(), factors(), keys(), changes()].into_iter().flatten().collect()
}

fn registration() -> Vec<Step> {
    vec![
        step("Register", "register", 201)
            .body(json!({
                "username": "{{username}}",
                "password": "{{password}}",
                "password_confirm": "{{password}}",
                "email": "{{username}}@example.com",
            }))
            .says("User registered successfully")
            .then(KEEP_TOKENS),
        step("Register the same name again", "register", 409)
            .body(json!({"username": "{{username}}", "password": "{{password}}"}))
            .says("Username already exists"),
        step("Register without a password", "register", 400)
            .body(json!({"username": "{{username}}"}))
            .says("Missing parameters"),
        step("Register with two passwords", "register", 400)
            .body(json!({
                "username": "{{username}}",
                "password": "{{password}}",
                "password_confirm": "another one that is long",
            }))
            .says("Passwords do not match"),
        step("Register as an administrator", "register", 403)
            .body(json!({"username": "{{username}}-2", "password": "{{password}}", "role": "admin"}))
            .says("Insufficient role"),
    ]
}

fn session() -> Vec<Step> {
    vec![
        login("Log in", "{{username}}", "{{password}}").says("Authenticated successfully"),
        step("Log in with a wrong password", "login", 401)
            .body(json!({"username": "{{username}}", "password": "not this password"}))
            .says("Invalid credentials"),
        step("The caller's account", "me", 200)
            .then(&["pm.test('is the caller', () => pm.expect(pm.response.json().user_id).to.equal(pm.environment.get('user_id')));"]),
        step("The caller's account without a token", "me", 401)
            .without_token()
            .says("Missing or invalid token"),
        step("Sessions", "sessions", 200).query("limit=50").then(&[
            "const other = pm.response.json().sessions.find(session => !session.current);",
            "pm.environment.set('session_id', other.id);",
        ]),
        step("End another session", "endSession", 200).at(&["{{session_id}}"]),
        step("End it again", "endSession", 404).at(&["{{session_id}}"]),
        step("Refresh", "refresh", 200).body(json!({"refresh_token": "{{refresh_token}}"})).then(KEEP_TOKENS),
    ]
}

fn factors() -> Vec<Step> {
    const FACTOR: &[&str] = &["{{factor_id}}"];
    vec![
        step("Second factors", "factors", 200),
        step("Begin an authenticator app", "beginFactor", 201)
            .body(json!({"type": "totp", "name": "my phone"}))
            .then(&["pm.environment.set('factor_id', pm.response.json().id);"]),
        step("Confirm it by a wrong code", "confirmFactor", 401)
            .at(FACTOR)
            .body(json!({"code": "000000"}))
            .says("Invalid credentials"),
        step("Begin a step-up of one's own session", "challenge", 200)
            .then(&["pm.environment.set('challenge', pm.response.json().challenge);"]),
        step("Show it", "loginFactor", 200)
            .body(json!({"challenge": "{{challenge}}", "method": "password", "password": "{{password}}"}))
            .then(KEEP_TOKENS),
        step("Begin a login by a passkey", "loginPasskey", 200).without_token(),
        step("Remove the app", "removeFactor", 200).at(FACTOR),
        step("Remove it again", "removeFactor", 404).at(FACTOR),
    ]
}

fn keys() -> Vec<Step> {
    const KEY: &[&str] = &["{{api_key_id}}"];
    vec![
        step("Make an API key", "addApiKey", 201)
            .body(json!({"name": "nightly backup", "expires_in": 86_400}))
            .then(&["pm.environment.set('api_key_id', pm.response.json().id);"]),
        step("Make one without a name", "addApiKey", 400).body(json!({})).says("Missing parameters"),
        step("API keys", "apiKeys", 200).query("limit=50"),
        step("End the key", "endApiKey", 200).at(KEY),
        step("End the key again", "endApiKey", 404).at(KEY),
    ]
}

fn changes() -> Vec<Step> {
    vec![
        step("Change the name", "change", 200)
            .body(json!({"new_username": "{{username}}-renamed"}))
            .says("User credentials updated successfully")
            .then(KEEP_TOKENS),
        step("Change the password", "changeMe", 200)
            .body(json!({
                "new_password": "{{password}} anew",
                "new_password_confirm": "{{password}} anew",
                "current_password": "{{password}}",
            }))
            .then(KEEP_TOKENS),
        step("Change somebody else", "change", 403)
            .body(json!({"user_id": "01890000-0000-7000-8000-000000000000", "new_username": "mallory"}))
            .says("Insufficient role"),
        step("Log out", "logout", 200).says("Logged out successfully"),
        step("The token has ended", "me", 401),
        login("Log in anew", "{{username}}-renamed", "{{password}} anew"),
        step("Log out everywhere", "logoutAll", 200),
        login("Log in once more", "{{username}}-renamed", "{{password}} anew"),
        step("Delete the account", "delete", 200)
            .body(json!({"current_password": "{{password}} anew"}))
            .says("User account deleted successfully"),
        step("Delete without a token", "deleteMe", 401).without_token(),
    ]
}

/// Without a mail server, as the demo is.
fn mails() -> Vec<Step> {
    const NONE: &str = "Email is not configured";
    vec![
        step("Forgot a password", "forgotPassword", 404)
            .body(json!({"email": "{{username}}@example.com"}))
            .says(NONE),
        step("Reset a password", "resetPassword", 404)
            .body(json!({"token": "from the mail", "new_password": "{{password}}"}))
            .says(NONE),
        step("Verify an address", "verifyEmail", 404)
            .body(json!({"token": "from the mail"}))
            .without_token()
            .says(NONE),
    ]
}

fn descriptions() -> Vec<Step> {
    vec![
        step("Ask about a request, and be no trusted proxy", "verify", 403),
        step("Be told of a logout by nothing", "backchannelLogout", 415),
        step("A token for a client that is none", "token", 400),
        step("Ask about a token as no client", "introspect", 400),
        step("End a token as no client", "revoke", 400),
        step("Public keys", "jwks", 200)
            .then(&["pm.test('has keys', () => pm.expect(pm.response.json().keys).to.be.an('array'));"]),
        step("Description", "openapi", 200).then(&[
            "pm.test('is OpenAPI 3.1', () => pm.expect(pm.response.json().openapi).to.match(/^3\\.1/));",
        ]),
    ]
}

/// The one step of the folder of the admin API that is not a call of it.
fn admin_login() -> Step {
    step("Log in as an administrator", "login", 200)
        .body(json!({"username": "root", "password": "{{admin_password}}"}))
        .then(&["pm.environment.set('admin_token', pm.response.json().access_token);"])
}

fn administration() -> Vec<Step> {
    const MADE: &[&str] = &["{{made_id}}"];
    vec![
        step("List accounts", "listUsers", 200)
            .query("limit=10")
            .then(&["pm.test('has accounts', () => pm.expect(pm.response.json().users).to.be.an('array'));"]),
        step("Make an account", "addUser", 201)
            .body(json!({"username": "{{username}}-made", "password": "{{password}}", "roles": ["staff"]}))
            .then(&["pm.environment.set('made_id', pm.response.json().user_id);"]),
        step("Show it", "showUser", 200).at(MADE),
        step("A link to set its password, if there are pages", "makeResetLink", 201)
            .at(MADE)
            .body(json!({"expires": "1d"})),
        step("All that is kept about it", "exportUser", 200).at(MADE),
        step("Disable it", "updateUser", 200)
            .at(MADE)
            .body(json!({"disabled": true}))
            .then(&["pm.test('is disabled', () => pm.expect(pm.response.json().disabled).to.equal(true));"]),
        step("Its sessions", "listSessions", 200).at(MADE),
        step("End a session that is not there", "endSession", 404)
            .at(&["{{made_id}}", "01890000-0000-7000-8000-000000000000"]),
        step("Its API keys", "listApiKeys", 200).at(MADE),
        step("End an API key that is not there", "endApiKey", 404).at(&["{{made_id}}", "0000000000"]),
        step("Reset its factors", "resetFactors", 200).at(MADE),
        step("End its sessions", "endSessions", 200).at(MADE),
        step("Delete it", "deleteUser", 200).at(MADE),
        step("Let its name be given out again", "releaseName", 200).at(&["{{username}}-made"]),
        step("Invite somebody, if there are pages", "invite", 201).body(json!({"role": "user", "uses": 1, "expires": "7d"})),
        step("Make a client", "addClient", 201)
            .body(json!({"name": "{{username}}-reports", "roles": ["staff"]}))
            .then(&["pm.environment.set('client_id', pm.response.json().client_id);"]),
        step("Clients", "listClients", 200),
        step("Set its roles", "setClientRoles", 200).at(&["{{client_id}}"]).body(json!({"roles": ["user"]})),
        step("Give it another secret", "renewClientSecret", 201).at(&["{{client_id}}"]),
        step("Remove it", "removeClient", 200).at(&["{{client_id}}"]),
        step("Keys", "listKeys", 200),
        step("Take the config up anew", "reloadConfig", 200),
        step("Routes as they are", "routes", 200),
        step("Set the level of the log", "setLog", 200).body(json!({"level": "info"})),
        step("End tokens of an issuer that is not there", "revokeExternal", 404)
            .body(json!({"issuer": "nobody", "sub": "4711"})),
        step("Rotate the key", "rotateKey", 201),
        step("Revoke a key that is not there", "revokeKey", 404).at(&["nobody"]),
        step("Upstreams", "upstreams", 200),
        step("Audit trail", "audit", 200).query("limit=5").then(&[
            "pm.test('tells of the rotation', () => pm.expect(pm.response.json().entries[0].action).to.equal('key.rotate'));",
        ]),
        step("Without a token", "listUsers", 401).without_token(),
        step("Description of the admin API", "openapi", 200),
    ]
}

/// The collection, as Postman reads it (format 2.1.0).
pub fn collection() -> Value {
    let (public, admin) = (auth_api::calls(), admin::calls());
    let of_public = |step: &Step| item(step, &public, "{{base}}/auth", "token");
    let of_admin = |step: &Step| item(step, &admin, "{{admin}}", "admin_token");
    let folder = |name: &str, items: Vec<Value>| json!({"name": name, "item": items});
    let public_folder = |name, steps: Vec<Step>| folder(name, steps.iter().filter_map(of_public).collect());
    let administration = administration();
    let of_admins = of_public(&admin_login()).into_iter().chain(administration.iter().filter_map(of_admin));
    let variable = |key: &str, value: &str| json!({"key": key, "value": value});
    json!({
        "info": {
            "name": "authgate",
            "description": "Every call of authgate, in an order that works from top to bottom. Set `base` and \
                `admin` to the two listeners, and `admin_password` to the password of an account `root` with the \
                role admin.",
            "schema": "https://schema.getpostman.com/json/collection/v2.1.0/collection.json",
        },
        "variable": [
            variable("base", "http://127.0.0.1:8080"),
            variable("admin", "http://127.0.0.1:9901"),
            variable("password", "a long enough password"),
            variable("username", "postman"),
        ],
        "event": [script("prerequest", vec![
            "if (!pm.environment.get('username')) {".to_owned(),
            "    pm.environment.set('username', 'postman-' + Date.now());".to_owned(),
            "}".to_owned(),
        ])],
        "item": [
            public_folder("Accounts", accounts()),
            public_folder("Mails", mails()),
            public_folder("Descriptions", descriptions()),
            folder("Admin API", of_admins.collect()),
        ],
    })
}

fn script(listen: &str, lines: Vec<String>) -> Value {
    json!({"listen": listen, "script": {"type": "text/javascript", "exec": lines}})
}

/// A step as an item of the collection; none for a call that is not in the table.
fn item<H>(step: &Step, calls: &[Call<H>], base: &str, token: &str) -> Option<Value> {
    let call = calls.iter().find(|call| call.id == step.call)?;
    let mut given = step.path.iter();
    let mut url = base.to_owned();
    for segment in call.path.split('/').skip(1) {
        url.push('/');
        url.push_str(if segment.starts_with('{') { given.next()? } else { segment });
    }
    if !step.query.is_empty() {
        url.push('?');
        url.push_str(step.query);
    }
    let bears = call.bearer != Bearer::None && step.token == Token::Usual;
    let auth = if bears {
        let value = format!("{{{{{token}}}}}");
        json!({"type": "bearer", "bearer": [{"key": "token", "value": value, "type": "string"}]})
    } else {
        json!({"type": "noauth"})
    };
    let mut request = json!({
        "method": call.method.as_str(),
        "header": [],
        "url": url,
        "auth": auth,
        "description": call.summary,
    });
    if let Some(body) = &step.body {
        request["header"] = json!([{"key": "Content-Type", "value": "application/json"}]);
        let raw = serde_json::to_string_pretty(body).unwrap_or_default();
        request["body"] = json!({"mode": "raw", "raw": raw});
    }
    let mut lines = vec![
        format!("pm.test('answers {0}', () => pm.response.to.have.status({0}));", step.status),
        "pm.test('has an id', () => pm.expect(pm.response.headers.get('X-Request-Id')).to.be.a('string'));"
            .to_owned(),
    ];
    lines.extend(step.message.map(|message| {
        format!("pm.test('says so', () => pm.expect(pm.response.json().message).to.equal('{message}'));")
    }));
    lines.extend(step.script.iter().map(|line| (*line).to_owned()));
    Some(json!({"name": step.name, "request": request, "event": [script("test", lines)]}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_has_a_step_and_every_step_a_call() {
        fn check<H>(steps: &[Step], calls: &[Call<H>]) {
            for step in steps {
                assert!(item(step, calls, "", "").is_some(), "{} is no call", step.name);
            }
            for call in calls {
                assert!(steps.iter().any(|step| step.call == call.id), "{} has no step", call.id);
            }
        }
        let public: Vec<Step> = accounts().into_iter().chain(mails()).chain(descriptions()).collect();
        check(&public, &auth_api::calls());
        check(&administration(), &admin::calls());
    }
}
