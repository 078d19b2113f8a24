//! A connection that was switched to WebSocket: bytes both ways, until either side or its token ends.
//!
//! The request that asked for it is decided like any other, and only the upstream's own `101` opens the
//! tunnel. Nothing but WebSocket is switched to: behind any other protocol a client could speak HTTP to the
//! upstream without a decision.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use http::{HeaderValue, Method, Version, header};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    activity::{Activity, Opening},
    request_head::RequestHead,
};
use crate::{
    revocation::Registration,
    stream::{Stream, traffic},
    types::hop_by_hop::names_upgrade,
    upstream::Counted,
};

pub(super) static WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
pub(super) static UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// The size of a read, in bytes.
const CHUNK: usize = 16 << 10;

/// Whether a request asks for a WebSocket and for nothing else (RFC 6455, section 4.1). Any other request
/// with `Upgrade` goes on without it.
pub(super) fn is_asked(request: &RequestHead, has_body: bool) -> bool {
    if has_body || !request.fields.contains(&header::UPGRADE) {
        return false;
    }
    request.method == Method::GET
        && request.version != Version::HTTP_10
        && !request.fields.contains(&header::CONTENT_LENGTH)
        && names_upgrade(&request.fields, &WEBSOCKET)
}

/// An open tunnel.
pub(super) struct Tunnel<C> {
    client: C,
    upstream: Stream,
    to_upstream: Flow,
    to_client: Flow,
    registration: Option<Registration>,
    _counted: Counted,
}

/// What flows one way.
struct Flow {
    /// Read and not written yet.
    held: BytesMut,
    /// Written and not flushed yet.
    unflushed: bool,
    /// The sender has ended.
    ended: bool,
    /// The receiver was told so.
    told: bool,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Tunnel<C> {
    /// Joins a client, who has sent `early` behind its request, with an upstream.
    pub(super) fn new(client: C, early: BytesMut, opening: Opening) -> Self {
        let flow = |held| Flow { held, unflushed: false, ended: false, told: false };
        Self {
            client,
            upstream: opening.upstream,
            to_upstream: flow(early),
            to_client: flow(opening.early),
            registration: opening.registration,
            _counted: opening.counted,
        }
    }

    /// Carries bytes until both sides have ended, one has failed, or the token is dead. Each that moves
    /// pushes the connection's moment ahead.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, activity: &Activity) -> Poll<()> {
        if self.registration.as_ref().is_some_and(Registration::is_cut) {
            return Poll::Ready(());
        }
        let (client, upstream) = (&mut self.client, &mut self.upstream);
        let up = self.to_upstream.poll(cx, client, upstream, activity, traffic::received);
        let down = self.to_client.poll(cx, upstream, client, activity, traffic::sent);
        match (up, down) {
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(()),
            (Poll::Ready(Err(error)), _) | (_, Poll::Ready(Err(error))) => {
                tracing::debug!(%error, "a tunnel ended");
                Poll::Ready(())
            }
            _ => Poll::Pending,
        }
    }
}

impl Flow {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut (impl AsyncRead + Unpin),
        to: &mut (impl AsyncWrite + Unpin),
        activity: &Activity,
        count: fn(usize),
    ) -> Poll<io::Result<()>> {
        loop {
            while !self.held.is_empty() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.held))?;
                self.held.advance(written);
                self.unflushed = true;
                activity.moves();
            }
            // One that rests keeps no buffer.
            self.held = BytesMut::new();
            if self.unflushed {
                ready!(Pin::new(&mut *to).poll_flush(cx))?;
                self.unflushed = false;
            }
            if self.ended {
                if !self.told {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.told = true;
                }
                return Poll::Ready(Ok(()));
            }
            let mut scratch = [0; CHUNK];
            let mut buffer = ReadBuf::new(&mut scratch);
            ready!(Pin::new(&mut *from).poll_read(cx, &mut buffer))?;
            let filled = buffer.filled();
            self.ended = filled.is_empty();
            let written = match Pin::new(&mut *to).poll_write(cx, filled) {
                _ if self.ended => 0,
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            self.unflushed |= written > 0;
            activity.moves();
            activity.budget.spends(filled.len());
            count(filled.len());
            self.held.extend_from_slice(&filled[written..]);
            if activity.budget.is_spent() {
                // The connection's task sees to it that it comes back.
                return Poll::Pending;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::*;
    use crate::types::fields::Fields;

    fn request(lines: &[(&'static str, &'static str)]) -> RequestHead {
        let mut fields = Fields::default();
        for (name, value) in lines {
            fields.append(name.parse().unwrap(), HeaderValue::from_static(value));
        }
        let uri = Uri::from_static("/");
        RequestHead { method: Method::GET, uri, version: Version::HTTP_11, fields }
    }

    fn asked(lines: &[(&'static str, &'static str)]) -> bool {
        is_asked(&request(lines), false)
    }

    #[test]
    fn a_websocket_is_asked_for_in_one_way() {
        assert!(asked(&[("connection", "Upgrade"), ("upgrade", "websocket")]));
        assert!(asked(&[("connection", "keep-alive, upgrade"), ("upgrade", "WebSocket")]));
        for lines in [
            &[("upgrade", "websocket")][..],
            &[("connection", "upgrade")],
            &[("connection", "close"), ("upgrade", "websocket")],
            &[("connection", "upgrade"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket, h2c")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("upgrade", "h2c")],
            &[("connection", "upgrade"), ("upgrade", "HTTP/2.0")],
            &[("connection", "upgrade"), ("upgrade", "websocket"), ("content-length", "0")],
        ] {
            assert!(!asked(lines), "{lines:?}");
        }
        let good = || request(&[("connection", "upgrade"), ("upgrade", "websocket")]);
        assert!(!is_asked(&RequestHead { method: Method::POST, ..good() }, false));
        assert!(!is_asked(&RequestHead { version: Version::HTTP_10, ..good() }, false));
        assert!(!is_asked(&good(), true));
    }
}
