//! Faults of a config: file, line, key, what was found, what is legal.

use crate::harness::{authgate, write_config};

const HEAD: &str = "listeners:\n  - address: 127.0.0.1:0\nauth:\n  issuer: https://i.example\n  audience: a\nupstreams:\n  orders: {servers: [{url: \"http://127.0.0.1:1\"}]}\nroutes:\n";

fn check_text(text: &str, env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(folder.path(), text);
    let output =
        authgate().arg("check").arg("--config").arg(config).envs(env.iter().copied()).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[track_caller]
fn fault(text: &str, parts: &[&str]) {
    let (code, _, said) = check_text(text, &[]);
    assert_eq!(code, Some(1), "{text}\n{said}");
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in: {said}");
    }
}

/// A config with a further line below `auth`.
fn auth(line: &str) -> String {
    format!("{}  []\n", HEAD.replace("  audience: a\n", &format!("  audience: a\n  {line}\n")))
}

#[test]
fn each_fault_names_its_place_and_what_is_legal() {
    let route = |line: &str| format!("{HEAD}  - {line}\n");
    for (text, parts) in [
        (
            route("{path: /a, upstream: nowhere}"),
            &["gateway.yaml:9: routes[0].upstream", "`nowhere`", "orders"][..],
        ),
        (route("{path: a, upstream: orders}"), &[":9: routes[0].path", "`a`", "begins with `/`"]),
        (route("{path: /a/*, upstream: orders}"), &[":9: routes[0].path", "/**"]),
        (route("{path: /a/../b, upstream: orders}"), &[":9: routes[0].path", "canonical"]),
        (route("{path: /a, upstream: orders, colour: red}"), &[":9: ", "colour", "unknown"]),
        (
            route("{path: /a/**, upstream: orders, rewrite: {strip_prefix: /b}}"),
            &[":9: routes[0].rewrite.strip_prefix", "`/b`", "every path of this route"],
        ),
        (
            route("{path: /a/**, upstream: orders, rewrite: {add_prefix: /b/}}"),
            &["routes[0].rewrite.add_prefix", "without a slash at its end"],
        ),
        (
            route("{path: /a, upstream: orders, rewrite: {path: /b/../c}}"),
            &["routes[0].rewrite.path", "canonical"],
        ),
        (
            route("{path: /a, upstream: orders, rewrite: {path: /b, add_prefix: /c}}"),
            &["routes[0].rewrite", "or `path`"],
        ),
        (
            route("{path: /a, upstream: orders, rewrite: {host: \"u@b\"}}"),
            &["routes[0].rewrite.host", "`u@b`", "expected a host"],
        ),
        (
            route("{path: /a, respond: {json: 1}, rewrite: {path: /b}}"),
            &["routes[0].rewrite", "needs `upstream`"],
        ),
        (route("{path: /a, redirect: {to: \"//b\"}}"), &["routes[0].redirect.to", "`//b`", "one slash"]),
        (
            route("{path: /a, redirect: {to: \"https://b\", status: 200}}"),
            &["routes[0].redirect.status", "200", "308"],
        ),
        (
            route("{path: /a, upstream: orders, headers: {request: {set: {X-User_Id: \"1\"}}}}"),
            &["routes[0].headers.request.set.X-User_Id", "who is calling"],
        ),
        (
            route("{path: /a, upstream: orders, headers: {request: {remove: [Host]}}}"),
            &["routes[0].headers.request.remove[0]", "rewrite.host"],
        ),
        (
            route("{path: /a, upstream: orders, headers: {request: {add: {X-Forwarded-For: a}}}}"),
            &["headers.request.add.X-Forwarded-For", "authgate writes"],
        ),
        (
            route("{path: /a, upstream: orders, headers: {response: {set: {Connection: close}}}}"),
            &["headers.response.set.Connection", "authgate writes"],
        ),
        (
            route("{path: /a, upstream: orders, headers: {response: {set: {X: \"a\\nb\"}}}}"),
            &["headers.response.set.X", "one line"],
        ),
        (
            route("{path: /a, upstream: orders, headers: {request: {set: {X-A: \"1\", x_a: \"2\"}}}}"),
            &["routes[0].headers.request.set.x_a", "another spelling"],
        ),
        (
            route("{path: /a, respond: {json: 1}, idle_timeout: 1h}"),
            &["routes[0].idle_timeout", "needs `upstream`"],
        ),
        (
            route("{path: /a, redirect: {to: \"https://b?c={path}\"}}"),
            &["routes[0].redirect.to", "before the query"],
        ),
        (route("{path: /a, upstream: orders, host: a..b}"), &["routes[0].host", "`a..b`"]),
        (route("{path: /a, upstream: orders, host: \"*.0.0.1\"}"), &["routes[0].host", "before a name"]),
        (
            route("{path: /a, upstream: orders, host: \"*.[::1]\"}"),
            &["routes[0].host", "stands before a name"],
        ),
        (route("{path: /a, upstream: orders, host: \"a.*.b\"}"), &["routes[0].host", "`a.*.b`"]),
        (route("{path: /a, upstream: orders, keys: true}"), &["keys", "unknown"]),
        (
            route("{path: /a, upstream: orders, auth: optional, mfa: true}"),
            &["routes[0].auth", "`mfa` needs a signed-in caller"],
        ),
        (route("{path: /a, upstream: orders, headers: {both: {}}}"), &["both", "unknown"]),
        (route("{path: /a}"), &[":9: routes[0]", "upstream", "respond"]),
        (
            route("{path: /a, upstream: orders, methods: [get]}"),
            &["routes[0].methods[0]", "`get`", "capitals"],
        ),
        (route("{path: /a, upstream: orders, methods: []}"), &["routes[0].methods"]),
        (route("{path: /a, upstream: orders, auth: maybe}"), &["routes[0].auth", "maybe", "required"]),
        (
            route("{path: /a, upstream: orders, auth: none, roles: {any: [a]}}"),
            &["routes[0].auth", "required"],
        ),
        (route("{path: /a, upstream: orders, roles: {any: [A]}}"), &["routes[0].roles.any[0]", "`A`", "a-z"]),
        (route("{path: /a, upstream: orders, roles: {any: [a], all: [b]}}"), &["routes[0].roles", "either"]),
        (route("{path: /a, upstream: orders, timeout: 5}"), &["routes[0].timeout", "5s"]),
        (route("{path: /a, upstream: orders, body: 1MB}"), &["routes[0].body", "`1MB`", "MiB"]),
        (
            route("{path: /a, respond: {json: {a: \"{user.email}\"}}}"),
            &["routes[0].respond.json", "{user.email}"],
        ),
        (route("{path: /a, respond: {status: 99, json: 1}}"), &["routes[0].respond.status", "99"]),
        (route("{path: /auth/login, upstream: orders}"), &["routes[0].path", "authgate answers itself"]),
        (
            format!(
                "{HEAD}  - {{path: \"/a/{{x}}\", upstream: orders}}\n  - {{path: \"/a/{{y}}\", upstream: orders}}\n"
            ),
            &[":10: routes[1].path", "line 9"],
        ),
        (format!("{HEAD}  []\nworkers: 0\n"), &["workers", "found 0", "1 to"]),
        (format!("{HEAD}  []\nworkers: many\n"), &["workers", "whole number"]),
        (format!("{HEAD}  []\nadmin: {{address: 0.0.0.0:9901}}\n"), &["admin.address", "loopback"]),
        (
            format!("{HEAD}  []\nidentity_headers: {{id: Authorization}}\n"),
            &["identity_headers.id", "`Authorization`"],
        ),
        (format!("{HEAD}  []\nidentity_headers: {{id: X-Forwarded-User}}\n"), &["identity_headers.id"]),
        (format!("{HEAD}  []\nidentity_headers: {{id: X_User}}\n"), &["identity_headers.id"]),
        (format!("{HEAD}  []\nidentity_headers: {{id: X-Api-Key}}\n"), &["identity_headers.id"]),
        (format!("{HEAD}  []\nidentity_headers: {{id: Cache-Control}}\n"), &["identity_headers.id"]),
        (format!("{HEAD}  []\nidentity_headers: {{id: X-Accel-Redirect}}\n"), &["identity_headers.id"]),
        (format!("{HEAD}  []\nidentity_headers: {{id: X-HTTP-Method-Override}}\n"), &["identity_headers.id"]),
        (
            format!("{HEAD}  []\nclaims: {{a: {{from: email, header: X-Original-URL}}}}\n"),
            &["claims.a.header"],
        ),
        (
            format!("{HEAD}  []\nclaims: {{a: {{from: email, header: Sec-WebSocket-Key}}}}\n"),
            &["claims.a.header"],
        ),
        (format!("{HEAD}  []\nidentity_headers: nginx\n"), &["identity_headers", "grafana"]),
        (format!("{HEAD}  []\ntrusted_proxies: [10.0.0.0/33]\n"), &["trusted_proxies[0]", "10.0.0.0/8"]),
        (
            format!("{HEAD}  []\nrevocation: {{max_staleness: 499ms}}\n"),
            &["revocation.max_staleness", "500ms"],
        ),
        (format!("{HEAD}  []\nlimits: {{header_count: 0}}\n"), &["limits.header_count"]),
        (format!("{HEAD}  []\nworkers: 1\nworkers: 2\n"), &[":11: workers", "twice"]),
        (HEAD.replace("audience: a", "audience: a\n  issuer: again"), &[":6: auth.issuer", "twice"]),
        (
            HEAD.replace("  audience: a\n", "  default_roles: [admin]\n  audience: a\n"),
            &[":5: auth.default_roles", "admin"],
        ),
        (
            HEAD.replace("  audience: a\n", "  self_assignable_roles: [admin]\n  audience: a\n"),
            &["auth.self_assignable_roles"],
        ),
        (HEAD.replace("  audience: a\n", ""), &["auth", "audience"]),
        (HEAD.replace("  audience: a\n", "  audience: a\n  cookies: {}\n"), &["cookies", "unknown"]),
        (auth("cors: {origins: [\"*\"], credentials: true}"), &["auth.cors.credentials", "name the origins"]),
        (auth("cors: {origins: [\"null\"]}"), &["auth.cors.origins[0]", "https://app.example.com"]),
        (
            auth("compat: {unauthenticated: 404}"),
            &["auth.compat.unauthenticated", "expected one of 401, 403"],
        ),
        (auth("compat: {token_fields: [user_id]}"), &["auth.compat.token_fields[0]", "meaning of its own"]),
        (
            auth("email: {smtp: {host: mail}, from: nobody, base_url: \"https://a\"}"),
            &["auth.email", "mailbox"],
        ),
        (
            auth(
                "email: {smtp: {host: mail, encryption: none, username: u, password: p}, from: a@b.c, base_url: \"https://a\"}",
            ),
            &["auth.email.smtp.encryption", "in the clear"],
        ),
        (
            auth("email: {smtp: {host: mail}, from: a@b.c, base_url: \"mail.example.com\"}"),
            &["auth.email.base_url", "https://app.example.com"],
        ),
        (
            auth("signing: {algorithm: HS256, secret: \"abcabcabcabcabcabcabcabcabcabcabcabc\"}"),
            &["auth.signing.secret", "anyone can look up"],
        ),
        (
            HEAD.replace("http://127.0.0.1:1\"}]", "ftp://127.0.0.1:1\"}]"),
            &["upstreams.orders.servers[0].url", "http://HOST:PORT"],
        ),
        (
            HEAD.replace("http://127.0.0.1:1\"}]", &format!("unix:/{}\"}}]", "o".repeat(107))),
            &["upstreams.orders.servers[0].url", "absolute path of at most 107 bytes"],
        ),
        (
            HEAD.replace("address: 127.0.0.1:0", "address: 0.0.0.0:8123")
                .replace("127.0.0.1:1", "localhost:8123"),
            &["upstreams.orders.servers[0].url", "listener of authgate itself"],
        ),
        (
            HEAD.replace("[{url: \"http://127.0.0.1:1\"}]", "[]"),
            &["upstreams.orders.servers", "at least one"],
        ),
        (
            HEAD.replace("127.0.0.1:0", "127.0.0.1:0\n    redirect: http"),
            &[":3: listeners[0].redirect", "`http`", "https:PORT"],
        ),
        (HEAD.replace("127.0.0.1:0", "localhost"), &[":2: listeners[0].address", "`localhost`"]),
        ("listeners: [\n".to_owned(), &["gateway.yaml:"]),
        (String::new(), &["gateway.yaml"]),
        ("- 1\n".to_owned(), &["gateway.yaml"]),
        ("a: 1\n---\nb: 2\n".to_owned(), &["one document"]),
    ] {
        fault(&text, parts);
    }
}

