//! A connection: streams are taken as they come, and it ends when nothing comes, when it floods, or at the drain.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{request::receive, stream::Stream};
use crate::{
    clock::coarse_millis,
    gateway::{
        activity::{Activity, millis},
        client::Peer,
        connection::Client,
        deadline::Deadline,
        drain::Draining,
        exchange::Exchange,
        handshake::Secured,
        judged::Judged,
        listener::Listener,
        state::ConnectionState,
        thread_bound::ThreadBound,
        turns::{Place, Turns},
        view::CurrentView,
    },
    http2,
    stream::traffic,
    types::framing::HeadLimits,
};

/// The window of a stream and of a connection, in bytes: what a client may send before it is passed on.
/// A stream that is read gets more room.
const STREAM_WINDOW: u32 = 64 << 10;
const MAX_STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// How many more resets a trusted proxy may cause than a client: it speaks for many.
const OF_MANY: u32 = 10;

/// How long a client has to take note of the end of a connection.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a connection until it ends.
pub(in crate::gateway) async fn serve(
    client: Client,
    turns: Arc<Turns>,
    views: Arc<CurrentView>,
    draining: Arc<Draining>,
) {
    let view = views.get();
    let limits = view.snapshot.limits;
    let metrics = view.snapshot.services.metrics.clone();
    let Client { socket, early, turn, .. } = client;
    let config = http2::Config {
        stream_window: STREAM_WINDOW,
        max_stream_window: MAX_STREAM_WINDOW,
        connection_window: CONNECTION_WINDOW,
        // A client asks nothing of anybody.
        silence: u64::MAX,
        header_limits: HeadLimits { bytes: limits.http2.header_list as usize, count: limits.header_count },
    };
    let mut http2_limits = limits.http2;
    if client.peer.is_trusted(&view.snapshot.trusted_proxies) {
        http2_limits.resets.count = http2_limits.resets.count.saturating_mul(OF_MANY);
    }
    drop(view);
    let parts = Parts {
        views,
        peer: client.peer,
        listener: client.listener,
        secured: client.secured,
        turns,
        draining,
    };
    let now = coarse_millis();
    let mut connection = Connection {
        connection: http2::Connection::server(socket, early, config, http2_limits),
        parts,
        turn,
        deadline: Box::pin(Deadline::new()),
        greeting: millis(limits.header_timeout),
        begun: now,
        idle: millis(limits.idle_timeout),
        drain: millis(limits.response_drain_timeout),
        busy_at: now,
        was_busy: false,
        has_served: false,
        end: End::No,
        place: None,
        sent: 0,
    };
    poll_fn(|cx| connection.poll(cx)).await;
    if let Some(kind) = connection.connection.flood().map(http2::Flood::label) {
        metrics.http2_flood(kind);
        tracing::debug!(kind, "a client floods");
    }
    // A client that breaks off is no event.
    tracing::debug!(reason = %connection.connection.ended(), "connection ended");
}

/// What each stream of a connection needs.
struct Parts {
    views: Arc<CurrentView>,
    peer: Peer,
    listener: Arc<Listener>,
    secured: Option<Arc<Secured>>,
    turns: Arc<Turns>,
    draining: Arc<Draining>,
}

impl Parts {
    /// Creates the state of a stream.
    fn state(&self) -> Arc<ConnectionState> {
        let (limits, access) = {
            let view = self.views.get();
            (view.snapshot.limits, view.snapshot.access.clone())
        };
        let activity = Arc::new(ThreadBound::new(Activity::new(&limits, None)));
        let exchange = Arc::new(ThreadBound::new(Exchange::new(&limits, access, activity.clone())));
        Arc::new(ConnectionState {
            views: self.views.clone(),
            peer: self.peer.again(),
            listener: self.listener.clone(),
            secured: self.secured.clone(),
            activity,
            exchange,
            judged: ThreadBound::new(Judged::default()),
        })
    }

    fn turn(&self) -> Place {
        self.turns.place_of(&self.peer, &self.views.get().snapshot.trusted_proxies)
    }
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// It does not.
    No,
    /// The client was told, and has until a coarse time to take note of it; then no stream is taken any more. Those that are there
    /// go on.
    Told(u64),
    /// It is closed at a coarse time, whatever the client does.
    Closing(u64),
}

