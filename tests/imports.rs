//! Users who come from another program, with their passwords.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::harness::{Gateway, PASSWORD, Settings, Upstream, claims_of, python, shared_database, shared_sql};

/// Hashes of [`PASSWORD`] by the libraries themselves, as a map from scheme to hash.
fn hashes() -> Value {
    let script = r#"
import argon2, bcrypt, json, sys
from werkzeug.security import generate_password_hash
password = sys.argv[1]
print(json.dumps({
    "pbkdf2": generate_password_hash(password, "pbkdf2:sha256"),
    "old-pbkdf2": generate_password_hash(password, "pbkdf2:sha256:150000"),
    "scrypt": generate_password_hash(password),
    "bcrypt": bcrypt.hashpw(password.encode(), bcrypt.gensalt(12)).decode(),
    "argon2": argon2.PasswordHasher().hash(password),
}))"#;
    serde_json::from_str(&python(script, &[PASSWORD])).unwrap()
}

/// A SQLite database of an older service.
fn old_sqlite(gateway: &Gateway, rows: &[(i64, &str, &str)]) -> String {
    let path = gateway.folder.path().join("old.db");
    let script = r#"
import json, sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("CREATE TABLE IF NOT EXISTS users (user_id INTEGER PRIMARY KEY, username VARCHAR(50), password VARCHAR(255))")
db.executemany("INSERT INTO users VALUES (?, ?, ?)", json.loads(sys.argv[2]))
db.commit()"#;
    let path = path.display().to_string();
    python(script, &[&path, &json!(rows).to_string()]);
    path
}

fn stored_hash(gateway: &Gateway, name: &str) -> String {
    let script = r#"
import sqlite3, sys
print(sqlite3.connect(sys.argv[1]).execute("SELECT password_hash FROM accounts WHERE name = ?", [sys.argv[2]]).fetchone()[0])"#;
    let path = gateway.folder.path().join("authgate.db").display().to_string();
    python(script, &[&path, name])
}

#[test]
fn hashes_made_by_the_real_libraries_log_in_and_are_argon2id_afterwards() {
    let gateway = Gateway::alone(Settings::default());
    let hashes = hashes();
    let rows: Vec<(i64, &str, &str)> = hashes
        .as_object()
        .unwrap()
        .iter()
        .zip(1..)
        .map(|((name, hash), id)| (id, name.as_str(), hash.as_str().unwrap()))
        .collect();
    let old = old_sqlite(&gateway, &rows);
    let said = gateway.run(&["user", "import", "--sqlite", &old, "--id", "user_id"], "");
    assert!(said.contains("5 imported, 0 were here before, 0 refused"), "{said}");
    for (_, name, hash) in rows {
        assert_eq!(stored_hash(&gateway, name), hash);
        assert_eq!(gateway.try_login(name, "not the password at all").status, 401, "{name}");
        assert_eq!(gateway.try_login(name, PASSWORD).status, 200, "{name}");
        let renewed = stored_hash(&gateway, name);
        assert!(renewed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{name}: {renewed}");
        assert_eq!(gateway.try_login(name, PASSWORD).status, 200, "{name} again");
        assert_eq!(gateway.try_login(name, "not the password at all").status, 401, "{name} again");
    }
}

#[test]
fn two_first_logins_at_once_both_succeed() {
    let gateway = Gateway::alone(Settings::default());
    let hashes = hashes();
    let old = old_sqlite(&gateway, &[(1, "alice", hashes["scrypt"].as_str().unwrap())]);
    gateway.run(&["user", "import", "--sqlite", &old, "--id", "user_id"], "");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let logins: Vec<_> =
            (0..4).map(|_| scope.spawn(|| gateway.try_login("alice", PASSWORD).status)).collect();
        logins.into_iter().map(|login| login.join().unwrap()).collect()
    });
    assert_eq!(statuses, [200; 4], "{}", gateway.log());
}

