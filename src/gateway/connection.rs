//! One client connection: the library's connection, and the one timer that bounds it.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    rt::Write,
    server::conn::http1,
    service::{Service, service_fn},
};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::{
    client::Peer,
    drain::Draining,
    exchange::{Exchange, Phase},
    guard::Guard,
    response_body::ResponseBody,
    state::ConnectionState,
    target::Scheme,
    tunnel::Tunnel,
    turns::Place,
    view::CurrentView,
};
use crate::{stream::Stream, types::framing::HeadLimits};

/// How far the exchange's clock may be behind the timer's.
const CLOCK_GRAIN_MILLIS: u64 = 5;

/// The library's own count of headers, for which it needs no allocation; the guard's comes first.
const LIBRARY_HEADERS: usize = 100;

/// A connection that rests: nothing is under way on it.
pub(super) struct Resting {
    /// The socket.
    pub(super) socket: Stream,
    /// What was read from it and not looked at.
    pub(super) early: BytesMut,
    /// Until when it may go on so, as a moment of the exchange's.
    pub(super) until: u64,
}

/// What is served, and for whom.
pub(super) struct Client {
    /// The socket.
    pub(super) socket: Stream,
    /// What was read from it before.
    pub(super) early: BytesMut,
    /// When it was to be closed, if it rested.
    pub(super) rested_until: Option<u64>,
    /// The other end.
    pub(super) peer: Peer,
    /// Its place among the others.
    pub(super) turn: Place,
}

/// Serves a connection until it ends, expires, or the drain lets it end; or until it rests.
pub(super) async fn serve(
    client: Client,
    views: Arc<CurrentView>,
    draining: Arc<Draining>,
) -> Option<Resting> {
    let Client { socket, early, rested_until, peer, turn } = client;
    // What bounds the connection itself stays as it is now until it rests, or ends.
    let (limits, access) = {
        let view = views.get();
        (view.snapshot.limits, view.snapshot.access.clone())
    };
    let exchange = Arc::new(Exchange::new(&limits, access, rested_until));
    let head_limits = HeadLimits { bytes: limits.header_bytes, count: limits.header_count };
    let state = Arc::new(ConnectionState { views, scheme: Scheme::Http, peer, exchange: exchange.clone() });
    let guard = Guard::new(socket, early, state.clone(), head_limits);
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes.max(64 << 10) + (8 << 10));
    if limits.header_count > LIBRARY_HEADERS {
        builder.max_headers(limits.header_count);
    }
    let service = service_fn(move |request: Request<Incoming>| {
        let state = state.clone();
        async move { Ok::<Response<ResponseBody>, Infallible>(state.serve(request).await) }
    });
    let connection = builder.serve_connection(guard, service);
    let timer = tokio::time::sleep(limits.idle_timeout);
    let stage = Stage::Serving(connection);
    Bounded { stage, timer, armed: u64::MAX, exchange, draining, turn, place: None, told: false }.await
}

/// What a connection is: served by the library; a tunnel; or, when the library is done, what is left of it.
/// The library does not close the sending side of one on which a client once said `Upgrade`, so that is
/// seen to here.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every connection is served; another allocation gains nothing"
)]
enum Stage<S>
where
    S: Service<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible>,
{
    Serving(http1::Connection<Guard, S>),
    Tunnel(Box<Tunnel>),
    Closing(Box<Guard>),
    Over,
}

impl<S> Stage<S>
where
    S: Service<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible>,
{
    fn poll(&mut self, cx: &mut TaskContext<'_>, exchange: &Exchange) -> Poll<()> {
        if let Self::Serving(connection) = self {
            if let Err(error) = ready!(Pin::new(connection).poll(cx)) {
                // A client that breaks off is no event.
                tracing::debug!(%error, "connection ended");
                return Poll::Ready(());
            }
            *self = match std::mem::replace(self, Self::Over) {
                Self::Serving(connection) => Self::after(connection, exchange),
                other => other,
            };
        }
        match self {
            Self::Tunnel(tunnel) => tunnel.poll(cx, exchange),
            Self::Closing(guard) => Pin::new(&mut **guard).poll_shutdown(cx).map(drop),
            Self::Serving(_) | Self::Over => Poll::Ready(()),
        }
    }

    /// Gives back what serves requests, where the connection rests between two of them.
    fn rest(&mut self, until: u64) -> Option<Resting> {
        let Self::Serving(connection) = std::mem::replace(self, Self::Over) else { return None };
        let parts = connection.into_parts();
        let mut early = BytesMut::from(&parts.read_buf[..]);
        let (socket, held) = parts.io.into_resting_socket()?;
        early.unsplit(held);
        Some(Resting { socket, early, until })
    }

    fn after(connection: http1::Connection<Guard, S>, exchange: &Exchange) -> Self {
        let parts = connection.into_parts();
        let Some(opening) = exchange.opening() else { return Self::Closing(Box::new(parts.io)) };
        match parts.io.into_socket() {
            // The guard hands over a head and nothing behind it.
            Some((client, early)) if parts.read_buf.is_empty() => {
                Self::Tunnel(Box::new(Tunnel::new(client, early, opening)))
            }
            _ => Self::Over,
        }
    }
}