struct Connection {
    connection: http2::Connection,
    parts: Parts,
    turn: Place,
    deadline: Pin<Box<Deadline>>,
    /// When it began, as a coarse time, and how long a client may take for its greeting and for a head, in milliseconds.
    begun: u64,
    greeting: u64,
    /// How long it may have no stream, and how long the client may take nothing, in milliseconds.
    idle: u64,
    drain: u64,
    /// Whether it had a stream when it was looked at last, and the last coarse time at which it had one.
    was_busy: bool,
    busy_at: u64,
    /// Whether it had a stream.
    has_served: bool,
    end: End,
    place: Option<usize>,
    /// How many bytes were sent and counted.
    sent: u64,
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.parts.draining.leave(place);
        }
    }
}

impl Connection {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        ready!(self.turn.poll(cx));
        self.connection.turn_begins();
        let polled = self.poll_turn(cx);
        traffic::received(self.connection.read() as usize);
        let sent = self.connection.sent();
        traffic::sent((sent - self.sent) as usize);
        self.sent = sent;
        polled
    }

    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.place.is_none() {
            self.place = Some(self.parts.draining.enter(cx.waker()));
        }
        loop {
            if self.poll_streams(cx).is_ready() {
                return Poll::Ready(());
            }
            let now = coarse_millis();
            let (is_busy, unfinished) = self.connection.tidies(now);
            if is_busy || self.was_busy {
                self.busy_at = now;
            }
            self.was_busy = is_busy;
            let farewell = now + millis(FAREWELL);
            if self.connection.has_said_all() && !matches!(self.end, End::Closing(_)) {
                self.end = End::Closing(farewell);
            }
            // What has just come for a request is not sent away before it has made one, as long as the process serves.
            let may_leave = self.has_served || self.parts.draining.is_of_the_process();
            if self.end == End::No && may_leave && self.parts.draining.has_begun() {
                // In two steps: what is on its way is still taken.
                self.connection.graceful_shutdown();
                self.end = End::Told(farewell);
                continue;
            }
            if matches!(self.end, End::Told(by) if now >= by) && self.connection.refuse_more() {
                continue;
            }
            // A head that has begun must end.
            let head_since =
                if self.connection.is_greeted() { self.connection.block_since() } else { Some(self.begun) };
            let mut due = match self.end {
                End::Closing(by) => by,
                // What is left to say is bounded by what the client takes.
                _ if is_busy || self.connection.is_closing() => u64::MAX,
                End::Told(by) => by,
                End::No => self.busy_at.saturating_add(self.idle),
            };
            due = due.min(unfinished.unwrap_or(u64::MAX));
            for (since, within) in
                [(head_since, self.greeting), (self.connection.blocked_since(), self.drain)]
            {
                due = since.map_or(due, |since| due.min(since.saturating_add(within)));
            }
            self.turn.record(self.connection.read());
            if self.connection.is_spent() {
                self.turn.end(cx);
            }
            if now < due {
                if due == u64::MAX {
                    return Poll::Pending;
                }
                ready!(self.deadline.as_mut().poll(cx, now, due));
                continue;
            }
            if unfinished == Some(due) {
                continue;
            }
            let is_stuck = self.connection.blocked_since().is_some() || head_since.is_some();
            if self.end != End::No || is_stuck {
                return Poll::Ready(());
            }
            self.connection.graceful_shutdown();
            self.end = End::Told(farewell);
        }
    }

    /// Takes the streams that are there. Ready when the connection is over.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some((head, stream)) = ready!(self.connection.poll_next(cx)) {
            self.has_served = true;
            if stream.has_failed() {
                // The client has given it up already.
                continue;
            }
            let state = self.parts.state();
            let received = receive(head, stream, &state.views.get().snapshot.limits);
            let draining = self.parts.draining.clone();
            tokio::spawn(Stream::new(state, received, draining, self.parts.turn()));
        }
        Poll::Ready(())
    }
}
