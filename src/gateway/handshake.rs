//! TLS handshakes with clients: what they cost is shared fairly, and how many are under way is bounded.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    io,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use http::HeaderValue;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use tokio::{io::AsyncWriteExt, net::TcpStream, task::AbortHandle, time::timeout};

use super::{ids, refusal, turns::Place};
use crate::{
    error::Kind,
    stream::Stream,
    tls::{AcceptError, ServerTls, Shown, accept},
    types::host::name_of,
};

/// The handshakes that are under way at once on a worker. Each is there for some milliseconds; who is slow gives way.
const MAX_HANDSHAKES: usize = 1_024;

/// The cost of a step of a handshake in a turn, in bytes: a signature takes as long as moving this much.
const STEP_COST: u64 = 32 << 10;

/// What of a certificate's subject is percent-encoded in a header.
const ENCODED: &AsciiSet = &CONTROLS.add(b'%');

/// What TLS says of a connection.
pub(super) struct Secured {
    tls: Arc<ServerTls>,
    shown: Arc<Shown>,
    /// The subject of the client's certificate, percent-encoded.
    pub(super) subject: Option<HeaderValue>,
    forwards_subject: bool,
    /// Whether both sides agreed on HTTP/2.
    pub(super) is_http2: bool,
}

impl Secured {
    /// Returns whether the certificate that the client was shown is for `host`, which may have a port.
    pub(super) fn covers(&self, host: &str) -> bool {
        self.shown.names().cover(&name_of(host))
    }

    /// Returns whether the client would be accepted today, too.
    pub(super) fn is_accepted(&self) -> bool {
        self.tls.still_accepts(&self.shown)
    }

    /// Returns the subject of the client's certificate, if upstreams are told.
    pub(super) fn forwarded_subject(&self) -> Option<&HeaderValue> {
        self.subject.as_ref().filter(|_| self.forwards_subject)
    }
}

/// What became of a handshake.
pub(super) enum Shaken {
    /// The connection may be served.
    Hands(Stream, Arc<Secured>, &'static str, bool),
    /// It took too long.
    Late,
    /// The client has gone, or does not agree.
    Failed,
    /// An authority has made sure of a name.
    Proof,
}

impl Shaken {
    /// Returns the version and the result, as metrics have them.
    pub(super) fn labels(&self) -> (&'static str, &'static str) {
        match self {
            Self::Hands(_, _, version, true) => (version, "resumed"),
            Self::Hands(_, _, version, false) => (version, "ok"),
            Self::Late => ("none", "late"),
            Self::Failed => ("none", "failed"),
            Self::Proof => ("none", "proof"),
        }
    }
}

/// Shakes hands with a client, which is served in its turn and has so long.
pub(super) async fn handshake(
    socket: TcpStream,
    tls: Arc<ServerTls>,
    mut turn: Place,
    within: Duration,
) -> Shaken {
    let mut accepting = pin!(accept(socket, &tls));
    let accepted = poll_fn(|cx| {
        if turn.poll(cx).is_pending() {
            return Poll::Pending;
        }
        turn.record(STEP_COST);
        accepting.as_mut().poll(cx)
    });
    match timeout(within, accepted).await {
        Ok(Ok(accepted)) => {
            let encode = |subject: String| {
                HeaderValue::try_from(utf8_percent_encode(&subject, ENCODED).to_string()).ok()
            };
            let secured = Secured {
                tls: tls.clone(),
                shown: accepted.shown,
                subject: accepted.client_subject.and_then(encode),
                forwards_subject: tls.forwards_subject(),
                is_http2: accepted.is_http2,
            };
            Shaken::Hands(accepted.stream.into(), Arc::new(secured), accepted.version, accepted.is_resumed)
        }
        Ok(Err(AcceptError::NotTls(socket))) => {
            // It fits into the socket's buffer.
            drop(refuse(socket).await);
            Shaken::Failed
        }
        Ok(Err(AcceptError::Proof)) => Shaken::Proof,
        Ok(Err(AcceptError::Failed(error))) => {
            tracing::debug!(%error, "TLS handshake failed");
            Shaken::Failed
        }
        Err(_) => Shaken::Late,
    }
}

/// Tells a client in its own words that a port speaks TLS.
async fn refuse(mut socket: TcpStream) -> io::Result<()> {
    let mut response = Vec::new();
    refusal::raw(&mut response, Kind::BadRequest, &ids::request_id(), false);
    socket.write_all(&response).await?;
    socket.shutdown().await
}

/// The handshakes that are under way on one worker. If there are too many, the one that began first is given up: whoever
/// fills them up with slow ones loses his own.
#[derive(Default)]
pub(super) struct Handshakes {
    next: AtomicU64,
    under_way: Mutex<BTreeMap<u64, Option<AbortHandle>>>,
}

impl Handshakes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Option<AbortHandle>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a handshake.
    pub(super) fn begin(self: &Arc<Self>) -> UnderWay {
        let number = self.next.fetch_add(1, Relaxed);
        self.lock().insert(number, None);
        UnderWay { handshakes: self.clone(), number }
    }

    /// Takes note of the task of a handshake. Returns whether another one was given up for it.
    pub(super) fn has_task(&self, number: u64, task: AbortHandle) -> bool {
        let mut under_way = self.lock();
        if let Some(slot) = under_way.get_mut(&number) {
            *slot = Some(task);
        }
        let oldest = if under_way.len() > MAX_HANDSHAKES { under_way.pop_first() } else { None };
        drop(under_way);
        let oldest = oldest.and_then(|(_, task)| task);
        oldest.inspect(AbortHandle::abort).is_some()
    }
}

/// Counts a handshake until it is dropped.
pub(super) struct UnderWay {
    handshakes: Arc<Handshakes>,
    number: u64,
}

impl UnderWay {
    /// Returns the number of the handshake.
    pub(super) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.handshakes.lock().remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_oldest_handshake_gives_way_and_one_that_is_over_is_left_alone() {
        let handshakes = Arc::<Handshakes>::default();
        let begin = || {
            let place = handshakes.begin();
            let number = place.number();
            let task = tokio::spawn(async move {
                let _place = place;
                std::future::pending::<()>().await;
            });
            (handshakes.has_task(number, task.abort_handle()), task)
        };
        let tasks: Vec<_> = (0..MAX_HANDSHAKES).map(|_| begin()).collect();
        assert!(tasks.iter().all(|(gave_up, _)| !gave_up));
        let (gave_up, last) = begin();
        assert!(gave_up && !last.is_finished());
        let mut tasks = tasks.into_iter();
        assert!(tasks.next().unwrap().1.await.unwrap_err().is_cancelled(), "the first one");
        let second = tasks.next().unwrap().1;
        second.abort();
        assert!(second.await.is_err());
        let (gave_up, _) = begin();
        assert!(!gave_up, "there is room again");
    }
}
