//! One stream: a request, its response, and the moment by which it must have moved.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::{Method, StatusCode, header};
use http_body::{Body, Frame};

use super::{duplex::Duplex, request::Received};
use crate::{
    gateway::{
        deadline::Deadline,
        drain::Draining,
        grpc,
        head::date,
        message::{ClientRequest, ClientResponse},
        response_body::ResponseBody,
        state::ConnectionState,
        tunnel::Tunnel,
        turns::Place,
    },
    http2::{self, Failure, Reason},
    types::hop_by_hop::is_hop_by_hop,
};

/// The future of a request's response.
type Handling = Pin<Box<dyn Future<Output = ClientResponse> + Send>>;

/// How far a stream has come.
enum Stage {
    /// The service handles the request.
    Service(Handling),
    /// The response is being sent.
    Response(Box<Sending>),
    /// It carries a WebSocket (RFC 8441).
    Tunnel(Box<Tunnel<Duplex>>),
}

/// A response that is being sent.
struct Sending {
    body: ResponseBody,
    /// A part of the body that the client has no room for yet, and whether it is the last one.
    part: Bytes,
    is_last: bool,
    /// Whether it is the response to a call of gRPC, of no length that was told: a body cut short of that may not end like a whole one.
    is_call: bool,
}

/// A stream.
pub(super) struct Stream {
    state: Arc<ConnectionState>,
    stage: Stage,
    stream: Arc<http2::Stream>,
    /// Whether the client asks for a tunnel.
    is_tunnel: bool,
    to_head: bool,
    deadline: Pin<Box<Deadline>>,
    draining: Arc<Draining>,
    place: Option<usize>,
    turn: Place,
}

impl Drop for Stream {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.draining.leave(place);
        }
    }
}

impl Stream {
    /// Begins to serve a request.
    pub(super) fn new(
        state: Arc<ConnectionState>,
        received: Received,
        draining: Arc<Draining>,
        turn: Place,
    ) -> Self {
        let Received { request, stream, is_tunnel } = received;
        let to_head = request.head.method == Method::HEAD;
        let handling = Self::handle(state.clone(), request);
        Self {
            state,
            stage: Stage::Service(handling),
            stream,
            is_tunnel,
            to_head,
            deadline: Box::pin(Deadline::new()),
            draining,
            place: None,
            turn,
        }
    }

    fn handle(state: Arc<ConnectionState>, request: ClientRequest) -> Handling {
        Box::pin(state.serve(request))
    }

