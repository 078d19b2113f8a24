//! One request and its response: their progress and their deadline.

use std::{
    cell::{Cell, RefCell, RefMut},
    sync::Arc,
    task::Context,
    time::Duration,
};

use super::{
    activity::{Activity, millis},
    rate_limits::LimitLines,
    thread_bound::ThreadBound,
    turn_budget::TurnBudget,
};
use crate::{
    access::{Access, Denied, Lease},
    config::Limits,
    error::Kind,
    revocation::{Cut, Registration},
};

/// The progress of a request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyState {
    /// Complete or absent.
    Complete,
    /// Incomplete, and not read from at the moment.
    Open,
    /// Incomplete, and the gateway waits for the client.
    Awaited,
}

/// The reason why a request's body was given up.
#[derive(Debug, Clone, Copy)]
pub(super) enum BodyFailure {
    /// It exceeds its limit.
    TooLarge,
    /// It is too slow.
    Late,
    /// Its framing is invalid or the client broke it off.
    Malformed,
    /// Its token was revoked or has expired.
    Dead,
    /// The revocation mirror is stale.
    Stale,
    /// The config does not allow it any more.
    Forbidden,
}

impl BodyFailure {
    fn kind(self) -> Kind {
        match self {
            Self::TooLarge => Kind::BodyTooLarge,
            Self::Late => Kind::RequestTimeout,
            Self::Malformed => Kind::BadRequest,
            Self::Dead => Kind::Unauthenticated,
            Self::Stale => Kind::Unavailable,
            Self::Forbidden => Kind::InsufficientRole,
        }
    }
}

/// The stage of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Between the request's head and the response's head. At the deadline the client gets 408 or 504.
    Request,
    /// During the response. At the deadline it is broken off.
    Response,
    /// After the response was completed or given up.
    Over,
}

/// The state of one request and its response, shared by the service and both bodies. An HTTP/1.1 connection has one
/// exchange at a time and reuses the value.
pub(super) struct Exchange {
    activity: Arc<ThreadBound<Activity>>,
    access: Arc<Access>,
    stage: Cell<Stage>,
    due: Cell<u64>,
    /// The moment at which all of it ends, however it moves.
    end: Cell<u64>,
    is_expired: Cell<bool>,
    body: Cell<BodyState>,
    failure: Cell<Option<BodyFailure>>,
    /// The bytes of the request's body so far.
    received: Cell<u64>,
    /// The registration by which the end of its token cuts a long exchange.
    registration: RefCell<Option<Registration>>,
    /// Whether another config than the one that has allowed it ends it.
    is_forbidden: Cell<bool>,
    /// Whether the issuer of the token was asked.
    is_settled: Cell<bool>,
    /// Whether the connection becomes a tunnel by it.
    is_tunnel: Cell<bool>,
    /// Whether any request has come on the connection.
    has_begun: Cell<bool>,
    /// The longest pause within a body, and what it is where a route says nothing, in milliseconds.
    pause: Cell<u64>,
    usual_pause: u64,
    /// What the head of the response tells of rate limits.
    limit_lines: RefCell<LimitLines>,
}

impl Exchange {
    /// Creates the exchange of a connection, before its first request.
    pub(super) fn new(limits: &Limits, access: Arc<Access>, activity: Arc<ThreadBound<Activity>>) -> Self {
        Self {
            activity,
            access,
            stage: Cell::new(Stage::Over),
            due: Cell::new(0),
            end: Cell::new(u64::MAX),
            is_expired: Cell::new(false),
            body: Cell::new(BodyState::Complete),
            failure: Cell::new(None),
            received: Cell::new(0),
            registration: RefCell::default(),
            is_forbidden: Cell::new(false),
            is_settled: Cell::new(false),
            is_tunnel: Cell::new(false),
            has_begun: Cell::new(false),
            pause: Cell::new(millis(limits.body_idle_timeout)),
            usual_pause: millis(limits.body_idle_timeout),
            limit_lines: RefCell::default(),
        }
    }

    /// Returns the state of the connection.
    pub(super) fn activity(&self) -> &Activity {
        &self.activity
    }

    /// Returns the budget of the connection's turn.
    pub(super) fn budget(&self) -> &TurnBudget {
        &self.activity.budget
    }

