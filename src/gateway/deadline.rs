//! The one timer of a connection.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

/// How far the clock that moments are told by may be behind the timer's, in milliseconds.
const CLOCK_GRAIN_MILLIS: u64 = 5;

pin_project! {
    /// A timer for a moment that is pushed ahead again and again.
    ///
    /// It is moved to an earlier moment only. One that fires too early is set anew, so a deadline that is pushed ahead at
    /// each request costs nothing.
    pub(super) struct Deadline {
        #[pin]
        timer: Sleep,
        // When the timer will fire, as a coarse time.
        armed: u64,
    }
}

impl Deadline {
    /// A timer that is armed when it is first polled.
    pub(super) fn new() -> Self {
        Self { timer: tokio::time::sleep(Duration::ZERO), armed: u64::MAX }
    }

    /// Sees to it that the task is woken once `due` has come, a moment that lies behind `now`; ready if it has come
    /// meanwhile. Both are coarse times, in milliseconds.
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>, now: u64, due: u64) -> Poll<()> {
        let mut this = self.project();
        let has_fired = now >= *this.armed || this.timer.is_elapsed();
        if due >= *this.armed && !has_fired {
            return Poll::Pending;
        }
        *this.armed = due;
        this.timer.as_mut().reset(Instant::now() + Duration::from_millis(due - now + CLOCK_GRAIN_MILLIS));
        this.timer.poll(cx)
    }
}
