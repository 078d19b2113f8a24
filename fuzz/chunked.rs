//! Chunked bodies: however they arrive they are the same bytes, and end in one place.

use bolero::check;
use bytes::BytesMut;

use super::*;
use crate::fuzz_words::{spell, steered};

const WORDS: &[&[u8]] = &[
    b"0\r\n\r\n",
    b"1\r\na\r\n",
    b"a\r\n0123456789\r\n",
    b"A\r\n0123456789\r\n",
    b"5;x=y\r\nhello\r\n",
    b"3 \r\nabc\r\n",
    b"\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"\n",
    b"\r",
    b"0",
    b"00",
    b"f",
    b"ffffffffffffffff",
    b";",
    b" ",
    b"\t",
    b"-1\r\n",
    b"0x1\r\n",
    b"\0",
];

/// Decodes pieces of so many bytes. Returns what came out, how much was taken, and whether it ended; none if it is broken.
fn decoded(bytes: &[u8], piece: usize, padded: bool) -> Option<(BytesMut, usize, bool)> {
    let (mut chunked, mut out, mut taken) = (Chunked::new(padded), BytesMut::new(), 0);
    while taken < bytes.len() && !chunked.is_done() {
        let end = (taken + piece).min(bytes.len());
        taken += chunked.decode(&bytes[taken..end], &mut out).ok()?;
    }
    Some((out, taken, chunked.is_done()))
}

#[test]
fn a_chunked_body_is_the_same_in_any_pieces() {
    check!(name = "chunked").for_each(|input: &[u8]| {
        let Some(([steer, piece], rest)) = steered(input) else { return };
        let bytes = spell(rest, WORDS);
        let padded = steer & 1 == 1;
        let at_once = decoded(&bytes, usize::MAX / 2, padded);
        assert_eq!(at_once, decoded(&bytes, usize::from(piece) + 1, padded));
        assert_eq!(at_once, decoded(&bytes, 1, padded));
        if let Some((out, taken, _)) = at_once {
            assert!(out.len() <= taken && taken <= bytes.len());
        }
        // A strict reader takes no body that a lenient one reads otherwise.
        if let (Some((one, _, true)), Some((other, ..))) =
            (decoded(&bytes, 1, false), decoded(&bytes, 1, true))
        {
            assert_eq!(one, other);
        }
    });
}