    /// Returns what the head of the response tells of rate limits. Whoever has written the head clears it.
    pub(super) fn limit_lines(&self) -> RefMut<'_, LimitLines> {
        self.limit_lines.borrow_mut()
    }

    /// Returns the moment after `span`.
    pub(super) fn moment(&self, span: Duration) -> u64 {
        self.activity.now() + millis(span)
    }

    /// Returns the moment by which a body must continue.
    pub(super) fn next_body_byte(&self) -> u64 {
        self.activity.now() + self.pause.get()
    }

    /// Sets the longest pause within the bodies of this request and its response.
    pub(super) fn may_pause_for(&self, span: Duration) {
        self.pause.set(millis(span));
    }

    /// Starts the exchange after its whole head was read. The response's head is due after `timeout`; `body` tells whether
    /// a body may follow.
    pub(super) fn begins(&self, timeout: Duration, body: bool) {
        self.activity.exchange_begins();
        self.failure.set(None);
        self.is_forbidden.set(false);
        self.is_settled.set(false);
        self.has_begun.set(true);
        self.received.set(0);
        self.end.set(u64::MAX);
        self.pause.set(self.usual_pause);
        self.body.set(if body { BodyState::Open } else { BodyState::Complete });
        self.enter(Stage::Request, self.moment(timeout));
    }

    /// The issuer of the request's token is to be asked what is missing for a decision. Returns whether it was not yet.
    pub(super) fn settles(&self) -> bool {
        !self.is_settled.replace(true)
    }

    fn enter(&self, stage: Stage, due: u64) {
        self.stage.set(stage);
        self.set_due(due);
        self.is_expired.set(false);
    }

    fn set_due(&self, at: u64) {
        self.due.set(at.min(self.end.get()));
    }

    /// Ends all of it at `end`, a moment of [`Self::moment`], the response included.
    pub(super) fn ends_by(&self, end: u64) {
        self.end.set(end);
        self.set_due(self.due.get());
    }

    /// Sets the deadline of the request to `at`, a moment of [`Self::moment`], even if an earlier one has passed. Has no
    /// effect once the response has begun.
    pub(super) fn expect_by(&self, at: u64) {
        if self.stage.get() == Stage::Request {
            self.enter(Stage::Request, at);
        }
    }

    /// Returns the deadline.
    pub(super) fn due(&self) -> u64 {
        self.due.get()
    }

    /// Notes that the deadline has passed.
    pub(super) fn expire(&self) {
        self.is_expired.set(true);
    }

    /// Returns whether the deadline has passed without progress.
    pub(super) fn is_expired(&self) -> bool {
        self.is_expired.get()
    }

    /// Counts bytes of the request's body and moves the deadline to `at`. Once the response has begun, bytes in either
    /// direction are progress of both.
    pub(super) fn upload_moves(&self, bytes: u64, at: u64) {
        self.received.set(self.received.get() + bytes);
        match self.stage.get() {
            Stage::Request => self.set_due(at),
            Stage::Response => self.response_moves(),
            Stage::Over => {}
        }
    }

    /// Returns the bytes of the request's body so far.
    pub(super) fn request_bytes(&self) -> u64 {
        self.received.get()
    }

    /// Sets the progress of the request's body.
    pub(super) fn body_is(&self, state: BodyState) {
        self.body.set(state);
    }

    /// Returns whether the request's body is incomplete.
    pub(super) fn body_is_open(&self) -> bool {
        self.body.get() != BodyState::Complete
    }

    /// Notes why the request's body was given up.
    pub(super) fn body_fails(&self, failure: BodyFailure) {
        self.failure.set(Some(failure));
    }

    /// Returns the error that the client gets for its body, if the body was given up.
    pub(super) fn body_failure(&self) -> Option<Kind> {
        let is_awaited = self.is_expired() && self.body.get() == BodyState::Awaited;
        self.failure.get().or_else(|| is_awaited.then_some(BodyFailure::Late)).map(BodyFailure::kind)
    }

    /// Ends the registration of a long upload. The response may be a short one.
    pub(super) fn upload_ends(&self) {
        if self.stage.get() == Stage::Request {
            self.registration.take();
        }
    }

    /// Starts the response, whose head is ready.
    pub(super) fn response_begins(&self) {
        self.enter(Stage::Response, self.next_body_byte());
    }

    /// Moves the deadline of the response ahead.
    pub(super) fn response_moves(&self) {
        if self.stage.get() == Stage::Response {
            self.set_due(self.next_body_byte());
        }
    }

    fn ends(&self) {
        self.end.set(u64::MAX);
        self.enter(Stage::Over, u64::MAX);
        self.registration.take();
        self.activity.exchange_ends();
    }

    /// Registers a long exchange, which from now on ends with its lease.
    ///
    /// # Errors
    /// The reason why the lease has ended already.
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

    /// Returns whether the exchange is registered as a long one.
    pub(super) fn is_watched(&self) -> bool {
        self.registration.borrow().is_some()
    }

    /// The connection becomes a tunnel by it.
    pub(super) fn becomes_tunnel(&self) {
        self.is_tunnel.set(true);
    }

    /// Returns whether it has outlived its decision: the response is under way, or its body has begun and not ended.
    pub(super) fn goes_on(&self) -> bool {
        let is_uploading = || self.body_is_open() && self.received.get() > 0;
        self.is_tunnel.get()
            || match self.stage.get() {
                Stage::Request => is_uploading(),
                Stage::Response => true,
                Stage::Over => false,
            }
    }

    /// Returns whether any request has come.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun.get()
    }

    /// Ends it: the config does not allow it any more.
    pub(super) fn end_by_config(&self) {
        self.is_forbidden.set(true);
        self.access.count_cut(Cut::Config);
    }

    /// Returns why a long exchange must end, if its lease has ended or the config does not allow it any more.
    pub(super) fn cut(&self) -> Option<Cut> {
        if self.is_forbidden.get() {
            return Some(Cut::Config);
        }
        self.registration.borrow().as_ref().and_then(Registration::cut)
    }
}

