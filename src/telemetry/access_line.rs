//! The format of a line of the access log.

use std::{cell::Cell, time::Duration};

use time::OffsetDateTime;

use crate::types::with_digits;

/// One request. What does not apply is `None` or empty.
#[derive(Debug, Clone, Copy)]
pub struct AccessEntry<'a> {
    /// When the response ended, in microseconds since the Unix epoch.
    pub at: i64,
    /// The address of the client, behind trusted proxies.
    pub client: &'a [u8],
    /// The address of the socket's other end.
    pub peer: &'a [u8],
    /// `Host`.
    pub host: Option<&'a [u8]>,
    /// The method.
    pub method: &'a str,
    /// The path as it came, without its query.
    pub path: &'a [u8],
    /// The label of the route.
    pub route: &'a str,
    /// The status; 499 where the client left before there was one.
    pub status: u16,
    /// Such as `HTTP/1.1`.
    pub protocol: &'a str,
    /// From the request's head to the end of its response.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// The upstream that it was sent to.
    pub upstream: Option<UpstreamEntry<'a>>,
    /// The caller.
    pub user: Option<&'a [u8]>,
    /// The subject of the certificate that the client has shown, percent-encoded.
    pub client_subject: Option<&'a [u8]>,
    /// The request's id.
    pub request_id: &'a [u8],
}

/// The upstream of a request.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamEntry<'a> {
    /// Its name in the config.
    pub name: &'a str,
    /// Its server, if one was chosen.
    pub address: Option<&'a str>,
    /// From the request sent to the head of the response, if there was one.
    pub duration: Option<Duration>,
    /// Whether the response broke off.
    pub aborted: bool,
}

thread_local! {
    /// The second that was formatted last.
    static SECOND: Cell<(i64, [u8; 19])> = const { Cell::new((i64::MIN, [b'0'; 19])) };
}

/// A field's name, as it stands before its value in either format.
#[derive(Clone, Copy)]
struct Name {
    /// With the quotation mark of a text.
    json_text: &'static [u8],
    json: &'static [u8],
    text: &'static [u8],
}

macro_rules! name {
    ($name:literal) => {
        Name {
            json_text: concat!(",\"", $name, "\":\"").as_bytes(),
            json: concat!(",\"", $name, "\":").as_bytes(),
            text: concat!(" ", $name, "=").as_bytes(),
        }
    };
}

pub(super) fn write_json(out: &mut Vec<u8>, entry: &AccessEntry<'_>) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    timestamp(out, entry.at);
    out.extend_from_slice(b"\",\"level\":\"INFO\",\"message\":\"request\",\"target\":\"access\"");
    fields::<true>(out, entry);
    out.extend_from_slice(b"}\n");
}

pub(super) fn write_text(out: &mut Vec<u8>, entry: &AccessEntry<'_>) {
    timestamp(out, entry.at);
    out.extend_from_slice(b"  INFO access: request");
    fields::<false>(out, entry);
    out.push(b'\n');
}

#[inline(always)]
fn name<const JSON: bool>(out: &mut Vec<u8>, name: Name) {
    out.extend_from_slice(if JSON { name.json } else { name.text });
}

#[inline(always)]
fn number<const JSON: bool>(out: &mut Vec<u8>, of: Name, value: u64) {
    name::<JSON>(out, of);
    digits(out, value);
}

/// A text that needs no quotation in either format, because of how it was made.
#[inline(always)]
fn word<const JSON: bool>(out: &mut Vec<u8>, of: Name, value: &[u8]) {
    if JSON {
        out.extend_from_slice(of.json_text);
        out.extend_from_slice(value);
        out.push(b'"');
    } else {
        out.extend_from_slice(of.text);
        out.extend_from_slice(value);
    }
}

#[inline(always)]
fn text<const JSON: bool>(out: &mut Vec<u8>, of: Name, value: &[u8]) {
    let is_word = is_plain(value) && (JSON || !(value.is_empty() || value.contains(&b' ')));
    if is_word {
        word::<JSON>(out, of, value);
    } else {
        name::<JSON>(out, of);
        quoted(out, value);
    }
}

