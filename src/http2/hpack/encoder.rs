//! Writes header blocks (RFC 7541, section 6.2.2).
//!
//! Each line is written as it is: none is kept in a table, so a block needs nothing of those before it, and costs its writer
//! hardly more than a copy.

/// Tells the reader in front of a block that no line is kept (RFC 7541, section 6.3).
pub(in crate::http2) const NO_TABLE: u8 = 0x20;

/// Lines of the static table (RFC 7541, appendix A) that are told by their numbers, or whose names are.
const AUTHORITY: u8 = 1;
const METHOD: u8 = 2;
const PATH: u8 = 4;
const STATUS: u8 = 8;
const INDEXED: u8 = 0x80;

/// What a status is told by that stands in the static table.
const STATUSES: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];

/// Writes a line.
pub(in crate::http2) fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    // The bytes of both lengths are within this.
    out.reserve(name.len() + value.len() + 16);
    out.push(0);
    string(out, name.as_bytes());
    string(out, value);
}

/// Writes the pseudo-headers of a request.
pub(in crate::http2) fn request(out: &mut Vec<u8>, method: &str, is_tls: bool, authority: &[u8], path: &str) {
    match method {
        "GET" => out.push(INDEXED | METHOD),
        "POST" => out.push(INDEXED | (METHOD + 1)),
        _ => named(out, METHOD, method.as_bytes()),
    }
    out.push(INDEXED | if is_tls { 7 } else { 6 });
    named(out, AUTHORITY, authority);
    named(out, PATH, path.as_bytes());
}

/// Writes the pseudo-header of a response.
pub(in crate::http2) fn status(out: &mut Vec<u8>, status: http::StatusCode) {
    match STATUSES.iter().position(|known| *known == status.as_u16()) {
        Some(place) => out.push(INDEXED | (STATUS + place as u8)),
        None => named(out, STATUS, status.as_str().as_bytes()),
    }
}

/// Writes a line whose name has a number.
fn named(out: &mut Vec<u8>, name: u8, value: &[u8]) {
    out.push(name);
    string(out, value);
}

fn string(out: &mut Vec<u8>, string: &[u8]) {
    const MOST: usize = 0x7f;
    if string.len() < MOST {
        out.push(string.len() as u8);
    } else {
        out.push(MOST as u8);
        let mut rest = string.len() - MOST;
        while rest > 0x7f {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
    out.extend_from_slice(string);
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::http2::hpack::{
        decoder::Decoder,
        table::{Line, Name, Pseudo},
    };

    fn read(block: &[u8]) -> Vec<Line> {
        let mut lines = Vec::new();
        Decoder::new().decode(block, |line| lines.push(line.into_owned())).unwrap();
        lines
    }

    #[test]
    fn what_is_written_is_read_back() {
        for length in [0, 1, 126, 127, 128, 254, 255, 300, 16_510, 100_000] {
            let mut block = vec![NO_TABLE];
            let value = "x".repeat(length);
            line(&mut block, "x-h", value.as_bytes());
            let lines = read(&block);
            assert_eq!(lines[0].name, Name::Field("x-h".parse().unwrap()));
            assert_eq!(lines[0].value, value);
        }
        for (method, path) in [("GET", "/"), ("POST", "/a?b"), ("DELETE", "/c")] {
            let mut block = Vec::new();
            request(&mut block, method, method == "GET", b"a:1", path);
            let values: Vec<_> = read(&block).into_iter().map(|line| line.value).collect();
            let scheme = if method == "GET" { "https" } else { "http" };
            assert_eq!(values, [method, scheme, "a:1", path]);
        }
        for code in [200, 201, 204, 206, 304, 400, 404, 431, 500, 503] {
            let mut block = Vec::new();
            status(&mut block, StatusCode::from_u16(code).unwrap());
            let lines = read(&block);
            assert_eq!(lines[0].name, Name::Pseudo(Pseudo::Status));
            assert_eq!(lines[0].value, code.to_string());
        }
    }
}
