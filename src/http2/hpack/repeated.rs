//! Lines that a server writes out with each response, as many do instead of keeping them in the table: decoded once, and then found by
//! the bytes that they were written as.

use std::hash::BuildHasher;

use foldhash::fast::RandomState;

use super::table::Line;

/// How many lines are remembered, two for each hash. A new one takes the place of the older one.
const LINES: usize = 64;

/// The longest line that is, in bytes as it is written.
const LONGEST: usize = 128;

/// The lines that are remembered.
#[derive(Debug, Default)]
pub(super) struct Repeated {
    lines: Vec<Option<(Box<[u8]>, Line)>>,
    hasher: RandomState,
}

impl Repeated {
    fn places(&self, written: &[u8]) -> [usize; 2] {
        let first = (self.hasher.hash_one(written) as usize % LINES) & !1;
        [first, first + 1]
    }

    /// Returns the line that was written like this before.
    pub(super) fn get(&self, written: &[u8]) -> Option<&Line> {
        let of_place = |place: usize| self.lines.get(place)?.as_ref();
        let mut found = self.places(written).into_iter().filter_map(of_place);
        found.find(|(before, _)| **before == *written).map(|(_, line)| line)
    }

    /// Remembers a line by how it was written.
    pub(super) fn keep(&mut self, written: &[u8], line: &Line) {
        if written.len() > LONGEST {
            return;
        }
        if self.lines.is_empty() {
            self.lines.resize_with(LINES, || None);
        }
        let [first, second] = self.places(written);
        self.lines.swap(first, second);
        self.lines[first] = Some((written.into(), line.clone()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http2::hpack::decoder::Decoder;

    #[test]
    fn the_last_two_lines_of_a_hash_are_remembered_and_no_long_one_is() {
        let mut line = None;
        Decoder::new().decode(b"\x40\x01a\x01b", |read| line = Some(read.into_owned())).unwrap();
        let (mut repeated, line) = (Repeated::default(), line.unwrap());
        let texts: Vec<Vec<u8>> = (0..1_000_u32).map(|number| number.to_be_bytes().to_vec()).collect();
        let place = repeated.places(&texts[0]);
        let same: Vec<&Vec<u8>> =
            texts.iter().filter(|text| repeated.places(text) == place).take(3).collect();
        for text in &same {
            repeated.keep(text, &line);
        }
        let found: Vec<bool> = same.iter().map(|text| repeated.get(text).is_some()).collect();
        assert_eq!(found, [false, true, true]);
        let long = [0; LONGEST + 1];
        repeated.keep(&long, &line);
        assert!(repeated.get(&long).is_none());
    }
}