#[test]
fn the_old_id_is_kept_and_sent_to_the_upstream_where_it_is_wanted() {
    let upstream = Upstream::start();
    let settings = Settings::default().extra("identity_headers: {external_id: X-Legacy-User-Id}\n");
    let gateway = Gateway::start(&upstream, settings);
    let hashes = hashes();
    let old = old_sqlite(&gateway, &[(4711, "alice", hashes["bcrypt"].as_str().unwrap())]);
    gateway.run(&["user", "import", "--sqlite", &old, "--id", "user_id"], "");
    let alice = gateway.login("alice");
    let token = alice["access_token"].as_str().unwrap();
    assert_eq!(claims_of(token)["external_id"], "4711");
    let spoofed = format!(
        "GET /api/x HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\nX-Legacy-User-Id: 1\r\nX_Legacy_User_Id: 1\r\n\r\n"
    );
    assert_eq!(gateway.client().send(spoofed).response().status, 200);
    assert_eq!(upstream.last().all("x-legacy-user-id"), ["4711"]);
    assert!(upstream.last().all("x_legacy_user_id").is_empty());
    // So is it with a key.
    let made = gateway.send("POST", "/auth/keys", Some(token), Some(&json!({"name": "backup"}))).json();
    assert_eq!(gateway.get("/api/x", made["key"].as_str()).status, 200);
    assert_eq!(upstream.last().all("x-legacy-user-id"), ["4711"]);
    // A client of the old service knows that id, and may send it as the number it was.
    let change = json!({"user_id": 4711, "new_username": "alicia"});
    assert_eq!(gateway.send("POST", "/auth/change", Some(token), Some(&change)).status, 200);
    // Who was never imported has none.
    let bob = gateway.token("bob");
    gateway.get("/api/x", Some(&bob));
    assert!(upstream.last().all("x-legacy-user-id").is_empty());
    let shown = gateway.run(&["user", "show", "alicia"], "");
    assert!(shown.contains("4711"), "{shown}");
    // Operators find them by it.
    let admin = gateway.admin_token("root");
    for (id, names) in [("4711", vec!["alicia"]), ("471", vec![]), ("4712", vec![])] {
        let found = gateway.admin("GET", &format!("/api/users?external_id={id}"), Some(&admin), None).json();
        let found: Vec<_> = found["users"].as_array().unwrap().iter().map(|user| &user["username"]).collect();
        assert_eq!(found, names, "{id}");
    }
}

#[test]
fn what_is_refused_is_reported_and_an_import_can_be_run_again() {
    let gateway = Gateway::alone(Settings::default());
    gateway.register("taken");
    gateway.register("deleted");
    gateway.run(&["user", "delete", "deleted"], "");
    let hashes = hashes();
    let hash = hashes["old-pbkdf2"].as_str().unwrap();
    let rows = [
        (1, "Alice", hash),
        (2, "alice", hash),
        (3, "\u{430}lice", hash),
        (4, "taken", hash),
        (5, "deleted", hash),
        (6, "bob", "plain text password"),
        (7, "carol", "pbkdf2:sha256:99999999$salt$00"),
        (8, "two words", hash),
        (9, "dave", hash),
    ];
    let old = old_sqlite(&gateway, &rows);
    let report = gateway.folder.path().join("report.csv").display().to_string();
    let import = ["user", "import", "--sqlite", &old, "--id", "user_id", "--report", &report];
    let dry = gateway.run(&[import.as_slice(), &["--dry-run"]].concat(), "");
    assert!(dry.contains("2 would be imported, 0 were here before, 7 refused"), "{dry}");
    let dry_report = fs::read_to_string(&report).unwrap();
    assert!(!gateway.run(&["user", "list"], "").contains("dave"), "a dry run changes nothing");
    let said = gateway.run(&import, "");
    assert!(said.contains("2 imported, 0 were here before, 7 refused"), "{said}");
    let reported = fs::read_to_string(&report).unwrap();
    assert_eq!(reported.lines().count(), dry_report.lines().count());
    for (id, reason) in [
        (2, "taken"),
        (3, "looks like `alice`"),
        (4, "taken"),
        (5, "deleted or renamed"),
        (6, "no known scheme"),
        (7, "more than is allowed"),
        (8, "username"),
    ] {
        let line = reported.lines().find(|line| line.starts_with(&format!("{id},"))).unwrap_or_default();
        assert!(line.contains(reason), "{id}: {reported}");
    }
    assert!(!reported.contains(hash) && !reported.contains("plain text password"), "{reported}");
    let again = gateway.run(&import, "");
    assert!(again.contains("0 imported, 2 were here before, 7 refused"), "{again}");
}

