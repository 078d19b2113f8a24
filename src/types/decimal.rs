//! Numbers in decimal, without the means that format everything.

/// The digits of the largest number.
const MOST_DIGITS: usize = 20;

/// Calls `take` with the digits of a number.
pub fn with_digits<T>(mut number: u64, take: impl FnOnce(&[u8]) -> T) -> T {
    let mut text = [0; MOST_DIGITS];
    let mut at = text.len();
    loop {
        at -= 1;
        text[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    take(&text[at..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_those_of_the_number() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            assert_eq!(with_digits(number, <[u8]>::to_vec), number.to_string().into_bytes());
        }
    }
}
