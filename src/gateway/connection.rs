//! One client connection: the library's connection, and the one timer that bounds it.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
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

use super::{
    activity::Activity, client::Peer, deadline::Deadline, drain::Draining, exchange::Exchange, guard::Guard,
    response_body::ResponseBody, state::ConnectionState, target::Scheme, thread_bound::ThreadBound,
    tunnel::Tunnel, turns::Place, view::CurrentView,
};
use crate::{stream::Stream, types::framing::HeadLimits};

/// The library's own count of headers, for which it needs no allocation; the guard's comes first.
const LIBRARY_HEADERS: usize = 100;

/// An idle connection without its HTTP state.
pub(super) struct Resting {
    /// The socket.
    pub(super) socket: Stream,
    /// Bytes that were read and not processed.
    pub(super) early: BytesMut,
    /// The coarse time at which it is closed.
    pub(super) until: u64,
}

/// A client connection to be served.
pub(super) struct Client {
    /// The socket.
    pub(super) socket: Stream,
    /// Bytes that were read from it before.
    pub(super) early: BytesMut,
    /// The coarse time at which it is closed if it was idle before.
    pub(super) rested_until: Option<u64>,
    /// The other end.
    pub(super) peer: Peer,
    /// Its place in the order of turns.
    pub(super) turn: Place,
}

/// Serves a connection until it ends, expires or is drained. Returns it if it is idle.
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
    let activity = Arc::new(ThreadBound::new(Activity::new(&limits, rested_until)));
    let exchange = Arc::new(ThreadBound::new(Exchange::new(&limits, access, activity.clone())));
    let head_limits = HeadLimits { bytes: limits.header_bytes, count: limits.header_count };
    let state = Arc::new(ConnectionState { views, scheme: Scheme::Http, peer, activity, exchange });
    let guard = Guard::new(socket, early, state.clone(), head_limits);
    let mut builder = http1::Builder::new();
    builder
        .half_close(true)
        .header_read_timeout(None)
        .max_buf_size(limits.header_bytes.max(64 << 10) + (8 << 10));
    if limits.header_count > LIBRARY_HEADERS {
        builder.max_headers(limits.header_count);
    }
    let serving = state.clone();
    let service = service_fn(move |request| serving.clone().serve(request));
    let connection = builder.serve_connection(guard, service);
    let stage = Stage::Serving(connection);
    Bounded { stage, deadline: Deadline::new(), state, draining, turn, place: None, told: false }.await
}

/// The stage of a connection: served by the library, a tunnel, or closing after the library is done.
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
    fn poll(&mut self, cx: &mut TaskContext<'_>, activity: &Activity) -> Poll<()> {
        if let Self::Serving(connection) = self {
            if let Err(error) = ready!(Pin::new(connection).poll(cx)) {
                // A client that breaks off is no event.
                tracing::debug!(%error, "connection ended");
                return Poll::Ready(());
            }
            *self = match std::mem::replace(self, Self::Over) {
                Self::Serving(connection) => Self::after(connection, activity),
                other => other,
            };
        }
        match self {
            Self::Tunnel(tunnel) => tunnel.poll(cx, activity),
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

    fn after(connection: http1::Connection<Guard, S>, activity: &Activity) -> Self {
        let parts = connection.into_parts();
        let Some(opening) = activity.opening() else { return Self::Closing(Box::new(parts.io)) };
        match parts.io.into_socket() {
            // The guard hands over a head and nothing behind it.
            Some((client, early)) if parts.read_buf.is_empty() => {
                Self::Tunnel(Box::new(Tunnel::new(client, early, *opening)))
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
        deadline: Deadline,
        state: Arc<ConnectionState>,
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
        let activity: &Activity = &this.state.activity;
        // A connection whose token was revoked does not wait for its turn: it ends and carries no more bytes.
        if this.turn.poll(cx).is_pending() && this.state.exchange.cut().is_none() {
            return Poll::Pending;
        }
        activity.turn_begins();
        if this.place.is_none() {
            *this.place = Some(this.draining.enter(cx.waker()));
        }
        loop {
            if this.stage.poll(cx, activity).is_ready() {
                return Poll::Ready(None);
            }
            this.turn.record(activity.budget.spent());
            if activity.budget.is_spent() {
                this.turn.end(cx);
            } else if !*this.told && this.draining.has_begun() {
                // Told only now, because the library would drop a request that was read already.
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
            if this.state.exchange.cut().is_some() {
                // Its token has died. The rest of the response may be waiting for a client who reads nothing.
                return Poll::Ready(None);
            }
            if this.state.is_expired() {
                // It did not end by itself after its deadline.
                return Poll::Ready(None);
            }
            let (now, due) = this.state.clock();
            if now >= due {
                // The request in progress notices its deadline and responds.
                if this.state.expire() {
                    continue;
                }
                match this.stage {
                    Stage::Serving(_) => {
                        if let Some(until) = this.state.may_rest() {
                            return Poll::Ready(this.stage.rest(until));
                        }
                        if this.state.clock().1 <= now {
                            return Poll::Ready(None);
                        }
                    }
                    Stage::Tunnel(_) if activity.waits_on() => {}
                    Stage::Tunnel(_) | Stage::Closing(_) | Stage::Over => return Poll::Ready(None),
                }
                continue;
            }
            ready!(this.deadline.as_mut().poll(cx, now, due));
        }
    }
}
