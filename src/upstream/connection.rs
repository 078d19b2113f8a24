//! One HTTP/1.1 connection to an upstream.
//!
//! Our own, and measured: the library's client is a channel, a dispatcher and a state machine that
//! are polled at each turn of the client's side, and cost two fifths of all user time of a request.
//! Here a request is one write and one read, driven by the task that waits for the answer.
//!
//! What is required: an answer's head has one reading ([`crate::types::framing`]); interim answers
//! end here, a bounded number of them; a connection is used again only when its answer came to its
//! end, its request was sent to its end, and nothing lies beyond.

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request};
use http_body::Body;
use thiserror::Error;
use tokio::{io::AsyncWrite, net::TcpStream};
use tokio_util::io::poll_read_buf;

use super::framing::{Decoded, Decoder};
use crate::types::framing::{Framing, HeadLimits, response_head};

const LIMITS: HeadLimits = HeadLimits { bytes: 256 << 10, count: 100 };

/// A well-behaved upstream sends one `100 Continue` or a few `103 Early Hints`.
const MAX_INTERIM: u8 = 8;

/// Room for a head and a small body.
const HEAD_BUFFER: usize = 4 << 10;

/// Room for what is read at once of a large body.
const BODY_BUFFER: usize = 64 << 10;

/// Why a request got no answer. The text is for the log.
#[derive(Debug, Error)]
#[error("{reason}")]
pub struct Broken {
    reason: String,
    /// Not a byte of an answer arrived: the connection was closed while it rested, or at once.
    pub unanswered: bool,
}

/// A request's body on its way.
enum Upload<B> {
    Whole,
    Length(B, u64),
    Chunked(B),
}

