//! Where an answer's body ends, and what of it has arrived.

use bytes::{Buf, Bytes, BytesMut};

/// A chunk's size and its extensions, or all trailers: longer ones serve no purpose.
const MAX_LINES: usize = 8 << 10;

/// Follows the body of one answer.
#[derive(Debug)]
pub struct Decoder(State);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Done,
    Length(u64),
    UntilClose,
    ChunkSize,
    ChunkData(u64),
    ChunkEnd,
    /// Bytes of trailers so far; they are dropped.
    Trailers(usize),
}

/// What a look at the received bytes gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A part of the body.
    Data(Bytes),
    /// The body is complete.
    End,
    /// So many bytes more are wanted, at least or at most.
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
        Self(State::ChunkSize)
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

    /// Takes what can be taken of `received`. Behind data, framing that has arrived is taken too, so
    /// that the end is known as soon as it is there.
    pub(super) fn decode(&mut self, received: &mut BytesMut) -> Decoded {
        if let Some(result) = self.framing(received) {
            return result;
        }
        let left = match self.0 {
            State::Length(left) | State::ChunkData(left) => left,
            _ => u64::MAX,
        };
        if received.is_empty() {
            return Decoded::More(usize::try_from(left).unwrap_or(usize::MAX));
        }
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(received.len());
        let data = received.split_to(length).freeze();
        let left = left - length as u64;
        self.0 = match self.0 {
            State::Length(_) if left == 0 => State::Done,
            State::Length(_) => State::Length(left),
            State::ChunkData(_) if left == 0 => State::ChunkEnd,
            State::ChunkData(_) => State::ChunkData(left),
            other => other,
        };
        // A fault behind the data is met again at the next call.
        let _ = self.framing(received);
        Decoded::Data(data)
    }

    /// Takes framing up to the next data; what there is to say if it comes to none.
    fn framing(&mut self, received: &mut BytesMut) -> Option<Decoded> {
        loop {
            match self.0 {
                State::Done => return Some(Decoded::End),
                State::Length(_) | State::UntilClose | State::ChunkData(_) => return None,
                State::ChunkEnd => {
                    match received.get(..2) {
                        Some(b"\r\n") => {}
                        Some(_) => return Some(Decoded::Bad),
                        None => return Some(Decoded::More(0)),
                    }
                    received.advance(2);
                    self.0 = State::ChunkSize;
                }
                State::ChunkSize => {
                    let Some(end) = line_end(received) else {
                        return Some(too_long_or_more(received.len()));
                    };
                    let Some(size) = chunk_size(&received[..end]) else { return Some(Decoded::Bad) };
                    received.advance(end + 2);
                    self.0 = if size == 0 { State::Trailers(0) } else { State::ChunkData(size) };
                }
                State::Trailers(seen) => {
                    let Some(end) = line_end(received) else {
                        return Some(too_long_or_more(seen + received.len()));
                    };
                    received.advance(end + 2);
                    let seen = seen + end + 2;
                    if seen > MAX_LINES {
                        return Some(Decoded::Bad);
                    }
                    self.0 = if end == 0 { State::Done } else { State::Trailers(seen) };
                }
            }
        }
    }
}

fn too_long_or_more(length: usize) -> Decoded {
    if length > MAX_LINES { Decoded::Bad } else { Decoded::More(0) }
}

/// Where the first line ends; a bare line feed ends none.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let end = memchr::memchr(b'\r', bytes)?;
    (bytes.get(end + 1) == Some(&b'\n')).then_some(end)
}

/// The size of a chunk, its extensions aside (RFC 9112, section 7.1).
fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii_end();
    if digits.is_empty() || digits.len() > 15 || memchr::memchr(b'\n', line).is_some() {
        return None;
    }
    digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + u64::from((*digit as char).to_digit(16)?)))
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
