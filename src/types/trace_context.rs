//! Where a request stands in a trace, as `traceparent` tells it (W3C Trace Context, section 3.2).

/// The length of a `traceparent` of version 00.
pub const LENGTH: usize = 55;

const FIRST_FLAGS: usize = 53;

/// A `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span that the request is a child of.
    pub parent_id: [u8; 8],
    /// Whether whoever sent it may have recorded that span.
    pub is_sampled: bool,
}

impl TraceContext {
    /// Parses a `traceparent` of this version or of a later one. Returns none if it is not valid.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (known, further) = text.split_at_checked(LENGTH)?;
        let version = bytes::<1>(&known[..2])?[0];
        let may_go_on = version != 0 && further.starts_with(b"-");
        if version == 0xff || !(further.is_empty() || may_go_on) {
            return None;
        }
        if [2, 35, 52].iter().any(|&at| known[at] != b'-') {
            return None;
        }
        let trace_id = bytes(&known[3..35])?;
        let parent_id = bytes(&known[36..52])?;
        let [flags] = bytes(&known[FIRST_FLAGS..])?;
        let is_valid = trace_id != [0; 16] && parent_id != [0; 8];
        is_valid.then_some(Self { trace_id, parent_id, is_sampled: flags & 1 == 1 })
    }

    /// Formats it in version 00.
    pub fn text(&self) -> [u8; LENGTH] {
        let mut text = [b'-'; LENGTH];
        text[..2].copy_from_slice(b"00");
        write_hex(&mut text[3..35], &self.trace_id);
        write_hex(&mut text[36..52], &self.parent_id);
        text[FIRST_FLAGS..].copy_from_slice(if self.is_sampled { b"01" } else { b"00" });
        text
    }
}

/// Parses lower-case hexadecimal digits.
fn bytes<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn write_hex(digits: &mut [u8], bytes: &[u8]) {
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble & 15)];
        pair.copy_from_slice(&[digit(byte >> 4), digit(*byte)]);
    }
}

#[cfg(test)]
#[path = "../../fuzz/trace_context.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    const VALID: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_valid_one_is_parsed_and_formatted() {
        let context = TraceContext::parse(VALID.as_bytes()).unwrap();
        assert!(context.is_sampled && context.trace_id[0] == 0x4b && context.parent_id[7] == 0xb7);
        assert_eq!(context.text(), VALID.as_bytes());
        // Of a later version, what is known is read (section 4.2).
        for later in [VALID.replacen("00", "01", 1), VALID.replacen("00", "01", 1) + "-what-comes"] {
            assert_eq!(TraceContext::parse(later.as_bytes()), Some(context), "{later}");
        }
        let unsampled = VALID.replace("-01", "-02");
        assert!(!TraceContext::parse(unsampled.as_bytes()).unwrap().is_sampled);
    }

    #[test]
    fn what_is_not_valid_is_not_parsed() {
        for wrong in [
            String::new(),
            VALID.to_owned() + "-x",
            VALID[..54].to_owned(),
            VALID.to_uppercase(),
            VALID.replacen("00", "ff", 1),
            VALID.replacen("00", "01", 1) + "x",
            VALID.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            VALID.replace("00f067aa0ba902b7", &"0".repeat(16)),
            VALID.replace('-', "_"),
            VALID.replace("-01", "-0g"),
        ] {
            assert_eq!(TraceContext::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }
}
