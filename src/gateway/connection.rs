//! One client connection: what serves its requests, or a tunnel, and the one timer that bounds it.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use bytes::BytesMut;
use pin_project_lite::pin_project;
use tokio::time::timeout;

use super::{
    activity::Activity,
    client::Peer,
    deadline::Deadline,
    drain::Draining,
    exchange::Exchange,
    handshake::Secured,
    http1::Http1,
    http2,
    inbound::Inbound,
    judged::Judged,
    listener::Listener,
    message::{ClientRequest, ClientResponse},
    state::ConnectionState,
    thread_bound::ThreadBound,
    tunnel::Tunnel,
    turns::{Place, Turns},
    view::CurrentView,
};
use crate::{
    config::Limits,
    stream::{SMALL_READ, Stream, traffic},
    types::framing::HeadLimits,
};

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
    /// The listener that it came to.
    pub(super) listener: Arc<Listener>,
    /// What TLS says of it.
    pub(super) secured: Option<Arc<Secured>>,
}

/// Serves a connection until it ends, expires or is drained. Returns it if it is idle.
pub(super) async fn serve(
    mut client: Client,
    turns: Arc<Turns>,
    views: Arc<CurrentView>,
    draining: Arc<Draining>,
) -> Option<Resting> {
    let speaks_http2 = match &client.secured {
        Some(secured) => secured.is_http2,
        // Whoever came back from a rest has spoken HTTP/1.1 before.
        None if client.listener.config.http2 && client.rested_until.is_none() => {
            let (limits, early) = (views.get().snapshot.limits, client.early.len());
            let speaks_http2 = Box::pin(begins_with_http2(&mut client, &limits, &draining)).await?;
            if !speaks_http2 {
                // HTTP/2 counts what it takes of them itself.
                traffic::received(client.early.len() - early);
            }
            speaks_http2
        }
        None => false,
    };
    if speaks_http2 {
        Box::pin(http2::serve(client, turns, views, draining)).await;
        return None;
    }
    let Client { socket, early, rested_until, peer, turn, listener, secured } = client;
    let has_served = rested_until.is_some();
    // What bounds the connection itself stays as it is now until it rests, or ends.
    let (limits, access) = {
        let view = views.get();
        (view.snapshot.limits, view.snapshot.access.clone())
    };
    let activity = Arc::new(ThreadBound::new(Activity::new(&limits, rested_until)));
    let exchange = Arc::new(ThreadBound::new(Exchange::new(&limits, access, activity.clone())));
    let judged = ThreadBound::new(Judged::default());
    let head_limits = HeadLimits { bytes: limits.header_bytes, count: limits.header_count };
    let inbound = Inbound::new(socket, early, head_limits);
    let state = Arc::new(ConnectionState { views, peer, listener, secured, activity, exchange, judged });
    let stage = Stage::Serving(Http1::new(state.clone(), inbound, ConnectionState::serve));
    Bounded { stage, deadline: Deadline::new(), state, draining, turn, place: None, told: false, has_served }
        .await
}

/// The first bytes of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads until it is clear whether a client speaks HTTP/2. Returns none if it says nothing for too long, or goes, or if nothing
/// has come at the drain.
async fn begins_with_http2(client: &mut Client, limits: &Limits, draining: &Draining) -> Option<bool> {
    let first = async {
        let mut place = None;
        let read = poll_fn(|cx| {
            place.get_or_insert_with(|| draining.enter(cx.waker()));
            match client.socket.poll_receive(cx, &mut client.early, SMALL_READ) {
                Poll::Pending if draining.is_of_the_process() => Poll::Ready(Ok(0)),
                read => read,
            }
        })
        .await;
        if let Some(place) = place {
            draining.leave(place);
        }
        read
    };
    let is_there =
        timeout(limits.idle_timeout, first).await.is_ok_and(|read| read.is_ok_and(|read| read > 0));
    if !is_there {
        return None;
    }
    let rest = poll_fn(|cx| {
        loop {
            let common = client.early.iter().zip(PREFACE).take_while(|(byte, of)| byte == of).count();
            if common == PREFACE.len() || common < client.early.len() {
                return Poll::Ready(Some(common == PREFACE.len()));
            }
            let read = client.socket.poll_receive(cx, &mut client.early, SMALL_READ);
            match ready!(read) {
                Ok(0) | Err(_) => return Poll::Ready(None),
                Ok(_) => {}
            }
        }
    });
    timeout(limits.header_timeout, rest).await.ok()?
}

