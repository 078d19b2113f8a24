//! One client connection: the library's connection, and the one timer that bounds it.

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use pin_project_lite::pin_project;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, Sleep},
};

use super::{
    body::{AnswerBody, RequestBody},
    client::Peer,
    exchange::{Exchange, Phase},
    guard::Guard,
    service::{Context, Gateway},
};
use crate::{types::framing::HeadLimits, upstream::Pool};

/// The library's own count of headers, for which it needs no allocation; the guard's comes first.
const LIBRARY_HEADERS: usize = 100;

/// Serves a connection until it ends, expires, or the drain lets it end.
pub(super) async fn serve(
    socket: TcpStream,
    peer: Peer,
    gateway: Arc<Gateway>,
    pools: Arc<[Arc<Pool<RequestBody>>]>,
    mut drain: watch::Receiver<bool>,
) {
    let limits = &gateway.limits;
    let exchange = Arc::new(Exchange::new(limits));
    let head_limits = HeadLimits { bytes: limits.header_bytes, count: limits.header_count };
    let guard = Guard::new(socket, exchange.clone(), head_limits);
    let mut builder = http1::Builder::new();
    builder.header_read_timeout(None).max_buf_size(limits.header_bytes.max(64 << 10) + (8 << 10));
    if limits.header_count > LIBRARY_HEADERS {
        builder.max_headers(limits.header_count);
    }
    let shared = Arc::new((gateway.clone(), pools, peer, exchange.clone()));
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = shared.clone();
        async move {
            let (gateway, pools, peer, exchange) = &*shared;
            let context = Context { gateway, pools, peer, exchange };
            Ok::<Response<AnswerBody>, Infallible>(context.serve(request).await)
        }
    });
    let connection = builder.serve_connection(guard, service);
    let timer = tokio::time::sleep(limits.idle_timeout);
    let mut bounded = std::pin::pin!(Bounded { connection, timer, exchange });
    tokio::select! {
        biased;
        () = bounded.as_mut() => return,
        _ = drain.wait_for(|draining| *draining) => {}
    }
    bounded.as_mut().drain();
    bounded.await;
}

pin_project! {
    /// A connection with its timer.
    struct Bounded<S>
    where
        S: Service<Request<Incoming>, Response = Response<AnswerBody>, Error = Infallible>,
    {
        #[pin]
        connection: http1::Connection<Guard, S>,
        #[pin]
        timer: Sleep,
        exchange: Arc<Exchange>,
    }
}

impl<S> Bounded<S>
where
    S: Service<Request<Incoming>, Response = Response<AnswerBody>, Error = Infallible>,
{
    /// No further request is taken; the one in flight is finished.
    fn drain(self: Pin<&mut Self>) {
        self.project().connection.graceful_shutdown();
    }
}

impl<S> Future for Bounded<S>
where
    S: Service<Request<Incoming>, Response = Response<AnswerBody>, Error = Infallible>,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        let mut this = self.project();
        loop {
            match this.connection.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => return Poll::Ready(()),
                Poll::Ready(Err(error)) => {
                    // A client that breaks off is no event.
                    tracing::debug!(%error, "connection ended");
                    return Poll::Ready(());
                }
                Poll::Pending if this.exchange.is_expired() => {
                    // It was told, and did not end by itself: a slow reader, or nobody at all.
                    if matches!(this.exchange.phase(), Phase::Idle | Phase::Answer) {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending => {}
            }
            // The timer is moved only to an earlier moment; one that comes too early is set anew.
            let Some(remaining) = this.exchange.remaining() else {
                if this.exchange.phase() == Phase::Idle {
                    return Poll::Ready(());
                }
                // Poll once more: what is late sees that it is expired.
                if this.connection.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(());
                }
                if this.exchange.is_expired() {
                    return Poll::Ready(());
                }
                continue;
            };
            let due = Instant::now() + remaining + Duration::from_millis(4);
            if due < this.timer.deadline() {
                this.timer.as_mut().reset(due);
            }
            if this.timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
            if let Some(remaining) = this.exchange.remaining() {
                this.timer.as_mut().reset(Instant::now() + remaining + Duration::from_millis(4));
            }
        }
    }
}
