//! HTTP/2 frame by frame (RFC 9113), as clients speak it that mean no good.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::harness::{Client, Gateway, Protocol, Settings, Upstream, eventually, ok, protocol::USUAL};

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const ACK: u8 = 1;

/// Error codes (RFC 9113, section 7).
const PROTOCOL_ERROR: u32 = 1;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or a GOAWAY.
    fn code(&self) -> u32 {
        let begin = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[begin..begin + 4].try_into().unwrap())
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = payload.len() as u32;
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Header lines without compression (RFC 7541, section 6.2.2), each shorter than 127 bytes.
fn lines(lines: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in lines {
        block.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            block.push(text.len() as u8);
            block.extend(text.as_bytes());
        }
    }
    block
}

/// The pseudo-headers of a GET, and further lines.
fn get(path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    lines(&[&pseudo, more].concat())
}

/// A connection whose frames are written and read one by one.
struct Raw(TcpStream);

impl Raw {
    fn connect(gateway: &Gateway) -> Self {
        let mut socket = TcpStream::connect(gateway.address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        socket.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
        let mut raw = Self(socket);
        raw.send(&frame(SETTINGS, 0, 0, &[]));
        raw
    }

    /// What the other side has closed already is for reading to find out.
    fn send(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.0.write_all(bytes);
        self
    }

    /// A GET with these lines, whole.
    fn ask(&mut self, stream: u32, block: &[u8]) -> &mut Self {
        self.send(&frame(HEADERS, END_HEADERS | END_STREAM, stream, block))
    }

    /// The next frame, or none at the end of the connection.
    fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5] & 127, head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of these kinds.
    #[track_caller]
    fn next_of(&mut self, kinds: &[u8]) -> Frame {
        loop {
            let frame = self.next().expect("a frame, but the connection has ended");
            if kinds.contains(&frame.kind) {
                return frame;
            }
        }
    }

    /// The status of the response on a stream: the first byte of its block, in the static table where it is there.
    #[track_caller]
    fn status(&mut self, stream: u32) -> u16 {
        loop {
            let frame = self.next_of(&[HEADERS, RST_STREAM, GOAWAY]);
            if frame.kind == RST_STREAM && frame.stream != stream {
                // What was left of a request that was answered before its end.
                continue;
            }
            assert_eq!((frame.kind, frame.stream), (HEADERS, stream), "{frame:?}");
            let indexed = [200, 204, 206, 304, 400, 404, 500];
            return match frame.payload[0] {
                index @ 0x88..=0x8e => indexed[usize::from(index - 0x88)],
                // A literal with the name of entry 8, perhaps in Huffman's code: digits are 5 or 6 bits.
                _ => digits(&frame.payload),
            };
        }
    }

    /// Whether the connection still serves.
    #[track_caller]
    fn still_serves(&mut self, stream: u32) {
        self.ask(stream, &get("/public/after", &[]));
        assert_eq!(self.status(stream), 200);
    }

    /// The code of the GOAWAY by which the connection ends.
    #[track_caller]
    fn goes_away(&mut self) -> u32 {
        let code = self.next_of(&[GOAWAY]).code();
        while self.next().is_some() {}
        code
    }
}

/// The status in a literal value of a `:status` line.
fn digits(block: &[u8]) -> u16 {
    let at = block.iter().position(|byte| matches!(byte, 0x48 | 0x08 | 0x18)).expect("a status") + 1;
    let (huffman, length) = (block[at] & 0x80 != 0, usize::from(block[at] & 0x7f));
    let bytes = &block[at + 1..at + 1 + length];
    if !huffman {
        return std::str::from_utf8(bytes).unwrap().parse().unwrap();
    }
    let bits: Vec<u8> =
        bytes.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1)).collect();
    let number = |bits: &[u8]| bits.iter().fold(0_u16, |number, bit| number << 1 | u16::from(*bit));
    // RFC 7541, appendix B: 0 to 2 are 00000 to 00010, 3 to 9 are 011001 to 011111.
    let (mut at, mut status) = (0, 0);
    for _ in 0..3 {
        let short = number(&bits[at..at + 5]);
        let (digit, length) =
            if short < 3 { (short, 5) } else { (number(&bits[at..at + 6]) - 0b011001 + 3, 6) };
        status = status * 10 + digit;
        at += length;
    }
    status
}

fn start() -> (Gateway, Upstream) {
    start_with("")
}

fn start_with(lines: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::start();
    let settings = Settings { protocol: Protocol::H2c, ..Settings::default() }.extra(lines);
    (Gateway::start(&upstream, settings), upstream)
}

#[track_caller]
fn others_are_unaffected(gateway: &Gateway) {
    let response = gateway.get("/public/other", None);
    assert_eq!((response.status, response.text().as_str()), (200, "/public/other"));
}

