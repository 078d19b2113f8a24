//! The access log: a line for each request, off the request's path.
//!
//! A line is formatted once, into a buffer of its worker. A thread of its own writes full buffers, and those that
//! [`AccessLog::flush`] hands over, to standard error. Nobody waits for it: lines that it cannot take are lost, and
//! counted.

use std::{
    cell::{Cell, RefCell},
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};

use time::OffsetDateTime;

/// What a worker gathers before it hands it over, in bytes. Each handing over wakes the thread that writes, which costs
/// as much as some dozen lines.
const BATCH: usize = 256 << 10;

/// Room for the line that makes a batch full, in bytes.
const USUAL_LINE: usize = 4 << 10;

/// Batches that may wait for a slow reader of the log.
const MAX_WAITING: usize = 32;

/// Buffers that are kept to be filled again: memory that was touched before costs the kernel nothing.
const MAX_SPARE: usize = 4;

/// How long to wait for a reader of the log at the end.
const PATIENCE: Duration = Duration::from_secs(1);

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
    /// The request's id.
    pub request_id: &'a [u8],
}

/// The upstream of a request.
#[derive(Debug, Clone, Copy)]
pub struct UpstreamEntry<'a> {
    /// Its name in the config.
    pub name: &'a str,
    /// Its server.
    pub address: &'a str,
    /// From the request sent to the head of the response, if there was one.
    pub duration: Option<Duration>,
    /// Whether the response broke off.
    pub aborted: bool,
}

enum Message {
    Lines(Vec<u8>),
    End,
}

/// Where lines go. Clones share it.
#[derive(Clone)]
pub struct AccessLog {
    sender: SyncSender<Message>,
    spare: Arc<Mutex<Vec<Vec<u8>>>>,
    lost: Arc<AtomicU64>,
    json: bool,
}

/// The thread that writes.
pub(super) struct Writer {
    log: AccessLog,
    ended: Receiver<()>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    lines: u64,
    /// Where the lines go when the thread ends.
    log: Option<AccessLog>,
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some(log) = self.log.take().filter(|_| !self.bytes.is_empty()) {
            log.hand_over(self);
        }
    }
}

thread_local! {
    static BUFFER: RefCell<Buffer> = RefCell::default();
    /// The second that was formatted last.
    static SECOND: Cell<(i64, [u8; 19])> = const { Cell::new((i64::MIN, [b'0'; 19])) };
}

impl Writer {
    /// Starts the thread; `sink` takes whole lines.
    pub(super) fn start(json: bool, mut sink: impl FnMut(&[u8]) + Send + 'static) -> std::io::Result<Self> {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let (tell, ended) = sync_channel(1);
        let log = AccessLog { sender, spare: Arc::default(), lost: Arc::default(), json };
        let spare = log.spare.clone();
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            while let Ok(Message::Lines(mut lines)) = receiver.recv() {
                sink(&lines);
                lines.clear();
                let mut spare = spare.lock().unwrap_or_else(PoisonError::into_inner);
                if spare.len() < MAX_SPARE {
                    spare.push(lines);
                }
            }
            // Nobody may be waiting.
            let _ = tell.try_send(());
        })?;
        Ok(Self { log, ended, thread: Some(thread) })
    }

    pub(super) fn log(&self) -> &AccessLog {
        &self.log
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.log.flush();
        let mut message = Message::End;
        for _ in 0..PATIENCE.as_millis() / 10 {
            match self.log.sender.try_send(message) {
                Ok(()) => break,
                Err(TrySendError::Full(returned) | TrySendError::Disconnected(returned)) => {
                    message = returned
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if self.ended.recv_timeout(PATIENCE).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl AccessLog {
    /// Takes a request's line.
    pub fn write(&self, entry: &AccessEntry<'_>) {
        BUFFER.with_borrow_mut(|buffer| {
            if buffer.bytes.capacity() == 0 {
                buffer.bytes = self.empty_buffer();
                buffer.log = Some(self.clone());
            }
            if self.json {
                write_json(&mut buffer.bytes, entry)
            } else {
                write_text(&mut buffer.bytes, entry)
            }
            buffer.lines += 1;
            if buffer.bytes.len() >= BATCH {
                self.hand_over(buffer);
            }
        });
    }

    /// Hands over what this thread has gathered.
    pub fn flush(&self) {
        BUFFER.with_borrow_mut(|buffer| {
            if !buffer.bytes.is_empty() {
                self.hand_over(buffer);
            }
        });
    }

    fn empty_buffer(&self) -> Vec<u8> {
        let spare = self.spare.lock().unwrap_or_else(PoisonError::into_inner).pop();
        spare.unwrap_or_else(|| Vec::with_capacity(BATCH + USUAL_LINE))
    }

    fn hand_over(&self, buffer: &mut Buffer) {
        let (bytes, lines) = (std::mem::take(&mut buffer.bytes), std::mem::take(&mut buffer.lines));
        if self.sender.try_send(Message::Lines(bytes)).is_err() {
            self.lost.fetch_add(lines, Relaxed);
        }
    }

    /// How many lines were lost so far.
    pub fn lost(&self) -> u64 {
        self.lost.load(Relaxed)
    }
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

fn write_json(out: &mut Vec<u8>, entry: &AccessEntry<'_>) {
    out.extend_from_slice(b"{\"timestamp\":\"");
    timestamp(out, entry.at);
    out.extend_from_slice(b"\",\"level\":\"INFO\",\"message\":\"request\",\"target\":\"access\"");
    fields::<true>(out, entry);
    out.extend_from_slice(b"}\n");
}

fn write_text(out: &mut Vec<u8>, entry: &AccessEntry<'_>) {
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
        text::<JSON>(out, name!("upstream.address"), upstream.address.as_bytes());
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
    word::<JSON>(out, name!("request.id"), entry.request_id);
}

fn digits(out: &mut Vec<u8>, mut number: u64) {
    let mut text = [0; 20];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[at..]);
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
    // The last ones once more with the rest, or the rest alone with what is plain.
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

/// Writes whole lines to standard error, between the lines of other threads.
pub(super) fn standard_error(lines: &[u8]) {
    // Where nobody reads the log any more there is nobody to tell.
    let _ = std::io::stderr().lock().write_all(lines);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn entry() -> AccessEntry<'static> {
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
                address: "10.0.0.5:9000",
                duration: Some(Duration::from_micros(900)),
                aborted: false,
            }),
            user: None,
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

    #[test]
    fn what_is_gathered_is_whole_at_the_end_and_what_is_lost_is_counted() {
        let written = Arc::new(Mutex::new(0));
        let sink = written.clone();
        let writer = Writer::start(true, move |lines: &[u8]| {
            *sink.lock().unwrap() += lines.iter().filter(|byte| **byte == b'\n').count() as u64;
        });
        let writer = writer.unwrap();
        let log = writer.log().clone();
        for _ in 0..50_000 {
            log.write(&entry());
        }
        drop(writer);
        assert_eq!(*written.lock().unwrap() + log.lost(), 50_000);

        let (stuck, release) = sync_channel::<()>(0);
        let writer = Writer::start(true, move |_: &[u8]| {
            let _ = release.recv();
        })
        .unwrap();
        let log = writer.log().clone();
        for _ in 0..MAX_WAITING + 10 {
            log.write(&entry());
            log.flush();
        }
        assert!(log.lost() >= 8, "{}", log.lost());
        drop(stuck);
    }
}
