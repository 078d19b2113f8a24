//! Heads of HTTP/1.1: however they arrive they have one end and one framing, and another parser agrees.

use bolero::check;

use super::*;
use crate::fuzz_words::{spell, steered};

const WORDS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /a?b HTTP/1.1\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 204\r\n",
    b"\r\n",
    b"\n",
    b"\r",
    b"Host: a\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: ",
    b"chunked",
    b"gzip, ",
    b"identity",
    b"0",
    b"5",
    b"+",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:\tchunked \r\n",
    b" ",
    b"\t",
    b":",
    b",",
    b"X: y\r\n",
    b"content_length: 5\r\n",
    b"\0",
    b"\x0b",
    b"HTTP/1.0\r\n",
    b"Connection: close\r\n",
    b"\xa0",
];

const LIMITS: HeadLimits = HeadLimits { bytes: 2_048, count: 20 };

fn whole(bytes: &[u8], is_request: bool) -> Result<Option<Head>, HeadError> {
    let mut scanner = HeadScanner::default();
    if is_request { scanner.request(bytes, LIMITS) } else { scanner.response(bytes, LIMITS) }
}

#[test]
fn a_head_has_one_end_and_one_framing() {
    check!(name = "head").for_each(|input: &[u8]| {
        let Some(([steer, step], rest)) = steered(input) else { return };
        let (is_request, step) = (steer & 1 == 0, usize::from(step % 7) + 1);
        let bytes = spell(rest, WORDS);
        let at_once = whole(&bytes, is_request);
        // In pieces, the first result is the result.
        let mut scanner = HeadScanner::default();
        let mut end = 0;
        let in_pieces = loop {
            end = (end + step).min(bytes.len());
            let part = &bytes[..end];
            let found =
                if is_request { scanner.request(part, LIMITS) } else { scanner.response(part, LIMITS) };
            if found != Ok(None) || end == bytes.len() {
                break found;
            }
        };
        match (at_once, in_pieces) {
            (Ok(Some(one)), Ok(Some(other))) => {
                assert_eq!(
                    (one.length, one.framing, one.fields),
                    (other.length, other.framing, other.fields)
                );
                assert_eq!(
                    (one.status, one.old, one.start_line),
                    (other.status, other.old, other.start_line)
                );
            }
            // What is wrong further on is not seen before it comes.
            (Ok(None), Ok(None)) | (Err(_), Err(_)) => {}
            (one, other) => panic!("{one:?} and {other:?} of {:?}", String::from_utf8_lossy(&bytes)),
        }
        if let (Ok(Some(head)), true) = (at_once, is_request) {
            agrees(&bytes, &head);
        }
    });
}

/// Another parser finds the same end, and no other framing.
fn agrees(bytes: &[u8], head: &Head) {
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut lines);
    let text = String::from_utf8_lossy(&bytes[..head.length]).into_owned();
    match request.parse(&bytes[..head.length]) {
        Ok(httparse::Status::Complete(length)) => assert_eq!(length, head.length, "{text:?}"),
        // It is stricter about what stands in a request line and in names, which are parsed later here.
        Err(_) => return,
        Ok(httparse::Status::Partial) => panic!("not complete: {text:?}"),
    }
    assert_eq!(request.headers.len(), head.fields, "{text:?}");
    let named = |name: &str| {
        let lines = request.headers.iter().filter(move |line| line.name.eq_ignore_ascii_case(name));
        lines.map(|line| line.value.trim_ascii()).collect::<Vec<_>>()
    };
    let (lengths, codings) = (named("content-length"), named("transfer-encoding"));
    match head.framing {
        Framing::None => assert!(lengths.is_empty() && codings.is_empty(), "{text:?}"),
        Framing::Length(length) => {
            assert!(codings.is_empty(), "{text:?}");
            for told in lengths {
                let told: Option<u64> = std::str::from_utf8(told).ok().and_then(|told| told.parse().ok());
                assert_eq!(told, Some(length), "{text:?}");
            }
        }
        Framing::Chunked => {
            assert!(lengths.is_empty() && codings.len() == 1, "{text:?}");
            assert!(codings[0].eq_ignore_ascii_case(b"chunked"), "{text:?}");
        }
    }
}