#[test]
fn http_1_1_and_http_2_are_told_apart_by_their_first_bytes() {
    let (gateway, upstream) = start();
    let mut one = Client::connect(gateway.address);
    assert_eq!(one.send("GET /public/1 HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 200);
    assert_eq!(one.send("GET /public/2 HTTP/1.1\r\nHost: a\r\n\r\n").response().status, 200);
    let mut trickled = Client::connect(gateway.address);
    for byte in "POST /public/3 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".bytes() {
        trickled.send([byte]);
    }
    assert_eq!(trickled.response().status, 200);
    others_are_unaffected(&gateway);
    let seen = upstream.last();
    assert_eq!(seen.header("Via"), Some("2.0 authgate"));
    assert_eq!((seen.header("Host"), seen.header("X-Forwarded-Proto")), (Some("localhost"), Some("http")));
    let line = "\"http.protocol\":\"HTTP/2\"";
    eventually("the access line says so", || gateway.log().contains(line).then_some(()));
    // Without `http2` it is no request.
    let plain = Gateway::alone(Settings::default());
    let mut client = Client::connect(plain.address);
    assert_eq!(client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").response().status, 400);
}

#[test]
fn a_malformed_request_is_a_stream_error_and_the_connection_goes_on() {
    let (gateway, upstream) = start();
    let mut raw = Raw::connect(&gateway);
    let method = (":method", "GET");
    let (scheme, authority, path) = ((":scheme", "http"), (":authority", "a"), (":path", "/public/x"));
    let blocks: &[&[(&str, &str)]] = &[
        &[method, scheme, authority, path, ("connection", "close")],
        &[method, scheme, authority, path, ("transfer-encoding", "chunked")],
        &[method, scheme, authority, path, ("keep-alive", "1")],
        &[method, scheme, authority, path, ("proxy-connection", "close")],
        &[method, scheme, authority, path, ("upgrade", "websocket")],
        &[method, scheme, authority, path, ("te", "gzip")],
        &[method, scheme, authority, ("x", "1"), path],
        &[method, scheme, authority, path, path],
        &[method, method, scheme, authority, path],
        &[method, scheme, authority, authority, path],
        &[method, scheme, authority, path, (":status", "200")],
        &[scheme, authority, path],
        &[method, scheme, authority],
        &[method, authority, path],
        &[method, scheme, authority, (":path", "")],
        &[method, scheme, authority, path, ("content-length", "5")],
        &[method, scheme, authority, path, ("content-length", "x")],
        &[method, scheme, authority, path, (":protocol", "websocket")],
        &[method, scheme, authority, path, ("X-Upper", "1")],
        &[method, scheme, authority, path, ("x", "a\r\nb: c")],
        &[method, scheme, authority, path, ("x", "a\nb")],
        &[method, scheme, authority, path, ("x", "a\0b")],
        &[method, scheme, authority, path, ("x", " a")],
        &[method, scheme, authority, path, ("x y", "1")],
        &[method, scheme, authority, path, ("", "1")],
        &[method, scheme, authority, path, (":colour", "red")],
        &[method, scheme, authority, (":path", "public/x")],
        &[method, scheme, authority, (":path", "*")],
        &[("method", "GET"), method, scheme, authority, path],
    ];
    for (index, block) in blocks.iter().enumerate() {
        let stream = 1 + 4 * index as u32;
        raw.ask(stream, &lines(block));
        let answer = raw.next_of(&[HEADERS, RST_STREAM, GOAWAY]);
        assert!(
            answer.stream == stream && (answer.kind == RST_STREAM || answer.payload[0] == 0x8c),
            "{block:?}: {answer:?}"
        );
        raw.still_serves(stream + 2);
    }
    assert!(upstream.seen().iter().all(|seen| seen.target == "/public/after"));
}

#[test]
fn what_names_two_hosts_or_none_or_asks_for_a_tunnel_is_400() {
    let (gateway, upstream) = start();
    let mut raw = Raw::connect(&gateway);
    let pseudo = [(":method", "GET"), (":scheme", "http"), (":path", "/public/x")];
    let with = |more: &[(&str, &str)]| lines(&[&pseudo, more].concat());
    for (stream, block) in [
        (1, get("/public/x", &[("host", "b")])),
        (3, get("/public/x", &[("host", "a"), ("host", "a")])),
        (5, with(&[])),
        (7, with(&[("host", "a b")])),
        (9, lines(&[(":method", "CONNECT"), (":authority", "a:443")])),
        (11, get("/public/%2e%2e/x", &[])),
        (13, get("/public/x", &[("content-length", "0"), ("content-length", "0")])),
        (15, get("/public/x#/../admin", &[])),
        (17, get("/public/x?a#b", &[])),
    ] {
        raw.ask(stream, &block);
        assert_eq!(raw.status(stream), 400, "{stream}");
    }
    raw.ask(19, &get("/public/x", &[("host", "A")]));
    assert_eq!(raw.status(19), 200);
    raw.ask(21, &with(&[("host", "b")]));
    assert_eq!(raw.status(21), 200);
    let seen: Vec<_> = upstream.seen().iter().map(|seen| seen.header("Host").unwrap().to_owned()).collect();
    assert_eq!(seen, ["A", "b"]);
}

#[test]
fn a_body_unlike_its_length_never_becomes_a_whole_request() {
    let (gateway, upstream) = start();
    let mut raw = Raw::connect(&gateway);
    let post = |length: &str| {
        let pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/public/x")];
        lines(&[&pseudo[..], &[("content-length", length)]].concat())
    };
    for (stream, length, body) in [(1, "5", "hello, world"), (3, "50", "hello")] {
        raw.send(&frame(HEADERS, END_HEADERS, stream, &post(length)));
        raw.send(&frame(DATA, END_STREAM, stream, body.as_bytes()));
        let answer = raw.next_of(&[HEADERS, RST_STREAM, GOAWAY]);
        assert!(answer.stream == stream && answer.kind != GOAWAY, "{answer:?}");
        assert!(answer.kind == RST_STREAM || answer.payload[0] == 0x8c, "{answer:?}");
    }
    // One that is complete but for its end may still be longer.
    raw.send(&frame(HEADERS, END_HEADERS, 5, &post("5")));
    raw.send(&frame(DATA, 0, 5, b"hello"));
    raw.still_serves(7);
    raw.send(&frame(DATA, 0, 5, b"!"));
    assert_eq!(raw.next_of(&[HEADERS, RST_STREAM]).kind, RST_STREAM);
    raw.still_serves(9);
    let seen = upstream.seen();
    assert!(seen.iter().all(|seen| !seen.complete || seen.target == "/public/after"), "{seen:?}");
}

#[test]
fn cookies_are_joined_and_trailers_are_dropped() {
    let (gateway, upstream) = start();
    let mut raw = Raw::connect(&gateway);
    raw.ask(1, &get("/public/x", &[("cookie", "a=1"), ("cookie", "b=2"), ("te", "trailers")]));
    assert_eq!(raw.status(1), 200);
    assert_eq!(upstream.last().header("Cookie"), Some("a=1; b=2"));
    let pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/public/x")];
    raw.send(&frame(HEADERS, END_HEADERS, 3, &lines(&pseudo)));
    raw.send(&frame(DATA, 0, 3, b"body"));
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &lines(&[("x-user-id", "1"), ("x-t", "2")])));
    assert_eq!(raw.status(3), 200);
    let seen = upstream.last();
    assert_eq!(
        (seen.body.as_slice(), seen.header("X-User-Id"), seen.header("X-T")),
        (&b"body"[..], None, None)
    );
    // Pseudo-headers among them are a stream error.
    raw.send(&frame(HEADERS, END_HEADERS, 5, &lines(&pseudo)));
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 5, &lines(&[(":path", "/admin/x")])));
    let answer = raw.next_of(&[HEADERS, RST_STREAM, GOAWAY]);
    assert_eq!((answer.kind, answer.stream, answer.code()), (RST_STREAM, 5, PROTOCOL_ERROR));
    raw.still_serves(7);
    assert!(upstream.seen().iter().all(|seen| seen.target.starts_with("/public/")));
}

