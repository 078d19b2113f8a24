//! A request that is being sent to an upstream.

use std::{
    io::{self, Write},
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri, header};
use http_body::Body;
use tokio::io::AsyncWrite;

use crate::{
    stream::{Stream, Unsent},
    types::fields::{Fields, write_line, write_number_line},
};

/// Room for the head of most requests, in bytes.
const HEAD_CAPACITY: usize = 1 << 10;

/// The head of a request.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its target, of which path and query are sent.
    pub uri: &'a Uri,
    /// Its field lines. Their memory is used again for those of the response.
    pub fields: Fields,
}

/// The rest of a request's body.
enum Upload<B> {
    Whole,
    Length(B, u64),
    Chunked(B),
}

/// A request that is being sent: its bytes that were gathered and not written yet, and the rest of its body.
pub struct Outgoing<B> {
    /// The head, and what was gathered after it.
    unsent: Unsent,
    body: Upload<B>,
    /// Whether any byte was written.
    begun: bool,
    /// Whether a write has failed. The upstream may have responded before.
    write_failed: bool,
    to_head: bool,
    /// The protocol that the request asks for. A 101 must name the same.
    upgrade: Option<HeaderValue>,
}

impl<B: Body<Data = Bytes, Error = io::Error> + Unpin> Outgoing<B> {
    /// Creates the value of a connection that has no request.
    pub(super) fn none() -> Self {
        Self {
            unsent: Unsent::default(),
            body: Upload::Whole,
            begun: false,
            write_failed: false,
            to_head: false,
            upgrade: None,
        }
    }

    /// Returns whether any byte was written.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Returns whether the write failed before any byte was written.
    pub(super) fn never_left(&self) -> bool {
        self.write_failed && !self.begun
    }

    /// Returns whether the method is HEAD.
    pub(super) fn is_to_head(&self) -> bool {
        self.to_head
    }

    /// Prepares the request for another connection. No byte of it must have been written, or it has no body.
    pub(super) fn for_another(self) -> Self {
        let mut unsent = self.unsent;
        unsent.rewind();
        Self { write_failed: false, begun: false, unsent, ..self }
    }

    /// Returns the protocol that the request asks for.
    pub(super) fn upgrade(&self) -> Option<&HeaderValue> {
        self.upgrade.as_ref()
    }

    /// Frees the buffer. The next request gets one that is in the processor's cache.
    pub(super) fn rest(&mut self) {
        self.unsent = Unsent::default();
    }

    /// Writes what was gathered and polls the body for more. Small parts of a body are gathered into one write.
    ///
    /// # Errors
    /// The error of the body. The request must be broken off.
    pub(super) fn poll(&mut self, io: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if self.write_failed {
                // Reading tells whether the upstream has responded.
                return Poll::Ready(Ok(()));
            }
            let pending = self.gather(cx)?;
            if ready!(self.poll_write(io, cx)).is_err() {
                self.write_failed = true;
                if self.begun {
                    self.body = Upload::Whole;
                }
                continue;
            }
            if matches!(self.body, Upload::Whole) {
                return Poll::Ready(Ok(()));
            }
            if pending {
                return Poll::Pending;
            }
        }
    }

    /// Formats the head and stores the body.
    pub(super) fn begin(
        &mut self,
        request: &RequestHead<'_>,
        added: &[(&HeaderName, &HeaderValue)],
        body: B,
    ) {
        let head = self.unsent.begin();
        head.reserve(HEAD_CAPACITY);
        self.begun = false;
        self.write_failed = false;
        self.to_head = *request.method == Method::HEAD;
        let target = request.uri.path_and_query().map_or("/", |target| target.as_str());
        for part in [request.method.as_str(), " ", target, " HTTP/1.1\r\n"] {
            head.extend_from_slice(part.as_bytes());
        }
        for (name, value) in &request.fields {
            // Written below, according to the body.
            if *name != header::CONTENT_LENGTH && *name != header::TRANSFER_ENCODING {
                write_line(head, name.as_str(), value.as_bytes());
            }
        }
        self.upgrade = None;
        for (name, value) in added {
            if **name == header::UPGRADE {
                self.upgrade = Some((*value).clone());
            }
            write_line(head, name.as_str(), value.as_bytes());
        }
        self.body = if body.is_end_stream() {
            if request.fields.contains(&header::CONTENT_LENGTH) {
                write_line(head, "content-length", b"0");
            }
            Upload::Whole
        } else if let Some(length) = body.size_hint().exact() {
            write_number_line(head, "content-length", length);
            // Trailers, which may follow a body without a byte, are nothing for HTTP/1.1.
            if length == 0 { Upload::Whole } else { Upload::Length(body, length) }
        } else {
            write_line(head, "transfer-encoding", b"chunked");
            Upload::Chunked(body)
        };
        head.extend_from_slice(b"\r\n");
    }

    /// Gathers the available part of the body, up to a bound. Returns whether more may follow later.
    fn gather(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        while self.unsent.has_room() {
            let (body, left) = match &mut self.body {
                Upload::Whole => return Ok(false),
                Upload::Length(body, left) => (body, Some(left)),
                Upload::Chunked(body) => (body, None),
            };
            let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) else { return Ok(true) };
            // The body yields no trailers, and an empty frame is skipped.
            let data = frame.transpose()?.map(|frame| frame.into_data().unwrap_or_default());
            match (data, left) {
                (Some(data), _) if data.is_empty() => {}
                (Some(data), Some(left)) => {
                    *left = left.checked_sub(data.len() as u64).ok_or(io::ErrorKind::InvalidData)?;
                    if *left == 0 {
                        self.body = Upload::Whole;
                    }
                    self.unsent.add(data, b"");
                }
                (Some(data), None) => {
                    let _ = write!(self.unsent.bytes(), "{:x}\r\n", data.len());
                    self.unsent.add(data, b"\r\n");
                }
                (None, Some(_)) => return Err(io::ErrorKind::UnexpectedEof.into()),
                (None, None) => {
                    self.unsent.bytes().extend_from_slice(b"0\r\n\r\n");
                    self.body = Upload::Whole;
                }
            }
        }
        Ok(false)
    }

    fn poll_write(&mut self, io: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unsent.is_empty() {
            ready!(self.unsent.poll_write(io, cx))?;
            self.begun = true;
        }
        Pin::new(io).poll_flush(cx)
    }

    /// Returns whether a part of the body is still to come.
    pub(super) fn is_uploading(&self) -> bool {
        !matches!(self.body, Upload::Whole)
    }

    /// Returns whether the request was written completely.
    pub(super) fn is_sent(&self) -> bool {
        !self.write_failed && matches!(self.body, Upload::Whole) && self.unsent.is_empty()
    }
}
