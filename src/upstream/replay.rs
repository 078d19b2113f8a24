//! The body of a request, of which the begin is kept for another server.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body::{Body, Frame};

/// The bytes of a body that are kept. A longer one is sent once.
const KEPT: usize = 64 << 10;

/// A body whose begin is kept.
pub(super) struct Replay<B> {
    body: B,
    kept: Vec<Bytes>,
    length: usize,
    /// How many of the kept parts were given away.
    given: usize,
    /// Whether something was given away that is not kept.
    is_lost: bool,
}

impl<B> Replay<B>
where
    B: Body<Data = Bytes, Error = io::Error> + Unpin,
{
    pub(super) fn new(body: B) -> Self {
        Self { body, kept: Vec::new(), length: 0, given: 0, is_lost: false }
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

    /// Keeps nothing any more.
    pub(super) fn forget(&mut self) {
        self.is_lost |= !self.kept.is_empty();
        self.kept = Vec::new();
        self.given = 0;
    }

    /// Returns whether nothing more comes.
    pub(super) fn is_end_stream(&self) -> bool {
        self.given == self.kept.len() && self.body.is_end_stream()
    }

    /// Gives the next part, a kept one or one of the body.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(part) = self.kept.get(self.given) {
            self.given += 1;
            return Poll::Ready(Some(Ok(Frame::data(part.clone()))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => match frame.data_ref() {
                Some(part) if !self.is_lost && self.length + part.len() <= KEPT => {
                    self.length += part.len();
                    self.kept.push(part.clone());
                    self.given += 1;
                }
                _ => {
                    self.forget();
                    self.is_lost = true;
                }
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

    fn replay(parts: &[usize]) -> Replay<Parts> {
        Replay::new(Parts(parts.iter().map(|length| Bytes::from(vec![b'x'; *length])).collect()))
    }

    async fn take(replay: &mut Replay<Parts>) -> Option<usize> {
        let frame = poll_fn(|cx| replay.poll_frame(cx)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap().len())
    }

    #[tokio::test]
    async fn a_short_body_is_given_again_from_its_begin() {
        let mut body = replay(&[1, 2, 3]);
        assert_eq!((take(&mut body).await, take(&mut body).await), (Some(1), Some(2)));
        let mut body = body.rewound().unwrap();
        let mut again = Vec::new();
        while !body.is_end_stream() {
            again.push(take(&mut body).await.unwrap());
        }
        assert_eq!(again, [1, 2, 3]);
        assert_eq!(take(&mut body).await, None);
        assert!(body.into_untouched().is_none());
        assert!(replay(&[1]).into_untouched().is_some());
    }

    #[tokio::test]
    async fn a_long_one_is_not() {
        let mut body = replay(&[KEPT, 1, 1]);
        take(&mut body).await;
        let mut body = body.rewound().unwrap();
        take(&mut body).await;
        assert_eq!(take(&mut body).await, Some(1));
        assert!(body.kept.is_empty());
        assert_eq!(take(&mut body).await, Some(1));
        assert!(body.is_end_stream() && body.rewound().is_none());
    }
}