#[test]
fn large_heads_are_431_or_end_the_connection() {
    let (gateway, upstream) = start();
    let value = "x".repeat(100);
    let many: Vec<(&str, &str)> = (0..101).map(|_| ("x-h", value.as_str())).collect();
    let mut raw = Raw::connect(&gateway);
    raw.ask(1, &get("/public/x", &many));
    assert_eq!(raw.status(1), 431);
    raw.still_serves(3);
    // Lines that cost a byte each, and more in memory.
    let mut short = get("/public/x", &[]);
    short.extend([0x80 | 21; 200]);
    raw.ask(5, &short);
    assert_eq!(raw.status(5), 431);
    let post =
        lines(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/public/x")]);
    raw.send(&frame(HEADERS, END_HEADERS, 7, &post));
    raw.send(&frame(HEADERS, END_HEADERS | END_STREAM, 7, &[0x80 | 21; 200]));
    let answer = raw.next_of(&[HEADERS, RST_STREAM, GOAWAY]);
    assert_eq!((answer.kind, answer.stream), (RST_STREAM, 7));
    raw.still_serves(9);
    // A bomb: one line in the dynamic table, and thousands of references to it (CVE-2026-49975).
    let mut bomb = get("/public/x", &[]);
    bomb.extend([0x40, 1, b'b', 0x7f, 0x81, 0x1e]);
    bomb.extend(vec![b'x'; 4_000]);
    let begin = bomb.len();
    bomb.extend(vec![0xbe; 16_000 - begin]);
    let memory = gateway.memory();
    let mut raw = Raw::connect(&gateway);
    raw.ask(1, &bomb);
    let answer = raw.next_of(&[HEADERS, RST_STREAM, GOAWAY]);
    assert!(answer.kind != HEADERS || digits(&answer.payload) == 431, "{answer:?}");
    assert!(gateway.memory() < memory + (16 << 20));
    others_are_unaffected(&gateway);
    assert!(upstream.seen().iter().all(|seen| seen.header("x-h").is_none()));
}

#[test]
fn endless_and_interleaved_continuations_end_the_connection() {
    let (gateway, _upstream) = start();
    let mut raw = Raw::connect(&gateway);
    raw.send(&frame(HEADERS, END_STREAM, 1, &get("/public/x", &[])));
    for _ in 0..20_000 {
        raw.send(&frame(CONTINUATION, 0, 1, &lines(&[("x-h", "1")])));
    }
    assert_eq!(raw.goes_away(), ENHANCE_YOUR_CALM);
    let mut raw = Raw::connect(&gateway);
    raw.send(&frame(HEADERS, END_STREAM, 1, &get("/public/x", &[])));
    raw.send(&frame(PING, 0, 0, &[0; 8]));
    assert_eq!(raw.goes_away(), PROTOCOL_ERROR);
    others_are_unaffected(&gateway);
}

#[test]
fn frames_that_cost_nothing_are_counted_and_too_many_end_the_connection() {
    let (gateway, _upstream) = start();
    let post =
        lines(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/public/x")]);
    let open = frame(HEADERS, END_HEADERS, 1, &post);
    let gone = [open.clone(), frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes())].concat();
    for (kind, first, flood) in [
        ("settings", vec![], frame(SETTINGS, 0, 0, &[])),
        ("pings", vec![], frame(PING, 0, 0, &[0; 8])),
        ("empty", open.clone(), frame(DATA, 0, 1, &[])),
        ("empty", open.clone(), frame(DATA, PADDED, 1, &[1, 0])),
        ("others", gone.clone(), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("others", open.clone(), frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1])),
        ("others", vec![], frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("others", vec![], frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 9])),
        ("others", vec![], frame(200, 0, 0, &[])),
    ] {
        let mut raw = Raw::connect(&gateway);
        raw.send(&first);
        let mut reading = Raw(raw.0.try_clone().unwrap());
        let reader = std::thread::spawn(move || reading.goes_away());
        for _ in 0..200 {
            raw.send(&flood.repeat(100));
        }
        assert_eq!(reader.join().unwrap(), ENHANCE_YOUR_CALM, "{kind}");
    }
    let counted = |kind: &str| {
        gateway.metric(&format!("authgate_http2_floods_total{{kind=\"{kind}\"}}")).unwrap_or_default()
    };
    eventually("they are counted", || {
        let sum: f64 = ["settings", "pings", "empty", "others", "frames"].map(counted).iter().sum();
        (sum == 9.0).then_some(())
    });
    others_are_unaffected(&gateway);
}

