//! Frames that cost their sender nothing: each kind is counted, and too many in a while end the connection.

use crate::config;

/// What a client is flooding with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flood {
    /// Resets of streams, its own and those that it provokes (CVE-2023-44487, CVE-2025-8671).
    Resets,
    /// SETTINGS.
    Settings,
    /// PING.
    Pings,
    /// DATA without a byte.
    Empty,
    /// CONTINUATION, and header blocks without an end.
    Continuations,
    /// Lists of header lines that are too large when they are decompressed.
    HeaderLists,
    /// PRIORITY, frames that are not known, those of streams that are over, and room for what was never sent.
    Others,
}

const KINDS: usize = 7;

/// The time in which frames are counted, in milliseconds; resets have their own.
const WINDOW: u64 = 10_000;

impl Flood {
    /// Returns the kind as metrics have it.
    pub fn label(self) -> &'static str {
        match self {
            Self::Resets => "resets",
            Self::Settings => "settings",
            Self::Pings => "pings",
            Self::Empty => "empty",
            Self::Continuations => "continuations",
            Self::HeaderLists => "header_lists",
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
            Self::HeaderLists => 1_000,
            Self::Others => 10_000,
        }
    }
}

/// Counts of frames in a window of time.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// When it began, as a coarse time.
    begun: u64,
    counts: [u32; KINDS],
}

/// Counts the frames of a connection.
#[derive(Debug)]
pub(super) struct Floods {
    limits: config::Http2Limits,
    /// The window of resets, and that of all other kinds.
    resets: Window,
    others: Window,
    found: Option<Flood>,
}

impl Floods {
    /// Creates the counts of a connection that begins.
    pub(super) fn new(limits: config::Http2Limits, now: u64) -> Self {
        let window = Window { begun: now, counts: [0; KINDS] };
        Self { limits, resets: window, others: window, found: None }
    }

    /// Counts a frame at a coarse time.
    pub(super) fn count(&mut self, kind: Flood, now: u64) {
        let (window, length) = match kind {
            Flood::Resets => {
                let length = u64::try_from(self.limits.resets.per.as_millis()).unwrap_or(u64::MAX);
                (&mut self.resets, length)
            }
            _ => (&mut self.others, WINDOW),
        };
        if now.saturating_sub(window.begun) >= length {
            *window = Window { begun: now, counts: [0; KINDS] };
        }
        let count = &mut window.counts[kind as usize];
        *count += 1;
        if *count > kind.most(&self.limits) {
            self.finds(kind);
        }
    }

    /// Notes a flood that is found without a count.
    pub(super) fn finds(&mut self, kind: Flood) {
        self.found.get_or_insert(kind);
    }

    /// Returns what the client is flooding with.
    pub(super) fn found(&self) -> Option<Flood> {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn too_many_of_a_kind_in_a_while_are_a_flood() {
        let limits = config::Http2Limits {
            streams: 100,
            header_list: 64 << 10,
            resets: config::Rate { count: 5, per: Duration::from_secs(10) },
        };
        let mut floods = Floods::new(limits, 0);
        for now in [0, 100, 200, 300, 400] {
            floods.count(Flood::Resets, now);
            floods.count(Flood::Pings, now);
        }
        for _ in 0..1_994 {
            floods.count(Flood::Pings, 500);
        }
        floods.count(Flood::Resets, 10_000);
        assert_eq!(floods.found(), None, "another window");
        for _ in 0..5 {
            floods.count(Flood::Resets, 10_001);
        }
        floods.finds(Flood::Continuations);
        assert_eq!(floods.found(), Some(Flood::Resets));
    }
}
