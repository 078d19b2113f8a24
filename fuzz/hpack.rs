//! Header blocks: what is decoded is bounded, and is what is decoded again once it was encoded.

use bolero::check;

use super::*;
use crate::fuzz_words::{spell, steered};
use crate::http2::hpack::encoder;

const WORDS: &[&[u8]] = &[
    b"\x82",
    b"\x84",
    b"\x86",
    b"\xbe",
    b"\xbf",
    b"\xff",
    b"\x40\x01a\x01b",
    b"\x40\x0acustom-key\x0dcustom-header",
    b"\x20",
    b"\x3f\xe1\x1f",
    b"\x3f\xe2\x1f",
    b"\x00\x01x\x00",
    b"\x10\x08password\x06secret",
    b"\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
    b"\x7f\x00",
    b"\x04\x0c/sample/path",
    b"\xff\xff\xff\xff\xff\x0f",
    b"\x40\x82\xff\xff\x00",
    b"\x00\x7f\xff\xff\xff\x07",
];

#[test]
fn what_is_decoded_is_bounded_and_can_be_encoded() {
    check!(name = "hpack").for_each(|input: &[u8]| {
        let Some(([blocks], rest)) = steered(input) else { return };
        let (mut decoder, mut remembering) = (Decoder::new(), Decoder::of_many());
        for block in rest.chunks(rest.len() / (usize::from(blocks % 4) + 1) + 1) {
            let block = spell(block, WORDS);
            let mut lines = Vec::new();
            let read = decoder.decode(&block, |line| lines.push(line.into_owned()));
            assert!(lines.len() <= block.len());
            // What was remembered is what would be read.
            let mut others = Vec::new();
            let other = remembering.decode(&block, |line| others.push(line.into_owned()));
            assert_eq!((other.is_ok(), format!("{others:?}")), (read.is_ok(), format!("{lines:?}")));
            for line in &lines {
                let Name::Field(name) = &line.name else { continue };
                let value = &line.value;
                let mut encoded = Vec::new();
                encoder::line(&mut encoded, name.as_str(), value.as_bytes());
                let mut again = Vec::new();
                Decoder::new()
                    .decode(&encoded, |line| again.push(line.into_owned()))
                    .expect("it was encoded");
                let [again] = &again[..] else { panic!("{again:?}") };
                assert_eq!((&again.name, &again.value), (&line.name, &line.value));
            }
            if read.is_err() {
                break;
            }
        }
    });
}
