//! Frames (RFC 9113, sections 4 and 6): those that come are cut out of the bytes, those that go are written.

use super::reason::Reason;

/// The length of the head of a frame, in bytes.
pub(super) const HEAD: usize = 9;

/// The longest frame that is taken, in bytes: what a peer assumes that was told nothing else.
pub(super) const MAX_LENGTH: usize = 16 << 10;

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITIZED: u8 = 32;

/// A frame that has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame<'a> {
    /// A part of what a DATA frame carries. `flow` is what it counts in windows, in bytes; `is_last` tells that nothing of the
    /// frame follows, and `is_idle` that the frame carries nothing and ends nothing.
    Data {
        stream: u32,
        data: &'a [u8],
        flow: u32,
        is_last: bool,
        ends: bool,
        is_idle: bool,
    },
    /// A whole header block.
    Headers {
        stream: u32,
        block: &'a [u8],
        ends: bool,
    },
    /// A part of a header block. `counts` if it came as a CONTINUATION.
    Part {
        counts: bool,
    },
    Reset {
        stream: u32,
        reason: Reason,
    },
    Settings {
        values: &'a [u8],
    },
    SettingsAck,
    Ping {
        data: [u8; 8],
    },
    Pong {
        data: [u8; 8],
    },
    GoAway {
        last: u32,
    },
    WindowUpdate {
        stream: u32,
        by: u32,
    },
    /// PRIORITY, or one that is not known.
    Other,
}

/// A DATA frame of which a part has come.
#[derive(Debug)]
struct Data {
    stream: u32,
    /// The bytes that are still to come, and how many of them are padding.
    left: usize,
    padding: usize,
    /// Whether the first one tells the length of the padding.
    is_padded: bool,
    ends: bool,
    is_idle: bool,
}

/// A header block of which a part has come.
#[derive(Debug)]
struct Block {
    stream: u32,
    ends: bool,
}

/// Cuts frames out of bytes, however those come.
#[derive(Debug)]
pub(super) struct Reader {
    /// The longest header block that is taken, in bytes.
    max_block: usize,
    /// A frame that has come in part, or the last one.
    kept: Vec<u8>,
    is_taken: bool,
    data: Option<Data>,
    open: Option<Block>,
    block: Vec<u8>,
}

impl Reader {
    pub(super) fn new(max_block: usize) -> Self {
        let (kept, block) = (Vec::new(), Vec::new());
        Self { max_block, kept, is_taken: false, data: None, open: None, block }
    }

    /// Returns whether a header block has begun and not ended.
    pub(super) fn is_in_block(&self) -> bool {
        self.open.is_some()
    }

    /// Frees what a connection without streams does not need.
    pub(super) fn rest(&mut self) {
        if self.is_taken || self.kept.is_empty() {
            self.is_taken = false;
            self.kept = Vec::new();
        }
    }

