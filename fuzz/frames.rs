//! Frames of HTTP/2: however their bytes arrive, they are the same ones.

use bolero::check;

use super::*;
use crate::fuzz_words::{spell, steered};

const WORDS: &[&[u8]] = &[
    b"\0\0\0\x04\0\0\0\0\0",
    b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64",
    b"\0\0\x01\x01\x05\0\0\0\x01\x82",
    b"\0\0\x01\x01\x04\0\0\0\x03\x82",
    b"\0\0\x03\0\0\0\0\0\x03abc",
    b"\0\0\x03\0\x01\0\0\0\x03abc",
    b"\0\0\x05\0\x08\0\0\0\x03\x02abcd",
    b"\0\0\0\0\0\0\0\0\x03",
    b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01",
    b"\0\0\x04\x03\0\0\0\0\x03\0\0\0\x08",
    b"\0\0\x08\x06\0\0\0\0\x0012345678",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\0\0\x01\x01\0\0\0\0\x05\x82",
    b"\0\0\x01\x09\x04\0\0\0\x05\x84",
    b"\0\0\x05\x02\0\0\0\0\x05\0\0\0\0\0",
    b"\0\0\x04\x63\0\0\0\0\0abcd",
    b"\0\x40\x01\0\0\0\0\0\x01",
    b"\0\0\x06\x01\x24\0\0\0\x07\0\0\0\0\0\x82",
    b"\0\0\x02\x01\x0c\0\0\0\x09\x01\x82",
];

/// Reads all frames that arrive in pieces of so many bytes. Parts of one DATA frame are put together.
fn read(bytes: &[u8], piece: usize) -> (Vec<String>, Option<Reason>) {
    let mut reader = Reader::new(64);
    let (mut found, mut data, mut flow) = (Vec::new(), Vec::new(), 0);
    for mut part in bytes.chunks(piece) {
        loop {
            match reader.next(&mut part) {
                Ok(Some(Frame::Data { stream, data: more, flow: counted, is_last, ends, is_idle })) => {
                    data.extend_from_slice(more);
                    flow += counted;
                    if is_last {
                        let data = std::mem::take(&mut data);
                        let flow = std::mem::take(&mut flow);
                        found.push(format!("data {stream} {data:?} {flow} {ends} {is_idle}"));
                    }
                }
                Ok(Some(frame)) => found.push(format!("{frame:?}")),
                Ok(None) => break,
                Err(reason) => return (found, Some(reason)),
            }
        }
        assert!(part.is_empty(), "all of it is taken");
    }
    (found, None)
}

#[test]
fn frames_are_the_same_in_any_pieces() {
    check!(name = "frames").for_each(|input: &[u8]| {
        let Some(([piece], rest)) = steered(input) else { return };
        let bytes = spell(rest, WORDS);
        let at_once = read(&bytes, usize::MAX);
        for piece in [1, usize::from(piece) + 1] {
            assert_eq!(read(&bytes, piece), at_once, "{piece}");
        }
    });
}
