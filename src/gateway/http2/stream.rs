//! One stream: a request, its response, and the moment by which it must have moved.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, server::SendResponse};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Version, header};
use http_body::{Body, Frame};

use super::{duplex::Duplex, request::Received};
use crate::{
    gateway::{
        deadline::Deadline,
        drain::Draining,
        head::date,
        message::{ClientRequest, ClientResponse},
        response_body::ResponseBody,
        state::ConnectionState,
        tunnel::Tunnel,
        turns::Place,
    },
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
    stream: SendStream<Bytes>,
    body: ResponseBody,
    /// A part of the body that the client has no room for yet, and whether it is the last one.
    part: Bytes,
    is_last: bool,
}

/// A stream.
pub(super) struct Stream {
    state: Arc<ConnectionState>,
    stage: Stage,
    respond: SendResponse<Bytes>,
    /// What a client sends that asked for a tunnel.
    receiving: Option<RecvStream>,
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
        respond: SendResponse<Bytes>,
        draining: Arc<Draining>,
        turn: Place,
    ) -> Self {
        let Received { request, tunnel } = received;
        let to_head = request.head.method == Method::HEAD;
        let handling = Self::handle(state.clone(), request);
        Self {
            state,
            stage: Stage::Service(handling),
            respond,
            receiving: tunnel,
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
                    if let Poll::Ready(response) = handling.as_mut().poll(cx) {
                        match self.begin_response(response) {
                            Ok(true) => continue,
                            Ok(false) => return Poll::Ready(Ok(())),
                            Err(error) => {
                                tracing::debug!(%error, "a response could not be sent");
                                return Poll::Ready(Err(Reason::INTERNAL_ERROR));
                            }
                        }
                    }
                    for hint in self.state.activity.take_hints() {
                        let mut interim = Response::new(());
                        *interim.status_mut() = hint.status;
                        *interim.headers_mut() = hint.fields.into();
                        // A client that has gone is found out below.
                        let _ = self.respond.send_informational(interim);
                    }
                    // A client that gives its request up ends it.
                    return self.respond.poll_reset(cx).map(|_| Ok(()));
                }
                Stage::Response(sending) => return sending.poll(cx, &self.state),
                Stage::Tunnel(tunnel) => return tunnel.poll(cx, &self.state.activity).map(Ok),
            }
        }
    }

    /// Sends the head of a response. Returns whether more follows.
    fn begin_response(&mut self, response: ClientResponse) -> Result<bool, h2::Error> {
        // An interim response would come after the final one.
        self.state.activity.take_hints();
        let ClientResponse { status, fields, body } = response;
        let exact = body.size_hint().exact();
        let mut headers = HeaderMap::from(fields);
        let opening = self.state.activity.opening();
        let opening = opening.and_then(|opening| Some((opening, self.receiving.take()?)));
        let mut head = Response::new(());
        *head.version_mut() = Version::HTTP_2;
        // What HTTP/1.1 calls a switch is a success here (RFC 8441, section 5).
        *head.status_mut() = if opening.is_some() { StatusCode::OK } else { status };
        let hops: Vec<_> = headers.keys().filter(|name| is_hop_by_hop(name.as_str())).cloned().collect();
        hops.iter().for_each(|name| drop(headers.remove(name)));
        if opening.is_some() {
            headers.remove(header::SEC_WEBSOCKET_ACCEPT);
        } else if !self.to_head {
            headers.remove(header::CONTENT_LENGTH);
            let has_content = !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
            if let Some(length) = exact.filter(|_| has_content) {
                headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
            }
        }
        headers.entry(header::DATE).or_insert_with(date);
        *head.headers_mut() = headers;
        // To this client a success means that the tunnel is open.
        let is_no_tunnel = opening.is_none() && self.receiving.take().is_some() && status.is_success();
        if is_no_tunnel {
            *head.status_mut() = StatusCode::BAD_GATEWAY;
            head.headers_mut().remove(header::CONTENT_LENGTH);
        }
        let is_whole = opening.is_none() && (self.to_head || exact == Some(0) || is_no_tunnel);
        let stream = self.respond.send_response(head, is_whole)?;
        if let Some((opening, receiving)) = opening {
            drop(body);
            let duplex = Duplex::new(receiving, stream);
            self.stage = Stage::Tunnel(Box::new(Tunnel::new(duplex, bytes::BytesMut::new(), *opening)));
            return Ok(true);
        }
        if is_whole {
            return Ok(false);
        }
        let sending = Sending { stream, body, part: Bytes::new(), is_last: false };
        self.stage = Stage::Response(Box::new(sending));
        Ok(true)
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.stage {
            Stage::Response(sending) => sending.stream.send_reset(reason),
            Stage::Service(_) => self.respond.send_reset(reason),
            // What its two halves do when they are dropped.
            Stage::Tunnel(_) => {}
        }
    }
}

impl Sending {
    /// Sends what there is of the body, as far as the client has room.
    fn poll(&mut self, cx: &mut Context<'_>, state: &ConnectionState) -> Poll<Result<(), Reason>> {
        loop {
            if self.part.is_empty() && !self.is_last {
                let frame = match Pin::new(&mut self.body).poll_frame(cx) {
                    Poll::Ready(frame) => frame,
                    Poll::Pending => return self.stream.poll_reset(cx).map(|_| Ok(())),
                };
                match frame.transpose() {
                    Ok(frame) => {
                        self.is_last = frame.is_none() || self.body.is_end_stream();
                        match frame.map(Frame::into_data) {
                            Some(Ok(part)) => self.part = part,
                            Some(Err(frame)) => {
                                let trailers = frame.into_trailers().unwrap_or_default();
                                let _ = self.stream.send_trailers(trailers);
                                return Poll::Ready(Ok(()));
                            }
                            None => {}
                        }
                    }
                    Err(error) => return Poll::Ready(Err(reason_of(&error))),
                }
            }
            if self.part.is_empty() {
                if self.is_last {
                    let _ = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            self.stream.reserve_capacity(self.part.len());
            match self.stream.poll_capacity(cx) {
                Poll::Ready(Some(Ok(0))) => {}
                Poll::Ready(Some(Ok(room))) => {
                    let part = self.part.split_to(room.min(self.part.len()));
                    let is_end = self.is_last && self.part.is_empty();
                    if self.stream.send_data(part, is_end).is_err() || is_end {
                        return Poll::Ready(Ok(()));
                    }
                    state.response_leaves();
                }
                // The client has given it up.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    if !self.body.may_wait(cx) {
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
                    this.reset(reason);
                    return Poll::Ready(());
                }
                Poll::Pending => {}
            }
            this.turn.record(state.activity.budget.spent());
            if state.activity.budget.is_spent() {
                this.turn.end(cx);
            }
            let is_tunnel = matches!(this.stage, Stage::Tunnel(_));
            if is_tunnel && this.draining.has_begun() {
                return Poll::Ready(());
            }
            if state.exchange.cut().is_some() || state.is_expired() {
                // The rest of the response may be waiting for a client who has no room, or it did not end by itself.
                this.reset(Reason::CANCEL);
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
