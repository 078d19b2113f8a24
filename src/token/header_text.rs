//! Texts as values of headers.

use std::fmt::Write;

/// Percent-encodes `%`, control characters and everything beyond ASCII, by UTF-8 bytes.
pub(super) fn encode(name: &str) -> String {
    let mut encoded = String::with_capacity(name.len());
    for byte in name.bytes() {
        if (0x21..0x7f).contains(&byte) && byte != b'%' {
            encoded.push(byte as char);
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::encode;

    #[test]
    fn names_beyond_ascii_are_percent_encoded() {
        assert_eq!(encode("alice"), "alice");
        assert_eq!(encode("j\u{f6}rg%1"), "j%C3%B6rg%251");
        assert_eq!(encode("a\r\nb c"), "a%0D%0Ab%20c");
    }
}
