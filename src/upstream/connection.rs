//! One HTTP/1.1 connection to an upstream.
//!
//! Our own, and measured: the library's client is a channel, a dispatcher and a state machine that
//! are polled at each turn of the client's side, and cost two fifths of all user time of a request.
//! Here a request is one write and one read, driven by the task that waits for the response.
//!
//! What is required: a response's head has one reading ([`crate::types::framing`]); a connection is used
//! again only when its response came to its end, its request was sent to its end, and nothing lies beyond
//! or may still come.

use std::{
    io::{self, IoSlice, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request};
use http_body::Body;
use thiserror::Error;
use tokio::{io::AsyncWrite, sync::OwnedSemaphorePermit};
use tokio_util::io::poll_read_buf;

use super::{
    framing::{Decoded, Decoder},
    head::to_response,
};
use crate::{
    clock::coarse_millis,
    stream::Stream,
    types::{
        framing::{Framing, HeadLimits, HeadScanner},
        hop_by_hop::{names_option, names_upgrade},
    },
};

/// A well-behaved upstream sends one `100 Continue` or a few `103 Early Hints`.
const MAX_INTERIM: u8 = 8;

/// Room for a head and a small body.
const HEAD_BUFFER: usize = 4 << 10;

/// Room for what is read at once of a large body.
const BODY_BUFFER: usize = 64 << 10;

/// What is gathered of a request before it is written, in bytes.
const GATHERED: usize = 64 << 10;

/// A part of a request's body up to this size is copied behind what goes before it: a second buffer for the
/// kernel to visit costs more.
const COPIED: usize = 16 << 10;

/// The buffer that a resting connection keeps for the next request, in bytes.
const KEPT: usize = 20 << 10;

/// Why a request got no response. The text is for the log.
#[derive(Debug, Error)]
#[error("{reason}")]
pub struct Broken {
    reason: String,
    /// Not a byte of a response arrived: the connection was closed while it rested, or at once.
    pub unanswered: bool,
    /// Not a byte of the request left: it is still whole, for another connection.
    pub unsent: bool,
}

/// A request's body on its way.
enum Upload<B> {
    Whole,
    Length(B, u64),
    Chunked(B),
}

/// A request on its way: what was taken of it and not written yet.
pub struct Outgoing<B> {
    /// The head, and what was gathered behind it.
    bytes: Vec<u8>,
    written: usize,
    /// A large part of the body, which stands behind `bytes`, and the end of its chunk behind that.
    data: Bytes,
    tail: &'static [u8],
    body: Upload<B>,
    /// Whether the body, if nothing of it is there, gets one more turn before the head leaves without it:
    /// what came with the head then leaves with it.
    waits: bool,
    /// Whether any byte has left.
    begun: bool,
    to_head: bool,
    /// What the request asks to switch to, if it does; only that may be the reason of a 101.
    upgrade: Option<HeaderValue>,
}

/// What the head of a response is followed by.
pub enum Head {
    /// The response, its body still arriving.
    Final(Response<()>),
    /// `103 Early Hints`: the response is still to come.
    Hints(Response<()>),
}

/// A connection, idle or with one exchange on it.
pub struct Connection<B> {
    io: Stream,
    /// What it takes of the connections that the upstream may have.
    slot: OwnedSemaphorePermit,
    made_at: u64,
    /// Whether a request was put on it before.
    used: bool,
    received: BytesMut,
    scanner: HeadScanner,
    limits: HeadLimits,
    outgoing: Outgoing<B>,
    /// The upstream takes no more of the request; it may have responded all the same.
    write_failed: bool,
    response: Decoder,
    interim: u8,
    keep_alive: bool,
}

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Connection<B> {
    /// A connection on which heads of responses have these limits.
    pub(super) fn new(io: Stream, limits: HeadLimits, slot: OwnedSemaphorePermit) -> Self {
        Self {
            io,
            slot,
            made_at: coarse_millis(),
            used: false,
            received: BytesMut::new(),
            scanner: HeadScanner::default(),
            limits,
            outgoing: Outgoing {
                bytes: Vec::new(),
                written: 0,
                data: Bytes::new(),
                tail: b"",
                body: Upload::Whole,
                waits: false,
                begun: false,
                to_head: false,
                upgrade: None,
            },
            write_failed: false,
            response: Decoder::done(),
            interim: 0,
            keep_alive: true,
        }
    }

    /// Whether a request was put on it before: then it may have been closed while it rested.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// When it was made, as [`coarse_millis`] has it.
    pub(super) fn made_at(&self) -> u64 {
        self.made_at
    }

    /// Puts a request on the connection, which must be idle; `added` stands behind its own headers,
    /// none of which may have a name of those. One of `Upgrade` asks for another protocol.
    pub fn begin(&mut self, request: &request::Parts, added: &[(&HeaderName, &HeaderValue)], body: B) {
        self.reset();
        self.outgoing.begin(request, added, body);
    }

    /// The request, of which nothing has left, for another connection.
    pub fn into_request(self) -> Outgoing<B> {
        self.outgoing
    }

    /// Puts the request of a connection that failed on this one, which must be idle.
    pub fn resume(&mut self, request: Outgoing<B>) {
        self.reset();
        self.outgoing = request;
    }

    fn reset(&mut self) {
        self.used = true;
        self.interim = 0;
        self.keep_alive = true;
        self.write_failed = false;
        self.scanner = HeadScanner::default();
    }

    /// Sends on, and waits for the head of the response.
    ///
    /// # Errors
    /// [`Broken`]: the connection is of no further use.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Broken>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            // The body's own end; another connection does not mend it.
            return Poll::Ready(Err(Broken { unsent: false, ..self.broken(error.to_string()) }));
        }
        if self.write_failed && !self.outgoing.begun {
            let reason = "nothing could be written".to_owned();
            return Poll::Ready(Err(Broken { reason, unanswered: true, unsent: true }));
        }
        loop {
            match self.parse() {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(reason) => return Poll::Ready(Err(self.broken(reason.to_owned()))),
            }
            self.received.reserve(HEAD_BUFFER);
            match ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.received)) {
                Ok(0) => return Poll::Ready(Err(self.broken("closed without a response".to_owned()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.broken(error.to_string()))),
            }
        }
    }

    fn broken(&self, reason: String) -> Broken {
        let unanswered = self.received.is_empty() && self.interim == 0;
        Broken { reason, unanswered, unsent: unanswered && !self.outgoing.begun }
    }

    /// Reads the head of the response from what was received; `None` while it is incomplete.
    fn parse(&mut self) -> Result<Option<Head>, &'static str> {
        loop {
            if self.received.is_empty() {
                return Ok(None);
            }
            let head = self
                .scanner
                .response(&self.received, self.limits)
                .map_err(|_| "the head of the response is ambiguous or too large")?;
            let Some(head) = head else { return Ok(None) };
            let bytes = self.received.split_to(head.length).freeze();
            self.scanner = HeadScanner::default();
            if head.status >= 200 {
                let response = to_response(&bytes, self.limits.count)?;
                self.follow(&response, head.framing);
                return Ok(Some(Head::Final(response)));
            }
            self.interim += 1;
            // It has no content (RFC 9110, section 15.2): what stands behind it is the next head.
            if !matches!(head.framing, Framing::None | Framing::Length(0)) {
                return Err("an interim response with a body");
            }
            if head.status == 101
                && let Some(asked) = &self.outgoing.upgrade
            {
                let response = to_response(&bytes, self.limits.count)?;
                if !names_upgrade(response.headers(), asked) {
                    return Err("the upstream switches to what nobody asked for");
                }
                return Ok(Some(Head::Final(response)));
            }
            if head.status < 100 || head.status == 101 || self.interim > MAX_INTERIM {
                return Err("an interim response that nobody asked for");
            }
            if head.status == 103 {
                return Ok(Some(Head::Hints(to_response(&bytes, self.limits.count)?)));
            }
        }
    }

    /// Takes note of where the response ends (RFC 9112, section 6.3) and whether another may follow.
    fn follow(&mut self, response: &Response<()>, framing: Framing) {
        let status = response.status();
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        self.response = match framing {
            _ if self.outgoing.to_head || bodiless => {
                // A server that sends the announced body all the same may do so after the head: its bytes would
                // be read as the next request's response. Nothing tells that they will not come, so the
                // connection is used again only where no body was announced.
                self.keep_alive = framing == Framing::Length(0) || (bodiless && framing == Framing::None);
                Decoder::done()
            }
            Framing::Chunked => Decoder::chunked(),
            Framing::Length(length) => Decoder::length(length),
            Framing::None => {
                self.keep_alive = false;
                Decoder::until_close()
            }
        };
        let says = |word: &str| names_option(response.headers(), word);
        let old = response.version() == http::Version::HTTP_10;
        if says("close") || (old && !says("keep-alive")) {
            self.keep_alive = false;
        }
    }

    /// The next part of the response's body.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            match self.response.decode(&mut self.received) {
                Decoded::Data(data) => return Poll::Ready(Some(Ok(data))),
                Decoded::End => return Poll::Ready(None),
                Decoded::Bad => {
                    let error =
                        io::Error::new(io::ErrorKind::InvalidData, "the response's chunks are broken");
                    return Poll::Ready(Some(Err(error)));
                }
                Decoded::More(wanted) => self.received.reserve(wanted.clamp(HEAD_BUFFER, BODY_BUFFER)),
            }
            match ready!(poll_read_buf(Pin::new(&mut self.io), cx, &mut self.received)) {
                Ok(0) if self.response.ends_with_connection() => {
                    self.response = Decoder::done();
                    return Poll::Ready(None);
                }
                Ok(0) => return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
        }
    }

    /// The bare socket of a connection that has switched, what came behind the response, and the slot that it
    /// holds for as long as it is open.
    pub fn into_socket(self) -> (Stream, BytesMut, OwnedSemaphorePermit) {
        (self.io, self.received, self.slot)
    }

    /// What is known of the rest of the response's body.
    pub(super) fn response(&self) -> &Decoder {
        &self.response
    }

    /// Writes what there is to write, and asks the request's body for more: what is there is gathered, so that
    /// a body in small pieces does not cost a write for each.
    ///
    /// # Errors
    /// When the body cannot be read to its end: the request must be broken off unfinished.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.write_failed {
                // What the upstream says of it, or that it says nothing, is found by reading.
                return Poll::Ready(Ok(()));
            }
            let pending = self.outgoing.gather(cx)?;
            if pending && self.outgoing.waits {
                self.outgoing.waits = false;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if ready!(self.outgoing.poll_write(&mut self.io, cx)).is_err() {
                self.write_failed = true;
                if self.outgoing.begun {
                    self.outgoing.body = Upload::Whole;
                }
                continue;
            }
            if matches!(self.outgoing.body, Upload::Whole) {
                return Poll::Ready(Ok(()));
            }
            if pending {
                return Poll::Pending;
            }
        }
    }

    /// Whether the exchange is over on both sides and the connection may rest.
    pub(super) fn is_complete(&self) -> bool {
        self.keep_alive
            && !self.write_failed
            && self.response.is_done()
            && self.received.is_empty()
            && self.outgoing.is_sent()
    }

    /// Gives back what a resting connection does not need.
    pub(super) fn rest(&mut self) {
        if self.outgoing.bytes.capacity() > KEPT {
            self.outgoing.bytes = Vec::new();
            self.outgoing.written = 0;
        }
        // Empty, but perhaps a part of a large allocation.
        if self.received.capacity() > KEPT {
            self.received = BytesMut::new();
        }
    }

    /// Whether nothing has arrived while it rested, not even its end.
    pub(super) fn is_quiet(&self) -> bool {
        self.io.is_quiet()
    }
}

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Outgoing<B> {
    fn begin(&mut self, request: &request::Parts, added: &[(&HeaderName, &HeaderValue)], body: B) {
        let head = &mut self.bytes;
        head.clear();
        self.written = 0;
        self.begun = false;
        self.to_head = request.method == Method::HEAD;
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        // Writing to a vector does not fail.
        let _ = write!(head, "{} {target} HTTP/1.1\r\n", request.method);
        for (name, value) in &request.headers {
            // Said anew below, by what the body really is.
            if name != header::CONTENT_LENGTH && name != header::TRANSFER_ENCODING {
                line(head, name.as_str(), value.as_bytes());
            }
        }
        self.upgrade = None;
        for (name, value) in added {
            if **name == header::UPGRADE {
                self.upgrade = Some((*value).clone());
            }
            line(head, name.as_str(), value.as_bytes());
        }
        self.body = if body.is_end_stream() {
            if request.headers.contains_key(header::CONTENT_LENGTH) {
                line(head, "content-length", b"0");
            }
            Upload::Whole
        } else if let Some(length) = body.size_hint().exact() {
            let _ = write!(head, "content-length: {length}\r\n");
            Upload::Length(body, length)
        } else {
            line(head, "transfer-encoding", b"chunked");
            Upload::Chunked(body)
        };
        self.waits = !matches!(self.body, Upload::Whole);
        head.extend_from_slice(b"\r\n");
    }

    /// Takes what is there of the body, up to a bound; whether it may bring more later.
    fn gather(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while self.data.is_empty() && self.bytes.len() - self.written < GATHERED {
            let (body, left) = match &mut self.body {
                Upload::Whole => return Ok(false),
                Upload::Length(body, left) => (body, Some(left)),
                Upload::Chunked(body) => (body, None),
            };
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else { return Ok(true) };
            if self.written == self.bytes.len() {
                self.bytes.clear();
                self.written = 0;
            }
            // Trailers never get here; an empty frame says nothing.
            let data = frame.transpose()?.map(|frame| frame.into_data().unwrap_or_default());
            match (data, left) {
                (Some(data), _) if data.is_empty() => {}
                (Some(data), Some(left)) => {
                    *left = left.checked_sub(data.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
                    if *left == 0 {
                        self.body = Upload::Whole;
                    }
                    self.add(data, b"");
                }
                (Some(data), None) => {
                    let _ = write!(self.bytes, "{:x}\r\n", data.len());
                    self.add(data, b"\r\n");
                }
                (None, Some(_)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (None, None) => {
                    self.bytes.extend_from_slice(b"0\r\n\r\n");
                    self.body = Upload::Whole;
                }
            }
        }
        Ok(false)
    }

    fn add(&mut self, data: Bytes, tail: &'static [u8]) {
        if data.len() <= COPIED {
            self.bytes.extend_from_slice(&data);
            self.bytes.extend_from_slice(tail);
        } else {
            self.data = data;
            self.tail = tail;
        }
    }

    fn poll_write(&mut self, io: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.is_written() {
            let bytes = &self.bytes[self.written..];
            let left = bytes.len();
            let mut count = if self.data.is_empty() && self.tail.is_empty() {
                ready!(Pin::new(&mut *io).poll_write(cx, bytes))?
            } else {
                let slices = [IoSlice::new(bytes), IoSlice::new(&self.data), IoSlice::new(self.tail)];
                ready!(Pin::new(&mut *io).poll_write_vectored(cx, &slices))?
            };
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.begun = true;
            let of_bytes = count.min(left);
            self.written += of_bytes;
            count -= of_bytes;
            let of_data = count.min(self.data.len());
            self.data.advance(of_data);
            self.tail = &self.tail[count - of_data..];
        }
        Pin::new(io).poll_flush(cx)
    }

    fn is_written(&self) -> bool {
        self.written == self.bytes.len() && self.data.is_empty() && self.tail.is_empty()
    }

    /// Whether the request has left to its last byte.
    fn is_sent(&self) -> bool {
        matches!(self.body, Upload::Whole) && self.is_written()
    }
}

fn line(head: &mut Vec<u8>, name: &str, value: &[u8]) {
    head.extend_from_slice(name.as_bytes());
    head.extend_from_slice(b": ");
    head.extend_from_slice(value);
    head.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use http::Request;
    use http_body_util::{BodyExt, Full, combinators::BoxBody};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::Semaphore,
    };

    use super::*;

    type TestBody = BoxBody<Bytes, io::Error>;

    async fn pair(listener: &TcpListener) -> (Connection<TestBody>, TcpStream) {
        let address = listener.local_addr().unwrap();
        let (connected, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let slot = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        let limits = HeadLimits { bytes: 8 << 10, count: 10 };
        (Connection::new(connected.unwrap().into(), limits, slot), accepted.unwrap().0)
    }

    fn body(text: &'static str) -> TestBody {
        Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed()
    }

    #[tokio::test]
    async fn a_request_of_which_nothing_left_is_whole_for_another_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut connection, server) = pair(&listener).await;
        // The end that a write meets at once: a reset that has arrived.
        socket2::SockRef::from(&server).set_linger(Some(std::time::Duration::ZERO)).unwrap();
        drop(server);
        poll_fn(|cx| connection.io.poll_read_ready(cx)).await.unwrap();
        let head = Request::builder().method("POST").uri("/x").body(()).unwrap().into_parts().0;
        connection.begin(&head, &[], body("hello"));
        let broken = poll_fn(|cx| connection.poll_response(cx)).await.err().expect("nobody is there");
        assert!(broken.unsent, "{broken}");
        let request = connection.into_request();
        let (mut fresh, mut server) = pair(&listener).await;
        fresh.resume(request);
        let serve = async {
            let mut seen = vec![0; 1_024];
            let length = server.read(&mut seen).await.unwrap();
            server.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            String::from_utf8(seen[..length].to_vec()).unwrap()
        };
        let (response, seen) = tokio::join!(poll_fn(|cx| fresh.poll_response(cx)), serve);
        assert!(matches!(response, Ok(Head::Final(response)) if response.status() == StatusCode::NO_CONTENT));
        assert_eq!(seen, "POST /x HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello");
        assert!(fresh.is_complete());
    }
}
