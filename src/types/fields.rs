//! The field lines of a head (RFC 9112, section 5), parsed into a map.

use std::cell::RefCell;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

/// The number of empty maps that a thread keeps, and the largest capacity of each: one client with many headers does not
/// enlarge the maps of others.
const SPARE_MAPS: usize = 32;
const SPARE_CAPACITY: usize = 48;

/// The lines that are added to a head on its way, for which a map has room from the beginning.
const ADDED_LINES: usize = 4;

thread_local! {
    /// Maps that were used before. The last one is likely to be in the processor's cache.
    static SPARE: RefCell<Vec<HeaderMap>> = const { RefCell::new(Vec::new()) };
}

/// A field line has no name, or one with a character that names do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a field line has no valid name")]
pub struct FieldError;

/// Parses the field lines that begin at `begin` in a head that [`HeadScanner`](super::framing::HeadScanner) took. `count` is
/// at least their number. The values are slices of `head`.
///
/// # Errors
/// [`FieldError`].
pub fn parse(head: &Bytes, begin: usize, count: usize) -> Result<HeaderMap, FieldError> {
    let mut headers = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
    headers.reserve(count + ADDED_LINES);
    let mut begin = begin;
    while let Some(length) = memchr::memchr(b'\r', &head[begin..]).filter(|length| *length > 0) {
        let line = &head[begin..begin + length];
        let colon = line.iter().position(|byte| *byte == b':').ok_or(FieldError)?;
        let name = HeaderName::from_bytes(&line[..colon]).map_err(|_| FieldError)?;
        let value = head.slice_ref(line[colon + 1..].trim_ascii());
        // SAFETY: the scanner takes no head with a control character in a line but for tabs, and those are what a value must
        // not have.
        let value = unsafe { HeaderValue::from_maybe_shared_unchecked(value) };
        headers.append(name, value);
        begin += length + 2;
    }
    Ok(headers)
}

/// Clears a map and keeps its memory for the next head.
pub fn reuse(mut headers: HeaderMap) {
    if headers.capacity() <= SPARE_CAPACITY {
        headers.clear();
        SPARE.with_borrow_mut(|spare| {
            if spare.len() < SPARE_MAPS {
                spare.push(headers);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(lines: &str) -> Result<Vec<(String, String)>, FieldError> {
        let head = Bytes::from(format!("GET / HTTP/1.1\r\n{lines}\r\n"));
        let headers = parse(&head, 16, 3)?;
        let pairs =
            headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()));
        let pairs = pairs.collect();
        reuse(headers);
        Ok(pairs)
    }

    #[test]
    fn names_are_in_lower_case_and_values_without_blanks_around() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            parsed("Host:a\r\nX-One: \t one: two \t\r\nX-Empty:\r\n"),
            Ok(vec![pair("host", "a"), pair("x-one", "one: two"), pair("x-empty", "")])
        );
        assert_eq!(parsed(""), Ok(vec![]), "a map that was used before is empty");
        assert_eq!(parsed("A: 1\r\nB: 2\r\na: 3\r\n").map(|pairs| pairs.len()), Ok(3));
    }

    #[test]
    fn a_line_needs_a_name_of_token_characters() {
        for line in ["a\r\n", ": a\r\n", "a : b\r\n", "a b: c\r\n", "a\u{e9}: b\r\n", "(a): b\r\n"] {
            assert_eq!(parsed(line), Err(FieldError), "{line:?}");
        }
    }
}