#[test]
fn header_lists_that_are_too_large_are_counted_and_too_many_end_the_connection() {
    let (gateway, upstream) = start();
    let mut bomb = get("/public/x", &[]);
    bomb.extend([0x40, 1, b'b', 0x7f, 0x81, 0x1e]);
    bomb.extend(vec![b'x'; 4_000]);
    bomb.extend(vec![0xbe; 200]);
    let mut raw = Raw::connect(&gateway);
    let mut reading = Raw(raw.0.try_clone().unwrap());
    let reader = std::thread::spawn(move || reading.goes_away());
    for index in 0..2_000 {
        raw.ask(1 + 2 * index, &bomb);
    }
    assert_eq!(reader.join().unwrap(), ENHANCE_YOUR_CALM);
    let counted = || gateway.metric("authgate_http2_floods_total{kind=\"header_lists\"}");
    eventually("it is counted", || (counted() == Some(1.0)).then_some(()));
    others_are_unaffected(&gateway);
    assert!(upstream.seen().iter().all(|seen| seen.header("b").is_none()));
}

#[test]
fn rapid_resets_of_either_side_end_the_connection() {
    let (gateway, upstream) = start_with("limits: {http2: {resets: 50 per 1m}}\n");
    let mut raw = Raw::connect(&gateway);
    let mut reading = Raw(raw.0.try_clone().unwrap());
    let reader = std::thread::spawn(move || reading.goes_away());
    for index in 0..5_000 {
        let stream = 1 + 2 * index;
        raw.ask(stream, &get("/public/x", &[]));
        raw.send(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    assert_eq!(reader.join().unwrap(), ENHANCE_YOUR_CALM);
    assert!(upstream.seen().len() < 100, "{}", upstream.seen().len());
    // A client that makes the server reset its streams (CVE-2025-8671).
    let mut raw = Raw::connect(&gateway);
    let mut reading = Raw(raw.0.try_clone().unwrap());
    let reader = std::thread::spawn(move || reading.goes_away());
    for index in 0..5_000 {
        let stream = 1 + 2 * index;
        raw.ask(stream, &get("/public/x", &[]));
        // The window grows beyond what there is.
        raw.send(&frame(WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes()));
    }
    assert_eq!(reader.join().unwrap(), ENHANCE_YOUR_CALM);
    others_are_unaffected(&gateway);
    // Who gives up now and then is served on.
    let mut raw = Raw::connect(&gateway);
    for index in 0..20 {
        let stream = 1 + 4 * index;
        raw.send(&frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()).repeat(0));
        raw.still_serves(stream);
    }
}

#[test]
fn a_cut_resets_its_stream_at_once_although_its_window_is_closed_and_no_other() {
    let big = "x".repeat(1 << 20);
    let upstream = Upstream::answering(move |_| ok(&big));
    let settings = Settings { protocol: Protocol::H2c, ..Settings::default() };
    let gateway = Gateway::start(&upstream, settings);
    let (alice, bob) = (gateway.token("alice"), gateway.token("bob"));
    let mut raw = Raw::connect(&gateway);
    // The window of the connection is wide open, those of the streams are not.
    raw.send(&frame(WINDOW_UPDATE, 0, 0, &0x3fff_0000_u32.to_be_bytes()));
    raw.ask(1, &authorized("/api/x", &alice));
    raw.ask(3, &authorized("/api/x", &bob));
    let mut received = [0; 4];
    while received[1] < 65_535 || received[3] < 65_535 {
        let frame = raw.next_of(&[DATA, RST_STREAM, GOAWAY]);
        assert_eq!(frame.kind, DATA, "{frame:?}");
        received[frame.stream as usize] += frame.payload.len();
    }
    eventually("both are watched", || (gateway.metric("authgate_live_streams") == Some(2.0)).then_some(()));
    let begun = Instant::now();
    assert_eq!(gateway.logout(&alice).status, 200);
    let reset = raw.next_of(&[RST_STREAM, GOAWAY]);
    assert_eq!((reset.kind, reset.stream, reset.code()), (RST_STREAM, 1, CANCEL));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    raw.send(&frame(WINDOW_UPDATE, 0, 3, &0x3fff_0000_u32.to_be_bytes()));
    while received[3] < 1 << 20 {
        let frame = raw.next_of(&[DATA, RST_STREAM, GOAWAY]);
        assert_eq!((frame.kind, frame.stream), (DATA, 3), "{frame:?}");
        received[3] += frame.payload.len();
    }
}

/// The line of a bearer token.
fn bearer(token: &str) -> Vec<u8> {
    let value = format!("Bearer {token}");
    let mut block = vec![0, 13];
    block.extend(b"authorization");
    // A length of seven bits and more (RFC 7541, section 5.1).
    let rest = value.len() - 127;
    block.extend([127, (rest & 127) as u8 | 128, (rest >> 7) as u8]);
    block.extend(value.as_bytes());
    block
}

/// A GET by a signed-in user.
fn authorized(path: &str, token: &str) -> Vec<u8> {
    [get(path, &[]), bearer(token)].concat()
}

#[test]
fn a_cut_resets_a_stream_that_never_had_any_room() {
    let upstream = Upstream::answering(|_| ok("protected"));
    let gateway = Gateway::start(&upstream, Settings { protocol: Protocol::H2c, ..Settings::default() });
    let token = gateway.token("alice");
    let mut raw = Raw::connect(&gateway);
    raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    raw.ask(1, &authorized("/api/x", &token));
    assert_eq!(raw.status(1), 200);
    eventually("it is watched", || (gateway.metric("authgate_live_streams") == Some(1.0)).then_some(()));
    assert_eq!(gateway.logout(&token).status, 200);
    let reset = raw.next_of(&[DATA, RST_STREAM, GOAWAY]);
    assert_eq!((reset.kind, reset.stream, reset.code()), (RST_STREAM, 1, CANCEL));
}

#[test]
fn cuts_of_the_gateway_are_no_flood_of_the_client() {
    let upstream = Upstream::with(|_, socket| {
        let _ = socket.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbegun");
        let _ = socket.read(&mut [0]);
        false
    });
    let settings = Settings { protocol: Protocol::H2c, ..Settings::default() };
    let gateway = Gateway::start(&upstream, settings.extra("limits: {http2: {resets: 5 per 1m}}\n"));
    let token = gateway.token("alice");
    let mut raw = Raw::connect(&gateway);
    for index in 0..10 {
        raw.ask(1 + 2 * index, &authorized("/api/x", &token));
    }
    eventually("all are watched", || (gateway.metric("authgate_live_streams") == Some(10.0)).then_some(()));
    assert_eq!(gateway.logout(&token).status, 200);
    for _ in 0..10 {
        let reset = raw.next_of(&[RST_STREAM, GOAWAY]);
        assert_eq!((reset.kind, reset.code()), (RST_STREAM, CANCEL), "{reset:?}");
    }
    raw.ask(101, &get("/public/x", &[]));
    assert_eq!(raw.status(101), 200);
}

#[test]
fn a_client_that_measures_the_way_is_no_flood() {
    let (gateway, _upstream) = start();
    let mut raw = Raw::connect(&gateway);
    for round in 0..50 {
        for index in 0..50 {
            let stream = 1 + 2 * (50 * round + index);
            raw.ask(stream, &get("/public/x", &[]));
        }
        for _ in 0..50 {
            assert_ne!(raw.next_of(&[HEADERS, GOAWAY]).kind, GOAWAY, "round {round}");
            // As gRPC does for what it receives.
            raw.send(&frame(PING, 0, 0, &[0; 8]));
        }
    }
}

#[test]
fn a_request_that_was_given_up_before_it_was_looked_at_reaches_nobody() {
    let (gateway, upstream) = start();
    let mut raw = Raw::connect(&gateway);
    raw.still_serves(1);
    let delete =
        lines(&[(":method", "DELETE"), (":scheme", "http"), (":authority", "a"), (":path", "/public/x")]);
    let pairs: Vec<u8> = (0..20)
        .flat_map(|index| {
            let stream = 3 + 2 * index;
            let ask = frame(HEADERS, END_HEADERS | END_STREAM, stream, &delete);
            [ask, frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())].concat()
        })
        .collect();
    raw.send(&pairs);
    raw.still_serves(101);
    assert_eq!(upstream.seen().iter().filter(|seen| seen.method == "DELETE").count(), 0);
}

