//! A worker: one thread that accepts (`accept.rs`), serves and forwards.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    task::{Poll, Waker},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    net::TcpStream,
    runtime::{Handle, RuntimeFlavor},
    sync::watch,
};

use super::{
    accept::{Acceptors, Fresh},
    client::Peer,
    connection,
    connection::{Client, Resting},
    drain::{Counted, Drain, Drains},
    handshake::{Handshakes, Secured, Shaken, handshake},
    listener::{Listener, Listening},
    placement::{Accepted, Inbox, Placement},
    proxy_protocol,
    snapshot::Snapshot,
    turns::{Place, Turns},
    view::{CurrentView, View},
};
use crate::{
    clock::coarse_millis,
    limit::{CountedConnection, Prefix},
    memory,
    stream::Stream,
    tls::ServerTls,
};

/// How often idle upstream connections are looked after, and how late a line of the access log may be.
const SWEEP: Duration = Duration::from_millis(500);

/// Sweeps between the first connection that begins to rest and giving memory back: an allocator keeps for a second or two
/// what was freed, and to look through it costs the more the more often.
const SWEEPS_AFTER_REST: usize = 5;

/// How many connections are woken before others get their turn.
const WAKE_BATCH: usize = 64;

/// How long a handshake that was begun may take once the drain has begun.
const LAST_HANDSHAKES: Duration = Duration::from_secs(1);

/// One worker's share of the gateway.
pub struct Worker {
    index: usize,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    listening: watch::Receiver<Vec<Listening>>,
    views: Arc<CurrentView>,
    drain: Drain,
    placement: Arc<Placement>,
    drains: Drains,
    turns: Arc<Turns>,
    handshakes: Arc<Handshakes>,
    /// Whether connections have begun to rest since the last sweep, and after how many sweeps memory is given back.
    rested: AtomicBool,
    gives_back_after: AtomicUsize,
}

impl Worker {
    /// A worker, by its number, to be run on its own single-threaded runtime. It serves by the last one of `snapshots`, and accepts on
    /// the last ones of `listening`.
    pub fn new(
        index: usize,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        listening: watch::Receiver<Vec<Listening>>,
        drain: Drain,
        placement: Arc<Placement>,
    ) -> Self {
        let view = View::new(snapshots.borrow_and_update().clone(), index);
        Self {
            index,
            snapshots,
            listening,
            views: Arc::new(CurrentView::new(view)),
            drain,
            placement,
            drains: Drains::default(),
            turns: Turns::new(),
            handshakes: Arc::default(),
            rested: AtomicBool::new(false),
            gives_back_after: AtomicUsize::new(0),
        }
    }

    /// Accepts until the drain begins, and serves what other workers accepted for this one.
    ///
    /// # Errors
    /// When a listener cannot be used.
    pub async fn run(self, inbox: Inbox) -> io::Result<()> {
        // The state of connections is bound to this thread.
        if Handle::current().runtime_flavor() != RuntimeFlavor::CurrentThread {
            return Err(io::Error::other("a worker needs a runtime of one thread"));
        }
        self.placement.traffic(self.index).count_here();
        let worker = Arc::new(self);
        let receiving = tokio::spawn(worker.clone().receive(inbox));
        let mut drain = worker.drain.tell.subscribe();
        let (mut snapshots, mut listening) = (worker.snapshots.clone(), worker.listening.clone());
        listening.mark_changed();
        let mut acceptors = {
            let (drain, placement) = (worker.drain.clone(), worker.placement.clone());
            let worker = worker.clone();
            Acceptors::new(worker.index, drain, placement, move |accepted| worker.place(accepted))
        };
        loop {
            tokio::select! {
                () = tokio::time::sleep(SWEEP) => {
                    worker.sweep();
                    acceptors.go_on();
                }
                Ok(()) = snapshots.changed() => {
                    let snapshot = snapshots.borrow_and_update().clone();
                    worker.take_up(snapshot).await;
                }
                Ok(()) = listening.changed() => {
                    let now = listening.borrow_and_update().clone();
                    sockets_are_seen().await;
                    worker.drains.listen(now.iter().map(|listening| listening.listener.clone()).collect());
                    acceptors.listen(now);
                }
                () = async { drop(drain.wait_for(|draining| *draining).await) } => break,
            }
        }
        for task in acceptors.into_tasks().chain([receiving]) {
            // A listener's task ends by itself now, and closes its socket.
            if let Err(error) = task.await {
                tracing::error!(%error, "a listener failed");
            }
        }
        // What lies in the sockets already is seen before, those included that were accepted last: a request that was there
        // is answered.
        sockets_are_seen().await;
        worker.drains.begin();
        let mut swept = tokio::time::Instant::now();
        while worker.placement.open(worker.index).load(Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            if swept.elapsed() >= SWEEP {
                swept = tokio::time::Instant::now();
                worker.sweep();
            }
        }
        worker.sweep();
        Ok(())
    }

