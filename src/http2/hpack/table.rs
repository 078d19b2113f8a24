//! The tables of header lines that are told by their numbers (RFC 7541, section 2.3).

use std::collections::VecDeque;

use http::{HeaderName, HeaderValue, header};

use super::Undecodable;

/// What a line in a table costs beyond its name and value, in bytes (RFC 7541, section 4.1).
pub(in crate::http2) const LINE_COST: usize = 32;

/// The lines that every table begins with (RFC 7541, appendix A).
pub(super) const STATIC_LINES: usize = 61;

/// A pseudo-header (RFC 9113, section 8.3; RFC 8441, section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::http2) enum Pseudo {
    Authority,
    Method,
    Path,
    Scheme,
    Status,
    Protocol,
}

impl Pseudo {
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b":authority" => Self::Authority,
            b":method" => Self::Method,
            b":path" => Self::Path,
            b":scheme" => Self::Scheme,
            b":status" => Self::Status,
            b":protocol" => Self::Protocol,
            _ => return None,
        })
    }
}

/// The name of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http2) enum Name {
    Pseudo(Pseudo),
    Field(HeaderName),
    /// One that cannot be a name, or that of a value that cannot be one.
    Malformed,
}

/// A header line.
#[derive(Debug, Clone)]
pub(in crate::http2) struct Line {
    pub(in crate::http2) name: Name,
    pub(in crate::http2) value: HeaderValue,
    /// The length of its name, in bytes.
    pub(in crate::http2) name_length: usize,
    /// What it costs in a table and in a list of header lines, in bytes.
    pub(in crate::http2) cost: usize,
}

/// The lines that were kept, the last one first.
#[derive(Debug)]
pub(super) struct Table {
    lines: VecDeque<Line>,
    size: usize,
    most: usize,
}

impl Table {
    pub(super) fn new(most: usize) -> Self {
        Self { lines: VecDeque::new(), size: 0, most }
    }

    /// Returns the line with a number.
    pub(super) fn get(&self, number: usize) -> Result<&Line, Undecodable> {
        let number = number.checked_sub(1).ok_or(Undecodable)?;
        match STATIC.get(number) {
            Some(line) => Ok(line),
            None => self.lines.get(number - STATIC.len()).ok_or(Undecodable),
        }
    }

    /// Keeps a line, for which others may have to go.
    pub(super) fn insert(&mut self, line: Line) {
        self.evict(self.most.saturating_sub(line.cost));
        if line.cost <= self.most {
            self.size += line.cost;
            self.lines.push_front(line);
        }
    }

    /// Sets the size that the table may have.
    pub(super) fn resize(&mut self, most: usize) {
        self.most = most;
        self.evict(most);
    }

    fn evict(&mut self, most: usize) {
        while self.size > most
            && let Some(line) = self.lines.pop_back()
        {
            self.size -= line.cost;
        }
    }
}

const fn line(name: Name, name_length: usize, value: &'static str) -> Line {
    let cost = name_length + value.len() + LINE_COST;
    Line { name, value: HeaderValue::from_static(value), name_length, cost }
}

const fn pseudo(name: Pseudo, value: &'static str) -> Line {
    let length = match name {
        Pseudo::Authority => 10,
        Pseudo::Protocol => 9,
        Pseudo::Method | Pseudo::Scheme | Pseudo::Status => 7,
        Pseudo::Path => 5,
    };
    line(Name::Pseudo(name), length, value)
}

const fn field(name: HeaderName, length: usize, value: &'static str) -> Line {
    line(Name::Field(name), length, value)
}