/// Writes the fields that apply, in their order, as JSON or for people. Which is known when this is compiled, so that names
/// are copied as constants.
fn fields<const JSON: bool>(out: &mut Vec<u8>, entry: &AccessEntry<'_>) {
    let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
    word::<JSON>(out, name!("client.address"), entry.client);
    word::<JSON>(out, name!("peer.address"), entry.peer);
    if let Some(host) = entry.host {
        text::<JSON>(out, name!("http.host"), host);
    }
    if !entry.method.is_empty() {
        word::<JSON>(out, name!("http.method"), entry.method.as_bytes());
    }
    if !entry.path.is_empty() {
        text::<JSON>(out, name!("http.path"), entry.path);
    }
    text::<JSON>(out, name!("http.route"), entry.route.as_bytes());
    number::<JSON>(out, name!("http.status"), entry.status.into());
    if !entry.protocol.is_empty() {
        word::<JSON>(out, name!("http.protocol"), entry.protocol.as_bytes());
    }
    number::<JSON>(out, name!("duration_us"), micros(entry.duration));
    number::<JSON>(out, name!("request.bytes"), entry.request_bytes);
    number::<JSON>(out, name!("response.bytes"), entry.response_bytes);
    if let Some(user_agent) = entry.user_agent {
        text::<JSON>(out, name!("user_agent"), user_agent);
    }
    if let Some(upstream) = &entry.upstream {
        text::<JSON>(out, name!("upstream.name"), upstream.name.as_bytes());
        if let Some(address) = upstream.address {
            text::<JSON>(out, name!("upstream.address"), address.as_bytes());
        }
        if let Some(duration) = upstream.duration {
            number::<JSON>(out, name!("upstream.duration_us"), micros(duration));
        }
        if upstream.aborted {
            name::<JSON>(out, name!("upstream.aborted"));
            out.extend_from_slice(b"true");
        }
    }
    if let Some(user) = entry.user {
        text::<JSON>(out, name!("user.id"), user);
    }
    if let Some(subject) = entry.client_subject {
        text::<JSON>(out, name!("tls.client.subject"), subject);
    }
    word::<JSON>(out, name!("request.id"), entry.request_id);
}

fn digits(out: &mut Vec<u8>, number: u64) {
    with_digits(number, |digits| out.extend_from_slice(digits));
}

/// How much of a text is looked at as one: compilers make one comparison of sixteen bytes.
const CHUNK: usize = 16;

/// Whether a text may stand between quotes as it is.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    let is_plain_chunk = |chunk: &[u8; CHUNK]| {
        chunk.iter().fold(true, |plain, &byte| {
            plain & (b' '..=b'~').contains(&byte) & (byte != b'"') & (byte != b'\\')
        })
    };
    let (chunks, rest) = text.as_chunks();
    if !chunks.iter().all(is_plain_chunk) {
        return false;
    }
    // The last bytes overlap with those before, or are padded with plain ones.
    match text.last_chunk() {
        Some(last) => is_plain_chunk(last),
        None => {
            let mut padded = [b' '; CHUNK];
            padded[..rest.len()].copy_from_slice(rest);
            is_plain_chunk(&padded)
        }
    }
}

/// A JSON string (RFC 8259, section 7). Bytes that are no UTF-8 stand as characters of their value.
fn quoted(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    if is_plain(text) {
        out.extend_from_slice(text);
    } else {
        let utf8 = std::str::from_utf8(text).is_ok();
        for (at, &byte) in text.iter().enumerate() {
            // U+0080 to U+009F, which some terminals obey.
            let control = utf8 && byte == 0xc2 && text.get(at + 1).is_some_and(|next| *next < 0xa0);
            let controlled = utf8 && byte < 0xa0 && at > 0 && text[at - 1] == 0xc2;
            match byte {
                _ if control => {}
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                b' '..=0x7e => out.push(byte),
                0x80.. if utf8 && !controlled => out.push(byte),
                _ => {
                    let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
                    out.extend_from_slice(&[b'\\', b'u', b'0', b'0', digit(byte >> 4), digit(byte)]);
                }
            }
        }
    }
    out.push(b'"');
}

