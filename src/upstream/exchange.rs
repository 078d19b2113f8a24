//! One request and its response on a connection of HTTP/2.

use std::{
    future::{Future, poll_fn},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header, uri::Scheme};
use http_body::{Frame, SizeHint};

use super::{
    Broken, RequestHead, ResponseHead,
    multiplexed::{Multiplexed, OnConnection},
};
use crate::types::hop_by_hop::is_hop_by_hop;

/// What gRPC calls its media types.
const GRPC: &[u8] = b"application/grpc";
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// A request that is still being sent.
struct Upload<B> {
    stream: SendStream<Bytes>,
    body: B,
    /// A part that the server has no room for yet, and whether it is the last one.
    part: Bytes,
    is_last: bool,
}

/// The body of a response, which also drives what is left of the request.
pub(super) struct Exchange<B> {
    upload: Option<Upload<B>>,
    stream: RecvStream,
    /// The bytes that are still to come, if the head says so.
    left: Option<u64>,
    is_over: bool,
    _on: OnConnection,
}

/// Sends a request and waits for the head of the response.
///
/// # Errors
/// [`Broken`]; one that is `unsent` was not processed by the server.
pub(super) async fn send<B>(
    connection: &Arc<Multiplexed>,
    is_tls: bool,
    head: &RequestHead<'_>,
    added: &[(&HeaderName, &HeaderValue)],
    body: B,
) -> Result<(ResponseHead, Exchange<B>), Broken>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    let on = connection.enters();
    let request = request(is_tls, head, added).map_err(|error| Broken::of_request(error.to_string()))?;
    let is_whole = body.is_end_stream();
    let failed = |error: &h2::Error| {
        if error.is_go_away() || error.is_io() {
            connection.ends();
        }
        let refused = error.reason() == Some(Reason::REFUSED_STREAM)
            || (error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR));
        Broken::of_stream(error.to_string(), refused)
    };
    let mut sender = connection.sender();
    if let Err(error) = poll_fn(|cx| sender.poll_ready(cx)).await {
        connection.ends();
        return Err(Broken::of_stream(error.to_string(), true));
    }
    let (mut response, stream) = sender.send_request(request, is_whole).map_err(|error| {
        connection.ends();
        Broken::of_stream(error.to_string(), true)
    })?;
    let mut upload = (!is_whole).then(|| Upload { stream, body, part: Bytes::new(), is_last: false });
    let response = poll_fn(|cx| {
        if let Some(Err(error)) = poll_upload(&mut upload, cx) {
            return Poll::Ready(Err(Broken::of_body(error.to_string())));
        }
        Pin::new(&mut response).poll(cx).map_err(|error| failed(&error))
    });
    let (parts, stream) = response.await?.into_parts();
    let length = parts.headers.get(header::CONTENT_LENGTH);
    let left = length.and_then(|length| length.to_str().ok()?.parse().ok());
    let head = ResponseHead { status: parts.status, old: false, fields: parts.headers.into() };
    let is_over = stream.is_end_stream();
    Ok((head, Exchange { upload, left, is_over, stream, _on: on }))
}

/// Builds the request (RFC 9113, section 8.3.1).
fn request(
    is_tls: bool,
    head: &RequestHead<'_>,
    added: &[(&HeaderName, &HeaderValue)],
) -> Result<Request<()>, http::Error> {
    let mut headers = HeaderMap::with_capacity(24);
    let lines = head.fields.iter().map(|(name, value)| (name, value));
    for (name, value) in lines.chain(added.iter().copied()) {
        if !is_hop_by_hop(name.as_str()) && *name != header::HOST {
            headers.append(name.clone(), value.clone());
        }
    }
    if headers.get(header::CONTENT_TYPE).is_some_and(|media| media.as_bytes().starts_with(GRPC)) {
        headers.insert(header::TE, TRAILERS);
    }
    let host = head.fields.get(&header::HOST).map_or(&b"localhost"[..], HeaderValue::as_bytes);
    let scheme = if is_tls { Scheme::HTTPS } else { Scheme::HTTP };
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(target).build()?;
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Sends on, and forgets an upload that is over. An error is the body's own.
fn poll_upload<B>(upload: &mut Option<Upload<B>>, cx: &mut Context<'_>) -> Option<io::Result<()>>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    let polled = upload.as_mut()?.poll(cx);
    match polled {
        Poll::Pending => None,
        Poll::Ready(result) => {
            if let (Err(_), Some(upload)) = (&result, upload.as_mut()) {
                upload.stream.send_reset(Reason::CANCEL);
            }
            *upload = None;
            Some(result)
        }
    }
}

impl<B> Upload<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.part.is_empty() && !self.is_last {
                let frame = ready!(Pin::new(&mut self.body).poll_frame(cx)).transpose()?;
                self.is_last = frame.is_none() || self.body.is_end_stream();
                self.part = frame.and_then(|frame| frame.into_data().ok()).unwrap_or_default();
            }
            if self.part.is_empty() {
                if self.is_last {
                    // A server that has gone is found out by its response.
                    let _ = self.stream.send_data(Bytes::new(), true);
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            self.stream.reserve_capacity(self.part.len());
            match ready!(self.stream.poll_capacity(cx)) {
                Some(Ok(0)) => {}
                Some(Ok(room)) => {
                    let part = self.part.split_to(room.min(self.part.len()));
                    let is_end = self.is_last && self.part.is_empty();
                    if self.stream.send_data(part, is_end).is_err() || is_end {
                        return Poll::Ready(Ok(()));
                    }
                }
                // The server wants no more of it.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl<B> Exchange<B>
where
    B: http_body::Body<Data = Bytes, Error = io::Error> + Unpin,
{
    /// Reads a part of the response, or its trailers at the end.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(Err(error)) = poll_upload(&mut self.upload, cx) {
            return Poll::Ready(Some(Err(error)));
        }
        if self.is_over {
            return Poll::Ready(None);
        }
        loop {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    if self.stream.flow_control().release_capacity(data.len()).is_err() {
                        return Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())));
                    }
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    self.is_over = self.stream.is_end_stream();
                    if data.is_empty() && !self.is_over {
                        continue;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(io::Error::other(error)))),
                None => {
                    let trailers = ready!(self.stream.poll_trailers(cx));
                    self.is_over = true;
                    return Poll::Ready(match trailers {
                        Ok(trailers) => trailers.map(|trailers| Ok(Frame::trailers(cleaned(trailers)))),
                        Err(error) => Some(Err(io::Error::other(error))),
                    });
                }
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

/// Takes out of trailers what belongs to a connection.
fn cleaned(mut trailers: HeaderMap) -> HeaderMap {
    let hops: Vec<_> = trailers.keys().filter(|name| is_hop_by_hop(name.as_str())).cloned().collect();
    hops.iter().for_each(|name| drop(trailers.remove(name)));
    trailers
}