#[test]
fn a_window_that_settings_open_lets_a_stream_go_on() {
    let (gateway, _upstream) = start();
    let mut raw = Raw::connect(&gateway);
    let window = |size: u16| frame(SETTINGS, 0, 0, &[&[0, 4, 0, 0][..], &size.to_be_bytes()].concat());
    raw.send(&window(0));
    raw.ask(1, &get("/public/x", &[]));
    assert_eq!(raw.status(1), 200);
    raw.send(&window(1_000));
    assert_eq!(raw.next_of(&[DATA]).payload, b"/public/x");
}

#[test]
fn a_client_without_room_does_not_hold_the_server() {
    let upstream = Upstream::answering(|_| ok(&"x".repeat(60_000)));
    let settings = Settings {
        protocol: Protocol::H2c,
        upstream: ", max_connections: 1, max_wait: 2s".to_owned(),
        ..Settings::default()
    };
    let gateway = Gateway::start(&upstream, settings);
    let mut raw = Raw::connect(&gateway);
    raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    for stream in [1, 3, 5] {
        raw.ask(stream, &get("/public/x", &[]));
        assert_eq!(raw.status(stream), 200);
    }
}

#[test]
fn an_empty_body_is_no_body_that_is_waited_for() {
    let upstream = Upstream::with(|_, socket| {
        std::thread::sleep(Duration::from_millis(900));
        socket.write_all(&ok("done")).is_ok()
    });
    let settings = Settings { protocol: Protocol::H2c, ..Settings::default() };
    let gateway = Gateway::start(&upstream, settings.extra("limits: {body_idle_timeout: 300ms}\n"));
    let mut raw = Raw::connect(&gateway);
    let pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/public/x")];
    raw.send(&frame(HEADERS, END_HEADERS, 1, &lines(&[&pseudo[..], &[("content-length", "0")]].concat())));
    raw.send(&frame(DATA, END_STREAM, 1, b""));
    assert_eq!(raw.status(1), 200);
}

#[test]
fn a_drain_cuts_nothing_off_that_the_client_has_not_read_yet() {
    let big = "x".repeat(3 << 20);
    let upstream = Upstream::answering(move |_| ok(&big));
    let mut gateway = Gateway::start(&upstream, Settings { protocol: Protocol::H2c, ..Settings::default() });
    let mut raw = Raw::connect(&gateway);
    let wide = 0x1000_0000_u32.to_be_bytes();
    raw.ask(1, &get("/public/x", &[]));
    raw.send(&[frame(WINDOW_UPDATE, 0, 0, &wide), frame(WINDOW_UPDATE, 0, 1, &wide)].concat());
    assert_eq!(raw.status(1), 200);
    gateway.signal(libc::SIGTERM);
    let mut received = 0;
    while received < 3 << 20 {
        let frame = raw.next_of(&[DATA, RST_STREAM]);
        assert_eq!(frame.kind, DATA, "after {received} bytes");
        received += frame.payload.len();
        // What it says meanwhile is for nobody.
        raw.send(&frame_of_window());
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(raw);
    assert!(eventually("it ends", || gateway.ended()).success());
}

/// Room for more on the connection.
fn frame_of_window() -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, 0, &1_000_u32.to_be_bytes())
}

