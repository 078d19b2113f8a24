//! How often something may be tried.

mod connections;
mod gate;
mod rate;
mod throttle;

pub use connections::{AddressCounts, CountedConnection};
pub use gate::{Admitted, CallGate};
pub use rate::{Left, Rate, Rates};
pub use throttle::{Bucket, Counter, Prefix, Throttle, Throttled};
