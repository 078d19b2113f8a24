//! Numbers as text, without memory of their own.

use std::io::Write;

/// The most digits of a number of 64 bits.
const DIGITS: usize = 20;

/// A number in decimal digits.
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    digits: [u8; DIGITS],
    length: usize,
}

impl Decimal {
    /// Formats a number.
    pub fn new(number: u64) -> Self {
        let mut digits = [0; DIGITS];
        let mut left = &mut digits[..];
        // There is room for all of them.
        let _ = write!(left, "{number}");
        let length = DIGITS - left.len();
        Self { digits, length }
    }

    /// Returns the digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_whole() {
        assert_eq!(Decimal::new(0).as_bytes(), b"0");
        assert_eq!(Decimal::new(u64::MAX).as_bytes(), b"18446744073709551615");
    }
}