#[test]
fn users_come_from_postgresql_with_roles_addresses_and_states() {
    let settings = Settings::postgres(&shared_database());
    let gateway = Gateway::alone(settings);
    let old = shared_database();
    let hashes = hashes();
    let hash = hashes["bcrypt"].as_str().unwrap();
    shared_sql(
        &old,
        &format!(
            "CREATE SCHEMA app; CREATE TABLE app.\"User\" (\"user_id\" serial PRIMARY KEY, username varchar(50), pw varchar(255), mail text, role text, gone boolean); \
             INSERT INTO app.\"User\" (username, pw, mail, role, gone) VALUES ('alice', '{hash}', 'alice@example.com', 'Admin', false), ('bob', '{hash}', NULL, NULL, true)"
        ),
    );
    let output = Command::new(env!("CARGO_BIN_EXE_authgate"))
        .args(["user", "import", "--config"])
        .arg(gateway.folder.path().join("gateway.yaml"))
        .args(["--postgres", "OLD_DATABASE", "--table", "app.User", "--id", "user_id", "--hash", "pw"])
        .args(["--email", "mail", "--roles", "role", "--disabled", "gone", "--email-verified"])
        .env("OLD_DATABASE", &old)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let alice = gateway.login("alice");
    assert_eq!(alice["roles"], json!(["admin"]));
    assert_eq!(gateway.try_login("bob", PASSWORD).status, 401);
    let shown = gateway.run(&["user", "show", "alice"], "");
    assert!(shown.contains("email verified  yes") && shown.contains("alice@example.com"), "{shown}");
    assert!(gateway.run(&["user", "show", "bob"], "").contains("disabled"));
}

#[test]
fn whoever_is_said_to_be_disabled_in_words_that_nobody_knows_is_refused() {
    let gateway = Gateway::alone(Settings::default());
    let hashes = hashes();
    let hash = hashes["bcrypt"].as_str().unwrap();
    let rows: String = ["", "no", "F", "Yes", "1", "2024-01-01 00:00", "2", "disabled"]
        .iter()
        .enumerate()
        .map(|(id, said)| format!("{id},user{id},{hash},{said}\n"))
        .collect();
    let import = [
        "user",
        "import",
        "--csv",
        "-",
        "--id",
        "id",
        "--name",
        "name",
        "--hash",
        "hash",
        "--disabled",
        "off",
    ];
    let said = gateway.command(&import, &format!("id,name,hash,off\n{rows}"));
    let said = String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.contains("5 imported, 0 were here before, 3 refused"), "{said}");
    let listed = gateway.run(&["user", "list"], "");
    assert_eq!(listed.lines().filter(|line| line.contains("disabled")).count(), 2, "{listed}");
}