/// RFC 7541, appendix A.
static STATIC: [Line; STATIC_LINES] = [
    pseudo(Pseudo::Authority, ""),
    pseudo(Pseudo::Method, "GET"),
    pseudo(Pseudo::Method, "POST"),
    pseudo(Pseudo::Path, "/"),
    pseudo(Pseudo::Path, "/index.html"),
    pseudo(Pseudo::Scheme, "http"),
    pseudo(Pseudo::Scheme, "https"),
    pseudo(Pseudo::Status, "200"),
    pseudo(Pseudo::Status, "204"),
    pseudo(Pseudo::Status, "206"),
    pseudo(Pseudo::Status, "304"),
    pseudo(Pseudo::Status, "400"),
    pseudo(Pseudo::Status, "404"),
    pseudo(Pseudo::Status, "500"),
    field(header::ACCEPT_CHARSET, 14, ""),
    field(header::ACCEPT_ENCODING, 15, "gzip, deflate"),
    field(header::ACCEPT_LANGUAGE, 15, ""),
    field(header::ACCEPT_RANGES, 13, ""),
    field(header::ACCEPT, 6, ""),
    field(header::ACCESS_CONTROL_ALLOW_ORIGIN, 27, ""),
    field(header::AGE, 3, ""),
    field(header::ALLOW, 5, ""),
    field(header::AUTHORIZATION, 13, ""),
    field(header::CACHE_CONTROL, 13, ""),
    field(header::CONTENT_DISPOSITION, 19, ""),
    field(header::CONTENT_ENCODING, 16, ""),
    field(header::CONTENT_LANGUAGE, 16, ""),
    field(header::CONTENT_LENGTH, 14, ""),
    field(header::CONTENT_LOCATION, 16, ""),
    field(header::CONTENT_RANGE, 13, ""),
    field(header::CONTENT_TYPE, 12, ""),
    field(header::COOKIE, 6, ""),
    field(header::DATE, 4, ""),
    field(header::ETAG, 4, ""),
    field(header::EXPECT, 6, ""),
    field(header::EXPIRES, 7, ""),
    field(header::FROM, 4, ""),
    field(header::HOST, 4, ""),
    field(header::IF_MATCH, 8, ""),
    field(header::IF_MODIFIED_SINCE, 17, ""),
    field(header::IF_NONE_MATCH, 13, ""),
    field(header::IF_RANGE, 8, ""),
    field(header::IF_UNMODIFIED_SINCE, 19, ""),
    field(header::LAST_MODIFIED, 13, ""),
    field(header::LINK, 4, ""),
    field(header::LOCATION, 8, ""),
    field(header::MAX_FORWARDS, 12, ""),
    field(header::PROXY_AUTHENTICATE, 18, ""),
    field(header::PROXY_AUTHORIZATION, 19, ""),
    field(header::RANGE, 5, ""),
    field(header::REFERER, 7, ""),
    field(header::REFRESH, 7, ""),
    field(header::RETRY_AFTER, 11, ""),
    field(header::SERVER, 6, ""),
    field(header::SET_COOKIE, 10, ""),
    field(header::STRICT_TRANSPORT_SECURITY, 25, ""),
    field(header::TRANSFER_ENCODING, 17, ""),
    field(header::USER_AGENT, 10, ""),
    field(header::VARY, 4, ""),
    field(header::VIA, 3, ""),
    field(header::WWW_AUTHENTICATE, 16, ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lengths_of_names_are_right() {
        for line in &STATIC {
            match &line.name {
                Name::Field(name) => assert_eq!(name.as_str().len(), line.name_length, "{name}"),
                Name::Pseudo(pseudo) => {
                    let text = format!(":{}", format!("{pseudo:?}").to_lowercase());
                    assert_eq!(text.len(), line.name_length, "{text}");
                    assert_eq!(Pseudo::of(text.as_bytes()), Some(*pseudo));
                }
                Name::Malformed => panic!("no line of the table is malformed"),
            }
        }
    }

    #[test]
    fn the_oldest_lines_go_when_there_is_no_room() {
        let mut table = Table::new(120);
        for value in ["1", "2", "3", "4"] {
            table.insert(field(header::AGE, 3, value));
        }
        let values = |table: &Table| {
            let numbers = STATIC.len() + 1..;
            numbers
                .map_while(|number| table.get(number).ok())
                .map(|line| line.value.clone())
                .collect::<Vec<_>>()
        };
        assert_eq!(values(&table), ["4", "3", "2"]);
        table.resize(80);
        assert_eq!(values(&table), ["4", "3"]);
        // One that is larger than the table empties it (RFC 7541, section 4.4).
        table.insert(field(header::VIA, 3, "a value that does not fit into a table of so few bytes"));
        assert_eq!(values(&table), Vec::<HeaderValue>::new());
        assert!(table.get(0).is_err());
    }
}
