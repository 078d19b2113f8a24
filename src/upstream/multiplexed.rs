//! A connection to a server that speaks HTTP/2: the requests of a worker share it (RFC 9113).
//!
//! The library's task drives it, and what the requests of one turn of the worker have to send leaves in one write.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use h2::client::{self, SendRequest};
use tokio::sync::OwnedSemaphorePermit;

use crate::{clock::coarse_millis, stream::Stream};

/// The most requests on a connection at once; a server may allow fewer.
const MAX_STREAMS: usize = 100;

/// The window of a stream, in bytes: what is kept of a response for a client that is slow. That of the connection is as wide as
/// can be, so that one that is full holds up no other.
const STREAM_WINDOW: u32 = 256 << 10;
const CONNECTION_WINDOW: u32 = i32::MAX as u32;

/// What the library keeps of a stream's request, in bytes.
const SEND_BUFFER: usize = 64 << 10;

/// A connection.
pub(super) struct Multiplexed {
    sender: SendRequest<Bytes>,
    made_at: u64,
    /// The requests on it.
    streams: AtomicUsize,
    /// The coarse time since when it has none.
    idle_since: AtomicU64,
    has_ended: Arc<AtomicBool>,
}

/// Counts a request on a connection until it is dropped.
pub(super) struct OnConnection(Arc<Multiplexed>);

impl Drop for OnConnection {
    fn drop(&mut self) {
        if self.0.streams.fetch_sub(1, Relaxed) == 1 {
            self.0.idle_since.store(coarse_millis(), Relaxed);
        }
    }
}

impl Multiplexed {
    /// Begins to speak HTTP/2 on a stream that was opened for it. `slot` is its share of the server's connections.
    ///
    /// # Errors
    /// When the server ends it at once.
    pub(super) async fn begin(
        stream: Stream,
        header_bytes: usize,
        slot: OwnedSemaphorePermit,
    ) -> io::Result<Arc<Self>> {
        let (sender, connection) = client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER)
            .initial_max_send_streams(MAX_STREAMS)
            .handshake::<_, Bytes>(stream)
            .await
            .map_err(io::Error::other)?;
        let has_ended = Arc::<AtomicBool>::default();
        let ended = has_ended.clone();
        tokio::spawn(async move {
            let _slot = slot;
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an upstream's connection ended");
            }
            ended.store(true, Relaxed);
        });
        let now = coarse_millis();
        let (streams, idle_since) = (AtomicUsize::new(0), AtomicU64::new(now));
        Ok(Arc::new(Self { sender, made_at: now, streams, idle_since, has_ended }))
    }

    /// Returns whether it takes another request.
    pub(super) fn has_room(&self) -> bool {
        let most = self.sender.current_max_send_streams().min(MAX_STREAMS);
        !self.has_ended.load(Relaxed) && self.streams.load(Relaxed) < most
    }

    /// Notes that the server takes no more requests on it.
    pub(super) fn ends(&self) {
        self.has_ended.store(true, Relaxed);
    }

    /// Returns whether it has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Relaxed)
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

    /// Returns what sends requests on it.
    pub(super) fn sender(&self) -> SendRequest<Bytes> {
        self.sender.clone()
    }
}
