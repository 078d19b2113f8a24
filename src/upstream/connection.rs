//! One HTTP/1.1 connection to an upstream.
//!
//! Our own, and measured: the library's client is a channel, a dispatcher and a state machine that
//! are polled at each turn of the client's side, and cost two fifths of all user time of a request.
//! Here a request is one write and one read, driven by the task that waits for the response.
//!
//! A response's head must have one reading ([`crate::types::framing`]); a connection is used
//! again only when its response came to its end, its request was sent to its end, and nothing lies beyond
//! or may still come.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, StatusCode};
use http_body::Body;
use thiserror::Error;
use tokio::sync::OwnedSemaphorePermit;

use super::{
    framing::{Decoded, Decoder},
    head::ResponseHead,
    outgoing::{Outgoing, RequestHead},
    pool::InFlight,
};
use crate::{
    clock::coarse_millis,
    stream::{SMALL_READ, Stream},
    types::{
        framing::{Framing, HeadLimits, HeadScanner},
        hop_by_hop::{names_option, names_upgrade},
    },
};

/// A well-behaved upstream sends one `100 Continue` or a few `103 Early Hints`.
const MAX_INTERIM: u8 = 8;

/// Why a request got no response. The text is for the log.
#[derive(Debug, Error)]
#[error("{reason}")]
pub struct Broken {
    reason: String,
    /// Not a byte of a response arrived: the connection was closed while it rested, or at once.
    pub unanswered: bool,
    /// It broke off before the head of a response was whole, so the client has no part of a response.
    pub headless: bool,
    /// Not a byte of the request left: it is still whole, for another connection.
    pub unsent: bool,
    /// The server has told that it will not process the request, which is no failure.
    pub refused: bool,
    /// The request's own body ended it.
    of_body: bool,
}

impl Broken {
    /// A stream of HTTP/2 that ended before its response; `refused` if the server did not process the request.
    pub(super) fn of_stream(reason: String, refused: bool) -> Self {
        Self { reason, unanswered: true, headless: true, unsent: refused, refused, of_body: false }
    }

    /// A request that its own body ended.
    pub(super) fn of_body(reason: String) -> Self {
        Self { reason, unanswered: true, headless: true, unsent: false, refused: false, of_body: true }
    }

    /// The same after a part of a response went to the client.
    pub(super) fn answered(self) -> Self {
        Self { unanswered: false, headless: false, unsent: false, refused: false, ..self }
    }

    /// Returns whether the server is to blame.
    pub(super) fn is_of_the_server(&self) -> bool {
        !self.of_body
    }
}

/// What the head of a response is followed by.
pub enum Head {
    /// The response, its body still arriving.
    Final(ResponseHead),
    /// `103 Early Hints`: the response is still to come.
    Hints(ResponseHead),
}

/// A connection, idle or with one exchange on it.
pub struct Connection<B> {
    io: Stream,
    /// Its share of the server's `max_connections`.
    slot: OwnedSemaphorePermit,
    /// Counts the request that is on it, where that matters.
    in_flight: Option<InFlight>,
    made_at: u64,
    /// Whether a request was put on it before.
    used: bool,
    received: BytesMut,
    scanner: HeadScanner,
    limits: HeadLimits,
    outgoing: Outgoing<B>,
    response: Decoder,
    interim: u8,
    /// Whether a head has arrived, an interim one or one that cannot be parsed included.
    answered: bool,
    keep_alive: bool,
}

