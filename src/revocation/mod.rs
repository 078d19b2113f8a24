//! Which unexpired tokens are dead: known exactly, in memory, without asking anyone.
//!
//! [`Mirror`] is a copy of the live rows of the store's revocation log. It is not a cache: nothing
//! is ever evicted from it, because an evicted revocation would be valid again. [`Follower`] keeps
//! it true: all rows before anything is served, then each second whatever was added, by this
//! process or another; and everything anew when the store turns out to have lost a part of its past.
//! [`LiveApiKeys`] is the same the other way round: all API keys that live.
//! [`LiveStreams`] finds what still flows on a token that dies.

mod api_keys;
mod follower;
mod live;
mod mirror;

pub use api_keys::{AcceptedKey, KeyRefused, LiveApiKeys};
pub use follower::{Followed, Follower};
pub use live::{Cut, LiveStreams, Registration, Token};
pub use mirror::{Mirror, Staleness};
