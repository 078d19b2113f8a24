//! The body of a request, of which the begin is kept for another server.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};

/// The bytes of a body that are kept. A longer one is sent once.
const KEPT: usize = 64 << 10;

/// A body that takes back what was taken of it.
pub trait Rewind {
    /// Puts bytes in front of those that are still to come, and the trailers behind them if they were taken, too.
    fn put_back(&mut self, bytes: BytesMut, trailers: Option<HeaderMap>);
}

/// A body whose begin is kept.
pub(super) struct Replay<B> {
    body: B,
    /// Copied, since a part may be a byte in a buffer that is large.
    kept: BytesMut,
    trailers: Option<HeaderMap>,
    /// Whether something was given away that is not kept.
    is_lost: bool,
}

impl<B> Replay<B>
where
    B: Body<Data = Bytes, Error = io::Error> + Unpin,
{
    pub(super) fn new(body: B) -> Self {
        Self { body, kept: BytesMut::new(), trailers: None, is_lost: false }
    }

    /// Keeps nothing any more.
    pub(super) fn forget(&mut self) {
        self.is_lost = true;
        self.kept = BytesMut::new();
    }

    /// Returns whether nothing more comes.
    pub(super) fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Gives the next part.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(_)) if self.is_lost => {}
            Some(Ok(frame)) => match frame.data_ref() {
                Some(part) if self.kept.len() + part.len() <= KEPT => self.kept.extend_from_slice(part),
                Some(_) => self.forget(),
                None => self.trailers = frame.trailers_ref().cloned(),
            },
            Some(Err(_)) => self.is_lost = true,
            None => {}
        }
        Poll::Ready(frame)
    }
}

impl<B: Rewind> Replay<B> {
    /// Returns the body as it was. None if a part of it was not kept.
    pub(super) fn rewound(mut self) -> Option<B> {
        if self.is_lost {
            return None;
        }
        if !self.kept.is_empty() || self.trailers.is_some() {
            self.body.put_back(self.kept, self.trailers);
        }
        Some(self.body)
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, future::poll_fn};

    use super::*;

    struct Parts(VecDeque<Bytes>);

    impl Body for Parts {
        type Data = Bytes;
        type Error = io::Error;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            Poll::Ready(self.get_mut().0.pop_front().map(|part| Ok(Frame::data(part))))
        }

        fn is_end_stream(&self) -> bool {
            self.0.is_empty()
        }
    }

    impl Rewind for Parts {
        fn put_back(&mut self, bytes: BytesMut, _: Option<HeaderMap>) {
            self.0.push_front(bytes.freeze());
        }
    }

    fn replay(parts: &[&'static [u8]]) -> Replay<Parts> {
        Replay::new(Parts(parts.iter().map(|part| Bytes::from_static(part)).collect()))
    }

    async fn take(replay: &mut Replay<Parts>) -> Option<Bytes> {
        let frame = poll_fn(|cx| replay.poll_frame(cx)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    }

    async fn all(replay: &mut Replay<Parts>) -> Vec<u8> {
        let mut bytes = Vec::new();
        while !replay.is_end_stream() {
            bytes.extend_from_slice(&take(replay).await.unwrap());
        }
        bytes
    }

    #[tokio::test]
    async fn a_short_body_is_given_again_from_its_begin() {
        let mut body = replay(&[b"a", b"bc", b"def"]);
        assert_eq!(
            (take(&mut body).await.unwrap(), take(&mut body).await.unwrap()),
            ("a".into(), "bc".into())
        );
        let mut body = Replay::new(body.rewound().unwrap());
        // Given up again before all of it was taken.
        take(&mut body).await;
        let mut body = Replay::new(body.rewound().unwrap());
        assert_eq!(all(&mut body).await, b"abcdef");
        assert_eq!(take(&mut body).await, None);
    }

    #[tokio::test]
    async fn a_long_one_is_not() {
        let mut body = replay(&[&[b'x'; KEPT], b"y", b"z"]);
        take(&mut body).await;
        let mut body = Replay::new(body.rewound().unwrap());
        take(&mut body).await;
        assert_eq!(take(&mut body).await.unwrap(), "y");
        assert!(body.kept.is_empty());
        assert_eq!(take(&mut body).await.unwrap(), "z");
        assert!(body.is_end_stream() && body.rewound().is_none());
    }

    #[tokio::test]
    async fn what_was_not_taken_again_yet_still_comes_when_nothing_is_kept_any_more() {
        let mut body = replay(&[b"a", b"b", b"c", b"d"]);
        for _ in 0..3 {
            take(&mut body).await;
        }
        let mut body = Replay::new(body.rewound().unwrap());
        body.forget();
        assert_eq!(all(&mut body).await, b"abcd");
        assert!(body.kept.is_empty() && body.rewound().is_none());
    }

    #[tokio::test]
    async fn a_byte_of_a_large_buffer_does_not_keep_the_buffer() {
        let large = Bytes::from(vec![b'x'; 64 << 10]);
        let mut body = Replay::new(Parts((0..100).map(|at| large.slice(at..=at)).collect()));
        drop(large);
        for _ in 0..99 {
            take(&mut body).await;
        }
        // Nobody has the buffer but the part that is still to come.
        assert!(body.body.0.pop_front().unwrap().is_unique());
        assert!(body.kept.capacity() <= KEPT);
    }
}