/// What a connection that has switched is counted by.
#[expect(dead_code, reason = "they count by being there")]
pub struct Counted(OwnedSemaphorePermit, Option<InFlight>);

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Connection<B> {
    /// A connection on which heads of responses have these limits.
    pub(super) fn new(io: Stream, limits: HeadLimits, slot: OwnedSemaphorePermit) -> Self {
        Self {
            io,
            slot,
            in_flight: None,
            made_at: coarse_millis(),
            used: false,
            received: BytesMut::new(),
            scanner: HeadScanner::default(),
            limits,
            outgoing: Outgoing::none(),
            response: Decoder::done(),
            interim: 0,
            answered: false,
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
    pub fn begin(&mut self, request: RequestHead<'_>, added: &[(&HeaderName, &HeaderValue)], body: B) {
        self.reset();
        self.outgoing.begin(&request, added, body);
        request.fields.reuse();
    }

    /// Takes over what counts the request that is on the connection.
    pub(super) fn counts(&mut self, in_flight: Option<InFlight>) {
        self.in_flight = in_flight;
    }

    /// Returns the request for another connection: one of which no byte was sent, or one without a body.
    pub fn into_request(self) -> Outgoing<B> {
        self.outgoing.for_another()
    }

    /// Puts the request of a connection that failed on this one, which must be idle.
    pub fn resume(&mut self, request: Outgoing<B>) {
        self.reset();
        self.outgoing = request;
    }

    fn reset(&mut self) {
        self.used = true;
        self.interim = 0;
        self.answered = false;
        self.keep_alive = true;
        self.scanner = HeadScanner::default();
    }

    /// Sends on, and waits for the head of the response.
    ///
    /// # Errors
    /// [`Broken`]: the connection is of no further use.
    pub fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<Head, Broken>> {
        if let Poll::Ready(Err(error)) = self.outgoing.poll(&mut self.io, cx) {
            // The body's own end; another connection does not mend it.
            return Poll::Ready(Err(Broken {
                unsent: false,
                of_body: true,
                ..self.broken(error.to_string())
            }));
        }
        if self.outgoing.never_left() {
            let reason = "nothing could be written".to_owned();
            return Poll::Ready(Err(Broken {
                reason,
                unanswered: true,
                headless: true,
                unsent: true,
                refused: false,
                of_body: false,
            }));
        }
        loop {
            match self.parse() {
                Ok(Some(head)) => return Poll::Ready(Ok(head)),
                Ok(None) => {}
                Err(reason) => return Poll::Ready(Err(self.broken(reason.to_owned()))),
            }
            match ready!(self.io.poll_receive(cx, &mut self.received, SMALL_READ)) {
                Ok(0) => return Poll::Ready(Err(self.cut_off("closed without a response".to_owned()))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(self.cut_off(error.to_string()))),
            }
        }
    }

    fn cut_off(&self, reason: String) -> Broken {
        Broken { headless: !self.answered, ..self.broken(reason) }
    }

    fn broken(&self, reason: String) -> Broken {
        let unanswered = self.received.is_empty() && !self.answered;
        let unsent = unanswered && !self.outgoing.has_begun();
        // A server that gives up on a body that does not come is not to blame.
        let of_body = !unsent && self.outgoing.is_uploading();
        Broken { reason, unanswered, headless: unanswered, unsent, refused: false, of_body }
    }

    /// Parses the head of the response. Returns `None` while it is incomplete.
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
            self.answered = true;
            self.scanner = HeadScanner::default();
            if head.status >= 200 {
                let response = ResponseHead::parse(&bytes, &head)?;
                self.follow(&response, head.framing);
                return Ok(Some(Head::Final(response)));
            }
            self.interim += 1;
            // It has no content (RFC 9110, section 15.2): what stands behind it is the next head.
            if !matches!(head.framing, Framing::None | Framing::Length(0)) {
                return Err("an interim response with a body");
            }
            if head.status == 101 && self.outgoing.upgrade().is_some() {
                let response = ResponseHead::parse(&bytes, &head)?;
                let is_asked = |asked| names_upgrade(&response.fields, asked);
                if !self.outgoing.upgrade().is_some_and(is_asked) {
                    return Err("the upstream switches to what nobody asked for");
                }
                return Ok(Some(Head::Final(response)));
            }
            if head.status < 100 || head.status == 101 || self.interim > MAX_INTERIM {
                return Err("an interim response that nobody asked for");
            }
            if head.status == 103 {
                return Ok(Some(Head::Hints(ResponseHead::parse(&bytes, &head)?)));
            }
        }
    }

    /// Takes note of where the response ends (RFC 9112, section 6.3) and whether another may follow.
    fn follow(&mut self, response: &ResponseHead, framing: Framing) {
        let status = response.status;
        let bodiless = status == StatusCode::NO_CONTENT || status == StatusCode::NOT_MODIFIED;
        self.response = match framing {
            _ if self.outgoing.is_to_head() || bodiless => {
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
        let says = |word: &str| names_option(&response.fields, word);
        if says("close") || (response.old && !says("keep-alive")) {
            self.keep_alive = false;
        }
    }

    /// Sends on.
    ///
    /// # Errors
    /// The body's own.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.outgoing.poll(&mut self.io, cx)
    }

    /// The next part of the response's body.
    pub(super) fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        if let Poll::Ready(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        loop {
            let wanted = match self.response.decode(&mut self.received) {
                Decoded::Data(data) => return Poll::Ready(Some(Ok(data))),
                Decoded::End => return Poll::Ready(None),
                Decoded::Bad => {
                    let error =
                        io::Error::new(io::ErrorKind::InvalidData, "the response's chunks are broken");
                    return Poll::Ready(Some(Err(error)));
                }
                Decoded::More(wanted) => wanted,
            };
            match ready!(self.io.poll_receive(cx, &mut self.received, wanted)) {
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

    /// The bare socket of a connection that has switched, what came behind the response, and what it is counted by for as
    /// long as it is open.
    pub fn into_socket(self) -> (Stream, BytesMut, Counted) {
        (self.io, self.received, Counted(self.slot, self.in_flight))
    }

    /// Returns the state of the response's body.
    pub(super) fn response(&self) -> &Decoder {
        &self.response
    }

    /// Returns whether all of a response was received whose length was told.
    pub(super) fn has_whole_response(&self) -> bool {
        self.response.remaining().is_some_and(|left| left <= self.received.len() as u64)
    }

    /// Whether the exchange is over on both sides and the connection may rest.
    pub(super) fn is_complete(&self) -> bool {
        self.keep_alive && self.response.is_done() && self.received.is_empty() && self.outgoing.is_sent()
    }

    /// Frees what an idle connection does not need.
    pub(super) fn rest(&mut self) {
        self.in_flight = None;
        self.outgoing.rest();
        self.received = BytesMut::new();
    }

    /// Whether nothing has arrived while it rested, not even its end.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.io.is_quiet()
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::Arc};

    use http::{Method, Uri};
    use http_body_util::{BodyExt, Full, combinators::BoxBody};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::Semaphore,
    };

    use super::*;
    use crate::types::fields::Fields;

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
        let (method, uri, fields) = (Method::POST, Uri::from_static("/x"), Fields::default());
        let head = RequestHead { method: &method, uri: &uri, fields };
        connection.begin(head, &[], body("hello"));
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
        assert!(matches!(response, Ok(Head::Final(response)) if response.status == StatusCode::NO_CONTENT));
        assert_eq!(seen, "POST /x HTTP/1.1\r\ncontent-length: 5\r\n\r\nhello");
        assert!(fresh.is_complete());
    }

    #[tokio::test]
    async fn a_head_that_cannot_be_parsed_is_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (mut connection, mut server) = pair(&listener).await;
        let (method, uri, fields) = (Method::GET, Uri::from_static("/x"), Fields::default());
        connection.begin(RequestHead { method: &method, uri: &uri, fields }, &[], body(""));
        server.write_all(b"HTTP/1.1 200 OK\r\nX y: z\r\n\r\n").await.unwrap();
        let broken = poll_fn(|cx| connection.poll_response(cx)).await.err().expect("the name has a blank");
        assert!(!broken.unanswered, "it would be sent again: {broken}");
    }
}