    /// Takes the next frame out of `input`. None if more bytes are needed: all of them are taken then.
    ///
    /// # Errors
    /// Why the connection must end.
    pub(super) fn next<'s, 'i: 's>(&'s mut self, input: &mut &'i [u8]) -> Result<Option<Frame<'s>>, Reason> {
        if self.data.is_some() {
            return self.next_data(input);
        }
        if std::mem::take(&mut self.is_taken) {
            self.kept.clear();
        }
        if self.open.is_none() && self.block.capacity() > 0 {
            self.block = Vec::new();
        }
        if self.kept.len() < HEAD && !(self.kept.is_empty() && input.len() >= HEAD) {
            self.keep(input, HEAD);
        }
        let head = if self.kept.is_empty() { *input } else { &self.kept[..] };
        let Some(&[a, b, c, kind, flags, d, e, f, g]) = head.first_chunk() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes([d & 0x7f, e, f, g]);
        if length > MAX_LENGTH {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        if self.open.as_ref().is_some_and(|block| kind != CONTINUATION || stream != block.stream) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        if kind == DATA {
            if stream == 0 {
                return Err(Reason::PROTOCOL_ERROR);
            }
            if self.kept.is_empty() {
                *input = &input[HEAD..]
            } else {
                self.kept.clear()
            }
            let ends = flags & END_STREAM != 0;
            let is_padded = flags & PADDED != 0;
            self.data = Some(Data {
                stream,
                left: length,
                padding: 0,
                is_padded,
                ends,
                is_idle: length == 0 && !ends,
            });
            return self.next_data(input);
        }
        let payload = if self.kept.is_empty() && input.len() >= HEAD + length {
            let (frame, rest) = input.split_at(HEAD + length);
            *input = rest;
            &frame[HEAD..]
        } else {
            self.keep(input, HEAD + length);
            if self.kept.len() < HEAD + length {
                return Ok(None);
            }
            self.is_taken = true;
            &self.kept[HEAD..]
        };
        let is_of_stream = matches!(kind, HEADERS | PRIORITY | RST_STREAM | CONTINUATION);
        let is_of_connection = matches!(kind, SETTINGS | PING | GOAWAY);
        if (is_of_stream && stream == 0) || (is_of_connection && stream != 0) {
            return Err(Reason::PROTOCOL_ERROR);
        }
        let ends = flags & END_STREAM != 0;
        let is_ack = flags & ACK != 0;
        let frame = match kind {
            HEADERS => {
                let block = block_of(flags, payload)?;
                if flags & END_HEADERS != 0 {
                    Frame::Headers { stream, block, ends }
                } else {
                    self.open = Some(Block { stream, ends });
                    self.block.extend_from_slice(block);
                    Frame::Part { counts: false }
                }
            }
            CONTINUATION => {
                let Some(Block { stream, ends }) = self.open else { return Err(Reason::PROTOCOL_ERROR) };
                self.block.extend_from_slice(payload);
                if self.block.len() > self.max_block {
                    return Err(Reason::ENHANCE_YOUR_CALM);
                }
                if flags & END_HEADERS != 0 {
                    self.open = None;
                    Frame::Headers { stream, block: &self.block, ends }
                } else {
                    Frame::Part { counts: true }
                }
            }
            RST_STREAM => Frame::Reset { stream, reason: Reason(number(payload)?) },
            SETTINGS if is_ack && payload.is_empty() => Frame::SettingsAck,
            SETTINGS if !is_ack && payload.len().is_multiple_of(6) => Frame::Settings { values: payload },
            PING => match payload.try_into() {
                Ok(data) if is_ack => Frame::Pong { data },
                Ok(data) => Frame::Ping { data },
                Err(_) => return Err(Reason::FRAME_SIZE_ERROR),
            },
            GOAWAY => match payload.split_first_chunk() {
                Some((last, [_, _, _, _, ..])) => {
                    Frame::GoAway { last: u32::from_be_bytes(*last) & 0x7fff_ffff }
                }
                _ => return Err(Reason::FRAME_SIZE_ERROR),
            },
            WINDOW_UPDATE => Frame::WindowUpdate { stream, by: number(payload)? & 0x7fff_ffff },
            SETTINGS => return Err(Reason::FRAME_SIZE_ERROR),
            PRIORITY if payload.len() != 5 => return Err(Reason::FRAME_SIZE_ERROR),
            // Nobody is allowed to push to this side.
            PUSH_PROMISE => return Err(Reason::PROTOCOL_ERROR),
            _ => Frame::Other,
        };
        Ok(Some(frame))
    }

    /// Moves bytes to those that are kept until there are so many.
    fn keep(&mut self, input: &mut &[u8], length: usize) {
        let missing = length.saturating_sub(self.kept.len()).min(input.len());
        self.kept.extend_from_slice(&input[..missing]);
        *input = &input[missing..];
    }

    fn next_data<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Frame<'a>>, Reason> {
        let Some(frame) = &mut self.data else { return Ok(None) };
        let mut flow = 0;
        if frame.is_padded && frame.left > 0 {
            let Some((&padding, rest)) = input.split_first() else { return Ok(None) };
            *input = rest;
            frame.left -= 1;
            flow = 1;
            frame.padding = usize::from(padding);
            frame.is_padded = false;
            if frame.padding > frame.left {
                return Err(Reason::PROTOCOL_ERROR);
            }
            frame.is_idle = frame.padding == frame.left && !frame.ends;
        } else if frame.is_padded {
            return Err(Reason::FRAME_SIZE_ERROR);
        }
        if input.is_empty() && frame.left > 0 && flow == 0 {
            return Ok(None);
        }
        let taken = frame.left.min(input.len());
        let (part, rest) = input.split_at(taken);
        *input = rest;
        let data = &part[..taken.min(frame.left - frame.padding)];
        frame.left -= taken;
        frame.padding = frame.padding.min(frame.left);
        let (is_over, stream) = (frame.left == 0, frame.stream);
        let (ends, is_idle) = (is_over && frame.ends, is_over && frame.is_idle);
        if is_over {
            self.data = None;
        }
        Ok(Some(Frame::Data { stream, data, flow: flow + taken as u32, is_last: is_over, ends, is_idle }))
    }
}

