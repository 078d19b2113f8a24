//! What the parts of one connection share.

use std::sync::Arc;

use super::{client::Peer, exchange::Exchange, target::Scheme, view::CurrentView};

/// What the parts of one connection share.
pub(super) struct ConnectionState {
    pub(super) views: Arc<CurrentView>,
    pub(super) scheme: Scheme,
    pub(super) peer: Peer,
    pub(super) exchange: Arc<Exchange>,
}
