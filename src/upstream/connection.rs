//! One connection, driven by whoever uses it.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker},
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

/// A connection to an upstream.
pub struct Connection<B: hyper::body::Body + 'static> {
    sender: SendRequest<B>,
    driver: http1::Connection<Reader, B>,
    expects_head: Arc<AtomicBool>,
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
        Ok(Self { sender, driver, expects_head, finished: false })
    }

    /// Moves the connection along. Ready when it has ended.
    pub fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.finished {
            // How it ended is told to whoever waits for an answer or reads a body.
            self.finished = Pin::new(&mut self.driver).poll(cx).is_ready();
        }
        if self.finished { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Whether a request may be sent: the one before is answered completely, nothing arrived
    /// beyond its answer, and the other side has not closed.
    pub(super) fn is_idle(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        self.poll_drive(&mut cx).is_pending() && self.sender.is_ready()
    }

    /// Sends a request and waits for the head of the answer.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&mut self, request: Request<B>) -> Result<Response<Incoming>, SendError<B>> {
        self.expects_head.store(true, Relaxed);
        let mut answer = pin!(self.sender.try_send_request(request));
        let (driver, finished) = (&mut self.driver, &mut self.finished);
        let result = poll_fn(|cx| {
            if !*finished {
                *finished = Pin::new(&mut *driver).poll(cx).is_ready();
            }
            answer.as_mut().poll(cx)
        })
        .await;
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
