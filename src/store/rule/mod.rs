//! The rules of the store, written once for both databases: facts in, a plan out. A database gathers the facts under its
//! locks and executes the plan; the functions here are pure.

pub(super) mod change;
pub(super) mod key;
pub(super) mod registration;
pub(super) mod rotation;
pub(super) mod session;
