//! Reads header blocks (RFC 7541, sections 3 and 6).

use std::borrow::Cow;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{
    Undecodable, huffman,
    repeated::Repeated,
    table::{LINE_COST, Line, Name, Pseudo, STATIC_LINES, Table},
};

/// The size that the table of a decoder may have, in bytes: what a peer assumes that was told nothing else.
const TABLE_SIZE: usize = 4_096;

/// A string's buffer of this size, in bytes, is not kept between two blocks.
const KEPT: usize = 4 << 10;

/// Reads the header blocks of one direction of a connection.
#[derive(Debug)]
pub(in crate::http2) struct Decoder {
    table: Table,
    /// The string that is being decoded.
    scratch: Vec<u8>,
    /// What was decoded before, where it is remembered.
    repeated: Option<Box<Repeated>>,
}

impl Decoder {
    /// Creates the decoder of a connection that begins.
    pub(in crate::http2) fn new() -> Self {
        Self { table: Table::new(TABLE_SIZE), scratch: Vec::new(), repeated: None }
    }

    /// The same for one that many messages with the same lines come on: those are remembered.
    pub(in crate::http2) fn of_many() -> Self {
        Self { repeated: Some(Box::default()), ..Self::new() }
    }

    /// Reads a whole block and gives each line to `take`.
    ///
    /// # Errors
    /// [`Undecodable`]: no block behind it can be read.
    pub(in crate::http2) fn decode(
        &mut self,
        mut block: &[u8],
        mut take: impl FnMut(Cow<'_, Line>),
    ) -> Result<(), Undecodable> {
        let mut may_resize = true;
        while let Some(&first) = block.first() {
            if first & 0x80 != 0 {
                let number = integer(&mut block, 7)?;
                take(Cow::Borrowed(self.table.get(number)?));
            } else if first & 0x40 != 0 {
                let line = self.literal(&mut block, 6)?;
                take(Cow::Borrowed(&line));
                self.table.insert(line);
            } else if first & 0x20 != 0 {
                // Only in front of the first line (RFC 7541, section 4.2).
                let size = integer(&mut block, 5)?;
                if !may_resize || size > TABLE_SIZE {
                    return Err(Undecodable);
                }
                self.table.resize(size);
                continue;
            } else {
                take(Cow::Owned(self.literal(&mut block, 4)?));
            }
            may_resize = false;
        }
        if self.scratch.capacity() > KEPT {
            self.scratch = Vec::new();
        }
        Ok(())
    }

    /// Reads a line whose name may have a number.
    fn literal(&mut self, block: &mut &[u8], prefix: u32) -> Result<Line, Undecodable> {
        let Some(written) = self.repeated.as_ref().and_then(|_| lasting(block, prefix)) else {
            return self.decode_literal(block, prefix);
        };
        if let Some(line) = self.repeated.as_ref().and_then(|repeated| repeated.get(written)) {
            *block = &block[written.len()..];
            return Ok(line.clone());
        }
        let line = self.decode_literal(block, prefix)?;
        if let Some(repeated) = &mut self.repeated {
            repeated.keep(written, &line);
        }
        Ok(line)
    }

    fn decode_literal(&mut self, block: &mut &[u8], prefix: u32) -> Result<Line, Undecodable> {
        let number = integer(block, prefix)?;
        let (mut name, name_length) = if number == 0 {
            let name = self.string(block)?;
            (parse_name(name), name.len())
        } else {
            let line = self.table.get(number)?;
            (line.name.clone(), line.name_length)
        };
        let value = self.string(block)?;
        let cost = name_length + value.len() + LINE_COST;
        let value = parse_value(value).unwrap_or_else(|| {
            name = Name::Malformed;
            HeaderValue::from_static("")
        });
        Ok(Line { name, value, name_length, cost })
    }

    fn string<'s, 'i: 's>(&'s mut self, block: &mut &'i [u8]) -> Result<&'s [u8], Undecodable> {
        let is_coded = block.first().ok_or(Undecodable)? & 0x80 != 0;
        let length = integer(block, 7)?;
        let (string, rest) = block.split_at_checked(length).ok_or(Undecodable)?;
        *block = rest;
        if !is_coded {
            return Ok(string);
        }
        self.scratch.clear();
        huffman::decode(string, &mut self.scratch)?;
        Ok(&self.scratch)
    }
}

/// Returns how the next line is written, if that says the same each time and is no secret: its name has no number of the table, which
/// changes, and it is not one that is never to be kept (RFC 7541, section 6.2.3).
fn lasting<'a>(block: &&'a [u8], prefix: u32) -> Option<&'a [u8]> {
    const NEVER_KEPT: u8 = 0x10;
    let mut rest = *block;
    let is_secret = prefix == 4 && rest.first()? & NEVER_KEPT != 0;
    let number = integer(&mut rest, prefix).ok()?;
    if is_secret || number > STATIC_LINES {
        return None;
    }
    for _ in 0..if number == 0 { 2 } else { 1 } {
        let length = integer(&mut rest, 7).ok()?;
        rest = rest.get(length..)?;
    }
    Some(&block[..block.len() - rest.len()])
}

/// Reads a number whose first byte has so many bits of it (RFC 7541, section 5.1). Larger ones than anything has are refused.
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Undecodable> {
    const MAX_SHIFT: u32 = 21;
    let (&first, mut rest) = block.split_first().ok_or(Undecodable)?;
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(first) & most;
    if value == most {
        let mut shift = 0;
        loop {
            let (&byte, after) = rest.split_first().ok_or(Undecodable)?;
            rest = after;
            value += usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
            shift += 7;
            if shift > MAX_SHIFT {
                return Err(Undecodable);
            }
        }
    }
    *block = rest;
    Ok(value)
}

