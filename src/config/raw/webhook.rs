//! The part of the config that is about webhooks, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::units::Span;
use crate::types::Secret;

/// A receiver that is told of events (Standard Webhooks).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where messages are posted to: https, or http on this machine.
    pub url: String,
    /// What they are signed with: 24 to 64 bytes in Base64, with whsec_ before them.
    pub secret: Secret,
    /// What it is told of, such as user.created, user.* for all about users, or `*` for everything.
    pub events: Vec<String>,
    /// For one message. Default: 15s.
    pub timeout: Option<Span>,
    /// A PEM file with the authorities that its certificate may be of. Default: those of the system.
    pub ca: Option<String>,
}