/// Returns what HEADERS carries besides padding and priority.
fn block_of(flags: u8, mut payload: &[u8]) -> Result<&[u8], Reason> {
    if flags & PADDED != 0 {
        let (&padding, rest) = payload.split_first().ok_or(Reason::FRAME_SIZE_ERROR)?;
        let length = rest.len().checked_sub(usize::from(padding)).ok_or(Reason::PROTOCOL_ERROR)?;
        payload = &rest[..length];
    }
    if flags & PRIORITIZED != 0 {
        payload = payload.get(5..).ok_or(Reason::FRAME_SIZE_ERROR)?;
    }
    Ok(payload)
}

fn number(payload: &[u8]) -> Result<u32, Reason> {
    payload.try_into().map(u32::from_be_bytes).map_err(|_| Reason::FRAME_SIZE_ERROR)
}

/// Writes the head of a frame.
pub(super) fn write_head(out: &mut Vec<u8>, length: usize, kind: u8, flags: u8, stream: u32) {
    let [_, a, b, c] = (length as u32).to_be_bytes();
    let [d, e, f, g] = stream.to_be_bytes();
    out.extend_from_slice(&[a, b, c, kind, flags, d, e, f, g]);
}

/// Writes a frame.
pub(super) fn write(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    write_head(out, payload.len(), kind, flags, stream);
    out.extend_from_slice(payload);
}

