//! The command line.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use crate::harness::{Gateway, PASSWORD, Settings, authgate, browser_program, eventually, peer_folder};

fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = authgate().args(args).output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn help_names_every_command_and_usage_faults_exit_with_2() {
    let (code, text, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for command in ["demo", "serve", "check", "explain", "migrate", "user", "key", "completions"] {
        assert!(text.contains(command), "{command}");
        assert_eq!(run(&[command, "--help"]).0, Some(0));
    }
    let (_, text, _) = run(&["user", "--help"]);
    for command in ["add", "list", "show", "set-password", "set-roles", "disable", "enable", "delete"] {
        assert!(text.contains(command), "{command}");
    }
    for args in [&["nothing"][..], &["serve"], &["explain", "GET"], &["user", "add", "--config", "x"], &[]] {
        assert_eq!(run(args).0, Some(2), "{args:?}");
    }
    assert!(run(&["--version"]).1.starts_with("authgate "));
    for shell in ["bash", "zsh", "fish"] {
        let (code, script, _) = run(&["completions", shell]);
        assert!(code == Some(0) && script.contains("set-password"), "{shell}");
    }
}

#[test]
fn a_key_is_revoked_by_its_name_or_with_all_others() {
    let gateway = Gateway::alone(Settings::default());
    let response = gateway.register("alice");
    let listed = gateway.run(&["key", "list"], "");
    let row = listed.lines().nth(1).unwrap();
    assert!(row.ends_with("active"), "the key that signs: {row}");
    let kid = row.split_whitespace().next().unwrap().to_owned();
    for args in [&["key", "revoke"][..], &["key", "revoke", &kid, "--all"]] {
        assert_eq!(gateway.command(args, "").status.code(), Some(2), "{args:?}");
    }
    // Some names look like options.
    for name in ["nobody", "-Ti0RX78NPbXnF6d", "--i0RX78NPbXnF6d"] {
        let unknown = gateway.command(&["key", "revoke", name], "");
        let said = String::from_utf8_lossy(&unknown.stderr);
        assert_eq!(unknown.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("there is no key {name}")), "{said}");
    }
    let said = gateway.run(&["key", "revoke", &kid], "");
    assert!(said.contains(&format!("Key {kid} is revoked.")) && said.contains("signs from"), "{said}");
    assert!(!gateway.run(&["key", "list"], "").contains(&kid));
    let refused = || gateway.get("/api/x", response["access_token"].as_str()).status == 401;
    eventually("its tokens have ended", || refused().then_some(()));
    assert!(gateway.run(&["audit"], "").contains("key.revoke"));
    let shared = Gateway::alone(Settings::shared_secret());
    let refused = shared.command(&["key", "revoke", "--all"], "");
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("previous_secret"));
}

#[test]
fn bad_input_exits_with_1_and_says_why() {
    for args in [
        &["serve", "--config", "/nowhere.yaml"][..],
        &["check", "--config", "/nowhere.yaml"],
        &["user", "list", "--config", "/nowhere.yaml"],
    ] {
        let (code, _, said) = run(args);
        assert!(code == Some(1) && said.contains("/nowhere.yaml"), "{args:?}: {said}");
    }
}

#[test]
fn explain_tells_the_route_the_decision_and_why() {
    let gateway = Gateway::alone(Settings::default());
    for (args, code, part) in [
        (&["explain", "GET", "/public/x", "--anonymous"][..], 0, "allowed"),
        (&["explain", "GET", "/api/x"], 0, "/api/**"),
        (&["explain", "GET", "/api/x", "--anonymous"], 3, "401"),
        (&["explain", "GET", "/admin/x", "--role", "user"], 3, "403"),
        (&["explain", "GET", "/admin/x?a=b", "--role", "admin"], 0, "any of admin"),
        (&["explain", "GET", "/nowhere"], 4, "404"),
        (&["explain", "GET", "/auth/login"], 4, "Allow: POST"),
        (&["explain", "POST", "/auth/login"], 0, "itself"),
        (&["explain", "GET", "/api/../x"], 1, "canonical"),
        (&["explain", "get", "/public/x"], 1, "400"),
        (&["explain", "CONNECT", "/public/x"], 1, "400"),
    ] {
        let output = gateway.command(args, "");
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{args:?}: {said}");
        assert!(said.contains(part), "{args:?}: {said}");
    }
}

#[test]
fn check_prints_the_compiled_routes() {
    let gateway = Gateway::alone(Settings::default());
    let table = gateway.run(&["check"], "");
    for part in ["/public/**", "open", "/admin/**", "any of admin", "backend (http://127.0.0.1:"] {
        assert!(table.contains(part), "{part}: {table}");
    }
}

