//! The rules of the store, once for both databases: facts in, a plan out. Nothing here reads or writes; a database gathers
//! the facts under its locks, and executes the plan.

pub(super) mod change;
pub(super) mod key;
pub(super) mod rotation;
