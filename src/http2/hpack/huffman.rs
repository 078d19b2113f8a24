//! Huffman's code of HPACK (RFC 7541, appendix B). It is canonical, so that the lengths of its codes say all of it.

use super::Undecodable;

/// The length of the code of each byte, in bits.
#[rustfmt::skip]
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
];

const SHORTEST: u32 = 5;
const LONGEST: u32 = 30;

/// What is not a code of up to so many bits is padding, if anything.
const PADDING: u32 = 7;

/// The codes, by their lengths.
struct Codes {
    /// The bytes, in the order of their codes.
    bytes: [u8; 256],
    /// For each length the first code that is longer, in the uppermost of 32 bits.
    beyond: [u32; LONGEST as usize + 1],
    /// For each length its first code, and the place of its byte among `bytes`.
    first: [(u32, usize); LONGEST as usize + 1],
    /// What the next eight bits begin with: a byte and the length of its code, or 0 if that is longer.
    short: [(u8, u8); 256],
}

static CODES: Codes = codes();

const fn codes() -> Codes {
    let mut codes = Codes {
        bytes: [0; 256],
        beyond: [0; LONGEST as usize + 1],
        first: [(0, 0); LONGEST as usize + 1],
        short: [(0, 0); 256],
    };
    let (mut code, mut place, mut length) = (0_u32, 0, SHORTEST);
    while length <= LONGEST {
        codes.first[length as usize] = (code, place);
        let mut byte = 0;
        while byte < 256 {
            if LENGTHS[byte] as u32 == length {
                codes.bytes[place] = byte as u8;
                place += 1;
                if length <= 8 {
                    let begin = (code << (8 - length)) as usize;
                    let mut at = begin;
                    while at < begin + (1 << (8 - length)) {
                        codes.short[at] = (byte as u8, length as u8);
                        at += 1;
                    }
                }
                code += 1;
            }
            byte += 1;
        }
        codes.beyond[length as usize] = code << (32 - length);
        code <<= 1;
        length += 1;
    }
    codes
}

/// Decodes a string, and appends it to `out`.
///
/// # Errors
/// [`Undecodable`]: it holds the end of the string, or its padding is long or none.
pub(super) fn decode(mut coded: &[u8], out: &mut Vec<u8>) -> Result<(), Undecodable> {
    // The next bits, in the uppermost ones.
    let (mut bits, mut count) = (0_u64, 0_u32);
    loop {
        while count <= 56
            && let Some((byte, rest)) = coded.split_first()
        {
            bits |= u64::from(*byte) << (56 - count);
            count += 8;
            coded = rest;
        }
        let (byte, length) = CODES.short[(bits >> 56) as usize];
        let (byte, length) = if length > 0 { (byte, u32::from(length)) } else { long((bits >> 32) as u32)? };
        if length > count {
            let is_padding = count <= PADDING && bits == !(u64::MAX >> count);
            return if is_padding { Ok(()) } else { Err(Undecodable) };
        }
        out.push(byte);
        bits <<= length;
        count -= length;
    }
}

/// Finds the byte whose code the bits begin with; a length beyond all if there is none.
fn long(bits: u32) -> Result<(u8, u32), Undecodable> {
    for length in 9..=LONGEST {
        if bits < CODES.beyond[length as usize] {
            let (first, place) = CODES.first[length as usize];
            let byte = place + ((bits >> (32 - length)) - first) as usize;
            return CODES.bytes.get(byte).map(|byte| (*byte, length)).ok_or(Undecodable);
        }
    }
    // The end of the string, which may not be in it; or padding.
    Ok((0, u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(hex: &str) -> Result<String, Undecodable> {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let mut out = Vec::new();
        decode(&bytes, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    /// RFC 7541, appendix C.4 and C.6.
    #[test]
    fn the_strings_of_the_rfc_are_read() {
        for (hex, text) in [
            ("f1e3c2e5f23a6ba0ab90f4ff", "www.example.com"),
            ("a8eb10649cbf", "no-cache"),
            ("25a849e95ba97d7f", "custom-key"),
            ("25a849e95bb8e8b4bf", "custom-value"),
            ("6402", "302"),
            ("d07abe941054d444a8200595040b8166e082a62d1bff", "Mon, 21 Oct 2013 20:13:21 GMT"),
            ("9d29ad171863c78f0b97c8e9ae82ae43d3", "https://www.example.com"),
            ("", ""),
        ] {
            assert_eq!(decoded(hex).as_deref(), Ok(text));
        }
    }

    #[test]
    fn each_byte_is_read_back() {
        for byte in 0..=255_u8 {
            let length = u32::from(LENGTHS[usize::from(byte)]);
            let place = CODES.bytes.iter().position(|known| *known == byte).unwrap();
            let (first, begin) = CODES.first[length as usize];
            let code = u64::from(first) + (place - begin) as u64;
            // Twice, and padded with ones.
            let bits = (code << length | code) << (64 - 2 * length) | u64::MAX >> (2 * length);
            let bytes = (2 * length).div_ceil(8) as usize;
            let mut out = Vec::new();
            assert_eq!(decode(&bits.to_be_bytes()[..bytes], &mut out), Ok(()), "{byte}");
            assert_eq!(out, [byte, byte]);
        }
    }

    #[test]
    fn padding_is_short_and_of_ones_and_the_end_is_in_no_string() {
        // "0" is 00000: three bits of padding.
        assert_eq!(decoded("07").as_deref(), Ok("0"));
        for hex in ["06", "ff", "07ff", "ffffffff", "fffffffc", "fffffffffe"] {
            assert_eq!(decoded(hex), Err(Undecodable), "{hex}");
        }
    }
}