#[test]
fn accounts_are_made_shown_and_listed() {
    let gateway = Gateway::alone(Settings::default());
    gateway.run(&["user", "add", "Zoe", "--password-stdin"], &format!("{PASSWORD}\n"));
    gateway.run(&["user", "add", "adam", "--role", "admin", "--role", "staff", "--password-stdin"], PASSWORD);
    assert_eq!(gateway.login("zoe")["roles"], serde_json::json!(["user"]));
    assert_eq!(gateway.login("adam")["roles"], serde_json::json!(["admin", "staff"]));
    let listed = gateway.run(&["user", "list"], "");
    assert!(listed.find("adam").unwrap() < listed.find("zoe").unwrap(), "{listed}");
    let shown = gateway.run(&["user", "show", "ADAM"], "");
    assert!(shown.contains("admin,staff") && shown.contains("sessions    1"), "{shown}");
    for (args, input) in [
        (&["user", "add", "zoe", "--password-stdin"][..], PASSWORD),
        (&["user", "add", "ben", "--password-stdin"], "short"),
        (&["user", "add", "ben", "--role", "NO", "--password-stdin"], PASSWORD),
        (&["user", "show", "nobody"], ""),
        (&["user", "delete", "nobody"], ""),
    ] {
        let output = gateway.command(args, input);
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(!output.stderr.is_empty());
    }
    gateway.run(&["user", "delete", "zoe"], "");
    assert!(!gateway.run(&["user", "list"], "").contains("zoe"));
}

#[test]
fn the_demo_runs_and_its_lines_work_as_pasted() {
    demo_works(&[], "401 Unauthorized", "403 Forbidden");
}

#[test]
fn the_demo_speaks_https_with_a_certificate_of_its_own() {
    // curl speaks HTTP/2 there, which has no reason phrases.
    demo_works(&["--tls"], "HTTP/2 401", "HTTP/2 403");
}

/// A demo that runs, and the lines that it has printed.
struct Demo {
    process: Child,
    printed: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Demo {
    fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let mut process = authgate()
            .args(["demo", "--listen", &free(), "--admin", &free(), "--data"])
            .arg(folder.path().join("data"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let printed = lines.take_while(|line| !line.starts_with("Ctrl-C")).collect();
        Self { process, printed, _folder: folder }
    }

    fn end(mut self) {
        // SAFETY: a signal to a child that was started here and not yet waited for.
        unsafe { libc::kill(self.process.id() as i32, libc::SIGTERM) };
        assert_eq!(self.process.wait().unwrap().code(), Some(0));
    }
}

fn demo_works(args: &[&str], unauthorized: &str, forbidden: &str) {
    let demo = Demo::start(args);
    let is_pasted = |line: &&String| line.starts_with("curl") || line.contains("=$(curl");
    let pasted = demo.printed.iter().filter(is_pasted).cloned().collect::<Vec<_>>().join("\necho\n");
    let output = Command::new("bash").arg("-c").arg(&pasted).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    demo.end();
    for part in [
        r#""path":"/public/hello""#,
        unauthorized,
        "User registered successfully",
        r#""x-user-name":"alice""#,
        forbidden,
        "Logged out successfully",
        r#""x-user-roles":"admin,user""#,
        r#""username":"admin""#,
    ] {
        assert!(said.contains(part), "{part} is not in\n{said}");
    }
    assert_eq!(said.matches(unauthorized).count(), 2);
}

#[test]
#[ignore = "slow"]
fn the_demo_in_a_browser_is_a_product() {
    let demo = Demo::start(&[]);
    let opened = demo.printed.iter().find_map(|line| line.split_once("Open ")?.1.split(' ').next());
    let output = Command::new("node")
        .args([concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/demo.mjs"), opened.unwrap()])
        .env("PEERS", peer_folder())
        .env("CHROMIUM", browser_program())
        .output()
        .unwrap();
    demo.end();
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim() == "done", "{said}{failed}");
}

#[test]
fn the_command_line_waits_for_its_hash_however_short_the_queue_is() {
    let costly = "  password: {argon2: {memory: 512MiB, iterations: 1}, queue_timeout: 1ms}\n";
    let gateway = Gateway::alone(Settings::default().auth(costly));
    gateway.run(&["user", "add", "carol", "--password-stdin"], PASSWORD);
    assert!(gateway.run(&["user", "list"], "").contains("carol"));
}

#[test]
#[ignore = "slow"]
fn the_load_that_a_release_is_trained_on_is_served() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/release/train.py");
    let trained = Command::new("python3")
        .args([script, env!("CARGO_BIN_EXE_authgate"), "--share", "0.01"])
        .output()
        .unwrap();
    assert!(trained.status.success(), "{}", String::from_utf8_lossy(&trained.stderr));
}