#[test]
fn the_last_stream_of_a_goodbye_never_grows() {
    let upstream = Upstream::with(|_, socket| {
        std::thread::sleep(Duration::from_millis(700));
        socket.write_all(&ok("done")).is_ok()
    });
    let mut gateway = Gateway::start(&upstream, Settings { protocol: Protocol::H2c, ..Settings::default() });
    let mut raw = Raw::connect(&gateway);
    raw.ask(1, &get("/public/x", &[]));
    eventually("it is under way", || (upstream.seen().len() == 1).then_some(()));
    gateway.signal(libc::SIGTERM);
    let ping = raw.next_of(&[PING]);
    raw.send(&frame(PING, ACK, 0, &ping.payload));
    assert_eq!(raw.next_of(&[GOAWAY]).payload[..4], [0, 0, 0, 1]);
    raw.ask(5, &get("/public/x", &[]));
    assert_eq!(raw.next_of(&[RST_STREAM, GOAWAY]).stream, 5);
    raw.send(&frame(PING, 0, 1, &[0; 8]));
    let last = raw.next_of(&[GOAWAY]);
    assert_eq!((last.code(), &last.payload[..4]), (PROTOCOL_ERROR, &[0, 0, 0, 1][..]));
    drop(raw);
    assert!(eventually("it ends", || gateway.ended()).success());
}

#[test]
fn connections_at_rest_keep_little() {
    const COUNT: usize = 200;
    let big = "x".repeat(300_000);
    let upstream = Upstream::answering(move |_| ok(&big));
    let gateway = Gateway::start(&upstream, Settings { protocol: Protocol::H2c, ..Settings::default() });
    let opened = |count: usize| -> Vec<Raw> {
        (0..count)
            .map(|_| {
                let mut raw = Raw::connect(&gateway);
                let wide = 0x1000_0000_u32.to_be_bytes();
                raw.send(
                    &[frame(WINDOW_UPDATE, 0, 0, &wide), frame(SETTINGS, 0, 0, &[0, 4, 0, 16, 0, 0])]
                        .concat(),
                );
                for stream in [1, 3, 5, 7] {
                    raw.ask(stream, &get("/public/x", &[]));
                }
                let mut received = 0;
                while received < 4 * 300_000 {
                    received += raw.next_of(&[DATA]).payload.len();
                }
                raw
            })
            .collect()
    };
    let _first = opened(20);
    let before = gateway.memory();
    let _kept = opened(COUNT);
    eventually("they rest", || (gateway.memory() < before + COUNT as u64 * (24 << 10)).then_some(()));
}

#[test]
fn a_quiet_stream_does_not_make_its_connection_idle() {
    let upstream = Upstream::with(|_, socket| {
        std::thread::sleep(Duration::from_millis(1_500));
        socket.write_all(&ok("done")).is_ok()
    });
    let settings = Settings { protocol: Protocol::H2c, ..Settings::default() };
    let gateway = Gateway::start(&upstream, settings.extra("limits: {idle_timeout: 1s}\n"));
    let mut raw = Raw::connect(&gateway);
    for index in 0..3 {
        raw.ask(1 + 2 * index, &get("/public/x", &[]));
        let answer = raw.next_of(&[HEADERS, GOAWAY]);
        assert_eq!(answer.kind, HEADERS, "{index}: {answer:?}");
    }
}

#[test]
#[ignore = "slow"]
fn neither_silence_nor_a_flood_holds_up_a_drain() {
    for (name, listener) in
        [("http2", ", http2: true"), ("proxy_protocol", ", proxy_protocol: {from: [10.0.0.0/8]}")]
    {
        let settings = Settings { listener: listener.to_owned(), ..Settings::default() };
        let mut gateway = Gateway::start(&Upstream::start(), settings);
        let _silent = Client::connect(gateway.address);
        std::thread::sleep(Duration::from_millis(100));
        let begun = Instant::now();
        assert!(gateway.stop().success());
        assert!(begun.elapsed() < Duration::from_secs(5), "{name}: {:?}", begun.elapsed());
    }
    for floods in [false, true] {
        let (mut gateway, _upstream) = start();
        let mut raw = Raw::connect(&gateway);
        raw.still_serves(1);
        let begun = Instant::now();
        gateway.signal(libc::SIGTERM);
        // Its PING is never acknowledged.
        raw.next_of(&[GOAWAY]);
        if floods {
            raw.send(&frame(SETTINGS, 0, 0, &[]).repeat(500));
        }
        assert!(eventually("it ends", || gateway.ended()).success());
        assert!(begun.elapsed() < Duration::from_secs(12), "{floods}: {:?}", begun.elapsed());
    }
}

