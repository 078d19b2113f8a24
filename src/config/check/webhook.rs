//! Receivers of events: `webhooks`.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use super::Check;
use crate::{
    config::{HttpUrl, UpstreamTls, Webhook, raw},
    types::{EventType, WebhookSecret},
};

/// The most receivers.
const MOST: usize = 32;

/// Lines of the audit trail are kept for longer than messages about them may wait.
const LEAST_KEPT: Duration = Duration::from_secs(8 * 86_400);

/// The longest time for a message.
const LONGEST: Duration = Duration::from_secs(60);

impl Check<'_> {
    pub(super) fn webhooks(&mut self, raw: Vec<raw::Webhook>, keep_audit: Duration) -> Vec<Webhook> {
        if raw.len() > MOST {
            self.error("webhooks", format!("expected at most {MOST}"));
        }
        if !raw.is_empty() && keep_audit < LEAST_KEPT {
            self.error(
                "audit.keep",
                "expected 8d or more beside `webhooks`, whose messages may wait for a week",
            );
        }
        let (mut names, mut webhooks) = (HashSet::new(), Vec::new());
        for (index, webhook) in raw.into_iter().enumerate() {
            let key = format!("webhooks[{index}]");
            if !names.insert(webhook.url.clone()) {
                self.error(&format!("{key}.url"), "is given twice; name all events in one place");
            }
            webhooks.extend(self.webhook(&key, webhook));
        }
        webhooks
    }

    fn webhook(&mut self, key: &str, raw: raw::Webhook) -> Option<Webhook> {
        let url = HttpUrl::parse(&raw.url).map_err(|legal| self.error(&format!("{key}.url"), legal)).ok();
        let secret = WebhookSecret::parse(raw.secret.expose());
        if secret.is_none() {
            const LEGAL: &str = "expected 24 to 64 bytes in Base64, for example whsec_ and what `openssl rand -base64 32` says";
            self.error(&format!("{key}.secret"), LEGAL);
        }
        let mut events = BTreeSet::new();
        if raw.events.is_empty() {
            self.error(&format!("{key}.events"), "expected at least one, such as user.created");
        }
        for (index, text) in raw.events.iter().enumerate() {
            let meant = EventType::matching(text);
            if meant.is_empty() {
                let all: Vec<_> = EventType::all().map(EventType::name).collect();
                let legal = format!("expected `*`, such as user.*, or one of {}", all.join(", "));
                self.error(&format!("{key}.events[{index}]"), legal);
            }
            events.extend(meant);
        }
        let timeout = self.span(&format!("{key}.timeout"), raw.timeout, Duration::from_secs(15));
        if timeout > LONGEST {
            self.error(&format!("{key}.timeout"), "expected at most 60s");
        }
        Some(Webhook {
            name: raw.url,
            url: url?,
            secret: secret?,
            events: events.into_iter().collect(),
            timeout,
            tls: UpstreamTls {
                ca: raw.ca.map(|ca| self.document.folder.join(ca)),
                beside_system: false,
                name: None,
                own: None,
                source: self.document.source(&format!("{key}.ca")),
            },
        })
    }
}
