//! HTTP/1.1 towards clients (RFC 9112): one request after the other, each with its response.
//!
//! Our own, and measured: a library's server parses each head once more, keeps buffers and maps in every connection, and is
//! polled as several state machines. Here one loop reads a head, drives the service, and writes the response; what it needs
//! for that belongs to the request and lies in the processor's cache.

use std::{
    cell::RefCell,
    future::Future,
    io::{self, Write as _},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use http::{Method, StatusCode, Version, header};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    activity::Activity,
    head::{Asked, Delimiter, Received, format, interim},
    ids,
    inbound::{Inbound, SharedInbound},
    message::{ClientRequest, ClientResponse},
    record, refusal,
    request_body::Incoming,
    response_body::ResponseBody,
    state::ConnectionState,
    thread_bound::ThreadBound,
};
use crate::{
    error::Kind,
    stream::{Stream, Unsent, traffic},
};

/// The size of a read that discards what a client still sends, in bytes.
const LINGER_BUFFER: usize = 16 << 10;

/// Room for the head of most responses and a small body, in bytes.
const RESPONSE_CAPACITY: usize = 1 << 10;

/// The stage of the connection.
enum Stage {
    /// Waits for a head, or reads one.
    Head,
    /// The service handles a request.
    Service,
    /// A response is being sent whose body is not complete.
    Response(Box<Sending>),
    /// The gathered bytes are the last ones.
    Last,
    /// The gateway sends no more, and drops what the client still sends, until a coarse time.
    Lingering(u64),
    /// The connection is over.
    Over,
}

/// The body of a response that is being sent.
struct Sending {
    body: ResponseBody,
    chunked: bool,
    /// The bytes that are still to come, if the head has told a length.
    left: Option<u64>,
    hold: Hold,
}

/// Whether a head waits for its body before it is written. Many servers send the two one after the other, so that the second is there
/// when the worker looks at its sockets next; and one write costs half of two.
enum Hold {
    /// It waits for that look.
    Begins,
    /// That look was taken.
    Ends,
    /// It waits for nothing.
    Over,
}

/// What became of a body whose available part was gathered.
enum Gathered {
    /// It is complete.
    All,
    /// More follows later.
    Part,
    /// More may be there once the gathered bytes were written.
    Full,
}

impl Sending {
    /// Gathers the available part of the body, up to a bound.
    fn gather(&mut self, unsent: &mut Unsent, cx: &mut Context<'_>) -> io::Result<Gathered> {
        while unsent.has_room() {
            let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
                return Ok(Gathered::Part);
            };
            // The body yields no trailers.
            let data = frame.transpose()?.map(|frame| frame.into_data().unwrap_or_default());
            let is_over = data.is_none() || self.body.is_end_stream();
            let data = data.unwrap_or_default();
            // What the head has said holds, whatever comes: anything else would be read as the next response.
            if let Some(left) = &mut self.left {
                *left = left.checked_sub(data.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
                if is_over && *left > 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            if self.chunked && !data.is_empty() {
                // Writing to a vector does not fail.
                let _ = write!(unsent.bytes(), "{:x}\r\n", data.len());
            }
            let tail: &[u8] = match (self.chunked, data.is_empty(), is_over) {
                (true, true, true) => b"0\r\n\r\n",
                (true, false, true) => b"\r\n0\r\n\r\n",
                (true, false, false) => b"\r\n",
                _ => b"",
            };
            unsent.add(data, tail);
            if is_over {
                return Ok(Gathered::All);
            }
        }
        Ok(Gathered::Full)
    }
}

/// An HTTP/1.1 connection whose requests are handled by futures of type `F`.
pub(super) struct Http1<S, F> {
    state: Arc<ConnectionState>,
    /// What the client sends.
    inbound: Arc<SharedInbound>,
    service: S,
    handling: Option<Pin<Box<F>>>,
    stage: Stage,
    unsent: Unsent,
    /// Whether what was written may lie before the socket.
    unflushed: bool,
    asked: Asked,
    /// Whether the client sends another request after the response.
    keep_alive: bool,
    /// Whether no further request is read.
    ends: bool,
    /// Whether a head was refused. The client may still be sending.
    refused: bool,
}

impl<S, F> Http1<S, F>
where
    S: Fn(Arc<ConnectionState>, ClientRequest) -> F,
    F: Future<Output = ClientResponse>,
{
    /// Creates a connection whose bytes arrive as `inbound`.
    pub(super) fn new(state: Arc<ConnectionState>, inbound: Inbound, service: S) -> Self {
        Self {
            state,
            inbound: Arc::new(ThreadBound::new(RefCell::new(Some(inbound)))),
            service,
            handling: None,
            stage: Stage::Head,
            unsent: Unsent::default(),
            unflushed: false,
            asked: Asked { is_old: false, to_head: false },
            keep_alive: true,
            ends: false,
            refused: false,
        }
    }

    /// Ends the connection with the response in progress, or at once if none is.
    pub(super) fn drain(&mut self) {
        self.ends = true;
    }

    /// Returns whether the connection waits for a request and nothing else.
    pub(super) fn is_idle(&self) -> bool {
        let inbound = self.inbound.borrow();
        matches!(self.stage, Stage::Head)
            && self.is_sent()
            && inbound.as_ref().is_some_and(Inbound::is_between_requests)
    }

    /// Returns whether the last response was sent and the connection closes.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.stage, Stage::Lingering(_) | Stage::Over)
    }

