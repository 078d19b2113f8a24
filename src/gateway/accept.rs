//! Accepting connections: on which sockets a worker does, and how it stops.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    task::JoinHandle,
};

use super::{
    drain::{Counted, Drain},
    listener::{Listener, Listening},
    placement::Placement,
};

/// How many connections are accepted before those that are open get their turn: in a burst, the
/// first clients are answered while the last ones still wait.
const ACCEPT_BATCH: usize = 16;

/// How long to wait when the process has no file descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

/// A connection that was accepted.
pub(super) struct Fresh {
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    /// That it counts as one of its listener.
    pub(super) of_listener: Counted,
    pub(super) listener: Arc<Listener>,
}

/// The sockets that a worker accepts on.
pub(super) struct Acceptors<F> {
    acceptor: Acceptor<F>,
    wanted: Vec<Listening>,
    accepting: Vec<Accepting>,
    /// Whether it accepts on all that are wanted.
    is_complete: bool,
}

impl<F> Acceptors<F>
where
    F: Fn(Fresh) + Clone + Send + Sync + 'static,
{
    /// None yet, for a worker of a number. Each connection goes to `take`.
    pub(super) fn new(index: usize, drain: Drain, placement: Arc<Placement>, take: F) -> Self {
        let acceptor = Acceptor { index, drain, placement, take };
        Self { acceptor, wanted: Vec::new(), accepting: Vec::new(), is_complete: true }
    }

    /// Accepts on sockets that are new, and no more on those that are gone.
    pub(super) fn listen(&mut self, now: Vec<Listening>) {
        let acceptor = &self.acceptor;
        self.accepting.retain(|accepting| {
            let stays = now.iter().any(|listening| Arc::ptr_eq(&listening.listener, &accepting.listener));
            if !stays {
                // What waits in a socket that stays is for those who accept on it from now on.
                let is_kept = now.iter().any(|listening| Arc::ptr_eq(&listening.socket, &accepting.of));
                let is_kept = is_kept || acceptor.drain.is_handed_over();
                accepting.gone.send_replace(Some(if is_kept { Gone::AtOnce } else { Gone::WithWhatHasCome }));
            }
            stays
        });
        self.wanted = now;
        self.begin();
    }

    /// Begins with those for which there was no file descriptor.
    pub(super) fn go_on(&mut self) {
        if !self.is_complete {
            self.begin();
        }
    }

    /// Returns what still accepts; each ends with the drain.
    pub(super) fn into_tasks(self) -> impl Iterator<Item = JoinHandle<()>> {
        self.accepting.into_iter().map(|accepting| accepting.task)
    }

    fn begin(&mut self) {
        let Self { acceptor, wanted, accepting, is_complete } = self;
        *is_complete = true;
        for (number, listening) in wanted.iter().enumerate() {
            let is_known =
                accepting.iter().any(|accepting| Arc::ptr_eq(&accepting.listener, &listening.listener));
            if is_known || !acceptor.placement.accepts(acceptor.index, number) {
                continue;
            }
            match acceptor.clone().accept_on(listening) {
                Ok(new) => accepting.push(new),
                Err(error) => {
                    let address = &listening.listener.config.address;
                    tracing::error!(%address, %error, "nothing can be accepted yet");
                    *is_complete = false;
                }
            }
        }
    }
}

/// Accepts on one socket.
#[derive(Clone)]
struct Acceptor<F> {
    index: usize,
    drain: Drain,
    placement: Arc<Placement>,
    take: F,
}

impl<F> Acceptor<F>
where
    F: Fn(Fresh) + Send + Sync + 'static,
{
    fn accept_on(self, Listening { socket, listener }: &Listening) -> io::Result<Accepting> {
        let own = socket.try_clone()?;
        own.set_nonblocking(true)?;
        // SAFETY: the socket is owned here, so it stays open and the same until it is dropped.
        let own = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }?;
        let (gone, is_gone) = watch::channel(None);
        let accepting = Counted::new(&self.drain.accepting);
        let accept = self.accept(own, listener.clone(), is_gone);
        let task = tokio::spawn(async move {
            accept.await;
            drop(accepting);
        });
        Ok(Accepting { listener: listener.clone(), of: socket.clone(), gone, task })
    }

    async fn accept(
        self,
        socket: AsyncFd<TcpListener>,
        listener: Arc<Listener>,
        mut gone: watch::Receiver<Option<Gone>>,
    ) {
        let most = listener.config.max_connections.unwrap_or(usize::MAX);
        let mut drain = self.drain.tell.subscribe();
        let mut at_once = gone.clone();
        let mut batch = 0;
        loop {
            // Taken before a connection is, so that all workers together keep to the bound.
            let place = Counted::within(&listener.open, most).filter(|_| self.placement.has_room());
            let Some(of_listener) = place else {
                tokio::select! {
                    () = tokio::time::sleep(ACCEPT_PAUSE) => continue,
                    _ = drain.wait_for(|draining| *draining) => return,
                    _ = gone.wait_for(Option::is_some) => return,
                }
            };
            let accepted = tokio::select! {
                biased;
                _ = drain.wait_for(|draining| *draining) => return,
                _ = at_once.wait_for(|gone| *gone == Some(Gone::AtOnce)) => return,
                accepted = socket.async_io(Interest::READABLE, TcpListener::accept) => accepted,
                _ = gone.wait_for(Option::is_some) => return,
            };
            let accepted = accepted.and_then(|(socket, peer)| {
                socket.set_nonblocking(true)?;
                Ok((socket, peer))
            });
            match accepted {
                Ok((socket, peer)) => {
                    (self.take)(Fresh { socket, peer, of_listener, listener: listener.clone() })
                }
                Err(error) if is_of_the_client(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection could be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            batch += 1;
            if batch % ACCEPT_BATCH == 0 {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// How a listener goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    AtOnce,
    WithWhatHasCome,
}

/// A socket that is accepted on.
struct Accepting {
    listener: Arc<Listener>,
    /// The socket that it is a copy of.
    of: Arc<TcpListener>,
    gone: watch::Sender<Option<Gone>>,
    task: JoinHandle<()>,
}

/// Whether a client went away between connecting and being accepted.
fn is_of_the_client(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}
