//! What allocator and kernel are told of the process's memory.

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

/// Takes memory in small pages from now on. Half of what idle connections seemed to take was the rest of huge pages of which
/// they used a corner, and requests are no faster on those.
pub fn use_small_pages() {
    #[cfg(target_os = "linux")]
    // SAFETY: it concerns how the kernel backs this process's memory, and nothing that can be seen in it.
    unsafe {
        libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0);
    }
}
