//! Secrets are never logged, and those that anyone knows are never accepted.

use serde_json::json;

use crate::harness::{Gateway, PASSWORD, SECRET, Settings, authgate, eventually, write_config};

#[test]
fn no_secret_and_no_attempted_name_reaches_the_log() {
    let gateway = Gateway::alone(Settings::shared_secret());
    let response = gateway.register("alice");
    let token = response["access_token"].as_str().unwrap();
    let refresh = response["refresh_token"].as_str().unwrap();
    gateway.try_login("alice", "a wrong password 12345");
    gateway.try_login("name-of-nobody", PASSWORD);
    gateway.get(&format!("/api/x?token={token}"), None);
    gateway.get("/api/x", Some("bad-token-98765"));
    gateway.refresh(refresh);
    gateway.refresh("junk-refresh-13579");
    gateway.logout(token);
    gateway.post("/auth/register", &json!({"username": "a b attempted", "password": "short-secret"}));
    eventually("the last line", || gateway.log().contains("/auth/register").then_some(()));
    let master = std::fs::read_to_string(gateway.folder.path().join("master.key")).unwrap();
    let log = gateway.log();
    for secret in [
        PASSWORD,
        "a wrong password 12345",
        token,
        refresh,
        "bad-token-98765",
        "junk-refresh-13579",
        SECRET,
        master.trim(),
        "name-of-nobody",
        "a b attempted",
        "short-secret",
    ] {
        assert!(!log.contains(secret), "{secret}");
    }
}

#[test]
fn short_and_published_keys_refuse_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let check = |auth: &str| {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]\nauth:\n  issuer: i\n  audience: a\n{auth}routes: []\n"
        );
        let config = write_config(folder.path(), &text);
        let output = authgate()
            .arg("serve")
            .arg("--config")
            .arg(config)
            .env("KEY", "a-secret-from-the-environment")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for (auth, key) in [
        ("  signing: {algorithm: HS256, secret: tooshort-tooshort}\n", "auth.signing.secret"),
        ("  signing: {algorithm: HS256}\n", "auth.signing"),
        (
            "  signing: {algorithm: HS256, secret: \"your-secret-key-your-secret-key-your\"}\n",
            "auth.signing.secret",
        ),
        (
            "  signing: {algorithm: HS256, secret: \"please-change-me-please-change-me-now\"}\n",
            "auth.signing.secret",
        ),
        ("  signing: {algorithm: HS256, secret: \"${KEY}\"}\n", "auth.signing.secret"),
        ("  master_key: tooshort-tooshort\n", "auth.master_key"),
    ] {
        let (code, fault) = check(auth);
        assert_eq!(code, Some(1), "{auth}");
        assert!(fault.contains("gateway.yaml:5: ") && fault.contains(key), "{fault}");
        for secret in ["tooshort", "your-secret", "please-change", "from-the-environment"] {
            assert!(!fault.contains(secret), "{fault}");
        }
    }
}

#[test]
fn a_connection_string_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    for url in ["postgres://u:hunter2hunter2@[::bad/db", "mysql://u:hunter2hunter2@h/db"] {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]\nstore: {{url: \"{url}\"}}\nauth: {{issuer: i, audience: a}}\n"
        );
        let config = write_config(folder.path(), &text);
        let output = authgate().args(["user", "list"]).arg("--config").arg(config).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains("store.url") && !said.contains("hunter2"), "{said}");
    }
}