    /// Takes another snapshot up for new requests, and lets streams that go on be judged by it.
    async fn take_up(&self, snapshot: Arc<Snapshot>) {
        let number = snapshot.number();
        self.views.exchange(View::new(snapshot, self.index));
        self.placement.has_taken_up(self.index, number);
        for wakers in self.drains.wakers().chunks(WAKE_BATCH) {
            wakers.iter().for_each(Waker::wake_by_ref);
            // Others have their turn.
            tokio::task::yield_now().await;
        }
    }

    fn sweep(&self) {
        self.placement.lives(self.index);
        let view = self.views.get();
        view.clients.iter().for_each(|client| client.sweep());
        if let Some(log) = &view.snapshot.services.access_log {
            log.flush();
        }
        match self.gives_back_after.load(Relaxed) {
            0 if self.rested.swap(false, Relaxed) => self.gives_back_after.store(SWEEPS_AFTER_REST, Relaxed),
            0 => {}
            sweeps => {
                self.gives_back_after.store(sweeps - 1, Relaxed);
                if sweeps == 1 {
                    memory::give_back();
                }
            }
        }
    }

    /// Serves a connection, or passes it to the worker that shall.
    fn place(self: &Arc<Self>, fresh: Fresh) {
        let Fresh { socket, peer, of_listener, listener } = fresh;
        let worker = self.placement.fewest(self.index);
        let live = Counted::new(&self.drain.live);
        let open = Counted::new(self.placement.open(worker));
        let accepted = Accepted { socket, peer, live, open, of_listener, listener };
        if worker == self.index {
            self.serve(accepted);
        } else if let Err(accepted) = self.placement.pass(worker, accepted) {
            // That one takes none any more, and this one is still there.
            self.serve(Accepted { open: Counted::new(self.placement.open(self.index)), ..accepted });
        }
    }

    /// Serves what other workers accepted, until the drain begins.
    async fn receive(self: Arc<Self>, Inbox(mut inbox): Inbox) {
        let mut drain = self.drain.tell.subscribe();
        loop {
            tokio::select! {
                biased;
                _ = drain.wait_for(|draining| *draining) => break,
                Some(accepted) = inbox.recv() => self.serve(accepted),
            }
        }
        // From now on the worker that accepted a connection serves it.
        inbox.close();
        while let Some(accepted) = inbox.recv().await {
            self.serve(accepted);
        }
    }

