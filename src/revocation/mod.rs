//! Which unexpired tokens are dead: known exactly, in memory, without asking anyone.
//!
//! [`Mirror`] is a copy of the live rows of the store's revocation log. It is not a cache: nothing
//! is ever evicted from it, because an evicted revocation would be valid again. [`Follower`] keeps
//! it true: all rows before anything is served, then each second whatever was added, by this
//! process or another.

mod follower;
mod mirror;

pub use follower::Follower;
pub use mirror::{Mirror, Staleness};
