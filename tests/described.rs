//! The descriptions of the APIs hold: a tester that reads them finds no response outside them.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::harness::{Gateway, MailServer, PASSWORD, Settings, authgate, browser::with_pages, peer};

/// Limits that a tester does not run into; what is tested here is the shape of answers.
fn settings(mail: &MailServer) -> Settings {
    let port = mail.port;
    let rate = |name: &str| format!("{{{name}: 1000000, per: 1s}}");
    Settings::default().extra(&with_pages("")).auth(&format!(
        "  throttle: {{account: {}, address: {}, registrations: {}, mails: {}}}\n  password: {{argon2: {{memory: 64KiB, iterations: 1}}, queue: 1000}}\n  email:\n    smtp: {{host: 127.0.0.1, port: {port}, encryption: none}}\n    from: a@example.com\n    base_url: https://app.example.com\n",
        rate("failures"),
        rate("failures"),
        rate("requests"),
        rate("requests"),
    ))
}

#[track_caller]
fn run(mut command: Command) {
    let output = command.output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// Runs the tester; without the calls named, which would end the session that it tests with.
fn schemathesis(gateway: &Gateway, url: &str, token: &str, without: &[&str]) {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/schemathesis.toml");
    let mut command = peer("venv/bin/schemathesis");
    command.current_dir(gateway.folder.path()).arg("--config-file").arg(config).args([
        "run",
        url,
        "--header",
        &format!("Authorization: Bearer {token}"),
    ]);
    for call in without {
        command.args(["--exclude-operation-id", call]);
    }
    run(command);
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

#[test]
#[ignore = "slow"]
fn schemathesis_finds_no_response_outside_the_description_of_the_public_api() {
    let mail = MailServer::start("plain");
    let gateway = Gateway::alone(settings(&mail));
    let token = gateway.token("alice");
    let url = format!("http://{}/auth/openapi.json", gateway.address);
    let ending = ["logout", "logoutAll", "change", "changeMe", "delete", "deleteMe", "endSession"];
    schemathesis(&gateway, &url, &token, &ending);
    schemathesis(&gateway, &url, &token, &[]);
}

#[test]
#[ignore = "slow"]
fn schemathesis_finds_no_response_outside_the_description_of_the_admin_api() {
    let mail = MailServer::start("plain");
    let gateway = Gateway::alone(settings(&mail));
    let token = gateway.admin_token("root");
    schemathesis(&gateway, &format!("http://{}/api/openapi.json", gateway.admin), &token, &[]);
}

#[test]
#[ignore = "slow"]
fn newman_passes_the_postman_collection() {
    let gateway = Gateway::alone(Settings::default().extra(&with_pages("")));
    gateway.run(&["user", "add", "root", "--role", "admin", "--password-stdin"], PASSWORD);
    let collection = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/authgate.postman_collection.json");
    let mut command = peer("node_modules/.bin/newman");
    command.arg("run").arg(collection).args(["--color", "off", "--env-var"]);
    command.arg(format!("base=http://{}", gateway.address));
    command.arg("--env-var").arg(format!("admin=http://{}", gateway.admin));
    command.arg("--env-var").arg(format!("admin_password={PASSWORD}"));
    run(command);
}

#[test]
fn every_call_is_in_the_description_and_in_the_collection() {
    let gateway = Gateway::alone(Settings::default());
    let described = gateway.get("/auth/openapi.json", None).json();
    assert_eq!(described["openapi"], "3.1.1");
    for call in authgate::auth_api::calls() {
        let method = call.method.as_str().to_lowercase();
        let path = format!("/auth{}", call.path);
        assert!(described["paths"][&path][&method].is_object(), "{method} {path}");
    }
    let collection = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/authgate.postman_collection.json");
    let made = String::from_utf8(authgate().arg("postman").output().unwrap().stdout).unwrap();
    assert!(
        fs::read_to_string(collection).unwrap() == made,
        "`authgate postman > docs/authgate.postman_collection.json` brings it up to date"
    );
}

#[test]
fn the_description_knows_the_mount_and_the_statuses_that_older_clients_expect() {
    let settings = Settings::default()
        .auth("  path: /api/auth\n  compat: {unauthenticated: 403, duplicate_username: 400}\n");
    let gateway = Gateway::alone(settings);
    let described = gateway.get("/api/auth/openapi.json", None).json();
    let responses = &described["paths"]["/api/auth/me"]["get"]["responses"];
    assert!(responses["403"].is_object() && responses["401"] == Value::Null, "{responses}");
    let responses = &described["paths"]["/api/auth/register"]["post"]["responses"];
    assert!(responses["409"] == Value::Null, "{responses}");
    let body = &described["components"]["schemas"]["RegisterRequest"];
    assert_eq!(body["required"], json!(["username", "password"]), "{body}");
}

#[test]
fn the_description_names_the_cookie_where_there_are_pages() {
    let domain = "cookies: {domain: example.com}\n";
    let host = Gateway::alone(Settings::default().extra(&with_pages("")));
    let shared =
        Gateway::alone(Settings::default().extra(&with_pages(domain).replace("localhost", "example.com")));
    for (gateway, name) in [(host, Some("__Host-authgate")), (shared, Some("__Secure-authgate"))] {
        let described = gateway.get("/auth/openapi.json", None).json();
        assert_eq!(described["components"]["securitySchemes"]["cookie"]["name"].as_str(), name);
        let security = |path: &str| described["paths"][path]["get"]["security"].clone();
        assert_eq!(security("/auth/me"), json!([{"bearer": []}, {"cookie": []}]));
        assert_eq!(security("/auth/openapi.json"), Value::Null);
    }
    let described = Gateway::alone(Settings::default()).get("/auth/openapi.json", None).json();
    assert_eq!(described["components"]["securitySchemes"]["cookie"], Value::Null);
    assert_eq!(described["paths"]["/auth/me"]["get"]["security"], json!([{"bearer": []}]));
}
