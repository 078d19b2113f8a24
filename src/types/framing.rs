//! Where an HTTP/1.1 message ends: the checks that two parsers must not disagree on.
//!
//! Smuggling lives on lenient parsers: on a `Content-Length` beside `Transfer-Encoding`, on lengths that are repeated, on a
//! bare LF. The scanner refuses what RFC 9112, sections 2.2, 6.1 and 6.3, forbid or allow to be refused, and every control
//! character. It looks at no more than decides the framing; [`super::fields`] parses the rest.

use super::controls::Controls;

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
    /// The status of a response; 0 for a request.
    pub status: u16,
    /// Whether the sender speaks HTTP/1.0.
    pub old: bool,
    /// Where the start line begins and ends. The first field line begins two bytes after the end.
    pub start_line: (usize, usize),
    /// The number of field lines.
    pub fields: usize,
    ends: Ends,
}

/// The ends of the first field lines, so that they are looked for once; 0 for one that is not known.
type Ends = [u16; 24];

impl Head {
    /// Returns where a field line ends, by its number, if that is known.
    pub(super) fn end_of(&self, line: usize) -> Option<usize> {
        self.ends.get(line).map(|end| usize::from(*end)).filter(|end| *end > 0)
    }
}

/// Why a head is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadError {
    /// It has more than one reading, or none.
    Bad,
    /// It is over a limit.
    TooLarge,
    /// A version of HTTP/1 that does not exist yet.
    Version,
}

/// The bounds of a head.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// In bytes.
    pub bytes: usize,
    /// In header lines.
    pub count: usize,
}

/// Scans one head as it arrives, each byte once.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeadScanner {
    /// Where the line that is not complete yet begins.
    line: usize,
    /// Everything before was searched for line ends; a CR whose LF has not arrived stands here.
    searched: usize,
    /// Lines so far, the start line included.
    lines: usize,
    length: Option<u64>,
    chunked: bool,
    old: bool,
    status: u16,
    start_line: (usize, usize),
    ends: Ends,
}

/// What the start line tells: whether the sender speaks HTTP/1.0, and the status of a response.
type StartLine = fn(&[u8]) -> Result<(bool, u16), HeadError>;

impl HeadScanner {
    /// Scans on in the head of a request, which `bytes` hold from its beginning; `None` while it is
    /// incomplete. The next call expects the same bytes with more behind them.
    ///
    /// # Errors
    /// When the head is ambiguous or over a limit.
    pub fn request(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<Option<Head>, HeadError> {
        self.scan(bytes, limits, |line| {
            // A parser of URIs cuts a fragment off; nothing sends one (RFC 9112, section 3.2).
            if line.contains(&b'#') {
                return Err(HeadError::Bad);
            }
            // A minor version above ours (RFC 9110, section 15.6.6).
            if let [.., b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9'] = line {
                return Err(HeadError::Version);
            }
            Ok((line.ends_with(b"HTTP/1.0"), 0))
        })
    }

    /// Scans on in the head of a response, as [`Self::request`] does.
    ///
    /// # Errors
    /// When the head is ambiguous or over a limit.
    pub fn response(&mut self, bytes: &[u8], limits: HeadLimits) -> Result<Option<Head>, HeadError> {
        self.scan(bytes, limits, |line| {
            let digits = line.get(9..12).filter(|digits| digits.iter().all(u8::is_ascii_digit));
            let digits = digits.ok_or(HeadError::Bad)?;
            // Three digits and no more (RFC 9112, section 4).
            if line.get(12).is_some_and(|byte| *byte != b' ') {
                return Err(HeadError::Bad);
            }
            let old = match &line[..9] {
                b"HTTP/1.1 " => false,
                b"HTTP/1.0 " => true,
                _ => return Err(HeadError::Bad),
            };
            let status = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
            Ok((old, status))
        })
    }

    fn scan(
        &mut self,
        bytes: &[u8],
        limits: HeadLimits,
        start_line: StartLine,
    ) -> Result<Option<Head>, HeadError> {
        // One pass finds everything that can end a line, or must not stand in one.
        let mut marks = Controls::from(bytes, self.searched);
        loop {
            let Some(end) = marks.next() else {
                self.searched = bytes.len();
                return if bytes.len() > limits.bytes { Err(HeadError::TooLarge) } else { Ok(None) };
            };
            if bytes[end] != b'\r' {
                return Err(HeadError::Bad);
            }
            match bytes.get(end + 1) {
                // It is the next one found.
                Some(b'\n') => drop(marks.next()),
                Some(_) => return Err(HeadError::Bad),
                None => {
                    self.searched = end;
                    return if bytes.len() > limits.bytes { Err(HeadError::TooLarge) } else { Ok(None) };
                }
            }
            let begin = self.line;
            let line = &bytes[begin..end];
            self.line = end + 2;
            if self.line > limits.bytes {
                return Err(HeadError::TooLarge);
            }
            if self.lines == 0 {
                // Empty lines before a head are to be ignored (RFC 9112, section 2.2); a few will do.
                if !line.is_empty() {
                    (self.old, self.status) = start_line(line)?;
                    self.start_line = (begin, end);
                    self.lines = 1;
                } else if self.line > MAX_EMPTY_LINES * 2 {
                    return Err(HeadError::Bad);
                }
                continue;
            }
            if line.is_empty() {
                return self.complete().map(Some);
            }
            if self.lines > limits.count {
                return Err(HeadError::TooLarge);
            }
            if let Some(known) = self.ends.get_mut(self.lines - 1) {
                *known = u16::try_from(end).unwrap_or(0);
            }
            self.lines += 1;
            self.field(line)?;
        }
    }

    /// Takes note of a field line that decides the framing.
    fn field(&mut self, line: &[u8]) -> Result<(), HeadError> {
        match line[0] {
            b'c' | b'C' | b't' | b'T' => {}
            // A folded line.
            b' ' | b'\t' => return Err(HeadError::Bad),
            _ => return Ok(()),
        }
        if let Some(value) = value_of(line, b"content-length:") {
            let digits = !value.is_empty() && value.len() <= 18 && value.iter().all(u8::is_ascii_digit);
            if self.length.is_some() || !digits {
                return Err(HeadError::Bad);
            }
            self.length = Some(value.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0')));
        } else if let Some(value) = value_of(line, b"transfer-encoding:") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(HeadError::Bad);
            }
            self.chunked = true;
        }
        Ok(())
    }

