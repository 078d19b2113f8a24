//! Frames that cost their sender nothing: each kind is counted, and too many in a while end the connection.
//!
//! Only the heads of frames are looked at (RFC 9113, section 4.1), on their way to the library and back.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::config;

/// The length of the head of a frame, in bytes.
const HEAD: usize = 9;

const RST_STREAM: u8 = 3;

/// The length of what a RST_STREAM carries: its code.
const CODE: usize = 4;

/// What a client is flooding with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Flood {
    /// Resets of streams, its own and those that it provokes (CVE-2023-44487, CVE-2025-8671).
    Resets = 1,
    /// SETTINGS.
    Settings,
    /// PING.
    Pings,
    /// DATA without a byte.
    Empty,
    /// CONTINUATION.
    Continuations,
    /// PRIORITY, and frames that are not known.
    Others,
}

impl Flood {
    const ALL: [Self; 6] =
        [Self::Resets, Self::Settings, Self::Pings, Self::Empty, Self::Continuations, Self::Others];

    /// Returns the kind as metrics have it.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Settings => "settings",
            Self::Pings => "pings",
            Self::Empty => "empty",
            Self::Continuations => "continuations",
            Self::Others => "others",
        }
    }

    /// Returns how many frames of the kind a client may cause in a window of time.
    fn most(self, limits: &config::Http2Limits) -> u32 {
        match self {
            Self::Resets => limits.resets.count,
            Self::Settings => 100,
            Self::Pings => 2_000,
            Self::Empty => 1_000,
            Self::Continuations => 1_000,
            Self::Others => 10_000,
        }
    }

    /// Returns the kind of a frame that a client has sent, if it is one that is counted.
    fn received(kind: u8, flags: u8, length: usize) -> Option<Self> {
        const END_STREAM: u8 = 1;
        match kind {
            0 if length == 0 && flags & END_STREAM == 0 => Some(Self::Empty),
            // DATA, HEADERS and WINDOW_UPDATE belong to streams and their bodies.
            0 | 1 | 8 => None,
            RST_STREAM => Some(Self::Resets),
            4 => Some(Self::Settings),
            6 => Some(Self::Pings),
            9 => Some(Self::Continuations),
            _ => Some(Self::Others),
        }
    }

    /// Returns the kind of a frame that goes to a client, if it is one that is counted: a reset that a frame of the client has
    /// provoked, by its code (RFC 9113, section 7), and none by which the gateway ends a stream itself.
    fn sent(kind: u8, code: u32) -> Option<Self> {
        const PROTOCOL_ERROR: u32 = 1;
        const FLOW_CONTROL_ERROR: u32 = 3;
        const STREAM_CLOSED: u32 = 5;
        const FRAME_SIZE_ERROR: u32 = 6;
        let is_provoked =
            [PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR].contains(&code);
        (kind == RST_STREAM && is_provoked).then_some(Self::Resets)
    }
}

/// Follows the frames of one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// The head, and the code of a RST_STREAM.
    head: [u8; HEAD + CODE],
    /// The bytes of them that have come.
    known: usize,
    /// The bytes of the frame that are still to come.
    left: usize,
}

impl Frames {
    /// Begins behind the preface of a client.
    pub(super) fn after_preface() -> Self {
        const PREFACE: usize = 24;
        Self { left: PREFACE, ..Self::default() }
    }

    /// Takes bytes, and calls `found` with kind, flags and length of each frame that begins in them, and the code if it is a
    /// RST_STREAM.
    fn follow(&mut self, mut bytes: &[u8], mut found: impl FnMut(u8, u8, usize, u32)) {
        while !bytes.is_empty() {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = &bytes[skipped..];
            let wanted = if self.known < HEAD { HEAD } else { HEAD + CODE };
            let taken = (wanted - self.known).min(bytes.len());
            self.head[self.known..self.known + taken].copy_from_slice(&bytes[..taken]);
            self.known += taken;
            bytes = &bytes[taken..];
            if self.known < wanted {
                continue;
            }
            let [a, b, c, kind, flags, .., d, e, f, g] = self.head;
            let length = u32::from_be_bytes([0, a, b, c]) as usize;
            if kind == RST_STREAM && length == CODE && self.known == HEAD {
                continue;
            }
            let has_code = self.known > HEAD;
            self.left = if has_code { 0 } else { length };
            self.known = 0;
            found(kind, flags, length, if has_code { u32::from_be_bytes([d, e, f, g]) } else { 0 });
        }
    }
}

