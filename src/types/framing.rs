//! Where an HTTP/1.1 message ends: the checks that two parsers must not disagree on.
//!
//! The HTTP library is lenient in ways that smuggling lives on: it drops a `Content-Length` beside
//! `Transfer-Encoding`, folds equal lengths, and takes a bare LF. These scanners look at a head
//! before the library does, and refuse what RFC 9112, sections 2.2, 6.1 and 6.3, forbid or allow
//! to be refused. They look at no more than decides the framing; the rest is the library's.

/// Empty lines that may stand before a head.
const MAX_EMPTY_LINES: usize = 4;

/// How the body of a message is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// By nothing in the head.
    None,
    /// By a length.
    Length(u64),
    /// By chunks.
    Chunked,
}

/// A head that is complete and unambiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Its length in bytes, the empty line included.
    pub length: usize,
    /// What delimits its body.
    pub framing: Framing,
    /// The status of an answer; 0 for a request.
    pub status: u16,
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadFault {
    /// It has more than one reading, or none.
    Bad,
    /// It is over a limit.
    TooLarge,
}

/// The bounds of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// In bytes.
    pub bytes: usize,
    /// In header lines.
    pub count: usize,
}

/// Looks at the head of a request; `None` while it is incomplete.
///
/// # Errors
/// When it is ambiguous or over a limit.
pub fn request_head(bytes: &[u8], limits: HeadLimits) -> Result<Option<Head>, HeadFault> {
    scan(bytes, limits, |line| {
        // The library cuts a fragment off; nothing sends one (RFC 9112, section 3.2).
        if memchr::memchr(b'#', line).is_some() {
            return Err(HeadFault::Bad);
        }
        Ok((line.ends_with(b"HTTP/1.0"), 0))
    })
}

/// Looks at the head of an answer; `None` while it is incomplete.
///
/// # Errors
/// When it is ambiguous or over a limit.
pub fn response_head(bytes: &[u8], limits: HeadLimits) -> Result<Option<Head>, HeadFault> {
    scan(bytes, limits, |line| {
        let status = line.get(9..12).filter(|digits| digits.iter().all(u8::is_ascii_digit));
        let status = status.ok_or(HeadFault::Bad)?;
        let status = status.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        Ok((false, status))
    })
}

fn scan(
    bytes: &[u8],
    limits: HeadLimits,
    start_line: impl Fn(&[u8]) -> Result<(bool, u16), HeadFault>,
) -> Result<Option<Head>, HeadFault> {
    let mut at = 0;
    let mut lines = 0;
    // One pass finds everything that can end a line, or must not stand in one.
    let mut marks = Controls::of(bytes);
    let mut length = None;
    let mut chunked = false;
    let (mut old, mut status) = (false, 0);
    loop {
        let incomplete = if bytes.len() > limits.bytes { Err(HeadFault::TooLarge) } else { Ok(None) };
        let Some(end) = marks.next() else { return incomplete };
        if bytes[end] != b'\r' {
            return Err(HeadFault::Bad);
        }
        match marks.next() {
            Some(next) if next == end + 1 && bytes[next] == b'\n' => {}
            None if end + 1 == bytes.len() => return incomplete,
            _ => return Err(HeadFault::Bad),
        }
        let line = &bytes[at..end];
        at = end + 2;
        if at > limits.bytes {
            return Err(HeadFault::TooLarge);
        }
        if lines == 0 {
            // Empty lines before a head are to be ignored (RFC 9112, section 2.2); a few will do.
            if !line.is_empty() {
                (old, status) = start_line(line)?;
                lines = 1;
            } else if at > MAX_EMPTY_LINES * 2 {
                return Err(HeadFault::Bad);
            }
            continue;
        }
        if line.is_empty() {
            if chunked && (length.is_some() || old) {
                return Err(HeadFault::Bad);
            }
            let framing = match length {
                _ if chunked => Framing::Chunked,
                Some(length) => Framing::Length(length),
                None => Framing::None,
            };
            return Ok(Some(Head { length: at, framing, status }));
        }
        if lines > limits.count {
            return Err(HeadFault::TooLarge);
        }
        lines += 1;
        match line[0] {
            b'c' | b'C' | b't' | b'T' => {}
            // A folded line.
            b' ' | b'\t' => return Err(HeadFault::Bad),
            _ => continue,
        }
        let colon = memchr::memchr(b':', line).ok_or(HeadFault::Bad)?;
        let value = line[colon + 1..].trim_ascii();
        if colon == 14 && line[..14].eq_ignore_ascii_case(b"content-length") {
            let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
            if length.is_some() || !digits {
                return Err(HeadFault::Bad);
            }
            length = Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
        } else if colon == 17 && line[..17].eq_ignore_ascii_case(b"transfer-encoding") {
            if chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadFault::Bad);
            }
            chunked = true;
        }
    }
}

