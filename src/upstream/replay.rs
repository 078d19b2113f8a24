//! The body of a request, of which the begin is kept for another server.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame};

/// The bytes of a body that are kept. A longer one is sent once.
const KEPT: usize = 64 << 10;

/// A body whose begin is kept.
pub(super) struct Replay<B> {
    body: B,
    /// Copied, since a part may be a byte in a buffer that is large.
    kept: BytesMut,
    /// How many of the kept bytes were given away.
    given: usize,
    /// Whether something was given away that is not kept.
    is_lost: bool,
}

impl<B> Replay<B>
where
    B: Body<Data = Bytes, Error = io::Error> + Unpin,
{
    pub(super) fn new(body: B) -> Self {
        Self { body, kept: BytesMut::new(), given: 0, is_lost: false }
    }

    /// Returns the body, unless a part of it was taken.
    pub(super) fn into_untouched(self) -> Option<B> {
        (self.kept.is_empty() && !self.is_lost).then_some(self.body)
    }

    /// Begins anew. None if a part of it was not kept.
    pub(super) fn rewound(mut self) -> Option<Self> {
        self.given = 0;
        (!self.is_lost).then_some(self)
    }

    /// Keeps nothing any more of what was given away. What was not still comes.
    pub(super) fn forget(&mut self) {
        self.is_lost = true;
        // Copied, so that the rest is not kept with it.
        self.kept = BytesMut::from(&self.kept[self.given..]);
        self.given = 0;
    }

    /// Returns whether nothing more comes.
    pub(super) fn is_end_stream(&self) -> bool {
        self.given == self.kept.len() && self.body.is_end_stream()
    }

    /// Gives the next part, a kept one or one of the body.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.given < self.kept.len() {
            let again = Bytes::copy_from_slice(&self.kept[self.given..]);
            self.given = self.kept.len();
            if self.is_lost {
                self.forget();
            }
            return Poll::Ready(Some(Ok(Frame::data(again))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(part) if !self.is_lost && self.kept.len() + part.len() <= KEPT => {
                    self.kept.extend_from_slice(part);
                    self.given = self.kept.len();
                }
                _ => self.forget(),
            },
            Some(Err(_)) => self.is_lost = true,
            None => {}
        }
        Poll::Ready(frame)
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
            (&take(&mut body).await.unwrap()[..], &take(&mut body).await.unwrap()[..]),
            (&b"a"[..], &b"bc"[..])
        );
        let mut body = body.rewound().unwrap();
        assert_eq!(all(&mut body).await, b"abcdef");
        assert_eq!(take(&mut body).await, None);
        assert!(body.into_untouched().is_none());
        assert!(replay(&[b"a"]).into_untouched().is_some());
    }

    #[tokio::test]
    async fn a_long_one_is_not() {
        let mut body = replay(&[&[b'x'; KEPT], b"y", b"z"]);
        take(&mut body).await;
        let mut body = body.rewound().unwrap();
        take(&mut body).await;
        assert_eq!(&take(&mut body).await.unwrap()[..], b"y");
        assert!(body.kept.is_empty());
        assert_eq!(&take(&mut body).await.unwrap()[..], b"z");
        assert!(body.is_end_stream() && body.rewound().is_none());
    }

    #[tokio::test]
    async fn what_was_not_given_again_yet_is_not_lost_when_nothing_is_kept_any_more() {
        let mut body = replay(&[b"a", b"b", b"c", b"d"]);
        for _ in 0..3 {
            take(&mut body).await;
        }
        let mut body = body.rewound().unwrap();
        body.forget();
        assert_eq!(all(&mut body).await, b"abcd");
        assert!(body.rewound().is_none());
        // The same before anything was kept.
        let mut body = replay(&[b"a", b"b"]);
        body.forget();
        take(&mut body).await;
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
