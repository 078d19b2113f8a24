//! The pages in a real browser: Chromium by Playwright, with axe.

use std::process::Command;

use crate::harness::{
    Gateway, PASSWORD, Protocol, Settings, Upstream, browser_program, peer_folder, port_to_keep,
};

/// Where pictures of the pages go instead of nowhere: `docs/images` for those of the documents.
const PICTURES: &str = "AUTHGATE_PICTURES";

fn walk(protocol: Protocol, host: &str) {
    let upstream = Upstream::start();
    let port = port_to_keep();
    let scheme = if protocol.is_tls() { "https" } else { "http" };
    let base = format!("{scheme}://{host}:{port}");
    let away = format!(
        "  - {{path: /away/**, redirect: {{to: \"{scheme}://127.0.0.1:{port}/public/away\", status: 302}}, auth: required}}\n"
    );
    let routes = Settings::default().routes + &away;
    let settings = Settings {
        routes,
        listen: format!("127.0.0.1:{port}"),
        protocol,
        extra: format!("public_url: {base}\npages: {{name: Example}}\n"),
        ..Settings::default()
    };
    let throttle = "  throttle: {registrations: {requests: 1000, per: 1m}}\n";
    let email = "  email: {smtp: {host: 127.0.0.1, port: 1, encryption: none}, from: a@example.com}\n";
    let cheap = "  password: {argon2: {memory: 64KiB, iterations: 1}}\n";
    let gateway = Gateway::start(&upstream, settings.auth(throttle).auth(email).auth(cheap));
    let folder = tempfile::tempdir().unwrap();
    let pictures = std::env::var(PICTURES).unwrap_or_else(|_| folder.path().display().to_string());
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/browser.mjs");
    let output = Command::new("node")
        .args([script, &base, PASSWORD, &pictures])
        .env("PEERS", peer_folder())
        .env("CHROMIUM", browser_program())
        .output()
        .unwrap();
    let (said, failed) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{failed}{}", gateway.log());
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines.len() == 1 && lines[0].starts_with("walked "), "{said}");
}

#[test]
#[ignore = "slow"]
fn chromium_finds_nothing_in_the_way_of_people() {
    walk(Protocol::Tls, "localhost");
}