    /// Serves requests until the connection ends or becomes a tunnel.
    ///
    /// # Errors
    /// When the socket fails, or either side breaks off.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match &mut self.stage {
                Stage::Head => {
                    ready!(self.poll_send(cx))?;
                    ready!(self.poll_head(cx))?;
                }
                Stage::Service => {
                    let Some(handling) = &mut self.handling else { return Poll::Ready(Ok(())) };
                    match handling.as_mut().poll(cx) {
                        Poll::Ready(response) => {
                            self.handling = None;
                            self.begin_response(response, cx)?;
                        }
                        Poll::Pending => return self.wait(cx),
                    }
                }
                Stage::Response(_) => ready!(self.poll_response(cx))?,
                Stage::Last => {
                    ready!(self.poll_send(cx))?;
                    if self.state.activity.is_opening() {
                        return Poll::Ready(Ok(()));
                    }
                    ready!(self.poll_shutdown(cx))?;
                }
                Stage::Lingering(until) => {
                    let until = *until;
                    ready!(self.poll_discard(cx, until))?;
                }
                Stage::Over => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Returns whether nothing is left to be sent.
    fn is_sent(&self) -> bool {
        self.unsent.is_empty() && !self.unflushed
    }

    fn activity(&self) -> &Activity {
        &self.state.activity
    }

    /// Uses what the client sends.
    fn with_inbound<T>(&self, run: impl FnOnce(&mut Inbound) -> T) -> io::Result<T> {
        let mut inbound = self.inbound.borrow_mut();
        inbound.as_mut().map(run).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// Reads the next head and hands it to the service.
    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unsent = Unsent::default();
        let activity = self.activity();
        let between = self.with_inbound(|inbound| {
            if !inbound.is_between_requests() || (self.ends && inbound.is_idle()) {
                return None;
            }
            Some(inbound.poll_head(cx, activity))
        })?;
        match between {
            Some(Poll::Pending) => return Poll::Pending,
            Some(Poll::Ready(Err(error))) => return Poll::Ready(Err(error)),
            Some(Poll::Ready(Ok(Ok(Some(head))))) => self.begin_request(head),
            Some(Poll::Ready(Ok(Err(kind)))) => self.refuse(kind)?,
            Some(Poll::Ready(Ok(Ok(None)))) => self.stage = Stage::Over,
            None => self.stage = Stage::Last,
        }
        Poll::Ready(Ok(()))
    }

