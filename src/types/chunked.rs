//! Decodes the chunked transfer coding (RFC 9112, section 7.1), for both directions.
//!
//! Extensions and trailers are skipped and never passed on. What they take is bounded
//! by what the body brings, so that a body cannot consist of framing alone.

use bytes::BytesMut;
use thiserror::Error;

/// The longest run of digits in a chunk's size: 1 EiB, and no overflow.
const MAX_DIGITS: u8 = 15;

/// Bytes of extensions and trailers that a body may have beyond its data.
const FREE_OVERHEAD: u64 = 8 << 10;

/// The chunks cannot be followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the chunked framing is broken")]
pub struct ChunkError;

/// The place in a chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In a chunk's size: its value and its digits so far.
    Size(u64, u8),
    /// In blanks behind the size.
    Padding(u64),
    Extension(u64),
    /// Behind the CR that ends the line of the size.
    SizeEnd(u64),
    Data(u64),
    /// Before the CR and LF behind a chunk.
    DataEnd,
    DataEndLf,
    /// At the beginning of a line of trailers.
    TrailerStart,
    Trailer,
    TrailerLf,
    /// Behind the CR that ends the body.
    FinalLf,
    Done,
}

/// Follows one chunked body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunked {
    state: State,
    /// Whether blanks may stand behind a size, as some old servers pad it.
    padded: bool,
    overhead: u64,
    data: u64,
}

impl Chunked {
    /// A body at its beginning. With `padded`, blanks between a size and the end of its line are skipped.
    pub fn new(padded: bool) -> Self {
        Self { state: State::Size(0, 0), padded, overhead: 0, data: 0 }
    }

    /// Whether the body has come to its end.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of the present chunk that are still to come.
    pub fn left(&self) -> u64 {
        if let State::Data(left) = self.state { left } else { 0 }
    }

    /// Consumes framing from the beginning of `bytes`, up to the next data or the end of the body, and returns
    /// its length.
    ///
    /// # Errors
    /// [`ChunkError`] for a byte that has no place there: signs, bare line ends, too many digits or extensions.
    pub fn skip_framing(&mut self, bytes: &[u8]) -> Result<usize, ChunkError> {
        for (index, &byte) in bytes.iter().enumerate() {
            if matches!(self.state, State::Data(_) | State::Done) {
                return Ok(index);
            }
            self.state = self.after(byte).ok_or(ChunkError)?;
        }
        Ok(bytes.len())
    }

    /// Consumes data. Returns how many of the `available` bytes belong to the current chunk.
    pub fn take_data(&mut self, available: usize) -> usize {
        let State::Data(left) = self.state else { return 0 };
        let taken = left.min(available as u64);
        self.data += taken;
        self.state = if taken == left { State::DataEnd } else { State::Data(left - taken) };
        taken as usize
    }

    /// Appends the available part of the body to `out`. Returns how many bytes it took.
    ///
    /// # Errors
    /// [`ChunkError`], as [`Self::skip_framing`] has it.
    pub fn decode(&mut self, bytes: &[u8], out: &mut BytesMut) -> Result<usize, ChunkError> {
        let mut taken = 0;
        while taken < bytes.len() && !self.is_done() {
            taken += self.skip_framing(&bytes[taken..])?;
            let length = self.take_data(bytes.len() - taken);
            out.extend_from_slice(&bytes[taken..taken + length]);
            taken += length;
        }
        Ok(taken)
    }

