//! The head of a response, as a value.

use bytes::Bytes;
use http::StatusCode;

use crate::types::{fields::Fields, framing::Head};

/// The head of a response.
#[derive(Debug)]
pub struct ResponseHead {
    /// Its status.
    pub status: StatusCode,
    /// Whether the upstream speaks HTTP/1.0.
    pub old: bool,
    /// Its field lines.
    pub fields: Fields,
}

impl ResponseHead {
    /// Parses the field lines of `head`, whose bytes are `bytes`. The values are slices of them.
    pub(super) fn parse(bytes: &Bytes, head: &Head) -> Result<Self, &'static str> {
        const NOT_HTTP: &str = "the head of the response is not HTTP";
        let fields = Fields::parse(bytes, head).map_err(|_| NOT_HTTP)?;
        let status = StatusCode::from_u16(head.status).map_err(|_| NOT_HTTP)?;
        Ok(Self { status, old: head.old, fields })
    }
}