/// Writes a header block, which `encode` appends, in frames of at most `most` bytes.
pub(super) fn write_block(
    out: &mut Vec<u8>,
    stream: u32,
    ends: bool,
    most: usize,
    encode: impl FnOnce(&mut Vec<u8>),
) {
    let begin = out.len();
    let ends = if ends { END_STREAM } else { 0 };
    write_head(out, 0, HEADERS, END_HEADERS | ends, stream);
    encode(out);
    let length = out.len() - begin - HEAD;
    if length > most {
        let block = out.split_off(begin + HEAD);
        out.truncate(begin);
        let count = block.len().div_ceil(most);
        for (index, part) in block.chunks(most).enumerate() {
            let last = if index + 1 == count { END_HEADERS } else { 0 };
            let (kind, flags) = if index == 0 { (HEADERS, last | ends) } else { (CONTINUATION, last) };
            write(out, kind, flags, stream, part);
        }
        return;
    }
    out[begin..begin + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
}

#[cfg(test)]
#[path = "../../fuzz/frames.rs"]
mod fuzz;

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        write(&mut out, kind, flags, stream, payload);
        out
    }

    /// What a reader makes of bytes that come in parts of some size; parts of DATA are joined.
    fn read(bytes: &[u8], size: usize) -> Result<Vec<String>, Reason> {
        let mut reader = Reader::new(100);
        let (mut found, mut data) = (Vec::new(), Vec::new());
        for mut part in bytes.chunks(size) {
            while let Some(frame) = reader.next(&mut part)? {
                match frame {
                    Frame::Data { data: more, flow, ends, is_idle, .. } => {
                        data.extend_from_slice(more);
                        if ends || is_idle {
                            found.push(format!("{:?} {flow} {ends}", String::from_utf8_lossy(&data)));
                            data.clear();
                        }
                    }
                    frame => found.push(format!("{frame:?}")),
                }
            }
            assert!(part.is_empty());
        }
        Ok(found)
    }

    #[test]
    fn frames_are_the_same_however_they_are_cut() {
        let bytes = [
            frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]),
            frame(HEADERS, END_HEADERS | PADDED | PRIORITIZED, 1, b"\x02\0\0\0\x05\x10block__"),
            frame(DATA, PADDED, 1, b"\x03data___"),
            frame(DATA, 0, 1, b""),
            frame(DATA, END_STREAM, 1, b""),
            frame(HEADERS, END_STREAM, 3, b"one"),
            frame(CONTINUATION, 0, 3, b"two"),
            frame(CONTINUATION, END_HEADERS, 3, b"three"),
            frame(PING, ACK, 0, &[1; 8]),
            frame(WINDOW_UPDATE, 0, 3, &[0x80, 0, 0, 5]),
            frame(GOAWAY, 0, 0, &[0, 0, 0, 7, 0, 0, 0, 11, 1, 2]),
            frame(RST_STREAM, 0, 3, &[0, 0, 0, 8]),
            frame(77, 0, 0, b"unknown"),
        ]
        .concat();
        let whole = read(&bytes, usize::MAX).unwrap();
        assert_eq!(whole.len(), 12);
        for size in [1, 2, 3, 8, 9, 10, 17] {
            let cut = read(&bytes, size).unwrap();
            let without_flow = |found: &[String]| {
                found.iter().map(|text| text.replace(" 0 ", " ").replace(" 8 ", " ")).collect::<Vec<_>>()
            };
            assert_eq!(without_flow(&cut), without_flow(&whole), "{size}");
        }
    }

    #[test]
    fn frames_that_cannot_be_end_the_connection() {
        for (bytes, reason) in [
            (frame(DATA, 0, 0, b"x"), Reason::PROTOCOL_ERROR),
            (frame(DATA, PADDED, 1, b"\x05x"), Reason::PROTOCOL_ERROR),
            (frame(DATA, PADDED, 1, b""), Reason::FRAME_SIZE_ERROR),
            (frame(HEADERS, END_HEADERS, 0, b"x"), Reason::PROTOCOL_ERROR),
            (frame(HEADERS, END_HEADERS | PADDED, 1, b"\x05x"), Reason::PROTOCOL_ERROR),
            (frame(HEADERS, END_HEADERS | PRIORITIZED, 1, b"x"), Reason::FRAME_SIZE_ERROR),
            (frame(CONTINUATION, END_HEADERS, 1, b"x"), Reason::PROTOCOL_ERROR),
            ([frame(HEADERS, 0, 1, b"x"), frame(PING, 0, 0, &[0; 8])].concat(), Reason::PROTOCOL_ERROR),
            ([frame(HEADERS, 0, 1, b"x"), frame(CONTINUATION, 0, 3, b"x")].concat(), Reason::PROTOCOL_ERROR),
            ([frame(HEADERS, 0, 1, b"x"), frame(DATA, 0, 1, b"x")].concat(), Reason::PROTOCOL_ERROR),
            (
                [frame(HEADERS, 0, 1, b"x"), frame(CONTINUATION, 0, 1, &[0; 100])].concat(),
                Reason::ENHANCE_YOUR_CALM,
            ),
            (frame(SETTINGS, 0, 1, b""), Reason::PROTOCOL_ERROR),
            (frame(SETTINGS, 0, 0, b"x"), Reason::FRAME_SIZE_ERROR),
            (frame(SETTINGS, ACK, 0, &[0; 6]), Reason::FRAME_SIZE_ERROR),
            (frame(PING, 0, 0, b"x"), Reason::FRAME_SIZE_ERROR),
            (frame(PING, 0, 1, &[0; 8]), Reason::PROTOCOL_ERROR),
            (frame(RST_STREAM, 0, 1, b"x"), Reason::FRAME_SIZE_ERROR),
            (frame(RST_STREAM, 0, 0, &[0; 4]), Reason::PROTOCOL_ERROR),
            (frame(WINDOW_UPDATE, 0, 1, b"x"), Reason::FRAME_SIZE_ERROR),
            (frame(GOAWAY, 0, 0, b"x"), Reason::FRAME_SIZE_ERROR),
            (frame(PUSH_PROMISE, 0, 1, b"x"), Reason::PROTOCOL_ERROR),
            (vec![1, 0, 0, DATA, 0, 0, 0, 0, 1], Reason::FRAME_SIZE_ERROR),
        ] {
            for size in [1, usize::MAX] {
                assert_eq!(read(&bytes, size), Err(reason), "{bytes:?}");
            }
        }
    }

    #[test]
    fn a_long_block_is_written_in_several_frames() {
        for length in [0_usize, 1, 20, 21, 40, 41] {
            let mut out = Vec::new();
            write_block(&mut out, 1, true, 20, |out| out.extend((0..length).map(|byte| byte as u8)));
            let (mut reader, mut input) = (Reader::new(100), &out[..]);
            let mut parts = 1;
            loop {
                match reader.next(&mut input).unwrap().unwrap() {
                    Frame::Part { .. } => parts += 1,
                    frame => {
                        let block: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
                        assert_eq!(frame, Frame::Headers { stream: 1, block: &block, ends: true });
                        break;
                    }
                }
            }
            assert_eq!(parts, length.div_ceil(20).max(1));
        }
    }
}
