//! How a connection ends.

use std::io;

use thiserror::Error;

use super::{frame, reason::Reason, state::State};

/// Why a connection has ended. The text is for the log.
#[derive(Debug, Error)]
pub enum Ended {
    /// Nothing was wrong.
    #[error("it came to its end")]
    Quietly,
    /// The other side broke the rules.
    #[error("the other side broke the rules: {0}")]
    Broken(Reason),
    /// The socket failed.
    #[error(transparent)]
    Lost(#[from] io::Error),
}

/// How far a connection has come on its way to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Open,
    /// The other side was told that it ends, and what is on its way is still taken.
    Told,
    /// Nothing new is taken.
    Leaving,
    /// What is left to send is sent.
    Closing,
    /// Everything was said. What the other side still sends is dropped: a socket that is closed with unread bytes resets the
    /// connection, and takes back what the other side has not read.
    Lingering,
    Over,
}

/// Says that the connection ends, and which stream is the last one that is processed (RFC 9113, section 6.8).
pub(super) fn goaway(state: &mut State, last: u32, reason: Reason) {
    let mut payload = [0; 8];
    payload[..4].copy_from_slice(&last.to_be_bytes());
    payload[4..].copy_from_slice(&reason.0.to_be_bytes());
    frame::write(state.out.frames(), frame::GOAWAY, 0, 0, &payload);
}
