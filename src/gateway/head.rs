//! Heads of HTTP/1.1 (RFC 9112, sections 3 and 4): requests are parsed, responses are formatted.

use std::{
    cell::RefCell,
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, Uri, Version, header};
use httpdate::HttpDate;

use super::request_head::RequestHead;
use crate::{
    clock::log_micros,
    error::Kind,
    types::{
        fields::{Fields, write_line, write_number_line},
        framing::Head,
        hop_by_hop::options,
    },
};

/// The most options of `Connection`. Each costs a look at all lines, and nobody sends more than a few.
const MAX_OPTIONS: usize = 100;

/// The longest target that [`Uri`] takes, in bytes.
const MAX_TARGET: usize = u16::MAX as usize - 1;

/// The head of a request, and what it says about the connection.
pub(super) struct Received {
    pub(super) head: RequestHead,
    /// Whether the client sends further requests on the connection (RFC 9112, section 9.3).
    pub(super) keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body (RFC 9110, section 10.1.1).
    pub(super) expects_continue: bool,
}

/// Parses the head of a request, which the scanner took as `head`. Values are slices of `bytes`.
///
/// # Errors
/// The refusal.
pub(super) fn parse(bytes: &Bytes, head: &Head) -> Result<Received, Kind> {
    let (begin, end) = head.start_line;
    let line = &bytes[begin..end];
    let bad = Kind::BadRequest;
    let method_ends = line.iter().position(|byte| *byte == b' ').ok_or(bad)?;
    let (method, rest) = (&line[..method_ends], &line[method_ends + 1..]);
    let version = match rest.last_chunk() {
        Some(b" HTTP/1.1") => Version::HTTP_11,
        Some(b" HTTP/1.0") => Version::HTTP_10,
        _ => return Err(bad),
    };
    let target = &rest[..rest.len() - b" HTTP/1.1".len()];
    if target.len() > MAX_TARGET {
        return Err(Kind::HeadersTooLarge);
    }
    let method = Method::from_bytes(method).map_err(|_| bad)?;
    let uri = Uri::from_maybe_shared(bytes.slice_ref(target)).map_err(|_| bad)?;
    let fields = Fields::parse(bytes, head).map_err(|_| bad)?;
    let is_old = version == Version::HTTP_10;
    let (mut closes, mut keeps) = (false, false);
    for (number, option) in options(&fields).enumerate() {
        if number == MAX_OPTIONS {
            return Err(bad);
        }
        closes |= option.eq_ignore_ascii_case(b"close");
        keeps |= option.eq_ignore_ascii_case(b"keep-alive");
    }
    // `close` wins (RFC 9112, section 9.3).
    let keep_alive = !closes && (keeps || !is_old);
    let expects_continue = !is_old
        && fields
            .get(&header::EXPECT)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    Ok(Received { head: RequestHead { method, uri, version, fields }, keep_alive, expects_continue })
}

/// How the body of a response is delimited (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delimiter {
    /// There is no body, whatever the head says, and no length is added.
    Nothing,
    /// By a length.
    Length(u64),
    /// By chunks.
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Delimiter {
    /// Returns whether `value` is the length.
    fn is_length(self, value: &HeaderValue) -> bool {
        let Self::Length(length) = self else { return false };
        value.to_str().is_ok_and(|value| value.parse() == Ok(length))
    }
}

/// What the framing and the connection of a response need to know of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) is_old: bool,
    pub(super) to_head: bool,
}

