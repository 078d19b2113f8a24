//! What the parts of one connection share.

use std::sync::Arc;

use super::{
    activity::{Activity, Phase},
    client::Peer,
    exchange::Exchange,
    target::Scheme,
    thread_bound::ThreadBound,
    view::CurrentView,
};
use crate::clock::coarse_millis;

/// What the parts of one connection share.
pub(super) struct ConnectionState {
    pub(super) views: Arc<CurrentView>,
    pub(super) scheme: Scheme,
    pub(super) peer: Peer,
    pub(super) activity: Arc<ThreadBound<Activity>>,
    /// The request that is under way, or the last one.
    pub(super) exchange: Arc<ThreadBound<Exchange>>,
}

impl ConnectionState {
    /// The present moment, and the one by which something must move.
    pub(super) fn clock(&self) -> (u64, u64) {
        (coarse_millis(), self.activity.due(self.exchange.due()))
    }

    /// The moment has come and gone; whether somebody is there to say so to the client.
    pub(super) fn expire(&self) -> bool {
        match self.activity.phase() {
            Phase::Idle => return false,
            Phase::Head => self.activity.head_expires(),
            Phase::Exchange => self.exchange.expire(),
        }
        true
    }

    /// Whether the moment has come and gone without progress.
    pub(super) fn is_expired(&self) -> bool {
        match self.activity.phase() {
            Phase::Idle => false,
            Phase::Head => self.activity.head_is_late(),
            Phase::Exchange => self.exchange.is_expired(),
        }
    }

    /// Until when the connection may rest without what serves requests on it; none where nothing is gained, or where
    /// something is still to be written. Then it is given the rest of its time.
    pub(super) fn may_rest(&self) -> Option<u64> {
        let rests = self.activity.waits_on()
            && self.activity.is_written()
            && !self.exchange.body_is_open()
            && !self.exchange.is_watched();
        rests.then(|| self.clock().1)
    }

    /// Bytes of the response were written.
    pub(super) fn response_leaves(&self) {
        self.activity.client_reads();
        self.activity.moves();
        self.exchange.response_moves();
    }
}
