//! One connection, driven by whoever uses it.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Wake, Waker},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use thiserror::Error;
use tokio::net::TcpStream;

use super::reader::Reader;

/// Why a request got no answer. For the log.
#[derive(Debug, Error)]
pub enum SendError<B> {
    /// Nothing of it was sent: it may go out on another connection.
    #[error("the connection was closed before the request was sent")]
    Unsent(Box<Request<B>>),
    /// The upstream broke off or answered what is not HTTP.
    #[error("{0}")]
    Broken(String),
}

/// A connection is given a turn only when it wants one: its socket or one of its channels has
/// woken it. The task that uses it is polled far more often, for the client's side; and what the
/// connection wakes while it is being attended to needs no waking.
#[derive(Default)]
struct Attention {
    wanted: AtomicBool,
    attended: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Attention {
    /// Takes note of the task that uses the connection now.
    fn attach(&self, task: &Waker) {
        let mut slot = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if !slot.as_ref().is_some_and(|known| known.will_wake(task)) {
            *slot = Some(task.clone());
        }
    }
}

impl Wake for Attention {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wanted.store(true, Relaxed);
        if !self.attended.load(Relaxed)
            && let Some(task) = &*self.task.lock().unwrap_or_else(PoisonError::into_inner)
        {
            task.wake_by_ref();
        }
    }
}

/// Turns that a connection may have in one poll, so that a fast upstream starves nobody.
const MAX_TURNS: u32 = 32;

/// A connection to an upstream.
pub struct Connection<B: hyper::body::Body + 'static> {
    sender: SendRequest<B>,
    driver: http1::Connection<Reader, B>,
    expects_head: Arc<AtomicBool>,
    attention: Arc<Attention>,
    waker: Waker,
    finished: bool,
}

impl<B> Connection<B>
where
    B: hyper::body::Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    pub(super) async fn start(socket: TcpStream) -> hyper::Result<Self> {
        let expects_head = Arc::new(AtomicBool::new(false));
        let reader = Reader::new(socket, expects_head.clone());
        let (sender, driver) = http1::Builder::new().handshake(reader).await?;
        let attention = Arc::new(Attention::default());
        let waker = attention.clone().into();
        Ok(Self { sender, driver, expects_head, attention, waker, finished: false })
    }

    /// Polls something that only this connection can bring about, giving the connection a turn
    /// whenever it wants one.
    pub(super) fn poll_with<T>(
        &mut self,
        cx: &Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.attention.attach(cx.waker());
        self.attention.attended.store(true, Relaxed);
        // What is polled is moved by the turns here alone, and polled after each.
        let mut nobody = Context::from_waker(Waker::noop());
        let mut result = Poll::Pending;
        for turn in 0.. {
            if self.attention.wanted.swap(false, Relaxed) {
                self.turn();
            }
            result = poll(&mut nobody);
            if result.is_ready() || !self.attention.wanted.load(Relaxed) {
                break;
            }
            if turn == MAX_TURNS {
                cx.waker().wake_by_ref();
                break;
            }
        }
        self.attention.attended.store(false, Relaxed);
        result
    }

    fn turn(&mut self) {
        if !self.finished {
            // How it ended is told to whoever waits for an answer or reads a body.
            let mut cx = Context::from_waker(&self.waker);
            self.finished = Pin::new(&mut self.driver).poll(&mut cx).is_ready();
        }
    }

    /// Whether a request may be sent: the one before is answered completely, nothing arrived
    /// beyond its answer, and the other side has not closed.
    pub(super) fn is_idle(&mut self) -> bool {
        self.turn();
        !self.finished && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&mut self, request: Request<B>) -> Result<Response<Incoming>, SendError<B>> {
        self.expects_head.store(true, Relaxed);
        let mut answer = pin!(self.sender.try_send_request(request));
        self.attention.wanted.store(true, Relaxed);
        let result = poll_fn(|cx| self.poll_with(cx, |cx| answer.as_mut().poll(cx))).await;
        result.map_err(|mut error| match error.take_message() {
            Some(request) => SendError::Unsent(Box::new(request)),
            None => SendError::Broken(describe(error.error())),
        })
    }
}

/// The error with its causes, which the library's own text leaves out.
fn describe(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}
