//! Finds control characters, 64 bytes at once.

/// The positions of control characters, but for tabs.
pub(super) struct Controls<'a> {
    bytes: &'a [u8],
    /// A bit for each byte found in the block before `next`.
    found: u64,
    next: usize,
}

/// The bytes that are searched at once.
const BLOCK: usize = 64;

impl<'a> Controls<'a> {
    /// Those at or after `start`.
    pub(super) fn from(bytes: &'a [u8], start: usize) -> Self {
        Self { bytes, found: 0, next: start }
    }
}

impl Iterator for Controls<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            let rest = self.bytes.get(self.next..)?;
            self.found = match rest.first_chunk() {
                Some(block) => controls(block),
                None if rest.is_empty() => return None,
                None => {
                    // The padding matches none of the bytes searched for.
                    let mut block = [b' '; BLOCK];
                    block[..rest.len()].copy_from_slice(rest);
                    controls(&block)
                }
            };
            self.next += BLOCK;
        }
        let position = self.next - BLOCK + self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        Some(position)
    }
}

/// Returns a bit for each control character that is no tab.
#[cfg(target_arch = "x86_64")]
fn controls(block: &[u8; BLOCK]) -> u64 {
    use std::arch::x86_64::{
        _mm_andnot_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128,
        _mm_set1_epi8,
    };
    block.chunks_exact(16).rev().fold(0, |found, bytes| {
        // SAFETY: 16 bytes are there to be loaded, and every x86-64 processor has SSE2.
        let mask = unsafe {
            let bytes = _mm_loadu_si128(bytes.as_ptr().cast());
            let low = _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes);
            let low = _mm_andnot_si128(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x09)), low);
            _mm_movemask_epi8(_mm_or_si128(low, _mm_cmpeq_epi8(bytes, _mm_set1_epi8(0x7f))))
        };
        found << 16 | u64::from(mask.cast_unsigned())
    })
}

/// Returns a bit for each control character that is no tab.
#[cfg(not(target_arch = "x86_64"))]
fn controls(block: &[u8; BLOCK]) -> u64 {
    by_words(block)
}

/// [`controls`] eight bytes at a time, on any processor.
#[cfg_attr(target_arch = "x86_64", cfg(test))]
fn by_words(block: &[u8; BLOCK]) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    const TABS: u64 = 0x0909_0909_0909_0909;
    const ABOVE: u64 = 0x6060_6060_6060_6060;
    /// Moves the lowest bit of each byte into the highest byte.
    const TOGETHER: u64 = 0x0102_0408_1020_4080;
    block.chunks_exact(8).rev().fold(0, |found, bytes| {
        let word = bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        // The high bit of a sum is set for 0x20 and above; none carries into the next byte.
        let is_below = !(((word & LOW) + ABOVE) | word) & !LOW;
        let is_zero = |word: u64| !(((word & LOW) + LOW) | word) & !LOW;
        let found_here = is_below & !is_zero(word ^ TABS) | is_zero(word ^ LOW);
        found << 8 | (found_here >> 7).wrapping_mul(TOGETHER) >> 56
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_control_character_is_found_wherever_it_stands() {
        for length in (0..40).chain([63, 64, 65, 100, 128, 130]) {
            for position in 0..length {
                for byte in 0..=255_u8 {
                    let mut bytes = vec![b'x'; length];
                    bytes[position] = byte;
                    let expected = (byte.is_ascii_control() && byte != b'\t').then_some(position);
                    assert_eq!(
                        Controls::from(&bytes, 0).collect::<Vec<_>>(),
                        expected.into_iter().collect::<Vec<_>>()
                    );
                }
            }
        }
    }

    #[test]
    fn a_block_is_searched_alike_on_every_processor() {
        for byte in 0..=255_u8 {
            for position in 0..BLOCK {
                let mut block = [byte.wrapping_mul(31) | 0x10; BLOCK];
                block[position] = byte;
                block[BLOCK - 1 - position] ^= 0x9a;
                let expected = (0..BLOCK)
                    .filter(|&at| block[at].is_ascii_control() && block[at] != b'\t')
                    .fold(0, |found, at| found | 1 << at);
                assert_eq!((controls(&block), by_words(&block)), (expected, expected), "{block:?}");
            }
        }
    }
}