    /// Goes on. Ready when the stream is over.
    fn poll_stage(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Reason>> {
        loop {
            match &mut self.stage {
                Stage::Service(handling) => {
                    // A client that gives its request up ends it.
                    if self.stream.poll_failure(cx).is_ready() {
                        return Poll::Ready(Ok(()));
                    }
                    if let Poll::Ready(response) = handling.as_mut().poll(cx) {
                        match self.begin_response(response) {
                            Ok(true) => continue,
                            // A client that has gone misses nothing.
                            Ok(false) | Err(_) => return Poll::Ready(Ok(())),
                        }
                    }
                    for hint in self.state.activity.take_hints() {
                        let lines = hint.fields.iter().filter(|(name, _)| !is_hop_by_hop(name.as_str()));
                        let lines = lines.map(|(name, value)| (name.as_str(), value.as_bytes()));
                        // A client that has gone is found out below.
                        let _ = self.stream.send_head(hint.status, lines, false);
                    }
                    return Poll::Pending;
                }
                Stage::Response(sending) => return sending.poll(cx, &self.stream, &self.state),
                Stage::Tunnel(tunnel) => return tunnel.poll(cx, &self.state.activity).map(Ok),
            }
        }
    }

    /// Sends the head of a response. Returns whether more follows.
    fn begin_response(&mut self, response: ClientResponse) -> Result<bool, Failure> {
        // An interim response would come after the final one.
        self.state.activity.take_hints();
        let ClientResponse { status, fields, body } = response;
        let opening = self.state.activity.opening().filter(|_| self.is_tunnel);
        let exact = body.size_hint().exact();
        // To this client a success means that the tunnel is open.
        let is_no_tunnel = opening.is_none() && self.is_tunnel && status.is_success();
        // What HTTP/1.1 calls a switch is a success here (RFC 8441, section 5).
        let status = match &opening {
            Some(_) => StatusCode::OK,
            None if is_no_tunnel => StatusCode::BAD_GATEWAY,
            None => status,
        };
        let tells_length = self.to_head && !is_no_tunnel && opening.is_none();
        let has_content = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let length = exact.filter(|_| has_content && !tells_length && opening.is_none());
        let length = if is_no_tunnel { Some(0) } else { length };
        let mut digits = itoa::Buffer::new();
        let length = length.map(|length| digits.format(length));
        let date = (!fields.contains(&header::DATE)).then(date);
        let mut limits = self.state.exchange.limit_lines();
        let lines = fields.iter().filter(|(name, _)| match *name {
            header::CONTENT_LENGTH => tells_length,
            header::SEC_WEBSOCKET_ACCEPT => opening.is_none(),
            _ => !is_hop_by_hop(name.as_str()),
        });
        let lines = lines
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .chain(length.map(|length| ("content-length", length.as_bytes())))
            .chain(date.as_ref().map(|date| ("date", date.as_bytes())))
            .chain(limits.pairs().into_iter().flatten());
        let is_whole = opening.is_none() && (self.to_head || body.is_end_stream() || is_no_tunnel);
        let sent = self.stream.send_head(status, lines, is_whole);
        limits.clear();
        drop(limits);
        sent?;
        let is_call = !is_whole && exact.is_none() && grpc::is_of_a_call(&fields);
        fields.reuse();
        if let Some(opening) = opening {
            drop(body);
            let duplex = Duplex::new(self.stream.clone());
            self.stage = Stage::Tunnel(Box::new(Tunnel::new(duplex, BytesMut::new(), *opening)));
            return Ok(true);
        }
        if is_whole {
            return Ok(false);
        }
        self.stage = Stage::Response(Box::new(Sending { body, part: Bytes::new(), is_last: false, is_call }));
        Ok(true)
    }

    fn reset(&self, reason: Reason) {
        self.stream.reset(reason);
    }

    /// Ends a response that breaks off. A call whose deadline has passed ends with a status that says so.
    fn breaks_off(&self, reason: Reason) {
        let is_late = self.state.exchange.cut().is_none() && self.state.is_expired();
        match &self.stage {
            Stage::Response(sending) if sending.is_call && is_late => {
                // A client that has gone misses nothing.
                let _ = self.stream.send_trailers(grpc::deadline_exceeded());
            }
            _ => self.reset(reason),
        }
    }
}

impl Sending {
    /// Sends what there is of the body, as far as the client has room.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        stream: &http2::Stream,
        state: &ConnectionState,
    ) -> Poll<Result<(), Reason>> {
        loop {
            if self.part.is_empty() && !self.is_last {
                let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending => return stream.poll_failure(cx).map(|_| Ok(())),
                };
                match frame.transpose() {
                    Ok(frame) => {
                        self.is_last = frame.is_none() || self.body.is_end_stream();
                        match frame.map(Frame::into_data) {
                            Some(Ok(part)) => self.part = part,
                            Some(Err(frame)) => {
                                let trailers = frame.into_trailers().unwrap_or_default();
                                let lines = trailers.iter();
                                let _ = stream.send_trailers(
                                    lines.map(|(name, value)| (name.as_str(), value.as_bytes())),
                                );
                                return Poll::Ready(Ok(()));
                            }
                            None => {}
                        }
                    }
                    Err(error) => return Poll::Ready(Err(reason_of(&error))),
                }
            }
            if self.part.is_empty() && !self.is_last {
                continue;
            }
            let before = self.part.len();
            let sent = stream.poll_send(cx, &mut self.part, self.is_last);
            if self.part.len() < before {
                state.response_leaves();
            }
            match sent {
                Poll::Ready(Ok(())) if !self.is_last => {}
                // It is whole, or the client has given it up.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    if !self.body.may_wait(cx, self.part.len()) {
                        return Poll::Ready(Err(Reason::CANCEL));
                    }
                    state.activity.client_blocks();
                    return Poll::Pending;
                }
            }
        }
    }
}

/// The reason that a client is told for a response that breaks off.
fn reason_of(error: &io::Error) -> Reason {
    match error.kind() {
        io::ErrorKind::ConnectionAborted | io::ErrorKind::TimedOut => Reason::CANCEL,
        _ => Reason::INTERNAL_ERROR,
    }
}

impl Future for Stream {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let state = this.state.clone();
        state.judge_again();
        if this.turn.poll(cx).is_pending() && state.exchange.cut().is_none() {
            return Poll::Pending;
        }
        state.activity.turn_begins();
        if this.place.is_none() {
            this.place = Some(this.draining.enter(cx.waker()));
        }
        if state.exchange.cut().is_some() && !matches!(this.stage, Stage::Service(_)) {
            // Its token has died.
            this.reset(Reason::CANCEL);
            return Poll::Ready(());
        }
        loop {
            match this.poll_stage(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                Poll::Ready(Err(reason)) => {
                    this.breaks_off(reason);
                    return Poll::Ready(());
                }
                Poll::Pending => {}
            }
            this.turn.record(state.activity.budget.spent());
            if state.activity.budget.is_spent() {
                this.turn.end(cx);
            }
            let is_tunnel = matches!(this.stage, Stage::Tunnel(_));
            if is_tunnel && this.draining.is_of_the_process() {
                return Poll::Ready(());
            }
            if state.exchange.cut().is_some() || state.is_expired() {
                // The rest of the response may be waiting for a client who has no room, or it did not end by itself.
                this.breaks_off(Reason::CANCEL);
                return Poll::Ready(());
            }
            let (now, due) = state.clock();
            if now >= due {
                // The request in progress notices its deadline and responds.
                if state.expire() || (is_tunnel && state.activity.waits_on()) {
                    continue;
                }
                this.reset(Reason::CANCEL);
                return Poll::Ready(());
            }
            ready!(this.deadline.as_mut().poll(cx, now, due));
        }
    }
}
