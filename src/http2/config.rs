//! What one side of a connection allows the other.

use crate::types::framing::HeadLimits;

/// What one side of a connection allows the other.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The window of a new stream, in bytes.
    pub stream_window: u32,
    /// What it grows to while the stream is read, in bytes.
    pub max_stream_window: u32,
    /// The window of the connection, in bytes.
    pub connection_window: u32,
    /// How long a server may leave requests without a byte before it is asked whether it is there, and how long it has to say so
    /// before it gets no more of them, in milliseconds.
    pub silence: u64,
    /// The limits of a list of header lines (RFC 9113, section 6.5.2).
    pub header_limits: HeadLimits,
}
