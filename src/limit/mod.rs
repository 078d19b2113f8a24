//! How often something may be tried.

mod throttle;

pub use throttle::{Attempt, Prefix, Throttle, Throttled};
