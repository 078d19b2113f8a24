//! Servers that leave requests without a byte: they are asked whether they are there.

use super::{frame, state::State};

/// What a PING carries that asks.
const ALIVE: [u8; 8] = *b"authgate";

/// How long a server is not asked again that has sent no part of a message since it was asked twice, in milliseconds: what gRPC's
/// servers want between two questions (gRPC proposal A8), and a little.
const ASKED_ANEW_MILLIS: u64 = 310_000;

/// Watches over the silence of a server.
#[derive(Debug)]
pub(super) struct Silence {
    /// How long it may last, and how long a reply may take, in milliseconds.
    longest: u64,
    /// The coarse time at which the server was asked, and has not said anything since.
    asked: Option<u64>,
    /// The coarse time at which it was asked last.
    last_asked: u64,
}

impl Silence {
    pub(super) fn new(longest: u64) -> Self {
        Self { longest, asked: None, last_asked: 0 }
    }

    /// Takes note of a byte.
    pub(super) fn ends(&mut self) {
        self.asked = None;
    }

    /// Asks at a coarse time, or gives the server no more requests if it has not answered. Those that it has go on, since it may be
    /// busy: their own deadlines are theirs. `takes` tells that it takes what is on its way to it.
    pub(super) fn check(&mut self, state: &mut State, takes: bool, now: u64) {
        let is_past = |since: u64, length: u64| now.saturating_sub(since) >= length;
        match self.asked {
            // Behind a slow way the question itself takes its time.
            Some(_) if takes => self.asked = Some(now),
            Some(asked) if is_past(asked, self.longest) => state.is_going = true,
            Some(_) => {}
            None => {
                let waits_since = state.waits_since.filter(|_| state.live > 0);
                let may_ask = state.asks_left > 0 || is_past(self.last_asked, ASKED_ANEW_MILLIS);
                if may_ask && waits_since.is_some_and(|since| is_past(since, self.longest)) {
                    state.asks_left = state.asks_left.saturating_sub(1);
                    self.asked = Some(now);
                    self.last_asked = now;
                    frame::write(state.out.frames(), frame::PING, 0, 0, &ALIVE);
                    state.wake_driver();
                }
            }
        }
    }
}
