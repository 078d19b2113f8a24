//! The field lines of a message (RFC 9110, section 5), in the order in which they came.

use std::{cell::RefCell, ptr, slice};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use thiserror::Error;

use super::{framing::Head, usual_name, with_digits};

/// The number of empty lists that a thread keeps, and the largest capacity of each: one client with many headers does not
/// enlarge the lists of others.
const SPARE_LISTS: usize = 32;
const SPARE_CAPACITY: usize = 48;

/// The lines that are added to a message on its way, for which a list has room from the beginning.
const ADDED_LINES: usize = 6;

thread_local! {
    /// Lists that were used before. The last one is likely to be in the processor's cache.
    static SPARE: RefCell<Vec<Lines>> = const { RefCell::new(Vec::new()) };
}

type Lines = Vec<(HeaderName, HeaderValue)>;

/// The field lines of a message.
///
/// A list and no map: a message has a dozen lines, and each is looked at, so to find one costs a few comparisons, where a
/// map costs a hash for each line that is put in and for each question. What takes names of a client's choice, many of
/// them, must not ask for each.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    lines: Lines,
}

/// A field line has no name, or one with a character that names do not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a field line has no valid name")]
pub struct FieldError;

impl Fields {
    /// Returns an empty list with room for `count` lines and a few that are added.
    pub fn with_capacity(count: usize) -> Self {
        let mut lines = SPARE.with_borrow_mut(Vec::pop).unwrap_or_default();
        lines.reserve(count + ADDED_LINES);
        Self { lines }
    }

    /// Parses the field lines of a head, whose bytes are `bytes`. The values are slices of them.
    ///
    /// # Errors
    /// [`FieldError`].
    pub fn parse(bytes: &Bytes, head: &Head) -> Result<Self, FieldError> {
        let mut fields = Self::with_capacity(head.fields);
        let mut begin = head.start_line.1 + 2;
        for number in 0..head.fields {
            let end = head.end_of(number).unwrap_or_else(|| {
                let length = bytes[begin..].iter().position(|byte| *byte == b'\r');
                length.map_or(bytes.len(), |length| begin + length)
            });
            let line = &bytes[begin..end];
            let colon = line.iter().position(|byte| *byte == b':').ok_or(FieldError)?;
            let name = match usual_name(&line[..colon]) {
                Some(name) => name.clone(),
                None => HeaderName::from_bytes(&line[..colon]).map_err(|_| FieldError)?,
            };
            let value = line[colon + 1..].trim_ascii_start();
            let value = bytes.slice(end - value.len()..end - (value.len() - value.trim_ascii_end().len()));
            // SAFETY: the scanner takes no head with a control character in a line but for tabs, and those are what a value
            // must not have.
            let value = unsafe { HeaderValue::from_maybe_shared_unchecked(value) };
            fields.lines.push((name, value));
            begin = end + 2;
        }
        Ok(fields)
    }

