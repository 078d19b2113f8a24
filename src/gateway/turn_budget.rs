//! The budget of a connection's turn, after which the other connections of its worker are served.

use std::cell::Cell;

/// The bytes that a connection may read in a turn, from its client or from an upstream. They take a fraction of a
/// millisecond.
const TURN_BYTES: u64 = 64 << 10;

/// The rest of a connection's turn, in bytes.
pub(super) struct TurnBudget(Cell<u64>);

impl TurnBudget {
    /// Creates a whole turn.
    pub(super) fn new() -> Self {
        Self(Cell::new(TURN_BYTES))
    }

    /// Starts the next turn.
    pub(super) fn begins(&self) {
        self.0.set(TURN_BYTES);
    }

    /// Subtracts bytes that were read, or the cost of other work in bytes.
    pub(super) fn spends(&self, bytes: usize) {
        self.0.set(self.0.get().saturating_sub(bytes as u64));
    }

    /// Returns the bytes that were spent in this turn.
    pub(super) fn spent(&self) -> u64 {
        TURN_BYTES - self.0.get()
    }

    /// Returns whether the turn is over. Nothing more is read before the next one.
    pub(super) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}
