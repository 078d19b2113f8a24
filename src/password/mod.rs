//! Passwords: the rules for new ones, and hashing that cannot starve the request path.

mod breached;
mod cost;
mod foreign;
mod job;
mod pool;
mod queue;
mod rule;
mod share;

pub use breached::{Breached, BreachedError, BreachedFile, Built, build, public_hash};
pub use foreign::{ForeignHash, ForeignHashError};
pub use job::{Busy, HashError, Verdict};
pub use pool::Hasher;
pub use rule::{MAX_PASSWORD_BYTES, PasswordError, Rules};
pub use share::Origin;
