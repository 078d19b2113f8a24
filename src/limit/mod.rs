//! How often something may be tried.

mod connections;
mod throttle;

pub use connections::{AddressCounts, CountedConnection};
pub use throttle::{Attempt, Prefix, Throttle, Throttled};