#[test]
fn a_request_that_is_refused_early_may_go_on_to_its_end_and_is_reset_if_it_has_none() {
    let (gateway, _upstream) = start();
    let mut raw = Raw::connect(&gateway);
    let post = lines(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/api/x")]);
    let refused = |raw: &mut Raw, stream: u32| {
        raw.send(&frame(HEADERS, END_HEADERS, stream, &post));
        assert_eq!(raw.status(stream), 401);
        while raw.next_of(&[DATA]).flags & END_STREAM == 0 {}
    };
    for (stream, end) in [(1, frame(DATA, END_STREAM, 1, b"late")), (3, frame(DATA, END_STREAM, 3, b""))] {
        refused(&mut raw, stream);
        raw.send(&end).send(&frame(PING, 0, 0, &[1; 8]));
        assert_eq!(raw.next_of(&[PING, RST_STREAM, GOAWAY]).kind, PING, "{stream}");
    }
    // Whose end never comes is told that nobody waits for it.
    refused(&mut raw, 5);
    let reset = raw.next_of(&[RST_STREAM, GOAWAY]);
    assert_eq!((reset.kind, reset.stream, reset.code()), (RST_STREAM, 5, 0), "{reset:?}");
    // Only so many are waited for: the first is reset before the last is answered.
    let many: Vec<u32> = (7..).step_by(2).take(60).collect();
    raw.send(&many.iter().flat_map(|stream| frame(HEADERS, END_HEADERS, *stream, &post)).collect::<Vec<_>>());
    let (mut answered, mut reset) = (0, None);
    while answered < many.len() {
        let frame = raw.next_of(&[HEADERS, RST_STREAM, GOAWAY]);
        match frame.kind {
            HEADERS => answered += 1,
            _ => reset = reset.or(Some((frame.kind, frame.stream, answered))),
        }
    }
    assert!(matches!(reset, Some((RST_STREAM, 7, before)) if before < many.len()), "{reset:?}");
    raw.still_serves(1_001);
}

#[test]
fn a_client_that_never_makes_room_is_given_up_in_time() {
    let big = "x".repeat(1 << 20);
    let upstream = Upstream::answering(move |_| ok(&big));
    let settings = Settings { protocol: Protocol::H2c, ..Settings::default() };
    let gateway = Gateway::start(&upstream, settings.extra("limits: {response_drain_timeout: 500ms}\n"));
    let mut raw = Raw::connect(&gateway);
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    raw.send(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
    raw.ask(1, &get("/public/x", &[]));
    assert_eq!(raw.status(1), 200);
    let reset = raw.next_of(&[RST_STREAM, GOAWAY]);
    assert_eq!((reset.kind, reset.stream), (RST_STREAM, 1));
    others_are_unaffected_by_size(&gateway);
}

#[test]
#[ignore = "slow"]
fn clients_by_tls_that_read_nothing_are_given_up_in_time() {
    let upstream = Upstream::answering(|seen| {
        let length = seen.target.rsplit('/').next().unwrap().parse().unwrap();
        ok(&"x".repeat(length))
    });
    let settings = Settings { protocol: Protocol::Http2, ..Settings::default() };
    let limits = "limits: {response_drain_timeout: 500ms, idle_timeout: 500ms}\n";
    let gateway = Gateway::start(&upstream, settings.extra(limits));
    let mut config = (*USUAL.0.client(None)).clone();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let config = Arc::new(config);
    let wide = 0x1000_0000_u32.to_be_bytes();
    // Of some of them the last bytes wait in the gateway, of some before TLS and of some behind it.
    let clients: Vec<_> = (40..90)
        .map(|index| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.set_recv_buffer_size(4_096).unwrap();
            socket.connect(&gateway.address.into()).unwrap();
            let name = "localhost".try_into().unwrap();
            let connection = rustls::ClientConnection::new(config.clone(), name).unwrap();
            let mut client = rustls::StreamOwned::new(connection, TcpStream::from(socket));
            client.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
            client.write_all(&frame(SETTINGS, 0, 0, &[&[0, 4][..], &wide].concat())).unwrap();
            client.write_all(&frame(WINDOW_UPDATE, 0, 0, &wide)).unwrap();
            let block = get(&format!("/public/{}", index * 50_000), &[]);
            client.write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)).unwrap();
            client
        })
        .collect();
    eventually("they are asked for", || (upstream.seen().len() == clients.len()).then_some(()));
    eventually("the connections end", || {
        (gateway.metric("authgate_open_connections") == Some(0.0)).then_some(())
    });
}

#[track_caller]
fn others_are_unaffected_by_size(gateway: &Gateway) {
    assert_eq!(gateway.get("/public/other", None).body.len(), 1 << 20);
}

