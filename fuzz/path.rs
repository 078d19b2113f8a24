//! Paths: what is accepted has one reading, which nothing can be hidden behind.

use bolero::check;
use percent_encoding::percent_decode_str;

use super::*;
use crate::fuzz_words::{spell, steered};

const WORDS: &[&[u8]] = &[
    b"/",
    b"a",
    b".",
    b"..",
    b"%2e",
    b"%2E",
    b"%2f",
    b"%2F",
    b"%5c",
    b"\\",
    b";",
    b"%3b",
    b"%25",
    b"%",
    b"%2",
    b"%zz",
    b"%00",
    b"//",
    b"/./",
    b"/../",
    b"..;x",
    b";/",
    b"%C3%A9",
    b"\xc3\xa9",
    b"@",
    b"%40",
    b"admin",
    b"public",
    b"?",
    b"#",
    b"*",
    b"|",
    b"%EF%BF%BE",
    b"%EF%BF%BF",
    b" ",
    b"+",
    b"~",
    b"%7e",
    b"%61",
    b"%c0%ae",
];

fn is_dot(segment: &str) -> bool {
    segment == "." || segment == ".."
}

#[test]
fn a_path_that_is_accepted_has_one_reading() {
    check!(name = "path").for_each(|input: &[u8]| {
        let Some((_, rest)) = steered::<1>(input) else { return };
        let Ok(path) = String::from_utf8(spell(rest, WORDS)) else { return };
        let path = format!("/{path}");
        if let Ok(found) = canonical(&path) {
            assert_eq!(canonical(&found.wire).as_ref(), Ok(&found), "{path}");
            let decoded = percent_decode_str(&found.wire).decode_utf8().expect("it is UTF-8");
            assert_eq!(decoded, found.decoded, "{path}");
            for form in [&*found.wire, &*found.decoded] {
                assert!(form.starts_with('/') && !form.contains("//") && !form.contains('\\'), "{path}");
                assert!(!form.contains(';') && !form.contains(char::is_control), "{path}");
                assert!(!form.split('/').any(is_dot), "{path}");
            }
            // Decoded once more it is the same, or what was an escaped percent sign would be another path.
            let again = percent_decode_str(&found.decoded).decode_utf8_lossy();
            assert_eq!(again, found.decoded, "{path}");
            assert_eq!(found.wire.matches('/').count(), found.decoded.matches('/').count(), "{path}");
        }
        if let Ok(found) = kept(&path) {
            assert_eq!(found.wire, path);
            assert!(!found.readings.is_empty());
            for reading in &found.readings {
                assert!(!reading.split('/').any(is_dot) && !reading.contains("//"), "{path}: {reading}");
            }
            // What common servers make of it is among the readings, or leads to one without a dot segment.
            let split = path.replace("%2F", "/").replace("%2f", "/");
            let bare = without_parameters(&split);
            let bare = percent_decode_str(&bare).decode_utf8_lossy().into_owned();
            assert!(found.readings.contains(&bare), "{path}: {bare} of {:?}", found.readings);
        }
    });
}