/// Formats the head of a response. `more` are further lines, each with its end; `last` tells whether the connection ends after it.
pub(super) fn format(
    out: &mut Vec<u8>,
    asked: Asked,
    status: StatusCode,
    fields: &Fields,
    more: &[u8],
    delimiter: Delimiter,
    last: bool,
) {
    let switches = status == StatusCode::SWITCHING_PROTOCOLS;
    start(out, asked.is_old, status);
    // The length of what a GET would get is told as it is; a 204 has none (RFC 9110, section 8.6).
    let tells_length = asked.to_head && status != StatusCode::NO_CONTENT;
    let (mut has_date, mut has_length) = (false, false);
    for (name, value) in fields {
        match *name {
            header::CONTENT_LENGTH if tells_length || delimiter.is_length(value) => has_length = true,
            header::CONTENT_LENGTH | header::TRANSFER_ENCODING => continue,
            header::CONNECTION if !switches => continue,
            header::DATE => has_date = true,
            _ => {}
        }
        write_line(out, name.as_str(), value.as_bytes());
    }
    out.extend_from_slice(more);
    match delimiter {
        Delimiter::Length(length) if !has_length => {
            write_number_line(out, "content-length", length);
        }
        Delimiter::Chunked => write_line(out, "transfer-encoding", b"chunked"),
        Delimiter::Nothing | Delimiter::Length(_) | Delimiter::Close => {}
    }
    if last && !switches {
        write_line(out, "connection", b"close");
    } else if asked.is_old {
        write_line(out, "connection", b"keep-alive");
    }
    if !has_date {
        write_date(out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Formats an interim response (RFC 9110, section 15.2).
pub(super) fn interim(status: StatusCode, fields: &Fields) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    start(&mut out, false, status);
    // It has no content and no Content-Length (RFC 9110, section 8.6).
    for (name, value) in fields.iter().filter(|(name, _)| *name != header::CONTENT_LENGTH) {
        write_line(&mut out, name.as_str(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out
}

fn start(out: &mut Vec<u8>, is_old: bool, status: StatusCode) {
    if status == StatusCode::OK && !is_old {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\n");
        return;
    }
    out.extend_from_slice(if is_old { b"HTTP/1.0 " } else { b"HTTP/1.1 " });
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or("Error").as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes the `Date` of this second (RFC 9110, section 6.6.1).
fn write_date(out: &mut Vec<u8>) {
    thread_local! {
        /// The last line, and its second.
        static LAST: RefCell<(i64, Vec<u8>)> = const { RefCell::new((-1, Vec::new())) };
    }
    let second = log_micros().div_euclid(1_000_000);
    LAST.with_borrow_mut(|(last, written)| {
        if *last != second {
            let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(second.unsigned_abs()));
            written.clear();
            write_line(written, "date", date.to_string().as_bytes());
            *last = second;
        }
        out.extend_from_slice(written);
    });
}

/// Returns the `Date` of this second.
pub(super) fn date() -> HeaderValue {
    thread_local! {
        /// The last value, and its second.
        static LAST: RefCell<(i64, HeaderValue)> = const { RefCell::new((-1, HeaderValue::from_static(""))) };
    }
    let second = log_micros().div_euclid(1_000_000);
    LAST.with_borrow_mut(|(last, value)| {
        if *last != second {
            let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(second.unsigned_abs()));
            *value = HeaderValue::try_from(date.to_string()).unwrap_or(HeaderValue::from_static(""));
            *last = second;
        }
        value.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::framing::{HeadLimits, HeadScanner};

    fn request(text: &str) -> Result<Received, Kind> {
        let limits = HeadLimits { bytes: 100_000, count: 10 };
        let head = HeadScanner::default().request(text.as_bytes(), limits).unwrap().unwrap();
        parse(&Bytes::copy_from_slice(text.as_bytes()), &head)
    }

    fn formatted(
        asked: Asked,
        status: u16,
        lines: &[(&'static str, &'static str)],
        delimiter: Delimiter,
        last: bool,
    ) -> String {
        let mut headers = Fields::default();
        for (name, value) in lines {
            headers.append(name.parse().unwrap(), HeaderValue::from_static(value));
        }
        headers.append(header::DATE, HeaderValue::from_static("now"));
        let mut out = Vec::new();
        format(&mut out, asked, StatusCode::from_u16(status).unwrap(), &headers, b"", delimiter, last);
        String::from_utf8(out).unwrap().replace("date: now\r\n", "").replace("\r\n", "|")
    }

    const GET: Asked = Asked { is_old: false, to_head: false };
    const HEAD: Asked = Asked { is_old: false, to_head: true };
    const OLD: Asked = Asked { is_old: true, to_head: false };

    #[test]
    fn a_request_line_has_three_parts_and_one_blank_between_them() {
        let received = request("\r\nPUT /a?b HTTP/1.1\r\nHost: c\r\nExpect: 100-Continue\r\n\r\n").unwrap();
        let head = received.head;
        assert_eq!((head.method, head.uri.to_string()), (Method::PUT, "/a?b".to_owned()));
        assert!(
            head.fields.get(&header::HOST).unwrap() == "c"
                && received.keep_alive
                && received.expects_continue
        );
        for line in [
            "GET /",
            "GET",
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1 ",
            "GET / HTTP/2.0",
            "GET / http/1.1",
            " / HTTP/1.1",
            "G(T / HTTP/1.1",
            "GET HTTP/1.1",
            "GET /\t HTTP/1.1",
            "GET / x HTTP/1.1",
        ] {
            assert_eq!(request(&format!("{line}\r\n\r\n")).err(), Some(Kind::BadRequest), "{line}");
        }
        let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
        assert_eq!(request(&long).err(), Some(Kind::HeadersTooLarge));
    }

    #[test]
    fn whether_another_request_follows_depends_on_the_version_and_connection() {
        let follows = |version: &str, connection: &str| {
            request(&format!("GET / HTTP/{version}\r\n{connection}\r\n")).unwrap().keep_alive
        };
        assert!(follows("1.1", "") && !follows("1.0", ""));
        assert!(!follows("1.1", "Connection: x, Close\r\n") && follows("1.0", "Connection: Keep-Alive\r\n"));
        assert!(!follows("1.0", "Connection: close, keep-alive\r\n"), "what closes wins");
        let many = format!("GET / HTTP/1.1\r\nConnection: {}\r\n\r\n", "a,".repeat(100));
        assert_eq!(request(&many).err(), Some(Kind::BadRequest));
    }

    #[test]
    fn the_length_is_told_once_and_what_framed_it_before_is_not() {
        let lines = [("content-length", "5"), ("transfer-encoding", "x"), ("connection", "x")];
        assert_eq!(
            formatted(GET, 200, &lines, Delimiter::Length(5), false),
            "HTTP/1.1 200 OK|content-length: 5||"
        );
        assert_eq!(
            formatted(GET, 404, &lines, Delimiter::Length(6), true),
            "HTTP/1.1 404 Not Found|content-length: 6|connection: close||"
        );
        assert_eq!(
            formatted(GET, 200, &lines, Delimiter::Chunked, false),
            "HTTP/1.1 200 OK|transfer-encoding: chunked||"
        );
        assert_eq!(formatted(GET, 304, &lines, Delimiter::Nothing, false), "HTTP/1.1 304 Not Modified||");
        assert_eq!(
            formatted(HEAD, 200, &lines, Delimiter::Nothing, false),
            "HTTP/1.1 200 OK|content-length: 5||"
        );
        assert_eq!(
            formatted(HEAD, 200, &[], Delimiter::Length(7), false),
            "HTTP/1.1 200 OK|content-length: 7||"
        );
    }

    #[test]
    fn what_has_no_content_tells_no_length() {
        let lines = [("content-length", "5"), ("link", "</a>")];
        assert_eq!(
            formatted(HEAD, 204, &lines, Delimiter::Nothing, false),
            "HTTP/1.1 204 No Content|link: </a>||"
        );
        let mut fields = Fields::default();
        fields.append(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        assert_eq!(interim(StatusCode::EARLY_HINTS, &fields), b"HTTP/1.1 103 Early Hints\r\n\r\n");
    }

    #[test]
    fn a_client_of_http_1_0_is_answered_in_its_version_and_told_that_the_connection_goes_on() {
        assert_eq!(
            formatted(OLD, 200, &[], Delimiter::Length(1), false),
            "HTTP/1.0 200 OK|content-length: 1|connection: keep-alive||"
        );
        assert_eq!(formatted(OLD, 200, &[], Delimiter::Close, true), "HTTP/1.0 200 OK|connection: close||");
    }

    #[test]
    fn a_switch_keeps_the_headers_that_say_to_what() {
        let lines = [("connection", "upgrade"), ("upgrade", "websocket")];
        assert_eq!(
            formatted(GET, 101, &lines, Delimiter::Nothing, true),
            "HTTP/1.1 101 Switching Protocols|connection: upgrade|upgrade: websocket||"
        );
    }

    #[test]
    fn a_response_without_a_date_gets_one() {
        let mut out = Vec::new();
        format(&mut out, GET, StatusCode::OK, &Fields::default(), b"", Delimiter::Nothing, false);
        let text = String::from_utf8(out).unwrap();
        let date = text.split("date: ").nth(1).and_then(|rest| rest.split('\r').next()).unwrap();
        assert!(httpdate::parse_http_date(date).is_ok(), "{date}");
    }
}
