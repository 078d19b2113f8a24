//! Credentials and tokens: nothing that was not issued is one.

use std::panic::AssertUnwindSafe;

use bolero::check;
use http::HeaderValue;

use super::{Credential, tests::decider};
use crate::{
    config::OnStale,
    fuzz_words::{spell, steered},
};

const WORDS: &[&[u8]] = &[
    b"Bearer ",
    b"bearer  ",
    b"Basic ",
    b".",
    b"eyJhbGciOiJFZERTQSJ9",
    b"eyJhbGciOiJub25lIn0",
    b"eyJhbGciOiJIUzI1NiJ9",
    b"e30",
    b"=",
    b"==",
    b"-",
    b"_",
    b"+",
    b"/",
    b",",
    b" ",
    b"\t",
    b"A",
    b"AAAA",
    b"\xff",
    b"eyJhbGciOiJFZERTQSIsImtpZCI6ImEifQ",
    b"eyJpc3MiOiJ0ZXN0cyIsImF1ZCI6InRlc3RzIiwiZXhwIjo5OTk5OTk5OTk5fQ",
];

#[test]
fn what_was_not_issued_identifies_nobody() {
    let (access, genuine) = decider();
    // A failed input ends the test, so nothing is used after it.
    let access = AssertUnwindSafe(access);
    check!(name = "tokens").for_each(|input: &[u8]| {
        let Some(([how, at, with], rest)) = steered(input) else { return };
        let mut value = match how % 3 {
            // A genuine one with a byte changed.
            0 => {
                let mut altered = format!("Bearer {genuine}").into_bytes();
                let at = 7 + usize::from(at) * altered.len().saturating_sub(7) / 256;
                altered[at] ^= with.max(1);
                altered
            }
            1 => [format!("Bearer {genuine}").as_bytes(), &spell(rest, WORDS)].concat(),
            _ => spell(rest, WORDS),
        };
        value.retain(|byte| *byte == b'\t' || (b' '..=b'~').contains(byte) || *byte >= 0x80);
        let Ok(value) = HeaderValue::from_bytes(&value) else { return };
        let credential = Credential::of([&value]);
        // The last bits of a signature's last character tell nothing.
        let is_same = value.to_str().is_ok_and(|text| text.trim_end() == format!("Bearer {genuine}"));
        if !is_same {
            assert!(access.identify(credential, OnStale::Deny, access.now()).is_err(), "{value:?}");
        }
    });
}
