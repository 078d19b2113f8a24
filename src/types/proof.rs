//! How users show who they are.

/// The method by which the user was authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The account's password.
    Password,
}

impl Proof {
    /// Returns the name of the method (RFC 8176, section 2).
    pub const fn method(self) -> &'static str {
        match self {
            Self::Password => "pwd",
        }
    }
}