#[test]
fn users_come_from_files() {
    let gateway = Gateway::alone(Settings::default());
    let hashes = hashes();
    let hash = hashes["scrypt"].as_str().unwrap();
    let csv = format!("\u{feff}id,name,hash,email\n1,alice,{hash},alice@example.com\n2,\"bob\",{hash},\n");
    let columns = ["--id", "id", "--name", "name", "--hash", "hash"];
    let said = gateway
        .run(&[["user", "import", "--csv", "-", "--email", "email"].as_slice(), &columns].concat(), &csv);
    assert!(said.contains("2 imported"), "{said}");
    let lines = format!(
        "{}\n\n{}\n",
        json!({"id": 3, "name": "carol", "hash": hash, "roles": ["staff", "user"]}),
        json!({"id": 4, "name": "dave", "hash": null}),
    );
    let said = gateway
        .run(&[["user", "import", "--jsonl", "-", "--roles", "roles"].as_slice(), &columns].concat(), &lines);
    assert!(said.contains("1 imported, 0 were here before, 1 refused"), "{said}");
    assert_eq!(gateway.login("carol")["roles"], json!(["staff", "user"]));
    assert_eq!(gateway.try_login("alice", PASSWORD).status, 200);
}

#[test]
fn a_source_that_cannot_be_read_is_named_and_nothing_is_imported() {
    let gateway = Gateway::alone(Settings::default());
    let old = old_sqlite(&gateway, &[]);
    for (args, part) in [
        (vec!["--sqlite", &old, "--id", "nothing"], "nothing"),
        (vec!["--sqlite", "/nowhere.db"], "/nowhere.db"),
        (vec!["--sqlite", &old, "--table", "users; DROP TABLE users"], "no such table"),
        (vec!["--csv", "/nowhere.csv"], "/nowhere.csv"),
        (vec!["--postgres", "postgres://u:very-secret@127.0.0.1:1/db"], "refused"),
        (vec!["--postgres", "UNSET_VARIABLE"], "UNSET_VARIABLE"),
    ] {
        let output = gateway.command(&[["user", "import"].as_slice(), &args].concat(), "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{args:?}: {said}");
        assert!(said.to_lowercase().contains(&part.to_lowercase()), "{args:?}: {said}");
        assert!(!said.contains("very-secret"), "{said}");
    }
    let output = gateway.command(&["user", "import", "--csv", "-"], "a,b\n1,2\n");
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("there is no column `username`; there are: a, b")
    );
}

#[test]
fn a_failed_login_is_answered_no_sooner_than_the_slowest_scheme_allows() {
    let gateway = Gateway::alone(Settings::default());
    // As slow as an imported hash may be: far slower than our own, whatever the machine.
    let slow = format!("pbkdf2:sha256:2000000$salt${}", "0".repeat(64));
    let old = old_sqlite(&gateway, &[(1, "alice", &slow)]);
    gateway.run(&["user", "import", "--sqlite", &old, "--id", "user_id"], "");
    gateway.register("bob");
    let wrong = |name: &str| {
        let begun = std::time::Instant::now();
        assert_eq!(gateway.try_login(name, "not the password at all").status, 401);
        begun.elapsed()
    };
    // Once the scheme was met, whoever tries waits as long.
    wrong("alice");
    for name in ["bob", "nobody"] {
        assert!(wrong(name) >= std::time::Duration::from_millis(150), "{name}");
    }
}

#[test]
fn a_database_with_another_programs_tables_is_left_alone() {
    let url = shared_database();
    shared_sql(
        &url,
        "CREATE TABLE users (user_id serial PRIMARY KEY, username varchar(50), password varchar(255)); CREATE SCHEMA authgate",
    );
    let folder = tempfile::tempdir().unwrap();
    let config = |url: &str| {
        let text = format!(
            "listeners: [{{address: \"127.0.0.1:0\"}}]\nstore: {{url: \"{url}\"}}\nauth: {{issuer: i, audience: a}}\n"
        );
        crate::harness::write_config(folder.path(), &text)
    };
    let migrate = |url: &str| {
        let output =
            crate::harness::authgate().args(["migrate", "--config"]).arg(config(url)).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = migrate(&url);
    assert_eq!(code, Some(1));
    assert!(said.contains("table `users` of another program"), "{said}");
    // A schema of its own is enough.
    let (code, said) = migrate(&format!("{url}?options=-csearch_path%3Dauthgate"));
    assert_eq!(code, Some(0), "{said}");
}