/// The positions of control characters in the range of line ends and below, but for tabs. Eight bytes
/// at a time: lines are too short for a search by vectors to pay.
struct Controls<'a> {
    bytes: &'a [u8],
    /// The high bit of each byte that was found in the word before `next`.
    found: u64,
    next: usize,
}

impl<'a> Controls<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, found: 0, next: 0 }
    }

    /// Marks each byte below 0x0e.
    fn mark(word: u64) -> u64 {
        const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
        const ABOVE: u64 = 0x7272_7272_7272_7272;
        // The high bit of a sum is set for 0x0e and above; none carries into the next byte.
        !(((word & LOW) + ABOVE) | word) & !LOW
    }
}

impl Iterator for Controls<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        loop {
            while self.found == 0 {
                let rest = self.bytes.get(self.next..)?;
                let word = match rest.first_chunk::<8>() {
                    Some(word) => u64::from_le_bytes(*word),
                    None if rest.is_empty() => return None,
                    None => {
                        // Padded with what is not looked for.
                        let mut word = [b' '; 8];
                        word[..rest.len()].copy_from_slice(rest);
                        u64::from_le_bytes(word)
                    }
                };
                self.found = Self::mark(word);
                self.next += 8;
            }
            let position = self.next - 8 + self.found.trailing_zeros() as usize / 8;
            self.found &= self.found - 1;
            if self.bytes[position] != b'\t' {
                return Some(position);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1_000, count: 5 };

    fn request(rest: &str) -> Result<Option<Framing>, HeadFault> {
        let head = format!("GET / HTTP/1.1\r\n{rest}\r\n");
        request_head(head.as_bytes(), LIMITS).map(|head| head.map(|head| head.framing))
    }

    #[test]
    fn every_control_character_is_found_wherever_it_stands() {
        for length in 0..40 {
            for position in 0..length {
                for byte in 0..=255_u8 {
                    let mut bytes = vec![b'x'; length];
                    bytes[position] = byte;
                    let expected = (byte < 0x0e && byte != b'\t').then_some(position);
                    assert_eq!(
                        Controls::of(&bytes).collect::<Vec<_>>(),
                        expected.into_iter().collect::<Vec<_>>()
                    );
                }
            }
        }
    }

    #[test]
    fn framing_is_read() {
        assert_eq!(request("Host: a\r\n"), Ok(Some(Framing::None)));
        assert_eq!(request("CONTENT-LENGTH:  12 \r\n"), Ok(Some(Framing::Length(12))));
        assert_eq!(request("Transfer-Encoding: Chunked\r\n"), Ok(Some(Framing::Chunked)));
        assert_eq!(request_head(b"GET / HTTP/1.1\r\nHost", LIMITS), Ok(None));
    }

    #[test]
    fn framing_with_two_readings_is_refused() {
        for rest in [
            "Content-Length: 1\r\nContent-Length: 1\r\n",
            "Content-Length: 1, 1\r\n",
            "Content-Length: +1\r\n",
            "Content-Length: 0x1\r\n",
            "Content-Length: \r\n",
            "Content-Length: 99999999999999999999\r\n",
            "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: xchunked\r\n",
            "Transfer-Encoding: chunked\n",
            "Transfer-Encoding\r\n",
            " Folded: x\r\n",
            "A: b\rc\r\n",
            "A: \0\r\n",
        ] {
            assert_eq!(request(rest), Err(HeadFault::Bad), "{rest:?}");
        }
        let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(request_head(old, LIMITS), Err(HeadFault::Bad));
        assert_eq!(request_head(b"GET /#a HTTP/1.1\r\n\r\n", LIMITS), Err(HeadFault::Bad));
    }

    #[test]
    fn limits_hold_before_the_head_is_complete() {
        assert_eq!(request(&"A: b\r\n".repeat(5)), Ok(Some(Framing::None)));
        assert_eq!(request(&"A: b\r\n".repeat(6)), Err(HeadFault::TooLarge));
        assert_eq!(request_head(&[b'a'; 1_001], LIMITS), Err(HeadFault::TooLarge));
    }
}