/// The stage of a connection.
enum Stage<S, F> {
    Serving(Http1<S, F>),
    Tunnel(Box<Tunnel<Stream>>),
    Over,
}

impl<S, F> Stage<S, F>
where
    S: Fn(Arc<ConnectionState>, ClientRequest) -> F,
    F: Future<Output = ClientResponse>,
{
    fn poll(&mut self, cx: &mut TaskContext<'_>, activity: &Activity) -> Poll<()> {
        if let Self::Serving(connection) = self {
            if let Err(error) = ready!(connection.poll(cx)) {
                // A client that breaks off is no event.
                tracing::debug!(%error, "connection ended");
                return Poll::Ready(());
            }
            let opening = activity.opening();
            let tunnel = opening.zip(connection.take_socket()).map(|(opening, (client, early))| {
                Self::Tunnel(Box::new(Tunnel::new(client, early, *opening)))
            });
            *self = tunnel.unwrap_or(Self::Over);
        }
        match self {
            Self::Tunnel(tunnel) => tunnel.poll(cx, activity),
            Self::Serving(_) | Self::Over => Poll::Ready(()),
        }
    }

    /// Gives back what serves requests, where the connection rests between two of them.
    fn rest(&mut self, until: u64) -> Option<Resting> {
        let Self::Serving(mut connection) = std::mem::replace(self, Self::Over) else { return None };
        let (socket, early) = connection.rest()?;
        Some(Resting { socket, early, until })
    }
}

pin_project! {
    /// A connection with its timer.
    struct Bounded<S, F> {
        stage: Stage<S, F>,
        #[pin]
        deadline: Deadline,
        state: Arc<ConnectionState>,
        draining: Arc<Draining>,
        turn: Place,
        // Where the draining finds this connection.
        place: Option<usize>,
        // Whether the connection was told of the draining.
        told: bool,
        // Whether a request has come on it: one that was made for the first has it.
        has_served: bool,
    }

    impl<S, F> PinnedDrop for Bounded<S, F> {
        fn drop(this: Pin<&mut Self>) {
            if let Some(place) = this.place {
                this.draining.leave(place);
            }
        }
    }
}

impl<S, F> Future for Bounded<S, F>
where
    S: Fn(Arc<ConnectionState>, ClientRequest) -> F,
    F: Future<Output = ClientResponse>,
{
    type Output = Option<Resting>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Resting>> {
        let mut this = self.project();
        this.state.judge_again();
        let activity: &Activity = &this.state.activity;
        // A connection whose token was revoked does not wait for its turn: it ends and carries no more bytes.
        if this.turn.poll(cx).is_pending() && this.state.exchange.cut().is_none() {
            return Poll::Pending;
        }
        activity.turn_begins();
        if this.place.is_none() {
            *this.place = Some(this.draining.enter(cx.waker()));
        }
        let in_service = matches!(&*this.stage, Stage::Serving(connection) if connection.is_in_service());
        if this.state.exchange.cut().is_some() && !in_service {
            // Its token has died: not even what was gathered before is written.
            return Poll::Ready(None);
        }
        loop {
            if this.stage.poll(cx, activity).is_ready() {
                return Poll::Ready(None);
            }
            *this.has_served |= this.state.exchange.has_begun();
            this.turn.record(activity.budget.spent());
            if activity.budget.is_spent() {
                this.turn.end(cx);
            } else if !*this.told
                && this.draining.has_begun()
                && (*this.has_served || this.draining.is_of_the_process())
            {
                // Told only now: a request that has arrived is answered.
                *this.told = true;
                if let Stage::Serving(connection) = this.stage {
                    connection.drain();
                    continue;
                }
            }
            if matches!(this.stage, Stage::Tunnel(_)) && this.draining.is_of_the_process() {
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
                    Stage::Serving(connection) if !connection.is_closing() => {
                        if let Some(until) = this.state.may_rest(connection.is_idle()) {
                            return Poll::Ready(this.stage.rest(until));
                        }
                        if this.state.clock().1 <= now {
                            if let (true, Some((mut socket, _))) =
                                (connection.is_idle(), connection.take_socket())
                            {
                                socket.says_end();
                            }
                            return Poll::Ready(None);
                        }
                    }
                    Stage::Tunnel(_) if activity.waits_on() => {}
                    Stage::Serving(_) | Stage::Tunnel(_) | Stage::Over => return Poll::Ready(None),
                }
                continue;
            }
            ready!(this.deadline.as_mut().poll(cx, now, due));
        }
    }
}
