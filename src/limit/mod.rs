//! How often something may be tried.

mod connections;
mod gate;
mod throttle;

pub use connections::{AddressCounts, CountedConnection};
pub use gate::{Admitted, CallGate};
pub use throttle::{Bucket, Counter, Prefix, Throttle, Throttled};
