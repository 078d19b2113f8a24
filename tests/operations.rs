//! What operators watch the gateway by: alerts and a dashboard.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::Value;

use crate::harness::Gateway;

fn deployed(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(path)
}

/// The metrics that an expression names.
fn metrics_in(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !is_part(c)).filter(|word| word.starts_with("authgate_"));
    words.map(|word| word.trim_end_matches("_bucket").to_owned()).collect()
}

#[test]
fn alerts_hold_what_their_tests_say() {
    for (what, file) in [("check", "alerts.yaml"), ("test", "alerts_test.yaml")] {
        let mut command = Command::new("promtool");
        let output = command.args([what, "rules", file]).current_dir(deployed("prometheus")).output();
        let output = output.expect("promtool; `./run setup` installs it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn alerts_and_dashboard_name_metrics_that_there_are() {
    // Some have no line before there is something to tell of.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/telemetry/metrics.rs");
    let source = fs::read_to_string(source).unwrap();
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(deployed("grafana/authgate.json")).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    let expressions: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    let alerts = fs::read_to_string(deployed("prometheus/alerts.yaml")).unwrap();
    let named: BTreeSet<String> =
        expressions.iter().copied().chain([alerts.as_str()]).flat_map(metrics_in).collect();
    assert!(named.len() > 20, "{named:?}");
    for name in &named {
        let known = format!("\"{}\"", name.trim_start_matches("authgate_"));
        assert!(source.contains(&known), "{name} is no metric");
    }
    // And Prometheus can read what the gateway says.
    let gateway = Gateway::alone(crate::harness::Settings::default());
    gateway.get("/api/x", None);
    let metrics = gateway.admin_get("/metrics").text();
    let file = gateway.folder.path().join("metrics");
    fs::write(&file, metrics).unwrap();
    let output = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(fs::File::open(&file).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