/// A connection, idle or with one exchange on it.
pub struct Connection<B> {
    io: TcpStream,
    received: BytesMut,
    /// What is to be written: a head or a chunk's size, then data, then a chunk's end.
    head: Vec<u8>,
    written: usize,
    data: Bytes,
    tail: &'static [u8],
    upload: Upload<B>,
    /// The upstream takes no more of the request; it may have answered all the same.
    write_failed: bool,
    answer: Decoder,
    interim: u8,
    to_head: bool,
    /// What the request asks to switch to, if it does; only that may be answered by 101.
    upgrade: Option<HeaderValue>,
    keep_alive: bool,
}

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Connection<B> {
    pub(super) fn new(io: TcpStream) -> Self {
        Self {
            io,
            received: BytesMut::new(),
            head: Vec::new(),
            written: 0,
            data: Bytes::new(),
            tail: b"",
            upload: Upload::Whole,
            write_failed: false,
            answer: Decoder::done(),
            interim: 0,
            to_head: false,
            upgrade: None,
            keep_alive: true,
        }
    }

    /// Puts a request on the connection, which must be idle; `added` stands behind its own headers,
    /// none of which may have a name of those. One of `Upgrade` asks for another protocol.
    pub fn begin(&mut self, request: &request::Parts, added: &[(&HeaderName, &HeaderValue)], body: B) {
        self.head.clear();
        self.written = 0;
        self.interim = 0;
        self.keep_alive = true;
        self.write_failed = false;
        self.to_head = request.method == Method::HEAD;
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        // Writing to a vector does not fail.
        let _ = write!(self.head, "{} {target} HTTP/1.1\r\n", request.method);
        for (name, value) in &request.headers {
            // Said anew below, by what the body really is.
            if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING {
                line(&mut self.head, name.as_str(), value.as_bytes());
            }
        }
        self.upgrade = None;
        for (name, value) in added {
            if **name == header::UPGRADE {
                self.upgrade = Some((*value).clone());
            }
            line(&mut self.head, name.as_str(), value.as_bytes());
        }
        self.upload = if body.is_end_stream() {
            if request.headers.contains_key(header::CONTENT_LENGTH) {
                line(&mut self.head, "content-length", b"0");
            }
            Upload::Whole
        } else if let Some(length) = body.size_hint().exact() {
            let _ = write!(self.head, "content-length: {length}\r\n");
            Upload::Length(body, length)
        } else {
            line(&mut self.head, "transfer-encoding", b"chunked");
            Upload::Chunked(body)
        };
        self.head.extend_from_slice(b"\r\n");
    }

    /// Sends on, and waits for the head of the answer.
    ///
    /// # Errors
    /// [`Broken`]: the connection is of no further use.
    pub fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Broken>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Err(self.broken(error.to_string())));
        }
        loop {
            match self.parse() {
                Ok(Some(response)) => return Poll::Ready(Ok(response)),
                Ok(None) => {}
                Err(reason) => return Poll::Ready(Err(self.broken(reason.to_owned()))),
            }
            self.received.reserve(HEAD_BUFFER);
            match ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.received)) {
                Ok(0) => return Poll::Ready(Err(self.broken("closed without an answer".to_owned()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.broken(error.to_string()))),
            }
        }
    }

    fn broken(&self, reason: String) -> Broken {
        Broken { reason, unanswered: self.received.is_empty() && self.interim == 0 }
    }

    /// Reads the head of the answer from what was received; `None` while it is incomplete.
    fn parse(&mut self) -> Result<Option<Response<()>>, &'static str> {
        loop {
            if self.received.is_empty() {
                return Ok(None);
            }
            let head = response_head(&self.received, LIMITS)
                .map_err(|_| "the head of the answer is ambiguous or too large")?;
            let Some(head) = head else { return Ok(None) };
            let bytes = self.received.split_to(head.length).freeze();
            if head.status >= 200 {
                let response = to_response(&bytes)?;
                self.follow(&response, head.framing);
                return Ok(Some(response));
            }
            self.interim += 1;
            if head.status == 101
                && let Some(asked) = &self.upgrade
            {
                let response = to_response(&bytes)?;
                if !names_upgrade(response.headers(), asked) {
                    return Err("the upstream switches to what nobody asked for");
                }
                return Ok(Some(response));
            }
            if head.status < 100 || head.status == 101 || self.interim > MAX_INTERIM {
                return Err("an interim answer that nobody asked for");
            }
        }
    }

    /// Takes note of where the answer ends (RFC 9112, section 6.3) and whether another may follow.
    fn follow(&mut self, response: &Response<()>, framing: Framing) {
        let status = response.status();
        self.answer = match framing {
            _ if self.to_head || status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED => {
                Decoder::done()
            }
            Framing::Chunked => Decoder::chunked(),
            Framing::Length(length) => Decoder::length(length),
            Framing::None => {
                self.keep_alive = false;
                Decoder::until_close()
            }
        };
        let says = |word: &str| connection_says(response.headers(), word);
        let old = response.version() == http::Version::HTTP_10;
        if says("close") || (old && !says("keep-alive")) {
            self.keep_alive = false;
        }
    }

    /// The next part of the answer's body.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            match self.answer.decode(&mut self.received) {
                Decoded::Data(data) => return Poll::Ready(Some(Ok(data))),
                Decoded::End => return Poll::Ready(None),
                Decoded::Bad => {
                    let fault = io::Error::new(io::ErrorKind::InvalidData, "the answer's chunks are broken");
                    return Poll::Ready(Some(Err(fault)));
                }
                Decoded::More(wanted) => self.received.reserve(wanted.clamp(HEAD_BUFFER, BODY_BUFFER)),
            }
            match ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.received)) {
                Ok(0) if self.answer.ends_with_connection() => {
                    self.answer = Decoder::done();
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// The bare socket of a connection that has switched, and what came behind the answer.
    pub fn into_socket(self) -> (TcpStream, BytesMut) {
        (self.io, self.received)
    }

    /// What is known of the rest of the answer's body.
    pub(super) fn answer(&self) -> &Decoder {
        &self.answer
    }

    /// Writes what there is to write, and asks the request's body for more.
    ///
    /// # Errors
    /// When the body cannot be read to its end: the request must be broken off unfinished.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if ready!(self.poll_write(cx)).is_err() {
                self.write_failed = true;
            }
            if self.write_failed {
                // What the upstream says of it, or that it says nothing, is found by reading.
                self.upload = Upload::Whole;
                return Poll::Ready(Ok(()));
            }
            let (body, left) = match &mut self.upload {
                Upload::Whole => return Poll::Ready(Ok(())),
                Upload::Length(body, left) => (body, Some(left)),
                Upload::Chunked(body) => (body, None),
            };
            let frame = ready!(Pin::new(body).poll_frame(cx)).transpose()?;
            // Trailers never get here; an empty frame says nothing.
            let data = frame.map(|frame| frame.into_data().unwrap_or_default());
            match (data, left) {
                (Some(data), _) if data.is_empty() => {}
                (Some(data), Some(left)) => {
                    *left = left.checked_sub(data.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
                    let whole = *left == 0;
                    self.data = data;
                    if whole {
                        self.upload = Upload::Whole;
                    }
                }
                (Some(data), None) => {
                    self.head.clear();
                    self.written = 0;
                    let _ = write!(self.head, "{:x}\r\n", data.len());
                    self.data = data;
                    self.tail = b"\r\n";
                }
                (None, Some(_)) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                (None, None) => {
                    self.tail = b"0\r\n\r\n";
                    self.upload = Upload::Whole;
                }
            }
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let head = &self.head[self.written..];
            if head.is_empty() && self.data.is_empty() && self.tail.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let slices = [IoSlice::new(head), IoSlice::new(&self.data), IoSlice::new(self.tail)];
            let head_left = head.len();
            let mut count = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let of_head = count.min(head_left);
            self.written += of_head;
            count -= of_head;
            let of_data = count.min(self.data.len());
            self.data.advance(of_data);
            self.tail = &self.tail[count - of_data..];
        }
    }

    /// Whether the exchange is over on both sides and the connection may rest.
    pub(super) fn is_complete(&self) -> bool {
        self.keep_alive
            && !self.write_failed
            && self.answer.is_done()
            && self.received.is_empty()
            && matches!(self.upload, Upload::Whole)
            && self.written == self.head.len()
            && self.data.is_empty()
            && self.tail.is_empty()
    }

    /// Whether nothing has arrived while it rested, not even its end.
    pub(super) fn is_quiet(&self) -> bool {
        let mut nobody = Context::from_waker(Waker::noop());
        match self.io.poll_read_ready(&mut nobody) {
            Poll::Pending => true,
            Poll::Ready(Err(_)) => false,
            Poll::Ready(Ok(())) => {
                let found = self.io.try_read(&mut [0]);
                found.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            }
        }
    }
}

