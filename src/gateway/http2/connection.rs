//! A connection: streams are taken as they come, and it ends when nothing comes, when it floods, or at the drain.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{Reason, server};
use tokio::time::timeout;

use super::{
    floods::{Flood, Floods},
    request::receive,
    stream::Stream,
    wire::{Meter, Wire},
};
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
        listener::Listener,
        state::ConnectionState,
        thread_bound::ThreadBound,
        turns::{Place, Turns},
        view::CurrentView,
    },
    limit::Prefix,
};

/// The window of a stream and of a connection, in bytes: what a client may send before it is passed on.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = 1 << 20;

/// What the library keeps of a stream's response, in bytes.
const SEND_BUFFER: usize = 64 << 10;

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
    drop(view);
    let meter = Arc::new(Meter::new(Floods::new(limits.http2, coarse_millis())));
    let Client { socket, early, turn, .. } = client;
    let wire = Wire::new(socket, early, meter.clone());
    let handshake = server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.http2.streams)
        .max_header_list_size(limits.http2.header_list)
        .max_send_buffer_size(SEND_BUFFER)
        // They are counted by time, below.
        .max_local_error_reset_streams(None)
        .enable_connect_protocol()
        .handshake::<_, Bytes>(wire);
    let connection = match timeout(limits.header_timeout, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "connection ended"),
        Err(_) => return,
    };
    let parts = Parts {
        views,
        peer: client.peer,
        listener: client.listener,
        secured: client.secured,
        turns,
        draining: draining.clone(),
    };
    let mut connection = Connection {
        connection,
        parts,
        meter: meter.clone(),
        turn,
        deadline: Box::pin(Deadline::new()),
        idle: millis(limits.idle_timeout),
        drain: millis(limits.response_drain_timeout),
        busy_at: coarse_millis(),
        was_busy: false,
        end: End::No,
        is_flooded: false,
        place: None,
    };
    poll_fn(|cx| connection.poll(cx)).await;
    let kind = meter.floods.found().map(Flood::label).or(connection.is_flooded.then_some("frames"));
    if let Some(kind) = kind {
        metrics.http2_flood(kind);
        tracing::debug!(kind, "a client floods");
    }
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
        })
    }

    fn turn(&self) -> Place {
        let is_trusted = self.peer.is_trusted(&self.views.get().snapshot.trusted_proxies);
        self.turns.place((!is_trusted).then(|| Prefix::of(self.peer.address())))
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
    /// The client floods, and is closed at a coarse time whatever it does.
    Flood(u64),
}

struct Connection {
    connection: server::Connection<Wire, Bytes>,
    parts: Parts,
    meter: Arc<Meter>,
    turn: Place,
    deadline: Pin<Box<Deadline>>,
    /// How long it may have no stream, and how long the client may take nothing, in milliseconds.
    idle: u64,
    drain: u64,
    /// Whether it had a stream when it was looked at last, and the last coarse time at which it had one.
    was_busy: bool,
    busy_at: u64,
    end: End,
    /// Whether the library has ended it for a flood of frames.
    is_flooded: bool,
    place: Option<usize>,
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
        self.meter.turn_begins();
        if self.place.is_none() {
            self.place = Some(self.parts.draining.enter(cx.waker()));
        }
        loop {
            if self.poll_streams(cx).is_ready() {
                return Poll::Ready(());
            }
            let now = coarse_millis();
            let is_busy = self.connection.has_streams();
            if is_busy || self.was_busy {
                self.busy_at = now;
            }
            self.was_busy = is_busy;
            let farewell = now + millis(FAREWELL);
            if self.meter.floods.found().is_some() && !matches!(self.end, End::Flood(_)) {
                self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                self.end = End::Flood(farewell);
                continue;
            }
            if self.end == End::No && self.parts.draining.has_begun() {
                // In two steps (RFC 9113, section 6.8): what is on its way is still taken.
                self.connection.graceful_shutdown();
                self.end = End::Told(farewell);
                continue;
            }
            let mut due = match self.end {
                End::Flood(by) => by,
                End::No | End::Told(_) if is_busy => u64::MAX,
                End::Told(by) => by,
                End::No => self.busy_at.saturating_add(self.idle),
            };
            if let Some(since) = self.meter.blocked_since() {
                due = due.min(since.saturating_add(self.drain));
            }
            self.turn.record(self.meter.read());
            if self.meter.is_spent() {
                self.turn.end(cx);
            }
            if now < due {
                if due == u64::MAX {
                    return Poll::Pending;
                }
                ready!(self.deadline.as_mut().poll(cx, now, due));
                continue;
            }
            if self.end != End::No || self.meter.blocked_since().is_some() {
                return Poll::Ready(());
            }
            self.connection.graceful_shutdown();
            self.end = End::Told(farewell);
        }
    }

    /// Returns whether the client was told that the connection ends, and has had the time to take note of it.
    fn takes_no_more(&self) -> bool {
        matches!(self.end, End::Told(by) if coarse_millis() >= by)
    }

    /// Takes the streams that are there. Ready when the connection is over.
    fn poll_streams(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match ready!(self.connection.poll_accept(cx)) {
                None => return Poll::Ready(()),
                Some(Err(error)) => {
                    self.is_flooded = error.reason() == Some(Reason::ENHANCE_YOUR_CALM);
                    // A client that breaks off is no event.
                    tracing::debug!(%error, "connection ended");
                    return Poll::Ready(());
                }
                Some(Ok((_, mut respond))) if self.takes_no_more() => {
                    respond.send_reset(Reason::REFUSED_STREAM)
                }
                Some(Ok((request, respond))) => {
                    let state = self.parts.state();
                    let received = receive(request, &state.views.get().snapshot.limits);
                    let draining = self.parts.draining.clone();
                    let stream = Stream::new(state, received, respond, draining, self.parts.turn());
                    tokio::spawn(stream);
                }
            }
        }
    }
}