    /// Returns the lines.
    pub fn iter(&self) -> slice::Iter<'_, (HeaderName, HeaderValue)> {
        self.lines.iter()
    }

    /// Returns the values of all lines of a name.
    pub fn get_all(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> + Clone {
        self.lines.iter().filter(move |(known, _)| known == name).map(|(_, value)| value)
    }

    /// Returns the value of the first line of a name.
    pub fn get(&self, name: &HeaderName) -> Option<&HeaderValue> {
        self.get_all(name).next()
    }

    /// Returns the value of the only line of a name. None if there are several.
    pub fn get_only(&self, name: &HeaderName) -> Option<&HeaderValue> {
        let mut values = self.get_all(name);
        values.next().filter(|_| values.next().is_none())
    }

    /// Returns the value of the only line of each name, all found in one pass. None if one has no line or several.
    pub fn get_only_each<const N: usize>(&self, names: [&HeaderName; N]) -> Option<[&HeaderValue; N]> {
        let mut found = [None; N];
        for (name, value) in &self.lines {
            if let Some(number) = names.iter().position(|wanted| *wanted == name)
                && found[number].replace(value).is_some()
            {
                return None;
            }
        }
        let mut values = [found.first().copied().flatten()?; N];
        for (value, found) in values.iter_mut().zip(found) {
            *value = found?;
        }
        Some(values)
    }

    /// Returns whether there is a line of a name.
    pub fn contains(&self, name: &HeaderName) -> bool {
        self.get(name).is_some()
    }

    /// Adds a line.
    pub fn append(&mut self, name: HeaderName, value: HeaderValue) {
        self.lines.push((name, value));
    }

    /// Adds a line in place of all lines of its name.
    pub fn insert(&mut self, name: HeaderName, value: HeaderValue) {
        self.remove(&name);
        self.append(name, value);
    }

    /// Takes out all lines of a name. Returns the value of the first one.
    pub fn remove(&mut self, name: &HeaderName) -> Option<HeaderValue> {
        let first = self.get(name)?.clone();
        self.lines.retain(|(known, _)| known != name);
        Some(first)
    }

    /// Replaces the value of each line of a name by what `rewrite` makes of it; a line of which it makes nothing is taken out.
    pub fn rewrite(
        &mut self,
        name: &HeaderName,
        mut rewrite: impl FnMut(&HeaderValue) -> Option<HeaderValue>,
    ) {
        self.lines.retain_mut(|(known, value)| {
            if known != name {
                return true;
            }
            match rewrite(value) {
                Some(rewritten) => {
                    *value = rewritten;
                    true
                }
                None => false,
            }
        });
    }

    /// Keeps the lines for which `keeps` is true.
    pub fn retain(&mut self, mut keeps: impl FnMut(&HeaderName) -> bool) {
        self.lines.retain(|(name, _)| keeps(name));
    }

    /// Takes out all lines whose names are in `names`, of which there may be many.
    pub fn remove_all(&mut self, names: &[HeaderName]) {
        const FEW: usize = 16;
        match names {
            [] => {}
            few if few.len() <= FEW => self.retain(|name| !few.contains(name)),
            many => {
                let many: std::collections::HashSet<_> = many.iter().collect();
                self.retain(|name| !many.contains(name));
            }
        }
    }

    /// Clears the list and keeps its memory for the next message.
    pub fn reuse(mut self) {
        if (1..=SPARE_CAPACITY).contains(&self.lines.capacity()) {
            self.lines.clear();
            SPARE.with_borrow_mut(|spare| {
                if spare.len() < SPARE_LISTS {
                    spare.push(self.lines);
                }
            });
        }
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = &'a (HeaderName, HeaderValue);
    type IntoIter = slice::Iter<'a, (HeaderName, HeaderValue)>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl From<&HeaderMap> for Fields {
    fn from(headers: &HeaderMap) -> Self {
        let mut fields = Self::with_capacity(headers.len());
        fields.lines.extend(headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        fields
    }
}

impl From<HeaderMap> for Fields {
    fn from(headers: HeaderMap) -> Self {
        let mut fields = Self::with_capacity(headers.len());
        let mut last = None;
        for (name, value) in headers {
            // Only the first line of a name has it.
            last = name.or(last);
            if let Some(name) = &last {
                fields.append(name.clone(), value);
            }
        }
        fields
    }
}

impl From<Fields> for HeaderMap {
    fn from(fields: Fields) -> Self {
        let mut headers = Self::with_capacity(fields.lines.len());
        for (name, value) in fields.lines {
            headers.append(name, value);
        }
        headers
    }
}

/// Writes a field line whose value is a number.
pub fn write_number_line(out: &mut Vec<u8>, name: &str, value: u64) {
    with_digits(value, |digits| write_line(out, name, digits));
}

/// Writes a field line (RFC 9112, section 5).
pub fn write_line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    let length = name.len() + value.len() + 4;
    // Room is looked for once, and not at each of four parts.
    out.reserve(length);
    let mut end = out.len();
    let mut write = |part: &[u8]| {
        // SAFETY: the parts are `length` bytes together, for which there is room behind the end, and none of them lies there.
        unsafe { ptr::copy_nonoverlapping(part.as_ptr(), out.as_mut_ptr().add(end), part.len()) };
        end += part.len();
    };
    write(name.as_bytes());
    write(b": ");
    write(value);
    write(b"\r\n");
    // SAFETY: the bytes up to there were written just now.
    unsafe { out.set_len(end) };
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;
    use crate::types::framing::{HeadLimits, HeadScanner};

    fn parsed(lines: &str) -> Result<Vec<(String, String)>, FieldError> {
        let bytes = Bytes::from(format!("GET / HTTP/1.1\r\n{lines}\r\n"));
        let limits = HeadLimits { bytes: 100_000, count: 100 };
        let head = HeadScanner::default().request(&bytes, limits).unwrap().unwrap();
        let fields = Fields::parse(&bytes, &head)?;
        let text = |(name, value): &(HeaderName, HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        let pairs = fields.iter().map(text).collect();
        fields.reuse();
        Ok(pairs)
    }

    #[test]
    fn names_are_in_lower_case_and_values_without_blanks_around() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            parsed("Host:a\r\nX-One: \t one: two \t\r\nX-Empty:\r\n"),
            Ok(vec![pair("host", "a"), pair("x-one", "one: two"), pair("x-empty", "")])
        );
        assert_eq!(parsed(""), Ok(vec![]), "a list that was used before is empty");
        let many: String = (0..60).map(|number| format!("X-{number}: {number}\r\n")).collect();
        assert_eq!(parsed(&many).map(|pairs| (pairs.len(), pairs[59].clone())), Ok((60, pair("x-59", "59"))));
        let long = format!("A: {}\r\nB: 2\r\n", "a".repeat(70_000));
        assert_eq!(parsed(&long).map(|pairs| pairs[1].clone()), Ok(pair("b", "2")));
    }

    #[test]
    fn a_line_needs_a_name_of_token_characters() {
        for line in ["a\r\n", ": a\r\n", "a : b\r\n", "a b: c\r\n", "a\u{e9}: b\r\n", "(a): b\r\n"] {
            assert_eq!(parsed(line), Err(FieldError), "{line:?}");
        }
    }

    #[test]
    fn all_lines_of_a_name_are_found_and_taken_out() {
        let mut fields = Fields::default();
        for value in ["a", "b"] {
            fields.append(header::COOKIE, HeaderValue::from_static(value));
            fields.append(header::HOST, HeaderValue::from_static("h"));
        }
        assert_eq!(fields.get_all(&header::COOKIE).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(fields.get_only(&header::COOKIE), None);
        assert_eq!(fields.get_only_each([&header::COOKIE]), None);
        fields.insert(header::COOKIE, HeaderValue::from_static("c"));
        assert_eq!(fields.get_only_each([&header::COOKIE]).unwrap(), ["c"]);
        assert_eq!(fields.get_only_each([&header::COOKIE, &header::ACCEPT]), None);
        assert_eq!(fields.get_only(&header::COOKIE).unwrap(), "c");
        assert_eq!(fields.remove(&header::HOST).unwrap(), "h");
        assert!(!fields.contains(&header::HOST) && fields.iter().len() == 1);
        let many: Vec<_> = (0..50).map(|n| HeaderName::try_from(format!("x-{n}")).unwrap()).collect();
        for name in &many {
            fields.append(name.clone(), HeaderValue::from_static("x"));
        }
        fields.remove_all(&many);
        fields.remove_all(&[header::ACCEPT]);
        assert_eq!(HeaderMap::from(fields).len(), 1);
    }
}