/// Reads a name, which has no upper case (RFC 9113, section 8.2.1).
fn parse_name(name: &[u8]) -> Name {
    if name.first() == Some(&b':') {
        return Pseudo::of(name).map_or(Name::Malformed, Name::Pseudo);
    }
    HeaderName::from_lowercase(name).map_or(Name::Malformed, Name::Field)
}

/// Reads a value, which has neither control characters nor blanks around it (RFC 9113, section 8.2.1).
fn parse_value(value: &[u8]) -> Option<HeaderValue> {
    let is_blank = |byte: Option<&u8>| matches!(byte, Some(b' ' | b'\t'));
    if is_blank(value.first()) || is_blank(value.last()) {
        return None;
    }
    HeaderValue::from_maybe_shared(Bytes::copy_from_slice(value)).ok()
}

#[cfg(test)]
#[path = "../../../fuzz/hpack.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(hex: &str) -> Vec<u8> {
        let hex: String = hex.split_whitespace().collect();
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    }

    fn read(decoder: &mut Decoder, block: &[u8]) -> Result<Vec<(String, String)>, Undecodable> {
        let mut lines = Vec::new();
        decoder.decode(block, |line| {
            let name = match &line.name {
                Name::Pseudo(pseudo) => format!(":{}", format!("{pseudo:?}").to_lowercase()),
                Name::Field(name) => name.to_string(),
                Name::Malformed => "malformed".to_owned(),
            };
            lines.push((name, line.value.to_str().unwrap().to_owned()));
        })?;
        Ok(lines)
    }

    fn pairs(lines: &[(&str, &str)]) -> Result<Vec<(String, String)>, Undecodable> {
        Ok(lines.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    /// RFC 7541, appendix C.4.
    #[test]
    fn the_requests_of_the_rfc_are_read() {
        let mut decoder = Decoder::new();
        let begin =
            [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "www.example.com")];
        let block = bytes("8286 8441 8cf1 e3c2 e5f2 3a6b a0ab 90f4 ff");
        assert_eq!(read(&mut decoder, &block), pairs(&begin));
        let second = [&begin[..], &[("cache-control", "no-cache")]].concat();
        assert_eq!(read(&mut decoder, &bytes("8286 84be 5886 a8eb 1064 9cbf")), pairs(&second));
        let third = [
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            (":authority", "www.example.com"),
            ("custom-key", "custom-value"),
        ];
        let block = bytes("8287 85bf 4088 25a8 49e9 5ba9 7d7f 8925 a849 e95b b8e8 b4bf");
        assert_eq!(read(&mut decoder, &block), pairs(&third));
    }

    #[test]
    fn lines_that_come_again_are_read_as_at_first() {
        // A new name and one of the static table with the same value, one by a number of the table that changes, a secret, and what is
        // malformed.
        let blocks = [
            "40 01 61 01 62  54 01 62  7e 01 63",
            "40 01 63 01 64  54 01 62  7e 01 63",
            "00 01 61 01 62  04 01 62  14 01 62  1f 2f 01 64",
            "40 01 41 01 62  40 01 61 02 20 62",
        ];
        let (mut plain, mut remembering) = (Decoder::new(), Decoder::of_many());
        for block in blocks.iter().chain(&blocks).chain(&blocks) {
            let block = bytes(block);
            assert_eq!(read(&mut remembering, &block), read(&mut plain, &block));
        }
    }

    #[test]
    fn what_cannot_be_a_line_is_malformed_and_the_next_is_read() {
        let mut decoder = Decoder::new();
        let mut block = Vec::new();
        for (name, value) in [
            ("X-Upper", "1"),
            ("x", "a\r\nb: c"),
            ("x", "a\0b"),
            ("x", " a"),
            ("x", "a\t"),
            ("x y", "1"),
            ("", "1"),
            (":colour", "red"),
            ("x", "1"),
        ] {
            block.extend([0x40, name.len() as u8]);
            block.extend(name.as_bytes());
            block.push(value.len() as u8);
            block.extend(value.as_bytes());
        }
        let lines = read(&mut decoder, &block).unwrap();
        assert_eq!(lines.iter().filter(|line| line.0 == "malformed").count(), 8);
        assert_eq!(lines.last().unwrap(), &("x".to_owned(), "1".to_owned()));
        assert_eq!(read(&mut decoder, &[0xbe, 0xbf]).unwrap()[1].0, "malformed");
    }

    #[test]
    fn what_cannot_be_followed_is_an_error() {
        for hex in [
            // No such line, none at all, and one behind the last.
            "80",
            "be",
            "ff80 80 80 80 01",
            "c0",
            // Strings and numbers that are cut off.
            "40",
            "4001",
            "400161",
            "40 01 61 05 61",
            "ff",
            "7f",
            // A size behind a line, and one that is too large.
            "82 20",
            "3fe2 1f",
            // Huffman's code with the end of the string in it.
            "00 84 ffff ffff 00",
        ] {
            assert_eq!(read(&mut Decoder::new(), &bytes(hex)), Err(Undecodable), "{hex}");
        }
        assert_eq!(read(&mut Decoder::new(), &bytes("20 3fe1 1f 82")), pairs(&[(":method", "GET")]));
    }
}