/// RFC 3339, to the microsecond, in UTC.
fn timestamp(out: &mut Vec<u8>, at: i64) {
    let (second, micros) = (at.div_euclid(1_000_000), at.rem_euclid(1_000_000));
    let (known, mut text) = SECOND.get();
    if known != second {
        if let Ok(date) = OffsetDateTime::from_unix_timestamp(second) {
            let two = |number: u8| [b'0' + number / 10, b'0' + number % 10];
            let year = u16::try_from(date.year()).unwrap_or_default();
            text[0..2].copy_from_slice(&two((year / 100) as u8));
            text[2..4].copy_from_slice(&two((year % 100) as u8));
            text[5..7].copy_from_slice(&two(date.month().into()));
            text[8..10].copy_from_slice(&two(date.day()));
            text[11..13].copy_from_slice(&two(date.hour()));
            text[14..16].copy_from_slice(&two(date.minute()));
            text[17..19].copy_from_slice(&two(date.second()));
            for (at, mark) in [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')] {
                text[at] = mark;
            }
        }
        SECOND.set((second, text));
    }
    out.extend_from_slice(&text);
    out.push(b'.');
    let mut left = micros;
    let mut fraction = [b'0'; 6];
    for digit in fraction.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    out.extend_from_slice(&fraction);
    out.push(b'Z');
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::telemetry) fn entry() -> AccessEntry<'static> {
        AccessEntry {
            at: 1_700_000_000_000_042,
            client: b"192.0.2.1",
            peer: b"10.0.0.1",
            host: Some(b"a.example"),
            method: "GET",
            path: b"/x\"y",
            route: "/x/**",
            status: 200,
            protocol: "HTTP/1.1",
            duration: Duration::from_micros(1_500),
            request_bytes: 0,
            response_bytes: 12,
            user_agent: Some(b"curl\x80\x01"),
            upstream: Some(UpstreamEntry {
                name: "orders",
                address: Some("10.0.0.5:9000"),
                duration: Some(Duration::from_micros(900)),
                aborted: false,
            }),
            user: None,
            client_subject: None,
            request_id: b"id",
        }
    }

    #[test]
    fn a_line_is_one_json_object_whatever_a_client_sends() {
        let mut line = Vec::new();
        write_json(&mut line, &entry());
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let line: serde_json::Value = serde_json::from_slice(&line).unwrap();
        assert_eq!(line["timestamp"], "2023-11-14T22:13:20.000042Z");
        assert_eq!(line["http.path"], "/x\"y");
        assert_eq!(line["user_agent"], "curl\u{80}\u{1}");
        let mut text = Vec::new();
        quoted(&mut text, "\u{9b}31m \u{e9}\u{20ac}\u{a0}".as_bytes());
        assert_eq!(String::from_utf8(text).unwrap(), "\"\\u009b31m \u{e9}\u{20ac}\u{a0}\"");
        assert_eq!(line["duration_us"], 1_500);
        assert_eq!(line["upstream.duration_us"], 900);
        assert!(line.get("user.id").is_none());
    }

    #[test]
    fn a_line_for_people_quotes_what_is_no_plain_word() {
        let mut line = Vec::new();
        write_text(&mut line, &entry());
        let expected = r#"2023-11-14T22:13:20.000042Z  INFO access: request client.address=192.0.2.1 peer.address=10.0.0.1 http.host=a.example http.method=GET http.path="/x\"y" http.route=/x/** http.status=200 http.protocol=HTTP/1.1 duration_us=1500 request.bytes=0 response.bytes=12 user_agent="curl\u0080\u0001" upstream.name=orders upstream.address=10.0.0.5:9000 upstream.duration_us=900 request.id=id"#;
        assert_eq!(String::from_utf8(line).unwrap().trim_end(), expected);
    }
}
