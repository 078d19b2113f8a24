//! Values without locks in futures that must be `Send`.

use std::{cell::Cell, ops::Deref, ptr};

thread_local! {
    /// Its address identifies the thread among all that are alive.
    static MARK: Cell<u8> = const { Cell::new(0) };
}

fn this_thread() -> usize {
    MARK.with(|mark| ptr::from_ref(mark).addr())
}

/// A value that only the thread that created it can access.
///
/// The runtime requires that each task can be sent to another thread, but it never moves the task of a worker. The parts of
/// a connection can therefore share plain cells. Access from another thread panics.
pub(super) struct ThreadBound<T> {
    owner: usize,
    value: T,
}

// SAFETY: `get` gives access to the value on the thread that created it only, so two threads never use it at once. A later
// thread can have the same mark only after that thread has ended, and the memory that it got was given back before.
// `T: Send` allows to move and drop the value on another thread.
unsafe impl<T: Send> Sync for ThreadBound<T> {}

impl<T> ThreadBound<T> {
    /// Binds a value to the current thread.
    pub(super) fn new(value: T) -> Self {
        Self { owner: this_thread(), value }
    }

    /// Returns the value, or none on another thread.
    pub(super) fn get(&self) -> Option<&T> {
        (self.owner == this_thread()).then_some(&self.value)
    }
}

impl<T> Deref for ThreadBound<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.get().expect("what belongs to a worker is used on its thread")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_value_is_there_on_its_own_thread_and_on_no_other() {
        let bound = Arc::new(ThreadBound::new(Cell::new(1)));
        bound.set(2);
        let elsewhere = bound.clone();
        let seen = std::thread::spawn(move || elsewhere.get().map(Cell::get)).join();
        assert_eq!((bound.get().map(Cell::get), seen.ok()), (Some(2), Some(None)));
    }
}
