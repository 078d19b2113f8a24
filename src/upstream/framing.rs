//! Decodes the body of a response, up to its end.

use bytes::{Buf, Bytes, BytesMut};

use crate::types::chunked::Chunked;

/// Follows the body of one response.
#[derive(Debug)]
pub struct Decoder(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    Chunked(Chunked),
}

/// What decoding the received bytes gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A part of the body.
    Data(Bytes),
    /// The body is complete.
    End,
    /// More bytes are needed, about this many.
    More(usize),
    /// It cannot be followed.
    Bad,
}

impl Decoder {
    pub(super) fn done() -> Self {
        Self(State::Done)
    }

    pub(super) fn length(length: u64) -> Self {
        Self(if length == 0 { State::Done } else { State::Length(length) })
    }

    pub(super) fn chunked() -> Self {
        // Old servers pad sizes with blanks.
        Self(State::Chunked(Chunked::new(true)))
    }

    pub(super) fn until_close() -> Self {
        Self(State::UntilClose)
    }

    pub(super) fn is_done(&self) -> bool {
        self.0 == State::Done
    }

    pub(super) fn ends_with_connection(&self) -> bool {
        self.0 == State::UntilClose
    }

    /// The bytes that are still to come, where they are known.
    pub(super) fn remaining(&self) -> Option<u64> {
        match self.0 {
            State::Done => Some(0),
            State::Length(left) => Some(left),
            _ => None,
        }
    }

    /// Decodes the beginning of `received`. After data, framing that has arrived is taken too, so
    /// that the end is known as soon as it is there.
    pub(super) fn decode(&mut self, received: &mut BytesMut) -> Decoded {
        if !self.skip_framing(received) {
            return Decoded::Bad;
        }
        let left = match &self.0 {
            State::Done => return Decoded::End,
            State::Length(left) => *left,
            State::UntilClose => u64::MAX,
            State::Chunked(chunked) => chunked.left(),
        };
        if received.is_empty() {
            return Decoded::More(usize::try_from(left).unwrap_or(usize::MAX));
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(received.len());
        let data = received.split_to(length).freeze();
        match &mut self.0 {
            State::Length(left) if *left == length as u64 => self.0 = State::Done,
            State::Length(left) => *left -= length as u64,
            State::Chunked(chunked) => {
                chunked.take_data(length);
                // An error behind the data is met again at the next call.
                self.skip_framing(received);
            }
            State::Done | State::UntilClose => {}
        }
        Decoded::Data(data)
    }

    /// Takes framing up to the next data or the end; whether it is sound.
    fn skip_framing(&mut self, received: &mut BytesMut) -> bool {
        let State::Chunked(chunked) = &mut self.0 else { return true };
        let before = *chunked;
        match chunked.skip_framing(received) {
            Ok(length) => received.advance(length),
            Err(_) => {
                *chunked = before;
                return false;
            }
        }
        if chunked.is_done() {
            self.0 = State::Done;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `text` given in pieces of `piece` bytes: the body, and whether it came to its end.
    fn decode(mut decoder: Decoder, text: &str, piece: usize) -> Option<(String, bool)> {
        let (mut received, mut body) = (BytesMut::new(), Vec::new());
        for part in text.as_bytes().chunks(piece) {
            received.extend_from_slice(part);
            loop {
                match decoder.decode(&mut received) {
                    Decoded::Data(data) => body.extend_from_slice(&data),
                    Decoded::Bad => return None,
                    Decoded::End | Decoded::More(_) => break,
                }
            }
        }
        Some((String::from_utf8(body).unwrap(), decoder.is_done() && received.is_empty()))
    }

    #[test]
    fn bodies_come_to_their_ends_in_pieces_of_any_size() {
        for piece in 1..40 {
            let chunks = "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nTrailer: x\r\n\r\n";
            assert_eq!(decode(Decoder::chunked(), chunks, piece), Some(("hello world".into(), true)));
            assert_eq!(decode(Decoder::length(5), "hello", piece), Some(("hello".into(), true)));
            assert_eq!(decode(Decoder::length(5), "hell", piece), Some(("hell".into(), false)));
            assert_eq!(decode(Decoder::length(5), "hello!", piece), Some(("hello".into(), false)));
            assert_eq!(decode(Decoder::until_close(), "hello", piece), Some(("hello".into(), false)));
        }
    }

    #[test]
    fn the_end_is_known_with_the_last_data() {
        let mut decoder = Decoder::chunked();
        let mut received = BytesMut::from("5\r\nhello\r\n0\r\n\r\n");
        assert_eq!(decoder.decode(&mut received), Decoded::Data("hello".into()));
        assert!(decoder.is_done() && received.is_empty());
    }

    #[test]
    fn chunks_that_cannot_be_followed_are_bad() {
        for text in ["x\r\n", "\r\n", "-1\r\n", "5\r\nhelloXX", "1234567890abcdef0\r\n", "5\nhello\r\n"] {
            assert_eq!(decode(Decoder::chunked(), text, 100), None, "{text:?}");
        }
        assert_eq!(decode(Decoder::chunked(), &"1;".repeat(9_000), 100), None);
    }
}