    fn serve(self: &Arc<Self>, accepted: Accepted) {
        // Responses are written whole; waiting for more would only delay them.
        let socket = accepted.socket.set_nodelay(true).and_then(|()| TcpStream::from_std(accepted.socket));
        let socket = match socket {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%error, "a client was gone at once");
                return;
            }
        };
        let Accepted { peer, live, open, of_listener, listener, .. } = accepted;
        let kept = Kept { live, open, of_listener, of_address: None, listener, secured: None, peer };
        if kept.listener.config.proxy_protocol.is_some() {
            let worker = self.clone();
            tokio::spawn(async move { worker.clone().or_drained(worker.learn_whose(socket, kept)).await });
        } else {
            self.admit(socket, kept);
        }
    }

    /// Reads the PROXY protocol where it must come first, and refuses it where it must not.
    async fn learn_whose(self: Arc<Self>, mut socket: TcpStream, mut kept: Kept) {
        let address = kept.peer.ip().to_canonical();
        let from = kept.listener.config.proxy_protocol.as_deref().unwrap_or_default();
        let told = if from.iter().any(|network| network.contains(&address)) {
            proxy_protocol::read(&mut socket, kept.peer).await
        } else {
            let idle = self.views.get().snapshot.limits.idle_timeout;
            // Counted while it is waited for, and anew once it is known what comes.
            let Some(_counted) = self.count(&Peer::new(kept.peer)) else { return };
            match proxy_protocol::is_there(&socket, idle).await {
                Ok(false) => Ok(kept.peer),
                Ok(true) => Err(io::ErrorKind::PermissionDenied.into()),
                // Nobody has said anything.
                Err(_) => return,
            }
        };
        match told {
            Ok(peer) => {
                kept.peer = peer;
                self.admit(socket, kept);
            }
            Err(error) => {
                tracing::debug!(%error, peer.address = %address, "the PROXY protocol is missing, malformed or forbidden");
                self.views.get().snapshot.services.metrics.connection_refused("proxy_protocol");
            }
        }
    }

    /// Counts a connection of a client, if it is one of those that are counted. Returns none if there are too many.
    fn count(&self, peer: &Peer) -> Option<Option<CountedConnection>> {
        let view = self.views.get();
        let limits = &view.snapshot.limits;
        let exempt = peer.is_trusted(&view.snapshot.trusted_proxies)
            || (peer.address().is_loopback() && !limits.bounds_loopback);
        if exempt {
            return Some(None);
        }
        let counts = &view.snapshot.services.address_counts;
        counts.enter(Prefix::of(peer.address()), limits.connections_per_address).map(Some)
    }

    /// Does what comes before the first request, for which a drain does not wait long.
    async fn or_drained<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut drain = self.drain.tell.subscribe();
        tokio::select! {
            biased;
            done = work => Some(done),
            () = async {
                let _ = drain.wait_for(|draining| *draining).await;
                tokio::time::sleep(LAST_HANDSHAKES).await;
            } => None,
        }
    }

    /// Serves a connection of a client whose address is known, if that does not have too many.
    fn admit(self: &Arc<Self>, socket: TcpStream, mut kept: Kept) {
        let peer = Peer::new(kept.peer);
        let Some(of_address) = self.count(&peer) else { return };
        kept.of_address = of_address;
        if let Some(tls) = kept.listener.tls.clone() {
            self.shake_hands(socket, peer, tls, kept);
        } else {
            self.attend(socket.into(), BytesMut::new(), None, peer, kept);
        }
    }

    /// Shakes hands with a client, and then serves it.
    fn shake_hands(self: &Arc<Self>, socket: TcpStream, peer: Peer, tls: Arc<ServerTls>, mut kept: Kept) {
        let view = self.views.get();
        let turn = self.turn(&peer);
        let shaking = handshake(socket, tls, turn, view.snapshot.limits.header_timeout);
        let place = self.handshakes.begin();
        let number = place.number();
        let (worker, metrics) = (self.clone(), view.snapshot.services.metrics.clone());
        let task = tokio::spawn(async move {
            let Some(shaken) = worker.or_drained(shaking).await else { return };
            drop(place);
            let (version, result) = shaken.labels();
            metrics.tls_handshake(version, result);
            if let Shaken::Hands(stream, secured, ..) = shaken
                && !kept.listener.is_outdated()
            {
                kept.secured = Some(secured);
                worker.attend(stream, BytesMut::new(), None, peer, kept);
            }
        });
        if self.handshakes.has_task(number, task.abort_handle()) {
            view.snapshot.services.metrics.tls_handshake("none", "given_up");
        }
    }

    fn turn(&self, peer: &Peer) -> Place {
        self.turns.place_of(peer, &self.views.get().snapshot.trusted_proxies)
    }

    /// Serves a connection until it ends or rests.
    fn attend(
        self: &Arc<Self>,
        socket: Stream,
        early: BytesMut,
        rested_until: Option<u64>,
        peer: Peer,
        kept: Kept,
    ) {
        let turn = self.turn(&peer);
        let (listener, secured) = (kept.listener.clone(), kept.secured.clone());
        let client = Client { socket, early, rested_until, peer, turn, listener, secured };
        let serving =
            connection::serve(client, self.turns.clone(), self.views.clone(), self.drains.of(&kept.listener));
        let worker = self.clone();
        tokio::spawn(async move {
            if let Some(resting) = serving.await {
                worker.rest(resting, kept);
            }
        });
    }

    /// Waits for the next byte of a connection in a task of its own, which is small: a client that keeps its connection
    /// and asks for nothing costs a socket and little else.
    fn rest(self: Arc<Self>, mut resting: Resting, kept: Kept) {
        if !resting.early.is_empty() {
            return self.go_on(resting, kept);
        }
        self.rested.store(true, Relaxed);
        let left = Duration::from_millis(resting.until.saturating_sub(coarse_millis()));
        let counted = Counted::new(&self.drain.resting);
        let draining = self.drains.of(&kept.listener);
        tokio::spawn(async move {
            let mut place = None;
            let mut timer = pin!(tokio::time::sleep(left));
            let goes_on = poll_fn(|cx| {
                place.get_or_insert_with(|| draining.enter(cx.waker()));
                // First, so that a request that is there already is told of the drain in words. And not by a future of
                // the socket's own: that would leave the task which served it in memory, waiting to be woken.
                if let Poll::Ready(readable) = resting.socket.poll_read_ready(cx) {
                    return Poll::Ready(readable.is_ok() && !resting.socket.has_ended());
                }
                if draining.has_begun() {
                    Poll::Ready(false)
                } else {
                    timer.as_mut().poll(cx).map(|()| false)
                }
            })
            .await;
            if let Some(place) = place {
                draining.leave(place);
            }
            drop(counted);
            if goes_on {
                self.go_on(resting, kept);
            } else {
                resting.socket.says_end();
            }
        });
    }

    fn go_on(self: Arc<Self>, resting: Resting, kept: Kept) {
        let Resting { socket, early, until } = resting;
        self.attend(socket, early, Some(until), Peer::new(kept.peer), kept);
    }
}

/// Lets the connections find what lies in their sockets already, before they are told that no more is taken. The runtime looks at the
/// sockets for certain only where nothing else is to be done: a task that merely yields may come back before.
async fn sockets_are_seen() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// What is kept of a connection from its begin to its end: where it is counted, and what its listener says.
#[expect(dead_code, reason = "the counts count by being there")]
struct Kept {
    live: Counted,
    open: Counted,
    of_listener: Counted,
    of_address: Option<CountedConnection>,
    listener: Arc<Listener>,
    secured: Option<Arc<Secured>>,
    /// The other end, or whoever it speaks for.
    peer: SocketAddr,
}
