//! The state that all parts of one connection share.

use std::sync::Arc;

use super::{
    activity::{Activity, Phase},
    client::Peer,
    exchange::Exchange,
    handshake::Secured,
    judged::Judged,
    listener::Listener,
    target::Scheme,
    thread_bound::ThreadBound,
    view::CurrentView,
};

/// The state that all parts of one connection share.
pub(super) struct ConnectionState {
    pub(super) views: Arc<CurrentView>,
    pub(super) peer: Peer,
    /// The listener that it came to.
    pub(super) listener: Arc<Listener>,
    /// What TLS says of it.
    pub(super) secured: Option<Arc<Secured>>,
    pub(super) activity: Arc<ThreadBound<Activity>>,
    /// The current exchange, or the last one.
    pub(super) exchange: Arc<ThreadBound<Exchange>>,
    /// What its decision went by.
    pub(super) judged: ThreadBound<Judged>,
}

impl ConnectionState {
    /// Returns the scheme that the client uses.
    pub(super) fn scheme(&self) -> Scheme {
        if self.secured.is_some() { Scheme::Https } else { Scheme::Http }
    }

    /// Returns the time and the deadline.
    pub(super) fn clock(&self) -> (u64, u64) {
        (self.activity.now(), self.activity.due(self.exchange.due()))
    }

    /// Notes that the deadline has passed. Returns whether a request is in progress, which will respond to that.
    pub(super) fn expire(&self) -> bool {
        match self.activity.phase() {
            Phase::Idle => return false,
            Phase::Head => self.activity.head_expires(),
            Phase::Exchange => self.exchange.expire(),
        }
        true
    }

    /// Returns whether the deadline has passed without progress.
    pub(super) fn is_expired(&self) -> bool {
        match self.activity.phase() {
            Phase::Idle => false,
            Phase::Head => self.activity.head_is_late(),
            Phase::Exchange => self.exchange.is_expired(),
        }
    }

    /// Returns until when the connection may be idle without its HTTP state. None if the state is still needed; then the
    /// deadline moves to the idle timeout. `is_idle` tells whether no byte of a request was read and none of a response is
    /// left.
    pub(super) fn may_rest(&self, is_idle: bool) -> Option<u64> {
        let rests = self.activity.waits_on()
            && is_idle
            && !self.exchange.body_is_open()
            && !self.exchange.is_watched();
        rests.then(|| self.clock().1)
    }

    /// Judges a stream that goes on again, if it was judged by another snapshot than the present one. It is cut if its route is gone, or
    /// no longer allows its caller.
    pub(super) fn judge_again(&self) {
        let number = self.views.number();
        if self.judged.is_by(number) || !self.exchange.goes_on() {
            return;
        }
        let view = self.views.get();
        if !self.judged.again(&view.snapshot, self.scheme()) {
            self.exchange.end_by_config();
        }
    }

    /// Notes that bytes of the response were written.
    pub(super) fn response_leaves(&self) {
        self.activity.client_reads();
        self.activity.moves();
        self.exchange.response_moves();
    }
}
