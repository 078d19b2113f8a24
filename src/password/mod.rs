//! Passwords: the rules for new ones, and hashing that cannot starve the request path.

mod cost;
mod foreign;
mod pool;
mod rule;

pub use foreign::{ForeignHash, ForeignHashError};
pub use pool::{Busy, HashError, Hasher, Verdict};
pub use rule::{MAX_PASSWORD_BYTES, PasswordError, Rules};
