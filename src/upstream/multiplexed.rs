//! A connection to a server that speaks HTTP/2: the requests of a worker share it (RFC 9113).
//!
//! A task drives it, and what the requests of one turn of the worker have to send leaves in one write.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::{Poll, ready},
    time::Duration,
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    time::MissedTickBehavior,
};

use crate::{
    clock::coarse_millis,
    http2::{self, Opener},
    stream::Stream,
    types::framing::HeadLimits,
};

/// The most requests on a connection at once; a server may allow fewer.
const MAX_STREAMS: usize = 256;

/// The window of a stream, in bytes: what is kept of a response for a client that is slow. While the client reads, it grows. That
/// of the connection is as wide as can be, so that one that is full holds up no other.
const STREAM_WINDOW: u32 = 32 << 10;
const MAX_STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = i32::MAX as u32;

/// How long a server may say nothing, in milliseconds.
const SILENCE_MILLIS: u64 = 5_000;

/// How often it is asked whether the server says nothing.
const TICK: Duration = Duration::from_secs(1);

/// Requests that wait for room on any connection to a server.
#[derive(Default)]
pub(super) struct Room {
    waiting: AtomicUsize,
    told: Notify,
}

impl Room {
    /// Tells as many of those who wait as there is room for.
    fn tell(&self, room: impl FnOnce() -> usize) {
        let waiting = self.waiting.load(Relaxed);
        if waiting > 0 {
            (0..room().min(waiting)).for_each(|_| self.told.notify_one());
        }
    }

    /// Waits for room, unless `is_there` finds some at once. Others may be faster.
    pub(super) async fn wait(&self, is_there: impl FnOnce() -> bool) {
        struct Waits<'a>(&'a AtomicUsize);
        impl Drop for Waits<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        self.waiting.fetch_add(1, Relaxed);
        let _waits = Waits(&self.waiting);
        let told = self.told.notified();
        let mut told = pin!(told);
        told.as_mut().enable();
        if !is_there() {
            told.await;
        }
    }
}

/// A connection.
pub(super) struct Multiplexed {
    opener: Opener,
    made_at: u64,
    /// The requests on it.
    streams: AtomicUsize,
    /// The coarse time since when it has none.
    idle_since: AtomicU64,
    room: Arc<Room>,
    /// Told when the server has told how many requests it takes.
    settled: Arc<Notify>,
}

/// Counts a request on a connection until it is dropped.
pub(super) struct OnConnection(Arc<Multiplexed>);

impl Drop for OnConnection {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Relaxed) == 1 {
            self.0.idle_since.store(coarse_millis(), Relaxed);
        }
        self.0.room.told.notify_one();
    }
}

impl Multiplexed {
    /// Begins to speak HTTP/2 on a stream that was opened for it. `slot` is its share of the server's connections; `room` is told
    /// when it has some.
    pub(super) fn begin(
        stream: Stream,
        header_limits: HeadLimits,
        slot: OwnedSemaphorePermit,
        room: Arc<Room>,
    ) -> Arc<Self> {
        let config = http2::Config {
            stream_window: STREAM_WINDOW,
            max_stream_window: MAX_STREAM_WINDOW,
            connection_window: CONNECTION_WINDOW,
            silence: SILENCE_MILLIS,
            header_limits,
        };
        let (mut connection, opener) = http2::Connection::client(stream, config);
        let settled = Arc::<Notify>::default();
        let (tells, has_room) = (settled.clone(), room.clone());
        tokio::spawn(async move {
            let _slot = slot;
            let mut ticks = tokio::time::interval(TICK);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut has_told = false;
            // A server has no requests.
            poll_fn(|cx| {
                loop {
                    if connection.poll_next(cx).is_ready() {
                        return Poll::Ready(());
                    }
                    if !has_told && connection.is_settled() {
                        has_told = true;
                        tells.notify_waiters();
                    }
                    has_room.tell(|| connection.room(MAX_STREAMS));
                    ready!(ticks.poll_tick(cx));
                    connection.checks_silence();
                }
            })
            .await;
            tells.notify_waiters();
            tracing::debug!(reason = %connection.ended(), "an upstream's connection ended");
        });
        let now = coarse_millis();
        let (streams, idle_since) = (AtomicUsize::new(0), AtomicU64::new(now));
        Arc::new(Self { opener, made_at: now, streams, idle_since, room, settled })
    }

    /// Returns whether it takes another request.
    pub(super) fn has_room(&self) -> bool {
        self.opener.has_room(MAX_STREAMS)
    }

    /// Returns whether the server has told how many requests it takes, or takes none any more.
    pub(super) fn is_settled(&self) -> bool {
        self.opener.is_settled() || self.opener.has_ended()
    }

    /// Waits for that.
    pub(super) async fn settles(&self) {
        let told = self.settled.notified();
        let mut told = pin!(told);
        told.as_mut().enable();
        if !self.is_settled() {
            told.await;
        }
    }

    /// Returns whether it takes no more requests.
    pub(super) fn has_ended(&self) -> bool {
        self.opener.has_ended()
    }

    /// Returns when it was made, as a coarse time.
    pub(super) fn made_at(&self) -> u64 {
        self.made_at
    }

    /// Returns since when it has no request, as a coarse time.
    pub(super) fn idle_since(&self) -> Option<u64> {
        (self.streams.load(Relaxed) == 0).then(|| self.idle_since.load(Relaxed))
    }

    /// Counts a request on it.
    pub(super) fn enters(self: &Arc<Self>) -> OnConnection {
        self.streams.fetch_add(1, Relaxed);
        OnConnection(self.clone())
    }

    /// Returns what opens streams on it.
    pub(super) fn opener(&self) -> &Opener {
        &self.opener
    }
}