/// Ends an exchange when the response's body is dropped, for whatever reason.
pub(super) struct EndOfResponse(pub(super) Arc<ThreadBound<Exchange>>);

impl Drop for EndOfResponse {
    fn drop(&mut self) {
        // On another thread the worker has ended, and there is nothing to do.
        if let Some(exchange) = self.0.get() {
            exchange.ends();
        }
    }
}

#[cfg(test)]
mod tests {
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
        http2: crate::config::Http2Limits {
            streams: 1,
            header_list: 1,
            resets: crate::config::Rate { count: 1, per: SECOND },
        },
    };

    fn exchange() -> Arc<ThreadBound<Exchange>> {
        let secret = Secret::new("a-secret-for-unit-tests-only-0123456789");
        let keyring = CurrentKeyring::new(Keyring::of_secrets(&secret, None, None).unwrap());
        let auth = crate::config::tests::auth();
        let access = Access::new(
            Arc::new(Verifier::new(&auth, keyring, Vec::new(), None)),
            Arc::new(Mirror::new(Duration::from_secs(5))),
            Arc::new(TimeKeeper::new(ManualClock::at(0))),
            Arc::new(Metrics::new().unwrap()),
            None,
            &auth,
            None,
        );
        let activity = Arc::new(ThreadBound::new(Activity::new(&LIMITS, None)));
        Arc::new(ThreadBound::new(Exchange::new(&LIMITS, Arc::new(access), activity)))
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
    fn an_exchange_with_an_end_is_not_prolonged_by_its_progress() {
        let exchange = exchange();
        exchange.begins(9 * SECOND, true);
        let end = exchange.moment(SECOND / 2);
        exchange.ends_by(end);
        assert_eq!(exchange.due(), end);
        exchange.upload_moves(5, end + 5_000);
        exchange.response_begins();
        exchange.response_moves();
        assert_eq!(exchange.due(), end);
        exchange.begins(9 * SECOND, true);
        assert!(exchange.due() > end, "the next one has none");
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
    fn the_end_of_the_response_ends_the_exchange() {
        let exchange = exchange();
        exchange.begins(SECOND, false);
        let end = EndOfResponse(exchange.clone());
        exchange.response_begins();
        assert!(exchange.activity().is_busy());
        drop(end);
        assert_eq!(exchange.activity().phase(), Phase::Idle);
    }
}
