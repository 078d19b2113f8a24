//! One request and its response: how far they have come, and until when they must.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    task::Context,
    time::Duration,
};

use super::{
    activity::{Activity, millis},
    thread_bound::ThreadBound,
    turn_budget::TurnBudget,
};
use crate::{
    access::{Access, Denied, Lease},
    clock::coarse_millis as now_millis,
    config::Limits,
    error::Kind,
    revocation::{Cut, Registration},
};

/// How far a request's body has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyState {
    /// To its end, or there is none.
    Complete,
    /// More may come; nobody has asked for it yet.
    Open,
    /// The client was asked for more, and has not sent it.
    Awaited,
}

/// Why a request's body ends before its end.
#[derive(Debug, Clone, Copy)]
pub(super) enum BodyFailure {
    /// Over its limit.
    TooLarge,
    /// Too slow.
    Late,
    /// Broken framing, or broken off.
    Malformed,
    /// The token that it came with has died meanwhile.
    Dead,
    /// Nobody knows any more whether it has.
    Stale,
}

impl BodyFailure {
    fn kind(self) -> Kind {
        match self {
            Self::TooLarge => Kind::BodyTooLarge,
            Self::Late => Kind::RequestTimeout,
            Self::Malformed => Kind::BadRequest,
            Self::Dead => Kind::Unauthenticated,
            Self::Stale => Kind::Unavailable,
        }
    }
}

/// How far an exchange has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Between a request's head and its response's; late means: 408 or 504.
    Request,
    /// Sending a response; late means: break off.
    Response,
    /// The response is complete, or was given up.
    Over,
}

/// One request and its response, as its service and its two bodies see them. A connection of HTTP/1.1 has one at a time,
/// and uses it again.
pub(super) struct Exchange {
    activity: Arc<ThreadBound<Activity>>,
    access: Arc<Access>,
    stage: Cell<Stage>,
    due: Cell<u64>,
    is_expired: Cell<bool>,
    body: Cell<BodyState>,
    failure: Cell<Option<BodyFailure>>,
    /// Bytes of the request's body so far.
    received: Cell<u64>,
    /// Its place among what ends with its token, once it has turned out to be a long one.
    registration: RefCell<Option<Registration>>,
    body_idle: u64,
}

impl Exchange {
    /// An exchange on a connection, before its request.
    pub(super) fn new(limits: &Limits, access: Arc<Access>, activity: Arc<ThreadBound<Activity>>) -> Self {
        Self {
            activity,
            access,
            stage: Cell::new(Stage::Over),
            due: Cell::new(0),
            is_expired: Cell::new(false),
            body: Cell::new(BodyState::Complete),
            failure: Cell::new(None),
            received: Cell::new(0),
            registration: RefCell::default(),
            body_idle: millis(limits.body_idle_timeout),
        }
    }

    /// The connection that it is on.
    pub(super) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// What is left of the connection's turn.
    pub(super) fn budget(&self) -> &TurnBudget {
        &self.activity.budget
    }

    /// The moment that is `span` from now.
    pub(super) fn moment(&self, span: Duration) -> u64 {
        now_millis() + millis(span)
    }

    /// The moment by which a body must go on.
    pub(super) fn next_body_byte(&self) -> u64 {
        now_millis() + self.body_idle
    }

    /// A whole head was read: its response's head is due after `timeout`. `body` says whether more of the request
    /// may come.
    pub(super) fn begins(&self, timeout: Duration, body: bool) {
        self.activity.exchange_begins();
        self.failure.set(None);
        self.received.set(0);
        self.body.set(if body { BodyState::Open } else { BodyState::Complete });
        self.enter(Stage::Request, self.moment(timeout));
    }

    fn enter(&self, stage: Stage, due: u64) {
        self.stage.set(stage);
        self.due.set(due);
        self.is_expired.set(false);
    }

    /// The request must go on by `at`, a moment of [`Self::moment`], however late it was before. Once the response has
    /// begun, its own progress counts.
    pub(super) fn expect_by(&self, at: u64) {
        if self.stage.get() == Stage::Request {
            self.enter(Stage::Request, at);
        }
    }

    /// The moment by which something must move.
    pub(super) fn due(&self) -> u64 {
        self.due.get()
    }

    /// The moment has come and gone.
    pub(super) fn expire(&self) {
        self.is_expired.set(true);
    }

    /// Whether the moment has come and gone without progress.
    pub(super) fn is_expired(&self) -> bool {
        self.is_expired.get()
    }

    /// Bytes of the request's body arrived; the request must go on by `at`. Once the response has begun, bytes either
    /// way count for both.
    pub(super) fn upload_moves(&self, bytes: u64, at: u64) {
        self.received.set(self.received.get() + bytes);
        match self.stage.get() {
            Stage::Request => self.due.set(at),
            Stage::Response => self.response_moves(),
            Stage::Over => {}
        }
    }

    /// Bytes of the request's body so far.
    pub(super) fn request_bytes(&self) -> u64 {
        self.received.get()
    }

    /// How far the request's body has come.
    pub(super) fn body_is(&self, state: BodyState) {
        self.body.set(state);
    }

    /// Whether there is more of the request's body to come.
    pub(super) fn body_is_open(&self) -> bool {
        self.body.get() != BodyState::Complete
    }

    /// The request's body cannot be read to its end.
    pub(super) fn body_fails(&self, failure: BodyFailure) {
        self.failure.set(Some(failure));
    }

