//! What other proxies ask about: one request, in one reading, or none.

use bolero::check;

use super::*;
use crate::fuzz_words::{spell, steered};

const WORDS: &[&[u8]] = &[
    b"GET",
    b"POST",
    b"CONNECT",
    b"http",
    b"https",
    b"://",
    b"a.example",
    b"/",
    b"/api/x",
    b"..",
    b"?",
    b"#",
    b"@",
    b":8443",
    b"%2e",
    b"%2f",
    b"[::1]",
    b",",
    b" ",
    b"\\",
    b"\xff",
    b"https://a.example/api/x",
    b"//",
    b"*",
];

#[test]
fn a_request_that_is_told_of_is_one() {
    let names = [
        &FORWARDED_METHOD,
        &FORWARDED_PROTO,
        &FORWARDED_HOST,
        &FORWARDED_URI,
        &ORIGINAL_METHOD,
        &ORIGINAL_URL,
    ];
    check!(name = "verify").for_each(|input: &[u8]| {
        let Some(([by, twice], rest)) = steered(input) else { return };
        let by = if by & 1 == 0 { ForwardedBy::XForwarded } else { ForwardedBy::XOriginal };
        let mut fields = Fields::default();
        for (index, value) in rest.split(|byte| *byte == 0xfe).take(names.len()).enumerate() {
            let Ok(value) = HeaderValue::from_bytes(&spell(value, WORDS)) else { continue };
            for _ in 0..1 + usize::from(twice >> index & 1) {
                fields.append(names[index].clone(), value.clone());
            }
        }
        let Some((head, scheme)) = told(&fields, by) else { return };
        assert!(head.uri.path().starts_with('/') && head.uri.authority().is_none());
        assert_ne!(head.method, Method::CONNECT);
        for keeps_encoded in [false, true] {
            if let Ok(target) = request_target::read(&head, scheme, keeps_encoded) {
                assert!(!target.path.decoded.split('/').any(|segment| segment == ".."));
                assert!(target.host.is_some_and(|host| !host.contains(['@', '/', ','])));
            }
        }
        // Each of them once.
        for name in if by == ForwardedBy::XForwarded { &names[..4] } else { &names[4..] } {
            assert_eq!(fields.get_all(name).count(), 1);
        }
    });
}