/// Counts the frames of a connection.
#[derive(Debug)]
pub(super) struct Floods {
    limits: config::Http2Limits,
    /// When the window began, as a coarse time, and what came in it.
    begun: AtomicU64,
    counts: [AtomicU64; Flood::ALL.len()],
    found: AtomicU8,
}

impl Floods {
    /// Creates the counts of a connection that begins.
    pub(super) fn new(limits: config::Http2Limits, now: u64) -> Self {
        let counts = [const { AtomicU64::new(0) }; Flood::ALL.len()];
        Self { limits, begun: AtomicU64::new(now), counts, found: AtomicU8::new(0) }
    }

    /// Counts what came from the client at a coarse time.
    pub(super) fn receives(&self, frames: &mut Frames, bytes: &[u8], now: u64) {
        frames.follow(bytes, |kind, flags, length, _| self.count(Flood::received(kind, flags, length), now));
    }

    /// Counts what goes to the client.
    pub(super) fn sends(&self, frames: &mut Frames, bytes: &[u8], now: u64) {
        frames.follow(bytes, |kind, _, _, code| self.count(Flood::sent(kind, code), now));
    }

    fn count(&self, kind: Option<Flood>, now: u64) {
        let Some(kind) = kind else { return };
        let window = u64::try_from(self.limits.resets.per.as_millis()).unwrap_or(u64::MAX);
        if now.saturating_sub(self.begun.load(Relaxed)) >= window {
            self.begun.store(now, Relaxed);
            self.counts.iter().for_each(|count| count.store(0, Relaxed));
        }
        let count = &self.counts[kind as usize - 1];
        let counted = count.load(Relaxed) + 1;
        count.store(counted, Relaxed);
        if counted > u64::from(kind.most(&self.limits)) && self.found().is_none() {
            self.found.store(kind as u8, Relaxed);
        }
    }

    /// Returns what the client is flooding with.
    pub(super) fn found(&self) -> Option<Flood> {
        let found = self.found.load(Relaxed);
        Flood::ALL.into_iter().find(|kind| *kind as u8 == found)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LIMITS: config::Http2Limits = config::Http2Limits {
        streams: 100,
        header_list: 64 << 10,
        resets: config::Rate { count: 5, per: Duration::from_secs(10) },
    };

    fn frame(kind: u8, flags: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![0, (length >> 8) as u8, length as u8, kind, flags, 0, 0, 0, 1];
        frame.resize(HEAD + length, 3);
        frame
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let mut bytes = vec![b'x'; 24];
        for (kind, length) in [(0, 300), (3, 4), (9, 0), (0, 0), (6, 8), (3, 4)] {
            bytes.extend(frame(kind, 0, length));
        }
        for size in [1, 2, 7, 9, 50, 1_000] {
            let floods = Floods::new(LIMITS, 0);
            let mut frames = Frames::after_preface();
            bytes.chunks(size).for_each(|bytes| floods.receives(&mut frames, bytes, 0));
            let counts = floods.counts.each_ref().map(|count| count.load(Relaxed));
            assert_eq!(counts, [2, 0, 1, 1, 1, 0], "{size}");
        }
    }

    #[test]
    fn too_many_resets_of_both_sides_in_a_while_are_a_flood() {
        let floods = Floods::new(LIMITS, 0);
        let (mut from, mut to) = (Frames::default(), Frames::default());
        for now in [0, 100, 200] {
            floods.receives(&mut from, &frame(3, 0, 4), now);
        }
        let reset = |code: u8| {
            let mut reset = frame(3, 0, 4);
            reset[HEAD..].copy_from_slice(&[0, 0, 0, code]);
            reset
        };
        floods.sends(&mut to, &[frame(1, 4, 20), reset(1), reset(5)].concat(), 300);
        // Those are the gateway's own.
        floods.sends(&mut to, &[reset(0), reset(8), reset(2), reset(7)].concat(), 300);
        assert_eq!(floods.found(), None);
        floods.receives(&mut from, &frame(3, 0, 4), 10_000);
        assert_eq!(floods.found(), None, "another window");
        floods.receives(&mut from, &frame(3, 0, 4).repeat(5), 10_001);
        assert_eq!(floods.found(), Some(Flood::Resets));
    }
}
