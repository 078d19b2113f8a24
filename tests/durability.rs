//! What outlives the process.

use crate::harness::{Gateway, Settings, authgate, header_of, shared_database};

#[test]
fn accounts_sessions_logouts_and_keys_survive_a_restart_and_a_kill() {
    for settings in [Settings::default(), Settings::postgres(&shared_database())] {
        let mut gateway = Gateway::alone(settings);
        let kept = gateway.register("alice");
        let ended = gateway.login("alice");
        assert_eq!(gateway.logout(ended["access_token"].as_str().unwrap()).status, 200);
        for killed in [false, true] {
            if killed {
                gateway.kill();
            } else {
                assert_eq!(gateway.stop().code(), Some(0));
            }
            gateway = gateway.restart();
            let token = kept["access_token"].as_str().unwrap();
            assert_eq!(gateway.get("/api/x", Some(token)).status, 200);
            assert_eq!(gateway.get("/api/x", ended["access_token"].as_str()).status, 401);
            assert_eq!(gateway.refresh(ended["refresh_token"].as_str().unwrap()).status, 401);
            let fresh = gateway.login("alice");
            assert_eq!(header_of(fresh["access_token"].as_str().unwrap())["kid"], header_of(token)["kid"]);
        }
        assert_eq!(gateway.refresh(kept["refresh_token"].as_str().unwrap()).status, 200);
    }
}

#[test]
fn a_logout_that_was_answered_survives_a_kill_right_behind_it() {
    let mut gateway = Gateway::alone(Settings::default());
    for round in 0..5 {
        let token = gateway.token(&format!("user-{round}"));
        assert_eq!(gateway.logout(&token).status, 200);
        gateway.kill();
        gateway = gateway.restart();
        assert_eq!(gateway.get("/api/x", Some(&token)).status, 401);
    }
}

#[test]
fn another_master_key_than_the_store_was_begun_with_is_refused() {
    let mut gateway = Gateway::alone(Settings::default());
    gateway.token("alice");
    gateway.stop();
    let key = gateway.folder.path().join("master.key");
    let kept = std::fs::read_to_string(&key).unwrap();
    std::fs::write(&key, "another master key that is long enough\n").unwrap();
    let refused = gateway.command(&["key", "list"], "");
    assert_eq!(refused.status.code(), Some(1));
    let serve = gateway.command(&["serve"], "");
    assert_eq!(serve.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&serve.stderr).contains("master key"));
    std::fs::remove_file(&key).unwrap();
    let missing = gateway.command(&["serve"], "");
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("is missing"));
    assert!(!key.exists());
    std::fs::write(&key, kept).unwrap();
    gateway.restart();
}

#[test]
fn a_second_gateway_on_the_same_file_is_refused() {
    let gateway = Gateway::alone(Settings::default());
    let second = gateway.command(&["serve"], "");
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another gateway"));
    // By another name it is the same file.
    let folder = tempfile::tempdir().unwrap();
    for (name, link) in [("gateway.yaml", false), ("authgate.db", true)] {
        let (from, to) = (gateway.folder.path().join(name), folder.path().join(name));
        if link {
            std::os::unix::fs::symlink(from, to).unwrap();
        } else {
            std::fs::copy(from, to).unwrap();
        }
    }
    let config = folder.path().join("gateway.yaml");
    let second = authgate().arg("serve").arg("--config").arg(config).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&second.stderr).contains("another gateway"));
    assert_eq!(gateway.get("/public/x", None).status, 200);
}

#[test]
fn a_store_of_an_early_build_is_refused_with_what_to_do() {
    let mut gateway = Gateway::alone(Settings::default());
    gateway.stop();
    let database = rusqlite::Connection::open(gateway.folder.path().join("authgate.db")).unwrap();
    database.execute("UPDATE refinery_schema_history SET version = 6, name = 'early'", []).unwrap();
    for command in [&["serve"][..], &["migrate"], &["user", "list"]] {
        let refused = gateway.command(command, "");
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        assert!(
            String::from_utf8_lossy(&refused.stderr).contains("cannot be migrated: use a new one"),
            "{refused:?}"
        );
    }
}

#[test]
fn a_store_with_a_newer_schema_is_refused() {
    let mut gateway = Gateway::alone(Settings::default());
    gateway.stop();
    let database = rusqlite::Connection::open(gateway.folder.path().join("authgate.db")).unwrap();
    let row = "INSERT INTO refinery_schema_history (version, name, applied_on, checksum) VALUES (99, 'future', '2030-01-01T00:00:00Z', '1')";
    database.execute(row, []).unwrap();
    for command in [&["serve"][..], &["migrate"], &["user", "list"]] {
        let refused = gateway.command(command, "");
        assert_eq!(refused.status.code(), Some(1), "{command:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("newer authgate"), "{refused:?}");
    }
}

#[test]
fn files_that_hold_secrets_are_for_the_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let gateway = Gateway::alone(Settings::default());
    gateway.token("alice");
    for name in ["authgate.db", "authgate.db-wal", "master.key"] {
        let mode = std::fs::metadata(gateway.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name} {mode:o}");
    }
}