    fn complete(&self) -> Result<Head, HeadError> {
        if self.chunked && (self.length.is_some() || self.old) {
            return Err(HeadError::Bad);
        }
        let framing = match self.length {
            _ if self.chunked => Framing::Chunked,
            Some(length) => Framing::Length(length),
            None => Framing::None,
        };
        Ok(Head {
            length: self.line,
            framing,
            status: self.status,
            old: self.old,
            start_line: self.start_line,
            fields: self.lines - 1,
            ends: self.ends,
        })
    }
}

/// Returns the value of a line that begins with `name`, which ends with a colon.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let (begin, value) = line.split_at_checked(name.len())?;
    begin.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
}

#[cfg(test)]
#[path = "../../fuzz/head.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { bytes: 1_000, count: 5 };

    fn request_head(bytes: &[u8], limits: HeadLimits) -> Result<Option<Head>, HeadError> {
        HeadScanner::default().request(bytes, limits)
    }

    fn request(rest: &str) -> Result<Option<Framing>, HeadError> {
        let head = format!("GET / HTTP/1.1\r\n{rest}\r\n");
        request_head(head.as_bytes(), LIMITS).map(|head| head.map(|head| head.framing))
    }

    #[test]
    fn a_head_that_trickles_in_reads_as_one_that_comes_at_once() {
        let heads = [
            "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 12\r\nX: y\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\n\r\n",
            "GET / HTTP/1.2\r\nA: b\r\n\r\n",
        ];
        for head in heads {
            let whole = request_head(head.as_bytes(), LIMITS);
            for step in 1..9 {
                let mut scanner = HeadScanner::default();
                let ends = (step..head.len()).step_by(step).chain([head.len()]);
                let mut trickled = ends.map(|end| scanner.request(&head.as_bytes()[..end], LIMITS));
                let last = trickled.find(|result| *result != Ok(None));
                assert_eq!(last, Some(whole), "{head:?} by {step}");
            }
        }
    }

    #[test]
    fn a_status_has_three_digits() {
        let status = |line: &str| {
            let head = format!("{line}\r\n\r\n");
            HeadScanner::default().response(head.as_bytes(), LIMITS).map(|head| head.map(|head| head.status))
        };
        assert_eq!(status("HTTP/1.1 200 OK"), Ok(Some(200)));
        assert_eq!(status("HTTP/1.1 204"), Ok(Some(204)));
        for line in ["HTTP/1.1 1000 X", "HTTP/1.1 20 OK", "HTTP/1.1 2x0 OK", "HTTP/1.1 200OK"] {
            assert_eq!(status(line), Err(HeadError::Bad), "{line}");
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
            " Folded: x\r\n",
            "A: b\rc\r\n",
            "A: \0\r\n",
            "A: \x1f\r\n",
            "A: \x7f\r\n",
        ] {
            assert_eq!(request(rest), Err(HeadError::Bad), "{rest:?}");
        }
        let old = b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(request_head(old, LIMITS), Err(HeadError::Bad));
        assert_eq!(request_head(b"GET /#a HTTP/1.1\r\n\r\n", LIMITS), Err(HeadError::Bad));
    }

    #[test]
    fn limits_hold_before_the_head_is_complete() {
        assert_eq!(request(&"A: b\r\n".repeat(5)), Ok(Some(Framing::None)));
        assert_eq!(request(&"A: b\r\n".repeat(6)), Err(HeadError::TooLarge));
        assert_eq!(request_head(&[b'a'; 1_001], LIMITS), Err(HeadError::TooLarge));
    }
}
