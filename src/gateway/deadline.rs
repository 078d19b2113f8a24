//! The one timer of a connection.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::{
    task::coop::unconstrained,
    time::{Instant, Sleep},
};

/// How far the coarse clock may lag behind the clock of the timer, in milliseconds.
const CLOCK_GRAIN_MILLIS: u64 = 5;

/// More than the coarse clock lags behind on any kernel, in milliseconds.
const CLOCK_LAG_MILLIS: u64 = 100;

pin_project! {
    /// A timer for a deadline that often moves ahead.
    ///
    /// The timer is reset only if the deadline moves back. If it fires early it is set again, so a deadline that moves
    /// ahead at each request costs nothing.
    pub(super) struct Deadline {
        #[pin]
        timer: Sleep,
        // When the timer fires, as a coarse time.
        armed: u64,
    }
}

impl Deadline {
    /// Creates a timer that is armed at the first poll.
    pub(super) fn new() -> Self {
        Self { timer: tokio::time::sleep(Duration::ZERO), armed: u64::MAX }
    }

    /// Waits until `due`, which is later than `now`. Both are coarse times in milliseconds.
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>, now: u64, due: u64) -> Poll<()> {
        let mut this = self.project();
        // The timer is looked at only when it may have fired: it lies in memory that nothing else of a request touches.
        let may_have_fired = now.saturating_add(CLOCK_LAG_MILLIS) >= *this.armed;
        let has_fired = may_have_fired && (now >= *this.armed || this.timer.is_elapsed());
        if due >= *this.armed && !has_fired {
            return Poll::Pending;
        }
        *this.armed = due;
        this.timer.as_mut().reset(Instant::now() + Duration::from_millis(due - now + CLOCK_GRAIN_MILLIS));
        // Without the runtime's budget for a task: once that is spent a poll would not arm the timer.
        pin!(unconstrained(this.timer)).poll(cx)
    }
}
