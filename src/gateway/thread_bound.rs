//! Plain fields in futures that have to be `Send`.

use std::{cell::Cell, ops::Deref, ptr};

thread_local! {
    /// Its address tells a thread from every other that is alive.
    static MARK: Cell<u8> = const { Cell::new(0) };
}

fn this_thread() -> usize {
    MARK.with(|mark| ptr::from_ref(mark).addr())
}

/// A value that only the thread which made it may look at.
///
/// The runtime asks of each task that it may be moved to another thread, and never moves one of a worker. So what the
/// parts of a connection share needs neither locks nor atomics, only this: a look from elsewhere is a panic.
pub(super) struct ThreadBound<T> {
    owner: usize,
    value: T,
}

// SAFETY: a shared reference leads to the value only on the thread that made it (`get`), so two threads never use it at
// once. Moving and dropping it elsewhere is what `T: Send` allows.
unsafe impl<T: Send> Sync for ThreadBound<T> {}

impl<T> ThreadBound<T> {
    /// Binds a value to the present thread.
    pub(super) fn new(value: T) -> Self {
        Self { owner: this_thread(), value }
    }

    /// The value; none on any other thread than its own.
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