#[test]
fn faults_of_meaning_are_reported_all_at_once() {
    let text =
        format!("{HEAD}  - {{path: a, upstream: orders}}\n  - {{path: /b, upstream: nowhere}}\nworkers: 0\n");
    let (_, _, said) = check_text(&text, &[]);
    assert_eq!(said.lines().count(), 3, "{said}");
    // A name that leads nowhere hides neither its own route nor others that clash.
    let text = format!(
        "{HEAD}  - {{path: /a, upstream: nowhere}}\n  - {{path: /a, upstream: orders}}\n  - {{path: /b, methods: [PUT], upstream: orders}}\n  - {{path: /b, methods: [PUT], upstream: orders}}\n"
    );
    let (_, _, said) = check_text(&text, &[]);
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3, "{said}");
    assert!(lines[0].contains("no such upstream"), "{said}");
    assert!(lines[1].contains("could win for the same requests as `/a` on line 9"), "{said}");
    assert!(lines[2].contains("could win for the same PUT requests as `/b` on line 11"), "{said}");
}

#[test]
fn variables_are_filled_in_and_never_shown() {
    let text = HEAD.replace("audience: a", "audience: ${AUD}")
        + "  []\nworkers: ${N:-2}\nlog: {access: \"${ACCESS:-false}\"}\n";
    assert_eq!(check_text(&text, &[("AUD", "tests")]).0, Some(0));
    let (code, _, said) = check_text(&text, &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("gateway.yaml:5: auth.audience") && said.contains("AUD"), "{said}");
    let (_, _, said) = check_text(&text, &[("AUD", "tests"), ("N", "sekret")]);
    assert!(said.contains("workers") && !said.contains("sekret"), "{said}");
    // A value cannot bring keys along.
    let (code, _, _) = check_text(&text, &[("AUD", "x\n  registration: closed")]);
    assert_eq!(code, Some(1));
}

