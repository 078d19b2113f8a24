//! One request and its response on a connection of HTTP/2.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};

use super::{
    Broken, Head, RequestHead, ResponseHead,
    multiplexed::{Multiplexed, OnConnection},
    replay::{Replay, Rewind},
};
use crate::{
    http2::{Failure, Reason, RequestLine, Stream},
    types::{fields::Fields, hop_by_hop::is_hop_by_hop, trailers},
};

/// What gRPC calls its media types.
const GRPC: &[u8] = b"application/grpc";

/// A request that is still being sent.
struct Upload<B> {
    body: Replay<B>,
    /// A part that the server has no room for yet, and whether it is the last one.
    part: Bytes,
    is_last: bool,
    is_over: bool,
}

/// A request on its way, then the body of its response.
pub(super) struct Exchange<B> {
    stream: Stream,
    upload: Upload<B>,
    /// The bytes that are still to come, if the head says so.
    left: Option<u64>,
    is_over: bool,
    _on: OnConnection,
}

fn broken(failure: &Failure) -> Broken {
    Broken::of_stream(failure.to_string(), *failure == Failure::Refused)
}

impl<B> Exchange<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Sends the head of a request.
    ///
    /// # Errors
    /// [`Broken`], and the body.
    pub(super) fn begin(
        connection: &Arc<Multiplexed>,
        is_tls: bool,
        head: &RequestHead<'_>,
        added: &[(&HeaderName, &HeaderValue)],
        body: B,
    ) -> Result<Self, (Broken, B)> {
        const TRAILERS: (&str, &[u8]) = ("te", b"trailers");
        let host = head.fields.get(&header::HOST).map_or(&b"localhost"[..], HeaderValue::as_bytes);
        let media = head.fields.get(&header::CONTENT_TYPE);
        let is_grpc = media.is_some_and(|media| media.as_bytes().starts_with(GRPC));
        let line = RequestLine {
            method: head.method.as_str(),
            is_tls,
            authority: host,
            path: head.uri.path_and_query().map_or("/", |target| target.as_str()),
        };
        let lines = head.fields.iter().map(|(name, value)| (name, value)).chain(added.iter().copied());
        let lines = lines
            .filter(|(name, _)| **name != header::HOST && !is_hop_by_hop(name.as_str()))
            .map(|(name, value)| (name.as_str(), value.as_bytes()))
            .chain(is_grpc.then_some(TRAILERS));
        let is_whole = body.is_end_stream();
        let on = connection.enters();
        let stream = match connection.opener().open(&line, lines, is_whole) {
            Ok(stream) => stream,
            Err(failure) => return Err((broken(&failure), body)),
        };
        let upload =
            Upload { body: Replay::new(body), part: Bytes::new(), is_last: false, is_over: is_whole };
        Ok(Self { stream, upload, left: None, is_over: false, _on: on })
    }

    /// Sends on, and waits for a head of the response.
    ///
    /// # Errors
    /// [`Broken`]; one that is `unsent` was not processed by the server.
    pub(super) async fn head(&mut self) -> Result<Head, Broken> {
        let (status, fields) = poll_fn(|cx| {
            if let Some(Err(error)) = self.poll_upload(cx) {
                return Poll::Ready(Err(Broken::of_body(error.to_string())));
            }
            self.stream.poll_head(cx).map_err(|failure| broken(&failure))
        })
        .await?;
        let head = ResponseHead { status, old: false, fields };
        if status == StatusCode::EARLY_HINTS {
            return Ok(Head::Hints(head));
        }
        let length = head.fields.get(&header::CONTENT_LENGTH);
        self.left = length.and_then(|length| length.to_str().ok()?.parse().ok());
        self.is_over = self.stream.is_end_stream();
        // Whoever has answered is not replaced.
        self.upload.body.forget();
        Ok(Head::Final(head))
    }

    /// Sends on, and forgets an upload that is over. An error is the body's own.
    pub(super) fn poll_upload(&mut self, cx: &mut Context<'_>) -> Option<io::Result<()>> {
        if self.upload.is_over {
            return None;
        }
        match self.upload.poll(&self.stream, cx) {
            Poll::Pending => None,
            Poll::Ready(result) => {
                if result.is_err() {
                    self.stream.reset(Reason::CANCEL);
                }
                self.upload.is_over = true;
                Some(result)
            }
        }
    }

    /// Reads a part of the response, or its trailers at the end.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(Err(error)) = self.poll_upload(cx) {
            return Poll::Ready(Some(Err(error)));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        match ready!(self.stream.poll_data(cx)) {
            Some(Ok(data)) => {
                self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                self.is_over = self.stream.is_end_stream();
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Some(Err(failure)) => Poll::Ready(Some(Err(io::Error::other(failure)))),
            None => {
                self.is_over = true;
                Poll::Ready(self.stream.trailers().map(|trailers| Ok(Frame::trailers(cleaned(trailers)))))
            }
        }
    }

    /// Returns whether nothing more comes.
    pub(super) fn is_end_stream(&self) -> bool {
        self.is_over
    }

    /// Returns what is known of the length.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self.left {
            _ if self.is_over => SizeHint::with_exact(0),
            Some(left) => SizeHint::with_exact(left),
            None => SizeHint::default(),
        }
    }
}

impl<B: Rewind> Exchange<B> {
    /// Returns the body for another server, if all that was taken of it is kept.
    pub(super) fn into_body(self) -> Option<B> {
        self.upload.body.rewound()
    }
}

impl<B> Upload<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    fn poll(&mut self, stream: &Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.part.is_empty() && !self.is_last {
                let frame = ready!(self.body.poll_frame(cx)).transpose()?;
                self.is_last = frame.is_none() || self.body.is_end_stream();
                match frame.map(Frame::into_data) {
                    Some(Ok(part)) => self.part = part,
                    Some(Err(frame)) => {
                        let trailers = cleaned(frame.into_trailers().unwrap_or_default().into());
                        let lines = trailers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
                        // A server that has gone is found out by its response.
                        let _ = stream.send_trailers(lines);
                        return Poll::Ready(Ok(()));
                    }
                    None => {}
                }
            }
            if self.part.is_empty() && !self.is_last {
                continue;
            }
            // A server that wants no more of it says so in its response.
            let is_gone = ready!(stream.poll_send(cx, &mut self.part, self.is_last)).is_err();
            if is_gone || self.is_last {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// Takes out of trailers what does not belong there.
fn cleaned(mut fields: Fields) -> HeaderMap {
    trailers::clean(&mut fields);
    fields.into()
}
