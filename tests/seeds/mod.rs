//! What each of the five services documents, sent to authgate under the config that replaces it.

mod a;
mod b;
mod c;
mod d;
mod e;

/// Keys as an operator would make them.
pub const SECRET_KEY: &str = "Zk3vQ9tW1xR7yB5nM8pL2cF6hJ4gD0sA";
pub const JWT_SECRET_KEY: &str = "uT6yR2wE8qP4oI0aS9dF7gH3jK5lM1nB";

/// Passwords as the documents of such services have them.
pub const PASSWORD: &str = "hunter-and-gatherer";
