//! Configs: whatever stands in a file, what is wrong is told with a line of that file.

use std::path::Path;

use bolero::check;

use super::load;
use crate::fuzz_words::{spell, steered};

const WORDS: &[&[u8]] = &[
    b"listeners:\n",
    b"  - address: 127.0.0.1:8080\n",
    b"auth: {issuer: a, audience: b}\n",
    b"routes:\n",
    b"  - path: /x/**\n",
    b"    upstream: b\n",
    b"upstreams: {b: {servers: [{url: \"http://127.0.0.1:9\"}]}}\n",
    b"limits:\n",
    b"  body: 1MiB\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b": ",
    b"- ",
    b"\n",
    b"  ",
    b"\"",
    b"'",
    b"&a ",
    b"*a",
    b"<<: ",
    b"|\n",
    b"!!",
    b"# ",
    b"${X}",
    b"${X:-y}",
    b"$${",
    b"null",
    b"true",
    b"1e99",
    b"-1",
    b"0x7fffffffffffffff",
    b".nan",
    b"2024-01-01",
    b"store: ",
    b"issuers:\n",
    b"acme: {}\n",
    b"telemetry: {otlp: {endpoint: ",
    b"tests:\n",
    b"? ",
    b"---\n",
    b"...\n",
    b"%YAML 9.9\n",
    b"rate_limit: ",
    b"admin: ",
];

#[test]
fn a_config_is_taken_or_told_what_is_wrong_with_it() {
    check!(name = "config").for_each(|input: &[u8]| {
        let Some((_, rest)) = steered::<1>(input) else { return };
        let Ok(text) = String::from_utf8(spell(rest, WORDS)) else { return };
        let lookup = |name: &str| (name == "X").then(|| "from the environment".to_owned());
        if let Err(errors) = load("gateway.yaml", &text, Path::new("/nowhere"), &lookup, &|_| Vec::new()) {
            assert!(!errors.0.is_empty());
            // A bare CR ends a line, too (YAML 1.2, section 5.4).
            let lines = text.split(['\n', '\r']).count() + 1;
            for error in errors.0 {
                assert!(error.line <= lines, "{error} of {text:?}");
            }
        }
    });
}
