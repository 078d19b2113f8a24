//! How much a connection may do before the others of its worker have their turn.

use std::cell::Cell;

/// What a connection reads in a turn, from its client or for it, in bytes: a fraction of a millisecond of work, whatever
/// it is cut into.
const TURN_BYTES: u64 = 64 << 10;

/// What is left of a connection's turn, in bytes.
pub(super) struct TurnBudget(Cell<u64>);

impl TurnBudget {
    /// A whole turn.
    pub(super) fn new() -> Self {
        Self(Cell::new(TURN_BYTES))
    }

    /// The connection's task has its turn.
    pub(super) fn begins(&self) {
        self.0.set(TURN_BYTES);
    }

    /// Bytes were read, or something was done that costs as much.
    pub(super) fn spends(&self, bytes: usize) {
        self.0.set(self.0.get().saturating_sub(bytes as u64));
    }

    /// What was spent in this turn so far, in bytes.
    pub(super) fn spent(&self) -> u64 {
        TURN_BYTES - self.0.get()
    }

    /// Whether nothing is left: nothing more is read before the connection's task has its next turn.
    pub(super) fn is_spent(&self) -> bool {
        self.0.get() == 0
    }
}