#[test]
fn a_stream_has_its_own_deadline() {
    let upstream = Upstream::with(|seen, socket| {
        if seen.target.contains("slow") {
            std::thread::sleep(Duration::from_secs(3));
        }
        socket.write_all(&ok("done")).is_ok()
    });
    let routes = "  - {path: /public/**, auth: none, timeout: 400ms, upstream: backend}\n";
    let gateway = Gateway::start(&upstream, Settings { protocol: Protocol::H2c, ..Settings::routes(routes) });
    let mut raw = Raw::connect(&gateway);
    raw.ask(1, &get("/public/slow", &[]));
    raw.ask(3, &get("/public/fast", &[]));
    assert_eq!(raw.status(3), 200);
    assert_eq!(raw.status(1), 504);
    // A body that does not come is the client's fault.
    let post =
        lines(&[(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/public/x")]);
    raw.send(&frame(HEADERS, END_HEADERS, 5, &post));
    raw.send(&frame(DATA, 0, 5, b"half"));
    assert_eq!(raw.status(5), 408);
    raw.still_serves(7);
}

#[test]
fn a_drain_says_goodbye_twice_and_finishes_what_was_begun() {
    let upstream = Upstream::with(|_, socket| {
        std::thread::sleep(Duration::from_millis(700));
        socket.write_all(&ok("done")).is_ok()
    });
    let settings = Settings { protocol: Protocol::H2c, ..Settings::default() };
    let mut gateway = Gateway::start(&upstream, settings);
    let mut raw = Raw::connect(&gateway);
    raw.ask(1, &get("/public/x", &[]));
    eventually("it is under way", || (upstream.seen().len() == 1).then_some(()));
    gateway.signal(libc::SIGTERM);
    let first = raw.next_of(&[GOAWAY]);
    assert_eq!((first.code(), &first.payload[..4]), (0, &[127, 255, 255, 255][..]));
    let ping = raw.next_of(&[PING]);
    raw.send(&frame(PING, ACK, 0, &ping.payload));
    let second = raw.next_of(&[GOAWAY]);
    assert_eq!((second.code(), &second.payload[..4]), (0, &[0, 0, 0, 1][..]));
    assert_eq!(raw.status(1), 200);
    assert_eq!(raw.next_of(&[DATA]).payload, b"done");
    assert!(raw.next().is_none());
    assert!(eventually("it ends", || gateway.ended()).success());
}

#[test]
fn an_idle_connection_is_told_that_it_ends() {
    let (gateway, _upstream) = start_with("limits: {idle_timeout: 500ms}\n");
    let mut raw = Raw::connect(&gateway);
    raw.still_serves(1);
    let begun = Instant::now();
    assert_eq!(raw.next_of(&[GOAWAY]).code(), 0);
    assert!(begun.elapsed() > Duration::from_millis(300), "{:?}", begun.elapsed());
}

#[test]
fn a_client_that_does_not_finish_its_preface_is_closed() {
    let (gateway, _upstream) = start_with("limits: {header_timeout: 300ms, idle_timeout: 300ms}\n");
    let mut silent = Client::connect(gateway.address);
    let mut begun = Client::connect(gateway.address);
    begun.send("PRI * HTTP/2.0\r\n");
    assert!(silent.is_closed_silently() && begun.is_closed_silently());
    others_are_unaffected(&gateway);
}

#[test]
fn a_request_that_is_given_up_ends_at_the_upstream() {
    let upstream = Upstream::with(|_, socket| {
        // Until the gateway gives it up.
        let _ = socket.read(&mut [0]);
        false
    });
    let gateway = Gateway::start(&upstream, Settings { protocol: Protocol::H2c, ..Settings::default() });
    let mut raw = Raw::connect(&gateway);
    raw.ask(1, &get("/public/x", &[]));
    eventually("it is under way", || (upstream.seen().len() == 1).then_some(()));
    raw.send(&frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()));
    let line = "\"http.status\":499";
    eventually("it has ended", || gateway.log().contains(line).then_some(()));
    let active = r#"authgate_upstream_connections{state="active",upstream="backend"}"#;
    assert_eq!(gateway.metric(active), Some(0.0));
}

#[test]
fn a_websocket_goes_over_a_stream() {
    let upstream = Upstream::with(|seen, socket| {
        if seen.header("Upgrade") != Some("websocket") || seen.target.ends_with("none") {
            return socket.write_all(&ok("no switch")).is_ok();
        }
        let _ = socket.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nSec-WebSocket-Protocol: chat\r\n\r\n",
        );
        let mut chunk = [0; 1_024];
        while let Ok(length) = socket.read(&mut chunk)
            && length > 0
        {
            if socket.write_all(&chunk[..length]).is_err() {
                break;
            }
        }
        false
    });
    let gateway = Gateway::start(&upstream, Settings { protocol: Protocol::H2c, ..Settings::default() });
    let token = gateway.token("alice");
    let mut raw = Raw::connect(&gateway);
    let settings = raw.next_of(&[SETTINGS]);
    let enables = settings.payload.chunks(6).any(|setting| setting == [0, 8, 0, 0, 0, 1]);
    assert!(enables, "SETTINGS_ENABLE_CONNECT_PROTOCOL: {settings:?}");
    let connect = |path: &str, token: Option<&str>| {
        let mut block = lines(&[
            (":method", "CONNECT"),
            (":protocol", "websocket"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", path),
            ("sec-websocket-version", "13"),
            ("sec-websocket-protocol", "chat"),
        ]);
        if let Some(token) = token {
            block.extend(bearer(token));
        }
        block
    };
    // Decided as its form in HTTP/1.1 is.
    raw.send(&frame(HEADERS, END_HEADERS, 1, &connect("/api/ws", None)));
    assert_eq!(raw.status(1), 401);
    raw.send(&frame(HEADERS, END_HEADERS, 3, &connect("/api/ws", Some(&token))));
    assert_eq!(raw.status(3), 200);
    let seen = upstream.last();
    assert_eq!((seen.method.as_str(), seen.header("X-User-Name")), ("GET", Some("alice")));
    assert_eq!(seen.header("Sec-WebSocket-Key").map(str::len), Some(24));
    for round in 0..5 {
        let message = vec![round; 5_000];
        raw.send(&frame(DATA, 0, 3, &message));
        let mut echoed = Vec::new();
        while echoed.len() < message.len() {
            let frame = raw.next_of(&[DATA, RST_STREAM, GOAWAY]);
            assert_eq!((frame.kind, frame.stream), (DATA, 3));
            echoed.extend(frame.payload);
        }
        assert_eq!(echoed, message);
    }
    raw.still_serves(5);
    // A server that does not switch opens no tunnel.
    raw.send(&frame(HEADERS, END_HEADERS, 9, &connect("/api/none", Some(&token))));
    assert_eq!(raw.status(9), 502);
    // It ends with its token.
    assert_eq!(gateway.logout(&token).status, 200);
    let end = loop {
        let end = raw.next_of(&[RST_STREAM, GOAWAY]);
        if end.stream != 9 {
            break end;
        }
    };
    assert_eq!((end.kind, end.stream), (RST_STREAM, 3), "{end:?}");
    raw.still_serves(11);
}

#[test]
fn certificates_count_for_each_request_of_a_connection() {
    let upstream = Upstream::start();
    let gateway = Gateway::start(&upstream, Settings { protocol: Protocol::Http2, ..Settings::default() });
    let mut client = gateway.client();
    let mut get =
        |host: &str| client.send(format!("GET /public/x HTTP/1.1\r\nHost: {host}\r\n\r\n")).response().status;
    assert_eq!((get("localhost"), get("b.example.com"), get("example.org"), get("a")), (200, 200, 421, 200));
}
