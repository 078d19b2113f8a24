//! Receivers that are told of events.

use std::time::Duration;

use super::{HttpUrl, UpstreamTls};
use crate::types::{EventType, WebhookSecret};

/// A receiver that is told of events.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Its address as it is written, which tells it from others.
    pub name: String,
    /// Its address.
    pub url: HttpUrl,
    /// What messages to it are signed with.
    pub secret: WebhookSecret,
    /// What it is told of.
    pub events: Vec<EventType>,
    /// For one message.
    pub timeout: Duration,
    /// TLS to it.
    pub tls: UpstreamTls,
}
