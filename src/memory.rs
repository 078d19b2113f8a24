//! Memory that is free, and still the process's.

use std::sync::OnceLock;

static GIVE_BACK: OnceLock<fn()> = OnceLock::new();

/// Says how the allocator gives back what has been free for a moment. The program chooses the allocator, so it says so;
/// the first time counts.
pub fn is_given_back_by(give_back: fn()) {
    let _ = GIVE_BACK.set(give_back);
}

/// Gives back what this thread has freed and nobody has used for a moment. An allocator does so by itself when it is asked
/// for more, which a thread at rest never does.
pub fn give_back() {
    if let Some(give_back) = GIVE_BACK.get() {
        give_back();
    }
}