    fn after(&mut self, byte: u8) -> Option<State> {
        Some(match (self.state, byte) {
            (State::Size(size, digits), b'\r') if digits > 0 => State::SizeEnd(size),
            (State::Size(size, digits), b';') if digits > 0 => self.skip(State::Extension(size))?,
            (State::Size(size, digits), b' ' | b'\t') if digits > 0 => self.skip(State::Padding(size))?,
            (State::Size(size, digits), byte) if digits < MAX_DIGITS => {
                let digit = (byte as char).to_digit(16)?;
                State::Size(size * 16 + u64::from(digit), digits + 1)
            }
            // Blanks belong to an extension (RFC 9112, section 7.1.1).
            (State::Padding(size), b' ' | b'\t') => self.skip(State::Padding(size))?,
            (State::Padding(size), b';') => self.skip(State::Extension(size))?,
            (State::Padding(size), b'\r') if self.padded => State::SizeEnd(size),
            (State::Extension(size), b'\r') => State::SizeEnd(size),
            (State::Extension(size), byte) if is_text(byte) => self.skip(State::Extension(size))?,
            (State::SizeEnd(0), b'\n') => State::TrailerStart,
            (State::SizeEnd(size), b'\n') => State::Data(size),
            (State::DataEnd, b'\r') => State::DataEndLf,
            (State::DataEndLf, b'\n') => State::Size(0, 0),
            (State::TrailerStart, b'\r') => State::FinalLf,
            (State::TrailerStart | State::Trailer, byte) if is_text(byte) => self.skip(State::Trailer)?,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::FinalLf, b'\n') => State::Done,
            _ => return None,
        })
    }

    /// Counts a byte that is skipped.
    fn skip(&mut self, next: State) -> Option<State> {
        self.overhead += 1;
        (self.overhead <= FREE_OVERHEAD + self.data).then_some(next)
    }
}

/// Whether a byte may stand in an extension or a trailer.
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

#[cfg(test)]
#[path = "../../fuzz/chunked.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    /// Decodes `text` given in pieces; the data, and whether the body came to its end with the text.
    fn decode(mut chunked: Chunked, text: &str, piece: usize) -> Result<(String, bool), ChunkError> {
        let mut data = Vec::new();
        let mut beyond = 0;
        for mut part in text.as_bytes().chunks(piece) {
            while !part.is_empty() {
                part = &part[chunked.skip_framing(part)?..];
                let length = chunked.take_data(part.len());
                data.extend_from_slice(&part[..length]);
                part = &part[length..];
                if chunked.is_done() {
                    beyond += part.len();
                    break;
                }
            }
        }
        Ok((String::from_utf8(data).unwrap(), chunked.is_done() && beyond == 0))
    }

    #[test]
    fn a_body_reads_the_same_in_pieces_of_any_size() {
        let text = "5\r\nhello\r\n6;x=\"y\" ; z\r\n world\r\n0\r\nTrailer: x\r\nY: z\r\n\r\n";
        for piece in 1..text.len() + 1 {
            assert_eq!(decode(Chunked::new(false), text, piece), Ok(("hello world".into(), true)));
        }
        assert_eq!(decode(Chunked::new(false), "5\r\nhel", 9), Ok(("hel".into(), false)));
        assert_eq!(decode(Chunked::new(false), "0\r\n\r\nGET /", 99), Ok(("".into(), false)));
    }

    #[test]
    fn framing_with_two_readings_is_an_error() {
        for text in [
            "x\r\n",
            "\r\n",
            "-1\r\n",
            "+1\r\n",
            "0x1\r\n",
            " 1\r\n",
            "1 \r\n",
            "1 1\r\n",
            "1\n",
            "1\r\r\n",
            "1;a\nb\r\n",
            "1;a\rb\r\n",
            "1;\0\r\n",
            ";a\r\n",
            "5\r\nhelloXX",
            "1234567890abcdef\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\rc\r\n\r\n",
        ] {
            assert_eq!(decode(Chunked::new(false), text, 100), Err(ChunkError), "{text:?}");
        }
        assert_eq!(decode(Chunked::new(true), "1 \r\nx\r\n0\r\n\r\n", 100), Ok(("x".into(), true)));
    }

    #[test]
    fn what_is_skipped_is_bounded_by_what_is_read() {
        let extension = format!("1;{}\r\nx\r\n", "a".repeat(9_000));
        assert_eq!(decode(Chunked::new(false), &extension, 100), Err(ChunkError));
        let trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(3_000));
        assert_eq!(decode(Chunked::new(false), &trailers, 100), Err(ChunkError));
        let many = format!("{}0\r\n\r\n", "8;a=bcd\r\n12345678\r\n".repeat(10_000));
        assert_eq!(decode(Chunked::new(false), &many, 1_000).map(|read| read.1), Ok(true));
    }
}
