//! Which route takes a request: the most specific one, whatever the order in the file.
//!
//! Routes stand in a trie of path segments, one for each host and one for all hosts. A search
//! visits the candidates from the most specific on and takes the first that has the method, so
//! precedence is the order of the walk and nothing else: host over no host, then from the left
//! literal over `{x}` over `**`.

mod compiled;
mod conflict;
mod table;
mod trie;

pub use compiled::{Builtin, Route};
pub use table::{Match, Table};