/// Whether `Connection` names this option (RFC 9110, section 7.6.1).
fn connection_says(headers: &HeaderMap, option: &str) -> bool {
    let lines = headers.get_all(header::CONNECTION).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .any(|token| token.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
}

/// Whether a head names this protocol in `Upgrade`, and no other, and `upgrade` in `Connection` (RFC 9110,
/// section 7.8).
pub fn names_upgrade(headers: &HeaderMap, protocol: &HeaderValue) -> bool {
    let mut values = headers.get_all(header::UPGRADE).iter();
    let same = values.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(protocol.as_bytes()));
    same && values.next().is_none() && connection_says(headers, "upgrade")
}

fn line(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

/// The head of an answer, its values slices of the bytes that arrived.
fn to_response(bytes: &Bytes) -> Result<Response<()>, &'static str> {
    const FAULT: &str = "the head of the answer is not HTTP";
    let mut lines = [const { std::mem::MaybeUninit::uninit() }; LIMITS.count];
    let mut parsed = httparse::Response::new(&mut []);
    let complete = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, bytes, &mut lines)
        .map_err(|_| FAULT)?;
    if complete.is_partial() {
        return Err(FAULT);
    }
    let mut headers = HeaderMap::with_capacity(parsed.headers.len() + 4);
    for line in parsed.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).map_err(|_| FAULT)?;
        let value = HeaderValue::from_maybe_shared(bytes.slice_ref(line.value)).map_err(|_| FAULT)?;
        headers.append(name, value);
    }
    let mut response = Response::new(());
    *response.status_mut() = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(FAULT)?;
    *response.version_mut() =
        if parsed.version == Some(0) { http::Version::HTTP_10 } else { http::Version::HTTP_11 };
    *response.headers_mut() = headers;
    Ok(response)
}
