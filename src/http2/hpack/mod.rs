//! The compression of header lines (RFC 7541).

mod decoder;
pub(super) mod encoder;
mod huffman;
mod repeated;
mod table;

use thiserror::Error;

pub(super) use decoder::Decoder;
pub(super) use table::{Line, Name, Pseudo};

/// A header block cannot be read, and so none behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("a header block cannot be read")]
pub(super) struct Undecodable;
