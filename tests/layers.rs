//! The layers import downward only, and each package has one home.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

/// From the top; modules on one line do not import each other.
const LAYERS: &[&[&str]] = &[
    &["main"],
    &["cli"],
    &["app"],
    &["gateway", "auth_api", "admin", "pages"],
    &["web"],
    &["access"],
    &["account"],
    &["revocation"],
    &["oidc", "acme"],
    &["store", "password", "token", "factor", "route", "limit", "mail", "otlp", "upstream"],
    &["http_client"],
    &["http2", "tls"],
    &["config", "telemetry", "openapi", "stream"],
    &["types", "clock", "error", "memory", "priority"],
];

/// Packages, and the only modules that may name them.
const HOMES: &[(&str, &[&str])] = &[
    ("pingora_core", &["app", "gateway", "upstream"]),
    ("pingora_timeout", &["app", "gateway", "upstream"]),
    ("pingora_load_balancing", &["upstream/monitor"]),
    ("hyper", &["admin", "app/sample", "http_client"]),
    ("tokio_postgres", &["store/postgres"]),
    ("deadpool_postgres", &["store/postgres"]),
    ("rusqlite", &["store/sqlite"]),
    ("jsonwebtoken", &["token"]),
    ("moka", &["token", "oidc/introspection"]),
    ("argon2", &["password"]),
    ("serde_yaml", &["config/load", "config/interpolate"]),
    ("prometheus", &["telemetry", "app/server"]),
    ("papaya", &["revocation"]),
    ("seize", &["revocation"]),
    ("lettre", &["mail"]),
    ("ppp", &["gateway/proxy_protocol"]),
    ("rustls", &["store/postgres", "tls", "stream", "config/check/upstream"]),
    ("tokio_rustls", &["tls", "stream"]),
    ("x509_cert", &["tls"]),
    ("tokio_postgres_rustls", &["store/postgres"]),
    ("bcrypt", &["password"]),
    ("scrypt", &["password"]),
    ("csv", &["cli/import"]),
    ("instant_acme", &["acme"]),
    ("prost", &["otlp/message", "gateway/ext_authz"]),
    ("opentelemetry_proto", &["otlp/message"]),
    ("indicatif", &["cli/import"]),
    ("minijinja", &["pages"]),
    ("fluent_bundle", &["pages"]),
    ("fluent_langneg", &["pages"]),
    ("unic_langid", &["pages"]),
    ("totp_rs", &["factor"]),
    ("qrcode", &["factor"]),
    ("ciborium", &["factor"]),
];

fn sources() -> Vec<(String, String)> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(&root).unwrap().with_extension("").display().to_string();
                files.push((name, fs::read_to_string(path).unwrap()));
            }
        }
    }
    files
}

/// The code of a file without its unit tests and comments.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn layer(module: &str) -> usize {
    LAYERS.iter().position(|line| line.contains(&module)).unwrap_or_else(|| panic!("{module} is in no layer"))
}

/// Every `crate::x` and every first name in `use crate::{…}`.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for part in code.split("crate::").skip(1) {
        let group = part.strip_prefix('{').map(top_level).unwrap_or_else(|| vec![part.to_owned()]);
        for name in group {
            let name: String = name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                found.push(name);
            }
        }
    }
    found
}

/// The parts of a braced list up to its end, commas within further braces aside.
fn top_level(rest: &str) -> Vec<String> {
    let (mut parts, mut depth, mut part) = (Vec::new(), 0, String::new());
    for c in rest.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(std::mem::take(&mut part));
                continue;
            }
            _ => {}
        }
        part.push(c);
    }
    parts.push(part);
    parts
}

#[test]
fn imports_go_downward_only() {
    for (file, text) in sources() {
        if file == "lib" || file == "main" {
            continue;
        }
        let own = file.split('/').next().unwrap().to_owned();
        for import in imports(&code(&text)) {
            if import == own {
                continue;
            }
            assert!(layer(&import) > layer(&own), "{file} imports {import}");
        }
    }
}

#[test]
fn each_package_has_one_home() {
    for (file, text) in sources() {
        let code = code(&text);
        for (package, homes) in HOMES {
            let named = code.contains(&format!("{package}::"));
            let at_home = homes.iter().any(|home| file.starts_with(home));
            assert!(!named || at_home, "{file} names {package}");
        }
    }
}

/// The files beside each that it imports from: `super::x`, alone or within braces.
fn neighbours(file: &str, text: &str, all: &[(String, String)]) -> Vec<String> {
    let Some((folder, _)) = file.rsplit_once('/') else { return Vec::new() };
    let code = code(text).replace("super::super::", "");
    let mut found = Vec::new();
    for part in code.split("super::").skip(1) {
        let group = part.strip_prefix('{').map(top_level).unwrap_or_else(|| vec![part.to_owned()]);
        for name in group {
            let name: String = name.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            let path = format!("{folder}/{name}");
            if path != file && all.iter().any(|(known, _)| *known == path) {
                found.push(path);
            }
        }
    }
    found
}

#[test]
fn no_two_files_need_each_other() {
    let all = sources();
    let edges: BTreeMap<&str, Vec<String>> =
        all.iter().map(|(file, text)| (file.as_str(), neighbours(file, text, &all))).collect();
    for &start in edges.keys() {
        let (mut seen, mut next) = (BTreeSet::new(), edges[start].clone());
        while let Some(file) = next.pop() {
            assert_ne!(file, start, "{start} imports what imports it in the end");
            if seen.insert(file.clone()) {
                next.extend(edges.get(file.as_str()).into_iter().flatten().cloned());
            }
        }
    }
}

#[test]
fn what_decides_is_all_that_can_say_that_a_request_is_allowed() {
    let says = |(file, text): &(String, String)| code(text).contains("Allowed for").then(|| file.clone());
    assert_eq!(sources().iter().filter_map(says).collect::<Vec<_>>(), ["access/mod"]);
}

#[test]
fn every_module_is_in_a_layer_and_says_what_it_is() {
    for (file, text) in sources() {
        assert!(text.starts_with("//!"), "{file} has no module documentation");
        let lines = text.lines().count();
        assert!(lines <= 600, "{file} has {lines} lines");
    }
}