pin_project! {
    /// A connection with its timer.
    struct Bounded<S>
    where
        S: Service<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible>,
    {
        stage: Stage<S>,
        #[pin]
        timer: Sleep,
        // When the timer will fire, as a moment of the exchange.
        armed: u64,
        exchange: Arc<Exchange>,
        draining: Arc<Draining>,
        turn: Place,
        // Where the draining finds this connection.
        place: Option<usize>,
        // Whether the connection was told of the draining.
        told: bool,
    }

    impl<S> PinnedDrop for Bounded<S>
    where
        S: Service<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible>,
    {
        fn drop(this: Pin<&mut Self>) {
            if let Some(place) = this.place {
                this.draining.leave(place);
            }
        }
    }
}

impl<S> Future for Bounded<S>
where
    S: Service<Request<Incoming>, Response = Response<ResponseBody>, Error = Infallible>,
{
    type Output = Option<Resting>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Resting>> {
        let mut this = self.project();
        // Its token does not live longer for it: what has died is told so out of its turn, and moves nothing.
        if this.turn.poll(cx).is_pending() && this.exchange.cut().is_none() {
            return Poll::Pending;
        }
        this.exchange.turn_begins();
        if this.place.is_none() {
            *this.place = Some(this.draining.enter(cx.waker()));
        }
        loop {
            if this.stage.poll(cx, this.exchange).is_ready() {
                return Poll::Ready(None);
            }
            this.turn.record(this.exchange.turn_bytes());
            if this.exchange.has_spent_its_turn() {
                this.turn.end(cx);
            } else if !*this.told && this.draining.has_begun() {
                // What has been read is answered: told before, the library would not look at it.
                *this.told = true;
                if let Stage::Serving(connection) = this.stage {
                    Pin::new(connection).graceful_shutdown();
                    continue;
                }
            }
            if matches!(this.stage, Stage::Tunnel(_)) && this.draining.has_begun() {
                // It has no end that could be waited for; its client connects anew, to another gateway.
                return Poll::Ready(None);
            }
            if this.exchange.cut().is_some() {
                // Its token has died. The rest of the response may be waiting for a client who reads nothing.
                return Poll::Ready(None);
            }
            if this.exchange.is_expired() {
                // It was told, and did not end by itself: a slow reader, or nobody at all.
                return Poll::Ready(None);
            }
            let (now, due) = this.exchange.clock();
            if now >= due {
                if this.exchange.phase() != Phase::Idle {
                    this.exchange.expire();
                }
                match this.exchange.phase() {
                    Phase::Idle if matches!(this.stage, Stage::Serving(_)) => {
                        if let Some(until) = this.exchange.may_rest() {
                            return Poll::Ready(this.stage.rest(until));
                        }
                        if this.exchange.clock().1 <= now {
                            return Poll::Ready(None);
                        }
                        continue;
                    }
                    Phase::Idle if matches!(this.stage, Stage::Tunnel(_)) && this.exchange.waits_on() => {
                        continue;
                    }
                    Phase::Idle => return Poll::Ready(None),
                    // What is late sees that it is, and answers.
                    Phase::Head | Phase::Request | Phase::Response => continue,
                }
            }
            // The timer is moved to an earlier moment only. One that comes too early is set anew, so
            // a deadline that is pushed ahead at each request costs nothing.
            let early = now >= *this.armed || this.timer.is_elapsed();
            if due >= *this.armed && !early {
                return Poll::Pending;
            }
            *this.armed = due;
            this.timer.as_mut().reset(Instant::now() + Duration::from_millis(due - now + CLOCK_GRAIN_MILLIS));
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}