#[test]
fn a_credential_that_a_route_sends_is_never_shown() {
    let route = "  - {path: /a, upstream: orders, headers: {request: {set: {Proxy-Authorization: Basic c2VjcmV0}}}}\n";
    let (code, out, err) = check_text(&format!("{HEAD}{route}"), &[]);
    assert_ne!(code, Some(0));
    assert!(err.contains("Proxy-Authorization") && !format!("{out}{err}").contains("c2VjcmV0"), "{err}");
}

#[test]
fn dotenv_beside_the_config_is_read_and_the_environment_wins() {
    let folder = tempfile::tempdir().unwrap();
    let config = write_config(
        folder.path(),
        &(HEAD.replace("http://127.0.0.1:1", "http://${BACKEND}") + "  - {path: /a, upstream: orders}\n"),
    );
    let dotenv = folder.path().join(".env");
    std::fs::write(&dotenv, "BACKEND=10.0.0.1:81\n").unwrap();
    let check = |env: Option<&str>| {
        let mut command = authgate();
        command.arg("check").arg("--config").arg(&config);
        env.map(|value| command.env("BACKEND", value));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let said = check(None);
    assert!(said.contains("http://10.0.0.1:81") && said.contains("may be read by others"), "{said}");
    assert!(check(Some("10.0.0.2:82")).contains("http://10.0.0.2:82"));
    // Passwords have dollars.
    std::fs::write(&dotenv, "# c\nSECRET=a secret $of \"34\" bytes$ and a few\nBACKEND='10.0.0.3:83'\n")
        .unwrap();
    assert!(check(None).contains("http://10.0.0.3:83"));
    std::fs::write(&dotenv, "BACKEND=1\nSECRET='a secret\n").unwrap();
    let failed = authgate().arg("check").arg("--config").arg(&config).output().unwrap();
    let said = String::from_utf8(failed.stderr).unwrap();
    assert!(said.contains(".env:2: has a quote that does not end") && !said.contains("a secret"), "{said}");
}

#[test]
fn the_path_of_a_socket_starts_at_the_configs_folder() {
    let folder = tempfile::tempdir().unwrap();
    let text =
        HEAD.replace("http://127.0.0.1:1", "unix:run/orders.sock") + "  - {path: /a, upstream: orders}\n";
    write_config(folder.path(), &text);
    let path = folder.path().join("run/orders.sock");
    for (at, config) in
        [("/", folder.path().join("gateway.yaml")), (folder.path().to_str().unwrap(), "gateway.yaml".into())]
    {
        let checked = authgate().arg("check").arg("--config").arg(config).current_dir(at).output().unwrap();
        let said = String::from_utf8(checked.stdout).unwrap();
        assert!(said.contains(&format!("unix:{}", path.display())), "{said}");
    }
}

#[test]
fn a_failing_expectation_is_a_fault_with_its_line() {
    let text = format!(
        "{HEAD}  - {{path: /a/**, roles: {{any: [staff]}}, upstream: orders}}\ntests:\n  - {{method: GET, path: /a/x, roles: [staff], expect: allow}}\n  - {{method: GET, path: /a/x, expect: deny}}\n  - {{method: GET, path: /b, expect: none}}\n"
    );
    assert_eq!(check_text(&text, &[]).0, Some(0), "{:?}", check_text(&text, &[]));
    fault(
        &text.replace("path: /a/x, expect: deny", "path: /a/x, expect: allow"),
        &["gateway.yaml:12: tests[1]", "expected allow, but it is deny"],
    );
}

#[test]
fn the_committed_schema_and_examples_are_true() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let committed = std::fs::read_to_string(root.join("authgate.schema.json")).unwrap();
    assert!(
        committed == authgate::config::json_schema(),
        "run: authgate schema > config/authgate.schema.json"
    );
    let schema: serde_json::Value = serde_json::from_str(&committed).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for name in ["gateway.yaml", "demo.yaml"] {
        let text = std::fs::read_to_string(root.join(name)).unwrap();
        let value: serde_json::Value = serde_yaml::from_str(&text).unwrap();
        let faults: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
        assert!(faults.is_empty(), "{name}: {faults:?}");
        let output = authgate().arg("check").arg("--config").arg(root.join(name)).output().unwrap();
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn the_commented_config_shows_every_key() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let text = std::fs::read_to_string(root.join("gateway.yaml")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(&authgate::config::json_schema()).unwrap();
    let mut keys = Vec::new();
    let objects = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    for object in objects {
        keys.extend(object["properties"].as_object().into_iter().flatten().map(|(key, _)| key.clone()));
    }
    for key in keys {
        assert!(text.contains(&format!("{key}:")), "{key} is not in config/gateway.yaml");
    }
}