    fn begin_request(&mut self, received: Received) {
        let Received { head, keep_alive, .. } = received;
        self.asked = Asked { is_old: head.version == Version::HTTP_10, to_head: head.method == Method::HEAD };
        self.keep_alive = keep_alive;
        let request = ClientRequest { head, refused: None, body: Incoming::of(&self.inbound) };
        self.handling = Some(Box::pin((self.service)(self.state.clone(), request)));
        self.stage = Stage::Service;
    }

    /// Responds to a head that never becomes a request. The response is counted and logged as any other.
    fn refuse(&mut self, kind: Kind) -> io::Result<()> {
        let to_head = self.with_inbound(Inbound::refuse)?;
        self.activity().refuses();
        let id = ids::request_id();
        record::refused(&self.state, kind, &id);
        refusal::raw(self.unsent.begin(), kind, &id, to_head);
        self.refused = true;
        self.stage = Stage::Last;
        Ok(())
    }

    /// Waits for the service, and meanwhile sends interim responses. A client that goes ends its request.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        for hint in self.activity().take_hints() {
            // One that could not be written before the next ones came is dropped.
            if self.unsent.has_room() {
                self.unsent.bytes().extend_from_slice(&interim(hint.status, &hint.fields));
            }
        }
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        self.poll_gone(cx)
    }

    fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.with_inbound(|inbound| inbound.poll_gone(cx))? {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Formats the head of a response, and gathers what is there of its body.
    fn begin_response(&mut self, response: ClientResponse, cx: &mut Context<'_>) -> io::Result<()> {
        // An interim response would come after the final one.
        self.activity().take_hints();
        let ClientResponse { status, fields, body } = response;
        let exact = body.size_hint().exact();
        let delimiter = match (status, exact) {
            (StatusCode::SWITCHING_PROTOCOLS | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED, _) => {
                Delimiter::Nothing
            }
            (_, None | Some(0)) if self.asked.to_head => Delimiter::Nothing,
            (_, Some(length)) => Delimiter::Length(length),
            (_, None) if self.asked.is_old => Delimiter::Close,
            (_, None) => Delimiter::Chunked,
        };
        let closes = fields.get(&header::CONNECTION).is_some_and(|value| value == "close");
        self.ends |= closes
            || !self.keep_alive
            || delimiter == Delimiter::Close
            || status == StatusCode::SWITCHING_PROTOCOLS;
        let out = self.unsent.bytes();
        out.reserve(RESPONSE_CAPACITY);
        {
            let mut limits = self.state.exchange.limit_lines();
            format(out, self.asked, status, &fields, limits.as_bytes(), delimiter, self.ends);
            limits.clear();
        }
        fields.reuse();
        let has_body = delimiter != Delimiter::Nothing && !self.asked.to_head && exact != Some(0);
        let left = if let Delimiter::Length(length) = delimiter { Some(length) } else { None };
        let mut sending = Sending { body, chunked: delimiter == Delimiter::Chunked, left, hold: Hold::Over };
        let length_of_head = self.unsent.len();
        if !has_body || matches!(sending.gather(&mut self.unsent, cx)?, Gathered::All) {
            drop(sending);
            self.response_ends();
        } else {
            if self.unsent.len() == length_of_head {
                sending.hold = Hold::Begins;
            }
            self.stage = Stage::Response(Box::new(sending));
        }
        Ok(())
    }

    /// Goes on to the next request. The exchange is over, and the end of the response may still have to be written.
    fn response_ends(&mut self) {
        // A tunnel goes on.
        if !(self.ends && self.activity().is_opening()) {
            self.state.judged.forget();
        }
        self.stage = if self.ends { Stage::Last } else { Stage::Head };
    }

    /// Ready once a head has waited for its body, with whether it has just done so.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let Stage::Response(sending) = &mut self.stage else { return Poll::Ready(false) };
        match sending.hold {
            Hold::Begins => {
                sending.hold = Hold::Ends;
                // The runtime wakes those who yield once it has looked at the sockets.
                pin!(tokio::task::yield_now()).poll(cx).map(|()| true)
            }
            Hold::Ends => {
                sending.hold = Hold::Over;
                Poll::Ready(true)
            }
            Hold::Over => Poll::Ready(false),
        }
    }

    /// Sends the response as it arrives.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let has_waited = ready!(self.poll_hold(cx));
            if !has_waited && self.poll_send(cx)?.is_pending() {
                let Stage::Response(sending) = &mut self.stage else { return Poll::Pending };
                // A client that reads nothing makes it a long one, which ends with its token.
                return if sending.body.may_wait(cx, self.unsent.len()) {
                    Poll::Pending
                } else {
                    Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()))
                };
            }
            let Stage::Response(sending) = &mut self.stage else { return Poll::Ready(Ok(())) };
            let gathered = sending.gather(&mut self.unsent, cx).inspect_err(|error| {
                if error.kind() != io::ErrorKind::ConnectionAborted {
                    // The server broke off; the head that waited is the client's, unless its token has died.
                    let _ = self.poll_send(cx);
                }
            })?;
            match gathered {
                Gathered::All => self.response_ends(),
                Gathered::Full => {}
                Gathered::Part => {
                    ready!(self.poll_send(cx))?;
                    return self.poll_gone(cx);
                }
            }
        }
    }

    /// Writes what was gathered.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_sent() {
            return Poll::Ready(Ok(()));
        }
        let mut inbound = self.inbound.borrow_mut();
        let Some(inbound) = &mut *inbound else { return Poll::Ready(Ok(())) };
        let socket = inbound.socket();
        while !self.is_sent() {
            let sent = if self.unsent.is_empty() {
                Pin::new(&mut *socket).poll_flush(cx).map_ok(|()| self.unflushed = false)
            } else {
                self.unsent.poll_write(socket, cx).map_ok(|count| {
                    traffic::sent(count);
                    self.unflushed = socket.holds_back();
                })
            };
            match sent {
                Poll::Ready(Ok(())) => self.state.response_leaves(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    self.state.activity.client_blocks();
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Tells the client that nothing more comes.
    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let more_expected = ready!(self.with_inbound(|inbound| {
            Pin::new(inbound.socket()).poll_shutdown(cx).map_ok(|()| !inbound.is_between_requests())
        })?)?;
        let more_expected = more_expected || self.refused || self.state.exchange.body_is_open();
        let until = self.activity().lingers(more_expected);
        self.stage = Stage::Lingering(until);
        Poll::Ready(Ok(()))
    }

    /// Drops what the client still sends, so that closing does not destroy the response on its way.
    fn poll_discard(&mut self, cx: &mut Context<'_>, until: u64) -> Poll<io::Result<()>> {
        let mut scratch = [0; LINGER_BUFFER];
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(self.with_inbound(|inbound| Pin::new(inbound.socket()).poll_read(cx, &mut buffer))?)?;
            if buffer.filled().is_empty() {
                self.stage = Stage::Over;
                return Poll::Ready(Ok(()));
            }
            self.activity().lingers_on(until);
            self.activity().budget.spends(buffer.filled().len());
            if self.activity().budget.is_spent() {
                return Poll::Pending;
            }
        }
    }

    /// Returns whether the service handles a request and no part of a response was gathered.
    pub(super) fn is_in_service(&self) -> bool {
        matches!(self.stage, Stage::Service)
    }

    /// Returns the socket of a connection that rests, and the bytes that were read and not processed.
    pub(super) fn rest(&mut self) -> Option<(Stream, BytesMut)> {
        self.with_inbound(Inbound::drop_empty_lines).ok()?;
        self.take_socket()
    }

    /// Returns the socket and the bytes that were read and not processed, if nothing is left to be written.
    pub(super) fn take_socket(&mut self) -> Option<(Stream, BytesMut)> {
        if !self.is_sent() {
            return None;
        }
        self.inbound.borrow_mut().take().map(Inbound::into_parts)
    }
}
