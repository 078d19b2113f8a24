//! Numbers as text, without memory of their own.

/// The most digits of a number of 64 bits.
const DIGITS: usize = 20;

/// A number in decimal digits.
#[derive(Debug, Clone, Copy)]
pub struct Decimal {
    digits: [u8; DIGITS],
    begin: usize,
}

impl Decimal {
    /// Formats a number.
    pub fn new(mut number: u64) -> Self {
        let mut digits = [0; DIGITS];
        let mut begin = DIGITS;
        loop {
            begin -= 1;
            digits[begin] = b'0' + (number % 10) as u8;
            number /= 10;
            if number == 0 {
                return Self { digits, begin };
            }
        }
    }

    /// Returns the digits.
    pub fn as_bytes(&self) -> &[u8] {
        &self.digits[self.begin..]
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