    /// Why the request's body could not be read to its end.
    pub(super) fn body_failure(&self) -> Option<Kind> {
        let is_awaited = self.is_expired() && self.body.get() == BodyState::Awaited;
        self.failure.get().or_else(|| is_awaited.then_some(BodyFailure::Late)).map(BodyFailure::kind)
    }

    /// The request is complete, and its response may come as that of any other.
    pub(super) fn upload_ends(&self) {
        if self.stage.get() == Stage::Request {
            self.registration.take();
        }
    }

    /// The response's head is ready.
    pub(super) fn response_begins(&self) {
        self.enter(Stage::Response, self.next_body_byte());
    }

    /// Bytes of the response went out or came in.
    pub(super) fn response_moves(&self) {
        if self.stage.get() == Stage::Response {
            self.due.set(self.next_body_byte());
        }
    }

    fn ends(&self) {
        self.enter(Stage::Over, u64::MAX);
        self.registration.take();
        self.activity.exchange_ends();
    }

    /// The exchange has turned out to be a long one: from now on it ends with the lease.
    ///
    /// # Errors
    /// Why it has ended already.
    pub(super) fn watch(&self, lease: &Lease, cx: &Context<'_>) -> Result<(), Cut> {
        if self.is_watched() {
            return Ok(());
        }
        match self.access.watch(lease, cx.waker()) {
            Ok(registration) => {
                self.registration.replace(registration);
                Ok(())
            }
            Err(Denied::Stale) => Err(Cut::Stale),
            Err(_) => Err(Cut::Revoked),
        }
    }

    /// Whether it is a long one, which ends with its token.
    pub(super) fn is_watched(&self) -> bool {
        self.registration.borrow().is_some()
    }

    /// Why a long exchange must end, if its lease has.
    pub(super) fn cut(&self) -> Option<Cut> {
        self.registration.borrow().as_ref().and_then(Registration::cut)
    }
}

/// Marks the end of an exchange when the response's body is dropped, however that comes about.
pub(super) struct EndOfResponse(pub(super) Arc<ThreadBound<Exchange>>);

impl Drop for EndOfResponse {
    fn drop(&mut self) {
        // Elsewhere than on the worker's thread it is only what is left when the worker has ended.
        if let Some(exchange) = self.0.get() {
            exchange.ends();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering::SeqCst},
        task::{Wake, Waker},
    };

    use super::*;
    use crate::{
        clock::{ManualClock, TimeKeeper},
        gateway::activity::Phase,
        revocation::Mirror,
        telemetry::Metrics,
        token::{CurrentKeyring, Keyring, Verifier},
        types::Secret,
    };

    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: Limits = Limits {
        header_bytes: 1 << 10,
        header_count: 10,
        body: 1 << 10,
        header_timeout: SECOND,
        idle_timeout: SECOND,
        request_timeout: SECOND,
        body_min_rate: 1,
        body_idle_timeout: SECOND,
        response_drain_timeout: SECOND,
        connections_per_address: 1,
        bounds_loopback: false,
    };

    fn exchange() -> Arc<ThreadBound<Exchange>> {
        let secret = Secret::new("a-secret-for-unit-tests-only-0123456789");
        let keyring = CurrentKeyring::new(Keyring::of_secrets(&secret, None).unwrap());
        let access = Access::new(
            Arc::new(Verifier::new("tests", "tests", keyring)),
            Arc::new(Mirror::new(Duration::from_secs(5))),
            Arc::new(TimeKeeper::new(ManualClock::at(0))),
            Arc::new(Metrics::new().unwrap()),
        );
        let activity = Arc::new(ThreadBound::new(Activity::new(&LIMITS, None)));
        Arc::new(ThreadBound::new(Exchange::new(&LIMITS, Arc::new(access), activity)))
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    #[test]
    fn a_moment_that_has_passed_can_be_set_anew_until_the_response_begins() {
        let exchange = exchange();
        exchange.begins(SECOND, true);
        exchange.expire();
        assert!(exchange.is_expired());
        let later = exchange.moment(9 * SECOND);
        exchange.expect_by(later);
        assert!(!exchange.is_expired());
        assert_eq!(exchange.due(), later);
        exchange.response_begins();
        exchange.expect_by(0);
        assert!(exchange.due() > 0, "once the response has begun, its own progress counts");
    }

    #[test]
    fn a_body_that_was_awaited_when_the_moment_came_is_the_clients_fault() {
        let exchange = exchange();
        exchange.begins(SECOND, true);
        exchange.body_is(BodyState::Awaited);
        assert_eq!(exchange.body_failure(), None);
        exchange.expire();
        assert_eq!(exchange.body_failure(), Some(Kind::RequestTimeout));
        exchange.begins(SECOND, false);
        assert_eq!(exchange.body_failure(), None);
    }

    #[test]
    fn the_end_of_the_response_ends_the_exchange_and_wakes_who_waits_for_the_next() {
        let exchange = exchange();
        exchange.begins(SECOND, false);
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        exchange.activity().hold(&Context::from_waker(&waker));
        let end = EndOfResponse(exchange.clone());
        exchange.response_begins();
        assert!(exchange.activity().is_busy() && !woken.0.load(SeqCst));
        drop(end);
        assert_eq!(exchange.activity().phase(), Phase::Idle);
        assert!(woken.0.load(SeqCst));
    }
}
