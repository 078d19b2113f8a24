//! How often something may be tried.

mod throttle;

pub use throttle::{Attempt, Throttle, Throttled};
